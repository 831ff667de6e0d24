//! What holding one request to its limits costs, without the host's own share.

use std::cell::Cell;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use predictgate::arena::{Arena, DRAIN, ENTRIES};
use predictgate::rate_limit::gcra::{Gcra, Tat};
use predictgate::rate_limit::{Cost, LimitId, Limiter, OnError, RateLimit, Spend, TokenBucket};
use predictgate::store::MemStore;
use predictgate::units::{Instant, Mode};

const SECOND: Duration = Duration::from_secs(1);

fn bucket(tokens: u32) -> TokenBucket {
    TokenBucket { max_tokens: tokens, tokens_per_fill: tokens, fill_interval: SECOND }
}

fn limiter(tokens: u32, is_keyed: bool) -> Limiter {
    let rate = RateLimit {
        name: "limit".into(),
        bucket: bucket(tokens),
        cost: Cost::Request,
        slots: 4096,
        on_error: OnError::Allow,
        mode: Mode::Enforce,
    };
    let mut limiter = Limiter::new(Arena::new("bench", ENTRIES, DRAIN), 7);
    limiter.add(None, &rate, is_keyed);
    limiter
}

/// A clock that goes on by so much at each reading.
struct Clock(Cell<Instant>, Duration);

impl Clock {
    fn every(step: Duration) -> Self {
        Self(Cell::new(Instant::from_nanos(1_000_000_000_000)), step)
    }

    fn read(&self) -> Instant {
        self.0.set(self.0.get().after(self.1));
        self.0.get()
    }
}

fn limits(criterion: &mut Criterion) {
    let gcra = Gcra::new(bucket(1000));
    let clock = Clock::every(Duration::from_micros(900));
    let mut tat = Tat::default();
    criterion.bench_function("a step", |bencher| {
        bencher.iter(|| {
            if let Ok(next) = gcra.step(tat, black_box(clock.read()), black_box(1)) {
                tat = next;
            }
            tat
        });
    });

    let tenant = |number: u64| (number % 1_000_000).to_le_bytes();
    for (name, tokens, is_keyed, step, tenants) in [
        ("admit by a debit", 100, false, Duration::from_millis(10), 1),
        ("admit by a debit on a key's slot", 100, true, Duration::from_millis(10), 1),
        ("admit by a lease", 10_000, false, Duration::from_micros(100), 1),
        ("admit by a lease of a key", 10_000, true, Duration::from_micros(100), 1),
        ("refuse what was just seen empty", 1, false, Duration::from_micros(1), 1),
        ("admit one of a million tenants", 100, true, Duration::from_millis(10), 1_000_000),
    ] {
        let (store, mut limiter, clock) =
            (MemStore::default(), limiter(tokens, is_keyed), Clock::every(step));
        let mut number = 0_u64;
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                number = (number + 1) % tenants;
                let key = tenant(number);
                let spend = Spend { limit: LimitId(0), key: &key, cost: 1 };
                limiter.admit(&store, black_box(clock.read()), &|| Instant::default(), black_box(&[spend]))
            });
        });
    }
}

criterion_group!(benches, limits);
criterion_main!(benches);
