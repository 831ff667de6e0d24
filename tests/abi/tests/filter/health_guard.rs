//! The guard: a canary that is rolled back stays out, whatever becomes of workers and configurations.

use std::time::Duration;

use predictgate_abi::{Process, Worker};
use serde_json::{Value, json};

use crate::health::{TICK, ask, configuration, fail, halves, pass, target_of, told, users_of, workers};
use crate::setup::process;

const ROW: usize = 20;

fn guard() -> Value {
    json!({ "target": "canary", "baseline": "stable", "window": "6s", "min_requests": 50 })
}

fn guarded_by(guard: Value) -> Value {
    let mut route = halves();
    route["guard"] = guard;
    configuration(route, Value::Null)
}

fn guarded() -> Value {
    guarded_by(guard())
}

fn with_epoch(epoch: u32) -> Value {
    let mut guard = guard();
    guard["epoch"] = json!(epoch);
    guarded_by(guard)
}

fn rollbacks(process: &Process, cause: &str) -> i64 {
    process.metric("predictgate_rollbacks", &[("model", "m"), ("route", "rollout"), ("cause", cause)])
}

fn weight(process: &Process) -> i64 {
    process.metric("predictgate_weight", &[("model", "m"), ("route", "rollout"), ("target", "canary")])
}

/// So many requests of each target, of which the canary fails some and takes this long for the others.
fn requests(worker: &Worker, count: usize, failures: usize, canary_takes: Duration) {
    for place in 0..count {
        ask(worker, &[("x-use-target", "stable")]).answer("200");
        let sent = ask(worker, &[("x-use-target", "canary")]);
        // Spread evenly, so that they are no row.
        let fails = place * failures / count != (place + 1) * failures / count;
        worker.process().advance(canary_takes);
        sent.answer(if fails { "503" } else { "200" });
    }
}

/// Two workers after a roll-back that both know of, and a caller who had the canary.
fn after_a_rollback() -> ([Worker; 2], String) {
    let process = process();
    let workers: [Worker; 2] = workers(&process, &guarded());
    let user = users_of(&workers[0], "canary", 1).remove(0);
    fail(&workers[0], "canary", ROW);
    pass(&workers, TICK);
    assert_eq!((rollbacks(&process, "consecutive_failures"), weight(&process)), (1, 0));
    (workers, user)
}

#[test]
fn a_row_rolls_back_at_once_and_elsewhere_after_a_tick_and_is_told_once_with_its_numbers() {
    let process = process();
    let [one, other] = workers(&process, &guarded());
    let user = users_of(&one, "canary", 1).remove(0);
    pass(std::slice::from_ref(&one), TICK);
    fail(&one, "canary", ROW - 1);
    assert_eq!(target_of(&one, &user), "canary");
    fail(&one, "canary", ROW - 1);
    assert_eq!(weight(&process), 500);
    fail(&one, "canary", 1);
    assert_eq!((weight(&process), target_of(&one, &user).as_str()), (0, "stable"));
    assert_eq!(target_of(&other, &user), "canary", "it has not heard yet");
    pass(std::slice::from_ref(&other), TICK);
    assert_eq!(target_of(&other, &user), "stable");
    let line =
        "rolled back: model=m route=rollout target=canary cause=consecutive_failures: 20 failures in a row";
    assert_eq!(told(&process, line), 1);
}

#[test]
fn a_latch_has_no_probes_and_does_not_end_by_itself() {
    let (workers, user) = after_a_rollback();
    workers[0].process().advance(Duration::from_secs(24 * 60 * 60));
    for worker in &workers {
        worker.tick();
        assert_eq!(target_of(worker, &user), "stable");
        assert_eq!(
            ask(worker, &[("x-use-target", "canary")]).answer("200"),
            "stable",
            "its name is as good as none"
        );
    }
}

#[test]
fn a_canary_that_fails_more_is_rolled_back_by_the_window() {
    let [worker] = workers(&process(), &guarded());
    requests(&worker, 200, 60, Duration::ZERO);
    pass(std::slice::from_ref(&worker), Duration::from_secs(2));
    assert_eq!((rollbacks(worker.process(), "failure_increase"), weight(worker.process())), (1, 0));
    assert_eq!(
        told(worker.process(), "rolled back: model=m route=rollout target=canary cause=failure_increase: "),
        1
    );
    let numbers = ", bad 60 of 200 against 0 of 200";
    assert!(worker.process().log().iter().any(|line| line.contains(numbers)), "{:?}", worker.process().log());
}

#[test]
fn a_canary_that_is_slow_is_rolled_back_by_the_window() {
    let [worker] = workers(&process(), &guarded());
    requests(&worker, 60, 0, Duration::from_millis(10));
    pass(std::slice::from_ref(&worker), Duration::from_secs(2));
    assert_eq!((rollbacks(worker.process(), "latency"), weight(worker.process())), (1, 0));
}

