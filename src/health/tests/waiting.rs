//! What waits to be merged, and what it must not wait for.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const SECOND: Duration = Duration::from_secs(1);

/// Buckets of 2 s, and a target that has answered.
fn settled(workers: usize) -> Process {
    let more = r#""outlier_detection": { "interval": "12s", "failure_percentage_threshold": 40 }"#;
    let mut process = Process::new(&configured((50, 50), more, ""), workers);
    for worker in 0..workers {
        process.answer(worker, CANARY, Outcome::Success);
    }
    process.tick();
    process
}

#[test]
fn a_model_that_is_well_is_merged_once_in_a_bucket() {
    let mut process = settled(1);
    process.store.calls.set(0);
    for _ in 0..200 {
        process.answer(0, CANARY, Outcome::Success);
        process.tick();
    }
    // Each tick reads what has changed and what fails. A bucket has one merge of what has waited, and in its last
    // four ticks and the one before them nothing waits: each merge is a read and a write.
    let most = 200 * 2 + 10 * (1 + 5) * 2;
    assert!(process.store.calls.get() <= most, "{} calls", process.store.calls.get());
}

#[test]
fn a_row_that_another_worker_begins_does_not_miss_a_success_that_comes_after_it() {
    let mut process = settled(2);
    for _ in 0..8 {
        process.fail(0, CANARY, 1);
        process.tick();
        process.answer(1, CANARY, Outcome::Success);
        process.tick();
    }
    assert_eq!(process.events, []);
}

#[test]
fn a_success_before_a_row_that_another_worker_begins_does_not_restart_it() {
    let mut process = settled(2);
    process.answer(1, CANARY, Outcome::Success);
    process.tick();
    for _ in 0..5 {
        process.fail(0, CANARY, 1);
        process.tick();
    }
    assert_eq!(process.causes(), ["consecutive_failures"]);
}

/// So few failures that only what waits keeps them below the threshold.
#[test]
fn what_waits_is_judged_in_the_bucket_in_which_it_came() {
    for good in [16, 4] {
        let mut process = settled(2);
        for _ in 0..4 {
            for _ in 0..good {
                process.answer(1, CANARY, Outcome::Success);
            }
            // A success between them, so that there is no row.
            process.fail(0, CANARY, 4);
            process.answer(0, CANARY, Outcome::Success);
            process.tick();
        }
        process.ticks(3 * SECOND);
        let expected: &[&str] = if good == 16 { &[] } else { &["failure_percentage"] };
        assert_eq!(process.causes(), expected, "{good} successes beside 4 failures");
    }
}

#[test]
fn a_root_that_ends_hands_over_what_waits() {
    let mut process = settled(1);
    for _ in 0..3 {
        process.answer(0, CANARY, Outcome::Success);
    }
    process.tick();
    let place = |process: &Process| {
        (0..ENTRIES).find_map(|n| process.store.store.load(&format!("pg1/predictgate/{n}")).0)
    };
    let before = place(&process);
    let (policy, health) = &mut process.workers[0];
    let effects = health.end(&process.store, policy, process.now);
    assert!(effects.is_empty());
    assert_ne!(place(&process), before);
    process.store.calls.set(0);
    let (policy, health) = &mut process.workers[0];
    assert!(health.end(&process.store, policy, process.now).is_empty());
    assert_eq!(process.store.calls.get(), 0, "nothing is left");
}

/// Others always write first.
struct Refusing<'a>(&'a Counting);

impl SharedStore for Refusing<'_> {
    fn load(&self, key: &str) -> (Option<Vec<u8>>, Version) {
        self.0.load(key)
    }

    fn store(&self, _: &str, _: &[u8], _: Version) -> Result<(), Conflict> {
        Err(Conflict)
    }
}

#[test]
fn what_waited_and_could_not_be_merged_is_merged_later() {
    // Buckets of 50 s.
    let more = r#""outlier_detection": { "interval": "300s", "failure_percentage_threshold": 40 }"#;
    let mut process = Process::new(&configured((50, 50), more, ""), 1);
    for _ in 0..2 {
        process.answer(0, CANARY, Outcome::Success);
        process.tick();
    }
    let left = |process: &Process| -> u32 {
        process.workers[0].1.slots[0].targets.iter().map(|target| target.counts.requests).sum()
    };
    assert_eq!(left(&process), 1, "the second one waits");
    for _ in 0..30 {
        process.wait(TICK);
        let (policy, health) = &mut process.workers[0];
        assert!(
            health.tick(&Refusing(&process.store), policy, process.now, WallTime::default(), true).is_empty()
        );
    }
    assert_eq!(left(&process), 1);
    process.ticks(3 * SECOND);
    assert_eq!(left(&process), 0);
}

#[test]
fn a_worker_that_misses_three_ticks_takes_no_success_from_a_judgement() {
    let mut process = settled(2);
    for _ in 0..4 {
        for _ in 0..16 {
            process.answer(1, CANARY, Outcome::Success);
        }
        process.fail(0, CANARY, 4);
        process.answer(0, CANARY, Outcome::Success);
        process.tick();
    }
    let mut missed = 0;
    for _ in 0..30 {
        process.wait(TICK);
        let is_due = process.workers[1].1.is_due(process.now);
        if is_due && missed < 3 {
            missed += 1;
        } else {
            process.tick_one(1, true);
        }
        process.tick_one(0, true);
    }
    assert_eq!(missed, 3);
    assert!(process.causes().is_empty(), "16 failures of 84: {:?}", process.causes());
}
