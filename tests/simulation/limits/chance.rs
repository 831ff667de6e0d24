//! How likely a key finds no slot of its own.

use std::cell::Cell;
use std::time::Duration;

use predictgate::arena::{Arena, DRAIN};
use predictgate::rate_limit::{Admission, Cost, LimitId, Limiter, OnError, RateLimit, Spend, TokenBucket};
use predictgate::store::MemStore;
use predictgate::units::{Instant, Mode};

const SLOTS: u32 = 4096;
const SETS: u32 = SLOTS / 4;
const OTHERS: u32 = 1000;

const NOW: Instant = Instant::from_nanos(1_000_000_000_000);

/// The chance that four or more of `others` are in the set of a newcomer, which then shares: each is in it with
/// chance 1 / `sets`, so their number is binomially distributed.
fn chance_of_sharing(others: u32, sets: u32) -> f64 {
    let (p, n) = (1.0 / f64::from(sets), f64::from(others));
    // Of none, then each from the one before.
    let mut exactly = (1.0 - p).powf(n);
    let mut fewer_than_four = 0.0;
    for k in 0..4 {
        fewer_than_four += exactly;
        exactly *= (n - f64::from(k)) / f64::from(k + 1) * p / (1.0 - p);
    }
    1.0 - fewer_than_four
}

fn limiter(random: u128) -> Limiter {
    let mut limiter = Limiter::new(Arena::new("chance", 8192, DRAIN), random);
    for (name, is_keyed) in [("tenants", true), ("empty", false)] {
        let bucket = TokenBucket { max_tokens: 1, tokens_per_fill: 1, fill_interval: Duration::from_secs(1) };
        let rate = RateLimit {
            name: name.into(),
            bucket,
            cost: Cost::Request,
            slots: SLOTS,
            on_error: OnError::Deny,
            mode: Mode::Enforce,
        };
        limiter.add(None, &rate, is_keyed);
    }
    limiter
}

fn shared(limiter: &mut Limiter) -> u64 {
    let shared = Cell::new(0);
    limiter.take_counts(|_, counts| shared.set(shared.get() + counts.shared));
    shared.get()
}

/// How many of `newcomers` share when `OTHERS` are active; each comes alone.
fn measured(run: u64, newcomers: u32) -> u64 {
    let store = MemStore::default();
    let mut active = limiter(run.into());
    let tenants = LimitId(0);
    for other in 0..OTHERS {
        let key = [&b"other"[..], &other.to_le_bytes()].concat();
        // One that finds only a used bucket is refused and stays active all the same.
        _ = active.admit(&store, NOW, &|| NOW, &[Spend { limit: tenants, key: &key, cost: 1 }]);
    }
    let fresh = active.clone();
    let last = Spend { limit: LimitId(1), key: &[], cost: 1 };
    assert_eq!(active.admit(&store, NOW, &|| NOW, &[last]), Admission::Admitted);
    let came = |newcomer: u32| {
        // It is refused by the second limit, of which this limiter knows nothing yet, so it leaves no trace
        // in the first.
        let mut limiter = fresh.clone();
        shared(&mut limiter);
        let key = [&b"new"[..], &newcomer.to_le_bytes()].concat();
        let first = Spend { limit: tenants, key: &key, cost: 1 };
        _ = limiter.admit(&store, NOW, &|| NOW, &[first, last]);
        shared(&mut limiter)
    };
    (0..newcomers).map(came).sum()
}

#[test]
fn a_tenant_shares_with_a_thousand_others_in_one_case_of_fifty_seven() {
    const RUNS: u32 = 40;
    const NEWCOMERS: u32 = 250;
    let chance = chance_of_sharing(OTHERS, SETS);
    assert_eq!(format!("{chance:.5}"), "0.01753");
    let measured: u64 = (0..RUNS).map(|run| measured(run.into(), NEWCOMERS)).sum();
    let total = f64::from(RUNS * NEWCOMERS);
    // Newcomers of a run meet the same full sets. Both the number of these and of the newcomers that hit one
    // vary; four standard deviations of both together are missed once in 16,000 changes of the hash.
    let sets = f64::from(RUNS * SETS);
    let deviation = chance * (1.0 / (sets * chance) + 1.0 / (total * chance)).sqrt();
    let share = measured as f64 / total;
    assert!((share - chance).abs() < 4.0 * deviation, "{share} is far from {chance}");
}
