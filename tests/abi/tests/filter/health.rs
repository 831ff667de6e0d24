//! Ejection: targets that fail leave traffic and come back, over all workers of a process.

use std::time::Duration;

use predictgate_abi::{Process, Stream, Worker};
use serde_json::{Value, json};

use crate::request::{Asked, PREDICT, grpc, predict, rest, send};
use crate::setup::process;

pub const TICK: Duration = Duration::from_millis(100);
/// As configured below.
const EJECTION: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_secs(2);
const ROW: usize = 5;

/// Of a model `m` with the targets `stable` and `canary`.
pub fn configuration(route: Value, outlier_detection: Value) -> Value {
    let mut configuration = json!({
        "models": [{
            "name": "m",
            "targets": { "stable": { "cluster": "v1" }, "canary": { "cluster": "v2" } },
            "routes": [route],
        }],
    });
    if !outlier_detection.is_null() {
        configuration["models"][0]["outlier_detection"] = outlier_detection;
    }
    configuration
}

/// A route that binds callers by `x-user`, half of them to each target.
pub fn halves() -> Value {
    json!({
        "name": "rollout",
        "split": [{ "target": "stable", "weight": 50 }, { "target": "canary", "weight": 50 }],
        "sticky": { "by": [{ "header": "x-user" }] },
        "choose_by": { "header": "x-use-target" },
    })
}

pub fn ejecting() -> Value {
    json!({
        "consecutive_failures": ROW, "base_ejection_time": "10s", "max_ejection_time": "60s",
        "recovery_steps": [10, 100], "recovery_step_time": "2s",
    })
}

pub fn workers<const N: usize>(process: &Process, configuration: &Value) -> [Worker; N] {
    let text = configuration.to_string();
    std::array::from_fn(|_| process.worker(&text).unwrap_or_else(|refused| panic!("{refused}")))
}

/// Lets time pass, tick by tick, in every worker.
pub fn pass(workers: &[Worker], time: Duration) {
    let process = workers[0].process();
    for _ in 0..time.as_nanos().div_ceil(TICK.as_nanos()) {
        process.advance(TICK);
        workers.iter().for_each(Worker::tick);
    }
}

/// A request of a caller that is on its way to a target.
pub struct Sent {
    pub stream: Stream,
    pub target: String,
}

/// Sends a request with headers of the caller's.
pub fn ask(worker: &Worker, headers: &[(&str, &str)]) -> Sent {
    let mut all = rest("POST", "/v1/models/m:predict");
    all.extend(headers);
    let stream = worker.stream();
    stream.request_headers(&all, true);
    let target = stream.state().header("x-predictgate-target").expect("a target");
    Sent { stream, target }
}

impl Sent {
    /// Answers with an HTTP status, and says which target it was.
    pub fn answer(self, status: &str) -> String {
        self.stream.response_headers(&[(":status", status)], true);
        self.stream.log();
        self.target
    }
}

/// Names of callers that are bound to a target while everything is as configured.
pub fn users_of(worker: &Worker, target: &str, count: usize) -> Vec<String> {
    let names = (0..).map(|user| format!("user-{user}"));
    names.filter(|name| ask(worker, &[("x-user", name)]).answer("200") == target).take(count).collect()
}

/// Lets a target fail so often, each time for whoever asks for it by name.
pub fn fail(worker: &Worker, target: &str, times: usize) {
    for _ in 0..times {
        let sent = ask(worker, &[("x-use-target", target)]);
        assert_eq!(sent.target, target);
        sent.answer("503");
    }
}

pub fn target_of(worker: &Worker, user: &str) -> String {
    ask(worker, &[("x-user", user)]).answer("200")
}

/// How many lines of the log begin with these words.
pub fn told(process: &Process, words: &str) -> usize {
    process.log().iter().filter(|line| line.starts_with(words)).count()
}

fn ejections(process: &Process, target: &str, cause: &str) -> i64 {
    process.metric("predictgate_ejections", &[("model", "m"), ("target", target), ("cause", cause)])
}

fn ejected(process: &Process, target: &str) -> i64 {
    process.metric("predictgate_ejected", &[("model", "m"), ("target", target)])
}

