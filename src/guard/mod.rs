//! The guard of a canary: when a bad version is rolled back.
//!
//! Three rules judge the guarded target: failures in a row, at once; and over a window the share of bad answers and
//! the latency, each against the baseline's in the same window, so that what befalls both accuses neither.
//! The window is judged once per closed sixth, so there are `86,400 s / (window / 6)` judgements a day of each kind:
//! 8,640 for 60 s. A judgement goes wrong with a chance of at most `1 - confidence` for a canary that is exactly as
//! much worse as is tolerated; for one that is as good as its baseline the margin makes it far less likely, and
//! `tests/laws_health.rs` computes how much.

#![deny(clippy::arithmetic_side_effects)]

use std::time::Duration;

use crate::tally::{Counts, increased, slower};
use crate::units::{Factor, Mode, Share, TargetId};

/// The operator's settings of one guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    pub target: TargetId,
    pub baseline: TargetId,
    pub window: Duration,
    /// Fewer requests in a window judge nothing.
    pub min_requests: u32,
    /// Failures in a row that trip; 0 turns the rule off.
    pub consecutive_failures: u32,
    /// How much more of the canary's requests than of the baseline's may fail.
    pub max_failure_increase: Share,
    /// How sure the test of two proportions must be.
    pub confidence: Share,
    /// How many times the baseline's latency is too slow; 0 turns the rule off.
    pub max_latency_ratio: Factor,
    pub latency_quantile: Share,
    pub on_ejection: OnEjection,
    /// Raised by the operator to clear a latch.
    pub epoch: u64,
    pub mode: Mode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnEjection {
    #[default]
    Trip,
    Ignore,
}

/// The rule that trips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    ConsecutiveFailures,
    FailureIncrease,
    Latency,
    /// Outlier detection ejected the target.
    Ejection,
}

impl Cause {
    pub const ALL: [Self; 4] =
        [Self::ConsecutiveFailures, Self::FailureIncrease, Self::Latency, Self::Ejection];

    /// As metrics and logs have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::FailureIncrease => "failure_increase",
            Self::Latency => "latency",
            Self::Ejection => "ejection",
        }
    }
}

impl Guard {
    /// Whether the canary's window trips the guard. Without baseline traffic it never does, nor by failures that fewer
    /// than `clients` callers saw.
    pub fn judge(&self, canary: &Counts, baseline: &Counts, clients: u32) -> Option<Cause> {
        if canary.requests < self.min_requests || baseline.is_empty() {
            return None;
        }
        let (margin, confidence) = (self.max_failure_increase, self.confidence);
        if canary.seen_by(clients)
            && increased(canary.proportion(), baseline.proportion(), margin, confidence)
        {
            return Some(Cause::FailureIncrease);
        }
        let ratio = self.max_latency_ratio;
        let is_slow = ratio != Factor::default()
            && slower(&canary.latencies, &baseline.latencies, ratio, self.latency_quantile, confidence);
        is_slow.then_some(Cause::Latency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn guard() -> Guard {
        Guard {
            target: TargetId(1),
            baseline: TargetId(0),
            window: Duration::from_secs(60),
            min_requests: 50,
            consecutive_failures: 20,
            max_failure_increase: Share::from_percent(2),
            confidence: Share::from_millionths(999_000),
            max_latency_ratio: Factor::from_thousandths(2000),
            latency_quantile: Share::from_percent(95),
            on_ejection: OnEjection::Trip,
            epoch: 1,
            mode: Mode::Enforce,
        }
    }

    #[track_caller]
    fn check(canary: &Counts, baseline: &Counts, expected: Option<Cause>) {
        assert_eq!(guard().judge(canary, baseline, 1), expected);
    }

    #[test]
    fn a_canary_that_fails_more_trips() {
        check(&Counts::of(20, 100, 10), &Counts::of(19, 1900, 10), Some(Cause::FailureIncrease));
        check(&Counts::of(2, 100, 10), &Counts::of(19, 1900, 10), None);
    }

    #[test]
    fn failures_of_one_caller_are_not_enough_where_two_are_asked_for() {
        let (mut canary, baseline) = (Counts::of(50, 100, 10), Counts::of(19, 1900, 10));
        canary.callers = 1;
        assert_eq!(guard().judge(&canary, &baseline, 2), None);
        canary.callers = 3;
        assert_eq!(guard().judge(&canary, &baseline, 2), Some(Cause::FailureIncrease));
    }

    #[test]
    fn what_befalls_both_trips_nothing() {
        check(&Counts::of(60, 100, 10), &Counts::of(1140, 1900, 10), None);
        check(&Counts::of(0, 100, 900), &Counts::of(0, 1900, 900), None);
    }

    #[test]
    fn a_slow_canary_trips() {
        check(&Counts::of(0, 100, 30), &Counts::of(0, 1900, 10), Some(Cause::Latency));
        check(&Counts::of(0, 100, 19), &Counts::of(0, 1900, 10), None);
        let off = Guard { max_latency_ratio: Factor::default(), ..guard() };
        assert_eq!(off.judge(&Counts::of(0, 100, 30), &Counts::of(0, 1900, 10), 1), None);
    }

    #[test]
    fn few_requests_and_a_silent_baseline_judge_nothing() {
        check(&Counts::of(49, 49, 10), &Counts::of(0, 1900, 10), None);
        check(&Counts::of(100, 100, 10), &Counts::of(0, 0, 10), None);
    }
}
