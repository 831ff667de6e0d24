//! The laws of health over seeded runs.

use std::cell::RefCell;
use std::num::NonZeroU64;
use std::rc::Rc;

use predictgate::rng::Rng;
use predictgate::store::{MemStore, SharedStore};

use super::Setting;
use super::ledger::{Happened, Ledger};
use super::life::{Right, Scenario, Worker, life};
use crate::explore::explore_part;
use crate::scheduler::{Faults, Life, simulate};

/// Few enough for every push.
const RUNS: u64 = 10_000;

/// Windows are so short that no part waits to be merged.
pub const SETTING: Setting = Setting {
    weights: [20, 30, 50],
    max_ejection_percent: 50,
    consecutive_failures: 3,
    epoch: 1,
    windows: [600, 1000],
};

/// Parts that hold nothing but successes wait.
pub const UNHURRIED: Setting = Setting { windows: [12_000, 12_000], ..SETTING };

impl Scenario {
    /// Each target may fail for a while; the configurations differ in what no latch depends on.
    pub fn drawn(seed: u64) -> Self {
        let mut rng = Rng::seeded(seed ^ 0x4ea1_7400);
        let mut below = |bound: u64| rng.below(NonZeroU64::new(bound).unwrap());
        let mut fails = || {
            let from = below(800);
            if below(3) == 0 { (0, 0) } else { (from, from + below(800)) }
        };
        let fails = [fails(), fails(), fails()];
        let percent = [50, 80, 100][usize::try_from(below(3)).unwrap()];
        let setting = Setting { max_ejection_percent: percent, ..SETTING };
        Self {
            settings: vec![setting, Setting { consecutive_failures: 4, ..setting }],
            ticks: 12,
            requests_per_tick: 2 + below(3),
            fails,
            odds_of_failure: 50,
            starts_apart: None,
            // A worker that lost too many races tells with its next tick, and one that died was heard of by whoever
            // merged next.
            obeys_within: 4,
        }
    }
}

/// Deaths and updates are as many as for the counters, but a life here is longer.
pub const FAULTS: Faults =
    Faults { death: NonZeroU64::new(400), update: NonZeroU64::new(400), ..Faults::ALL };

pub fn play(
    seed: u64,
    workers: usize,
    faults: Faults,
    scenario: &Scenario,
    store: impl SharedStore + 'static,
    worker: impl Worker + 'static,
) -> Ledger {
    let ledger = Rc::new(RefCell::new(Ledger::default()));
    let life: Life = {
        let (ledger, scenario) = (Rc::clone(&ledger), scenario.clone());
        Rc::new(move |host| life(host, &scenario, &ledger, &worker))
    };
    simulate(seed, workers, faults, Box::new(store), &life);
    drop(life);
    Rc::into_inner(ledger).expect("all lives are over").into_inner()
}

pub fn law(ledger: &Ledger) -> Result<(), String> {
    ledger.broken.clone().map_or(Ok(()), Err)
}

#[track_caller]
fn check(one_in: u64, workers: usize) {
    explore_part(RUNS, one_in, |seed| {
        law(&play(seed, workers, FAULTS, &Scenario::drawn(seed), MemStore::default(), Right))
    });
}

#[test]
fn one_worker_keeps_the_laws() {
    check(10, 1);
}

#[test]
fn two_workers_keep_the_laws() {
    check(2, 2);
}

#[test]
fn four_workers_keep_the_laws() {
    check(4, 4);
}

#[test]
fn sixteen_workers_keep_the_laws() {
    check(50, 16);
}

#[test]
fn workers_whose_successes_wait_keep_the_laws() {
    explore_part(RUNS, 10, |seed| {
        let mut scenario = Scenario { ticks: 24, ..Scenario::drawn(seed) };
        for setting in &mut scenario.settings {
            setting.windows = UNHURRIED.windows;
        }
        law(&play(seed, 4, FAULTS, &scenario, MemStore::default(), Right))
    });
}

/// Without deaths, conflicts made up and updates the first tick that begins after a decision knows of it.
#[test]
fn every_worker_obeys_with_its_next_tick() {
    explore_part(RUNS, 10, |seed| {
        let scenario = Scenario { obeys_within: 1, ..Scenario::drawn(seed) };
        law(&play(seed, 4, Faults::default(), &scenario, MemStore::default(), Right))
    });
}

#[test]
fn what_the_laws_are_about_does_happen() {
    let mut sum = Happened::default();
    for seed in 0..100 {
        let it = play(seed, 4, FAULTS, &Scenario::drawn(seed), MemStore::default(), Right).happened;
        sum.requests += it.requests;
        sum.ejections += it.ejections;
        sum.refusals += it.refusals;
        sum.returns += it.returns;
        sum.failed_probes += it.failed_probes;
        sum.roll_backs += it.roll_backs;
        sum.probes += it.probes;
        sum.obeyed += it.obeyed;
    }
    for often in
        [sum.ejections, sum.refusals, sum.returns, sum.failed_probes, sum.roll_backs, sum.probes, sum.obeyed]
    {
        assert!(often > 20, "{sum:?}");
    }
}
