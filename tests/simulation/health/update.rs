//! Configurations that replace each other: A, then B with another guard, then A again.

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
            ..scenario
        }
    }
}

/// A worker that dies may have decided what nobody has heard of, so nobody dies here.
#[test]
fn a_latch_holds_until_another_guard_comes_and_does_not_come_back_with_its_own() {
    explore_part(2000, 1, |seed| {
        let faults = Faults { death: None, ..FAULTS };
        law(&play(seed, 3, faults, &Scenario::alternating(seed), MemStore::default(), Right))
    });
}
