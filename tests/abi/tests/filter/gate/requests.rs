//! The requests that are measured, each a hundred times, a millisecond apart, with the configurations of the
//! benchmark.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use predictgate_abi::Worker;
use serde_json::{Value, json};

use crate::request::{Asked, Headers, PREDICT, framed, grpc, predict, rest, send};
use crate::setup::start;

pub const ROUNDS: usize = 100;

const IDENTITY: &str = include_str!("../../../../../benches/envoy/plugin/identity.json");
const SPLIT: &str = include_str!("../../../../../benches/envoy/plugin/split.json");
const LIMITS: &str = include_str!("../../../../../benches/envoy/plugin/limits.json");
const EVERYTHING: &str = include_str!("../../../../../benches/envoy/plugin/everything.json");

const KIB: usize = 1024;

/// What a request costs.
pub struct Measured {
    pub name: &'static str,
    pub calls: BTreeMap<String, u64>,
    pub fuel: u64,
}

impl Measured {
    pub fn all_calls(&self) -> u64 {
        self.calls.values().sum()
    }
}

/// Measures every fixed request, and the ticks of a worker that has nothing to do.
pub fn measure() -> Vec<Measured> {
    let plain = || configured(IDENTITY);
    let metadata = || {
        let mut configuration = plain();
        configuration["identity"] = json!({ "grpc": "metadata" });
        configuration
    };
    let small = message(KIB);
    let large = message(KIB * KIB);
    let zipped = gzip(&message(16 * KIB)[5..]);
    let call = grpc(PREDICT);
    let get = rest("GET", "/v1/models/resnet/metadata");
    let post = rest("POST", "/v1/models/resnet:predict");
    let with = |more: &[(&'static str, &'static str)]| [&*call, more].concat();
    let gzipped = with(&[("grpc-encoding", "gzip")]);
    let named = with(&[("x-model-name", "resnet")]);
    vec![
        requests("rest-get", &plain(), &get, &[], 0),
        requests("rest-predict", &plain(), &post, &small, KIB),
        requests("predict", &plain(), &call, &small, KIB * KIB),
        requests("predict-in-pieces", &plain(), &call, &small, 64),
        requests("predict-1-mib", &plain(), &call, &large, 16 * KIB),
        requests("predict-gzip", &plain(), &gzipped, &zipped, 16 * KIB),
        requests("predict-metadata", &metadata(), &named, &small, KIB * KIB),
        requests("predict-split", &configured(SPLIT), &call, &small, KIB * KIB),
        requests("predict-limits", &configured(LIMITS), &call, &small, KIB * KIB),
        requests("predict-everything", &configured(EVERYTHING), &call, &small, KIB * KIB),
        idle("idle-ticks", &configured(EVERYTHING)),
    ]
}

fn configured(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// A `Predict` of the model `resnet` with its frame, of so many bytes.
fn message(size: usize) -> Vec<u8> {
    let without = predict("resnet", Asked::Latest, size).len() - size;
    predict("resnet", Asked::Latest, size - without)
}

fn gzip(message: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(message).unwrap();
    let mut body = framed(&encoder.finish().unwrap());
    body[0] = 1;
    body
}

/// Metrics are defined and memory is taken by the first hundred, so the second is measured.
fn measured(name: &'static str, worker: &Worker, round: impl Fn(usize)) -> Measured {
    let hundred = || {
        for number in 0..ROUNDS {
            round(number);
            worker.process().advance(Duration::from_millis(1));
        }
        worker.tick();
    };
    hundred();
    let (calls, fuel) = (worker.process().all_calls(), worker.fuel());
    hundred();
    let before = |import: &str| calls.get(import).copied().unwrap_or(0);
    let calls = worker.process().all_calls().into_iter();
    let calls = calls.map(|(import, count)| (import.to_owned(), count - before(import)));
    Measured { name, calls: calls.filter(|(_, count)| 0 < *count).collect(), fuel: worker.fuel() - fuel }
}

fn requests(
    name: &'static str,
    configuration: &Value,
    headers: &Headers<'_>,
    body: &[u8],
    piece: usize,
) -> Measured {
    let worker = start(configuration);
    let pieces: Vec<_> = if body.is_empty() { Vec::new() } else { body.chunks(piece).collect() };
    let is_grpc = headers.contains(&("content-type", "application/grpc"));
    measured(name, &worker, |number| {
        // Ten callers take turns, as keys are what splits and limits work on.
        let user = format!("user-{}", number % 10);
        let mut headers = headers.clone();
        headers.extend([("x-user-id", &*user), ("x-tenant", &*user)]);
        let stream = send(&worker, &headers, &pieces);
        assert!(stream.state().complete, "{name}: {:?}", stream.state().reply);
        if is_grpc {
            stream.grpc_response(0);
        } else {
            stream.response_headers(&[(":status", "200")], false);
            stream.response_body(b"{}", true);
        }
        stream.log();
    })
}

/// A tick every 100 ms with no request between them.
fn idle(name: &'static str, configuration: &Value) -> Measured {
    let worker = start(configuration);
    measured(name, &worker, |_| {
        worker.process().advance(Duration::from_millis(99));
        worker.tick();
    })
}
