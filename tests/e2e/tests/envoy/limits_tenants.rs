//! Very many tenants, and a greedy one among them.

use std::env;
use std::ops::{Range, RangeInclusive};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use model_server::Rpc;
use model_server::client::{Asked, predict_request};
use predictgate_e2e::decisions;
use predictgate_e2e::load::{Connection, Request};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::{Envoy, Pools, tools};
use prost::Message as _;
use serde_json::{Value, json};

use super::limits::connect;

const WORKERS: u32 = 4;
const CONNECTIONS: usize = 8;
/// Calls of the greedy tenant that are under way at once on each.
const AT_ONCE: usize = 4;
const TENANT: &str = "x-tenant";

/// How many tenants call.
fn tenants() -> usize {
    env::var("PREDICTGATE_TENANTS").map_or(100_000, |it| it.parse().unwrap())
}

/// Tenants that call again and again, beside those that come once.
const KNOWN: usize = 1000;

/// What tcmalloc has handed out may grow by so much after the slots are made.
const MOST_BYTES: i64 = 2 << 20;

/// The shipped scenario with only this limit of each tenant: so many calls a second, and as many at once.
async fn start(rate: u32, change: impl FnOnce(&mut Value)) -> (Envoy, Pools) {
    let pools = Pools::start().await.unwrap();
    let scenario = pools.shipped("rate-limit").unwrap().concurrency(WORKERS);
    let mut scenario = scenario
        .connection_manager(|manager| {
            manager["access_log"] = json!([]);
            change(manager);
        })
        .reconfigured(|configuration| {
            let bucket = json!({ "max_tokens": rate, "tokens_per_fill": rate, "fill_interval": "1s" });
            configuration["models"][0]["rate_limits"] =
                json!([{ "name": "per-tenant", "by": [{ "header": TENANT }], "token_bucket": bucket }]);
            configuration["rate_limits"] = json!([]);
        })
        .unwrap();
    scenario.plugin.use_module(&tools::decision_log_wasm().unwrap());
    let envoy = scenario.start().await.unwrap();
    envoy.wait_until_healthy().await.unwrap();
    (envoy, pools)
}

