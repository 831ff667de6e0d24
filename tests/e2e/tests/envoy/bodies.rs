//! Large messages and messages in small pieces.

use model_server::client::raw::Step;
use model_server::client::{Asked, predict_content_request, predict_request};
use model_server::framing::frame;
use model_server::{Rpc, hex};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::wait::DEADLINE;
use prost::Message;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::stage::{Stage, X};

const GRPC: [(&str, &[u8]); 2] = [("content-type", b"application/grpc"), ("te", b"trailers")];
const MIB: usize = 1 << 20;

/// A Predict for version 2 with a tensor of 4 MiB.
fn large() -> Vec<u8> {
    let x: Vec<f32> = (0..u16::MAX).cycle().take(MIB).map(f32::from).collect();
    predict_content_request(MODEL, Asked::Version(2), &x).encode_to_vec()
}

async fn passes_unchanged(stage: &Stage) {
    let message = large();
    let reply = stage.client().await.call(Rpc::Predict.path(), &message).await.unwrap();
    assert_eq!(reply.code(), model_server::Code::Ok, "{}", reply.text);
    let received = stage.pools.v2.received();
    let predict = received.iter().find(|it| it.rpc == Some(Rpc::Predict)).unwrap();
    assert_eq!(predict.message_bytes, message.len() as u64);
    assert_eq!(predict.sha256_hex().unwrap(), hex(&Sha256::digest(&message)));
    assert_eq!(stage.executed(), (0, 1));
}

#[tokio::test]
async fn a_tensor_of_4_mib_passes_unchanged() {
    passes_unchanged(&Stage::quickstart().await).await;
}

#[tokio::test]
async fn a_tensor_of_4_mib_passes_through_windows_and_buffers_of_64_kib() {
    let stage = Stage::with(|scenario| {
        Ok(scenario
            .connection_manager(|manager| {
                manager["http2_protocol_options"]["initial_stream_window_size"] = json!(65535);
                manager["http2_protocol_options"]["initial_connection_window_size"] = json!(65535);
            })
            .bootstrap(|bootstrap| {
                bootstrap["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] =
                    json!(65536);
            }))
    });
    passes_unchanged(&stage.await).await;
}

#[tokio::test]
async fn the_server_has_the_beginning_of_a_message_before_the_caller_sends_its_end() {
    let stage = Stage::quickstart().await;
    let body = frame(&large());
    let half = body.len() / 2;
    let raw = stage.raw().await;
    let mut stream = raw.open(raw.post(Rpc::Predict.path(), &GRPC).unwrap(), false).await.unwrap();
    stream.send(body.slice(..half)).await.unwrap();
    // All of the first half but what Envoy's windows may hold back is with the server now.
    stage
        .pools
        .v2
        .until(DEADLINE, |server| {
            server
                .received()
                .iter()
                .any(|it| it.rpc == Some(Rpc::Predict) && (half / 2) as u64 <= it.body_bytes)
        })
        .await
        .unwrap();
    assert_eq!(stage.executed(), (0, 0));
    stream.send_last(body.slice(half..)).unwrap();
    let answer = stream.answer().await;
    assert_eq!(answer.header("grpc-status"), Some("0"), "{answer:?}");
    assert_eq!(stage.executed(), (0, 1));
}

#[tokio::test]
async fn envoy_keeps_no_more_of_a_message_than_its_windows() {
    const STREAMS: usize = 16;
    let stage = Stage::quickstart().await;
    passes_unchanged(&stage).await;
    let before = stage.envoy.resident().unwrap().now;
    let body = frame(&large());
    let most = 3 * MIB;
    let raw = stage.raw().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let post = raw.post(Rpc::Predict.path(), &GRPC).unwrap();
        let mut stream = raw.open(post, false).await.unwrap();
        stream.send(body.slice(..most)).await.unwrap();
        streams.push(stream);
    }
    // Now 3 MiB of each of 16 messages are on their way, and no message is whole.
    let has_most = |it: &model_server::Received| (most / 2) as u64 <= it.body_bytes && !it.executed;
    let arrived = |server: &model_server::Server| server.received().iter().filter(|it| has_most(it)).count();
    stage.pools.v2.until(DEADLINE, |server| arrived(server) == STREAMS).await.unwrap();
    let grown = stage.envoy.resident().unwrap().now.saturating_sub(before);
    assert!(grown < (STREAMS * most / 2) as u64, "Envoy has grown by {} MiB", grown >> 20);
    for mut stream in streams {
        stream.send_last(body.slice(most..)).unwrap();
        assert_eq!(stream.answer().await.header("grpc-status"), Some("0"));
    }
    assert_eq!(stage.executed(), (0, 1 + STREAMS as u64));
}

