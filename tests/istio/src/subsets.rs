//! Clusters of a DestinationRule: one for each subset and port.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// As Istio names it.
pub fn cluster(port: u64, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

pub fn of(rule: &Value, service: &Value) -> Result<Vec<Value>> {
    let spec = &rule["spec"];
    let host = spec["host"].as_str().context("a DestinationRule without a host")?;
    let mut clusters = Vec::new();
    for subset in spec["subsets"].as_array().into_iter().flatten() {
        let name = subset["name"].as_str().context("a subset without a name")?;
        let pool = subset["labels"]["tfs-pool"].as_str().context("a subset without the label tfs-pool")?;
        // A subset's policy replaces whole fields of the rule's.
        let policy = |field: &str| match &subset["trafficPolicy"][field] {
            Value::Null => spec["trafficPolicy"][field].clone(),
            own => own.clone(),
        };
        for port in service["spec"]["ports"].as_array().into_iter().flatten() {
            let number = port["port"].as_u64().context("a port without a number")?;
            let endpoint = json!({ "address": format!("tfs-{pool}"), "port_value": number });
            let mut made = json!({
                "name": cluster(number, name, host),
                "type": "STATIC",
                "connect_timeout": seconds(&policy("connectionPool")["tcp"]["connectTimeout"])?,
                "lb_policy": policy("loadBalancer")["simple"],
                "circuit_breakers": { "thresholds": [thresholds(&policy("connectionPool"))] },
                "outlier_detection": outlier_detection(&policy("outlierDetection")),
                // minHealthPercent is 0 by default, which switches the panic threshold off.
                "common_lb_config": { "healthy_panic_threshold": {} },
                "load_assignment": {
                    "cluster_name": cluster(number, name, host),
                    "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": { "socket_address": endpoint } } }] }],
                },
            });
            if port["appProtocol"] == "grpc" {
                made["typed_extension_protocol_options"] = json!({
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": { "http2_protocol_options": {} },
                    },
                });
            }
            clusters.push(made);
        }
    }
    Ok(clusters)
}

/// Envoy's JSON has no milliseconds.
fn seconds(duration: &Value) -> Result<String> {
    let text = duration.as_str().context("a duration that is no text")?;
    match text.strip_suffix("ms") {
        Some(milliseconds) => Ok(format!("{}s", milliseconds.parse::<f64>()? / 1000.0)),
        None => Ok(text.to_owned()),
    }
}

fn thresholds(pool: &Value) -> Value {
    json!({
        "max_connections": pool["tcp"]["maxConnections"],
        "max_pending_requests": pool["http"]["http1MaxPendingRequests"],
        "max_requests": pool["http"]["http2MaxRequests"],
        "max_retries": pool["http"]["maxRetries"],
    })
}

fn outlier_detection(policy: &Value) -> Value {
    json!({
        "split_external_local_origin_errors": policy["splitExternalLocalOriginErrors"],
        "consecutive_local_origin_failure": policy["consecutiveLocalOriginFailures"],
        "consecutive_gateway_failure": policy["consecutiveGatewayErrors"],
        "enforcing_consecutive_gateway_failure": 100,
        "consecutive_5xx": policy["consecutive5xxErrors"],
        "enforcing_consecutive_5xx": if policy["consecutive5xxErrors"] == 0 { 0 } else { 100 },
        // Istio always switches it off.
        "enforcing_success_rate": 0,
        "interval": policy["interval"],
        "base_ejection_time": policy["baseEjectionTime"],
        "max_ejection_percent": policy["maxEjectionPercent"],
    })
}