/// Two workers after the canary has been ejected, with time for both to know.
fn after_an_ejection() -> [Worker; 2] {
    let workers = workers(&process(), &configuration(halves(), ejecting()));
    fail(&workers[0], "canary", ROW);
    pass(&workers, TICK);
    assert_eq!(ejected(workers[0].process(), "canary"), 1);
    workers
}

#[test]
fn a_row_of_failures_ejects_at_once_where_it_is_seen_and_after_a_tick_elsewhere() {
    let process = process();
    let [one, other] = workers(&process, &configuration(halves(), ejecting()));
    let users = users_of(&one, "canary", 20);
    pass(std::slice::from_ref(&one), TICK);
    fail(&one, "canary", ROW - 1);
    assert_eq!(target_of(&one, &users[0]), "canary", "and its success ends the row");
    fail(&one, "canary", ROW - 1);
    assert_eq!(ejected(&process, "canary"), 0);
    fail(&one, "canary", 1);
    assert_eq!(ejected(&process, "canary"), 1);
    assert!(users.iter().all(|user| target_of(&one, user) == "stable"));
    assert_eq!(target_of(&other, &users[0]), "canary", "it has not heard yet");
    pass(std::slice::from_ref(&other), TICK);
    assert!(users.iter().all(|user| target_of(&other, user) == "stable"));
    assert_eq!(told(&process, "ejected: model=m target=canary cause=consecutive_failures"), 1);
    one.tick();
    assert_eq!(ejections(&process, "canary", "consecutive_failures"), 1);
}

#[test]
fn a_row_is_made_of_the_failures_that_all_workers_see() {
    let process = process();
    let workers: [Worker; 5] = workers(&process, &configuration(halves(), ejecting()));
    for worker in &workers[..4] {
        fail(worker, "canary", 1);
        worker.tick();
    }
    assert_eq!(ejected(&process, "canary"), 0);
    fail(&workers[4], "canary", 1);
    workers[4].tick();
    assert_eq!(ejected(&process, "canary"), 1);
}

#[test]
fn an_outcome_is_recorded_once_a_stream_whichever_callback_ends_it() {
    let [worker] = workers(&process(), &configuration(halves(), ejecting()));
    // Each stream has on_log and then on_done.
    fail(&worker, "canary", ROW - 1);
    assert_eq!(ejected(worker.process(), "canary"), 0);
    // A stream that is cut with its configuration has no response, and speaks for nobody.
    ask(&worker, &[("x-use-target", "canary")]).stream.cancel();
    assert_eq!(ejected(worker.process(), "canary"), 0);
    fail(&worker, "canary", 1);
    assert_eq!(ejected(worker.process(), "canary"), 1);
}

#[test]
fn a_grpc_failure_counts_wherever_its_status_is() {
    for trailers_only in [false, true] {
        let [worker] = workers(&process(), &configuration(halves(), ejecting()));
        for _ in 0..ROW {
            let mut headers = grpc(PREDICT);
            headers.push(("x-use-target", "canary"));
            let stream = send(&worker, &headers, &[&predict("m", Asked::Latest, 10)]);
            if trailers_only {
                stream.response_headers(&[(":status", "200"), ("grpc-status", "13")], true);
            } else {
                stream.grpc_response(13);
            }
            stream.log();
        }
        assert_eq!(ejected(worker.process(), "canary"), 1, "trailers-only: {trailers_only}");
    }
}

#[test]
fn users_of_an_ejected_target_go_to_the_other_and_come_back_and_nobody_else_moves() {
    let workers: [Worker; 2] = workers(&process(), &configuration(halves(), ejecting()));
    let [theirs, others] = ["canary", "stable"].map(|target| users_of(&workers[1], target, 40));
    fail(&workers[0], "canary", ROW);
    pass(&workers, EJECTION - TICK);
    for user in theirs.iter().chain(&others) {
        assert_eq!(target_of(&workers[1], user), "stable");
    }
    pass(&workers, TICK);
    assert_eq!(target_of(&workers[1], &theirs[0]), "canary", "the probe");
    pass(&workers, TICK);
    // A tenth of the weight: of 40 users 1 to 9 have it, but for a chance of 3 in 100 that is the same in every run.
    let back = |worker: &Worker| theirs.iter().filter(|user| target_of(worker, user) == "canary").count();
    let first = back(&workers[0]);
    assert!((1..10).contains(&first), "{first}");
    pass(&workers, STEP);
    for worker in &workers {
        assert_eq!(back(worker), theirs.len());
        assert!(others.iter().all(|user| target_of(worker, user) == "stable"));
    }
    assert_eq!(told(workers[0].process(), "returned: model=m target=canary"), 1);
    assert_eq!(ejected(workers[0].process(), "canary"), 0);
}

