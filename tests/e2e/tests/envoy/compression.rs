//! Compressed messages: read like any other, and no way around the filter.

use bytes::{BufMut, BytesMut};
use model_server::client::{Asked, model_spec, predict_content_request, predict_request};
use model_server::framing::{frame, gzip, gzip_frame};
use model_server::messages::PredictRequest;
use model_server::{Code, Rpc, hex};
use predictgate_e2e::pools::MODEL;
use prost::Message;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::stage::{BY_V2, Stage, X};

#[tokio::test]
async fn a_gzip_message_goes_where_it_asks_to_and_arrives_as_it_was() {
    let stage = Stage::quickstart().await;
    let client = stage.client().await.with_gzip();
    let request = predict_request(MODEL, Asked::Version(2), &X);
    assert_eq!(client.predict(&request).await.unwrap().ok().unwrap().values(), BY_V2);

    // Numbers that do not repeat compress badly, so that the message stays large.
    let x: Vec<f32> = (0..1_u32 << 19).map(|n| n.wrapping_mul(2_654_435_761) as f32).collect();
    let request = predict_content_request(MODEL, Asked::Version(2), &x);
    let reply = client.predict(&request).await.unwrap().ok().unwrap();
    assert_eq!(reply.values().len(), x.len());
    let received = stage.pools.v2.received();
    let last = received.iter().rev().find(|it| it.rpc == Some(Rpc::Predict)).unwrap();
    assert_eq!(last.sha256_hex().unwrap(), hex(&Sha256::digest(gzip(&request.encode_to_vec()))));
    assert_eq!(stage.executed(), (0, 2));
}

#[tokio::test]
async fn a_contradiction_inside_a_gzip_message_is_refused() {
    let stage = Stage::quickstart().await;
    let contradiction =
        PredictRequest { model_spec: Some(model_spec(MODEL, Asked::Version(2), "")), ..Default::default() };
    let mut message = predict_request(MODEL, Asked::Version(1), &X).encode_to_vec();
    message.extend(contradiction.encode_to_vec());
    let client = stage.client().await.with_metadata("grpc-encoding", "gzip");
    let reply =
        client.send(Rpc::Predict.path(), Some("application/grpc"), gzip_frame(&message)).await.unwrap();
    assert_eq!(reply.code(), Code::InvalidArgument, "{reply:?}");
    assert_eq!(reply.header("x-predictgate-reason"), Some("contradicting_model_spec"));
    assert_eq!(stage.executed(), (0, 0));
    stage.assert_alive().await;
}

#[tokio::test]
async fn an_encoding_that_nobody_can_read_is_refused_when_the_message_is_compressed() {
    let stage = Stage::quickstart().await;
    let message = gzip(&predict_request(MODEL, Asked::Version(1), &X).encode_to_vec());
    let mut body = BytesMut::new();
    body.put_u8(1);
    body.put_u32(u32::try_from(message.len()).unwrap());
    body.extend_from_slice(&message);
    for encoding in ["snappy", "gzip, gzip", "identity"] {
        let client = stage.client().await.with_metadata("grpc-encoding", encoding);
        let body = body.clone().freeze();
        let reply = client.send(Rpc::Predict.path(), Some("application/grpc"), body).await.unwrap();
        assert_eq!(reply.code(), Code::InvalidArgument, "{encoding}: {reply:?}");
    }
    // The flag decides, not the header: a message that is not compressed is read as it is.
    let client = stage.client().await.with_metadata("grpc-encoding", "gzip");
    let plain = frame(&predict_request(MODEL, Asked::Version(2), &X).encode_to_vec());
    let reply = client.send(Rpc::Predict.path(), Some("application/grpc"), plain).await.unwrap();
    assert_eq!(reply.code(), Code::Ok, "{reply:?}");
    assert_eq!(stage.executed(), (0, 1));
}

#[tokio::test]
async fn a_message_that_inflates_without_end_costs_a_bounded_amount() {
    let stage = Stage::quickstart().await;
    let mut bomb = predict_request(MODEL, Asked::Version(1), &X).encode_to_vec();
    // 64 MiB of an unknown field: they compress to 64 KiB.
    bomb.extend([0xfa, 0x7f]);
    prost::encoding::encode_varint(64 << 20, &mut bomb);
    bomb.resize(bomb.len() + (64 << 20), 0);
    let client = stage.client().await.with_metadata("grpc-encoding", "gzip");
    let reply = client.send(Rpc::Predict.path(), Some("application/grpc"), gzip_frame(&bomb)).await.unwrap();
    assert_eq!(reply.code(), Code::InvalidArgument, "{reply:?}");
    assert_eq!(stage.executed(), (0, 0));
    stage.assert_alive().await;
}

#[tokio::test]
async fn compression_is_refused_when_the_operator_says_so() {
    let stage = Stage::configured(|it| it["identity"] = json!({ "compressed": "reject" })).await;
    let client = stage.client().await;
    let request = predict_request(MODEL, Asked::Version(2), &X);
    let reply = client.clone().with_gzip().predict(&request).await.unwrap();
    assert_eq!(reply.code(), Code::InvalidArgument, "{reply:?}");
    assert_eq!(client.predict(&request).await.unwrap().ok().unwrap().values(), BY_V2);
    assert_eq!(stage.executed(), (0, 1));
}
