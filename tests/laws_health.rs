//! Laws of health: what is in force always leaves somebody who answers, and how likely a healthy canary is rolled back.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "a test may stop where it stands"
)]

use std::time::Duration;

use predictgate::guard::{Cause, Guard, OnEjection};
use predictgate::health::Standing;
use predictgate::policy::Policy;
use predictgate::rng::Rng;
use predictgate::tally::{BUCKETS, Counts, Proportion, increased};
use predictgate::units::{Factor, Mode, RouteId, Share, TargetId, WallTime};
use proptest::collection::vec;
use proptest::prelude::*;

/// A model of four targets with one guarded and perhaps ramped route.
fn policy(weights: &[u32], ramp: Option<(usize, u8)>, guard: (usize, usize)) -> Policy {
    let arms: Vec<_> =
        (0..4).map(|it| format!(r#"{{ "target": "t{it}", "weight": {} }}"#, weights[it])).collect();
    let ramp = ramp.map_or(String::new(), |(target, percent)| {
        format!(
            r#", "ramp": {{ "target": "t{target}", "start": "1970-01-01T00:00:00Z", "steps": [ {{ "percent": {percent} }} ] }}"#
        )
    });
    let targets: Vec<_> = (0..4).map(|it| format!(r#""t{it}": {{ "cluster": "c{it}" }}"#)).collect();
    let text = format!(
        r#"{{ "models": [ {{ "name": "m", "targets": {{ {} }}, "routes": [ {{ "split": [ {} ]{ramp},
            "guard": {{ "target": "t{}", "baseline": "t{}" }} }} ] }} ] }}"#,
        targets.join(","),
        arms.join(","),
        guard.0,
        guard.1
    );
    predictgate::config::parse_all(&text).unwrap_or_else(|errors| panic!("{errors:?} in {text}"))
}

proptest! {
    /// Whatever is out, tripped and ramped: somebody has a weight; nobody who is out has one while another of the
    /// split answers; and a guarded target has none once its guard has tripped.
    #[test]
    fn somebody_answers_and_nobody_who_is_out(
        weights in vec(0_u32..4, 4),
        shares in vec(prop_oneof![Just(0_u8), Just(10), Just(100)], 4),
        ramp in prop::option::of((0_usize..4, 0_u8..=100)),
        (canary, baseline) in (0_usize..4, 1_usize..4).prop_map(|(a, b)| (a, (a + b) % 4)),
        tripped: bool,
    ) {
        prop_assume!(weights.iter().any(|it| *it > 0));
        if let Some((target, _)) = ramp {
            prop_assume!((0..4).any(|it| it != target && weights[it] > 0));
        }
        let policy = policy(&weights, ramp, (canary, baseline));
        let route = &policy.models[0].routes[0];
        let below_whole = |(at, percent): (usize, &u8)| {
            (*percent < 100).then(|| (TargetId(at.try_into().unwrap()), Share::from_percent(*percent)))
        };
        let standing = Standing {
            shares: shares.iter().enumerate().filter_map(below_whole).collect(),
            tripped: if tripped { vec![RouteId(0)] } else { vec![] },
        };
        let in_force = standing.in_force(RouteId(0), route, WallTime::default());
        let weights: Vec<_> = in_force.iter().map(|(arm, weight)| (arm.target, weight)).collect();
        prop_assert!(weights.iter().any(|(_, weight)| *weight > 0));
        prop_assert!(weights.iter().all(|(_, weight)| *weight < 1 << 62));
        for (target, weight) in &weights {
            if tripped && usize::from(target.0) == canary {
                prop_assert_eq!(*weight, 0);
            }
        }
        let answers = |target: TargetId| standing.share_of(target) > Share::NONE;
        let mut usable = in_force.without_ejections().filter(|(_, weight)| *weight > 0);
        prop_assert_eq!(in_force.diverts(), !usable.clone().any(|(arm, _)| answers(arm.target)));
        if !in_force.diverts() && usable.nth(1).is_some() {
            for (target, weight) in weights {
                prop_assert!(weight == 0 || answers(target), "{:?} is out", target);
            }
        }
    }
}

