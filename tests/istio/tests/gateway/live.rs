//! Manifests that change while calls come.

use std::collections::BTreeMap;

use model_server::client::{Asked, Client, predict_request};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::share;
use predictgate_e2e::wait::until;
use predictgate_istio::Manifests;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::stage::{By, Stage, X, named};

const USERS: usize = 1000;

/// The version that answers a user.
async fn call(client: &Client, user: usize) -> i64 {
    let id = format!("user-{user}");
    // Each user is a tenant of its own, so that the limit of a tenant has no part in this.
    let client = named(client, &[("x-user-id", &id), ("x-tenant", &id)]);
    let reply = client.predict(&predict_request(MODEL, Asked::Latest, &X)).await.unwrap();
    reply.ok().unwrap().version().unwrap()
}

async fn all(client: &Client) -> BTreeMap<usize, i64> {
    let mut versions = BTreeMap::new();
    for user in 0..USERS {
        versions.insert(user, call(client, user).await);
    }
    versions
}

fn canary(versions: &BTreeMap<usize, i64>) -> usize {
    versions.values().filter(|version| **version == 2).count()
}

fn split(manifests: &Manifests, weights: [u32; 2]) -> Manifests {
    let [stable, canary] = weights;
    let manifests = manifests.clone().change("WasmPlugin", "predictgate", |plugin| {
        plugin["spec"]["pluginConfig"]["models"][0]["routes"][3]["split"] =
            json!([{ "target": "stable", "weight": stable }, { "target": "canary", "weight": canary }]);
    });
    manifests.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_weights_act_while_calls_come_and_nobody_leaves_the_canary() {
    let stage = Stage::of(By::WasmPlugin).await;
    let client = stage.client().await;
    let before = all(&client).await;
    let (stop, stopped) = watch::channel(false);
    let caller = client.clone();
    // It panics, and the test fails, when one call does.
    let calls = tokio::spawn(async move {
        let mut calls = 0;
        while !*stopped.borrow() {
            call(&caller, calls % USERS).await;
            calls += 1;
        }
        calls
    });
    let wanted = json!([{ "target": "stable", "weight": 1 }, { "target": "canary", "weight": 1 }]);
    stage.istiod.apply(&split(&stage.manifests, [1, 1])).unwrap();
    let has = |configuration: &Value| configuration["models"][0]["routes"][3]["split"] == wanted;
    stage.gateway.wait_for_configuration(has).await.unwrap();
    let after = all(&client).await;
    stop.send(true).unwrap();
    assert!(0 < calls.await.unwrap());
    assert!(share::holds(canary(&before), USERS, 0.05), "{} of {USERS} before", canary(&before));
    assert!(share::holds(canary(&after), USERS, 0.5), "{} of {USERS} after", canary(&after));
    let left = before.iter().filter(|(user, version)| **version == 2 && after[*user] != 2).count();
    assert_eq!(left, 0, "users who left the canary while its weight rose");
}

#[tokio::test]
async fn a_configuration_that_the_filter_refuses_leaves_the_old_one_in_force() {
    let stage = Stage::of(By::WasmPlugin).await;
    let client = stage.client().await;
    let before = all(&client).await;
    stage.istiod.apply(&split(&stage.manifests, [0, 0])).unwrap();
    let rejected =
        format!("extension_config_discovery.http_filter.{}.update_rejected", By::WasmPlugin.filter());
    until("Envoy to refuse the configuration", || async {
        Ok((0 < stage.gateway.admin.stat(&rejected).await?).then_some(()))
    })
    .await
    .unwrap();
    // A connection that has been there before, and a new one. The dump of Envoy's configuration would not tell: it
    // has what was refused.
    assert_eq!(all(&client).await, before);
    assert_eq!(all(&stage.client().await).await, before);
}

#[tokio::test]
async fn a_gateway_that_starts_with_a_refused_configuration_answers_500_to_everybody() {
    let stage = Stage::with(split(&By::WasmPlugin.manifests(), [0, 0])).await;
    assert_eq!(stage.rest("/v1/models/resnet/versions/1:predict", &[]).await.status, 500);
    assert_eq!(stage.executed(), (0, 0));
}
