//! What a split promises, for any targets and any weights.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "a test may stop where it stands"
)]

use std::time::Duration;

use predictgate::split::{Arm, Draw, KeyHash, Ramp, RampStep, Split, choose};
use predictgate::units::{Share, TargetId, WallTime};
use proptest::collection::vec;
use proptest::prelude::*;

fn key(salt: &str, user: usize) -> KeyHash {
    KeyHash::EMPTY.text(salt).text("resnet").bytes(&user.to_le_bytes())
}

fn split(weights: &[u32]) -> Split {
    let arms = (0..).zip(weights).map(|(target, weight)| Arm {
        target: TargetId(target),
        name: KeyHash::EMPTY.text(&format!("target-{target}")),
        weight: *weight,
    });
    Split { arms: arms.collect() }
}

fn target(split: &Split, draw: Draw) -> usize {
    let weights = split.weights(None, WallTime::default());
    choose(weights.iter(), || draw).unwrap().0.into()
}

fn targets(weights: &[u32], users: usize) -> Vec<usize> {
    let split = split(weights);
    (0..users).map(|user| target(&split, Draw::of(key("salt", user)))).collect()
}

/// Whether so many of `draws` are what chance `p` makes of them. Seven standard deviations are passed by chance
/// less than once in 10^11 draws; one more covers what the normal distribution gets wrong of a rare event.
fn is_share(count: usize, draws: usize, p: f64) -> bool {
    let expected = draws as f64 * p;
    (count as f64 - expected).abs() <= 7.0 * (expected * (1.0 - p)).sqrt() + 8.0
}

fn weights() -> impl Strategy<Value = Vec<u32>> {
    vec(prop_oneof![Just(0), 1..=20_u32, 1..=60_000_u32], 2..=16)
        .prop_filter("one target has a weight", |weights| weights.iter().any(|weight| 0 < *weight))
}

proptest! {
    #[test]
    fn each_target_gets_its_share(weights in weights()) {
        const USERS: usize = 5_000;
        let sum: u32 = weights.iter().sum();
        let chosen = targets(&weights, USERS);
        for (place, weight) in weights.iter().enumerate() {
            let count = chosen.iter().filter(|target| **target == place).count();
            prop_assert!(is_share(count, USERS, f64::from(*weight) / f64::from(sum)), "{count} of target {place}");
            prop_assert!(*weight > 0 || count == 0);
        }
    }

    #[test]
    fn a_user_moves_only_from_a_target_whose_weight_fell_relative_to_the_one_it_moves_to(
        (before, after) in (2..=12_usize).prop_flat_map(|count| {
            let side = || vec(0..=1_000_u32, count).prop_filter("a weight", |it| it.iter().any(|weight| 0 < *weight));
            (side(), side())
        })
    ) {
        for (from, to) in targets(&before, 1_000).into_iter().zip(targets(&after, 1_000)) {
            let fell = u64::from(after[from]) * u64::from(before[to]) < u64::from(after[to]) * u64::from(before[from]);
            prop_assert!(from == to || fell, "from {from} to {to}");
        }
    }

    #[test]
    fn the_order_of_the_targets_does_not_matter(weights in weights()) {
        let forth = split(&weights);
        let mut back = forth.clone();
        back.arms.reverse();
        for user in 0..200 {
            let draw = Draw::of(key("salt", user));
            prop_assert_eq!(target(&forth, draw), target(&back, draw));
        }
    }

    #[test]
    fn a_target_that_is_out_moves_its_own_users_only(weights in weights(), out in any::<prop::sample::Index>()) {
        let out = out.index(weights.len());
        let mut left = weights.clone();
        left[out] = 0;
        prop_assume!(left.iter().any(|weight| 0 < *weight));
        for (before, after) in targets(&weights, 500).into_iter().zip(targets(&left, 500)) {
            prop_assert!(before == after || before == out);
        }
    }
}

#[test]
fn raising_a_canary_moves_nobody_of_100_000_users_back() {
    const USERS: usize = 100_000;
    let steps = [[95, 5], [90, 10], [75, 25], [0, 100]].map(|weights| targets(&weights, USERS));
    for pair in steps.windows(2) {
        let back = pair[0].iter().zip(&pair[1]).filter(|(before, after)| **before == 1 && **after == 0);
        assert_eq!(back.count(), 0);
    }
    for (step, share) in steps.iter().zip([0.05, 0.10, 0.25, 1.0]) {
        let canary = step.iter().filter(|target| **target == 1).count();
        assert!(is_share(canary, USERS, share), "{canary} of {share}");
    }
}

#[test]
fn another_salt_deals_anew() {
    const USERS: usize = 100_000;
    let split = split(&[70, 30]);
    let with =
        |salt: &str| -> Vec<_> { (0..USERS).map(|user| target(&split, Draw::of(key(salt, user)))).collect() };
    let moved = with("2026-11").into_iter().zip(with("2026-12")).filter(|(one, other)| one != other).count();
    // Two draws that have nothing to do with each other differ so often.
    assert!(is_share(moved, USERS, 2.0 * 0.7 * 0.3), "{moved} moved");
}

