//! Holding headers and bodies.

use predictgate_abi::{Action, Worker};

use crate::module::{HEADERS, RESUME_ON_TICK, on_body, on_headers, worker};

/// Holds headers, and body until its end.
fn holder() -> Worker {
    let body = on_body("(call $show_body) (i32.eqz (local.get $end))");
    worker(&format!("{} {body} {RESUME_ON_TICK}", on_headers("(i32.const 1)")))
}

#[test]
fn a_held_body_grows_until_the_callback_that_continues() {
    let worker = holder();
    let stream = worker.stream();
    assert_eq!(stream.request_headers(HEADERS, false), Action::Pause);
    assert_eq!(stream.request_body(b"one", false), Action::Pause);
    assert_eq!(stream.request_body(b"two", false), Action::Pause);
    let held = stream.state();
    assert_eq!((held.headers, held.body, held.held), (None, vec![], 6));
    assert_eq!(stream.request_body(b"three", true), Action::Continue);
    let state = stream.state();
    assert_eq!((state.body.as_slice(), state.complete), (&b"onetwothree"[..], true));
    assert_eq!(state.header(":path").as_deref(), Some("/"));
    assert_eq!(worker.process().log(), ["one", "onetwo", "onetwothree"]);
}

#[test]
fn after_a_resume_what_was_held_goes_on_unseen_and_chunks_stand_alone() {
    let worker = holder();
    let stream = worker.stream();
    stream.request_headers(HEADERS, false);
    stream.request_body(b"one", false);
    worker.tick();
    assert_eq!(stream.state().body, b"one");
    assert!(!stream.state().paused);
    stream.request_body(b"two", true);
    assert_eq!(stream.state().body, b"onetwo");
    assert_eq!(worker.process().log(), ["one", "0", "two"]);
}

#[test]
fn without_the_knob_no_body_callback_runs_while_headers_are_held() {
    let worker = holder();
    worker.knob(false);
    let stream = worker.stream();
    assert_eq!(stream.request_headers(HEADERS, false), Action::Pause);
    assert_eq!(stream.request_body(b"one", false), Action::NotCalled);
    assert_eq!(stream.request_body(b"two", false), Action::NotCalled);
    worker.tick();
    // The callback after the resume sees everything at once, behind the headers.
    assert_eq!(worker.process().log(), ["0", "onetwo"]);
    assert!(stream.state().headers.is_some());
    assert_eq!(stream.state().held, 6);
    stream.request_body(b"three", true);
    assert_eq!(stream.state().body, b"onetwothree");
}

#[test]
fn trailers_that_come_while_everything_is_held_are_seen_after_the_body() {
    let trailers = r#"(func (export "proxy_on_request_trailers") (param i32 i32) (result i32)
        (call $report (call $mark (i32.const 1))) (i32.const 0))"#;
    let body = on_body("(call $show_body) (i32.const 0)");
    let worker = worker(&format!("{} {body} {trailers} {RESUME_ON_TICK}", on_headers("(i32.const 1)")));
    worker.knob(false);
    let stream = worker.stream();
    stream.request_headers(HEADERS, false);
    stream.request_body(b"one", false);
    assert_eq!(stream.request_trailers(&[("a", "1")]), Action::NotCalled);
    worker.tick();
    assert_eq!(worker.process().log(), ["0", "one", "0"]);
    let state = stream.state();
    assert_eq!(state.trailers.unwrap().text("x-test").as_deref(), Some("yes"));
    assert!(state.complete);
}

#[test]
fn a_request_without_a_body_is_complete_when_its_headers_are_resumed() {
    for knob in [true, false] {
        let worker = holder();
        worker.knob(knob);
        let stream = worker.stream();
        stream.request_headers(HEADERS, true);
        assert!(!stream.state().complete);
        worker.tick();
        assert!(stream.state().complete, "knob {knob}");
    }
}

#[test]
fn a_body_can_be_replaced_whole_prepended_and_appended_and_not_in_part() {
    let set = |start: u32, length: u32| {
        format!(
            "(call $report (call $set_buffer (i32.const 0) (i32.const {start}) (i32.const {length})
                (i32.const 80) (i32.const 3)))"
        )
    };
    for (start, length, status, expected) in [
        (0, 4, "0", "yes"),
        (0, 100, "0", "yes"),
        (0, 0, "0", "yesbody"),
        (4, 0, "0", "bodyyes"),
        (0, 2, "2", "body"),
        (2, 2, "2", "body"),
    ] {
        let worker = worker(&on_body(&format!("{} (i32.const 0)", set(start, length))));
        let stream = worker.stream();
        stream.request_headers(HEADERS, false);
        stream.request_body(b"body", true);
        assert_eq!(stream.state().body, expected.as_bytes(), "start {start}, length {length}");
        assert_eq!(worker.process().log(), [status], "start {start}, length {length}");
    }
}
