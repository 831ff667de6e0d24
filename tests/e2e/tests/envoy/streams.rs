//! Many requests at once on one connection, each for itself.

use model_server::client::{Asked, model_spec, predict_content_request};
use model_server::framing::frame;
use model_server::messages::PredictResponse;
use model_server::{HalfPlus, Rpc, ServerConfig};
use predictgate_e2e::Pools;
use predictgate_e2e::pools::MODEL;
use prost::Message;
use serde_json::json;

use super::stage::Stage;
use super::wire::{ALIAS, GRPC, alias};

/// Pool v1 has bert's version 7, too, and pool v2 gpt's versions 4 and 5.
const V1: [HalfPlus<'_>; 2] = [(MODEL, &[1], &[("stable", 1)]), ("bert", &[7], &[])];
const V2: [HalfPlus<'_>; 2] = [(MODEL, &[2], &[("canary", 2)]), ("gpt", &[4, 5], &[("old", 4)])];

/// What is asked, and which model and version must answer; none is a refusal.
type Case = (&'static str, Asked<'static>, Option<(&'static str, i64)>);

const CASES: [Case; 10] = [
    (MODEL, Asked::Version(1), Some((MODEL, 1))),
    ("bert", Asked::Version(7), Some(("bert", 7))),
    ("gpt", Asked::Latest, Some(("gpt", 5))),
    (ALIAS, Asked::Latest, Some((MODEL, 2))),
    ("nobody", Asked::Latest, None),
    (MODEL, Asked::Version(2), Some((MODEL, 2))),
    ("gpt", Asked::Label("old"), Some(("gpt", 4))),
    (MODEL, Asked::Label("stable"), Some((MODEL, 1))),
    (ALIAS, Asked::Version(1), Some((MODEL, 2))),
    ("bert", Asked::Latest, Some(("bert", 7))),
];
const REQUESTS: usize = 100;

#[tokio::test]
async fn requests_that_interleave_on_one_connection_are_answered_each_by_its_own_model_and_version() {
    let pool = |models: &[HalfPlus<'_>]| model_server::start(ServerConfig::half_plus(models));
    let pools = Pools { v1: pool(&V1).await.unwrap(), v2: pool(&V2).await.unwrap() };
    let scenario = pools.quickstart().unwrap().reconfigured(|configuration| {
        alias(configuration);
        configuration["identity"]["hold_timeout"] = json!("30s");
        for (name, cluster) in [("bert", "tfs-v1"), ("gpt", "tfs-v2")] {
            configuration["models"].as_array_mut().unwrap().push(json!({
                "name": name,
                "targets": { "all": { "cluster": cluster } },
                "routes": [{ "split": [{ "target": "all" }] }],
            }));
        }
    });
    let envoy = scenario.unwrap().start().await.unwrap();
    envoy.wait_until_healthy().await.unwrap();
    let stage = Stage { pools, envoy };
    // Once the filter knows that Envoy holds headers, many may wait at once.
    stage.assert_alive().await;
    let before = stage.executed();

    let raw = stage.raw().await;
    let mut streams = Vec::new();
    for request in 0..REQUESTS {
        let (model, asked, by) = CASES[request % CASES.len()];
        let x: Vec<f32> = (0..5000).map(|n| (request * 10_000 + n) as f32).collect();
        let mut message = predict_content_request(model, asked, &x);
        message.model_spec = Some(model_spec(model, asked, "serving_default"));
        let post = raw.post(Rpc::Predict.path(), &GRPC).unwrap();
        let stream = raw.open(post, false).await.unwrap();
        streams.push((stream, frame(&message.encode_to_vec()), x, by));
    }
    // All headers have gone out; now a part of each body in turn, first within the identity, and backwards.
    for (from, to) in [(0, 3), (3, 12), (12, 30), (30, 9000)] {
        for (stream, body, ..) in streams.iter_mut().rev() {
            // The filter's refusal may come before the caller has sent all.
            _ = stream.send(body.slice(from..to)).await;
        }
    }
    for (stream, body, ..) in &mut streams {
        _ = stream.send_last(body.slice(9000..));
    }
    for (mut stream, _, x, by) in streams {
        let answer = stream.answer().await;
        let Some((model, version)) = by else {
            assert_eq!(answer.header("x-predictgate-reason"), Some("model_not_configured"), "{answer:?}");
            continue;
        };
        assert_eq!(answer.header("grpc-status"), Some("0"), "{:?}", answer.headers);
        let response = PredictResponse::decode(&answer.body()[5..]).unwrap();
        assert_eq!(response.model_spec.as_ref().unwrap().name, model);
        assert_eq!(response.version(), Some(version));
        let expected: Vec<_> = x.iter().map(|x| 0.5 * x + version as f32 + 1.0).collect();
        assert!(response.values() == expected, "{model} {version} answered for another request");
    }
    // Of ten requests, four go to pool v1, and one to nobody.
    let tenth = REQUESTS as u64 / 10;
    assert_eq!(stage.executed(), (before.0 + 4 * tenth, before.1 + 5 * tenth));
    stage.assert_alive().await;
}
