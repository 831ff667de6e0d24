//! Routes of a VirtualService.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// The route configuration: a route for each match, in order.
pub fn of(service: &Value) -> Result<Value> {
    let mut routes = Vec::new();
    for route in list(&service["spec"]["http"]) {
        for matched in list(&route["match"]) {
            routes
                .push(json!({ "name": route["name"], "match": matcher(matched)?, "route": action(route)? }));
        }
    }
    Ok(json!({
        "name": "https.443.https-inference.inference.istio-ingress",
        // The hosts of the Gateway and of the VirtualService are names that no test has.
        "virtual_hosts": [{ "name": "inference", "domains": ["*"], "routes": routes }],
    }))
}

fn matcher(matched: &Value) -> Result<Value> {
    let prefix = matched["uri"]["prefix"].as_str().context("a match without the prefix of a path")?;
    let mut headers = Vec::new();
    for (name, value) in matched["headers"].as_object().into_iter().flatten() {
        let exact = value["exact"].as_str().context("a header that is not matched exactly")?;
        headers.push(json!({ "name": name, "string_match": { "exact": exact } }));
    }
    Ok(json!({ "prefix": prefix, "case_sensitive": true, "headers": headers }))
}

fn action(route: &Value) -> Result<Value> {
    let [destination] = list(&route["route"]) else { bail!("a route with several destinations") };
    let retries = &route["retries"];
    let mut action = json!({
        "cluster": cluster(&destination["destination"])?,
        "timeout": route["timeout"],
        "max_grpc_timeout": route["timeout"],
    });
    if retries["attempts"] != 0 {
        action["retry_policy"] = json!({
            "retry_on": retries["retryOn"],
            "num_retries": retries["attempts"],
            "host_selection_retry_max_attempts": 5,
            "retry_host_predicate": [{
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
                },
            }],
        });
    }
    Ok(action)
}

/// As Istio names the cluster of a destination.
fn cluster(destination: &Value) -> Result<String> {
    let port = destination["port"]["number"].as_u64().context("a destination without a port")?;
    let (host, subset) = (destination["host"].as_str(), destination["subset"].as_str());
    let (host, subset) = host.zip(subset).context("a destination without a host or a subset")?;
    Ok(super::subsets::cluster(port, subset, host))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
