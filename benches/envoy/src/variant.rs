//! What is measured beside each other.

use std::path::Path;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::bootstrap::CLUSTERS;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Variant {
    /// Envoy with nothing but its router; every ratio is to this
    NoFilter,
    /// The same once more: what differs between the two is noise
    NoFilterAgain,
    /// Envoy's own weighted clusters, header match, local_ratelimit and outlier_detection; no model is read
    Native,
    /// A Wasm filter that does nothing
    WasmNoop,
    /// A Wasm filter that asks the host what this filter asks and decides nothing: no code could cost less
    WasmCalls,
    /// A Lua script that reads headers and routes
    LuaHeaders,
    /// A Lua script that reads the body and routes
    LuaBody,
    /// This filter: the model is read from the body, one target
    Identity,
    /// This filter: a sticky split and routes by version and label
    Split,
    /// This filter: a limit for each tenant and one for all
    Limits,
    /// This filter: split, limits, ejection and guard
    Everything,
}

impl Variant {
    /// As it is typed and shown.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The configuration of this filter, where the variant is one.
    pub fn configuration(self) -> Option<&'static str> {
        match self {
            Self::Identity => Some(include_str!("../plugin/identity.json")),
            Self::Split => Some(include_str!("../plugin/split.json")),
            Self::Limits => Some(include_str!("../plugin/limits.json")),
            Self::Everything => Some(include_str!("../plugin/everything.json")),
            _ => None,
        }
    }

    pub fn setup(self, modules: &Modules<'_>) -> Setup {
        let plain = Setup { filters: vec![], routes: json!([to_stable()]), outlier_detection: None };
        if let Some(configuration) = self.configuration() {
            return predictgate(modules.predictgate, configuration);
        }
        match self {
            Self::Native => Setup {
                filters: vec![local_ratelimit()],
                routes: json!([weighted(), to_stable()]),
                outlier_detection: Some(json!({ "consecutive_5xx": 5 })),
            },
            Self::WasmNoop => Setup { filters: vec![wasm(modules.noop, "")], ..plain },
            Self::WasmCalls => predictgate(modules.calls, ""),
            Self::LuaHeaders => {
                Setup { filters: vec![lua(LUA_HEADERS)], routes: json!([by_version(), to_canary()]), ..plain }
            }
            Self::LuaBody => {
                Setup { filters: vec![lua(LUA_BODY)], routes: json!([by_version(), to_canary()]), ..plain }
            }
            _ => plain,
        }
    }
}

/// The files of Wasm modules.
#[derive(Clone, Copy, Debug)]
pub struct Modules<'a> {
    pub predictgate: &'a Path,
    pub noop: &'a Path,
    pub calls: &'a Path,
}

/// What of Envoy's configuration differs.
#[derive(Clone, Debug)]
pub struct Setup {
    pub filters: Vec<Value>,
    pub routes: Value,
    pub outlier_detection: Option<Value>,
}

/// This filter, which names the cluster.
pub fn predictgate(module: &Path, configuration: &str) -> Setup {
    let routes =
        json!([route(&json!({ "prefix": "/" }), &json!({ "cluster_header": "x-predictgate-cluster" }))]);
    Setup { filters: vec![wasm(module, configuration)], routes, outlier_detection: None }
}

fn route(of: &Value, to: &Value) -> Value {
    let mut route = json!({ "match": of, "route": to });
    route["route"]["timeout"] = json!("60s");
    route
}

fn to_stable() -> Value {
    route(&json!({ "prefix": "/" }), &json!({ "cluster": CLUSTERS[0] }))
}

fn to_canary() -> Value {
    route(&json!({ "prefix": "/" }), &json!({ "cluster": CLUSTERS[1] }))
}

fn by_version() -> Value {
    let header = json!([{ "name": "x-model-version", "string_match": { "exact": "v1" } }]);
    route(&json!({ "prefix": "/", "headers": header }), &json!({ "cluster": CLUSTERS[0] }))
}

fn weighted() -> Value {
    let of = json!({
        "prefix": "/tensorflow.serving.PredictionService/",
        "headers": [{ "name": "x-user-id", "present_match": true }],
    });
    let clusters = json!([{ "name": CLUSTERS[0], "weight": 90 }, { "name": CLUSTERS[1], "weight": 10 }]);
    route(&of, &json!({ "weighted_clusters": { "clusters": clusters } }))
}

fn local_ratelimit() -> Value {
    let all = json!({ "default_value": { "numerator": 100 } });
    json!({
        "name": "envoy.filters.http.local_ratelimit",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "limit",
            "token_bucket": { "max_tokens": 1_000_000, "tokens_per_fill": 1_000_000, "fill_interval": "1s" },
            "filter_enabled": all,
            "filter_enforced": all,
        },
    })
}

fn wasm(module: &Path, configuration: &str) -> Value {
    json!({
        "name": "wasm",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": "wasm",
                "allow_on_headers_stop_iteration": true,
                "failure_policy": "FAIL_RELOAD",
                "vm_config": {
                    "vm_id": "wasm",
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": { "local": { "filename": module } },
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": configuration,
                },
            },
        },
    })
}

fn lua(script: &str) -> Value {
    json!({
        "name": "envoy.filters.http.lua",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": { "inline_string": script },
        },
    })
}

/// What one would write who trusts headers.
const LUA_HEADERS: &str = r#"
function envoy_on_request(handle)
  local user = handle:headers():get("x-user-id")
  local canary = string.byte(user, -1) == 48
  handle:headers():replace("x-model-version", canary and "v2" or "v1")
end
function envoy_on_response(handle)
  local status = handle:headers():get("grpc-status")
end
"#;

/// What one would write who needs the model: it stands within the first bytes, but Lua gets a body whole or not.
const LUA_BODY: &str = r#"
function envoy_on_request(handle)
  local user = handle:headers():get("x-user-id")
  local body = handle:body()
  local start = body:getBytes(0, math.min(body:length(), 256))
  local model = string.sub(start, 10, 9 + string.byte(start, 9))
  local canary = model ~= "resnet" or string.byte(user, -1) == 48
  handle:headers():replace("x-model-version", canary and "v2" or "v1")
end
function envoy_on_response(handle)
  local status = handle:headers():get("grpc-status")
end
"#;
