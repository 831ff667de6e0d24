//! What one worker's limiter says, against buckets that are kept in the plainest way; and what it asks the host for.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a test may stop where it stands"
)]

use std::cell::Cell;
use std::collections::HashMap;
use std::time::Duration;

use predictgate::arena::{Arena, DRAIN};
use predictgate::rate_limit::{
    Admission, Cost, Counts, LimitId, Limiter, OnError, Quota, RateLimit, Refusal, Spend, TokenBucket, Why,
};
use predictgate::rng::Rng;
use predictgate::store::{Conflict, MemStore, SharedStore, Version};
use predictgate::units::{Instant, Mode};
use proptest::prelude::*;

const START: Instant = Instant::from_nanos(1_000_000_000_000);
const SECOND: Duration = Duration::from_secs(1);

fn rate(name: &str, max_tokens: u32, tokens_per_fill: u32, fill_interval: Duration) -> RateLimit {
    RateLimit {
        name: name.into(),
        bucket: TokenBucket { max_tokens, tokens_per_fill, fill_interval },
        cost: Cost::Request,
        slots: 4096,
        on_error: OnError::Deny,
        mode: Mode::Enforce,
    }
}

fn limiter(entries: u32) -> Limiter {
    Limiter::new(Arena::new("laws", entries, DRAIN), 7)
}

fn admit(limiter: &mut Limiter, store: &dyn SharedStore, now: Instant, spends: &[Spend<'_>]) -> Admission {
    limiter.admit(store, now, &|| now, spends)
}

fn spend(limit: LimitId, key: &[u8]) -> Spend<'_> {
    Spend { limit, key, cost: 1 }
}

/// How many of `asked` requests at `now` pass.
fn admitted(limiter: &mut Limiter, store: &dyn SharedStore, now: Instant, limit: LimitId, asked: u32) -> u32 {
    let passes = |_: &u32| admit(limiter, store, now, &[spend(limit, b"")]) == Admission::Admitted;
    u32::try_from((0..asked).filter(passes).count()).unwrap()
}

fn counts(limiter: &mut Limiter) -> HashMap<LimitId, Counts> {
    let mut all = HashMap::new();
    limiter.take_counts(|limit, counts| _ = all.insert(limit, counts));
    all
}

/// A bucket as a number of tokens, counted in parts of which `fill_interval` in nanoseconds make a token.
#[derive(Clone, Copy)]
struct Plain {
    bucket: TokenBucket,
    parts: u128,
    at: Instant,
}

impl Plain {
    fn gain(&mut self, now: Instant) {
        let gained = now.since(self.at).as_nanos() * u128::from(self.bucket.tokens_per_fill);
        let most = u128::from(self.bucket.max_tokens) * self.bucket.fill_interval.as_nanos();
        (self.parts, self.at) = ((self.parts + gained).min(most), now);
    }

    fn cost(&self, cost: u64) -> u128 {
        u128::from(cost) * self.bucket.fill_interval.as_nanos()
    }
}

#[derive(Clone, Debug)]
struct Step {
    after_micros: u64,
    spends: Vec<(u32, u8, u64)>,
}