#[tokio::test]
async fn an_identity_that_comes_byte_by_byte_is_read() {
    let stage = Stage::quickstart().await;
    let body = frame(&predict_request(MODEL, Asked::Version(2), &X).encode_to_vec());
    let raw = stage.raw().await;
    let answer = raw.request(Rpc::Predict.path(), &GRPC, Step::chunks(&body, 1)).await.unwrap();
    assert_eq!(answer.header("grpc-status"), Some("0"), "{answer:?}");
    assert_eq!(stage.executed(), (0, 1));
    let reply = stage.client().await.send(Rpc::Predict.path(), Some("application/grpc"), body).await.unwrap();
    assert_eq!(reply.code(), model_server::Code::Ok);
    assert_eq!(stage.executed(), (0, 2));
    stage.assert_alive().await;
}

#[tokio::test]
async fn an_identity_after_the_tensors_is_read_within_the_first_bytes_and_refused_beyond() {
    let stage = Stage::quickstart().await;
    let mut request = predict_content_request(MODEL, Asked::Version(2), &[1.0; 4096]);
    let spec = request.model_spec.take();
    // 16 KiB of tensor come before the model; the message is a merge of both parts.
    let mut message = request.encode_to_vec();
    request.inputs.clear();
    request.model_spec = spec.clone();
    message.extend(request.encode_to_vec());
    let reply = stage.client().await.call(Rpc::Predict.path(), &message).await.unwrap();
    assert_eq!(reply.code(), model_server::Code::Ok, "{}", reply.text);
    assert_eq!(stage.executed(), (0, 1));

    let mut request = predict_content_request(MODEL, Asked::Version(2), &[1.0; 65_536]);
    request.model_spec = None;
    let mut message = request.encode_to_vec();
    request.inputs.clear();
    request.model_spec = spec;
    message.extend(request.encode_to_vec());
    let reply = stage.client().await.call(Rpc::Predict.path(), &message).await.unwrap();
    assert_eq!(reply.code(), model_server::Code::InvalidArgument, "{}", reply.text);
    assert_eq!(reply.header("x-predictgate-reason"), Some("identity_not_found"));
    assert_eq!(stage.executed(), (0, 1));
}

#[tokio::test]
async fn a_caller_that_leaves_while_its_request_is_held_leaves_nothing_behind() {
    let stage = Stage::quickstart().await;
    stage.assert_alive().await;
    let raw = stage.raw().await;
    let mut stream = raw.open(raw.post(Rpc::Predict.path(), &GRPC).unwrap(), false).await.unwrap();
    stage.wait_for_metric("predictgate_held", &[], 1.0).await;
    stream.reset(h2::Reason::CANCEL);
    stage.wait_for_metric("predictgate_held", &[], 0.0).await;
    drop(stream);

    let held = stage.raw().await;
    let stream = held.open(held.post(Rpc::Predict.path(), &GRPC).unwrap(), false).await.unwrap();
    stage.wait_for_metric("predictgate_held", &[], 1.0).await;
    drop((stream, held));
    stage.wait_for_metric("predictgate_held", &[], 0.0).await;
    assert_eq!(stage.executed(), (0, 1));
    stage.assert_alive().await;
}
