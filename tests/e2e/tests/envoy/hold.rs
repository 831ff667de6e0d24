//! Requests that wait for the first bytes of their body, and a host that does not let them.

use std::time::{Duration, Instant};

use model_server::client::{Asked, predict_request};
use model_server::framing::frame;
use model_server::{Code, Rpc};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::wait::DEADLINE;
use prost::Message;
use serde_json::{Value, json};

use super::stage::{BY_V1, BY_V2, Stage, X};

const GRPC: [(&str, &[u8]); 2] = [("content-type", b"application/grpc"), ("te", b"trailers")];
const HOLD_TIMEOUT: Duration = Duration::from_secs(1);

/// The quickstart, in which a hold ends after this time.
async fn holding(timeout: Duration, change: impl FnOnce(&mut Value)) -> Stage {
    Stage::configured(|configuration| {
        let identity = &mut configuration["identity"];
        identity["hold_timeout"] = json!(seconds(timeout));
        change(identity);
    })
    .await
}

fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs())
}

#[tokio::test]
async fn a_body_that_does_not_come_ends_the_hold_at_its_deadline() {
    let stage = holding(HOLD_TIMEOUT, |_| ()).await;
    stage.assert_alive().await;
    let raw = stage.raw().await;
    let start = Instant::now();
    let mut stream = raw.open(raw.post(Rpc::Predict.path(), &GRPC).unwrap(), false).await.unwrap();
    let answer = stream.answer().await;
    assert_eq!(answer.header("grpc-status"), Some("4"), "{answer:?}");
    assert_eq!(answer.header("x-predictgate-reason"), Some("hold_timeout"));
    assert!(HOLD_TIMEOUT <= start.elapsed(), "{:?}", start.elapsed());
    assert_eq!(stage.executed(), (0, 1));
    stage.wait_for_metric("predictgate_held", &[], 0.0).await;
    stage.wait_for_metric("predictgate_rejected", &[("reason", "hold_timeout")], 1.0).await;
    // The reply came from outside of the request's own callbacks, and stands in the way of nobody after it.
    let client = stage.client().await;
    for _ in 0..10 {
        let reply = client.predict(&predict_request(MODEL, Asked::Latest, &X)).await.unwrap();
        assert_eq!(reply.ok().unwrap().values(), BY_V1);
    }
}

#[tokio::test]
async fn a_hold_that_ends_may_pass_when_the_operator_says_so() {
    let stage = holding(HOLD_TIMEOUT, |identity| identity["on_hold_timeout"] = json!("pass")).await;
    stage.assert_alive().await;
    let raw = stage.raw().await;
    let start = Instant::now();
    let mut stream = raw.open(raw.post(Rpc::Predict.path(), &GRPC).unwrap(), false).await.unwrap();
    // Without a target it goes to the default pool.
    stage.pools.v1.until(DEADLINE, |pool| pool.counts().begun.of(Rpc::Predict) == 1).await.unwrap();
    assert!(HOLD_TIMEOUT <= start.elapsed(), "{:?}", start.elapsed());
    stage.wait_for_metric("predictgate_held", &[], 0.0).await;
    let body = frame(&predict_request(MODEL, Asked::Version(1), &X).encode_to_vec());
    stream.send_last(body).unwrap();
    let answer = stream.answer().await;
    assert_eq!(answer.header("grpc-status"), Some("0"), "{answer:?}");
    assert_eq!(stage.executed(), (1, 1));
}

