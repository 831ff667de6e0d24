//! Messages that the tests write byte by byte themselves, so that what has to arrive is no library's opinion.

use bytes::Bytes;
use model_server::client::raw::Answer;
use model_server::messages::PredictResponse;
use model_server::{Outcome, Received, Rpc, Server, hex};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::wait::DEADLINE;
use prost::Message;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub const GRPC: [(&str, &[u8]); 2] = [("content-type", b"application/grpc"), ("te", b"trailers")];
pub const MIB: usize = 1 << 20;
/// The model whose requests ask for version 2 of resnet after [`alias`].
pub const ALIAS: &str = "alias";

/// Adds a model to the configuration: whatever is asked of it is asked of version 2 of resnet.
pub fn alias(configuration: &mut Value) {
    let alias = json!({
        "name": ALIAS,
        "targets": {
            "v2": {
                "cluster": "tfs-v2",
                "headers": { "x-model-pool": "v2" },
                "rewrite": { "model": MODEL, "version": "2" },
            }
        },
        "routes": [{ "split": [{ "target": "v2" }] }],
    });
    configuration["models"].as_array_mut().unwrap().push(alias);
}

/// The field that the rewrite of [`alias`] adds behind the caller's.
pub fn rewritten() -> Vec<u8> {
    spec(MODEL, Some(2))
}

/// A length-delimited field, whose number is below 16.
pub fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = content.len();
    while length > 127 {
        field.push((length & 127) as u8 | 128);
        length >>= 7;
    }
    field.push(length as u8);
    field.extend_from_slice(content);
    field
}

/// The field `model_spec` of a request; a version is below 128.
pub fn spec(model: &str, version: Option<u8>) -> Vec<u8> {
    let version = version.map(|version| field(2, &[8, version])).unwrap_or_default();
    field(1, &[field(1, model.as_bytes()), version].concat())
}

/// The field `inputs` of a `PredictRequest`, with a vector of floats as `tensor_content`.
pub fn input(x: &[f32]) -> Vec<u8> {
    let mut size = vec![8];
    prost::encoding::encode_varint(x.len() as u64, &mut size);
    let content: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
    let tensor = [&[8, 1][..], &field(2, &field(2, &size)), &field(4, &content)].concat();
    field(2, &[field(1, b"x"), field(2, &tensor)].concat())
}

/// So many numbers that hardly repeat, and of which half is a float, too.
pub fn numbers(count: usize) -> Vec<f32> {
    (0..count as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 10) as f32).collect()
}

/// What version 2 of resnet makes of numbers.
pub fn by_v2(x: &[f32]) -> Vec<f32> {
    x.iter().map(|x| 0.5 * x + 3.0).collect()
}

/// The numbers of an answer to a Predict that succeeded.
#[track_caller]
pub fn values(answer: &Answer) -> Vec<f32> {
    assert_eq!(answer.header("grpc-status"), Some("0"), "{:?} {:?}", answer.headers, answer.trailers);
    let body = Bytes::from(answer.body());
    PredictResponse::decode(body.slice(5..)).unwrap().values().to_vec()
}

/// Asserts that the filter refused, and why.
#[track_caller]
pub fn assert_refused(answer: &Answer, status: &str, reason: &str) {
    assert_eq!(answer.header("grpc-status"), Some(status), "{answer:?}");
    assert_eq!(answer.header("x-predictgate-reason"), Some(reason), "{answer:?}");
}

/// The last Predict that a server received.
pub fn last(server: &Server) -> Received {
    server.received().into_iter().rev().find(|it| it.rpc == Some(Rpc::Predict)).expect("a Predict")
}

/// Asserts that the last Predict of a server was this message and no other.
#[track_caller]
pub fn assert_arrived(server: &Server, message: &[u8]) {
    let last = last(server);
    assert_eq!(last.message_bytes, message.len() as u64);
    assert_eq!(last.sha256_hex(), Some(hex(&Sha256::digest(message))));
    assert_eq!(last.header("content-length"), None);
}

/// Waits until a Predict that a server is still receiving has so many bytes of its body.
pub async fn until_it_has(server: &Server, bytes: usize) {
    let has = |it: &Received| {
        it.rpc == Some(Rpc::Predict) && it.outcome == Outcome::Open && bytes as u64 <= it.body_bytes
    };
    server.until(DEADLINE, |server| server.received().iter().any(has)).await.unwrap();
}