#[test]
fn what_befalls_both_rolls_nothing_back() {
    let [worker] = workers(&process(), &guarded());
    for place in 0..400 {
        let status = if place % 4 < 2 { "503" } else { "200" };
        ask(&worker, &[("x-use-target", if place % 2 == 0 { "stable" } else { "canary" })]).answer(status);
    }
    pass(std::slice::from_ref(&worker), Duration::from_secs(8));
    assert_eq!((rollbacks(worker.process(), "failure_increase"), weight(worker.process())), (0, 500));
}

#[test]
fn an_update_that_does_not_touch_it_leaves_it_latched_from_the_first_request_on() {
    let (mut workers, user) = after_a_rollback();
    let process = workers[0].process().clone();
    let mut other = guarded();
    other["unmatched"] = json!("reject");
    other["models"][0]["targets"]["stable"]["headers"] = json!({ "x-pool": "1" });
    for worker in &mut workers {
        worker.reconfigure(other.to_string()).unwrap();
        // Before any tick.
        assert_eq!(target_of(worker, &user), "stable");
    }
    pass(&workers, TICK);
    for worker in &mut workers {
        worker.drain();
        assert_eq!(target_of(worker, &user), "stable");
    }
    assert_eq!((weight(&process), told(&process, "roll-back cleared")), (0, 0));
}

#[test]
fn another_epoch_clears_it_and_coming_back_to_the_first_starts_clean() {
    let (mut workers, user) = after_a_rollback();
    let process = workers[0].process().clone();
    for (epoch, cleared) in [(2, 1), (1, 1)] {
        for worker in &mut workers {
            worker.reconfigure(with_epoch(epoch).to_string()).unwrap();
        }
        pass(&workers, TICK + TICK);
        for worker in &workers {
            assert_eq!(target_of(worker, &user), "canary", "epoch {epoch}");
        }
        assert_eq!((weight(&process), told(&process, "roll-back cleared")), (500, cleared), "epoch {epoch}");
    }
}

#[test]
fn old_roots_judge_nothing_and_write_no_gauge() {
    let process = process();
    let [mut worker] = workers(&process, &guarded());
    let old: Vec<_> = (0..2 * ROW).map(|_| ask(&worker, &[("x-use-target", "canary")])).collect();
    worker.reconfigure(with_epoch(2).to_string()).unwrap();
    pass(std::slice::from_ref(&worker), TICK);
    old.into_iter().for_each(|sent| drop(sent.answer("503")));
    pass(std::slice::from_ref(&worker), TICK + TICK);
    assert_eq!((rollbacks(&process, "consecutive_failures"), weight(&process)), (0, 500));
}

#[test]
fn a_worker_that_is_new_obeys_from_its_first_request_on_and_a_dead_one_takes_nothing_along() {
    let ([victim, other], user) = after_a_rollback();
    let process = victim.process().clone();
    process.die_at("proxy_get_header_map_pairs", 1);
    victim.stream().request_headers(&[(":method", "POST"), (":path", "/v1/models/m:predict")], true);
    assert!(victim.trap().is_some());
    let [reborn] = workers(&process, &guarded());
    for worker in [&reborn, &other] {
        assert_eq!(target_of(worker, &user), "stable");
    }
}

#[test]
fn an_ejection_trips_it_unless_it_is_to_ignore_that() {
    for (on_ejection, expected) in [("trip", 1), ("ignore", 0)] {
        let mut guard = guard();
        guard["on_ejection"] = json!(on_ejection);
        let mut both = guarded_by(guard);
        both["models"][0]["outlier_detection"] = json!({});
        let [worker] = workers(&process(), &both);
        fail(&worker, "canary", 5);
        pass(std::slice::from_ref(&worker), TICK);
        assert_eq!(rollbacks(worker.process(), "ejection"), expected, "{on_ejection}");
        assert_eq!(weight(worker.process()), 0);
    }
}

#[test]
fn shadow_mode_counts_and_acts_not() {
    let mut guard = guard();
    guard["mode"] = json!("shadow");
    let process = process();
    let workers: [Worker; 2] = workers(&process, &guarded_by(guard));
    let user = users_of(&workers[0], "canary", 1).remove(0);
    fail(&workers[0], "canary", 2 * ROW);
    pass(&workers, TICK);
    assert_eq!((rollbacks(&process, "shadow_consecutive_failures"), weight(&process)), (1, 500));
    assert!(workers.iter().all(|worker| target_of(worker, &user) == "canary"));
    assert_eq!(told(&process, "shadow: would have been rolled back: model=m route=rollout target=canary"), 1);
}
