//! What hostile and broken clients send. Each gets a clear answer or passes untouched, and the VM lives.

use bytes::{BufMut, Bytes, BytesMut};
use http::Method;
use model_server::client::raw::Step;
use model_server::client::{Asked, model_spec, predict_request, rest};
use model_server::framing::frame;
use model_server::messages::PredictRequest;
use model_server::{Code, Rpc};
use predictgate_e2e::pools::MODEL;
use prost::Message;

use super::stage::{BY_V2, Stage, X, header, instances};

const GRPC: [(&str, &[u8]); 2] = [("content-type", b"application/grpc"), ("te", b"trailers")];

fn predict(asked: Asked<'_>) -> Bytes {
    frame(&predict_request(MODEL, asked, &X).encode_to_vec())
}

#[tokio::test]
async fn a_known_method_with_another_content_type_is_executed_by_nobody() {
    let stage = Stage::quickstart().await;
    let client = stage.client().await;
    let content_types = [
        Some("application/json"),
        Some("text/plain"),
        None,
        Some("application/grpc-web-text"),
        Some("application/grpc-web-text+proto"),
    ];
    for content_type in content_types {
        for rpc in [Rpc::Predict, Rpc::Classify, Rpc::GetModelStatus] {
            let reply = client.send(rpc.path(), content_type, predict(Asked::Version(1))).await.unwrap();
            let what = format!("{rpc:?} as {content_type:?}: {reply:?}");
            match reply.status {
                Some(code) => assert_eq!(code, Code::InvalidArgument, "{what}"),
                None => assert_eq!(reply.http, 415, "{what}"),
            }
            assert_eq!(reply.header("x-predictgate-reason"), Some("malformed_request"), "{what}");
        }
    }
    for pool in [&stage.pools.v1, &stage.pools.v2] {
        assert_eq!(pool.counts().begun.of(Rpc::Predict), 0);
        assert_eq!(pool.counts().total(), 0);
    }
    stage.assert_alive().await;
}

#[tokio::test]
async fn header_bytes_that_are_not_utf8_pass_untouched() {
    let stage = Stage::quickstart().await;
    let odd = b"\xff\xfe\x80";
    let client = stage.client().await.with_metadata("x-odd", odd).with_metadata("x-predictgate-explain", odd);
    let reply = client.predict(&predict_request(MODEL, Asked::Version(2), &X)).await.unwrap();
    assert_eq!(reply.ok().unwrap().values(), BY_V2);
    let received = stage.pools.v2.received();
    let predict = received.iter().find(|it| it.rpc == Some(Rpc::Predict)).unwrap();
    assert_eq!(predict.header("x-odd"), Some(&odd[..]));

    let headers: [(&str, &[u8]); 2] = [("content-type", b"application/json"), ("x-odd", odd)];
    let path = "/v1/models/resnet/versions/2:predict";
    let answer = rest::request(stage.envoy.addr, Method::POST, path, &headers, instances().into()).await;
    assert_eq!(answer.unwrap().values(), BY_V2);
    stage.assert_alive().await;
}

#[tokio::test]
async fn an_empty_body_is_refused() {
    let stage = Stage::quickstart().await;
    let reply = stage.client().await.send(Rpc::Predict.path(), Some("application/grpc"), "").await.unwrap();
    assert_eq!(reply.code(), Code::InvalidArgument, "{reply:?}");
    assert_eq!(reply.header("x-predictgate-reason"), Some("identity_not_found"));
    let raw = stage.raw().await;
    let answer = raw.request(Rpc::Predict.path(), &GRPC, vec![Step::LastData(Bytes::new())]).await.unwrap();
    assert_eq!(answer.header("grpc-status"), Some("3"), "{answer:?}");
    assert_eq!(stage.executed(), (0, 0));
    stage.assert_alive().await;
}

#[tokio::test]
async fn an_empty_message_names_no_model() {
    let stage = Stage::quickstart().await;
    let reply = stage.client().await.call(Rpc::Predict.path(), b"").await.unwrap();
    assert_eq!(reply.code(), Code::InvalidArgument, "{reply:?}");
    assert_eq!(reply.header("x-predictgate-reason"), Some("identity_not_found"));
    assert_eq!(stage.executed(), (0, 0));
    stage.assert_alive().await;
}

#[tokio::test]
async fn a_truncated_frame_is_executed_by_nobody() {
    let stage = Stage::quickstart().await;
    let client = stage.client().await;
    let whole = predict(Asked::Version(1));
    for length in [1, 4, 5, 6, 10, whole.len() - 1] {
        let part = whole.slice(..length);
        let reply = client.send(Rpc::Predict.path(), Some("application/grpc"), part).await.unwrap();
        assert!(reply.code() != Code::Ok, "{length} bytes: {reply:?}");
        // Up to the identity the filter answers; after it the server may.
        if length < 10 {
            assert_eq!(reply.code(), Code::InvalidArgument, "{length} bytes: {reply:?}");
        }
    }
    assert_eq!(stage.executed(), (0, 0));
    stage.assert_alive().await;
}

