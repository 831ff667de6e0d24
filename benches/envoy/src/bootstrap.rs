//! Envoy's own configuration: one listener, two clusters, and the filters of a variant between them.

use std::net::SocketAddr;

use serde_json::{Value, json};

/// How much Envoy may hold of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    /// Envoy's own: 16 MiB for a stream.
    Default,
    /// 64 KiB for a stream, 32 KiB for a connection's buffer, as Envoy advises for an edge.
    Small,
}

pub const CLUSTERS: [&str; 2] = ["tfs-v1", "tfs-v2"];

pub fn bootstrap(
    filters: &[Value],
    routes: &Value,
    outlier_detection: Option<&Value>,
    servers: [SocketAddr; 2],
    windows: Windows,
) -> Value {
    let mut http2 = json!({});
    if windows == Windows::Small {
        http2 = json!({ "initial_stream_window_size": 65_536, "initial_connection_window_size": 1_048_576 });
    }
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
    });
    let filters = [filters, &[router]].concat();
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "models",
        "codec_type": "HTTP2",
        "http2_protocol_options": http2,
        "http_filters": filters,
        "route_config": {
            "name": "models",
            "virtual_hosts": [{ "name": "models", "domains": ["*"], "routes": routes }],
        },
    });
    let mut listener = json!({
        "name": "models",
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } },
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": manager,
        }] }],
    });
    let mut clusters: Vec<Value> =
        CLUSTERS.into_iter().zip(servers).map(|(name, server)| cluster(name, server, &http2)).collect();
    for cluster in &mut clusters {
        if let Some(outlier_detection) = outlier_detection {
            cluster["outlier_detection"] = outlier_detection.clone();
        }
    }
    if windows == Windows::Small {
        for it in std::iter::once(&mut listener).chain(&mut clusters) {
            it["per_connection_buffer_limit_bytes"] = json!(32_768);
        }
    }
    json!({
        "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } },
        "static_resources": { "listeners": [listener], "clusters": clusters },
    })
}

fn cluster(name: &str, server: SocketAddr, http2: &Value) -> Value {
    let many = 100_000;
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": { "thresholds": [{
            "max_connections": many, "max_pending_requests": many, "max_requests": many,
        }] },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": http2 },
            },
        },
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [{ "endpoint": {
            "address": { "socket_address": { "address": server.ip(), "port_value": server.port() } },
        } }] }] },
    })
}
