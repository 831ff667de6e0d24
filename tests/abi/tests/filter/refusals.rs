//! Every reason that a client can be refused for, in its own language.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use predictgate_abi::{State, Worker};
use serde_json::json;

use crate::request::{Asked, Headers, PREDICT, RELOAD, contradiction, grpc, predict, rest, send};
use crate::setup::{start, with_identity, worker};

#[track_caller]
fn refused_grpc(state: &State, reason: &str, status: u32) {
    let header = |name| state.response_header(name);
    assert_eq!(header("x-predictgate-reason").as_deref(), Some(reason), "{state:?}");
    assert_eq!(header("grpc-status"), Some(status.to_string()), "{state:?}");
    assert!(header("grpc-message").is_some_and(|message| !message.is_empty()), "{state:?}");
    let details = STANDARD_NO_PAD.decode(header("grpc-status-details-bin").unwrap()).unwrap();
    let details = String::from_utf8_lossy(&details);
    for part in ["google.rpc.ErrorInfo", "predictgate", reason] {
        assert!(details.contains(part), "{part} is not in {details:?}");
    }
    assert_eq!(state.reply.as_ref().unwrap().details, reason);
}

#[track_caller]
fn refused_rest(state: &State, reason: &str, status: &str) {
    assert_eq!(state.response_header("x-predictgate-reason").as_deref(), Some(reason), "{state:?}");
    assert_eq!(state.response_header(":status").as_deref(), Some(status), "{state:?}");
    assert_eq!(state.response_header("content-type").as_deref(), Some("application/json"));
    let body: serde_json::Value = serde_json::from_slice(&state.response_body).expect("the body is JSON");
    assert!(body["error"].as_str().is_some_and(|error| !error.is_empty()), "{body}");
    assert_eq!(state.headers, None, "nothing goes upstream");
}

/// A refusal before anything goes upstream.
#[track_caller]
fn check(headers: &Headers<'_>, pieces: &[&[u8]], reason: &str, status: u32) {
    let worker = worker();
    let state = send(&worker, headers, pieces).state();
    refused_grpc(&state, reason, status);
    assert_eq!(state.headers, None, "nothing goes upstream");
}

#[test]
fn a_model_that_is_not_configured() {
    check(&grpc(PREDICT), &[&predict("other", Asked::Latest, 1)], "model_not_configured", 5);
    let state = send(&worker(), &rest("POST", "/v1/models/other:predict"), &[b"{}"]).state();
    refused_rest(&state, "model_not_configured", "404");
}

#[test]
fn a_version_that_no_route_takes() {
    check(&grpc(PREDICT), &[&predict("old", Asked::Version(2), 1)], "model_not_configured", 5);
}

#[test]
fn a_message_that_names_no_model() {
    check(&grpc(PREDICT), &[&[0, 0, 0, 0, 0]], "identity_not_found", 3);
    check(&grpc(PREDICT), &[&predict("", Asked::Latest, 10)], "identity_not_found", 3);
    check(&grpc(PREDICT), &[], "identity_not_found", 3);
}

#[test]
fn a_message_that_cannot_be_read() {
    let whole = predict("resnet", Asked::Latest, 10);
    check(&grpc(PREDICT), &[&whole[..whole.len() - 1]], "malformed_request", 3);
    check(&grpc(PREDICT), &[&[7; 40]], "malformed_request", 3);
    let two = [whole.clone(), whole].concat();
    let state = send(&worker(), &grpc(PREDICT), &[&two]).state();
    refused_grpc(&state, "malformed_request", 3);
}

#[test]
fn a_known_method_in_a_content_type_that_no_grpc_client_sends() {
    for content_type in
        [Some("application/json"), Some("text/plain"), Some("application/grpc-web-text"), None]
    {
        let mut headers = grpc(PREDICT);
        headers.retain(|(name, _)| *name != "content-type");
        headers.extend(content_type.map(|it| ("content-type", it)));
        let state = send(&worker(), &headers, &[&predict("resnet", Asked::Latest, 1)]).state();
        refused_rest(&state, "malformed_request", "415");
    }
}

#[test]
fn administrative_methods() {
    check(&grpc(RELOAD), &[b"\0\0\0\0\0"], "admin_method_refused", 7);
    let state = send(&worker(), &rest("POST", "/v2/repository/models/resnet/unload"), &[b"{}"]).state();
    refused_rest(&state, "admin_method_refused", "403");
}

#[test]
fn administrative_methods_pass_where_the_operator_says_so() {
    let mut configuration = crate::setup::configuration();
    configuration["admin_methods"] = "pass".into();
    let state = send(&start(&configuration), &grpc(RELOAD), &[b"\0\0\0\0\0"]).state();
    assert_eq!((state.reply, state.complete), (None, true));
}

#[test]
fn a_second_model_spec_that_contradicts_the_first_one_late() {
    let body = contradiction();
    let worker = worker();
    let stream = send(&worker, &grpc(PREDICT), &body.chunks(1000).collect::<Vec<_>>());
    let state = stream.state();
    refused_grpc(&state, "contradicting_model_spec", 3);
    assert!(!state.complete, "the server never gets the whole message, so it executes nothing");
}

