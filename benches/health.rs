//! What recording an outcome costs, and a tick.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use predictgate::arena::DRAIN;
use predictgate::config;
use predictgate::health::{Health, Observation, Origin};
use predictgate::outcome::Outcome;
use predictgate::policy::Policy;
use predictgate::store::MemStore;
use predictgate::units::{Instant, ModelId, RouteId, TargetId, WallTime};

fn policy(models: usize) -> Policy {
    let model = |place: usize| {
        format!(
            r#"{{ "name": "model-{place}",
                 "targets": {{ "canary": {{ "cluster": "v2" }}, "stable": {{ "cluster": "v1" }} }},
                 "routes": [ {{ "split": [ {{ "target": "stable", "weight": 95 }}, {{ "target": "canary", "weight": 5 }} ],
                               "guard": {{ "target": "canary", "baseline": "stable" }} }} ],
                 "outlier_detection": {{ "latency_ratio": 3 }} }}"#
        )
    };
    let models: Vec<_> = (0..models).map(model).collect();
    config::parse_all(&format!(r#"{{ "models": [{}] }}"#, models.join(",")))
        .unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn started(policy: &Policy) -> Health {
    let origin = Origin {
        instance: b"predictgate",
        seed: 1,
        created: Instant::from_nanos(1_000_000_000),
        drain: DRAIN,
    };
    Health::new(policy, origin)
}

/// The `number`th of requests that come at a thousand a second.
fn seen(number: u64, models: u64) -> Observation {
    let now = Instant::from_nanos(2_000_000_000 + number * 1_000_000);
    Observation {
        model: ModelId(u32::try_from(number * 7 % models).unwrap_or(0)),
        route: RouteId(0),
        target: TargetId(u16::from(!number.is_multiple_of(20))),
        outcome: if number % 100 == 50 { Outcome::Failure } else { Outcome::Success },
        latency: Some(Duration::from_micros(3000 + number % 1000 * 10)),
        caller: None,
        started: now,
        probe: None,
        now,
    }
}

fn recording(criterion: &mut Criterion) {
    for models in [1, 10_000] {
        let (policy, store) = (policy(models), MemStore::default());
        let mut health = started(&policy);
        let mut number = 0;
        criterion.bench_function(&format!("record an outcome of {models} models"), |bencher| {
            bencher.iter(|| {
                number += 1;
                let seen = seen(number, models as u64);
                black_box(health.record(&store, &policy, &seen))
            });
        });
    }
}

fn ticking(criterion: &mut Criterion) {
    for models in [10, 10_000] {
        let (policy, store) = (policy(models), MemStore::default());
        let mut health = started(&policy);
        let mut number = 0;
        let tick = |health: &mut Health, number: u64| {
            let now = seen(number, 1).now;
            black_box(health.tick(&store, &policy, now, WallTime::default(), true))
        };
        criterion.bench_function(&format!("an idle tick of {models} models"), |bencher| {
            bencher.iter(|| {
                number += 100;
                tick(&mut health, number)
            });
        });
        criterion.bench_function(&format!("a tick that merges one of {models} models"), |bencher| {
            bencher.iter(|| {
                number += 100;
                _ = health.record(&store, &policy, &Observation { model: ModelId(0), ..seen(number, 1) });
                tick(&mut health, number)
            });
        });
    }
}

criterion_group!(benches, recording, ticking);
criterion_main!(benches);