fn step() -> impl Strategy<Value = Step> {
    let spend = (0..3_u32, 0..4_u8, 1..6_u64);
    let spends = prop::collection::vec(spend, 1..4).prop_map(|mut spends| {
        spends.sort_unstable();
        spends.dedup_by_key(|spend| spend.0);
        spends
    });
    (0..200_000_u64, spends).prop_map(|(after_micros, spends)| Step { after_micros, spends })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Two limits with one bucket and one with a bucket a key, none of which is leased. The time of a token is a whole
    /// number of nanoseconds, so that both count the same.
    #[test]
    fn one_worker_decides_as_plain_buckets_do(steps in prop::collection::vec(step(), 1..200)) {
        let store = MemStore::default();
        let mut limiter = limiter(8192);
        let buckets = [(5, 5), (4, 10), (3, 20)].map(|(max, tokens)| rate("", max, tokens, SECOND).bucket);
        let ids: Vec<_> = buckets
            .iter()
            .enumerate()
            .map(|(place, bucket)| {
                let rate = RateLimit { bucket: *bucket, ..rate(&place.to_string(), 1, 1, SECOND) };
                limiter.add(Some("model"), &rate, place == 1)
            })
            .collect();
        let mut plain: HashMap<(u32, u8), Plain> = HashMap::new();
        let mut now = START;
        for step in steps {
            now = now.after(Duration::from_micros(step.after_micros));
            let spends: Vec<_> = step
                .spends
                .iter()
                .map(|(limit, key, cost)| {
                    Spend { limit: ids[*limit as usize], key: std::slice::from_ref(key), cost: *cost }
                })
                .collect();
            let mut expected: Result<(), (u32, Option<Duration>)> = Ok(());
            let holder = |limit: u32, key: u8| (limit, if limit == 1 { key } else { 0 });
            // What can never pass is found before anything else is asked.
            for (limit, key, cost) in &step.spends {
                let bucket = buckets[*limit as usize];
                let full = u128::from(bucket.max_tokens) * bucket.fill_interval.as_nanos();
                let plain = plain
                    .entry(holder(*limit, *key))
                    .or_insert(Plain { bucket, parts: full, at: now });
                plain.gain(now);
                if full < plain.cost(*cost) {
                    expected = expected.and(Err((*limit, None)));
                } else if plain.parts < plain.cost(*cost) {
                    let missing = plain.cost(*cost) - plain.parts;
                    let wait = missing.div_ceil(u128::from(bucket.tokens_per_fill));
                    expected = expected.and(Err((*limit, Some(Duration::from_nanos(wait.try_into().unwrap())))));
                }
            }
            let found = match admit(&mut limiter, &store, now, &spends) {
                Admission::Admitted => Ok(()),
                Admission::Refused(Refusal { limit, why, .. }) => Err((limit.0, match why {
                    Why::Exhausted { retry_after } => Some(retry_after),
                    Why::NeverSatisfiable | Why::Unavailable => None,
                })),
            };
            // Which of several limits refuses depends on what this worker knew before; whether one does, does not.
            prop_assert_eq!(found.is_ok(), expected.is_ok());
            if let Err((limit, retry_after)) = found {
                let at = step.spends.iter().find(|spend| spend.0 == limit).unwrap();
                let plain = plain[&holder(limit, at.1)];
                let missing = plain.cost(at.2).saturating_sub(plain.parts);
                let wait = missing.div_ceil(u128::from(plain.bucket.tokens_per_fill));
                prop_assert!(missing > 0);
                if let Some(retry_after) = retry_after {
                    prop_assert_eq!(retry_after.as_nanos(), wait);
                } else {
                    prop_assert!(u64::from(plain.bucket.max_tokens) < at.2);
                }
            } else {
                for (limit, key, cost) in &step.spends {
                    let plain = plain.get_mut(&holder(*limit, *key)).unwrap();
                    plain.parts -= plain.cost(*cost);
                }
            }
        }
    }
}

#[test]
fn a_limit_in_shadow_mode_only_counts() {
    let (store, mut limiter) = (MemStore::default(), limiter(64));
    let shadow = limiter.add(None, &RateLimit { mode: Mode::Shadow, ..rate("shadow", 2, 1, SECOND) }, false);
    let enforced = limiter.add(None, &rate("enforced", 5, 1, SECOND), false);
    let spends = [spend(shadow, b""), spend(enforced, b"")];
    let passed =
        (0..9).filter(|_| admit(&mut limiter, &store, START, &spends) == Admission::Admitted).count();
    assert_eq!(passed, 5);
    // Only what would have been forwarded is held against it.
    assert_eq!(counts(&mut limiter)[&shadow].shadow_refused, 3);
    assert_eq!(counts(&mut limiter), HashMap::new());
}

