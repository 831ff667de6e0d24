//! Every hold ends: by the body, by the clock, or by the caller's leaving.

use std::time::Duration;

use predictgate_abi::{Action, Stream, Worker};
use serde_json::json;

use crate::request::{Asked, PREDICT, complete, grpc, predict};
use crate::setup::{HOLD_TIMEOUT, held, start, with_identity, worker};

const MOMENT: Duration = Duration::from_millis(1);

fn hold(worker: &Worker) -> Stream {
    let stream = worker.stream();
    assert_eq!(stream.request_headers(&grpc(PREDICT), false), Action::Pause);
    stream
}

/// A worker whose host is known to run body callbacks while headers are held.
fn proven(worker: Worker) -> Worker {
    complete(&worker, Asked::Latest, 0);
    worker
}

#[test]
fn a_hold_ends_at_its_deadline_and_not_before() {
    let worker = proven(worker());
    let stream = hold(&worker);
    worker.process().advance(HOLD_TIMEOUT.checked_sub(MOMENT).unwrap());
    worker.tick();
    assert!(stream.state().paused);
    assert_eq!(held(&worker), 1);
    worker.process().advance(MOMENT);
    worker.tick();
    let state = stream.state();
    assert_eq!(state.response_header("x-predictgate-reason").as_deref(), Some("hold_timeout"));
    assert_eq!(state.response_header("grpc-status").as_deref(), Some("4"));
    assert_eq!(state.headers, None);
    assert_eq!(held(&worker), 0);
    stream.log();
    assert_eq!(worker.metric("predictgate_rejected", &[("reason", "hold_timeout")]), 1);
}

#[test]
fn a_hold_that_ends_by_the_clock_can_pass_instead() {
    let worker = proven(start(&with_identity(json!({ "on_hold_timeout": "pass" }))));
    let stream = hold(&worker);
    worker.process().advance(HOLD_TIMEOUT);
    worker.tick();
    let state = stream.state();
    assert_eq!(state.reply, None);
    assert_eq!(state.header(":path").as_deref(), Some(PREDICT));
    let body = predict("resnet", Asked::Version(2), 10);
    assert_eq!(stream.request_body(&body, true), Action::Continue);
    assert_eq!(stream.state().body, body);
    assert_eq!(held(&worker), 0);
}

#[test]
fn the_wall_clock_does_not_end_a_hold() {
    let worker = proven(worker());
    let stream = hold(&worker);
    worker.process().set_wall_clock(Duration::from_secs(4_000_000_000));
    worker.tick();
    assert!(stream.state().paused);
}

#[test]
fn a_hold_of_half_a_message_ends_too() {
    let worker = proven(worker());
    let stream = hold(&worker);
    let body = predict("resnet", Asked::Latest, 10);
    assert_eq!(stream.request_body(&body[..7], false), Action::Pause);
    worker.process().advance(HOLD_TIMEOUT);
    worker.tick();
    assert_eq!(stream.state().response_header("x-predictgate-reason").as_deref(), Some("hold_timeout"));
}

#[test]
fn a_caller_that_leaves_while_held_is_forgotten() {
    let worker = proven(worker());
    let (gone, staying) = (hold(&worker), hold(&worker));
    gone.cancel();
    assert_eq!(held(&worker), 1);
    worker.process().advance(HOLD_TIMEOUT.checked_sub(MOMENT).unwrap());
    worker.tick();
    assert!(staying.state().paused, "the tick acts on nobody else");
    staying.request_body(&predict("resnet", Asked::Version(2), 10), true);
    assert_eq!(staying.state().header("x-predictgate-target").as_deref(), Some("canary"));
    assert_eq!(held(&worker), 0);
    worker.process().advance(HOLD_TIMEOUT);
    worker.tick();
    assert_eq!(gone.state().headers, None);
    assert_eq!(worker.metric("predictgate_requests", &[("target", "stable")]), 1, "the proof alone");
}

#[test]
fn many_holds_end_few_at_a_time_in_ticks_that_come_soon() {
    const HELD: usize = 100;
    let worker = proven(worker());
    let streams: Vec<_> = (0..HELD).map(|_| hold(&worker)).collect();
    let told = || streams.iter().filter(|it| it.state().response_header("grpc-status").is_some()).count();
    let usual = worker.newest_tick_period();
    worker.process().advance(HOLD_TIMEOUT);
    while told() < HELD {
        let before = told();
        worker.tick();
        // Envoy runs the answers of one callback one inside the other, on one stack.
        assert!((1..=32).contains(&(told() - before)), "{} are told in one tick", told() - before);
        assert_eq!(held(&worker), i64::try_from(HELD - told()).unwrap());
        assert_eq!(worker.newest_tick_period(), if told() < HELD { 1 } else { usual });
    }
    for stream in streams {
        assert_eq!(stream.state().response_header("grpc-status").as_deref(), Some("4"));
        stream.log();
    }
    assert_eq!(worker.metric("predictgate_rejected", &[("reason", "hold_timeout")]), 100);
}

#[test]
fn trailers_end_a_hold() {
    let worker = worker();
    let stream = hold(&worker);
    let body = predict("resnet", Asked::Latest, 10);
    assert_eq!(stream.request_body(&body[..7], false), Action::Pause);
    stream.request_trailers(&[("x-end", "1")]);
    let reason = stream.state().response_header("x-predictgate-reason");
    assert_eq!(reason.as_deref(), Some("malformed_request"), "the message was cut short");
    assert_eq!(held(&worker), 0);
}

#[test]
fn a_slow_caller_of_an_unproven_host_is_refused_when_its_body_comes_at_last() {
    let worker = worker();
    let stream = hold(&worker);
    worker.process().advance(HOLD_TIMEOUT);
    worker.tick();
    assert!(stream.state().headers.is_some(), "the headers go on, to see what the host does then");
    worker.process().advance(Duration::from_millis(101));
    stream.request_body(&predict("resnet", Asked::Latest, 10), true);
    let state = stream.state();
    assert_eq!(state.response_header("x-predictgate-reason").as_deref(), Some("hold_timeout"));
    assert!(!state.complete);
    // Such a caller proves nothing, so that the next one is held again.
    hold(&worker);
}
