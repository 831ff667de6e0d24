//! What hostile, unlucky and foreign clients send.

use bytes::Bytes;
use model_server::client::raw::{Answer, Raw, Step};
use model_server::client::{Asked, predict_request};
use model_server::messages::PredictResponse;
use model_server::{Rpc, Server, framing};
use prost::Message;

use crate::server;

fn message() -> Vec<u8> {
    predict_request("resnet", Asked::Version(1), &[1.0]).encode_to_vec()
}

async fn send(server: &Server, headers: &[(&str, &[u8])], steps: Vec<Step>) -> Answer {
    let raw = Raw::connect(server.grpc_addr()).await.unwrap();
    raw.request(Rpc::Predict.path(), headers, steps).await.unwrap()
}

#[track_caller]
fn executed(answer: &Answer) {
    assert_eq!(answer.header("grpc-status"), Some("0"), "{answer:?}");
    let body = answer.body();
    let response = PredictResponse::decode(&body[framing::PREFIX..]).unwrap();
    assert_eq!(response.values(), [2.5]);
}

#[tokio::test]
async fn a_body_may_come_one_byte_at_a_time() {
    let server = server().await;
    let body = framing::frame(&message());
    let answer = send(&server, &[], Step::chunks(&body, 1)).await;
    executed(&answer);
    assert_eq!(server.received()[0].body_bytes, body.len() as u64);
}

#[tokio::test]
async fn a_method_is_executed_whatever_the_content_type() {
    let server = server().await;
    let types: [&[(&str, &[u8])]; 4] = [
        &[],
        &[("content-type", b"application/json")],
        &[("content-type", b"text/plain")],
        &[("content-type", b"application/grpc-web+proto")],
    ];
    for headers in types {
        let steps = vec![Step::LastData(framing::frame(&message()))];
        executed(&send(&server, headers, steps).await);
    }
    assert_eq!(server.counts().executed("resnet", 1), 4);
}

#[tokio::test]
async fn an_empty_frame_or_trailers_may_end_the_request() {
    let server = server().await;
    let body = framing::frame(&message());
    executed(&send(&server, &[], vec![Step::Data(body.clone()), Step::LastData(Bytes::new())]).await);
    let trailers = http::HeaderMap::from_iter([("x-end".parse().unwrap(), "1".parse().unwrap())]);
    executed(&send(&server, &[], vec![Step::Data(body), Step::Trailers(trailers)]).await);
}

#[tokio::test]
async fn nothing_is_answered_before_the_request_ends() {
    let server = server().await;
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let watched = server.received().len();
    let steps = vec![
        Step::Data(framing::frame(&message())),
        Step::wait(async move { ended.await.unwrap() }),
        Step::LastData(Bytes::new()),
    ];
    let raw = Raw::connect(server.grpc_addr()).await.unwrap();
    let exchange = raw.request(Rpc::Predict.path(), &[], steps);
    let watch = async {
        let body = framing::frame(&message()).len() as u64;
        let came = |server: &Server| server.received().get(watched).is_some_and(|it| it.body_bytes == body);
        server.until(crate::LONG, came).await.unwrap();
        assert_eq!(server.counts().arrived.total(), 0);
        end.send(()).unwrap();
    };
    let (answer, ()) = tokio::join!(exchange, watch);
    executed(&answer.unwrap());
}

#[tokio::test]
async fn what_follows_the_first_message_is_not_looked_at() {
    let server = server().await;
    let body = [framing::frame(&message()), framing::frame(b"\xff\xff")].concat();
    executed(&send(&server, &[], vec![Step::LastData(body.into())]).await);
}

#[tokio::test]
async fn truncated_frames_are_not_executed() {
    let server = server().await;
    let body = framing::frame(&message());
    for end in [0, 1, 4, 5, body.len() - 1] {
        let answer = send(&server, &[], vec![Step::LastData(body.slice(..end))]).await;
        assert_eq!(answer.headers["grpc-status"], "13", "ends at {end}");
    }
    assert_eq!(server.counts().arrived.total(), 0);
}

#[tokio::test]
async fn compression_is_told_by_the_flag_and_named_by_the_header() {
    let server = server().await;
    for (frame, encoding, status) in [
        (framing::gzip_frame(&message()), &b"gzip"[..], "0"),
        (framing::frame(&message()), b"gzip", "0"),
        (framing::frame(&message()), b"snappy", "0"),
        (framing::gzip_frame(&message()), b"identity", "13"),
        (framing::gzip_frame(&message()), b"deflate", "13"),
        (framing::gzip_frame(&message()), b"snappy", "12"),
    ] {
        let answer = send(&server, &[("grpc-encoding", encoding)], vec![Step::LastData(frame)]).await;
        assert_eq!(answer.header("grpc-status"), Some(status), "{}", String::from_utf8_lossy(encoding));
    }
}

#[tokio::test]
async fn many_calls_share_a_connection_and_many_may_be_reset() {
    let server = server().await;
    let raw = Raw::connect(server.grpc_addr()).await.unwrap();
    for _ in 0..200 {
        let mut stream = raw.open(raw.post(Rpc::Predict.path(), &[]).unwrap(), false).await.unwrap();
        stream.reset(h2::Reason::CANCEL);
    }
    let steps = vec![Step::LastData(framing::frame(&message()))];
    executed(&raw.request(Rpc::Predict.path(), &[], steps).await.unwrap());
}
