//! Rate limits in the built module: whom they refuse, what workers share of them, and what they take.

use std::time::Duration;

use predictgate_abi::{Process, State, Worker};
use serde_json::{Value, json};

use crate::request::{Asked, PREDICT, grpc, predict, rest, send};
use crate::setup::process;

/// A limit of so many tokens, of which one comes in so many seconds.
pub fn limit(name: &str, tokens: u32, more: Value) -> Value {
    let mut limit = json!({
        "name": name,
        "token_bucket": { "max_tokens": tokens, "tokens_per_fill": 1, "fill_interval": "1s" },
    });
    limit.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    limit
}

/// The models `resnet` and `bert`, with limits of `resnet` and of all.
pub fn limited(of_resnet: &[Value], of_all: &[Value]) -> Value {
    let model = |name: &str, limits: &[Value]| {
        json!({
            "name": name,
            "targets": { "all": { "cluster": "tfs" } },
            "routes": [{ "split": [{ "target": "all" }] }],
            "rate_limits": limits,
        })
    };
    json!({ "models": [model("resnet", of_resnet), model("bert", &[])], "rate_limits": of_all })
}

pub fn start(process: &Process, configuration: &Value) -> Worker {
    process.worker(configuration.to_string()).unwrap_or_else(|refused| panic!("{refused}"))
}

pub fn one(of_resnet: &[Value], of_all: &[Value]) -> Worker {
    start(&process(), &limited(of_resnet, of_all))
}

fn call(worker: &Worker, model: &str, more: &[(&str, &str)]) -> State {
    let headers = [&grpc(PREDICT)[..], more].concat();
    let stream = send(worker, &headers, &[&predict(model, Asked::Latest, 10)]);
    let state = stream.state();
    stream.log();
    state
}

/// Whether a call of `resnet` passes.
fn passes(worker: &Worker, more: &[(&str, &str)]) -> bool {
    is_passed(&call(worker, "resnet", more))
}

#[track_caller]
pub fn is_passed(state: &State) -> bool {
    let reason = state.response_header("x-predictgate-reason");
    assert!(matches!(reason.as_deref(), None | Some("rate_limited")), "{state:?}");
    assert_eq!(state.complete, reason.is_none(), "{state:?}");
    reason.is_none()
}

#[track_caller]
pub fn refused(state: &State, limit: &str) {
    assert!(!is_passed(state));
    assert!(
        state.response_header("ratelimit").is_some_and(|it| it.starts_with(&format!("\"{limit}\""))),
        "{state:?}"
    );
}

fn count(process: &Process, metric: &str, limit: &str) -> i64 {
    process.metric(metric, &[("limit", limit)])
}

#[test]
fn a_bucket_is_spent_and_fills() {
    let worker = one(&[limit("all", 2, json!({}))], &[]);
    assert!(passes(&worker, &[]) && passes(&worker, &[]) && !passes(&worker, &[]));
    worker.process().advance(Duration::from_secs(1));
    assert!(passes(&worker, &[]) && !passes(&worker, &[]));
    // Another model has no limit.
    assert!(is_passed(&call(&worker, "bert", &[])));
}

#[test]
fn a_limit_across_models_covers_them_all_and_those_that_are_not_configured() {
    let worker = one(&[], &[limit("all", 3, json!({}))]);
    for model in ["resnet", "bert", "unmatched"] {
        assert!(is_passed(&call(&worker, model, &[])), "{model}");
    }
    for model in ["resnet", "bert", "unmatched"] {
        refused(&call(&worker, model, &[]), "all");
    }
    // What names no model is not limited.
    assert!(send(&worker, &rest("GET", "/v1/models"), &[]).state().complete);
}

#[test]
fn a_limit_counts_only_what_it_matches() {
    let free = json!({ "match": { "headers": [{ "name": "x-plan", "exact": "free" }] } });
    let worker = one(&[limit("free", 1, free)], &[]);
    assert!((0..5).all(|_| passes(&worker, &[])));
    assert!(passes(&worker, &[("x-plan", "free")]) && !passes(&worker, &[("x-plan", "free")]));
    let status = json!({ "match": { "methods": ["GetModelStatus"] } });
    let worker = one(&[limit("status", 1, status)], &[]);
    assert!((0..5).all(|_| passes(&worker, &[])));
    let get = || is_passed(&send(&worker, &rest("GET", "/v1/models/resnet"), &[]).state());
    assert!(get() && !get());
}

