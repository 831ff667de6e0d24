//! Where a request goes, and what of it the upstream gets.

use predictgate_abi::{Action, State, Worker};

use crate::request::{Asked, PREDICT, grpc, predict, rest, send};
use crate::setup::{start, with_identity, worker};

#[track_caller]
fn goes_to(state: &State, target: &str, cluster: &str) {
    assert_eq!(state.header("x-predictgate-target").as_deref(), Some(target), "{state:?}");
    assert_eq!(state.header("x-predictgate-cluster").as_deref(), Some(cluster), "{state:?}");
    assert_eq!(state.reply, None);
    assert!(state.complete);
}

const CASES: [(Asked<'_>, &str, &str); 5] = [
    (Asked::Version(1), "stable", "tfs-v1"),
    (Asked::Version(2), "canary", "tfs-v2"),
    (Asked::Label("canary"), "canary", "tfs-v2"),
    (Asked::Label("other"), "stable", "tfs-v1"),
    (Asked::Latest, "stable", "tfs-v1"),
];

#[track_caller]
fn check_pieces(worker: &Worker, length: usize) {
    for (asked, target, cluster) in CASES {
        let body = predict("resnet", asked, 300);
        let stream = send(worker, &grpc(PREDICT), &body.chunks(length).collect::<Vec<_>>());
        let state = stream.state();
        goes_to(&state, target, cluster);
        assert_eq!(state.body, body, "in pieces of {length}");
        stream.log();
    }
}

#[test]
fn a_predict_goes_where_its_model_spec_says() {
    check_pieces(&worker(), usize::MAX);
}

#[test]
fn a_predict_that_comes_a_byte_at_a_time_goes_there_too() {
    check_pieces(&worker(), 1);
}

#[test]
fn target_headers_are_set_and_only_for_their_target() {
    let worker = worker();
    let pool = |asked| {
        let stream = send(&worker, &grpc(PREDICT), &[&predict("resnet", asked, 1)]);
        stream.state().header("x-model-pool")
    };
    assert_eq!(pool(Asked::Version(1)).as_deref(), Some("blue"));
    assert_eq!(pool(Asked::Version(2)), None);
}

#[test]
fn a_large_body_streams_on_once_the_identity_is_known() {
    let worker = worker();
    let body = predict("resnet", Asked::Version(2), 4 << 20);
    let stream = worker.stream();
    assert_eq!(stream.request_headers(&grpc(PREDICT), false), Action::Pause);
    let pieces: Vec<_> = body.chunks(16_384).collect();
    for (place, piece) in pieces.iter().enumerate() {
        let action = stream.request_body(piece, place + 1 == pieces.len());
        assert_eq!(action, Action::Continue, "piece {place}");
        assert_eq!(stream.state().held, 0, "piece {place}");
    }
    let state = stream.state();
    goes_to(&state, "canary", "tfs-v2");
    assert!(state.body == body, "the tensor is unchanged");
}

#[test]
fn rest_goes_by_its_path_and_is_never_held() {
    let worker = worker();
    for (path, target, cluster) in [
        ("/v1/models/resnet:predict", "stable", "tfs-v1"),
        ("/v1/models/resnet/versions/2:predict", "canary", "tfs-v2"),
        ("/v1/models/resnet/labels/canary:classify", "canary", "tfs-v2"),
        ("/V1/Models/res%6eet/Versions/2:predict", "canary", "tfs-v2"),
    ] {
        let stream = worker.stream();
        assert_eq!(stream.request_headers(&rest("POST", path), false), Action::Continue, "{path}");
        assert_eq!(stream.request_body(b"{\"instances\": []}", true), Action::Continue, "{path}");
        goes_to(&stream.state(), target, cluster);
    }
}

#[test]
fn requests_without_a_model_pass_untouched() {
    let worker = worker();
    for headers in [
        grpc("/grpc.health.v1.Health/Check"),
        grpc("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
        rest("GET", "/v1/models"),
        rest("GET", "/metrics"),
        rest("OPTIONS", "/"),
    ] {
        let stream = worker.stream();
        assert_eq!(stream.request_headers(&headers, false), Action::Continue, "{headers:?}");
        stream.request_body(b"anything", true);
        let state = stream.state();
        assert_eq!(state.headers.unwrap().len(), headers.len(), "nothing is added: {headers:?}");
        assert_eq!(state.body, b"anything");
        stream.grpc_response(0);
        stream.log();
    }
    assert_eq!(worker.metric("predictgate_identity", &[("result", "none")]), 5);
    assert_eq!(worker.metric("predictgate_requests", &[]), 0);
}

#[test]
fn what_only_the_filter_may_set_is_removed_from_a_client() {
    let worker = worker();
    let mut headers = grpc(PREDICT);
    headers.extend([
        ("x-predictgate-cluster", "admin"),
        ("X-Predictgate-Cluster", "admin-too"),
        ("x-predictgate-target", "admin"),
        ("x-predictgate-mirror-cluster", "thief"),
        ("x-predictgate-anything", "1"),
        ("x-model-pool", "gold"),
        ("x-tenant", "a"),
    ]);
    let stream = send(&worker, &headers, &[&predict("resnet", Asked::Version(2), 1)]);
    let headers = stream.state().headers.unwrap();
    let own: Vec<_> = headers.pairs().filter(|(name, _)| name.starts_with(b"x-")).collect();
    let mut own: Vec<_> = own
        .iter()
        .map(|(name, value)| [name.escape_ascii().to_string(), value.escape_ascii().to_string()])
        .collect();
    own.sort();
    let expected =
        [["x-predictgate-cluster", "tfs-v2"], ["x-predictgate-target", "canary"], ["x-tenant", "a"]];
    assert_eq!(own, expected);
}

#[test]
fn spoofed_headers_are_removed_where_nothing_else_is_done() {
    let worker = worker();
    for path in ["/grpc.health.v1.Health/Check", "/any/path"] {
        let mut headers = grpc(path);
        headers.extend([("x-predictgate-cluster", "admin"), ("x-model-pool", "gold")]);
        let state = send(&worker, &headers, &[b"x"]).state();
        assert_eq!(state.header("x-predictgate-cluster"), None, "{path}");
        assert_eq!(state.header("x-model-pool"), None, "{path}");
    }
}

#[test]
fn the_decision_is_explained_to_who_asks() {
    let worker = worker();
    let body = predict("resnet", Asked::Version(2), 1);
    let explained = |headers: &_| {
        let stream = send(&worker, headers, &[&body]);
        stream.grpc_response(0);
        stream.state().response_header("x-predictgate-decision")
    };
    let mut headers = grpc(PREDICT);
    assert_eq!(explained(&headers), None);
    headers.push(("x-predictgate-explain", "1"));
    let expected = "model=resnet;asked=version.2;route=two;target=canary;reason=split";
    assert_eq!(explained(&headers).as_deref(), Some(expected));
}

#[test]
fn in_metadata_mode_headers_name_the_model_and_nothing_is_held() {
    let worker = start(&with_identity(serde_json::json!({ "grpc": "metadata" })));
    let mut headers = grpc(PREDICT);
    headers.extend([("x-model-name", "resnet"), ("x-model-version", "2")]);
    let stream = worker.stream();
    assert_eq!(stream.request_headers(&headers, false), Action::Continue);
    stream.request_body(&predict("resnet", Asked::Version(2), 10), true);
    goes_to(&stream.state(), "canary", "tfs-v2");
}