/// An answer of Envoy's own, so that no server is measured.
fn answers_itself(manager: &mut Value) {
    manager["route_config"]["virtual_hosts"][0]["routes"] =
        json!([{ "match": { "prefix": "/" }, "direct_response": { "status": 200 } }]);
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

/// Standard deviations that the middle of a sample may be off: by chance, 7 of 1,000,000 are further off.
const DEVIATIONS: f64 = 4.5;

/// The median of calls in microseconds, and between which two it is when the sample is not taken for the whole.
///
/// Whether a call is below the true median is a fair coin, so the number of those below has a standard deviation of
/// sqrt(n) / 2, whatever the times are distributed like.
fn median(took: &[Took], window: &Range<usize>) -> (f64, RangeInclusive<f64>) {
    let within = took.iter().filter(|(place, _)| window.contains(place));
    let mut took: Vec<_> = within.map(|(_, took)| took.as_secs_f64() * 1e6).collect();
    took.sort_by(f64::total_cmp);
    let middle = took.len() / 2;
    let off = (DEVIATIONS * (took.len() as f64).sqrt() / 2.0).ceil() as usize;
    (took[middle], took[middle - off]..=took[middle + off])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_of_very_many_tenants_takes_no_more_memory_and_no_longer_than_the_first() {
    let tenants = tenants();
    let (envoy, _pools) = start(100, answers_itself).await;
    let mut connections = connect(&envoy, CONNECTIONS).await.unwrap();
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
        "{tenants} tenants: {} KiB more, {} conflicts in {} calls, {} shared slots",
        grown >> 10,
        decisions::conflicts(&envoy.log()),
        2 * tenants,
        sum("predictgate_limit_shared"),
    );
    let windows = 10;
    let window = (tenants - begin) / windows;
    // Who is new is compared with who calls at the same moment and was among the first, so that it does not matter
    // how busy the machine is.
    for place in 0..windows {
        let range = begin + place * window..begin + (place + 1) * window;
        let ((new, new_is), (known, known_is)) = (median(&pairs.new, &range), median(&pairs.known, &range));
        eprintln!("tenants {range:?}: {new:.1} us ({new_is:.1?}), the first {known:.1} us ({known_is:.1?})");
        assert!(new_is.start() <= known_is.end(), "tenants {range:?} are slower than the first");
    }
    assert!((sum("predictgate_rejected")).abs() < 0.5, "{samples:?}");
    assert!((sum("predictgate_limit_errors")).abs() < 0.5, "{samples:?}");
    assert!(grown < MOST_BYTES, "{grown} bytes");
}

/// Tokens a second of each tenant, who begins with as many.
const SHARE: u32 = 10;
/// How long a tenant is watched.
const WATCHED: Duration = Duration::from_secs(5);

/// What a tenant gets who always asks for more: the calls that pass, and in what time.
struct Got {
    passed: usize,
    time: Duration,
    /// The longest from the end of a call to that of the next, by which the time is uncertain at either end.
    longest: Duration,
}

/// Asks for twice the share. The burst is spent before it is watched.
fn ask_for_more(connection: &mut Connection, tenant: &str) -> Got {
    let request = request(tenant);
    let pause = Duration::from_secs(1) / (2 * SHARE);
    let mut ask = || {
        connection.call(&request);
        connection.wait().unwrap().iter().all(|answer| answer.has_message)
    };
    // It is watched from the call on that finds the burst spent.
    let begun = loop {
        let begun = Instant::now();
        if !ask() {
            break begun;
        }
    };
    let (mut ended, mut passed, mut longest) = (begun, 0, Duration::ZERO);
    for calls in 1.. {
        passed += usize::from(ask());
        let now = Instant::now();
        longest = longest.max(now - ended);
        ended = now;
        let time = ended - begun;
        if WATCHED < time {
            return Got { passed, time, longest };
        }
        std::thread::sleep((pause * calls).saturating_sub(time));
    }
    unreachable!("the time comes to an end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_asks_for_a_hundred_times_its_share_takes_nothing_from_another() {
    let (envoy, _pools) = start(SHARE, |_| ()).await;
    let addr = envoy.addr;
    let alone = tokio::task::block_in_place(|| ask_for_more(&mut Connection::open(addr).unwrap(), "modest"));
    let is_over = AtomicBool::new(false);
    let (beside, greedy) = tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let begun = Instant::now();
            let callers: Vec<_> = (0..CONNECTIONS)
                .map(|_| {
                    scope.spawn(|| {
                        let mut connection = Connection::open(addr).unwrap();
                        let (request, mut calls, mut open) = (request("greedy"), 0, 0);
                        while !is_over.load(Ordering::Relaxed) {
                            while open < AT_ONCE {
                                connection.call(&request);
                                open += 1;
                            }
                            let ended = connection.wait().unwrap().len();
                            open -= ended;
                            calls += ended;
                        }
                        calls
                    })
                })
                .collect();
            let beside = ask_for_more(&mut Connection::open(addr).unwrap(), "modest");
            is_over.store(true, Ordering::Relaxed);
            let calls: usize = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
            (beside, calls as f64 / begun.elapsed().as_secs_f64())
        })
    });
    eprintln!("greedy asked {greedy:.0} times a second, {:.0} times its share", greedy / f64::from(SHARE));
    assert!(100.0 * f64::from(SHARE) <= greedy, "this machine does not ask fast enough: {greedy} a second");
    for (what, got) in [("alone", alone), ("beside greedy", beside)] {
        let wanted = f64::from(SHARE) * got.time.as_secs_f64();
        eprintln!("modest {what}: {} of {wanted:.1} in {:?}", got.passed, got.time);
        // Calls come at moments: a token may be there before the next call asks, and half of the calls are in vain, so
        // nothing is lost but at both ends, by a call and by what comes until the next one.
        let off = 2.0 + 2.0 * f64::from(SHARE) * got.longest.as_secs_f64();
        assert!(
            (got.passed as f64 - wanted).abs() <= off,
            "modest {what}: {} of {wanted}, {off}",
            got.passed
        );
    }
}