#[test]
fn chance_without_a_key_keeps_the_shares_too() {
    const REQUESTS: usize = 100_000;
    let split = split(&[1, 2, 7]);
    let mut rng = predictgate::rng::Rng::seeded(4);
    let mut counts = [0; 3];
    for _ in 0..REQUESTS {
        counts[target(&split, Draw::at_random(rng.next_u64()))] += 1;
    }
    for (count, share) in counts.into_iter().zip([0.1, 0.2, 0.7]) {
        assert!(is_share(count, REQUESTS, share), "{counts:?}");
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn at(days: f64) -> WallTime {
    WallTime::from_nanos(DAY.mul_f64(20_000.0 + days).as_nanos().try_into().unwrap())
}

#[test]
fn users_rotate_over_the_whole_period_and_not_at_once() {
    const USERS: usize = 20_000;
    const STEPS: u32 = 50;
    let split = split(&[1, 1]);
    let at_step = |step: u32| -> Vec<_> {
        let now = at(f64::from(step) / f64::from(STEPS));
        (0..USERS).map(|user| target(&split, Draw::rotating(key("salt", user), DAY, now))).collect()
    };
    let mut before = at_step(0);
    let first = before.clone();
    for step in 1..=STEPS {
        let now = at_step(step);
        let moved = before.iter().zip(&now).filter(|(one, other)| one != other).count();
        // Each fiftieth of the users is dealt anew, of whom half move; 3 % would be a crowd.
        assert!(moved * 100 <= 3 * USERS, "{moved} moved in step {step}");
        assert!(is_share(moved, USERS, 0.5 / f64::from(STEPS)), "{moved} moved in step {step}");
        before = now;
    }
    let moved = first.iter().zip(&before).filter(|(one, other)| one != other).count();
    assert!(is_share(moved, USERS, 0.5), "{moved} moved in a whole period");
}

#[test]
fn a_user_is_bound_for_the_whole_period() {
    for user in 0..1_000 {
        let draws: Vec<_> = (0..=300)
            .map(|step| Draw::rotating(key("salt", user), DAY, at(f64::from(step) / 100.0)))
            .collect();
        let turns = draws.windows(2).filter(|pair| pair[0] != pair[1]).count();
        // Three periods have three turns.
        assert_eq!(turns, 3, "user {user}");
    }
}

fn ramp() -> Ramp {
    let step = |percent, minutes: Option<u64>| RampStep {
        share: Share::from_percent(percent),
        lasts: minutes.map(|minutes| Duration::from_secs(60 * minutes)),
    };
    let steps = vec![step(1, Some(10)), step(10, Some(30)), step(50, Some(60)), step(100, None)];
    Ramp { target: TargetId(1), start: at(0.0), steps }
}

fn minute(minute: f64) -> WallTime {
    at(minute / (24.0 * 60.0))
}

#[test]
fn a_ramp_is_its_steps_by_the_clock() {
    let ramp = ramp();
    for (time, percent) in [
        (-1.0, 0),
        (0.001, 1),
        (9.99, 1),
        (10.01, 10),
        (39.99, 10),
        (40.01, 50),
        (99.99, 50),
        (100.01, 100),
        (1_000_000.0, 100),
    ] {
        assert_eq!(ramp.share(minute(time)), Share::from_percent(percent), "minute {time}");
    }
    assert_eq!(ramp.share(WallTime::from_nanos(0)), Share::NONE);
    assert_eq!(ramp.share(WallTime::from_nanos(u64::MAX)), Share::WHOLE);
}

#[test]
fn a_ramp_takes_users_from_the_others_in_their_proportions_and_gives_none_back() {
    const USERS: usize = 50_000;
    let (split, ramp) = (split(&[60, 0, 20]), ramp());
    let at_minute = |time: f64| -> Vec<usize> {
        let weights = split.weights(Some(&ramp), minute(time));
        (0..USERS).map(|user| choose(weights.iter(), || Draw::of(key("s", user))).unwrap().0.into()).collect()
    };
    let mut before = at_minute(-1.0);
    for (time, share) in [(1.0, 0.01), (11.0, 0.1), (41.0, 0.5), (101.0, 1.0)] {
        let now = at_minute(time);
        for (one, other) in before.iter().zip(&now) {
            assert!(one == other || *other == 1, "moved from {one} to {other}");
        }
        let count = |target| now.iter().filter(|chosen| **chosen == target).count();
        assert!(is_share(count(1), USERS, share));
        assert!(is_share(count(0), USERS, 0.75 * (1.0 - share)));
        assert!(is_share(count(2), USERS, 0.25 * (1.0 - share)));
        before = now;
    }
}

#[test]
fn a_sample_is_a_share_of_every_targets_users() {
    const USERS: usize = 100_000;
    let split = split(&[50, 50]);
    let mut sampled = [0; 2];
    for user in 0..USERS {
        let draw = Draw::of(key("salt", user));
        sampled[target(&split, draw)] += usize::from(draw.is_sampled(Share::from_percent(10)));
    }
    for count in sampled {
        assert!(is_share(count, USERS / 2, 0.1), "{sampled:?}");
    }
    let draw = Draw::of(key("salt", 1));
    assert!(draw.is_sampled(Share::WHOLE) && !draw.is_sampled(Share::NONE));
}
