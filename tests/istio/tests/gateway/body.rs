//! The EnvoyFilter of `overlays/body`: the message chooses.

use model_server::Code;
use model_server::client::{Asked, predict_request};
use predictgate_e2e::pools::MODEL;

use crate::stage::{By, Stage, X};

#[tokio::test]
async fn what_the_message_names_chooses_the_subset() {
    let stage = Stage::of(By::EnvoyFilter).await;
    assert_eq!(stage.configured(By::EnvoyFilter).await["identity"]["grpc"], "body");
    let client = stage.client().await;
    for asked in [Asked::Version(1), Asked::Version(2), Asked::Label("canary")] {
        client.predict(&predict_request(MODEL, asked, &X)).await.unwrap().ok().unwrap();
    }
    assert_eq!(stage.executed(), (1, 2));
}

#[tokio::test]
async fn headers_that_name_a_model_have_no_say() {
    let stage = Stage::of(By::EnvoyFilter).await;
    let client = stage.client().await.with_metadata("x-model-name", "bert");
    client
        .with_metadata("x-model-version", "1")
        .predict(&predict_request(MODEL, Asked::Version(2), &X))
        .await
        .unwrap()
        .ok()
        .unwrap();
    assert_eq!(stage.executed(), (0, 1));
}

#[tokio::test]
async fn a_model_that_is_not_configured_reaches_no_server() {
    let stage = Stage::of(By::EnvoyFilter).await;
    let reply = stage.client().await.predict(&predict_request("bert", Asked::Latest, &X)).await.unwrap();
    assert_eq!(reply.code(), Code::NotFound, "{reply:?}");
    assert_eq!(stage.received(), (0, 0));
}