#[test]
fn several_limits_are_spent_all_or_none() {
    let worker = one(&[limit("model", 3, json!({}))], &[limit("top", 1, json!({}))]);
    assert!(is_passed(&call(&worker, "bert", &[])));
    // The second refuses, so the first keeps its tokens.
    for _ in 0..5 {
        refused(&call(&worker, "resnet", &[]), "top");
    }
    for _ in 0..3 {
        worker.process().advance(Duration::from_millis(999));
        // The limit of all has one token by now; the model's is full.
        worker.process().advance(Duration::from_millis(1));
        assert!(passes(&worker, &[]));
    }
    // The model's limit had three and got three, and spent three; what refuses is still the other.
    refused(&call(&worker, "resnet", &[]), "top");
}

/// The requests of `a`, `b` and `a` again pass, pass and do not: they have two keys.
#[track_caller]
fn two_keys(by: Value, call: impl Fn(&Worker, bool) -> State) {
    let worker = one(&[], &[limit("keyed", 1, json!({ "by": by }))]);
    for (is_a, passes) in [(true, true), (false, true), (true, false), (false, false)] {
        assert_eq!(is_passed(&call(&worker, is_a)), passes, "{by} of {is_a}");
    }
}

#[test]
fn every_source_makes_keys() {
    two_keys(json!([{ "header": "x-tenant" }]), |worker, is_a| {
        call(worker, "resnet", &[("x-tenant", if is_a { "a" } else { "b" })])
    });
    // No header is a key of its own.
    two_keys(json!([{ "header": "x-tenant" }]), |worker, is_a| {
        call(worker, "resnet", if is_a { &[("x-tenant", "a")] } else { &[] })
    });
    two_keys(json!(["model"]), |worker, is_a| call(worker, if is_a { "resnet" } else { "bert" }, &[]));
    two_keys(json!(["version"]), |worker, is_a| {
        let asked = if is_a { Asked::Version(1) } else { Asked::Latest };
        send(worker, &grpc(PREDICT), &[&predict("resnet", asked, 10)]).state()
    });
    two_keys(json!(["method"]), |worker, is_a| {
        let (method, path) =
            if is_a { ("GET", "/v1/models/resnet") } else { ("GET", "/v1/models/resnet/metadata") };
        send(worker, &rest(method, path), &[]).state()
    });
    let property = |path: &'static [&'static str], a: &'static [u8], b: &'static [u8]| {
        move |worker: &Worker, is_a: bool| {
            let stream = worker.stream();
            stream.property(path, if is_a { a } else { b });
            stream.request_headers(&rest("GET", "/v1/models/resnet"), true);
            stream.state()
        }
    };
    two_keys(json!(["source_ip"]), property(&["source", "address"], b"10.0.0.1:4000", b"10.0.0.2:4000"));
    let san = &["connection", "uri_san_peer_certificate"];
    two_keys(json!(["peer_san"]), property(san, b"spiffe://mesh/a", b"spiffe://mesh/b"));
    let claim = &["metadata", "filter_metadata", "envoy.filters.http.jwt_authn", "payload", "sub"];
    two_keys(json!([{ "jwt_claim": "sub" }]), property(claim, b"a", b"b"));
    two_keys(json!([{ "header": "x-tenant" }, "model"]), |worker, is_a| {
        call(worker, if is_a { "resnet" } else { "bert" }, &[("x-tenant", "a")])
    });
}

#[test]
fn an_address_is_one_key_whatever_its_port() {
    let worker = one(&[limit("keyed", 1, json!({ "by": ["source_ip"] }))], &[]);
    let call = |address: &[u8]| {
        let stream = worker.stream();
        stream.property(&["source", "address"], address);
        stream.request_headers(&rest("GET", "/v1/models/resnet"), true);
        is_passed(&stream.state())
    };
    assert!(call(b"10.0.0.1:4000") && !call(b"10.0.0.1:4001"));
}

