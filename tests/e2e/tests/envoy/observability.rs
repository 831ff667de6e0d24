//! What an operator sees: metrics, access log, decisions.

use model_server::client::{Asked, predict_request};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::wait::until;
use serde_json::json;

use super::native::{Caller, Native};
use super::stage::{Stage, X};

#[tokio::test]
async fn requests_and_refusals_are_counted_with_labels() {
    let stage = Stage::quickstart().await;
    let client = stage.client().await;
    for asked in [Asked::Version(1), Asked::Version(1), Asked::Version(2), Asked::Latest, Asked::Version(7)] {
        client.predict(&predict_request(MODEL, asked, &X)).await.unwrap();
    }
    client.predict(&predict_request("bert", Asked::Latest, &X)).await.unwrap();
    stage.post("/v1/models/resnet/versions/2:predict").await;
    let requests = async |target: &str, code: &str, value: f64| {
        let labels = [("model", MODEL), ("target", target), ("code", code)];
        stage.wait_for_metric("predictgate_requests", &labels, value).await;
    };
    requests("v1", "OK", 2.0).await;
    requests("v2", "OK", 1.0).await;
    requests("v2", "http_200", 1.0).await;
    requests("latest", "OK", 1.0).await;
    requests("latest", "NOT_FOUND", 1.0).await;
    stage.wait_for_metric("predictgate_rejected", &[("reason", "model_not_configured")], 1.0).await;
    stage.wait_for_metric("predictgate_identity", &[("result", "body")], 6.0).await;
    stage.wait_for_metric("predictgate_identity", &[("result", "path")], 1.0).await;
    // No label of the filter is found in what is Envoy's own, and no separator is left in a name.
    for sample in stage.envoy.admin.prometheus().await.unwrap() {
        assert!(!sample.name.contains('='), "{sample:?}");
        if !sample.name.starts_with("predictgate_") {
            for label in ["model", "target", "code", "reason", "limit", "cause", "route", "result"] {
                assert!(!sample.labels.contains_key(label), "{sample:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_decision_is_shown_to_who_asks_and_only_then() {
    let stage = Stage::quickstart().await;
    let client = stage.client().await;
    let request = predict_request(MODEL, Asked::Label("canary"), &X);
    let reply = client.predict(&request).await.unwrap();
    assert_eq!(reply.header("x-predictgate-decision"), None);
    let asking = client.clone().with_metadata("x-predictgate-explain", "1");
    let reply = asking.predict(&request).await.unwrap();
    let decision = reply.header("x-predictgate-decision").unwrap();
    assert!(decision.starts_with("model=resnet;asked="), "{decision}");
    assert!(decision.ends_with(";route=canary;target=v2;reason=split"), "{decision}");
    let reply = asking.predict(&predict_request("bert", Asked::Latest, &X)).await.unwrap();
    let decision = reply.header("x-predictgate-decision").unwrap();
    assert!(decision.ends_with("reason=model_not_configured"), "{decision}");
}

#[tokio::test]
async fn a_decision_is_shown_only_to_those_who_may_see_it() {
    let stage = Stage::configured(|it| {
        it["explain"]["match"] = json!([{ "name": "x-debug-token", "exact": "let-me-see" }]);
    })
    .await;
    let asking = stage.client().await.with_metadata("x-predictgate-explain", "1");
    let request = predict_request(MODEL, Asked::Version(1), &X);
    let reply = asking.predict(&request).await.unwrap();
    assert_eq!(reply.header("x-predictgate-decision"), None);
    let reply = asking.with_metadata("x-debug-token", "let-me-see").predict(&request).await.unwrap();
    assert!(reply.header("x-predictgate-decision").is_some());
}

#[tokio::test]
async fn the_access_log_tells_successes_from_refusals() {
    let stage = Stage::quickstart().await;
    let client = stage.client().await;
    client.predict(&predict_request(MODEL, Asked::Version(2), &X)).await.unwrap();
    client.predict(&predict_request("bert", Asked::Latest, &X)).await.unwrap();
    let good = stage.envoy.wait_for_access(|entry| entry["target"] == "v2").await.unwrap();
    assert_eq!(good["grpc_status"], "OK", "{good}");
    assert_eq!(good["upstream_cluster"], "tfs-v2");
    assert_eq!(good["upstream_host"], stage.pools.v2.grpc_addr().to_string());
    assert_eq!(good["attempts"], 1);
    assert_eq!(good["details"], "via_upstream");
    assert_eq!(good["reason"], json!(null));
    let refused = |entry: &serde_json::Value| entry["reason"] == "model_not_configured";
    let refused = stage.envoy.wait_for_access(refused).await.unwrap();
    assert_eq!(refused["grpc_status"], "NotFound", "{refused}");
    assert_eq!(refused["details"], "model_not_configured");
    assert_eq!(refused["upstream_host"], json!(null));
    assert_eq!(refused["target"], json!(null));
}

#[tokio::test]
async fn at_level_debug_every_decision_is_logged_also_of_those_who_do_not_ask() {
    let stage = Stage::shipped("canary", |mut scenario| {
        scenario.log = Some("wasm:debug".to_owned());
        scenario.reconfigured(|it| drop(it.as_object_mut().unwrap().remove("explain")))
    });
    let stage = stage.await;
    let client = stage.client().await;
    client.predict(&predict_request(MODEL, Asked::Version(2), &X)).await.unwrap();
    client.predict(&predict_request("bert", Asked::Latest, &X)).await.unwrap();
    let native = Native::of(stage.envoy.plugin());
    let mut lines = vec![
        "model=resnet;asked=version.2;route=version-2;target=canary;reason=split".to_owned(),
        "model=bert;asked=latest;reason=model_not_configured".to_owned(),
    ];
    // Two of them have the canary.
    for user in 90..110 {
        let user = format!("user-{user}");
        let caller = client.clone().with_metadata("x-user-id", &user);
        let reply = caller.predict(&predict_request(MODEL, Asked::Latest, &X)).await.unwrap();
        assert_eq!(reply.header("x-predictgate-decision"), None);
        let target = native.target(&Caller::with_header("x-user-id", &user));
        lines.push(format!("model=resnet;asked=latest;route=rollout;target={target};reason=split"));
    }
    until("all decisions to be logged", || async {
        let log = stage.envoy.log();
        let said = log.lines().filter_map(|line| line.split_once(" predictgate: model="));
        let said: Vec<_> = said.map(|(_, line)| format!("model={line}")).collect();
        Ok((said == lines).then_some(()))
    })
    .await
    .unwrap();
}
