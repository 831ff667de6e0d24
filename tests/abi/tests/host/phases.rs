//! What may be done when: headers, replies, and the order in which a stream ends.

use predictgate_abi::Action;

use crate::module::{HEADERS, RESUME_ON_TICK, on_body, on_headers, worker};

const MARK: &str = "(call $report (call $mark (i32.const 0)))";

#[test]
fn held_headers_can_be_changed_until_they_go_on() {
    let headers = on_headers("(i32.const 1)");
    let worker = worker(&format!("{headers} {}", on_body(&format!("{MARK} (i32.const 0)"))));
    let stream = worker.stream();
    stream.request_headers(HEADERS, false);
    stream.request_body(b"a", false);
    stream.request_body(b"b", true);
    assert_eq!(stream.state().header("x-test").as_deref(), Some("yes"));
    // The second callback comes after the headers have gone on: BadArgument.
    assert_eq!(worker.process().log(), ["0", "2"]);
}

#[test]
fn request_headers_cannot_be_read_in_the_response_but_can_in_on_log() {
    let read = "(call $report (call $get_header (i32.const 0) (i32.const 64) (i32.const 6) (i32.const 20)
        (i32.const 24)))";
    let worker = worker(&format!(
        r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) {read} (i32.const 0))
           (func (export "proxy_on_log") (param i32) {read} {MARK})"#
    ));
    let stream = worker.stream();
    stream.request_headers(&[(":path", "/"), ("x-test", "no")], true);
    stream.response_headers(&[(":status", "200")], true);
    stream.log();
    assert_eq!(worker.process().log(), ["2", "0", "2"]);
}

const REPLY: &str =
    "(drop (call $reply (i32.const 503) (i32.const 0) (i32.const 0) (i32.const 112) (i32.const 7)
    (i32.const 0) (i32.const 0) (i32.const 14)))";

#[test]
fn a_local_reply_ends_the_request_and_passes_the_filters_own_response_callback() {
    let response = r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
            (call $report (call $mark (i32.const 2))) (i32.const 0))"#;
    let body = on_body(&format!("{REPLY} (i32.const 0)"));
    let worker = worker(&format!("{} {body} {response}", on_headers("(i32.const 1)")));
    let stream = worker.stream();
    stream.request_headers(HEADERS, false);
    assert_eq!(stream.request_body(b"a", false), Action::Ended);
    assert_eq!(stream.request_body(b"b", true), Action::Ended);
    let state = stream.state();
    assert_eq!(state.headers, None, "nothing goes upstream");
    assert_eq!(state.response_header("grpc-status").as_deref(), Some("14"));
    assert_eq!(state.response_header("grpc-message").as_deref(), Some("refused"));
    assert_eq!(state.response_header("x-test").as_deref(), Some("yes"));
    let reply = state.reply.unwrap();
    assert_eq!((reply.http_status, reply.grpc_status, reply.body), (503, Some(14), b"refused".to_vec()));
}

#[test]
fn a_local_reply_to_plain_http_has_its_status_and_body() {
    let worker = worker(&on_headers(&format!("{REPLY} (i32.const 1)")));
    let stream = worker.stream();
    stream.request_headers(&[(":path", "/")], true);
    let state = stream.state();
    assert_eq!(state.response_header(":status").as_deref(), Some("503"));
    assert_eq!(state.response_body, b"refused");
}

#[test]
fn a_stream_that_is_gone_cannot_be_acted_on() {
    let worker = worker(&format!("{} {RESUME_ON_TICK}", on_headers("(i32.const 1)")));
    let stream = worker.stream();
    stream.request_headers(HEADERS, false);
    stream.cancel();
    worker.tick();
    assert_eq!(worker.process().log(), ["2"]);
    assert_eq!(stream.state().headers, None);
}
