//! What istiod's own validation says of the manifests.

use std::collections::BTreeSet;

use predictgate_e2e::Pools;
use predictgate_istio::{Istiod, Manifests, Place, verdict};
use serde_json::{Value, json};

use crate::stage::By;

const WITH_EVERYTHING: [&str; 4] =
    ["tf-serving", "overlays/security", "overlays/autoscaling", "overlays/monitoring"];

const OF_ENVOY_FILTERS: &str = ": EnvoyFilter exposes internal implementation details that may change at any time. Prefer \
    other APIs if possible, and exercise extreme caution, especially around upgrades.";

async fn place() -> Place {
    // Nobody listens there, and nobody calls.
    Place::of(8080, &Pools::start().await.unwrap()).unwrap()
}

#[tokio::test]
async fn istiod_takes_every_manifest_and_warns_of_none() {
    for by in [By::WasmPlugin, By::TrafficExtension, By::EnvoyFilter] {
        let folders: Vec<_> = [by.folder()].into_iter().chain(WITH_EVERYTHING).collect();
        let manifests = Manifests::shipped(&folders).unwrap().at(&place().await).unwrap();
        let istiod = Istiod::start(&manifests).await.unwrap();
        let holds: BTreeSet<_> = istiod.holds().await.unwrap().into_iter().collect();
        let given: BTreeSet<_> = manifests.of_istio().collect();
        let missing: Vec<_> = given.difference(&holds).collect();
        assert!(missing.is_empty(), "{by:?}: istiod has not taken {missing:?}");
        // Gateway, VirtualService, DestinationRule, the filter, five objects of security, Telemetry, the service and
        // its two workloads.
        assert_eq!(given.len(), 13, "{given:?}");
        let log = istiod.log();
        let warnings = log.lines().filter_map(|line| line.split_once("warned: ")).map(|(_, warning)| warning);
        // It says this of every EnvoyFilter.
        let own = |warning: &&str| warning.starts_with("EnvoyFilter ") && warning.ends_with(OF_ENVOY_FILTERS);
        let warnings: Vec<_> = warnings.filter(|warning| !own(warning)).collect();
        assert!(warnings.is_empty(), "{by:?}: {warnings:#?}");
    }
}

#[track_caller]
fn broken(by: By, kind: &str, name: &str, change: impl FnOnce(&mut Value)) -> Manifests {
    let folders: Vec<_> = [by.folder()].into_iter().chain(WITH_EVERYTHING).collect();
    Manifests::shipped(&folders).unwrap().change(kind, name, change).unwrap()
}

async fn refused(manifests: Manifests, because: &str) {
    let why = verdict(&manifests.at(&place().await).unwrap()).await.unwrap();
    assert!(why.contains(because), "istiod says {why:?}, expected {because:?}");
}

#[tokio::test]
async fn istiod_refuses_a_plugin_with_half_a_digest() {
    let change = |plugin: &mut Value| plugin["spec"]["sha256"] = json!("0123");
    refused(broken(By::WasmPlugin, "WasmPlugin", "predictgate", change), "sha256").await;
}

#[tokio::test]
async fn istiod_refuses_to_eject_more_than_all_hosts() {
    let change = |rule: &mut Value| {
        rule["spec"]["trafficPolicy"]["outlierDetection"]["maxEjectionPercent"] = json!(150)
    };
    refused(
        broken(By::WasmPlugin, "DestinationRule", "tf-serving", change),
        "percentage 150 is not in range",
    )
    .await;
}

#[tokio::test]
async fn istiod_refuses_a_retry_on_a_condition_that_envoy_does_not_know() {
    let change = |service: &mut Value| service["spec"]["http"][0]["retries"]["retryOn"] = json!("a-bad-day");
    refused(broken(By::WasmPlugin, "VirtualService", "tf-serving", change), "a-bad-day").await;
}

#[tokio::test]
async fn istiod_refuses_a_filter_of_a_type_that_envoy_does_not_have() {
    let change = |filter: &mut Value| {
        let value = &mut filter["spec"]["configPatches"][0]["patch"]["value"]["typed_config"];
        value["@type"] = json!("type.googleapis.com/envoy.extensions.filters.http.wasm.v2.Wasm");
    };
    refused(broken(By::EnvoyFilter, "EnvoyFilter", "predictgate", change), "referenced type unknown").await;
}
