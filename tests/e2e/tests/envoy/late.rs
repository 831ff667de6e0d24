//! Requests whose headers do not wait for their body: in metadata mode, on a host that holds headers and on one
//! that does not, and in body mode on a host that was found not to.

use model_server::client::raw::{Answer, Step};
use model_server::framing::frame;
use model_server::messages::ReloadConfigRequest;
use model_server::{Code, Rpc};
use predictgate_e2e::pools::MODEL;
use serde_json::{Value, json};

use super::contradiction::{around, assert_nothing_ran, send};
use super::stage::{BY_V2, Stage, X};
use super::wire::{
    ALIAS, GRPC, MIB, alias, assert_arrived, assert_refused, by_v2, input, numbers, rewritten, spec, values,
};

async fn start(identity: Value, holds_headers: bool) -> Stage {
    let stage = Stage::with(|scenario| {
        let scenario = scenario.reconfigured(|configuration| {
            configuration["identity"] = identity;
            configuration["models"][0]["rate_limits"] = json!([{
                "name": "limited",
                "match": { "headers": [{ "name": "x-limited", "present": true }] },
                "token_bucket": { "max_tokens": 2, "tokens_per_fill": 1, "fill_interval": "1h" },
            }]);
            alias(configuration);
        })?;
        Ok(scenario.filter(|filter| filter["allow_on_headers_stop_iteration"] = json!(holds_headers)))
    });
    stage.await
}

/// All of them, with what they are.
async fn stages() -> [(&'static str, Stage); 3] {
    let metadata = || json!({ "grpc": "metadata" });
    let found_out = start(json!({ "hold_timeout": "200ms" }), false).await;
    found_out.until_found_out().await;
    found_out.wait_for_metric("predictgate_identity", &[("result", "host_cannot_hold")], 1.0).await;
    for pool in [&found_out.pools.v1, &found_out.pools.v2] {
        pool.reset();
    }
    [
        ("metadata mode, headers held", start(metadata(), true).await),
        ("metadata mode, headers not held", start(metadata(), false).await),
        ("body mode, headers not held", found_out),
    ]
}

/// The headers of a call that name a model.
fn naming<'a>(model: &'a str, version: Option<&'a str>) -> Vec<(&'a str, &'a [u8])> {
    let version = version.map(|version| ("x-model-version", version.as_bytes()));
    [&GRPC[..], &[("x-model-name", model.as_bytes())], version.as_slice()].concat()
}

async fn predict(stage: &Stage, headers: &[(&str, &[u8])], message: &[u8], size: usize) -> Answer {
    let steps = Step::chunks(&frame(message), size);
    stage.raw().await.request(Rpc::Predict.path(), headers, steps).await.unwrap()
}

/// Asserts that no server has had a whole Predict.
fn assert_none_arrived(stage: &Stage) {
    for pool in [&stage.pools.v1, &stage.pools.v2] {
        assert_eq!(pool.counts().arrived.of(Rpc::Predict), 0);
    }
    assert_eq!(stage.executed(), (0, 0));
}

/// Asserts that requests are answered by their headers, and that the VM has lived through what was done to it.
async fn assert_serves(stage: &Stage) {
    let named = [spec(MODEL, Some(2)), input(&X)].concat();
    assert_eq!(values(&predict(stage, &naming(MODEL, Some("2")), &named, MIB).await), BY_V2);
    assert_eq!(stage.envoy.admin.stat("wasm.predictgate.vm_reload_success").await.unwrap(), 0);
    assert!(!stage.envoy.log().contains("RuntimeError"), "{}", stage.envoy.log());
}

#[tokio::test]
async fn a_body_that_contradicts_the_headers_is_refused_however_late() {
    for (what, stage) in stages().await {
        eprintln!("{what}");
        let one = naming(MODEL, Some("1"));
        // At once, with 4 MiB behind it, and behind 40 KB.
        let other = [spec(MODEL, Some(2)), input(&numbers(MIB))].concat();
        assert_refused(&predict(&stage, &one, &other, MIB).await, "3", "contradicting_model_spec");
        let other = [input(&numbers(10_240)), spec("bert", Some(1)), input(&X)].concat();
        assert_refused(&predict(&stage, &one, &other, 10_000).await, "3", "contradicting_model_spec");
        assert_none_arrived(&stage);
        // After 4 MiB of which the server has most.
        let other = spec(MODEL, Some(2));
        let body = frame(&around(&spec(MODEL, Some(1)), &other));
        let answer = send(&stage, &stage.pools.v1, &one, &body, other.len()).await;
        assert_refused(&answer, "3", "contradicting_model_spec");
        assert_nothing_ran(&stage, &stage.pools.v1).await;
        // What does not contradict arrives.
        let same = [spec(MODEL, Some(1)), input(&X)].concat();
        values(&predict(&stage, &one, &same, MIB).await);
        assert_arrived(&stage.pools.v1, &same);
        assert_serves(&stage).await;
    }
}