#[test]
fn a_changed_limit_acts_at_once_and_an_unchanged_one_goes_on() {
    let store = MemStore::default();
    let start = |burst, tokens| {
        let mut limiter = limiter(64);
        let changed = limiter.add(Some("model"), &rate("changed", burst, tokens, SECOND), false);
        let same = limiter.add(Some("model"), &rate("same", 10, 10, SECOND), false);
        (limiter, changed, same)
    };
    let (mut old, changed, same) = start(100, 1);
    assert_eq!(admitted(&mut old, &store, START, changed, 200), 100);
    assert_eq!(admitted(&mut old, &store, START, same, 4), 4);
    let (mut new, changed, same) = start(5, 10);
    assert_eq!(admitted(&mut new, &store, START, changed, 200), 0, "an empty bucket stays empty");
    let later = START.after(Duration::from_millis(200));
    assert_eq!(admitted(&mut new, &store, later, changed, 200), 2, "and fills at the new rate");
    assert_eq!(admitted(&mut new, &store, START, same, 20), 6);
}

#[test]
fn an_old_root_that_drains_does_not_take_turns_with_a_new_one() {
    let store = MemStore::default();
    let add = |burst| {
        let mut limiter = limiter(64);
        let limit = limiter.add(None, &rate("limit", burst, 1, SECOND), false);
        (limiter, limit)
    };
    let ((mut old, limit), (mut new, _)) = (add(100), add(5));
    assert_eq!(admitted(&mut old, &store, START, limit, 200), 100);
    let mut total = 0;
    for second in 0..60 {
        let now = START.after(Duration::from_secs(second));
        total += admitted(&mut new, &store, now, limit, 10);
        total += admitted(&mut old, &store, now, limit, 200);
    }
    // 95 tokens were forgiven once, when the new numbers came, and 59 came since.
    assert!(total <= 95 + 59, "{total}");
}

#[test]
fn limits_of_the_same_name_in_other_scopes_are_others() {
    let (store, mut limiter) = (MemStore::default(), limiter(64));
    for scope in [None, Some(""), Some("a"), Some("b")] {
        let limit = limiter.add(scope, &rate("limit", 3, 1, SECOND), false);
        assert_eq!(admitted(&mut limiter, &store, START, limit, 9), 3, "{scope:?}");
    }
}

#[test]
fn a_cost_above_the_burst_is_refused_as_such_and_spends_nothing() {
    let (store, mut limiter) = (MemStore::default(), limiter(64));
    let limit = limiter.add(None, &rate("limit", 5, 1, SECOND), false);
    let refused = admit(&mut limiter, &store, START, &[Spend { limit, key: b"", cost: 6 }]);
    let Admission::Refused(refusal) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.why, Why::NeverSatisfiable);
    assert_eq!(
        admit(&mut limiter, &store, START, &[Spend { limit, key: b"", cost: 5 }]),
        Admission::Admitted
    );
    assert_eq!(limiter.quota(limit), Some(Quota { tokens: 5, window: Duration::from_secs(5) }));
}

#[test]
fn a_refusal_tells_what_is_left_and_when_there_is_more() {
    let (store, mut limiter) = (MemStore::default(), limiter(64));
    let limit = limiter.add(None, &rate("limit", 5, 1, SECOND), false);
    assert_eq!(admitted(&mut limiter, &store, START, limit, 3), 3);
    let refused = admit(&mut limiter, &store, START, &[Spend { limit, key: b"", cost: 4 }]);
    let expected = Refusal {
        limit,
        why: Why::Exhausted { retry_after: Duration::from_secs(2) },
        remaining: 2,
        full_in: Duration::from_secs(3),
    };
    assert_eq!(refused, Admission::Refused(expected));
}

#[test]
fn a_full_arena_is_counted_and_leaves_a_worker_its_own_buckets() {
    let (store, mut limiter) = (MemStore::default(), limiter(1));
    let first = limiter.add(None, &rate("first", 3, 1, SECOND), false);
    let second = limiter.add(None, &rate("second", 3, 1, SECOND), false);
    let keyed = limiter.add(None, &rate("keyed", 3, 1, SECOND), true);
    for limit in [first, second, keyed] {
        assert_eq!(admitted(&mut limiter, &store, START, limit, 9), 3);
    }
    let counts = counts(&mut limiter);
    assert!(!counts.contains_key(&first));
    assert!(0 < counts[&second].alone && 0 < counts[&keyed].alone, "{counts:?}");
    assert_eq!(store.len(), 1);
}

/// A store that refuses every write from some time on, and counts what is asked of it.
#[derive(Default)]
struct Watched {
    store: MemStore,
    refuses: Cell<bool>,
    calls: Cell<u64>,
}

