//! What deciding one request costs, from its headers to its end, with few models and with many.

use criterion::{Criterion, criterion_group, criterion_main};
use predictgate::exchange::{Body, Exchange, Local, World, sanitise};
use predictgate::host::Silent;
use predictgate::units::Instant;
use predictgate_benches::{policy, predict, request_headers};
use std::hint::black_box;

fn exchange(criterion: &mut Criterion) {
    for models in [10, 10_000] {
        let policy = policy(models);
        let headers = request_headers();
        let mut local = Local::seeded(1);
        let bodies: Vec<_> =
            (0..64).map(|place| predict(&format!("model-{}", place * models / 64), 1000)).collect();
        let mut place = 0;
        criterion.bench_function(&format!("a 1 KB Predict among {models} models"), |bencher| {
            bencher.iter(|| {
                place = (place + 1) % bodies.len();
                let message = &bodies[place];
                let (headers, _) = sanitise(&policy, headers.clone());
                let mut world = World {
                    policy: &policy,
                    local: &mut local,
                    now: Instant::default(),
                    host: &Silent,
                    explains: false,
                };
                let mut exchange = Exchange::new(1);
                black_box(exchange.request_headers(&mut world, headers, false));
                let mut read =
                    |at: usize, most: usize| Some(message.get(at..message.len().min(at + most))?.to_vec());
                let mut body = Body { length: message.len(), read: &mut read };
                black_box(exchange.request_body(&mut world, &mut body, true));
                exchange.end(&mut local.holds);
                black_box(exchange.decision())
            });
        });
    }
}

criterion_group!(benches, exchange);
criterion_main!(benches);
