//! Configurations that replace each other: A, then B with another guard, then A again.

use std::num::NonZeroU64;

use predictgate::store::MemStore;

use super::Setting;
use super::law::{FAULTS, law, play};
use super::life::{Right, Scenario};
use crate::explore::explore_part;
use crate::scheduler::Faults;

impl Scenario {
    /// Every other configuration has another guard, and the canary fails all the time.
    pub fn alternating(seed: u64) -> Self {
        let scenario = Self::drawn(seed);
        let first = scenario.settings[0];
        Self {
            settings: vec![first, Setting { epoch: 2, ..first }],
            fails: [(0, u64::MAX), (0, 0), (0, 0)],
            ticks: 24,
            ..scenario
        }
    }

    /// An update has reached only some workers, and some begin late with what they have.
    pub fn apart(seed: u64) -> Self {
        Self { starts_apart: NonZeroU64::new(24), ticks: 36, requests_per_tick: 8, ..Self::alternating(seed) }
    }
}

/// Configurations follow each other within a few ticks. A worker that dies may have decided what nobody has heard of,
/// so nobody dies here.
const UPDATES: Faults = Faults { death: None, update: NonZeroU64::new(200), ..FAULTS };

#[test]
fn a_latch_holds_until_another_guard_comes_and_does_not_come_back_with_its_own() {
    explore_part(10_000, 10, |seed| {
        law(&play(seed, 2, UPDATES, &Scenario::alternating(seed), MemStore::default(), Right))
    });
}

#[test]
fn the_latch_of_the_newer_configuration_holds_however_late_an_older_one_begins() {
    explore_part(10_000, 20, |seed| {
        law(&play(seed, 3, Faults::default(), &Scenario::apart(seed), MemStore::default(), Right))
    });
}

#[test]
fn latches_are_cleared_before_their_guard_comes_back() {
    let found = |seed| {
        let scenario = Scenario::alternating(seed);
        play(seed, 2, UPDATES, &scenario, MemStore::default(), Right).happened.starts_after_clearing
    };
    let starts: u64 = (0..100).map(found).sum();
    assert!(starts > 20, "{starts}");
}
