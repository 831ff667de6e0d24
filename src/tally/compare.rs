//! Whether one target is worse than another, beyond what chance does.
//!
//! Both tests are exact: whatever the counts, however small, a target that is not worse than is tolerated fails a
//! test with a chance of at most `1 - confidence`. Where a sum would be long, a bound from above takes its place,
//! which only makes a test stricter.

#![deny(clippy::arithmetic_side_effects)]

use super::Latencies;
use crate::units::{Factor, Share};

/// So many bad ones of so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proportion {
    pub bad: u32,
    pub of: u32,
}

/// Whether more of `canary` than of `baseline` is bad, by more than `margin`, with `confidence`.
///
/// With a chance of half the allowed error the baseline's true proportion is below `limit`, its upper confidence
/// limit (Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
/// Biometrika 26, 1934). With the other half, so many bad ones are not chance even if the canary's true proportion
/// were `limit + margin`. This is the test of Berger and Boos ("P values maximized over a confidence set for the
/// nuisance parameter", Journal of the American Statistical Association 89, 1994) with the canary's count as the
/// statistic.
pub fn increased(canary: Proportion, baseline: Proportion, margin: Share, confidence: Share) -> bool {
    let half = error(confidence) / 2.0;
    if canary.bad == 0 || half <= 0.0 {
        return false;
    }
    let limit = upper_limit(baseline, half) + of(margin);
    limit < 1.0 && binomial_at_least(canary.of, canary.bad, limit) <= half
}

/// Whether `canary` is slower than `baseline` by more than `ratio` at `quantile`, with `confidence`.
///
/// If the canary's latencies, divided by `ratio`, were those of the baseline or shorter, then no more of them would
/// be beyond the baseline's quantile than the hypergeometric distribution allows (Mathisen, "A method of testing
/// the hypothesis that two samples are from the same population", Annals of Mathematical Statistics 14, 1943).
/// Latencies are known by their buckets; only what is certainly beyond counts.
pub fn slower(
    canary: &Latencies,
    baseline: &Latencies,
    ratio: Factor,
    quantile: Share,
    confidence: Share,
) -> bool {
    let Some(pivot) = baseline.quantile(quantile) else { return false };
    let beyond = canary.above(pivot, ratio);
    let above_pivot = baseline.total().saturating_sub(baseline.rank(quantile));
    let allowed = error(confidence);
    0.0 < allowed
        && 0 < beyond
        && hypergeometric_at_least(
            u64::from(canary.total()),
            u64::from(baseline.total()),
            u64::from(above_pivot).saturating_add(u64::from(beyond)),
            u64::from(beyond),
        ) <= allowed
}

fn of(share: Share) -> f64 {
    f64::from(share.millionths()) / f64::from(Share::WHOLE.millionths())
}

/// The chance that a test may be wrong.
fn error(confidence: Share) -> f64 {
    f64::from(Share::WHOLE.millionths().saturating_sub(confidence.millionths()))
        / f64::from(Share::WHOLE.millionths())
}

