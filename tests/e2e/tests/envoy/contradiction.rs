//! A second identity far behind the first: seen however much lies between, and executed by nobody.

use bytes::Bytes;
use model_server::client::raw::Answer;
use model_server::framing::{frame, gzip_frame};
use model_server::{Outcome, Rpc, Server};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::wait::DEADLINE;

use super::stage::{Stage, X};
use super::wire::{ALIAS, GRPC, MIB, alias, assert_refused, field, input, last, numbers, spec, until_it_has};

const GZIP: [(&str, &[u8]); 3] = [GRPC[0], GRPC[1], ("grpc-encoding", b"gzip")];

/// A message with 4 MiB between two identities. The server computes little of it: what lies between is of no
/// field that it knows.
pub fn around(first: &[u8], second: &[u8]) -> Vec<u8> {
    let between: Vec<u8> = numbers(MIB).iter().flat_map(|x| x.to_le_bytes()).collect();
    [first, &input(&X), &field(15, &between), second].concat()
}

/// Sends all but the last bytes, waits until the server has most of them, and sends the last ones.
pub async fn send(
    stage: &Stage,
    server: &Server,
    headers: &[(&str, &[u8])],
    body: &Bytes,
    last: usize,
) -> Answer {
    let raw = stage.raw().await;
    let mut stream = raw.open(raw.post(Rpc::Predict.path(), headers).unwrap(), false).await.unwrap();
    let end = body.len() - last;
    stream.send(body.slice(..end)).await.unwrap();
    // Envoy's windows and buffers may hold the rest back.
    until_it_has(server, end / 2).await;
    stream.send_last(body.slice(end..)).unwrap();
    stream.answer().await
}

/// Asserts that a server saw the request come and then go, and that nobody has had a whole message.
pub async fn assert_nothing_ran(stage: &Stage, server: &Server) {
    let gone = |server: &Server| last(server).outcome == Outcome::Cancelled;
    server.until(DEADLINE, gone).await.unwrap();
    for pool in [&stage.pools.v1, &stage.pools.v2] {
        assert_eq!(pool.counts().arrived.of(Rpc::Predict), 0);
    }
    assert_eq!(stage.executed(), (0, 0));
}

#[tokio::test]
async fn another_model_spec_behind_4_mib_is_refused() {
    let stage = Stage::quickstart().await;
    for other in [spec(MODEL, Some(2)), spec("bert", None), field(1, &field(4, b"canary"))] {
        let body = frame(&around(&spec(MODEL, Some(1)), &other));
        let answer = send(&stage, &stage.pools.v1, &GRPC, &body, other.len()).await;
        assert_refused(&answer, "3", "contradicting_model_spec");
        assert_nothing_ran(&stage, &stage.pools.v1).await;
    }
    // The same once more is no contradiction.
    let same = spec(MODEL, Some(1));
    let answer = send(&stage, &stage.pools.v1, &GRPC, &frame(&around(&same, &same)), same.len()).await;
    assert_eq!(answer.header("grpc-status"), Some("0"), "{answer:?}");
    assert_eq!(stage.executed(), (1, 0));
    stage.assert_alive().await;
}

#[tokio::test]
async fn a_model_spec_that_would_undo_a_rewrite_is_refused_behind_4_mib() {
    let stage = Stage::configured(alias).await;
    // Even the same undoes it: protobuf merges it onto what was put in.
    for other in [spec(ALIAS, None), spec(MODEL, Some(1)), spec(MODEL, Some(2))] {
        let body = frame(&around(&spec(ALIAS, None), &other));
        let answer = send(&stage, &stage.pools.v2, &GRPC, &body, other.len()).await;
        assert_refused(&answer, "3", "contradicting_model_spec");
        assert_nothing_ran(&stage, &stage.pools.v2).await;
    }
    stage.assert_alive().await;
}

#[tokio::test]
async fn another_model_spec_behind_4_mib_of_a_gzip_message_is_refused() {
    let stage = Stage::quickstart().await;
    let body = gzip_frame(&around(&spec(MODEL, Some(1)), &spec(MODEL, Some(2))));
    // The numbers compress badly, so that the server has most of the message before its end.
    assert!(2 * MIB < body.len());
    let answer = send(&stage, &stage.pools.v1, &GZIP, &body, 100).await;
    assert_refused(&answer, "3", "contradicting_model_spec");
    assert_nothing_ran(&stage, &stage.pools.v1).await;

    let body = gzip_frame(&around(&spec(MODEL, Some(1)), &spec(MODEL, Some(1))));
    let answer = send(&stage, &stage.pools.v1, &GZIP, &body, 100).await;
    assert_eq!(answer.header("grpc-status"), Some("0"), "{answer:?}");
    assert_eq!(stage.executed(), (1, 0));
    stage.assert_alive().await;
}
