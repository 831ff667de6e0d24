//! Who gets which target, for good: the answers in `tests/cases/split.json`, given by the built filter in Envoy.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use model_server::client::{Asked, predict_request};
use predictgate_e2e::tools::root;
use serde_json::{Value, json};

use super::stage::{Stage, X};

/// The header by which a case finds its route.
const CASE: &str = "x-case";

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap())
}

/// A configuration with a route for each case; cases of one model share it, as its name is part of the answers.
fn configuration(cases: &[Value]) -> Value {
    let mut models: BTreeMap<&str, (BTreeSet<&str>, Vec<Value>)> = BTreeMap::new();
    for (number, case) in cases.iter().enumerate() {
        let (targets, routes) = models.entry(case["model"].as_str().unwrap()).or_default();
        targets.extend(case["split"].as_array().unwrap().iter().map(|arm| arm["target"].as_str().unwrap()));
        let by: Vec<_> = texts(&case["by"]).map(|name| json!({ "header": name })).collect();
        routes.push(json!({
            "match": { "headers": [{ "name": CASE, "exact": number.to_string() }] },
            "split": case["split"],
            "sticky": { "by": by, "salt": case["salt"] },
        }));
    }
    let models: Vec<_> = models
        .into_iter()
        .map(|(name, (targets, routes))| {
            let targets: BTreeMap<_, _> =
                targets.into_iter().map(|target| (target, json!({ "cluster": "tfs-v1" }))).collect();
            json!({ "name": name, "targets": targets, "routes": routes, "otherwise": "reject" })
        })
        .collect();
    json!({ "models": models })
}

#[tokio::test]
async fn a_caller_keeps_its_target_over_versions_of_the_filter() {
    let text = fs::read_to_string(root().join("tests/cases/split.json")).unwrap();
    let mut cases: Value = serde_json::from_str(&text).unwrap();
    let mut cases: Vec<Value> = cases["cases"].as_array_mut().unwrap().drain(..).collect();
    // A moment of the past cannot be put on Envoy's clock.
    cases.retain(|case| case.get("at").is_none());
    assert!(50 <= cases.len(), "{} cases", cases.len());
    let configuration = configuration(&cases).to_string();
    let stage = Stage::with(|scenario| Ok(scenario.configured(&configuration))).await;
    let client = stage.client().await;
    for (number, case) in cases.iter().enumerate() {
        let mut caller = client.clone().with_metadata(CASE, number.to_string());
        for header in case["headers"].as_array().unwrap() {
            let mut texts = texts(header);
            caller = caller.with_metadata(texts.next().unwrap(), texts.next().unwrap());
        }
        let model = case["model"].as_str().unwrap().replace('*', "x");
        // What the server makes of its unknown model is of no interest here; it tells what it was asked.
        caller.predict(&predict_request(&model, Asked::Latest, &X)).await.unwrap();
        let received = stage.pools.v1.received();
        let last =
            received.iter().rev().find(|it| it.header(CASE) == Some(number.to_string().as_bytes())).unwrap();
        let target = last.header("x-predictgate-target").map(String::from_utf8_lossy);
        assert_eq!(target.as_deref(), case["expect"].as_str(), "{}", case["name"]);
    }
}
