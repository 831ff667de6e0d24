//! When targets go out, and how they come back.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn failures_in_a_row_eject_at_once_and_every_worker_obeys_within_a_tick() {
    let mut process = Process::new(&ejecting(), 4);
    process.fail(0, CANARY, 4);
    assert_eq!(process.events, []);
    process.fail(0, CANARY, 1);
    assert_eq!(process.causes(), ["consecutive_failures"]);
    assert_eq!(process.share(0, CANARY), Share::NONE);
    process.tick();
    for worker in 0..4 {
        assert_eq!(process.share(worker, CANARY), Share::NONE, "worker {worker}");
        assert!(!process.workers[worker].1.is_quiet());
        assert_eq!(process.share(worker, STABLE), Share::WHOLE);
    }
    let out = Gauge::Ejected { model: ModelId(0), target: CANARY, value: 1 };
    assert_eq!(process.gauges.iter().filter(|it| **it == out).count(), 4, "each worker sets the gauge");
    let weight = Gauge::Weight { model: ModelId(0), route: ROLLOUT, target: STABLE, value: 1000 };
    assert!(process.gauges.contains(&weight));
}

#[test]
fn failures_in_a_row_add_up_over_workers() {
    let mut process = Process::new(&ejecting(), 5);
    for worker in 0..5 {
        process.fail(worker, CANARY, 1);
    }
    assert_eq!(process.events, []);
    process.tick();
    assert_eq!(process.causes(), ["consecutive_failures"]);
}

#[test]
fn a_success_on_any_worker_restarts_the_row() {
    let mut process = Process::new(&ejecting(), 2);
    process.fail(0, CANARY, 4);
    process.tick();
    process.answer(1, CANARY, Outcome::Success);
    process.tick();
    process.fail(0, CANARY, 4);
    process.tick();
    assert_eq!(process.events, []);
}

#[test]
fn neither_overload_nor_what_speaks_for_nobody_ejects() {
    let mut process = Process::new(&ejecting(), 1);
    for _ in 0..1000 {
        process.answer(0, CANARY, Outcome::Overload);
        process.answer(0, CANARY, Outcome::Neutral);
    }
    process.ticks(Duration::from_secs(30));
    assert_eq!(process.events, []);
}

#[test]
fn a_version_that_is_not_served_is_ejected() {
    let mut process = Process::new(&ejecting(), 1);
    for _ in 0..5 {
        process.answer(0, CANARY, Outcome::NotServed);
    }
    assert_eq!(process.causes(), ["consecutive_failures"]);
}

