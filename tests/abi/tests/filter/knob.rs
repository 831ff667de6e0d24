//! A host without `allow_on_headers_stop_iteration`: no request hangs, and the filter finds out.

use predictgate_abi::{Action, Worker};

use crate::request::{Asked, PREDICT, grpc, predict};
use crate::setup::{HOLD_TIMEOUT, held, worker};

fn incapable() -> Worker {
    let worker = worker();
    worker.knob(false);
    worker
}

fn find_out(worker: &Worker) {
    let stream = worker.stream();
    stream.request_headers(&grpc(PREDICT), false);
    let body = predict("resnet", Asked::Version(2), 1000);
    assert_eq!(stream.request_body(&body, true), Action::NotCalled);
    worker.process().advance(HOLD_TIMEOUT);
    worker.tick();
    let state = stream.state();
    assert_eq!(state.body, body, "the request that found out goes on whole");
    assert!(state.complete);
    stream.grpc_response(0);
    stream.log();
}

#[test]
fn the_filter_finds_out_says_so_once_and_holds_no_more() {
    let worker = incapable();
    find_out(&worker);
    let said = |line: &&String| line.contains("allow_on_headers_stop_iteration");
    for _ in 0..3 {
        let stream = worker.stream();
        assert_eq!(stream.request_headers(&grpc(PREDICT), false), Action::Continue);
        let body = predict("resnet", Asked::Latest, 10);
        assert_eq!(stream.request_body(&body, true), Action::Continue);
        assert_eq!(stream.state().body, body);
    }
    assert_eq!(worker.process().log().iter().filter(said).count(), 1);
    assert_eq!(worker.metric("predictgate_identity", &[("result", "host_cannot_hold")]), 1);
    assert_eq!(held(&worker), 0);
}

#[test]
fn requests_are_then_routed_by_their_headers() {
    let worker = incapable();
    find_out(&worker);
    let mut headers = grpc(PREDICT);
    headers.extend([("x-model-name", "resnet"), ("x-model-label", "canary")]);
    let stream = worker.stream();
    assert_eq!(stream.request_headers(&headers, false), Action::Continue);
    stream.request_body(&predict("resnet", Asked::Label("canary"), 10), true);
    assert_eq!(stream.state().header("x-predictgate-target").as_deref(), Some("canary"));
}

#[test]
fn the_body_can_still_refuse() {
    let worker = incapable();
    find_out(&worker);
    let stream = worker.stream();
    stream.request_headers(&grpc(PREDICT), false);
    stream.request_body(&predict("other", Asked::Latest, 10), true);
    let state = stream.state();
    assert_eq!(state.response_header("x-predictgate-reason").as_deref(), Some("model_not_configured"));
    assert!(!state.complete);
}

#[test]
fn all_requests_that_were_held_meanwhile_go_on() {
    let worker = incapable();
    let body = predict("resnet", Asked::Latest, 10);
    let begin = || {
        let stream = worker.stream();
        stream.request_headers(&grpc(PREDICT), false);
        stream.request_body(&body, true);
        stream
    };
    let early = [begin(), begin()];
    worker.process().advance(HOLD_TIMEOUT / 2);
    let late = [begin(), begin()];
    worker.process().advance(HOLD_TIMEOUT / 2);
    worker.tick();
    worker.process().advance(HOLD_TIMEOUT / 2);
    worker.tick();
    for stream in early.iter().chain(&late) {
        let state = stream.state();
        assert_eq!(state.reply, None);
        assert_eq!(state.body, body);
    }
    assert_eq!(held(&worker), 0);
}

#[test]
fn few_requests_wait_to_find_out() {
    let worker = incapable();
    let streams: Vec<_> = (0..20).map(|_| worker.stream()).collect();
    for stream in &streams {
        stream.request_headers(&grpc(PREDICT), false);
    }
    let waiting = streams.iter().filter(|stream| stream.state().paused).count();
    assert_eq!(waiting, 16);
    assert_eq!(held(&worker), 16);
}