#[tokio::test]
async fn the_oldest_holds_make_room_for_callers_who_send_their_body() {
    let few = |configuration: &mut Value| configuration["identity"] = json!({ "max_held": 2 });
    let stage = Stage::configured(few).await;
    stage.assert_alive().await;
    let raw = stage.raw().await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(raw.open(raw.post(Rpc::Predict.path(), &GRPC).unwrap(), false).await.unwrap());
    }
    // The third is held and the first was told, from a callback of another request.
    let answer = held.remove(0).answer().await;
    assert_eq!(answer.header("grpc-status"), Some("14"), "{answer:?}");
    assert_eq!(answer.header("x-predictgate-reason"), Some("overloaded"));
    stage.wait_for_metric("predictgate_held", &[], 2.0).await;

    let client = stage.client().await;
    for _ in 0..10 {
        let reply = client.predict(&predict_request(MODEL, Asked::Latest, &X)).await.unwrap();
        assert_eq!(reply.ok().unwrap().values(), BY_V1);
    }
    drop(held);
    stage.wait_for_metric("predictgate_held", &[], 0.0).await;
    stage.assert_alive().await;
}

#[tokio::test]
async fn a_host_that_cannot_hold_is_found_out_and_requests_go_by_their_headers() {
    // So long that a call which is not held is answered within it on any machine.
    const HOLD_TIMEOUT: Duration = Duration::from_secs(5);
    let stage = Stage::with(|scenario| {
        let scenario = scenario.filter(|filter| filter["allow_on_headers_stop_iteration"] = json!(false));
        scenario.reconfigured(|it| it["identity"] = json!({ "hold_timeout": seconds(HOLD_TIMEOUT) }))
    });
    let stage = stage.await;
    let client = stage.client().await;
    let latest = predict_request(MODEL, Asked::Latest, &X);

    // The first waits in vain for its body, until its hold ends.
    let start = Instant::now();
    stage.until_found_out().await;
    assert!(HOLD_TIMEOUT <= start.elapsed(), "{:?}", start.elapsed());

    // From then on nothing is held.
    for _ in 0..10 {
        let start = Instant::now();
        let reply = client.predict(&latest).await.unwrap();
        assert_eq!(reply.ok().unwrap().values(), BY_V1);
        assert!(start.elapsed() < HOLD_TIMEOUT, "{:?}", start.elapsed());
    }
    assert_eq!(stage.executed(), (11, 0));

    // Headers choose the pool now, and REST is as it was.
    let named = client.clone().with_metadata("x-model-name", MODEL).with_metadata("x-model-version", "2");
    let reply = named.predict(&predict_request(MODEL, Asked::Version(2), &X)).await.unwrap();
    assert_eq!(reply.ok().unwrap().values(), BY_V2);
    assert_eq!(stage.post("/v1/models/resnet/versions/2:predict").await.values(), BY_V2);

    // What must not pass is still refused, late.
    let reply = client.predict(&predict_request("bert", Asked::Latest, &X)).await.unwrap();
    assert_eq!(reply.code(), Code::NotFound, "{}", reply.text);
    assert_eq!(stage.executed(), (11, 2));

    stage.wait_for_metric("predictgate_identity", &[("result", "host_cannot_hold")], 1.0).await;
    stage.wait_for_metric("predictgate_held", &[], 0.0).await;
    let log = stage.envoy.log();
    assert_eq!(log.matches("allow_on_headers_stop_iteration").count(), 1, "{log}");
}

#[tokio::test]
async fn a_slow_caller_is_not_taken_for_a_host_that_cannot_hold() {
    let stage = holding(HOLD_TIMEOUT, |_| ()).await;
    let raw = stage.raw().await;
    let mut stream = raw.open(raw.post(Rpc::Predict.path(), &GRPC).unwrap(), false).await.unwrap();
    // The hold has ended when the headers go on.
    stage.pools.v1.until(DEADLINE, |pool| pool.counts().begun.of(Rpc::Predict) == 1).await.unwrap();
    // More than one tick of the filter after the hold has ended.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let body = frame(&predict_request(MODEL, Asked::Version(2), &X).encode_to_vec());
    stream.send_last(body).unwrap();
    let answer = stream.answer().await;
    assert_eq!(answer.header("grpc-status"), Some("4"), "{answer:?}");
    assert_eq!(stage.executed(), (0, 0));
    stage.assert_alive().await;
    assert_eq!(stage.executed(), (0, 1));
}
