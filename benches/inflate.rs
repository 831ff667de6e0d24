//! What reading a gzip message to its end costs by the bytes that come out of it.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use flate2::write::GzEncoder;
use predictgate::identity::{Compression, Encoding, Layout, Rpc, Scanner, Until};
use predictgate_benches::predict;
use std::hint::black_box;
use std::io::Write as _;

const TENSOR: usize = 4 << 20;

/// A gzip message around a tensor of 4 MiB, in its gRPC frame.
fn gzip(content: impl Fn(u32) -> f32) -> Vec<u8> {
    let frame = predict("resnet", TENSOR);
    let (head, _) = frame.split_at(frame.len() - TENSOR);
    let numbers = 0..u32::try_from(TENSOR / 4).unwrap_or_default();
    let tensor: Vec<u8> = numbers.flat_map(|number| content(number).to_le_bytes()).collect();
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    // Writing to a vector does not fail.
    _ = encoder.write_all(head.get(5..).unwrap_or_default());
    _ = encoder.write_all(&tensor);
    let message = encoder.finish().unwrap_or_default();
    let length = u32::try_from(message.len()).unwrap_or_default();
    [&[1][..], &length.to_be_bytes(), &message].concat()
}

/// A number that shows no pattern.
fn mixed(number: u32) -> u32 {
    let half = (number ^ number >> 16).wrapping_mul(0x7feb_352d);
    let whole = (half ^ half >> 15).wrapping_mul(0x846c_a68b);
    whole ^ whole >> 16
}

fn inflate(criterion: &mut Criterion) {
    let noise = |number: u32| (mixed(number) >> 8) as f32;
    // An image of eight bits a channel, scaled to 0 to 1.
    let image = |number: u32| (mixed(number) % 256) as f32 / 255.0;
    let mut group = criterion.benchmark_group("a gzip message of 4 MiB");
    group.throughput(Throughput::Bytes(TENSOR as u64)).sample_size(20);
    for (name, body) in [("noise", gzip(noise)), ("image", gzip(image)), ("zeros", gzip(|_| 0.0))] {
        let scanner =
            Scanner::new(Layout::ModelSpec, Rpc::Unary, 65_536).with_compression(Compression::Inflated {
                encoding: Encoding::Gzip,
                most: 16 << 20,
                until: Until::End,
            });
        group.bench_function(format!("{name}, {} KiB on the wire", body.len() >> 10), |bencher| {
            bencher.iter_batched_ref(
                || scanner.clone(),
                |scanner| {
                    // As Envoy hands it over: a DATA frame at a time.
                    let whole = body.chunks(16_384).all(|piece| {
                        scanner
                            .follow(piece.len(), |at, most| piece.get(at..piece.len().min(at + most)))
                            .is_ok()
                    });
                    assert!(black_box(whole) && scanner.spec().name == "resnet" && scanner.end().is_ok());
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, inflate);
criterion_main!(benches);
