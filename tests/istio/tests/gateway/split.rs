//! The split is the filter's: the VirtualService has one destination for each value of a header.

use std::collections::BTreeMap;

use model_server::client::{Asked, predict_request};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::share;

use crate::stage::{By, Stage, X, named};

async fn deals_users_out(by: By) {
    let stage = Stage::of(by).await;
    let client = stage.client().await;
    let users = 2000;
    let mut first = BTreeMap::new();
    for round in 0..2 {
        for user in 0..users {
            let id = format!("user-{user}");
            // Each user is a tenant of its own, so that the limit of a tenant has no part in this.
            let client = named(&client, &[("x-user-id", &id), ("x-tenant", &id)]);
            let reply = client.predict(&predict_request(MODEL, Asked::Latest, &X)).await.unwrap();
            let version = reply.ok().unwrap().version().unwrap();
            assert_eq!(*first.entry(user).or_insert(version), version, "round {round}: user {user}");
        }
    }
    let canary = first.values().filter(|version| **version == 2).count();
    assert!(share::holds(canary, users, 0.05), "{canary} of {users} users on the canary, expected 5 in 100");
    assert_eq!(stage.executed(), (2 * (users - canary) as u64, 2 * canary as u64));
}

#[tokio::test]
async fn a_wasm_plugin_deals_users_out_by_the_weights_of_its_manifest_and_they_stay() {
    deals_users_out(By::WasmPlugin).await;
}

#[tokio::test]
async fn the_body_overlay_deals_users_out_by_the_weights_of_its_manifest_and_they_stay() {
    deals_users_out(By::EnvoyFilter).await;
}
