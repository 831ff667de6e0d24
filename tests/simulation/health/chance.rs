//! How often a target that is healthy, but for a chance of failure, is ejected by a row.

use predictgate::store::MemStore;

use super::law::{SETTING, play};
use super::ledger::Happened;
use super::life::{Right, Scenario};
use crate::scheduler::Faults;

/// Each request to a target with the chance `p` of a failure completes a row of `k` with a chance of at most `p^k` in
/// the order in which the parts of the workers are merged, since that order does not depend on what is in them. A
/// worker that merges out of turn, because a threshold seems crossed, makes one other order in which the request may
/// complete a row. So of n requests at most `2 n p^k` eject, on average.
///
/// A run begins with no row, and ejected targets answer less, which only lowers it.
#[test]
fn a_healthy_target_is_ejected_no_more_often_than_computed() {
    const ODDS: u32 = 4;
    let row = SETTING.consecutive_failures;
    let mut sum = Happened::default();
    for seed in 0..400 {
        let scenario = Scenario {
            settings: vec![SETTING],
            fails: [(0, 0); 3],
            odds_of_failure: ODDS.into(),
            ticks: 30,
            ..Scenario::drawn(seed)
        };
        let it = play(seed, 4, Faults::default(), &scenario, MemStore::default(), Right).happened;
        sum.requests += it.requests;
        sum.rows += it.rows;
    }
    let chance = f64::from(ODDS).recip().powi(i32::try_from(row).unwrap());
    let [requests, rows] = [sum.requests, sum.rows].map(|it| f64::from(u32::try_from(it).unwrap()));
    let expected = 2.0 * requests * chance;
    println!("{rows} rows of {row} in {requests} requests, computed at most {expected}");
    // Rows are rare and nearly independent, so their number has about the variance of a Poisson distribution.
    assert!(rows < expected + 5.0 * expected.sqrt(), "{rows} rows, computed {expected}");
    // In one order of all answers half as many are to be expected; much fewer would mean that rows are not seen.
    assert!(expected / 4.0 < rows, "{rows} rows, computed {expected}");
}
