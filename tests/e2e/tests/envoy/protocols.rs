//! Methods whose messages keep the identity elsewhere: Triton's inference, and MultiInference.

use model_server::client::{Asked, examples, model_spec, multi_inference_request};
use model_server::messages::{InferenceTask, Inferred};
use model_server::signature::{CLASSIFY, REGRESS};
use model_server::{Code, Rpc};
use predictgate_e2e::pools::MODEL;
use serde_json::json;

use super::stage::{BY_V1, BY_V2, Stage, X};
use super::wire::{ALIAS, alias};

const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// The gRPC frame of a case that the library's tests read, too.
fn case(name: &str) -> Vec<u8> {
    let cases = include_str!("../../../cases/identity.toml");
    let (_, case) = cases.split_once(&format!("name = \"{name}\"\n")).expect("the case");
    let (_, body) = case.split_once("\nbody = \"").expect("its body");
    let (body, _) = body.split_once('"').expect("the body's end");
    (0..body.len()).step_by(2).map(|at| u8::from_str_radix(&body[at..at + 2], 16).unwrap()).collect()
}

#[tokio::test]
async fn a_request_of_tritons_client_goes_where_its_model_does() {
    let stage = Stage::configured(|configuration| {
        configuration["models"].as_array_mut().unwrap().push(json!({
            "name": "echo",
            "targets": { "triton": { "cluster": "tfs-v2", "headers": { "x-model-pool": "triton" } } },
            "routes": [{ "match": { "methods": ["ModelInfer"] }, "split": [{ "target": "triton" }] }],
            "otherwise": "reject",
        }));
    });
    let stage = stage.await;
    let client = stage.client().await;
    let send = |path: &'static str, body: Vec<u8>| client.send(path, Some("application/grpc"), body);
    // The model server has no such method, and says so.
    let reply = send(MODEL_INFER, case("triton_infer")).await.unwrap();
    assert_eq!(reply.code(), Code::Unimplemented, "{reply:?}");
    assert_eq!(reply.header("x-predictgate-reason"), None);
    assert_eq!((stage.pools.v1.counts().unknown, stage.pools.v2.counts().unknown), (0, 1));
    let received = stage.pools.v2.received();
    let infer = received.iter().find(|it| it.path == MODEL_INFER).unwrap();
    assert_eq!(infer.header("x-predictgate-target"), Some(&b"triton"[..]));
    assert_eq!(infer.header("x-predictgate-cluster"), Some(&b"tfs-v2"[..]));
    assert_eq!(infer.header("x-model-pool"), Some(&b"triton"[..]));

    // Another method of the model, and another model.
    let reply =
        send("/inference.GRPCInferenceService/ModelMetadata", case("triton_model_meta")).await.unwrap();
    assert_eq!(reply.header("x-predictgate-reason"), Some("model_not_configured"), "{reply:?}");
    let mut other = case("triton_infer");
    let name = other.windows(4).position(|name| name == b"echo").unwrap();
    other[name..name + 4].copy_from_slice(b"ohce");
    let reply = send(MODEL_INFER, other).await.unwrap();
    assert_eq!(reply.header("x-predictgate-reason"), Some("model_not_configured"), "{reply:?}");
    assert_eq!((stage.pools.v1.counts().unknown, stage.pools.v2.counts().unknown), (0, 1));
    stage.assert_alive().await;
}

/// The numbers of a task's result.
fn numbers(result: &Inferred) -> Vec<f32> {
    match result {
        Inferred::RegressionResult(result) => result.regressions.iter().map(|it| it.value).collect(),
        Inferred::ClassificationResult(result) => {
            result.classifications.iter().flat_map(|it| &it.classes).map(|it| it.score).collect()
        }
    }
}

#[tokio::test]
async fn a_multi_inference_goes_by_its_first_task() {
    let stage = Stage::quickstart().await;
    let client = stage.client().await;
    let cases = [
        (Asked::Version(1), BY_V1),
        (Asked::Version(2), BY_V2),
        (Asked::Label("canary"), BY_V2),
        (Asked::Latest, BY_V1),
    ];
    for (asked, by) in cases {
        let request = multi_inference_request(MODEL, asked, &X);
        let results = client.multi_inference(&request).await.unwrap().ok().unwrap().results;
        let results: Vec<_> = results.iter().map(|it| numbers(it.result.as_ref().unwrap())).collect();
        assert_eq!(results, [by, by], "{asked:?}");
    }
    assert_eq!(stage.executed(), (2, 2));

    // The server answers all tasks by the version of the first one; so the filter goes by it.
    let task = |asked, signature: &str, method: &str| InferenceTask {
        model_spec: Some(model_spec(MODEL, asked, signature)),
        method_name: method.to_owned(),
    };
    let mut request = multi_inference_request(MODEL, Asked::Latest, &X);
    request.tasks = vec![
        task(Asked::Version(2), "classify_x_to_y", CLASSIFY),
        task(Asked::Version(1), "regress_x_to_y", REGRESS),
    ];
    request.input = Some(examples(&X));
    let results = client.multi_inference(&request).await.unwrap().ok().unwrap().results;
    assert_eq!(numbers(results[0].result.as_ref().unwrap()), BY_V2);
    assert_eq!(stage.executed(), (2, 3));
    stage.assert_alive().await;
}

#[tokio::test]
async fn a_multi_inference_that_would_have_to_be_rewritten_is_refused() {
    let stage = Stage::configured(alias).await;
    let request = multi_inference_request(ALIAS, Asked::Latest, &X);
    let reply = stage.client().await.multi_inference(&request).await.unwrap();
    assert_eq!(reply.code(), Code::InvalidArgument, "{reply:?}");
    assert_eq!(reply.header("x-predictgate-reason"), Some("rewrite_impossible"));
    for pool in [&stage.pools.v1, &stage.pools.v2] {
        assert_eq!(pool.counts().begun.of(Rpc::MultiInference), 0);
    }
    stage.assert_alive().await;
}