#[tokio::test]
async fn a_message_that_is_no_protobuf_is_refused() {
    let stage = Stage::quickstart().await;
    for message in [&b"\x0a\xff\xff\xff\xff\xff"[..], b"\x07", b"\x0a\x04\x0a\x02\xff\xfe", &[0xff; 64]] {
        let reply = stage.client().await.call(Rpc::Predict.path(), message).await.unwrap();
        assert_eq!(reply.code(), Code::InvalidArgument, "{message:?}: {reply:?}");
    }
    assert_eq!(stage.executed(), (0, 0));
    stage.assert_alive().await;
}

#[tokio::test]
async fn a_later_model_spec_that_contradicts_the_first_is_refused_before_anything_is_executed() {
    let stage = Stage::quickstart().await;
    let contradiction =
        PredictRequest { model_spec: Some(model_spec(MODEL, Asked::Version(2), "")), ..Default::default() };
    let mut message = predict_request(MODEL, Asked::Version(1), &X).encode_to_vec();
    message.extend(contradiction.encode_to_vec());
    let reply = stage.client().await.call(Rpc::Predict.path(), &message).await.unwrap();
    assert_eq!(reply.code(), Code::InvalidArgument, "{reply:?}");
    assert_eq!(reply.header("x-predictgate-reason"), Some("contradicting_model_spec"));

    // So it is when the first part has already gone to the server.
    let first = predict_request(MODEL, Asked::Version(1), &X).encode_to_vec();
    let second = contradiction.encode_to_vec();
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(first.len() + second.len()).unwrap());
    body.extend_from_slice(&first);
    let raw = stage.raw().await;
    let mut stream = raw.open(raw.post(Rpc::Predict.path(), &GRPC).unwrap(), false).await.unwrap();
    stream.send(body.freeze()).await.unwrap();
    let begun = |server: &model_server::Server| server.counts().begun.of(Rpc::Predict) == 1;
    stage.pools.v1.until(predictgate_e2e::wait::DEADLINE, begun).await.unwrap();
    stream.send_last(Bytes::from(second)).unwrap();
    let answer = stream.answer().await;
    assert_eq!(answer.header("grpc-status"), Some("3"), "{answer:?}");
    assert_eq!(answer.header("x-predictgate-reason"), Some("contradicting_model_spec"));
    assert_eq!(stage.executed(), (0, 0));
    stage.assert_alive().await;
}

#[tokio::test]
async fn a_second_message_on_a_unary_method_is_refused() {
    let stage = Stage::quickstart().await;
    let two = [predict(Asked::Version(1)), predict(Asked::Version(1))].concat();
    let reply = stage.client().await.send(Rpc::Predict.path(), Some("application/grpc"), two).await.unwrap();
    assert_eq!(reply.code(), Code::InvalidArgument, "{reply:?}");
    assert_eq!(reply.header("x-predictgate-reason"), Some("malformed_request"));
    assert_eq!(stage.executed(), (0, 0));
    stage.assert_alive().await;
}

#[tokio::test]
async fn trailers_after_a_request_do_not_confuse() {
    let stage = Stage::quickstart().await;
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-after", http::HeaderValue::from_static("1"));
    let raw = stage.raw().await;
    let steps = vec![Step::Data(predict(Asked::Version(2))), Step::Trailers(trailers.clone())];
    let answer = raw.request(Rpc::Predict.path(), &GRPC, steps).await.unwrap();
    assert_eq!(answer.header("grpc-status"), Some("0"), "{answer:?}");
    let answer = raw.request(Rpc::Predict.path(), &GRPC, vec![Step::Trailers(trailers)]).await.unwrap();
    assert_eq!(answer.header("grpc-status"), Some("3"), "{answer:?}");
    assert_eq!(stage.executed(), (0, 1));
    stage.assert_alive().await;
}

#[tokio::test]
async fn odd_names_are_told_and_logged_without_their_bytes() {
    let stage = Stage::quickstart().await;
    let odd = "a\r\nset-cookie: x=1\0\u{e9}%";
    let client = stage.client().await.with_metadata("x-predictgate-explain", "1");
    let reply = client.predict(&predict_request(odd, Asked::Latest, &X)).await.unwrap();
    assert_eq!(reply.code(), Code::NotFound, "{reply:?}");
    assert_eq!(reply.header("set-cookie"), None);
    let decision = reply.header("x-predictgate-decision").unwrap();
    assert!(decision.starts_with("model=a%0D%0Aset-cookie%3A"), "{decision}");
    let answer = stage.post("/v1/models/a%0D%0Ab:predict").await;
    assert_eq!(answer.status, 404);
    assert_eq!(header(&answer, "x-predictgate-reason"), Some("model_not_configured"));
    assert!(answer.error().is_some(), "{answer:?}");
    stage.assert_alive().await;
}