#[test]
fn a_limit_in_shadow_mode_counts_and_refuses_nobody() {
    let process = process();
    let shadow = limit("shadow", 1, json!({ "mode": "shadow" }));
    let worker = start(&process, &limited(&[shadow, limit("real", 3, json!({}))], &[]));
    assert!((0..3).all(|_| passes(&worker, &[])));
    refused(&call(&worker, "resnet", &[]), "real");
    worker.tick();
    // Of what another limit refuses it is not asked.
    assert_eq!(count(&process, "predictgate_shadow_rejected", "shadow"), 2);
    assert_eq!(process.metric("predictgate_rejected", &[("reason", "rate_limited")]), 1);
}

#[test]
fn a_limit_that_changes_acts_at_once_and_one_that_does_not_keeps_its_state() {
    let process = process();
    let configuration = |of_all: u32| {
        limited(
            &[limit("model", 5, json!({}))],
            &[limit("top", of_all, json!({ "match": { "version": "1" } }))],
        )
    };
    let mut worker = start(&process, &configuration(100));
    let versioned = |worker: &Worker| {
        is_passed(&send(worker, &grpc(PREDICT), &[&predict("bert", Asked::Version(1), 10)]).state())
    };
    assert!((0..5).all(|_| passes(&worker, &[])) && !passes(&worker, &[]));
    assert!((0..50).all(|_| versioned(&worker)));
    // 50 of 100 are spent, which are all 2 of the new limit and more.
    worker.reconfigure(configuration(2).to_string()).unwrap();
    assert!(!passes(&worker, &[]), "the limit of the model is as empty as it was");
    assert!(!versioned(&worker));
    process.advance(Duration::from_secs(1));
    assert!(versioned(&worker) && !versioned(&worker), "it fills as the new limit does");
    assert!(passes(&worker, &[]) && !passes(&worker, &[]));
    // Nor does the end of the old root change anything.
    worker.drain();
    assert!(!passes(&worker, &[]) && !versioned(&worker));
    worker.reconfigure(configuration(100).to_string()).unwrap();
    assert!(versioned(&worker), "more is there at once when the limit is raised");
}

#[test]
fn where_shared_data_cannot_be_written_the_operator_decides() {
    for (on_error, passes_then) in [("allow", true), ("deny", false)] {
        let process = process();
        let worker = start(&process, &limited(&[limit("all", 3, json!({ "on_error": on_error }))], &[]));
        assert!(passes(&worker, &[]));
        process.conflict(1);
        assert!(passes(&worker, &[]), "one conflict is tried again");
        process.conflict(1000);
        assert_eq!(passes(&worker, &[]), passes_then, "{on_error}");
        process.conflict(0);
        worker.tick();
        let errors = [("limit", "all"), ("cause", "conflict")];
        assert_eq!(process.metric("predictgate_limit_errors", &errors), 1, "{on_error}");
        // What could not be written was not spent.
        assert!(passes(&worker, &[]) && !passes(&worker, &[]), "{on_error}");
    }
}

#[test]
fn workers_share_a_limit_exactly() {
    let process = process();
    let configuration = limited(&[limit("all", 10, json!({}))], &[]);
    let workers: Vec<_> = (0..4).map(|_| start(&process, &configuration)).collect();
    let passed = |calls: usize| {
        let workers = workers.iter().cycle().take(calls);
        workers.filter(|worker| passes(worker, &[])).count()
    };
    assert_eq!(passed(40), 10);
    process.advance(Duration::from_secs(3));
    assert_eq!(passed(40), 3);
}