#[tokio::test]
async fn a_body_without_a_header_decides_whether_it_may_pass() {
    for (what, stage) in stages().await {
        eprintln!("{what}");
        let bert = [spec("bert", None), input(&numbers(MIB))].concat();
        assert_refused(&predict(&stage, &GRPC, &bert, MIB).await, "5", "model_not_configured");
        let bert = [input(&numbers(10_240)), spec("bert", None), input(&X)].concat();
        assert_refused(&predict(&stage, &GRPC, &bert, 10_000).await, "5", "model_not_configured");
        let nobody = input(&numbers(10_240));
        assert_refused(&predict(&stage, &GRPC, &nobody, 10_000).await, "3", "identity_not_found");
        assert_none_arrived(&stage);
        // A method that administers is refused by its path, as ever.
        let reload = stage.client().await.reload_config(&ReloadConfigRequest::default()).await.unwrap();
        assert_eq!(reload.code(), Code::PermissionDenied, "{reload:?}");
        assert_eq!(reload.header("x-predictgate-reason"), Some("admin_method_refused"));
        for pool in [&stage.pools.v1, &stage.pools.v2] {
            assert_eq!(pool.counts().begun.of(Rpc::HandleReloadConfigRequest), 0);
        }
        // What may pass goes by the default route.
        let latest = [spec(MODEL, None), input(&X)].concat();
        values(&predict(&stage, &GRPC, &latest, MIB).await);
        assert_arrived(&stage.pools.v1, &latest);
        assert_eq!(stage.executed(), (1, 0));
    }
}

#[tokio::test]
async fn a_model_that_no_header_names_is_limited_by_its_body() {
    for (what, stage) in stages().await {
        eprintln!("{what}");
        let limited = [&GRPC[..], &[("x-limited", b"yes")]].concat();
        let latest = [spec(MODEL, None), input(&X)].concat();
        for size in [MIB, 1] {
            values(&predict(&stage, &limited, &latest, size).await);
        }
        let behind = [input(&numbers(10_240)), spec(MODEL, None)].concat();
        for (message, size) in [(&latest, MIB), (&latest, 1), (&behind, 10_000)] {
            assert_refused(&predict(&stage, &limited, message, size).await, "8", "rate_limited");
        }
        assert_eq!(stage.pools.v1.counts().arrived.of(Rpc::Predict), 2);
        assert_eq!(stage.executed(), (2, 0));
        // Whom the limit does not match is served as before.
        values(&predict(&stage, &GRPC, &latest, MIB).await);
    }
}

#[tokio::test]
async fn a_message_is_rewritten_in_its_first_piece() {
    for (what, stage) in stages().await {
        eprintln!("{what}");
        let x = numbers(MIB);
        let (first, rest) = (spec(ALIAS, None), input(&x));
        let sent = [first.clone(), rest.clone()].concat();
        let answer = predict(&stage, &naming(ALIAS, None), &sent, MIB).await;
        assert!(values(&answer) == by_v2(&x), "other numbers than version 2 makes of these");
        assert_arrived(&stage.pools.v2, &[first, rewritten(), rest].concat());
        assert_eq!(stage.executed(), (0, 1));
        assert_serves(&stage).await;
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_rewritten_any_more_is_refused() {
    for (what, stage) in stages().await {
        eprintln!("{what}");
        let message = [spec(ALIAS, None), input(&X)].concat();
        let alias = naming(ALIAS, None);
        // The length was announced, and the headers have gone on.
        let length = frame(&message).len().to_string();
        let announced = [&alias[..], &[("content-length", length.as_bytes())]].concat();
        assert_refused(&predict(&stage, &announced, &message, MIB).await, "3", "rewrite_impossible");
        // The first piece has gone on, or would have to.
        assert_refused(&predict(&stage, &alias, &message, 1).await, "3", "rewrite_impossible");
        assert_refused(&predict(&stage, &alias, &message, 12).await, "3", "rewrite_impossible");
        assert_none_arrived(&stage);
        assert_serves(&stage).await;
    }
}

#[tokio::test]
async fn a_body_that_must_be_rewritten_never_passes_as_it_is() {
    for (what, stage) in stages().await {
        eprintln!("{what}");
        // No header names the model, so the default route takes the request, to another pool than the target's.
        let message = [spec(ALIAS, None), input(&X)].concat();
        predict(&stage, &GRPC, &message, MIB).await;
        assert_arrived(&stage.pools.v1, &[spec(ALIAS, None), rewritten(), input(&X)].concat());
        // What was announced, or has begun to go on, cannot be rewritten.
        let length = frame(&message).len().to_string();
        let announced = [&GRPC[..], &[("content-length", length.as_bytes())]].concat();
        assert_refused(&predict(&stage, &announced, &message, MIB).await, "3", "rewrite_impossible");
        assert_refused(&predict(&stage, &GRPC, &message, 1).await, "3", "rewrite_impossible");
        assert_eq!(stage.pools.v1.counts().arrived.of(Rpc::Predict), 1);
        assert_serves(&stage).await;
    }
}