#[test]
fn the_body_contradicts_the_identity_headers() {
    let worker = start(&with_identity(json!({ "grpc": "metadata" })));
    let mut headers = grpc(PREDICT);
    headers.push(("x-model-name", "resnet"));
    let stream = send(&worker, &headers, &[&predict("old", Asked::Version(1), 1)]);
    refused_grpc(&stream.state(), "contradicting_model_spec", 3);
    assert!(!stream.state().complete);
}

#[test]
fn more_requests_held_than_may_wait_to_find_out_what_the_host_can() {
    let worker = start(&with_identity(json!({ "max_held": 2 })));
    let streams: Vec<_> = (0..3).map(|_| worker.stream()).collect();
    for stream in &streams {
        stream.request_headers(&grpc(PREDICT), false);
    }
    assert!(streams[0].state().paused && streams[1].state().paused);
    refused_grpc(&streams[2].state(), "overloaded", 14);
    // One that leaves makes room for the next.
    streams[0].cancel();
    let next = worker.stream();
    next.request_headers(&grpc(PREDICT), false);
    assert!(next.state().paused);
}

#[test]
fn more_requests_held_than_the_operator_allows() {
    let worker = start(&with_identity(json!({ "max_held": 2 })));
    send(&worker, &grpc(PREDICT), &[&predict("resnet", Asked::Latest, 1)]).log();
    let streams: Vec<_> = (0..4).map(|_| worker.stream()).collect();
    for stream in &streams {
        stream.request_headers(&grpc(PREDICT), false);
    }
    // The oldest made room, and are told at the next tick.
    assert!(streams.iter().all(|stream| stream.state().paused));
    worker.tick();
    for stream in &streams[..2] {
        refused_grpc(&stream.state(), "overloaded", 14);
    }
    for stream in &streams[2..] {
        assert!(stream.state().paused);
        stream.request_body(&predict("resnet", Asked::Latest, 1), true);
        assert!(!stream.state().paused && stream.state().complete);
    }
}

#[test]
fn each_refusal_is_counted_by_model_and_reason() {
    let worker = worker();
    let refuse = |worker: &Worker, model: &str, asked| {
        let stream = send(worker, &grpc(PREDICT), &[&predict(model, asked, 1)]);
        stream.log();
    };
    refuse(&worker, "other", Asked::Latest);
    refuse(&worker, "old", Asked::Latest);
    refuse(&worker, "old", Asked::Version(3));
    let rejected = |model| {
        let tags = [("model", model), ("reason", "model_not_configured")];
        worker.metric("predictgate_rejected", &tags)
    };
    assert_eq!(rejected("old"), 2);
    assert_eq!(worker.metric("predictgate_rejected", &[]), 3);
    assert_eq!(worker.metric("predictgate_requests", &[]), 0);
}

#[test]
fn a_grpc_web_client_reads_the_status_in_the_headers() {
    let mut headers = grpc(PREDICT);
    headers.retain(|(name, _)| *name != "content-type");
    headers.push(("content-type", "application/grpc-web+proto"));
    let state = send(&worker(), &headers, &[&predict("other", Asked::Latest, 1)]).state();
    refused_grpc(&state, "model_not_configured", 5);
    assert_eq!(state.response_header(":status").as_deref(), Some("200"));
    assert_eq!(state.response_header("content-type").as_deref(), Some("application/grpc-web+proto"));
}

#[test]
fn without_identity_headers_the_body_refuses_late_however_it_is_cut() {
    let worker = start(&with_identity(json!({ "grpc": "metadata" })));
    for (body, reason, status) in [
        (predict("other", Asked::Latest, 5000), "model_not_configured", 5),
        (predict("", Asked::Latest, 5000), "identity_not_found", 3),
        (contradiction(), "contradicting_model_spec", 3),
    ] {
        for length in [usize::MAX, 1000, 1] {
            let stream = send(&worker, &grpc(PREDICT), &body.chunks(length).collect::<Vec<_>>());
            let state = stream.state();
            refused_grpc(&state, reason, status);
            assert!(!state.complete, "the server executes nothing");
            stream.log();
        }
    }
}

#[test]
fn what_the_operator_lets_pass_goes_on_untouched() {
    let mut configuration = with_identity(json!({ "on_unknown": "pass" }));
    configuration["unmatched"] = "pass".into();
    let worker = start(&configuration);
    for body in [predict("other", Asked::Latest, 10), predict("", Asked::Latest, 10), vec![0; 5]] {
        let stream = send(&worker, &grpc(PREDICT), &[&body]);
        let state = stream.state();
        assert_eq!((state.reply.as_ref(), state.complete), (None, true));
        assert_eq!(state.body, body);
        assert_eq!(state.header("x-predictgate-cluster"), None);
        assert_eq!(state.header("x-predictgate-target"), None);
    }
}

#[test]
fn a_second_reply_is_never_sent() {
    let worker = worker();
    let stream = send(&worker, &grpc(PREDICT), &[&predict("other", Asked::Latest, 1)]);
    worker.process().advance(crate::setup::HOLD_TIMEOUT);
    worker.tick();
    stream.log();
    assert_eq!(worker.process().calls("proxy_send_local_response"), 1);
    assert_eq!(worker.metric("predictgate_rejected", &[]), 1);
}
