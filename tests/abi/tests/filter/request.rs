//! Requests as real clients send them.

use predictgate_abi::{Action, Stream, Worker};

pub const PREDICT: &str = "/tensorflow.serving.PredictionService/Predict";
pub const RELOAD: &str = "/tensorflow.serving.ModelService/HandleReloadConfigRequest";

pub type Headers<'a> = Vec<(&'a str, &'a str)>;

pub fn grpc(path: &str) -> Headers<'_> {
    vec![
        (":method", "POST"),
        (":path", path),
        (":authority", "tfs"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
}

pub fn rest<'a>(method: &'a str, path: &'a str) -> Headers<'a> {
    vec![(":method", method), (":path", path), (":authority", "tfs"), ("content-type", "application/json")]
}

/// What a `Predict` asks for.
#[derive(Clone, Copy)]
pub enum Asked<'a> {
    Latest,
    Version(i64),
    Label(&'a str),
}

fn varint(mut number: u64, into: &mut Vec<u8>) {
    while number > 127 {
        into.push((number & 127) as u8 | 128);
        number >>= 7;
    }
    into.push(number as u8);
}

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    varint(content.len() as u64, &mut bytes);
    bytes.extend_from_slice(content);
    bytes
}

pub fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(message);
    frame
}

/// A `PredictRequest` for `model` in its gRPC frame, with a tensor of so many bytes behind the `model_spec`.
pub fn predict(model: &str, asked: Asked<'_>, tensor: usize) -> Vec<u8> {
    let mut spec = field(1, model.as_bytes());
    match asked {
        Asked::Latest => (),
        Asked::Version(version) => {
            let mut value = vec![8];
            varint(version.cast_unsigned(), &mut value);
            spec.extend(field(2, &value));
        }
        Asked::Label(label) => spec.extend(field(4, label.as_bytes())),
    }
    let mut message = field(1, &spec);
    let content: Vec<u8> = (0..tensor).map(|place| (place % 251) as u8).collect();
    let input = [field(1, b"x"), field(2, &field(4, &content))].concat();
    message.extend(field(2, &input));
    framed(&message)
}

/// Two `model_spec`s in one message, which libprotobuf merges; the last name wins.
pub fn contradiction() -> Vec<u8> {
    let first = field(1, &field(1, b"resnet"));
    let tensor = field(2, &[field(1, b"x"), field(2, &field(4, &[7; 4096]))].concat());
    let last = field(1, &field(1, b"old"));
    framed(&[first, tensor, last].concat())
}

/// Sends a request whose body comes in these pieces.
pub fn send(worker: &Worker, headers: &Headers<'_>, pieces: &[&[u8]]) -> Stream {
    let stream = worker.stream();
    stream.request_headers(headers, pieces.is_empty());
    for (place, piece) in pieces.iter().enumerate() {
        if stream.request_body(piece, place + 1 == pieces.len()) == Action::Ended {
            break;
        }
    }
    stream
}

/// Sends a `Predict` and answers it with this status.
pub fn complete(worker: &Worker, asked: Asked<'_>, status: u32) {
    let stream = send(worker, &grpc(PREDICT), &[&predict("resnet", asked, 100)]);
    stream.grpc_response(status);
    stream.log();
}
