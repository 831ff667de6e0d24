//! Metadata mode: headers name the model, nothing is held, and the body must agree.

use model_server::client::{Asked, Client, predict_request};
use model_server::{Code, Rpc};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::wait::DEADLINE;
use serde_json::{Value, json};

use super::stage::{BY_V1, BY_V2, Stage, X};

fn by_metadata(configuration: &mut Value) {
    configuration["identity"] = json!({ "grpc": "metadata" });
}

fn naming(client: &Client, header: &str, value: &str) -> Client {
    client.clone().with_metadata("x-model-name", MODEL).with_metadata(header, value)
}

#[tokio::test]
async fn the_headers_choose_the_pool() {
    let stage = Stage::configured(by_metadata).await;
    let client = stage.client().await;
    let cases = [
        ("x-model-version", "1", Asked::Version(1), BY_V1),
        ("x-model-version", "2", Asked::Version(2), BY_V2),
        ("x-model-label", "canary", Asked::Label("canary"), BY_V2),
    ];
    for (header, value, asked, numbers) in cases {
        let reply = naming(&client, header, value).predict(&predict_request(MODEL, asked, &X)).await.unwrap();
        assert_eq!(reply.ok().unwrap().values(), numbers, "{header}: {value}");
    }
    assert_eq!(stage.executed(), (1, 2));
}

#[tokio::test]
async fn nothing_is_held() {
    let stage = Stage::configured(by_metadata).await;
    let raw = stage.raw().await;
    let headers: [(&str, &[u8]); 4] = [
        ("content-type", b"application/grpc"),
        ("te", b"trailers"),
        ("x-model-name", b"resnet"),
        ("x-model-version", b"2"),
    ];
    let stream = raw.open(raw.post(Rpc::Predict.path(), &headers).unwrap(), false).await.unwrap();
    // The server has the headers while the caller has not sent a byte of the body.
    let begun = |server: &model_server::Server| server.counts().begun.of(Rpc::Predict) == 1;
    stage.pools.v2.until(DEADLINE, begun).await.unwrap();
    drop(stream);
}

#[tokio::test]
async fn a_body_that_contradicts_the_headers_is_executed_by_nobody() {
    let stage = Stage::configured(by_metadata).await;
    let client = naming(&stage.client().await, "x-model-version", "1");
    let others = [
        predict_request(MODEL, Asked::Version(2), &X),
        predict_request("bert", Asked::Version(1), &X),
        predict_request(MODEL, Asked::Latest, &X),
        predict_request(MODEL, Asked::Label("stable"), &X),
    ];
    for request in others {
        let reply = client.predict(&request).await.unwrap();
        let what = format!("{:?}: {reply:?}", request.model_spec);
        assert_eq!(reply.code(), Code::InvalidArgument, "{what}");
        assert_eq!(reply.header("x-predictgate-reason"), Some("contradicting_model_spec"), "{what}");
    }
    assert_eq!(stage.executed(), (0, 0));
}

#[tokio::test]
async fn without_headers_the_body_still_decides_what_may_pass() {
    let stage = Stage::configured(by_metadata).await;
    let client = stage.client().await;
    let reply = client.predict(&predict_request("bert", Asked::Latest, &X)).await.unwrap();
    assert_eq!(reply.code(), Code::NotFound, "{reply:?}");
    assert_eq!(reply.header("x-predictgate-reason"), Some("model_not_configured"));
    assert_eq!(stage.executed(), (0, 0));
    // It may pass, but it is too late to choose its pool: it goes to the default one.
    let reply = client.predict(&predict_request(MODEL, Asked::Latest, &X)).await.unwrap();
    assert_eq!(reply.ok().unwrap().values(), BY_V1);
}

#[tokio::test]
async fn rest_is_as_in_body_mode() {
    let stage = Stage::configured(by_metadata).await;
    assert_eq!(stage.post("/v1/models/resnet/versions/2:predict").await.values(), BY_V2);
}