#[test]
fn one_probe_at_a_time_goes_to_an_ejected_target_of_all_workers() {
    let workers = after_an_ejection();
    let user = {
        let fresh: [Worker; 1] = self::workers(&process(), &configuration(halves(), ejecting()));
        users_of(&fresh[0], "canary", 1).remove(0)
    };
    pass(&workers, EJECTION);
    let probe = ask(&workers[0], &[("x-user", &user)]);
    assert_eq!(probe.target, "canary");
    for worker in &workers {
        for _ in 0..10 {
            assert_eq!(target_of(worker, &user), "stable", "a probe is under way");
        }
    }
    // One that is cut has shown nothing, and the next may try.
    probe.stream.cancel();
    pass(&workers, TICK);
    let probe = ask(&workers[1], &[("x-user", &user)]);
    assert_eq!(probe.target, "canary");
    // One that fails ejects for twice as long.
    probe.answer("503");
    workers[1].tick();
    assert_eq!(ejections(workers[0].process(), "canary", "failed_probe"), 1);
    pass(&workers, EJECTION + EJECTION - TICK);
    assert_eq!(target_of(&workers[0], &user), "stable");
    pass(&workers, TICK + TICK);
    assert_eq!(target_of(&workers[0], &user), "canary");
}

#[test]
fn a_probe_that_a_limit_refuses_is_given_back() {
    let mut limited = configuration(halves(), ejecting());
    limited["models"][0]["rate_limits"] = json!([{
        "name": "all", "match": { "headers": [{ "name": "x-limited", "present": true }] },
        "token_bucket": { "max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "1h" },
    }]);
    let [worker] = workers(&process(), &limited);
    let user = users_of(&worker, "canary", 1).remove(0);
    let refused = || {
        let mut headers = rest("POST", "/v1/models/m:predict");
        headers.extend([("x-user", user.as_str()), ("x-limited", "1")]);
        let stream = worker.stream();
        stream.request_headers(&headers, true);
        let is_refused = stream.state().response_header("x-predictgate-reason").is_some();
        stream.log();
        is_refused
    };
    assert!(!refused());
    fail(&worker, "canary", ROW);
    pass(std::slice::from_ref(&worker), EJECTION + TICK);
    assert!(refused());
    let told_before = told(worker.process(), "returned");
    assert_eq!(target_of(&worker, &user), "canary", "the probe is free again");
    assert_eq!((told_before, told(worker.process(), "returned")), (0, 1));
}

#[test]
fn stragglers_prove_nothing() {
    let [worker] = workers(&process(), &configuration(halves(), ejecting()));
    let straggle = || (0..2 * ROW).map(|_| ask(&worker, &[("x-use-target", "canary")])).collect::<Vec<_>>();
    let (good, bad) = (straggle(), straggle());
    fail(&worker, "canary", ROW);
    pass(std::slice::from_ref(&worker), EJECTION + TICK);
    good.into_iter().for_each(|sent| drop(sent.answer("200")));
    pass(std::slice::from_ref(&worker), TICK);
    assert_eq!(ejected(worker.process(), "canary"), 1, "they were sent before");
    assert_eq!(told(worker.process(), "returned"), 0);
    bad.into_iter().for_each(|sent| drop(sent.answer("503")));
    pass(std::slice::from_ref(&worker), TICK);
    assert_eq!(ejections(worker.process(), "canary", "failed_probe"), 0);
}

#[test]
fn a_name_of_an_ejected_target_is_as_good_as_none() {
    let [worker, _] = after_an_ejection();
    assert_eq!(ask(&worker, &[("x-use-target", "canary")]).answer("200"), "stable");
    assert_eq!(ask(&worker, &[("x-use-target", "stable")]).answer("200"), "stable");
}

#[test]
fn the_last_target_stays_and_too_much_weight_is_not_taken_out() {
    let [worker, _] = after_an_ejection();
    for _ in 0..2 * ROW {
        assert_eq!(ask(&worker, &[("x-use-target", "stable")]).answer("503"), "stable");
    }
    worker.tick();
    assert_eq!(
        (ejected(worker.process(), "stable"), ejections(worker.process(), "stable", "refused_by_max")),
        (0, 2)
    );
    assert_eq!(target_of(&worker, "anyone"), "stable");
}

#[test]
fn a_route_with_one_target_keeps_it_or_goes_to_its_fallback() {
    let one = |more: &[&str]| {
        let mut route = json!({ "split": [{ "target": "canary" }] });
        if !more.is_empty() {
            route["fallback"] = json!(more);
        }
        let [worker] = workers(&process(), &configuration(route, ejecting()));
        for _ in 0..ROW {
            ask(&worker, &[]).answer("503");
        }
        ask(&worker, &[]).answer("503")
    };
    assert_eq!(one(&[]), "canary");
    assert_eq!(one(&["stable"]), "stable");
}

#[test]
fn shadow_mode_counts_and_acts_not() {
    let mut shadow = ejecting();
    shadow["mode"] = json!("shadow");
    let workers: [Worker; 2] = workers(&process(), &configuration(halves(), shadow));
    let user = users_of(&workers[0], "canary", 1).remove(0);
    fail(&workers[0], "canary", ROW);
    pass(&workers, EJECTION);
    let process = workers[0].process();
    assert_eq!(ejections(process, "canary", "shadow_consecutive_failures"), 1);
    assert_eq!((ejections(process, "canary", "consecutive_failures"), ejected(process, "canary")), (0, 0));
    for worker in &workers {
        assert_eq!(target_of(worker, &user), "canary");
    }
    assert_eq!(told(process, "shadow: would have been ejected: model=m target=canary"), 1);
}

#[test]
fn the_death_of_a_worker_loses_its_probe_for_a_minute_and_nothing_else() {
    let [victim, other] = after_an_ejection();
    let process = victim.process().clone();
    let user = {
        let fresh: [Worker; 1] = workers(&self::process(), &configuration(halves(), ejecting()));
        users_of(&fresh[0], "canary", 1).remove(0)
    };
    pass(std::slice::from_ref(&other), EJECTION);
    victim.tick();
    assert_eq!(ask(&victim, &[("x-user", &user)]).target, "canary");
    process.die_at("proxy_get_header_map_pairs", 1);
    victim.stream().request_headers(&rest("POST", "/v1/models/m:predict"), true);
    assert!(victim.trap().is_some());
    assert_eq!(target_of(&other, &user), "stable", "the dead worker's probe may still be under way");
    pass(std::slice::from_ref(&other), Duration::from_secs(60));
    assert_eq!(target_of(&other, &user), "canary");
    // Its successor learns what is in force by its first tick.
    let [reborn] = workers(&process, &configuration(halves(), ejecting()));
    pass(std::slice::from_ref(&reborn), TICK);
    assert_eq!(told(&process, "returned: model=m target=canary"), 1);
    let back = (0..200).filter(|user| target_of(&reborn, &format!("user-{user}")) == "canary").count();
    // A tenth of half of the weight is 9.1 % of 200, or 18 with a deviation of 4.1.
    assert!(back < 37, "{back} of 200: it does not know that the target is only coming back");
}

#[test]
fn conflicts_with_other_workers_delay_an_ejection_and_lose_none() {
    let [worker] = workers(&process(), &configuration(halves(), ejecting()));
    let process = worker.process();
    process.conflict(1000);
    fail(&worker, "canary", ROW);
    assert_eq!(ejected(process, "canary"), 0);
    process.conflict(0);
    pass(std::slice::from_ref(&worker), TICK);
    assert_eq!(ejected(process, "canary"), 1);
}
