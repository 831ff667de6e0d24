//! What limits ask of shared data, what they do when it fails, and how much room they take there.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::Duration;

use predictgate::arena::Arena;
use predictgate::rate_limit::{Admission, LimitId, Limiter, OnError, RateLimit};
use predictgate::rng::Rng;
use predictgate::store::{Conflict, MemStore, SharedStore, Version};

use super::{SECOND, START, admit, admitted, counts, limiter, rate, spend};

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

/// The host's calls for each request when workers in turn ask for so many in a second, each at its own random
/// moments.
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
    rng: RefCell<Rng>,
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

#[test]
fn a_lease_is_used_for_twenty_milliseconds_and_not_a_nanosecond_longer() {
    let start = || {
        let (store, mut limiter) = (Watched::default(), limiter(64));
        let limit = limiter.add(None, &rate("limit", 10_000, 10_000, SECOND), false);
        let mut last = START;
        for step in 0..1000 {
            let now = START.after(Duration::from_micros(20 * step));
            let before = store.calls.get();
            assert_eq!(admitted(&mut limiter, &store, now, limit, 1), 1);
            if before < store.calls.get() {
                last = now;
            }
        }
        (store, limiter, limit, last)
    };
    for (after, asks) in [(Duration::from_millis(20), false), (Duration::from_nanos(20_000_001), true)] {
        let (store, mut limiter, limit, debited_at) = start();
        let before = store.calls.get();
        assert_eq!(admitted(&mut limiter, &store, debited_at.after(after), limit, 1), 1);
        assert_eq!(before < store.calls.get(), asks, "after {after:?}");
    }
}

#[test]
fn what_leases_lose_of_a_nearly_full_bucket_leaves_a_burst_to_who_kept_below_the_rate() {
    const BURST: u32 = 1000;
    // Nobody takes without thrift below fifteen sixteenths of what debits may use, the burst but for 20 ms of the rate.
    const LEFT: u32 = (BURST - 20) * 15 / 16;
    // What comes in 10 ms.
    const LARGEST_LEASE: u32 = 10;
    for (workers, bunch, every) in [(1, 40, 45), (4, 9, 10), (8, 9, 10)] {
        let store = MemStore::default();
        let mut limiters: Vec<_> = (0..workers)
            .map(|_| {
                let mut limiter = limiter(64);
                limiter.add(None, &rate("limit", 1000, 1000, SECOND), false);
                limiter
            })
            .collect();
        let mut now = START;
        let mut asked = 0;
        while now < START.after(20 * SECOND) {
            for _ in 0..bunch {
                asked += 1;
                let limiter = &mut limiters[asked % workers];
                assert_eq!(admitted(limiter, &store, now, LimitId(0), 1), 1, "below the rate");
            }
            now = now.after(Duration::from_millis(every));
        }
        let passed: u32 =
            (0..900).map(|n| admitted(&mut limiters[n % workers], &store, now, LimitId(0), 1)).sum();
        let least = (LEFT - LARGEST_LEASE * u32::try_from(workers).unwrap()).min(900);
        assert!(least <= passed, "{workers} workers: {passed} of 900, expected {least}");
    }
}
