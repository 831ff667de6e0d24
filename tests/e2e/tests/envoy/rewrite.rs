//! Targets that ask the server for something else than the caller did.

use model_server::client::raw::Step;
use model_server::client::{Asked, predict_content_request, predict_request};
use model_server::framing::frame;
use model_server::{Code, Rpc};
use prost::Message;

use super::stage::{BY_V2, Stage, X};
use super::wire::{ALIAS, alias};

#[tokio::test]
async fn the_server_is_asked_for_the_model_and_version_of_the_target() {
    let stage = Stage::configured(alias).await;
    let client = stage.client().await;
    for asked in [Asked::Latest, Asked::Version(1), Asked::Version(0), Asked::Label("stable")] {
        let reply = client.predict(&predict_request(ALIAS, asked, &X)).await.unwrap();
        assert_eq!(reply.ok().unwrap().values(), BY_V2, "{asked:?}");
    }
    for path in ["/v1/models/alias", "/v1/models/alias/versions/1", "/V1/models/ali%61s/labels/stable"] {
        let answer = stage.post(&format!("{path}:predict")).await;
        assert_eq!(answer.values(), BY_V2, "{path}: {answer:?}");
    }
    assert_eq!(stage.executed(), (0, 7));
}

#[tokio::test]
async fn a_large_tensor_passes_unchanged_behind_the_rewritten_beginning() {
    let stage = Stage::configured(alias).await;
    let x: Vec<f32> = (0..1_u32 << 20).map(|n| (n % 4096) as f32).collect();
    let reply = stage.client().await.predict(&predict_content_request(ALIAS, Asked::Latest, &x)).await;
    let reply = reply.unwrap().ok().unwrap();
    assert_eq!(reply.values().len(), x.len());
    assert!(reply.values().iter().zip(&x).all(|(y, x)| (y - (0.5 * x + 3.0)).abs() < f32::EPSILON));
}

#[tokio::test]
async fn a_length_that_the_caller_announced_is_taken_back() {
    let stage = Stage::configured(alias).await;
    let body = frame(&predict_request(ALIAS, Asked::Latest, &X).encode_to_vec());
    let length = body.len().to_string();
    let headers: [(&str, &[u8]); 3] =
        [("content-type", b"application/grpc"), ("te", b"trailers"), ("content-length", length.as_bytes())];
    let raw = stage.raw().await;
    // The length of the body is as announced for the filter, and another for the server.
    for size in [body.len(), 1] {
        let answer = raw.request(Rpc::Predict.path(), &headers, Step::chunks(&body, size)).await.unwrap();
        assert_eq!(answer.header("grpc-status"), Some("0"), "{answer:?}");
    }
    assert_eq!(stage.executed(), (0, 2));
}

#[tokio::test]
async fn what_cannot_be_rewritten_is_never_sent_as_it_is() {
    let stage = Stage::configured(alias).await;
    let client = stage.client().await;
    let request = predict_request(ALIAS, Asked::Latest, &X);
    let gzipped = client.clone().with_gzip().predict(&request).await.unwrap();
    assert_eq!(gzipped.code(), Code::InvalidArgument, "{gzipped:?}");
    assert_eq!(gzipped.header("x-predictgate-reason"), Some("rewrite_impossible"));
    // A second model_spec would undo the rewrite.
    let mut twice = request.encode_to_vec();
    twice.extend(predict_content_request(ALIAS, Asked::Latest, &[1.0; 100_000]).encode_to_vec());
    twice.extend(request.encode_to_vec());
    let reply = client.call(Rpc::Predict.path(), &twice).await.unwrap();
    assert_eq!(reply.code(), Code::InvalidArgument, "{reply:?}");
    assert_eq!(stage.executed(), (0, 0));
    for pool in [&stage.pools.v1, &stage.pools.v2] {
        assert_eq!(pool.counts().arrived.of(Rpc::Predict), 0);
    }
}
