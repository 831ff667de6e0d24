//! Outlier detection: when a target of a model stops, and resumes, taking traffic.
//!
//! Four rules judge a target: failures in a row, at once; and over a window the share of failures, the success rate
//! against that of the split's other targets, and the latency against theirs. [`Ejection`] is what follows.

#![deny(clippy::arithmetic_side_effects)]

mod ejection;

use std::time::Duration;

use crate::tally::{Counts, Proportion, increased, slower};
use crate::units::{Factor, Mode, Share, nanos};

pub use ejection::{Ejection, PROBE_EXPIRES};

/// The operator's settings, named as in Envoy's `outlier_detection`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Failures in a row that eject; 0 turns the rule off.
    pub consecutive_failures: u32,
    /// The share of failures in an interval that ejects; none turns the rule off.
    pub failure_percentage_threshold: Share,
    /// Fewer requests in an interval judge nothing.
    pub request_volume: u32,
    pub interval: Duration,
    /// Standard deviations below the mean success rate of the split's targets; 0 turns the rule off.
    pub success_rate_stdev_factor: Factor,
    /// The multiple of the other targets' median latency that ejects; 0 turns the rule off.
    pub latency_ratio: Factor,
    /// Failures, in a row or in an interval, count only when so many callers saw some of them.
    pub min_clients: u32,
    pub base_ejection_time: Duration,
    pub max_ejection_time: Duration,
    pub max_ejection_time_jitter: Duration,
    pub max_ejection_percent: Share,
    /// The shares of its weight that a target gets back one after the other.
    pub recovery_steps: Vec<Share>,
    pub recovery_step_time: Duration,
    pub mode: Mode,
}

/// The rule that ejects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    ConsecutiveFailures,
    FailurePercentage,
    SuccessRate,
    Latency,
    /// The probe after an ejection failed, so that the target stays out for longer.
    FailedProbe,
}

impl Cause {
    /// As metrics and logs have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::FailurePercentage => "failure_percentage",
            Self::SuccessRate => "success_rate",
            Self::Latency => "latency",
            Self::FailedProbe => "failed_probe",
        }
    }
}

/// How sure a comparison with other targets must be, beside what the operator asks of it: of few targets and few
/// requests one is always the worst.
const CONFIDENCE: Share = Share::from_millionths(999_000);

const MEDIAN: Share = Share::from_percent(50);

/// Fewer targets have no outlier among their success rates.
const FEWEST_TO_COMPARE: usize = 3;

impl OutlierDetection {
    /// Whether more than the target's own failures is asked for.
    pub fn compares(&self) -> bool {
        self.success_rate_stdev_factor != Factor::default() || self.compares_latencies()
    }

    pub fn compares_latencies(&self) -> bool {
        self.latency_ratio != Factor::default()
    }

    /// Whether the target's own failures in a window eject it.
    pub fn fails_too_often(&self, own: &Counts) -> bool {
        let threshold = u64::from(self.failure_percentage_threshold.millionths());
        let whole = u64::from(Share::WHOLE.millionths());
        0 < threshold
            && own.seen_by(self.min_clients)
            && self.request_volume <= own.requests
            && u64::from(own.requests).saturating_mul(threshold) <= u64::from(own.bad).saturating_mul(whole)
    }

    /// Whether the target is an outlier in a window of its split, of which `others` are the other targets.
    pub fn stands_out(&self, own: &Counts, others: &[&Counts]) -> Option<Cause> {
        if own.requests < self.request_volume {
            return None;
        }
        let others: Vec<_> =
            others.iter().copied().filter(|other| self.request_volume <= other.requests).collect();
        if self.succeeds_less(own, &others) {
            return Some(Cause::SuccessRate);
        }
        self.takes_longer(own, &others).then_some(Cause::Latency)
    }

    /// As Envoy's: below the mean of the success rates by more than a multiple of their standard deviation. Of n
    /// targets none is further below than sqrt(n - 1) standard deviations, so a larger factor never ejects.
    fn succeeds_less(&self, own: &Counts, others: &[&Counts]) -> bool {
        let factor = self.success_rate_stdev_factor;
        if factor == Factor::default()
            || others.len().saturating_add(1) < FEWEST_TO_COMPARE
            || !own.seen_by(self.min_clients)
        {
            return false;
        }
        let rate = |counts: &Counts| 1.0 - f64::from(counts.bad) / f64::from(counts.requests);
        let all = || others.iter().copied().chain([own]).map(rate);
        let number = f64::from(u32::try_from(others.len().saturating_add(1)).unwrap_or(u32::MAX));
        let mean = all().sum::<f64>() / number;
        let variance = all().map(|rate| (rate - mean).powi(2)).sum::<f64>() / number;
        if mean - f64::from(factor.thousandths()) / 1000.0 * variance.sqrt() <= rate(own) {
            return false;
        }
        let pooled = others.iter().fold(Proportion::default(), |sum, other| Proportion {
            bad: sum.bad.saturating_add(other.bad),
            of: sum.of.saturating_add(other.requests),
        });
        increased(own.proportion(), pooled, Share::NONE, CONFIDENCE)
    }