/// The proportion under which so few bad ones have a chance of `error` at most.
fn upper_limit(seen: Proportion, error: f64) -> f64 {
    if seen.of <= seen.bad {
        return 1.0;
    }
    let (mut low, mut high) = (f64::from(seen.bad) / f64::from(seen.of), 1.0);
    // Halving the span so often leaves less than a double can tell apart.
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if binomial_at_least(seen.of, seen.of.saturating_sub(seen.bad), 1.0 - middle) <= error {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

/// A bound of the chance that at least `bad` of `of` are bad, if each is with the chance `p`.
///
/// From `bad` on each term is at most `ratio` times the one before, so their sum is below that of a geometric
/// series. It is the sum itself where `bad` is `of`.
fn binomial_at_least(of: u32, bad: u32, p: f64) -> f64 {
    if bad == 0 || 1.0 <= p {
        return 1.0;
    }
    if of < bad || p <= 0.0 {
        return 0.0;
    }
    let good = of.saturating_sub(bad);
    let ratio = f64::from(good) / (f64::from(bad) + 1.0) * p / (1.0 - p);
    let first =
        ln_choose(u64::from(of), u64::from(bad)) + f64::from(bad) * p.ln() + f64::from(good) * (-p).ln_1p();
    geometric(first, ratio)
}

/// A bound of the chance that among `drawn` of `marked + others`, drawn without putting back, at least `wanted` are
/// marked.
fn hypergeometric_at_least(marked: u64, others: u64, drawn: u64, wanted: u64) -> f64 {
    let rest = drawn.saturating_sub(wanted);
    if marked < wanted || others < rest {
        return if wanted == 0 { 1.0 } else { 0.0 };
    }
    let first =
        ln_choose(marked, wanted) + ln_choose(others, rest) - ln_choose(marked.saturating_add(others), drawn);
    let (left, kept) = (float(marked.saturating_sub(wanted)), float(others.saturating_sub(rest)));
    let ratio = left * float(rest) / ((float(wanted) + 1.0) * (kept + 1.0));
    geometric(first, ratio)
}

/// The sum of a falling geometric series by the logarithm of its first term, and at most 1.
fn geometric(ln_first: f64, ratio: f64) -> f64 {
    if ratio < 1.0 { (ln_first.exp() / (1.0 - ratio)).min(1.0) } else { 1.0 }
}

fn ln_choose(of: u64, chosen: u64) -> f64 {
    ln_factorial(of) - ln_factorial(chosen) - ln_factorial(of.saturating_sub(chosen))
}

#[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
const fn float(number: u64) -> f64 {
    number as f64
}

/// Stirling's series, whose error from 16 on is below 1e-12.
fn ln_factorial(number: u64) -> f64 {
    if number < 16 {
        return (2..=number).map(float).product::<f64>().ln();
    }
    let n = float(number);
    (n + 0.5) * n.ln() - n + 0.5 * std::f64::consts::TAU.ln() + 1.0 / (12.0 * n) - 1.0 / (360.0 * n.powi(3))
        + 1.0 / (1260.0 * n.powi(5))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows stops")]
mod tests {
    use std::time::Duration;

    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const TWO_PERCENT: Share = Share::from_percent(2);

    fn sure() -> Share {
        Share::from_millionths(999_000)
    }

    fn near(found: f64, exact: f64, tolerance: f64) {
        assert!((found / exact - 1.0).abs() <= tolerance, "{found} is not {exact}");
    }

    #[test]
    fn factorials_are_those_of_the_table() {
        near(ln_factorial(0).exp(), 1.0, 1e-12);
        near(ln_factorial(10).exp(), 3_628_800.0, 1e-12);
        near(ln_factorial(16).exp(), 20_922_789_888_000.0, 1e-11);
        near(ln_factorial(20).exp(), 2_432_902_008_176_640_000.0, 1e-11);
    }

    /// The bound is above the sum, term by term, and near it where a test decides.
    #[test]
    fn the_bound_of_a_binomial_tail_is_close_from_above() {
        for (of, p) in [(50_u32, 0.02_f64), (50, 0.16), (1500, 0.03), (3000, 0.5)] {
            for bad in (1..=of).filter(|it| *it < 200 || it % 97 == 0) {
                let term = |it: u32| {
                    let ln = ln_choose(of.into(), it.into()) + f64::from(it) * p.ln();
                    (ln + f64::from(of - it) * (1.0 - p).ln()).exp()
                };
                let exact: f64 = (bad..=of).map(term).sum();
                let bound = binomial_at_least(of, bad, p);
                assert!(exact <= bound * (1.0 + 1e-9), "{bad} of {of} at {p}: {bound} is below {exact}");
                if exact < 0.001 && 1e-300 < exact {
                    assert!(bound <= exact * 1.25, "{bad} of {of} at {p}: {bound} is far above {exact}");
                }
            }
        }
    }

    #[test]
    fn the_limits_are_those_of_clopper_and_pearson() {
        // None of 50 at 97.5 %: 1 - 0.025^(1/50).
        near(upper_limit(Proportion { bad: 0, of: 50 }, 0.025), 0.071_12, 1e-3);
        // 5 of 100 at 97.5 %: tables have 0.1128, and the bound may be a little above.
        let limit = upper_limit(Proportion { bad: 5, of: 100 }, 0.025);
        assert!((0.1128..0.1145).contains(&limit), "{limit}");
        near(upper_limit(Proportion { bad: 3, of: 3 }, 0.025), 1.0, 0.0);
        near(upper_limit(Proportion { bad: 0, of: 0 }, 0.025), 1.0, 0.0);
    }

    #[track_caller]
    fn check_increase(canary: (u32, u32), baseline: (u32, u32), expected: bool) {
        let proportion = |(bad, of)| Proportion { bad, of };
        let found = increased(proportion(canary), proportion(baseline), TWO_PERCENT, sure());
        assert_eq!(found, expected, "{canary:?} against {baseline:?}");
    }

    #[test]
    fn a_few_failures_among_few_requests_prove_nothing() {
        check_increase((3, 50), (0, 950), false);
        check_increase((5, 50), (0, 950), false);
        check_increase((8, 50), (0, 950), true);
        check_increase((8, 50), (0, 50), false);
        check_increase((25, 50), (0, 50), true);
    }

    #[test]
    fn only_what_is_beyond_the_margin_counts() {
        check_increase((60, 1500), (285, 28_500), false);
        check_increase((90, 1500), (285, 28_500), true);
        check_increase((30_000, 1_000_000), (10_000, 1_000_000), false);
        check_increase((32_000, 1_000_000), (10_000, 1_000_000), true);
    }

    #[test]
    fn a_baseline_that_is_as_bad_or_silent_accuses_nobody() {
        check_increase((500, 1000), (500, 1000), false);
        check_increase((1000, 1000), (0, 0), false);
        check_increase((1000, 1000), (10, 10), false);
        check_increase((0, 1000), (0, 1000), false);
    }

    #[test]
    fn whole_confidence_is_never_reached() {
        let all = Proportion { bad: 1000, of: 1000 };
        assert!(!increased(all, Proportion { bad: 0, of: 1000 }, Share::NONE, Share::WHOLE));
    }

    fn latencies(slow: u32, of: u32) -> Latencies {
        let mut latencies = Latencies::NONE;
        for it in 0..of {
            latencies.add(Duration::from_millis(if it < slow { 100 } else { 10 }));
        }
        latencies
    }

    #[track_caller]
    fn check_slower(canary: &Latencies, baseline: &Latencies, expected: bool) {
        let (twice, p95) = (Factor::from_thousandths(2000), Share::from_percent(95));
        assert_eq!(slower(canary, baseline, twice, p95, sure()), expected);
    }

    #[test]
    fn a_canary_is_slower_when_too_many_take_longer_than_the_baselines_slowest() {
        check_slower(&latencies(50, 50), &latencies(0, 950), true);
        check_slower(&latencies(50, 50), &latencies(0, 50), true);
        check_slower(&latencies(3, 50), &latencies(0, 950), false);
        check_slower(&latencies(1000, 1000), &latencies(1000, 1000), false);
        check_slower(&latencies(1000, 1000), &latencies(0, 0), false);
        check_slower(&latencies(0, 0), &latencies(0, 1000), false);
    }

    #[test]
    fn the_chance_of_slow_ones_is_the_hypergeometric() {
        // 5 drawn of 4 marked and 6 others: all 4 with C(6,1) / C(10,5).
        near(hypergeometric_at_least(4, 6, 5, 4), 6.0 / 252.0, 1e-9);
        assert!(1.0 <= hypergeometric_at_least(4, 6, 5, 0));
    }
}