impl SharedStore for Watched {
    fn load(&self, key: &str) -> (Option<Vec<u8>>, Version) {
        self.calls.set(self.calls.get() + 1);
        self.store.load(key)
    }

    fn store(&self, key: &str, value: &[u8], version: Version) -> Result<(), Conflict> {
        self.calls.set(self.calls.get() + 1);
        if self.refuses.get() { Err(Conflict) } else { self.store.store(key, value, version) }
    }
}

#[test]
fn what_cannot_be_written_is_counted_and_on_error_decides() {
    for (on_error, expected) in [(OnError::Allow, 9), (OnError::Deny, 0)] {
        let (store, mut limiter) = (Watched::default(), limiter(64));
        let limit = limiter.add(None, &RateLimit { on_error, ..rate("limit", 5, 1, SECOND) }, false);
        assert_eq!(admitted(&mut limiter, &store, START, limit, 1), 1);
        store.refuses.set(true);
        assert_eq!(admitted(&mut limiter, &store, START, limit, 9), expected);
        assert_eq!(counts(&mut limiter)[&limit].failed, 9);
        assert_eq!(limiter.conflicts(), 9 * 6);
    }
}

/// The host's calls for each request when workers in turn ask for so many in a second, each at its own random moments.
fn calls_per_request(bucket: (u32, u32), workers: u64, per_second: u64, keyed: bool) -> (f64, f64) {
    let store = Watched::default();
    let mut limiters: Vec<_> = (0..workers)
        .map(|_| {
            let mut limiter = limiter(8192);
            limiter.add(None, &rate("limit", bucket.0, bucket.1, SECOND), keyed);
            limiter
        })
        .collect();
    let mut rng = Rng::seeded(1);
    let (mut now, mut asked, mut passed, mut warm) = (START, 0_u64, 0_u64, 0);
    while now < START.after(Duration::from_secs(3)) {
        let gap = 2_000_000_000 / per_second;
        now = now.after(Duration::from_nanos(rng.below(gap.try_into().unwrap())));
        // Claims and the first burst are over.
        if now.since(START) < SECOND {
            warm = store.calls.get();
        } else {
            asked += 1;
        }
        let worker = rng.below(workers.try_into().unwrap());
        let admission = admit(&mut limiters[worker as usize], &store, now, &[spend(LimitId(0), b"tenant")]);
        passed += u64::from(SECOND <= now.since(START) && admission == Admission::Admitted);
    }
    ((store.calls.get() - warm) as f64 / asked as f64, passed as f64 / asked as f64)
}

#[test]
fn a_leased_limit_costs_less_than_a_fifth_of_a_call_of_the_host_for_a_request() {
    for workers in [1, 2, 4] {
        for keyed in [false, true] {
            for bucket in [(20_000, 20_000), (10_000, 10_000), (2000, 2000)] {
                let (calls, passed) = calls_per_request(bucket, workers, 10_000, keyed);
                println!(
                    "{bucket:?} over {workers} workers, keyed {keyed}: {calls:.3} calls, {passed:.3} pass"
                );
                assert!(calls < 0.2, "{calls} calls at {bucket:?} over {workers} workers");
            }
        }
    }
}

#[test]
fn a_saturated_limit_that_is_not_leased_is_refused_without_the_host() {
    let (calls, passed) = calls_per_request((100, 100), 4, 10_000, false);
    println!("{calls:.3} calls, {passed:.3} pass");
    assert!(calls < 0.2, "{calls}");
}

#[test]
fn the_millionth_tenant_takes_no_more_room_than_the_first() {
    let (store, mut limiter) = (MemStore::default(), limiter(8192));
    let limit = limiter.add(None, &rate("tenants", 20, 10, SECOND), true);
    let mut keys = 0;
    for tenant in 0..100_000_u64 {
        let now = START.after(Duration::from_millis(tenant));
        assert_eq!(
            admit(&mut limiter, &store, now, &[spend(limit, &tenant.to_le_bytes())]),
            Admission::Admitted
        );
        if tenant == 10_000 {
            keys = store.len();
        }
    }
    // 4,096 slots are 64 entries, and the secret is one.
    assert_eq!((keys, store.len()), (65, 65));
    assert_eq!(counts(&mut limiter), HashMap::new(), "a new tenant found its set full");
}

