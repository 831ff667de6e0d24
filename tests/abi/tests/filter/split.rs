//! Splits, ramps and what they tell the host.

use std::time::Duration;

use predictgate_abi::Worker;
use serde_json::{Value, json};

use crate::request::{Headers, rest};
use crate::setup::{process, start};

/// A model `m` with the targets `old` and `new`, and one route.
fn configuration(route: Value) -> Value {
    json!({
        "models": [{
            "name": "m",
            "targets": { "old": { "cluster": "old" }, "new": { "cluster": "new" } },
            "routes": [route],
        }],
        "explain": { "header": "x-why" },
    })
}

fn halves(sticky: Value) -> Value {
    configuration(json!({
        "name": "half",
        "split": [{ "target": "old", "weight": 50 }, { "target": "new", "weight": 50 }],
        "sticky": sticky,
    }))
}

fn predict(headers: &[(&'static str, &'static str)]) -> Headers<'static> {
    let mut all = rest("POST", "/v1/models/m:predict");
    all.extend(headers);
    all
}

/// The target of one request, with properties that Envoy would have.
fn target(worker: &Worker, headers: &Headers<'_>, properties: &[(&[&str], &[u8])]) -> String {
    let stream = worker.stream();
    for (path, value) in properties {
        stream.property(path, value);
    }
    stream.request_headers(headers, true);
    let target = stream.state().header("x-predictgate-target").unwrap();
    stream.response_headers(&[(":status", "200")], true);
    stream.log();
    target
}

/// Asserts that `one`'s properties lead to a target again and again, and that others lead elsewhere, too.
#[track_caller]
fn binds(source: Value, path: &[&str], values: &[&[u8]]) {
    let worker = start(&halves(json!({ "by": [source] })));
    let mut seen = Vec::new();
    for value in values {
        let of = || target(&worker, &predict(&[]), &[(path, value)]);
        let first = of();
        assert_eq!([(); 8].map(|()| of()), [(); 8].map(|()| first.clone()));
        seen.push(first);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 2, "callers that differ all have {seen:?}");
}

const EIGHT: [&[u8]; 8] = [b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h"];

#[test]
fn a_claim_binds() {
    let path = ["metadata", "filter_metadata", "envoy.filters.http.jwt_authn", "payload", "sub"];
    binds(json!({ "jwt_claim": "sub" }), &path, &EIGHT);
}

#[test]
fn a_name_in_a_certificate_binds() {
    binds(json!("peer_san"), &["connection", "uri_san_peer_certificate"], &EIGHT);
    binds(json!("peer_san"), &["connection", "dns_san_peer_certificate"], &EIGHT);
}

#[test]
fn an_address_binds_whatever_the_port() {
    let worker = start(&halves(json!({ "by": ["source_ip"] })));
    let of = |address: &[u8]| target(&worker, &predict(&[]), &[(&["source", "address"], address)]);
    let mut seen = Vec::new();
    for host in 1..=8 {
        let first = of(format!("192.0.2.{host}:1").as_bytes());
        for port in [2, 40_000, 65_535] {
            assert_eq!(of(format!("192.0.2.{host}:{port}").as_bytes()), first);
        }
        let bracketed = of(format!("[2001:db8::{host}]:1").as_bytes());
        assert_eq!(of(format!("[2001:db8::{host}]:50051").as_bytes()), bracketed);
        seen.push(first);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 2);
}

#[test]
fn a_caller_without_a_key_is_left_to_chance() {
    let worker = start(&halves(json!({ "by": [{ "header": "x-user" }] })));
    // All of 64 requests have one target by chance once in 2^63 runs.
    let targets: Vec<_> = (0..64).map(|_| target(&worker, &predict(&[]), &[])).collect();
    assert!(targets.iter().any(|it| it == "old") && targets.iter().any(|it| it == "new"));
}

#[test]
fn no_property_is_read_that_no_key_needs() {
    let worker = start(&halves(json!({ "by": [{ "header": "x-user" }] })));
    let before = worker.process().calls("proxy_get_property");
    target(&worker, &predict(&[("x-user", "ada")]), &[]);
    assert_eq!(worker.process().calls("proxy_get_property"), before);
}

fn ramp() -> Value {
    configuration(json!({
        "name": "rollout",
        "split": [{ "target": "old", "weight": 1 }, { "target": "new", "weight": 1 }],
        "ramp": {
            "target": "new",
            "start": "2026-11-21T10:00:00Z",
            "steps": [{ "percent": 10, "for": "10m" }, { "percent": 50, "for": "10m" }, { "percent": 100 }],
        },
    }))
}

/// 2026-11-21T10:00:00Z and so many minutes.
fn minute(minute: u64) -> Duration {
    Duration::from_secs(1_795_255_200 + 60 * minute)
}

#[track_caller]
fn shows(worker: &Worker, new: i64) {
    worker.process().advance(Duration::from_secs(1));
    worker.tick();
    for (target, weight) in [("old", 1000 - new), ("new", new)] {
        let tags = [("model", "m"), ("route", "rollout"), ("target", target)];
        assert_eq!(worker.metric("predictgate_weight", &tags), weight, "{target}");
    }
}

#[test]
fn the_gauge_follows_the_ramp_and_a_restart_changes_nothing() {
    let process = process();
    let mut worker = process.worker(ramp().to_string()).unwrap();
    for (at, weight) in [(1, 100), (11, 500), (21, 1000)] {
        process.set_wall_clock(minute(at));
        shows(&worker, weight);
        drop(worker);
        worker = process.worker(ramp().to_string()).unwrap();
        shows(&worker, weight);
    }
}

#[test]
fn a_clock_that_is_put_back_moves_nobody() {
    let process = process();
    let worker = process.worker(ramp().to_string()).unwrap();
    process.set_wall_clock(minute(21));
    assert_eq!(target(&worker, &predict(&[]), &[]), "new");
    process.set_wall_clock(minute(0) - Duration::from_secs(60));
    assert_eq!(target(&worker, &predict(&[]), &[]), "new");
    shows(&worker, 1000);
}

#[test]
fn only_the_newest_root_writes_gauges() {
    let mut worker = start(&ramp());
    worker.process().set_wall_clock(minute(1));
    shows(&worker, 100);
    let even = json!({
        "name": "rollout",
        "split": [{ "target": "old", "weight": 3 }, { "target": "new", "weight": 1 }],
    });
    worker.reconfigure(configuration(even).to_string()).unwrap();
    worker.process().set_wall_clock(minute(11));
    shows(&worker, 250);
}

#[test]
fn every_decision_is_told_at_debug_level() {
    let process = process();
    let worker =
        process.worker(configuration(json!({ "split": [{ "target": "old" }] })).to_string()).unwrap();
    let told = || {
        process
            .log()
            .iter()
            .filter(|line| line.contains("model=m;asked=latest;route=0;target=old;reason=split"))
            .count()
    };
    target(&worker, &predict(&[]), &[]);
    assert_eq!(told(), 0);
    process.set_log_level(1);
    worker.tick();
    target(&worker, &predict(&[]), &[]);
    assert_eq!(told(), 1);
}
