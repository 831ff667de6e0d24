//! How often a target that is healthy, but for a chance of failure, is ejected by a row.

use predictgate::store::{Conflict, MemStore, SharedStore, Version};

use super::Setting;
use super::law::{SETTING, UNHURRIED, play};
use super::ledger::Happened;
use super::life::{Right, Scenario};
use crate::scheduler::Faults;

/// Each request to a target with the chance `p` of a failure completes a row of `k` with a chance of at most `p^k` in
/// the order in which the parts of the workers are merged, since that order does not depend on what is in them. A
/// worker that merges out of turn, because a threshold seems crossed, makes one other order in which the request may
/// complete a row. So of n requests at most `2 n p^k` eject, on average. A success that waits has its place in the
/// order where no row was there for it to restart.
///
/// A run begins with no row, and ejected targets answer less, which only lowers it.
struct Rows {
    found: f64,
    expected: f64,
}

/// How often targets answer and fail.
#[derive(Clone, Copy, Debug)]
struct Load {
    workers: usize,
    requests_per_tick: Option<u64>,
    /// One request in so many fails.
    odds: u32,
}

/// Each worker answers several requests in a tick.
const BUSY: Load = Load { workers: 4, requests_per_tick: None, odds: 4 };

/// Rows are made of the failures of different workers, and most parts are successes that wait.
const SPREAD: Load = Load { workers: 16, requests_per_tick: Some(1), odds: 16 };

fn rows<S: SharedStore + 'static>(setting: Setting, load: Load, store: impl Fn() -> S) -> Rows {
    let row = setting.consecutive_failures;
    let mut sum = Happened::default();
    for seed in 0..400 {
        let drawn = Scenario::drawn(seed);
        let scenario = Scenario {
            settings: vec![setting],
            fails: [(0, 0); 3],
            odds_of_failure: load.odds.into(),
            ticks: 30,
            requests_per_tick: load.requests_per_tick.unwrap_or(drawn.requests_per_tick),
            ..drawn
        };
        let it = play(seed, load.workers, Faults::default(), &scenario, store(), Right).happened;
        sum.requests += it.requests;
        sum.rows += it.rows;
    }
    let chance = f64::from(load.odds).recip().powi(i32::try_from(row).unwrap());
    let [requests, rows] = [sum.requests, sum.rows].map(|it| f64::from(u32::try_from(it).unwrap()));
    let expected = 2.0 * requests * chance;
    println!("{rows} rows of {row} in {requests} requests, computed at most {expected}");
    Rows { found: rows, expected }
}

impl Rows {
    /// Rows are rare and nearly independent, so their number has about the variance of a Poisson distribution.
    fn are_too_many(&self) -> bool {
        self.expected + 5.0 * self.expected.sqrt() <= self.found
    }
}

#[test]
fn a_healthy_target_is_ejected_no_more_often_than_computed() {
    for (setting, load) in [(SETTING, BUSY), (UNHURRIED, BUSY), (SETTING, SPREAD), (UNHURRIED, SPREAD)] {
        let rows = rows(setting, load, MemStore::default);
        assert!(!rows.are_too_many(), "{setting:?} {load:?}");
        // In one order of all answers half as many are to be expected; much fewer would mean that rows are not seen.
        assert!(rows.expected / 4.0 < rows.found, "{setting:?} {load:?}");
    }
}

/// Hides from all workers that others have begun a row, for which successes would not wait.
#[derive(Default)]
struct Unwarned(MemStore);

impl SharedStore for Unwarned {
    fn load(&self, key: &str) -> (Option<Vec<u8>>, Version) {
        if key.ends_with("/failing") { (None, Version::Absent) } else { self.0.load(key) }
    }

    fn store(&self, key: &str, value: &[u8], version: Version) -> Result<(), Conflict> {
        if key.ends_with("/failing") { Ok(()) } else { self.0.store(key, value, version) }
    }
}

#[test]
fn rows_that_miss_the_successes_of_others_are_caught() {
    assert!(rows(UNHURRIED, SPREAD, Unwarned::default).are_too_many());
}
