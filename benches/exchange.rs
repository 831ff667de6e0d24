//! What deciding one request costs, from its headers to its end, with few models and with many.

use std::hint::black_box;
use std::num::NonZeroU64;

use criterion::{Criterion, criterion_group, criterion_main};
use predictgate::exchange::{Body, Exchange, Local, Origin, World, sanitise};
use predictgate::host::Silent;
use predictgate::rng::Rng;
use predictgate::units::Instant;
use predictgate_benches::{policy, predict, request_headers};

/// Each request names a model drawn at random, so that the look-up finds nothing in the processor's caches that the
/// request before it brought there.
fn exchange(criterion: &mut Criterion) {
    for models in [10, 10_000] {
        let policy = policy(models);
        let headers = request_headers();
        let host = Silent::default();
        let mut local = Local::new(&policy, Origin::default());
        let mut message = predict("model-00000", 1000);
        let name_at = message.windows(11).position(|bytes| bytes == b"model-00000").unwrap_or_default();
        let mut rng = Rng::seeded(2);
        let count = NonZeroU64::new(models as u64).unwrap_or(NonZeroU64::MIN);
        criterion.bench_function(&format!("a 1 KB Predict among {models} models"), |bencher| {
            bencher.iter(|| {
                let mut place = rng.below(count);
                for digit in message[name_at + 6..name_at + 11].iter_mut().rev() {
                    *digit = b'0' + u8::try_from(place % 10).unwrap_or_default();
                    place /= 10;
                }
                let (headers, _) = sanitise(&policy, headers.clone());
                let mut world = World {
                    policy: &policy,
                    local: &mut local,
                    now: Instant::default(),
                    host: &host,
                    explains: false,
                };
                let mut exchange = Exchange::new(1);
                black_box(exchange.request_headers(&mut world, headers, false));
                let mut read =
                    |at: usize, most: usize| Some(message.get(at..message.len().min(at + most))?.to_vec());
                let mut body = Body { length: message.len(), read: &mut read };
                black_box(exchange.request_body(&mut world, &mut body, true));
                exchange.end(&mut local.holds);
                assert!(exchange.decision().is_some_and(|decision| decision.target.is_some()));
            });
        });
    }
}

criterion_group!(benches, exchange);
criterion_main!(benches);
