//! Very many tenants, and a greedy one among them.

use std::env;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use model_server::Rpc;
use model_server::client::{Asked, predict_request};
use predictgate_e2e::decisions;
use predictgate_e2e::load::{Connection, Request};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::{Envoy, Pools, tools};
use prost::Message as _;
use serde_json::json;

const WORKERS: u32 = 4;
const CONNECTIONS: usize = 8;
const TENANT: &str = "x-tenant";

/// How many tenants call.
fn tenants() -> usize {
    env::var("PREDICTGATE_TENANTS").map_or(100_000, |it| it.parse().unwrap())
}

/// Tenants that call again and again, beside those that come once.
const KNOWN: usize = 1000;

/// What tcmalloc has handed out may grow by so much after the slots are made.
const MOST_BYTES: i64 = 2 << 20;

/// The filter before an answer of Envoy's own, so that no server is measured. `rate` is each tenant's.
async fn start(rate: u32) -> Envoy {
    let pools = Pools::start().await.unwrap();
    let mut scenario = pools
        .shipped("rate-limit")
        .unwrap()
        .concurrency(WORKERS)
        .connection_manager(|manager| {
            manager["access_log"] = json!([]);
            manager["route_config"]["virtual_hosts"][0]["routes"] =
                json!([{ "match": { "prefix": "/" }, "direct_response": { "status": 200 } }]);
        })
        .reconfigured(|configuration| {
            let bucket = json!({ "max_tokens": rate, "tokens_per_fill": rate, "fill_interval": "1s" });
            configuration["models"][0]["rate_limits"] =
                json!([{ "name": "per-tenant", "by": [{ "header": TENANT }], "token_bucket": bucket }]);
            configuration["rate_limits"] = json!([]);
        })
        .unwrap();
    scenario.plugin.use_module(&tools::decision_log_wasm().unwrap());
    scenario.start().await.unwrap()
}

fn request(tenant: &str) -> Request {
    let message = predict_request(MODEL, Asked::Latest, &[1.0]).encode_to_vec();
    Request::new(Rpc::Predict.path(), &[(TENANT, tenant)], &message)
}

async fn allocated(envoy: &Envoy) -> i64 {
    let memory = envoy.admin.json("/memory").await.unwrap();
    memory["allocated"].as_str().unwrap().parse().unwrap()
}

/// What one call took, with its place among the calls of new tenants.
type Took = (usize, Duration);

/// Pairs of calls, one of a tenant that is new and one of a known one.
#[derive(Default)]
struct Pairs {
    new: Vec<Took>,
    known: Vec<Took>,
}

fn call(connection: &mut Connection, tenant: &str) -> Duration {
    let request = request(tenant);
    let begun = Instant::now();
    connection.call(&request);
    assert_eq!(connection.wait().unwrap().len(), 1);
    begun.elapsed()
}

/// Lets the tenants up to `last` call, each once, and a known one before each.
fn call_all(connections: &mut [Connection], next: &AtomicUsize, last: usize) -> Pairs {
    let mut all = Pairs::default();
    std::thread::scope(|scope| {
        let callers: Vec<_> = connections
            .iter_mut()
            .map(|connection| {
                scope.spawn(move || {
                    let mut pairs = Pairs::default();
                    loop {
                        let tenant = next.fetch_add(1, Ordering::Relaxed);
                        if last <= tenant {
                            return pairs;
                        }
                        let known = call(connection, &format!("known-{:07}", tenant % KNOWN));
                        pairs.known.push((tenant, known));
                        pairs.new.push((tenant, call(connection, &format!("new---{tenant:07}"))));
                    }
                })
            })
            .collect();
        for caller in callers {
            let pairs = caller.join().unwrap();
            all.new.extend(pairs.new);
            all.known.extend(pairs.known);
        }
    });
    all
}

/// The median of the calls with places in `window`, in microseconds.
fn median(took: &[Took], window: std::ops::Range<usize>) -> f64 {
    let within = took.iter().filter(|(place, _)| window.contains(place));
    let mut took: Vec<_> = within.map(|(_, took)| took.as_secs_f64() * 1e6).collect();
    took.sort_by(f64::total_cmp);
    took[took.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_of_very_many_tenants_takes_no_more_memory_and_no_longer_than_the_first() {
    let tenants = tenants();
    let envoy = start(100).await;
    let mut connections: Vec<_> = (0..CONNECTIONS).map(|_| Connection::open(envoy.addr).unwrap()).collect();
    // A tenth of the tenants makes all slots, and whatever else is made once.
    let begin = tenants / 10;
    let next = AtomicUsize::new(0);
    tokio::task::block_in_place(|| call_all(&mut connections, &next, begin));
    next.store(begin, Ordering::Relaxed);
    let before = allocated(&envoy).await;
    let pairs = tokio::task::block_in_place(|| call_all(&mut connections, &next, tenants));
    let grown = allocated(&envoy).await - before;
    let samples = envoy.admin.prometheus().await.unwrap();
    let sum = |name: &str| samples.iter().filter(|it| it.name == name).map(|it| it.value).sum::<f64>();
    eprintln!(
        "{tenants} tenants: {} KiB more, {} conflicts in {} calls, {} shared slots; workers {:?}",
        grown >> 10,
        decisions::conflicts(&envoy.log()),
        2 * tenants,
        sum("predictgate_limit_shared"),
        envoy.connections_by_worker().await.unwrap(),
    );
    let window = (tenants - begin) / 10;
    let mut ratios = Vec::new();
    for place in 0..10 {
        let range = begin + place * window..begin + (place + 1) * window;
        let (new, known) = (median(&pairs.new, range.clone()), median(&pairs.known, range.clone()));
        eprintln!("tenants {range:?}: {new:.1} us, known ones {known:.1} us");
        ratios.push(new / known);
    }
    assert!((sum("predictgate_rejected")).abs() < 0.5, "{samples:?}");
    assert!((sum("predictgate_limit_errors")).abs() < 0.5, "{samples:?}");
    assert!(grown < MOST_BYTES, "{grown} bytes");
    eprintln!("{ratios:?}");
}