#[test]
fn a_worker_that_dies_takes_nothing_of_a_limit_with_it() {
    let process = process();
    let configuration = limited(&[limit("all", 4, json!({}))], &[]);
    let (dies, lives) = (start(&process, &configuration), start(&process, &configuration));
    assert!(passes(&dies, &[]) && passes(&lives, &[]));
    process.die_at("proxy_set_shared_data", 1);
    let stream = dies.stream();
    stream.request_headers(&rest("GET", "/v1/models/resnet"), true);
    assert!(dies.trap().is_some());
    // It died before it had spent; a new one takes its place.
    let new = start(&process, &configuration);
    assert!(passes(&new, &[]) && passes(&lives, &[]) && !passes(&new, &[]) && !passes(&lives, &[]));
}

/// Calls of shared data that a request makes, at 10,000 requests a second over four workers.
fn calls_of_shared_data(limit: Value, requests: usize, key: impl Fn(usize) -> String) -> f64 {
    let process = process();
    let configuration = limited(&[limit], &[]);
    let workers: Vec<_> = (0..4).map(|_| start(&process, &configuration)).collect();
    let calls = || process.calls("proxy_get_shared_data") + process.calls("proxy_set_shared_data");
    let run = |requests: usize| {
        for place in 0..requests {
            process.advance(Duration::from_micros(100));
            // Which worker has a connection with a request is chance.
            let worker = &workers[(place * 7 + place / 5) % 4];
            let stream = worker.stream();
            stream.request_headers(
                &[&rest("GET", "/v1/models/resnet")[..], &[("x-tenant", &key(place))]].concat(),
                true,
            );
            assert!(is_passed(&stream.state()));
            stream.log();
        }
    };
    // Demand is known after some 40 ms.
    run(1000);
    let before = calls();
    run(requests);
    (calls() - before) as f64 / requests as f64
}

fn wide(by: Value) -> Value {
    json!({
        "name": "wide",
        "by": by,
        "token_bucket": { "max_tokens": 20_000, "tokens_per_fill": 20_000, "fill_interval": "1s" },
    })
}

#[test]
fn a_leased_limit_costs_a_fifth_of_a_host_call_at_most() {
    let one = calls_of_shared_data(wide(json!([])), 1000, |_| "a".to_owned());
    let keyed = calls_of_shared_data(wide(json!([{ "header": "x-tenant" }])), 1000, |_| "a".to_owned());
    println!("calls of shared data a request: {one} of one bucket, {keyed} of a key's");
    assert!(one < 0.2 && keyed < 0.2, "{one}, {keyed}");
}

#[test]
fn the_last_of_many_tenants_takes_the_work_and_the_memory_of_the_first() {
    let process = process();
    let by_tenant = json!({ "by": [{ "header": "x-tenant" }] });
    let worker = start(&process, &limited(&[limit("tenants", 1, by_tenant)], &[]));
    // So few are in their slots at once that each has its own.
    let call = |tenant: u32| {
        process.advance(Duration::from_millis(10));
        let before = worker.fuel();
        assert!(passes(&worker, &[("x-tenant", &format!("tenant-{tenant:06}"))]));
        worker.fuel() - before
    };
    let median = |tenants: std::ops::Range<u32>| {
        let mut work: Vec<_> = tenants.map(call).collect();
        work.sort_unstable();
        work[work.len() / 2]
    };
    // After these all slots are made.
    median(0..2000);
    let (first, memory, keys) = (median(2000..2500), worker.memory(), process.shared_keys().len());
    median(2500..9500);
    let last = median(9500..10_000);
    println!("{first} units of work, then {last}; {memory} bytes of memory, {keys} shared keys");
    // A bucket that was asked for a while ago may stand first or last in its set.
    assert!(last.abs_diff(first) * 100 <= first, "{first} and {last}");
    assert_eq!(worker.memory(), memory);
    assert_eq!(process.shared_keys().len(), keys);
}

#[test]
fn the_shipped_module_says_nothing_of_single_decisions() {
    let process = process();
    process.set_log_level(0);
    let worker = start(&process, &limited(&[limit("all", 1, json!({}))], &[]));
    assert!(passes(&worker, &[]) && !passes(&worker, &[]));
    worker.tick();
    assert!(!process.log().iter().any(|line| line.starts_with("decisions")), "{:?}", process.log());
}
