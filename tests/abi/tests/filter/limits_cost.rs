//! What a request costs a limit in the built module, and when that shows.

use predictgate_abi::{Action, State, Worker};
use serde_json::json;

use crate::limits::{is_passed, limit, limited, one, refused, start};
use crate::request::{Asked, Headers, PREDICT, framed, grpc, predict, rest, send};
use crate::setup::process;

const STREAM_INFER: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 127 {
        bytes.push(number as u8 | 128);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &varint(content.len() as u64), content].concat()
}

/// A `PredictRequest` whose inputs have these leading dimensions.
fn batches(examples: &[u64]) -> Vec<u8> {
    let mut message = field(1, &field(1, b"resnet"));
    for (place, examples) in examples.iter().enumerate() {
        let dimension = field(2, &[vec![8], varint(*examples)].concat());
        let tensor = [field(2, &dimension), field(4, &[7; 40])].concat();
        message.extend(field(2, &[field(1, format!("x{place}").as_bytes()), field(2, &tensor)].concat()));
    }
    framed(&message)
}

fn costly(cost: &str, tokens: u32) -> Worker {
    one(&[limit("costly", tokens, json!({ "cost": cost }))], &[])
}

/// Sends a body in pieces of so many bytes.
fn in_pieces(worker: &Worker, headers: &Headers<'_>, body: &[u8], size: usize) -> State {
    send(worker, headers, &body.chunks(size).collect::<Vec<_>>()).state()
}

const SIZES: [usize; 3] = [usize::MAX, 7, 1];

#[test]
fn a_batch_costs_the_largest_leading_dimension_however_it_is_cut() {
    for size in SIZES {
        let worker = costly("batch", 32);
        let call = |examples: &[u64]| in_pieces(&worker, &grpc(PREDICT), &batches(examples), size);
        assert!(is_passed(&call(&[3, 20, 4])), "{size}");
        assert!(is_passed(&call(&[12])), "{size}");
        refused(&call(&[1]), "costly");
    }
}

#[test]
fn a_batch_that_comes_whole_is_spent_whole_or_not_at_all() {
    let worker = costly("batch", 10);
    let call = |examples: &[u64]| in_pieces(&worker, &grpc(PREDICT), &batches(examples), usize::MAX);
    assert!(is_passed(&call(&[5])));
    for _ in 0..3 {
        refused(&call(&[2, 6]), "costly");
    }
    assert!(is_passed(&call(&[5])));
    refused(&call(&[1]), "costly");
}

#[test]
fn bytes_are_those_of_the_message_however_it_is_cut() {
    let body = predict("resnet", Asked::Latest, 400);
    let cost = u32::try_from(body.len() - 5).unwrap();
    for size in SIZES {
        let worker = costly("bytes", 2 * cost);
        let call = || in_pieces(&worker, &grpc(PREDICT), &body, size);
        assert!(is_passed(&call()) && is_passed(&call()), "{size}");
        let state = call();
        refused(&state, "costly");
        // The prefix tells the length, so nothing of what is refused goes upstream.
        assert_eq!(state.headers, None);
    }
}

const REST_PREDICT: &str = "/v1/models/resnet:predict";

#[test]
fn bytes_of_rest_are_those_that_were_announced_or_those_that_come() {
    let body = [b'7'; 100];
    let worker = costly("bytes", 250);
    let headers = [&rest("POST", REST_PREDICT)[..], &[("content-length", "100")]].concat();
    for passes in [true, true, false] {
        let state = in_pieces(&worker, &headers, &body, 30);
        assert_eq!(is_passed(&state), passes);
        assert_eq!(state.headers.is_some(), passes, "what is announced is refused by the headers");
    }
    let worker = costly("bytes", 250);
    let call = || in_pieces(&worker, &rest("POST", REST_PREDICT), &body, 30);
    assert!(is_passed(&call()) && is_passed(&call()));
    // 30 bytes and 20 are left: the headers and a piece go on before it shows.
    let state = call();
    refused(&state, "costly");
    assert!(state.headers.is_some() && state.body.len() < body.len());
}

#[test]
fn without_an_identity_header_the_body_tells_late_what_it_costs() {
    for size in SIZES {
        let mut configuration = limited(&[limit("costly", 32, json!({ "cost": "batch" }))], &[]);
        configuration["identity"] = json!({ "grpc": "metadata" });
        let worker = start(&process(), &configuration);
        let call = |examples: &[u64]| in_pieces(&worker, &grpc(PREDICT), &batches(examples), size);
        assert!(is_passed(&call(&[30])) && is_passed(&call(&[2])), "{size}");
        let state = call(&[1]);
        refused(&state, "costly");
        assert!(state.headers.is_some(), "the headers had gone on");
    }
}

/// A `ModelInferRequest` for `resnet` with an input of this shape.
fn infer(examples: u64) -> Vec<u8> {
    let shape = field(3, &[varint(examples), varint(4)].concat());
    let input = field(5, &[field(1, b"x"), field(2, b"FP32"), shape].concat());
    framed(&[field(1, b"resnet"), input].concat())
}

#[test]
fn a_stream_costs_one_request_and_the_batch_and_the_bytes_of_each_message() {
    let message = infer(4);
    let bytes = u32::try_from(message.len() - 5).unwrap();
    for (cost, tokens, messages) in [("request", 1, 10), ("batch", 12, 3), ("bytes", 3 * bytes, 3)] {
        let worker = costly(cost, tokens);
        let stream = worker.stream();
        stream.request_headers(&grpc(STREAM_INFER), false);
        for place in 0..messages {
            stream.request_body(&message, false);
            assert_eq!(stream.state().reply, None, "{cost}: message {place}");
        }
        if cost == "request" {
            assert!(!is_passed(&in_pieces(&worker, &grpc(STREAM_INFER), &message, usize::MAX)));
        } else {
            assert_eq!(stream.request_body(&message, false), Action::Ended, "{cost}");
            refused(&stream.state(), "costly");
        }
    }
}

#[test]
fn a_cost_above_the_burst_is_never_satisfiable_however_it_is_cut() {
    for size in SIZES {
        for batch in [33, 34, 1000] {
            let worker = costly("batch", 32);
            let state = in_pieces(&worker, &grpc(PREDICT), &batches(&[batch]), size);
            refused(&state, "costly");
            let message = state.response_header("grpc-message").unwrap();
            let wanted =
                format!("this costs {batch}, more than the 32 that limit costly ever lets pass at once");
            assert_eq!(message, wanted, "in pieces of {size}");
            assert_eq!(state.response_header("retry-after"), None);
            assert_eq!(state.response_header("grpc-retry-pushback-ms").as_deref(), Some("-1"));
        }
    }
}