#[test]
fn one_caller_alone_ejects_nothing_where_more_are_asked_for() {
    let two = r#""outlier_detection": { "min_clients": 2, "consecutive_failures": 5 }"#;
    let row_of_guard = r#""outlier_detection": { "min_clients": 2, "consecutive_failures": 0 }"#;
    for policy in
        [configured((50, 50), two, ""), configured((50, 50), row_of_guard, r#""consecutive_failures": 5"#)]
    {
        let mut process = Process::new(&policy, 2);
        assert!(process.workers[0].1.wants_caller(&policy, ModelId(0)));
        let seen = Observation { outcome: Outcome::Failure, caller: Some(1), ..process.seen(CANARY) };
        for _ in 0..100 {
            process.observe(0, seen);
        }
        process.tick();
        assert_eq!(process.events, []);
        process.observe(1, Observation { caller: Some(2), ..seen });
        process.tick();
        assert_eq!(process.causes(), ["consecutive_failures"]);
    }
}

#[test]
fn the_share_of_failures_ejects_when_its_bucket_closes() {
    let mut process = Process::new(&ejecting(), 4);
    for round in 0..20 {
        process.answer(
            round % 4,
            CANARY,
            if round / 4 % 2 == 0 { Outcome::Failure } else { Outcome::Success },
        );
        process.answer(round % 4, STABLE, Outcome::Success);
    }
    process.tick();
    assert_eq!(process.events, []);
    process.ticks(Duration::from_secs(2));
    assert_eq!(process.causes(), ["failure_percentage"], "one judge, although nobody has traffic any more");
}

#[test]
fn a_slow_target_is_ejected() {
    let policy = configured((50, 50), r#""outlier_detection": { "latency_ratio": 3 }"#, "");
    let mut process = Process::new(&policy, 2);
    for _ in 0..50 {
        process.answer(0, STABLE, Outcome::Success);
        let slow = Observation { latency: Some(Duration::from_millis(100)), ..process.seen(CANARY) };
        process.observe(1, slow);
    }
    process.ticks(Duration::from_secs(2));
    assert_eq!(process.causes(), ["latency"]);
}

#[test]
fn the_larger_part_is_not_ejected() {
    let mut process = Process::new(&configured((95, 5), r#""outlier_detection": {}"#, ""), 2);
    process.fail(0, STABLE, 5);
    assert_eq!(process.causes(), ["refused"]);
    process.fail(0, CANARY, 5);
    process.tick();
    process.fail(0, CANARY, 5);
    assert!(process.causes().contains(&"consecutive_failures"));
    assert_eq!(process.share(0, STABLE), Share::WHOLE);
}

#[test]
fn a_target_that_may_not_be_ejected_costs_little() {
    let mut process = Process::new(&configured((95, 5), r#""outlier_detection": {}"#, ""), 1);
    process.fail(0, STABLE, 5);
    process.store.calls.set(0);
    process.fail(0, STABLE, 1000);
    assert_eq!(process.store.calls.get(), 0, "until the next tick");
}

/// Ejects the canary, waits, and gives the moment at which the first worker gets a probe.
fn probed(process: &mut Process) -> Probe {
    process.fail(0, CANARY, 5);
    process.tick();
    process.ticks(Duration::from_secs(29));
    assert_eq!(process.probe(0, CANARY), None);
    process.ticks(Duration::from_secs(2));
    process.probe(0, CANARY).unwrap()
}

#[test]
fn after_the_ejection_one_probe_goes_out_over_all_workers() {
    let mut process = Process::new(&ejecting(), 3);
    let probe = probed(&mut process);
    for worker in 0..3 {
        assert_eq!(process.probe(worker, CANARY), None);
    }
    process.tick();
    process.observe(0, Observation { outcome: Outcome::Neutral, probe: Some(probe), ..process.seen(CANARY) });
    process.tick();
    assert!(process.probe(2, CANARY).is_some(), "the caller left, and another may try");
    assert_eq!(process.probe(1, CANARY), None);
}

#[test]
fn a_good_probe_opens_by_steps_on_all_workers() {
    let mut process = Process::new(&ejecting(), 3);
    let probe = probed(&mut process);
    process.observe(0, Observation { probe: Some(probe), ..process.seen(CANARY) });
    assert_eq!(process.causes(), ["consecutive_failures", "returned"]);
    process.tick();
    for (wait, percent) in [(0, 10), (5, 25), (5, 50), (5, 100)] {
        process.ticks(Duration::from_secs(wait));
        for worker in 0..3 {
            assert_eq!(process.share(worker, CANARY), Share::from_percent(percent));
        }
    }
    process.tick();
    assert!(process.workers.iter().all(|(_, health)| health.is_quiet()));
    assert!(process.gauges.contains(&Gauge::Ejected { model: ModelId(0), target: CANARY, value: 0 }));
}

#[test]
fn a_failed_probe_ejects_for_longer() {
    let mut process = Process::new(&ejecting(), 2);
    let probe = probed(&mut process);
    process.observe(0, Observation { outcome: Outcome::Failure, probe: Some(probe), ..process.seen(CANARY) });
    assert_eq!(process.causes(), ["consecutive_failures", "failed_probe"]);
    process.ticks(Duration::from_secs(59));
    assert_eq!(process.probe(1, CANARY), None);
    process.ticks(Duration::from_secs(2));
    assert!(process.probe(1, CANARY).is_some());
}

#[test]
fn stragglers_prove_nothing() {
    let mut process = Process::new(&ejecting(), 2);
    let early = process.seen(CANARY);
    let probe = probed(&mut process);
    for outcome in [Outcome::Success, Outcome::Failure] {
        process.observe(1, Observation { outcome, now: process.now, ..early });
    }
    process.tick();
    assert_eq!(process.causes(), ["consecutive_failures"]);
    process.observe(0, Observation { probe: Some(probe), ..process.seen(CANARY) });
    for _ in 0..100 {
        process.observe(1, Observation { outcome: Outcome::Failure, now: process.now, ..early });
    }
    process.ticks(Duration::from_secs(15));
    assert_eq!(process.causes(), ["consecutive_failures", "returned"]);
}

#[test]
fn what_a_worker_saw_before_it_learnt_of_an_ejection_proves_nothing() {
    let mut process = Process::new(&ejecting(), 2);
    process.fail(0, CANARY, 5);
    process.fail(1, CANARY, 4);
    process.tick();
    assert_eq!(process.causes(), ["consecutive_failures"]);
    let probe = probed_after_ejection(&mut process);
    process.observe(0, Observation { probe: Some(probe), ..process.seen(CANARY) });
    process.fail(1, CANARY, 4);
    process.tick();
    assert_eq!(process.causes(), ["consecutive_failures", "returned"]);
}

fn probed_after_ejection(process: &mut Process) -> Probe {
    process.ticks(Duration::from_secs(31));
    process.probe(0, CANARY).unwrap()
}

#[test]
fn shadow_decides_and_does_not_act() {
    let policy = configured((50, 50), r#""outlier_detection": { "mode": "shadow" }"#, r#""mode": "shadow""#);
    let mut process = Process::new(&policy, 2);
    process.fail(0, CANARY, 20);
    process.tick();
    assert_eq!(process.causes(), ["consecutive_failures"; 2], "the target's and the guard's");
    assert!(process.workers.iter().all(|(_, health)| health.is_quiet()));
    assert_eq!(process.probe(0, CANARY), None);
    process.ticks(Duration::from_secs(31));
    process.answer(1, CANARY, Outcome::Success);
    assert_eq!(process.causes(), ["consecutive_failures", "consecutive_failures", "returned"]);
}
