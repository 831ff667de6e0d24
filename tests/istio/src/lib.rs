//! The manifests of `istio/` as an Envoy sees them.
//!
//! This is no istiod. It does what istiod does with the few fields that the manifests use (its sources at 1.29.6 and
//! 1.30.3), so that the files that are shipped run in a real Envoy: the filter by ECDS, routes in the order of the
//! VirtualService, a cluster for each subset and port.
//! Left out is what needs a mesh or a cluster of Kubernetes: TLS, discovery of endpoints, JWT, Istio's own filters,
//! and the agent, which fetches the module.

mod routes;
mod subsets;

use anyhow::{Context as _, Result, ensure};
use predictgate_e2e::Scenario;
use predictgate_e2e::plugin::read_yaml;
use predictgate_e2e::tools;
use serde_json::{Value, json};

const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";

/// What brings the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// `base/wasmplugin.yaml`
    WasmPlugin,
    /// `overlays/istio-1.30/trafficextension.yaml`
    TrafficExtension,
    /// `overlays/body/envoyfilter.yaml`
    EnvoyFilter,
}

/// The ingress gateway of `base`, with the filter.
///
/// The pods with the label `tfs-pool: v1` are the host `tfs-v1` of the scenario, on TensorFlow Serving's ports.
///
/// # Errors
///
/// When a file is not as expected, or the tools are not there.
pub fn gateway(by: By) -> Result<Scenario> {
    let mut scenario = Scenario::shipped("quickstart")?;
    let filter = match by {
        By::WasmPlugin => plugin(&manifest("base/wasmplugin.yaml")?["spec"]),
        By::TrafficExtension => {
            plugin(&manifest("overlays/istio-1.30/trafficextension.yaml")?["spec"]["wasm"])
        }
        By::EnvoyFilter => added(&manifest("overlays/body/envoyfilter.yaml")?, "EXTENSION_CONFIG", "ADD")
            .map(|value| value["typed_config"].clone()),
    }?;
    *scenario.plugin.wasm() = filter;
    scenario.plugin.use_module(&tools::wasm()?);
    let routes = routes::of(&manifest("base/virtualservice.yaml")?)?;
    let clusters =
        subsets::of(&manifest("base/destinationrule.yaml")?, &manifest("tf-serving/service.yaml")?)?;
    // The listener `metrics` of the scenario reads from the last one.
    let admin = scenario.bootstrap["static_resources"]["clusters"]
        .as_array()
        .and_then(|clusters| clusters.iter().find(|cluster| cluster["name"] == "admin").cloned())
        .context("the scenario has no cluster admin")?;
    scenario.bootstrap["static_resources"]["clusters"] = clusters.into_iter().chain([admin]).collect();
    Ok(scenario.connection_manager(|manager| {
        if let Some(manager) = manager.as_object_mut() {
            // The quickstart's own safety; Istio's gateways do not have it.
            manager.remove("early_header_mutation_extensions");
            manager.remove("local_reply_config");
        }
        manager["route_config"] = routes;
        let discovery = &mut manager["http_filters"][0]["config_discovery"];
        discovery["type_urls"] = json!([WASM, RBAC]);
        if let Some(discovery) = discovery.as_object_mut() {
            discovery.remove("default_config");
        }
    }))
}

/// The gateway with `overlays/security/strip-headers.yaml`.
///
/// # Errors
///
/// When the file is not as expected.
pub fn stripping(scenario: Scenario) -> Result<Scenario> {
    let patch = added(&manifest("overlays/security/strip-headers.yaml")?, "NETWORK_FILTER", "MERGE")?;
    let key = "early_header_mutation_extensions";
    let extensions = patch["typed_config"][key].clone();
    ensure!(extensions.is_array(), "strip-headers.yaml has no {key}");
    Ok(scenario.connection_manager(|manager| manager[key] = extensions))
}

/// The Wasm filter for the plugin, a part of a WasmPlugin or of a TrafficExtension.
fn plugin(spec: &Value) -> Result<Value> {
    let text = |key: &str| spec[key].as_str().with_context(|| format!("the plugin has no {key}"));
    ensure!(spec["pluginConfig"].is_object(), "the plugin has no pluginConfig");
    Ok(json!({
        "@type": WASM,
        "config": {
            "name": "istio-ingress.predictgate",
            "root_id": text("pluginName")?,
            "failure_policy": text("failStrategy")?,
            // No vm_id: all plugins of a proxy share the empty one.
            "vm_config": { "runtime": "envoy.wasm.runtime.v8" },
            "configuration": {
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": spec["pluginConfig"].to_string(),
            },
        },
    }))
}

/// The value of an EnvoyFilter's patch.
fn added(filter: &Value, apply_to: &str, operation: &str) -> Result<Value> {
    let patches = filter["spec"]["configPatches"].as_array().into_iter().flatten();
    let patch = patches.into_iter().find(|patch| patch["applyTo"] == apply_to);
    let patch = &patch.with_context(|| format!("there is no patch of {apply_to}"))?["patch"];
    ensure!(patch["operation"] == operation, "{apply_to}: expected the operation {operation}");
    Ok(patch["value"].clone())
}

/// A file of `istio/` with one document.
fn manifest(file: &str) -> Result<Value> {
    read_yaml(&tools::root().join("istio").join(file))
}
