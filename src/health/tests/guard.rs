//! When guards trip, and what their latches outlive.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn a_guard_trips_on_a_row_once_in_the_process_and_stays() {
    let mut process = Process::new(&guarded(""), 4);
    for worker in 0..4 {
        process.fail(worker, CANARY, 5);
    }
    process.tick();
    assert_eq!(process.causes(), ["consecutive_failures"]);
    process.tick();
    assert!((0..4).all(|worker| process.is_tripped(worker)));
    for _ in 0..1000 {
        process.answer(0, CANARY, Outcome::Success);
        process.answer(1, STABLE, Outcome::Success);
    }
    process.ticks(Duration::from_secs(3600));
    assert!((0..4).all(|worker| process.is_tripped(worker)));
    assert_eq!(process.causes(), ["consecutive_failures"]);
}

/// `bad` of `of` canary requests and one in a hundred of 900 others, over all workers.
fn mixed(process: &mut Process, bad: u32, of: u32, outcome: Outcome) {
    let workers = process.workers.len();
    for it in 0..900 {
        let outcome = if it % 100 == 0 { Outcome::Failure } else { Outcome::Success };
        process.answer(it % workers, STABLE, outcome);
    }
    for it in 0..of {
        // Bad ones lie apart, so that there is no row.
        let is_bad = it % (of / bad.max(1)) == 0 && it / (of / bad.max(1)) < bad;
        process.answer(0, CANARY, if is_bad { outcome } else { Outcome::Success });
    }
}

#[test]
fn a_guard_trips_on_more_bad_answers_than_the_baselines_when_the_bucket_closes() {
    for outcome in [Outcome::Failure, Outcome::NotServed, Outcome::Overload] {
        let mut process = Process::new(&guarded(""), 4);
        mixed(&mut process, 25, 100, outcome);
        process.tick();
        assert_eq!(process.events, []);
        process.ticks(Duration::from_secs(11));
        assert_eq!(process.causes(), ["failure_increase"]);
        let Some(Event::RolledBack { numbers, route, target, .. }) = process.events.first() else { panic!() };
        assert_eq!((*route, *target), (ROLLOUT, CANARY));
        assert!(numbers.to_string().contains("bad 25 of 100 against 9 of 900"), "{numbers}");
    }
}

#[test]
fn a_guard_lets_a_canary_be_as_good_as_the_baseline() {
    let mut process = Process::new(&guarded(""), 4);
    for _ in 0..7 {
        mixed(&mut process, 1, 100, Outcome::Failure);
        process.ticks(Duration::from_secs(10));
    }
    assert_eq!(process.events, []);
}

#[test]
fn a_guard_trips_on_latency() {
    let mut process = Process::new(&guarded(""), 2);
    for _ in 0..100 {
        process.answer(0, STABLE, Outcome::Success);
        process.observe(1, Observation { latency: Some(Duration::from_millis(40)), ..process.seen(CANARY) });
    }
    process.ticks(Duration::from_secs(11));
    assert_eq!(process.causes(), ["latency"]);
}

#[test]
fn an_ejection_trips_the_guard_unless_they_are_parted() {
    for (more, causes) in [
        ("", &["consecutive_failures", "ejection"][..]),
        (r#", "on_ejection": "ignore""#, &["consecutive_failures"]),
    ] {
        let policy = configured((90, 10), r#""outlier_detection": {}"#, &format!(r#""window": "60s"{more}"#));
        let mut process = Process::new(&policy, 2);
        process.fail(0, CANARY, 5);
        process.tick();
        assert_eq!(process.causes(), causes);
        assert_eq!(process.is_tripped(1), causes.len() == 2);
    }
}

#[test]
fn a_latch_outlives_updates_that_do_not_touch_it_and_every_worker() {
    let a = guarded("");
    let other = configured((90, 10), r#""outlier_detection": {}"#, r#""window": "60s""#);
    let mut process = Process::new(&a, 2);
    process.fail(0, CANARY, 20);
    for policy in [&a, &other, &a] {
        process.update(policy, 3);
        assert!((0..3).all(|worker| process.is_tripped(worker)));
    }
    assert_eq!(process.causes(), ["consecutive_failures"]);
}

#[test]
fn a_latch_is_cleared_when_split_ramp_or_guard_change_and_does_not_come_back() {
    let a = guarded("");
    let weights = configured((80, 20), "", r#""window": "60s""#);
    let epoch = guarded(r#", "epoch": 2"#);
    let without_guard = configured((90, 10), "", "");
    let without_model = config::parse_all(r#"{ "models": [ { "name": "x", "targets": { "a": { "cluster": "a" } }, "routes": [ { "split": [ { "target": "a" } ] } ] } ] }"#).unwrap();
    for b in [weights, epoch, without_guard, without_model] {
        let mut process = Process::new(&a, 2);
        process.fail(0, CANARY, 20);
        process.tick();
        assert!(process.is_tripped(0));
        process.update(&b, 2);
        assert!((0..2).all(|worker| !process.is_tripped(worker)));
        process.update(&a, 2);
        process.tick();
        assert!((0..2).all(|worker| !process.is_tripped(worker)));
        assert!(process.causes().contains(&"cleared"));
    }
}

#[test]
fn an_older_root_merges_and_obeys_and_judges_nothing() {
    let (a, b) = (guarded(""), guarded(r#", "epoch": 2"#));
    let mut process = Process::new(&a, 1);
    process.wait(TICK);
    let newer = process.worker(&b);
    process.workers.push(newer);
    process.tick_one(1, true);
    process.tick_one(0, false);
    process.fail(0, CANARY, 20);
    process.wait(TICK);
    process.tick_one(0, false);
    assert_eq!(process.events, []);
    process.fail(1, CANARY, 20);
    assert_eq!(process.causes(), ["consecutive_failures"]);
    process.fail(0, CANARY, 20);
    process.tick_one(0, true);
    assert_eq!(process.causes(), ["consecutive_failures"]);
    assert!(process.is_tripped(1), "the older configuration clears nothing");
}
