//! What reading an identity costs: a whole small request, and each further piece of a large one.

use criterion::{Criterion, criterion_group, criterion_main};
use predictgate::identity::{Layout, Rpc, Scanner};
use predictgate_benches::predict;
use std::hint::black_box;

fn identity(criterion: &mut Criterion) {
    let small = predict("resnet", 1000);
    criterion.bench_function("identity of a 1 KB Predict", |bencher| {
        bencher.iter(|| {
            let mut scanner = Scanner::new(Layout::ModelSpec, Rpc::Unary, 65_536);
            let window = |at: usize, most: usize| small.get(at..small.len().min(at + most));
            black_box(scanner.follow(small.len(), window).is_ok());
            black_box(scanner.spec().name.len())
        });
    });

    let mut inside = Scanner::new(Layout::ModelSpec, Rpc::Unary, 65_536);
    let large = predict("resnet", 1 << 30);
    black_box(inside.feed(large.get(..64).unwrap_or_default()).is_ok());
    drop(large);
    criterion.bench_function("1,000 pieces of 16 KiB inside a tensor", |bencher| {
        bencher.iter_batched_ref(
            || inside.clone(),
            |scanner| (0..1000).all(|_| scanner.follow(black_box(16_384), |_, _| None::<Vec<u8>>).is_ok()),
            criterion::BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, identity);
criterion_main!(benches);