#[test]
fn a_greedy_tenant_takes_nothing_from_a_modest_one() {
    let (store, mut limiter) = (MemStore::default(), limiter(8192));
    let limit = limiter.add(None, &rate("tenants", 20, 10, SECOND), true);
    for step in 0..10_000_u64 {
        let now = START.after(Duration::from_millis(step));
        _ = admit(&mut limiter, &store, now, &[spend(limit, b"greedy")]);
        if step % 100 == 0 {
            assert_eq!(admit(&mut limiter, &store, now, &[spend(limit, b"modest")]), Admission::Admitted);
        }
    }
}

#[test]
fn ticking_keeps_state_that_is_not_asked_for_and_lets_go_of_what_no_generation_has() {
    let arena = || Arena::new("small", 2, Duration::from_secs(1));
    let store = MemStore::default();
    let add = |name: &str| {
        let mut limiter = Limiter::new(arena(), 7);
        limiter.add(None, &rate(name, 1, 1, Duration::from_secs(3600)), false);
        limiter
    };
    let (mut kept, mut dropped) = (add("kept"), add("dropped"));
    for limiter in [&mut kept, &mut dropped] {
        assert_eq!(admitted(limiter, &store, START, LimitId(0), 2), 1);
    }
    for tick in 0..100 {
        kept.tick(&store, START.after(Duration::from_millis(100 * tick)));
    }
    let later = START.after(Duration::from_secs(10));
    let mut new = add("new");
    assert_eq!(admitted(&mut new, &store, later, LimitId(0), 2), 1);
    assert_eq!(counts(&mut new), HashMap::new(), "the entry that nobody has was not free");
    assert_eq!(admitted(&mut add("kept"), &store, later, LimitId(0), 1), 0);
}

/// A store that returns whatever chance wants, and takes every other write.
struct Garbled {
    store: MemStore,
    rng: std::cell::RefCell<Rng>,
}

impl SharedStore for Garbled {
    fn load(&self, key: &str) -> (Option<Vec<u8>>, Version) {
        let (value, version) = self.store.load(key);
        let mut rng = self.rng.borrow_mut();
        let mut draw = |below: u64| usize::try_from(rng.below(below.try_into().unwrap())).unwrap();
        let Some(mut value) = value else { return (None, version) };
        match draw(4) {
            0 => {
                for _ in 0..draw(20) {
                    let at = draw(value.len().max(1) as u64);
                    if let Some(byte) = value.get_mut(at) {
                        *byte = u8::try_from(draw(256)).unwrap();
                    }
                }
            }
            1 => value.truncate(draw(value.len() as u64 + 1)),
            2 => {
                // Other bytes before a trailer that is as it was.
                let trailer = value.split_off(value.len().saturating_sub(17));
                value.resize(draw(2000), u8::try_from(draw(256)).unwrap());
                value.extend(trailer);
            }
            _ => (),
        }
        (Some(value), version)
    }

    fn store(&self, key: &str, value: &[u8], version: Version) -> Result<(), Conflict> {
        let fails = self.rng.borrow_mut().below(2.try_into().unwrap()) == 0;
        if fails { Err(Conflict) } else { self.store.store(key, value, version) }
    }
}

#[test]
fn whatever_stands_in_shared_data_a_decision_is_made() {
    for seed in 0..200 {
        let store = Garbled { store: MemStore::default(), rng: Rng::seeded(seed).into() };
        let mut limiter = limiter(16);
        let one = limiter.add(None, &rate("one", 5, 100, SECOND), false);
        let keyed = limiter.add(None, &RateLimit { slots: 64, ..rate("keyed", 5, 2000, SECOND) }, true);
        for step in 0..200_u64 {
            let now = START.after(Duration::from_millis(step));
            _ = admit(
                &mut limiter,
                &store,
                now,
                &[spend(one, b""), spend(keyed, &[u8::try_from(step % 7).unwrap()])],
            );
            limiter.tick(&store, now);
        }
    }
}
