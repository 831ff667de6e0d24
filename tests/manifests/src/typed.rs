//! Reads each object into the type that a crate has for it, and back: what gets lost is a key that the type does
//! not have.

use gateway_api::apis::standard as gateway;
use istio_api_rs::{extensions, networking, security, telemetry};
use k8s_openapi::api::{apps, autoscaling, core, networking as k8s_networking, policy};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Fault;
use crate::object::Object;

/// Kinds that no well-kept crate has a type for; CRDs alone check them.
const UNTYPED: [&str; 5] =
    ["TrafficExtension", "ScaledObject", "PodMonitor", "PrometheusRule", "EnvoyExtensionPolicy"];

/// Whether a crate has a type for the object; what is wrong goes to `faults`.
pub fn check(object: &Object, faults: &mut Vec<Fault>) -> bool {
    let Some(read) = reader(object.api_version(), object.kind()) else {
        if !UNTYPED.contains(&object.kind()) {
            let problem = format!("this check has no type for {} {}", object.api_version(), object.kind());
            faults.push(Fault::new(object.place(), problem));
        }
        return false;
    };
    if let Err(problem) = read(&object.value) {
        faults.push(Fault::new(object.place(), problem));
    }
    true
}

type Reader = fn(&Value) -> Result<(), String>;

fn reader(api_version: &str, kind: &str) -> Option<Reader> {
    let reader: Reader = match (api_version, kind) {
        ("v1", "Namespace") => through::<core::v1::Namespace>,
        ("v1", "ResourceQuota") => through::<core::v1::ResourceQuota>,
        ("v1", "Service") => through::<core::v1::Service>,
        ("v1", "ConfigMap") => through::<core::v1::ConfigMap>,
        ("v1", "PersistentVolumeClaim") => through::<core::v1::PersistentVolumeClaim>,
        ("apps/v1", "Deployment") => through::<apps::v1::Deployment>,
        ("autoscaling/v2", "HorizontalPodAutoscaler") => through::<autoscaling::v2::HorizontalPodAutoscaler>,
        ("policy/v1", "PodDisruptionBudget") => through::<policy::v1::PodDisruptionBudget>,
        ("networking.k8s.io/v1", "NetworkPolicy") => through::<k8s_networking::v1::NetworkPolicy>,
        ("extensions.istio.io/v1alpha1", "WasmPlugin") => {
            through::<extensions::v1alpha1::wasm_plugin::WasmPlugin>
        }
        ("networking.istio.io/v1", "Gateway") => through::<networking::v1::gateway::Gateway>,
        ("networking.istio.io/v1", "VirtualService") => {
            through::<networking::v1::virtual_service::VirtualService>
        }
        ("networking.istio.io/v1", "DestinationRule") => {
            through::<networking::v1::destination_rule::DestinationRule>
        }
        ("networking.istio.io/v1alpha3", "EnvoyFilter") => {
            through::<networking::v1alpha3::envoy_filter::EnvoyFilter>
        }
        ("security.istio.io/v1", "RequestAuthentication") => {
            through::<security::v1::request_authentication::RequestAuthentication>
        }
        ("security.istio.io/v1", "AuthorizationPolicy") => {
            through::<security::v1::authorization_policy::AuthorizationPolicy>
        }
        ("security.istio.io/v1", "PeerAuthentication") => {
            through::<security::v1::peer_authentication::PeerAuthentication>
        }
        ("telemetry.istio.io/v1", "Telemetry") => through::<telemetry::v1::telemetry::Telemetry>,
        ("gateway.networking.k8s.io/v1", "Gateway") => through::<gateway::gateways::Gateway>,
        ("gateway.networking.k8s.io/v1", "GRPCRoute") => through::<gateway::grpcroutes::GRPCRoute>,
        ("gateway.networking.k8s.io/v1", "HTTPRoute") => through::<gateway::httproutes::HTTPRoute>,
        _ => return None,
    };
    Some(reader)
}

fn through<T: DeserializeOwned + Serialize>(value: &Value) -> Result<(), String> {
    let typed: T = serde_path_to_error::deserialize(value).map_err(|error| error.to_string())?;
    let back = serde_json::to_value(&typed).map_err(|error| error.to_string())?;
    kept(value, &back, "")
}

/// Everything in `value` is in `back`.
fn kept(value: &Value, back: &Value, path: &str) -> Result<(), String> {
    match (value, back) {
        (Value::Object(value), Value::Object(back)) => value.iter().try_for_each(|(key, value)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let back = back.get(key).ok_or_else(|| format!("{path}: unknown key"))?;
            kept(value, back, &path)
        }),
        (Value::Array(value), Value::Array(back)) if value.len() == back.len() => {
            let mut pairs = value.iter().zip(back).enumerate();
            pairs.try_for_each(|(number, (value, back))| kept(value, back, &format!("{path}[{number}]")))
        }
        (Value::Number(value), Value::Number(back)) if value.as_f64() == back.as_f64() => Ok(()),
        _ if value == back => Ok(()),
        _ => Err(format!("{path}: found {value}, which is read as {back}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_that_the_type_does_not_have_is_found_with_its_path() {
        let service = json!({ "apiVersion": "v1", "kind": "Service", "spec": { "ports": [{ "port": 1, "prot": "TCP" }] } });
        let problem = through::<core::v1::Service>(&service).unwrap_err();
        assert_eq!(problem, "spec.ports[0].prot: unknown key");
    }
}
