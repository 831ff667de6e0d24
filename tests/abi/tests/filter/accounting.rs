//! Each stream is counted once, with the status that its client got.

use std::time::Duration;

use crate::request::{Asked, PREDICT, complete, grpc, predict, rest, send};
use crate::setup::{held, worker};

#[test]
fn a_status_in_trailers_is_the_code() {
    let worker = worker();
    for status in [0, 0, 14, 5, 13] {
        complete(&worker, Asked::Latest, status);
    }
    let count = |code| {
        let tags = [("model", "resnet"), ("target", "stable"), ("code", code)];
        worker.metric("predictgate_requests", &tags)
    };
    assert_eq!(["OK", "UNAVAILABLE", "NOT_FOUND", "INTERNAL"].map(count), [2, 1, 1, 1]);
    assert_eq!(worker.metric("predictgate_requests", &[]), 5);
}

#[test]
fn a_trailers_only_status_is_the_code() {
    let worker = worker();
    let stream = send(&worker, &grpc(PREDICT), &[&predict("resnet", Asked::Latest, 1)]);
    let headers = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "14")];
    stream.response_headers(&headers, true);
    stream.log();
    assert_eq!(worker.metric("predictgate_requests", &[("code", "UNAVAILABLE")]), 1);
}

#[test]
fn a_response_that_was_cut_has_no_code() {
    let worker = worker();
    let stream = send(&worker, &grpc(PREDICT), &[&predict("resnet", Asked::Latest, 1)]);
    stream.response_headers(&[(":status", "200"), ("content-type", "application/grpc")], false);
    stream.response_body(&[0, 0], false);
    stream.log();
    assert_eq!(worker.metric("predictgate_requests", &[("code", "none")]), 1);
}

#[test]
fn a_caller_that_leaves_before_the_answer_has_no_code() {
    let worker = worker();
    let stream = send(&worker, &grpc(PREDICT), &[&predict("resnet", Asked::Latest, 1)]);
    stream.cancel();
    assert_eq!(worker.metric("predictgate_requests", &[("code", "none")]), 1);
}

#[test]
fn rest_is_counted_by_its_http_status() {
    let worker = worker();
    for status in ["200", "404", "999", "x"] {
        let stream = send(&worker, &rest("POST", "/v1/models/resnet:predict"), &[b"{}"]);
        stream.response_headers(&[(":status", status)], true);
        stream.log();
    }
    let codes = ["http_200", "http_404", "none"];
    let counts = codes.map(|code| worker.metric("predictgate_requests", &[("code", code)]));
    assert_eq!(counts, [1, 1, 2]);
}

#[test]
fn a_status_that_no_grpc_server_sends_makes_no_metric_of_its_own() {
    let worker = worker();
    for status in ["17", "-1", "99999999999999999999", "", "1e3"] {
        let stream = send(&worker, &grpc(PREDICT), &[&predict("resnet", Asked::Latest, 1)]);
        stream.response_headers(&[(":status", "200"), ("grpc-status", status)], true);
        stream.log();
    }
    assert_eq!(worker.metric("predictgate_requests", &[("code", "none")]), 5);
}

#[test]
fn every_stream_has_one_identity_and_none_stays_held() {
    let worker = worker();
    complete(&worker, Asked::Latest, 0);
    let stream = worker.stream();
    stream.request_headers(&grpc(PREDICT), false);
    stream.cancel();
    let stream = send(&worker, &rest("GET", "/v1/models"), &[]);
    stream.log();
    let stream = send(&worker, &grpc(PREDICT), &[&[9; 20]]);
    stream.log();
    assert_eq!(worker.metric("predictgate_identity", &[]), 4);
    assert_eq!(worker.metric("predictgate_identity", &[("result", "body")]), 1);
    assert_eq!(worker.metric("predictgate_identity", &[("result", "malformed")]), 1);
    assert_eq!(held(&worker), 0);
}

#[test]
fn how_long_an_answer_took_is_shown_for_each_target() {
    let worker = worker();
    let stream = worker.stream();
    stream.request_headers(&grpc(PREDICT), false);
    stream.request_body(&predict("resnet", Asked::Version(2), 1), true);
    worker.process().advance(Duration::from_millis(30));
    stream.grpc_response(0);
    stream.log();
    assert_eq!(worker.process().recorded("predictgate_request_duration_ms", &[("target", "canary")]), [30]);
}

#[test]
fn what_was_counted_is_told_before_a_root_goes() {
    let mut worker = worker();
    complete(&worker, Asked::Latest, 0);
    worker.reconfigure(crate::setup::configuration().to_string()).unwrap();
    worker.drain();
    assert_eq!(worker.process().metric("predictgate_requests", &[]), 1);
}
