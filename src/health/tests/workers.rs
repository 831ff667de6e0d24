//! What workers owe each other, and what it costs.

use super::*;
use crate::{guard, outlier};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn outcomes_of_an_older_root_count_for_the_same_target() {
    let mut process = Process::new(&ejecting(), 2);
    process.fail(0, CANARY, 4);
    process.wait(TICK);
    process.tick_one(0, false);
    process.fail(1, CANARY, 1);
    process.tick_one(1, true);
    assert_eq!(process.causes(), ["consecutive_failures"]);
}

#[test]
fn nothing_leaks_over_ten_thousand_updates() {
    let mut process = Process::new(&ejecting(), 1);
    let mut most = 0;
    for number in 0..10_000_u32 {
        let text = format!(r#""window": "60s", "epoch": {number}"#);
        let policy = configured((50, 50), r#""outlier_detection": {}"#, &text);
        process.update(&policy, 1);
        process.fail(0, CANARY, 20);
        process.answer(0, STABLE, Outcome::Success);
        process.tick();
        if number == 100 {
            most = process.store.store.len();
        }
    }
    assert_eq!(process.store.store.len(), most);
    let (value, _) = process.store.store.load("pg1/predictgate/changes");
    assert!(value.unwrap().len() < 100);
    assert!((0..most).all(|n| {
        process.store.store.load(&format!("pg1/predictgate/{n}")).0.is_none_or(|it| it.len() < 1000)
    }));
}

#[test]
fn anything_may_stand_in_shared_memory() {
    let mut rng = Rng::seeded(3);
    for _ in 0..300 {
        let mut process = Process::new(&ejecting(), 2);
        process.fail(0, CANARY, 5);
        process.tick();
        for n in (0..8192).map(|n| n.to_string()).chain(["changes".to_owned()]) {
            let key = format!("pg1/predictgate/{n}");
            let (Some(mut value), version) = process.store.store.load(&key) else { continue };
            // The last bytes of an entry are the arena's, which has tests of its own.
            let end = if n == "changes" { value.len() } else { value.len() - 17 };
            let place = usize::try_from(rng.next_u64() % end as u64).unwrap();
            value[place] = rng.next_u64().to_le_bytes()[0];
            process.store.store.store(&key, &value, version).unwrap();
        }
        process.ticks(Duration::from_secs(1));
        process.fail(0, STABLE, 5);
        process.answer(1, CANARY, Outcome::Success);
        process.ticks(Duration::from_secs(40));
        _ = process.probe(0, CANARY);
        process.tick();
    }
}

#[test]
fn what_stands_in_force_at_the_start_of_a_worker_is_obeyed_with_its_first_tick() {
    let mut process = Process::new(&ejecting(), 1);
    process.fail(0, CANARY, 5);
    let fresh = process.worker(&ejecting());
    process.workers.push(fresh);
    process.tick_one(1, true);
    assert_eq!(process.share(1, CANARY), Share::NONE);
}

#[test]
fn a_worker_that_died_before_it_could_tell_is_made_good_by_the_next_that_merges() {
    let mut process = Process::new(&ejecting(), 3);
    process.tick();
    let before = process.store.store.load("pg1/predictgate/changes");
    process.fail(0, CANARY, 5);
    // The list is as it was before, as if the worker had died in between.
    let (_, version) = process.store.store.load("pg1/predictgate/changes");
    process.store.store.store("pg1/predictgate/changes", &before.0.unwrap(), version).unwrap();
    process.workers.remove(0);
    process.tick();
    assert_eq!(process.share(0, CANARY), Share::WHOLE);
    process.answer(0, STABLE, Outcome::Success);
    process.tick();
    assert_eq!(process.share(0, CANARY), Share::NONE);
    process.tick();
    assert_eq!(process.share(1, CANARY), Share::NONE);
}

#[test]
fn idle_ticks_cost_one_call_however_many_models_there_are() {
    for models in [1, 1000] {
        let model = |n: usize| {
            format!(
                r#"{{ "name": "m{n}", "targets": {{ "a": {{ "cluster": "a" }}, "b": {{ "cluster": "b" }} }},
                "routes": [ {{ "split": [ {{ "target": "a" }}, {{ "target": "b" }} ], "guard": {{ "target": "a", "baseline": "b" }} }} ],
                "outlier_detection": {{}} }}"#
            )
        };
        let models: Vec<_> = (0..models).map(model).collect();
        let policy = config::parse_all(&format!(r#"{{ "models": [ {} ] }}"#, models.join(","))).unwrap();
        let mut process = Process::new(&policy, 1);
        process.answer(0, CANARY, Outcome::Success);
        process.ticks(Duration::from_secs(60));
        process.store.calls.set(0);
        process.ticks(Duration::from_secs(10));
        assert_eq!(process.store.calls.get(), 100);
    }
}

#[test]
fn a_policy_without_health_costs_nothing() {
    let mut process = Process::new(&configured((50, 50), "", ""), 1);
    process.tick();
    process.store.calls.set(0);
    process.fail(0, CANARY, 100);
    process.ticks(Duration::from_secs(10));
    assert_eq!(process.store.calls.get(), 0);
    assert!(process.store.store.is_empty());
}

#[test]
fn at_a_hundred_requests_a_second_and_worker_recording_takes_less_than_a_third_of_a_call_each() {
    let policy = configured((90, 10), r#""outlier_detection": {}"#, r#""window": "60s""#);
    let mut process = Process::new(&policy, 4);
    process.ticks(Duration::from_secs(1));
    process.store.calls.set(0);
    let mut requests = 0_u32;
    for _ in 0..100 {
        for worker in 0..4 {
            for request in 0..12 {
                let outcome = if request % 100 == 7 { Outcome::Failure } else { Outcome::Success };
                process.answer(worker, if request == 0 { CANARY } else { STABLE }, outcome);
                requests += 1;
            }
        }
        process.tick();
    }
    let calls = process.store.calls.get();
    assert!(calls * 10 < requests * 3, "{calls} calls for {requests} requests");
}

#[test]
fn with_a_full_arena_a_worker_goes_on_alone() {
    let mut process = Process::new(&ejecting(), 2);
    for n in 0..ENTRIES {
        let key = format!("pg1/predictgate/{n}");
        let mut value = vec![2_u8];
        value.extend([9; 8]);
        value.extend(process.now.as_nanos().to_le_bytes());
        process.store.store.store(&key, &value, Version::Absent).unwrap();
    }
    process.fail(0, CANARY, 5);
    process.tick();
    assert_eq!(process.workers[0].1.alone(), 1);
    assert_eq!([process.share(0, CANARY), process.share(1, CANARY)], [Share::NONE, Share::WHOLE]);
    process.ticks(Duration::from_secs(31));
    let probe = process.probe(0, CANARY);
    assert!(probe.is_some());
    process.observe(0, Observation { probe, ..process.seen(CANARY) });
    process.ticks(Duration::from_secs(20));
    assert!(process.workers[0].1.is_quiet());
}

#[test]
fn names_of_causes_are_those_of_the_metrics() {
    assert_eq!(
        guard::Cause::ALL.map(guard::Cause::name),
        ["consecutive_failures", "failure_increase", "latency", "ejection"]
    );
    assert_eq!(outlier::Cause::FailedProbe.name(), "failed_probe");
    assert_eq!(nanos(outlier::PROBE_EXPIRES), 60_000_000_000);
}