fn guard() -> Guard {
    Guard {
        target: TargetId(0),
        baseline: TargetId(1),
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

/// The chances of 0 to `of` bad ones, each the one before times a ratio, from the likeliest on: no logarithm, so that
/// nothing is shared with what is tested.
fn binomial(of: u32, p: f64) -> Vec<f64> {
    let count = of as usize + 1;
    let ratio = |bad: usize| (f64::from(of) - bad as f64) / (bad as f64 + 1.0) * p / (1.0 - p);
    let peak = (0..count - 1).find(|bad| ratio(*bad) < 1.0).unwrap_or(count - 1);
    let mut chances = vec![0.0; count];
    chances[peak] = 1.0;
    for bad in peak..count - 1 {
        chances[bad + 1] = chances[bad] * ratio(bad);
    }
    for bad in (0..peak).rev() {
        chances[bad] = chances[bad + 1] / ratio(bad);
    }
    let sum: f64 = chances.iter().sum();
    chances.iter().map(|chance| chance / sum).collect()
}

/// The chance that one judgement trips, when canary and baseline fail with these chances.
fn trips(canary: (u32, f64), baseline: (u32, f64)) -> f64 {
    let guard = guard();
    let canary_chances = binomial(canary.0, canary.1);
    let mut trips_from = 0;
    let mut sum = 0.0;
    for (bad, chance) in (0..).zip(binomial(baseline.0, baseline.1)) {
        let baseline = Proportion { bad, of: baseline.0 };
        let increased = |bad| {
            let canary = Proportion { bad, of: canary.0 };
            increased(canary, baseline, guard.max_failure_increase, guard.confidence)
        };
        // More bad ones of the baseline need more of the canary.
        while trips_from <= canary.0 && !increased(trips_from) {
            trips_from += 1;
        }
        let tail = canary_chances.get(trips_from as usize..).unwrap_or_default();
        sum += chance * tail.iter().sum::<f64>();
    }
    sum
}

const SIZES: [(u32, u32); 8] =
    [(50, 50), (50, 950), (50, 20_000), (100, 900), (100, 100), (200, 1800), (1500, 1500), (1500, 8500)];

#[test]
fn a_canary_as_bad_as_is_tolerated_trips_with_at_most_the_allowed_chance() {
    for (canary, baseline) in SIZES {
        for p in [0.0001, 0.001, 0.01, 0.05, 0.2, 0.5, 0.9] {
            let chance = trips((canary, p + 0.02), (baseline, p));
            assert!(chance <= 0.001, "{canary} and {baseline} at {p}: {chance}");
        }
    }
}

/// The judgements of a day each trip with their chance, so on average no more than their sum do.
#[test]
fn a_canary_as_good_as_its_baseline_is_hardly_ever_rolled_back() {
    let a_day = 86_400.0 / (guard().window.as_secs_f64() / BUCKETS as f64);
    for (p, most_a_day) in [(0.001, 1e-6), (0.01, 1e-3), (0.05, 5e-2)] {
        for (canary, baseline) in SIZES {
            let chance = trips((canary, p), (baseline, p)) * a_day;
            println!("{canary} against {baseline} requests a window at {p}: {chance:.1e} a day");
            assert!(chance <= most_a_day, "{canary} and {baseline} at {p}: {chance} a day");
        }
    }
}

#[test]
fn a_canary_that_fails_clearly_more_is_found_in_one_window() {
    for (canary, baseline, p) in [(50, 950, 0.3), (200, 1800, 0.15), (1500, 8500, 0.06)] {
        let power = trips((canary, p), (baseline, 0.01));
        assert!(power > 0.9, "{canary} and {baseline} at {p}: {power}");
    }
}

/// Latencies spread as those of servers do: a quarter each around 5, 10, 20 and 40 ms, with a tail.
fn latency(rng: &mut Rng, scale: f64) -> Duration {
    let uniform = (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    Duration::from_secs_f64(0.005 * scale / (1.0 - uniform).powf(0.7))
}

fn counts(rng: &mut Rng, requests: u32, scale: f64) -> Counts {
    let mut counts = Counts { requests, ..Counts::NONE };
    for _ in 0..requests {
        counts.latencies.add(latency(rng, scale));
    }
    counts
}

/// Of 4,000 judgements 4 may be wrong on average at the limit, and 14 are hardly ever: the chance of more is below
/// 1e-4 (Poisson).
#[test]
fn a_canary_as_slow_as_is_tolerated_trips_with_at_most_the_allowed_chance() {
    for (canary, baseline) in [(50, 50), (50, 500), (300, 300)] {
        let mut rng = Rng::seeded(u64::from(canary + baseline));
        let wrong = (0..4000).filter(|_| {
            let [canary, baseline] =
                [(canary, 2.0), (baseline, 1.0)].map(|(it, scale)| counts(&mut rng, it, scale));
            guard().judge(&canary, &baseline, 1) == Some(Cause::Latency)
        });
        assert!(wrong.count() <= 14, "{canary} and {baseline}");
    }
}

#[test]
fn a_canary_that_is_clearly_slower_is_found_in_one_window() {
    let mut rng = Rng::seeded(5);
    let found = (0..100).filter(|_| {
        let [canary, baseline] = [(200, 10.0), (1800, 1.0)].map(|(it, scale)| counts(&mut rng, it, scale));
        guard().judge(&canary, &baseline, 1) == Some(Cause::Latency)
    });
    assert!(found.count() > 90);
}
