//! WasmPlugin and TrafficExtension: headers choose, and the message is verified.

use model_server::client::{Asked, predict_request};
use model_server::{Code, Rpc};
use predictgate_e2e::pools::MODEL;
use serde_json::{Value, json};

use crate::stage::{By, Stage, X, named};

/// The filter's configuration in the manifest itself.
fn plugin_config(stage: &Stage, by: By) -> Value {
    let object = |kind| &stage.manifests.object(kind, "predictgate").unwrap()["spec"];
    match by {
        By::WasmPlugin => object("WasmPlugin")["pluginConfig"].clone(),
        By::TrafficExtension => object("TrafficExtension")["wasm"]["pluginConfig"].clone(),
        By::EnvoyFilter => panic!("it has no pluginConfig"),
    }
}

#[tokio::test]
async fn istiod_delivers_the_plugins_configuration_and_headers_choose_the_subset() {
    for by in [By::WasmPlugin, By::TrafficExtension] {
        let stage = Stage::of(by).await;
        assert_eq!(stage.configured(by).await, plugin_config(&stage, by), "{by:?}");
        let client = stage.client().await;
        let cases = [
            ("x-model-version", "1", Asked::Version(1)),
            ("x-model-version", "2", Asked::Version(2)),
            ("x-model-label", "canary", Asked::Label("canary")),
        ];
        for (header, value, asked) in cases {
            let reply = named(&client, &[(header, value)]).predict(&predict_request(MODEL, asked, &X)).await;
            reply.unwrap().ok().unwrap_or_else(|error| panic!("{by:?}, {header}: {value}: {error}"));
        }
        assert_eq!(stage.executed(), (1, 2), "{by:?}");
    }
}

#[tokio::test]
async fn a_path_of_rest_names_the_model_itself() {
    let stage = Stage::of(By::WasmPlugin).await;
    for path in ["/v1/models/resnet/versions/1:predict", "/v1/models/resnet/versions/2:predict"] {
        assert_eq!(stage.rest(path, &[]).await.status, 200, "{path}");
    }
    assert_eq!(stage.executed(), (1, 1));
}

#[tokio::test]
async fn a_message_that_contradicts_the_headers_is_executed_by_nobody() {
    let stage = Stage::of(By::WasmPlugin).await;
    let client = named(&stage.client().await, &[("x-model-version", "1")]);
    let reply = client.predict(&predict_request(MODEL, Asked::Version(2), &X)).await.unwrap();
    assert_eq!(reply.code(), Code::InvalidArgument, "{reply:?}");
    assert_eq!(reply.header("x-predictgate-reason"), Some("contradicting_model_spec"));
    assert_eq!(stage.executed(), (0, 0));
}

#[tokio::test]
async fn without_headers_the_message_is_still_limited_and_goes_to_the_stable_subset() {
    let tokens = 5;
    let bucket = json!({ "max_tokens": tokens, "tokens_per_fill": 1, "fill_interval": "24h" });
    let manifests = By::WasmPlugin.manifests().change("WasmPlugin", "predictgate", |plugin| {
        plugin["spec"]["pluginConfig"]["models"][0]["rate_limits"][0]["token_bucket"] = bucket;
    });
    let stage = Stage::with(manifests.unwrap()).await;
    let client = stage.client().await.with_metadata("x-tenant", "acme");
    let mut limited = 0;
    for _ in 0..4 * tokens {
        let reply = client.predict(&predict_request(MODEL, Asked::Latest, &X)).await.unwrap();
        if reply.code() == Code::ResourceExhausted {
            assert_eq!(reply.header("x-predictgate-reason"), Some("rate_limited"));
            limited += 1;
        } else {
            reply.ok().unwrap();
        }
    }
    assert_eq!(limited, 3 * tokens);
    assert_eq!(stage.executed(), (tokens, 0));
}

#[tokio::test]
async fn without_headers_a_model_that_is_not_configured_is_executed_by_nobody() {
    let stage = Stage::of(By::WasmPlugin).await;
    let reply = stage.client().await.predict(&predict_request("bert", Asked::Latest, &X)).await.unwrap();
    assert_eq!(reply.code(), Code::NotFound, "{reply:?}");
    assert_eq!(stage.executed(), (0, 0));
    assert_eq!(stage.pools.v1.counts().arrived.of(Rpc::Predict), 0);
}
