//! Versions as subsets of one cluster, which a target's header chooses.

use http::Method;
use model_server::client::{Asked, Client, predict_request, rest};
use model_server::{Code, Rpc};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::wait::until;
use serde_json::{Value, json};

use super::native::{Caller, Native};
use super::stage::{BY_V1, BY_V2, Stage, X, instances};

const USER: &str = "x-user-id";

async fn stage() -> Stage {
    Stage::shipped("subsets", Ok).await
}

/// Asserts that both protocols are answered by a version, and by its pool, for whatever this client adds.
async fn assert_answers(
    stage: &Stage,
    headers: &[(&str, &str)],
    numbers: [f32; 3],
    asked: &[(Asked<'_>, &str)],
) {
    let client = stage.client().await;
    let client = headers.iter().fold(client, |client, (name, value)| client.with_metadata(name, value));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    for (asked, path) in asked {
        let reply = client.predict(&predict_request(MODEL, *asked, &X)).await.unwrap();
        assert_eq!(reply.ok().unwrap().values(), numbers, "{asked:?}");
        let path = format!("/v1/models/resnet{path}:predict");
        let answer = rest::request(stage.envoy.addr, Method::POST, &path, &headers, instances().into());
        assert_eq!(answer.await.unwrap().values(), numbers, "{path}");
    }
}

const FOR_V1: [(Asked<'_>, &str); 2] =
    [(Asked::Version(1), "/versions/1"), (Asked::Label("stable"), "/labels/stable")];
const FOR_V2: [(Asked<'_>, &str); 2] =
    [(Asked::Version(2), "/versions/2"), (Asked::Label("canary"), "/labels/canary")];

#[tokio::test]
async fn each_version_is_reached_on_its_own_hosts_over_both_protocols() {
    let stage = stage().await;
    // More often than a load balancer without subsets would meet the right host of two by chance.
    for _ in 0..5 {
        assert_answers(&stage, &[], BY_V1, &FOR_V1).await;
        assert_answers(&stage, &[], BY_V2, &FOR_V2).await;
    }
    assert_eq!(stage.executed(), (20, 20));
    // What names no model has no target, and goes to the default subset.
    stage.client().await.call("/grpc.health.v1.Health/Check", b"").await.unwrap();
    let health = |it: &model_server::Received| it.path.starts_with("/grpc.health.v1.Health");
    assert!(stage.pools.v1.received().iter().any(health));
}

#[tokio::test]
async fn users_are_dealt_out_to_subsets() {
    let stage = stage().await;
    let native = Native::of(stage.envoy.plugin());
    let client = stage.client().await;
    let mut by_v2 = 0;
    for user in 0..100 {
        let user = format!("user-{user}");
        let target = native.target(&Caller::with_header(USER, &user));
        let numbers = if target == "v2" { BY_V2 } else { BY_V1 };
        by_v2 += u32::from(target == "v2");
        for _ in 0..2 {
            let client = client.clone().with_metadata(USER, &user);
            let reply = client.predict(&predict_request(MODEL, Asked::Latest, &X)).await.unwrap();
            assert_eq!(reply.ok().unwrap().values(), numbers, "{user}");
        }
    }
    // 100 throws at 0.1 have a standard deviation of 3; five of them are 15.
    assert!((1..=25).contains(&by_v2), "{by_v2}");
}

const SPOOFED: [(&str, &str); 3] =
    [("x-model-pool", "v2"), ("x-predictgate-target", "v2"), ("x-predictgate-cluster", "tfs-rest")];

#[tokio::test]
async fn a_client_chooses_no_subset_by_header() {
    let stage = stage().await;
    assert_answers(&stage, &SPOOFED, BY_V1, &FOR_V1).await;
    let twice = [SPOOFED, SPOOFED].concat();
    assert_answers(&stage, &twice, BY_V1, &FOR_V1).await;
    assert_eq!(stage.executed(), (8, 0));
}

#[tokio::test]
async fn with_the_filter_disabled_everybody_gets_the_default_subset() {
    let stage = Stage::shipped("subsets", |scenario| Ok(scenario.with_the_filter_disabled())).await;
    assert_answers(&stage, &SPOOFED, BY_V1, &FOR_V1).await;
    let client = SPOOFED.iter().fold(stage.client().await, |it, (name, value)| it.with_metadata(name, value));
    let reply = client.predict(&predict_request(MODEL, Asked::Version(2), &X)).await.unwrap();
    // The host of version 1 does not have it.
    assert_eq!(reply.code(), Code::NotFound, "{reply:?}");
    assert_eq!(stage.executed(), (4, 0));
}

#[tokio::test]
async fn a_version_without_a_host_is_answered_by_no_other() {
    let stage = Stage::shipped("subsets", |scenario| {
        // A subset that no host is in.
        scenario.reconfigured(|configuration| {
            let model = &mut configuration["models"][0];
            model["targets"]["v3"] = json!({ "headers": { "x-model-pool": "v3" } });
            add_route(model, json!({ "match": { "version": "3" }, "split": [{ "target": "v3" }] }));
        })
    })
    .await;
    let client = stage.client().await;
    assert_unavailable(&client, Asked::Version(3)).await;
    assert_eq!(stage.post("/v1/models/resnet/versions/3:predict").await.status, 503);

    stage.pools.v2.refuse(true).await.unwrap();
    until("the host of version 2 to be found unhealthy", || async {
        Ok((stage.post("/v1/models/resnet/versions/2:predict").await.status == 503).then_some(()))
    })
    .await
    .unwrap();
    let executed = stage.pools.v1.counts().executed_by(MODEL, 1, Rpc::Predict);
    for _ in 0..10 {
        assert_unavailable(&client, Asked::Version(2)).await;
        assert_unavailable(&client, Asked::Label("canary")).await;
    }
    assert_eq!(stage.pools.v1.counts().executed_by(MODEL, 1, Rpc::Predict), executed);
    assert_answers(&stage, &[], BY_V1, &FOR_V1).await;
}

fn add_route(model: &mut Value, route: Value) {
    model["routes"].as_array_mut().unwrap().insert(0, route);
}

async fn assert_unavailable(client: &Client, asked: Asked<'_>) {
    let reply = client.predict(&predict_request(MODEL, asked, &X)).await.unwrap();
    assert_eq!(reply.code(), Code::Unavailable, "{asked:?}: {reply:?}");
}