    /// Against the other target whose median is the median of theirs, the slower one of two.
    fn takes_longer(&self, own: &Counts, others: &[&Counts]) -> bool {
        if !self.compares_latencies() {
            return false;
        }
        let median =
            |(place, other): (u32, &&Counts)| Some((nanos(other.latencies.quantile(MEDIAN)?), place));
        let mut medians: Vec<(u64, u32)> = (0..).zip(others).filter_map(median).collect();
        let middle = medians.len() / 2;
        if medians.is_empty() {
            return false;
        }
        let (_, &mut (_, middle), _) = medians.select_nth_unstable(middle);
        others.get(middle as usize).is_some_and(|other| {
            slower(&own.latencies, &other.latencies, self.latency_ratio, MEDIAN, CONFIDENCE)
        })
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows stops")]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    pub fn policy() -> OutlierDetection {
        OutlierDetection {
            consecutive_failures: 5,
            failure_percentage_threshold: Share::from_percent(50),
            request_volume: 20,
            interval: Duration::from_secs(10),
            success_rate_stdev_factor: Factor::from_thousandths(1000),
            latency_ratio: Factor::from_thousandths(2000),
            min_clients: 1,
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(120),
            max_ejection_time_jitter: Duration::ZERO,
            max_ejection_percent: Share::from_percent(50),
            recovery_steps: [10, 25, 50, 100].map(Share::from_percent).to_vec(),
            recovery_step_time: Duration::from_secs(5),
            mode: Mode::Enforce,
        }
    }

    #[test]
    fn the_share_of_failures_ejects_from_the_threshold_and_the_volume_on() {
        let check = |bad, requests, expected| {
            assert_eq!(
                policy().fails_too_often(&Counts::of(bad, requests, 1)),
                expected,
                "{bad} of {requests}"
            );
        };
        check(10, 20, true);
        check(9, 20, false);
        check(19, 19, false);
        check(4_000_000_000, 4_000_000_000, true);
        let two = OutlierDetection { min_clients: 2, ..policy() };
        assert!(!two.fails_too_often(&Counts { callers: 1, ..Counts::of(20, 20, 1) }));
        assert!(two.fails_too_often(&Counts { callers: 3, ..Counts::of(20, 20, 1) }));
        let off = OutlierDetection { failure_percentage_threshold: Share::NONE, ..policy() };
        assert!(!off.fails_too_often(&Counts::of(20, 20, 1)));
    }

    #[track_caller]
    fn check(own: &Counts, others: &[Counts], expected: Option<Cause>) {
        let others: Vec<_> = others.iter().collect();
        assert_eq!(policy().stands_out(own, &others), expected);
    }

    #[test]
    fn the_one_that_fails_most_is_an_outlier_when_that_is_no_chance() {
        let good = || Counts::of(10, 1000, 10);
        check(&Counts::of(100, 1000, 10), &[good(), good()], Some(Cause::SuccessRate));
        check(&Counts::of(12, 1000, 10), &[good(), good()], None);
        check(&good(), &[good(), Counts::of(100, 1000, 10)], None);
    }

    #[test]
    fn two_targets_have_no_outlier_of_success() {
        check(&Counts::of(100, 1000, 10), &[Counts::of(10, 1000, 10)], None);
        check(&Counts::of(100, 1000, 10), &[Counts::of(10, 1000, 10), Counts::of(0, 19, 10)], None);
    }

    #[test]
    fn the_slow_one_of_two_is_an_outlier() {
        check(&Counts::of(0, 100, 50), &[Counts::of(0, 100, 10)], Some(Cause::Latency));
        check(&Counts::of(0, 100, 10), &[Counts::of(0, 100, 50)], None);
        check(&Counts::of(0, 100, 19), &[Counts::of(0, 100, 10)], None);
        check(&Counts::of(0, 19, 50), &[Counts::of(0, 100, 10)], None);
    }

    #[test]
    fn of_several_others_their_median_counts() {
        check(
            &Counts::of(0, 100, 50),
            &[Counts::of(0, 100, 10), Counts::of(0, 100, 9), Counts::of(0, 100, 90)],
            Some(Cause::Latency),
        );
        check(
            &Counts::of(0, 100, 50),
            &[Counts::of(0, 100, 10), Counts::of(0, 100, 40), Counts::of(0, 100, 90)],
            None,
        );
    }
}
