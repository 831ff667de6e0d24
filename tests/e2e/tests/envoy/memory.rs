//! What many large requests at once cost Envoy in memory, with the filter and without it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use model_server::client::raw::Raw;
use model_server::client::{Asked, predict_request};
use model_server::framing::frame;
use model_server::{Rpc, ServerConfig};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::wait::until;
use predictgate_e2e::{Envoy, Pools, Scenario};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::stage::{BY_V1, X};
use super::wire::{GRPC, MIB, field, input, spec};

const REQUESTS: usize = 32;
const WINDOW: usize = 65_535;
const BUFFER: usize = 32 * 1024;
const ROUNDS: usize = 3;
/// How much more Envoy may take with the filter, in KiB.
const MOST: i64 = 3 << 10;

/// Stands before a server and can be shut, so that everything that Envoy may keep of a request stays with Envoy.
struct Dam {
    addr: SocketAddr,
    open: watch::Sender<bool>,
}

impl Dam {
    async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (open, opened) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                let Ok(to) = TcpStream::connect(server).await else { return };
                let ((up, down), (back, on)) = (from.into_split(), to.into_split());
                tokio::spawn(relay(up, on, opened.clone()));
                tokio::spawn(relay(back, down, watch::channel(true).1));
            }
        });
        Self { addr, open }
    }
}

async fn relay(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut open: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        // A dam that is gone holds nothing back.
        _ = open.wait_for(|open| *open).await;
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

/// Windows and buffers of a size that shows what else is kept.
fn small(bootstrap: &mut Value) {
    let windows = json!({ "initial_stream_window_size": WINDOW, "initial_connection_window_size": WINDOW });
    let listener = &mut bootstrap["static_resources"]["listeners"][0];
    listener["per_connection_buffer_limit_bytes"] = json!(BUFFER);
    listener["filter_chains"][0]["filters"][0]["typed_config"]["http2_protocol_options"] = windows.clone();
    for cluster in bootstrap["static_resources"]["clusters"].as_array_mut().unwrap() {
        cluster["per_connection_buffer_limit_bytes"] = json!(BUFFER);
        let options = "/typed_extension_protocol_options\
            /envoy.extensions.upstreams.http.v3.HttpProtocolOptions\
            /explicit_http_config/http2_protocol_options";
        if let Some(protocol) = cluster.pointer_mut(options) {
            *protocol = windows.clone();
        }
    }
}

fn without_the_filter(scenario: Scenario) -> Scenario {
    scenario.connection_manager(|manager| {
        let filters = manager["http_filters"].as_array_mut().unwrap();
        filters.retain(|filter| filter["name"] != "predictgate");
        assert_eq!(filters.len(), 1, "the router is what is left");
    })
}

/// A Predict of 4 MiB. Most of it is of a field that the server does not know: what is measured is Envoy, so the
/// server need not compute, nor answer as much.
fn large() -> Bytes {
    frame(&[spec(MODEL, Some(1)), input(&X), field(15, &vec![7; 4 * MIB])].concat())
}

/// By how much the memory of a new Envoy rises, from rest to its peak, while all requests are in flight at once.
async fn rise(change: impl FnOnce(Scenario) -> Scenario) -> Memory {
    // Servers that remember nothing need not hash.
    let server = |version| {
        let config = ServerConfig::half_plus(&[(MODEL, &[version], &[])]).remembered(0);
        model_server::start(config)
    };
    let pools = Pools { v1: server(1).await.unwrap(), v2: server(2).await.unwrap() };
    let dam = Dam::before(pools.v1.grpc_addr()).await;
    let scenario = pools.quickstart().unwrap().host("tfs-v1", dam.addr, pools.v1.rest_addr());
    let envoy = Arc::new(change(scenario.bootstrap(small)).start().await.unwrap());
    envoy.wait_until_healthy().await.unwrap();
    // One request makes what is made once.
    let client = model_server::client::Client::connect(envoy.addr).await.unwrap();
    let reply = client.predict(&predict_request(MODEL, Asked::Version(1), &X)).await.unwrap();
    assert_eq!(reply.ok().unwrap().values(), BY_V1);

    let received = stat(&envoy, "http.models.downstream_cx_rx_bytes_total").await;
    let rest = Memory::of(&envoy).await;
    let watch = Watch::begin(Arc::clone(&envoy), rest);
    dam.open.send_replace(false);
    let body = large();
    let mut callers = JoinSet::new();
    for _ in 0..REQUESTS {
        let (addr, body) = (envoy.addr, body.clone());
        callers.spawn(async move {
            // A connection each, since a connection has a window, too.
            let raw = Raw::connect(addr).await.unwrap();
            let post = raw.post(Rpc::Predict.path(), &GRPC).unwrap();
            let mut stream = raw.open(post, false).await.unwrap();
            stream.send_last(body).unwrap();
            stream.answer().await
        });
    }
    // All are with the router, and each has filled the first window at least.
    until("all requests to be in flight", || async {
        let active = stat(&envoy, "cluster.tfs-v1.upstream_rq_active").await;
        let sent = stat(&envoy, "http.models.downstream_cx_rx_bytes_total").await - received;
        Ok((active == REQUESTS as u64 && (REQUESTS * WINDOW) as u64 <= sent).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(pools.v1.counts().executed(MODEL, 1), 1);
    // The watch may have been kept from looking.
    let full = Memory::of(&envoy).await;
    dam.open.send_replace(true);
    while let Some(answer) = callers.join_next().await {
        let answer = answer.unwrap();
        assert_eq!(answer.header("grpc-status"), Some("0"), "{answer:?}");
    }
    assert_eq!(pools.v1.counts().executed(MODEL, 1), 1 + REQUESTS as u64);
    let peak = watch.end().await.or(full);
    Memory { resident: peak.resident - rest.resident, used: peak.used - rest.used }
}

async fn stat(envoy: &Envoy, name: &str) -> u64 {
    envoy.admin.stat(name).await.unwrap()
}

/// Bytes of an Envoy.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// In RAM.
    pub resident: i64,
    /// In RAM, without what the allocator has free there. Compiling the filter leaves megabytes free, which would
    /// hide as much of what requests take.
    pub used: i64,
}

impl Memory {
    pub async fn of(envoy: &Envoy) -> Self {
        let allocator = envoy.admin.json("/memory").await.unwrap();
        let number = |name: &str| allocator[name].as_str().unwrap().parse::<i64>().unwrap();
        let resident = envoy.resident().unwrap().now.cast_signed();
        Self { resident, used: resident - number("total_physical_bytes") + number("allocated") }
    }

    /// The more of each.
    fn or(self, other: Self) -> Self {
        Self { resident: self.resident.max(other.resident), used: self.used.max(other.used) }
    }
}

/// Looks at the memory of an Envoy all the time.
struct Watch {
    ends: Arc<AtomicBool>,
    watching: JoinHandle<Memory>,
}

impl Watch {
    fn begin(envoy: Arc<Envoy>, rest: Memory) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ends);
        let watching = tokio::spawn(async move {
            let mut peak = rest;
            while !told.load(Ordering::Relaxed) {
                peak = peak.or(Memory::of(&envoy).await);
            }
            peak
        });
        Self { ends, watching }
    }

    /// The most of everything that was seen.
    async fn end(self) -> Memory {
        self.ends.store(true, Ordering::Relaxed);
        self.watching.await.unwrap()
    }
}

/// The median of what rounds have measured, in KiB, and all of it to look at.
fn median(what: &str, rounds: &[Memory], number: impl Fn(&Memory) -> i64) -> i64 {
    let mut numbers: Vec<_> = rounds.iter().map(|round| number(round) >> 10).collect();
    numbers.sort_unstable();
    eprintln!("rise {what}: {numbers:?} KiB");
    numbers[numbers.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_requests_at_once_cost_hardly_more_memory_with_the_filter() {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(rise(without_the_filter).await);
        with.push(rise(|scenario| scenario).await);
    }
    let check = |what: &str, number: fn(&Memory) -> i64| {
        let with = median(&format!("{what} with the filter"), &with, number);
        let without = median(&format!("{what} without it"), &without, number);
        assert!(with - without <= MOST, "{} KiB more {what} with the filter", with - without);
        with.min(without)
    };
    check("in RAM", |it| it.resident);
    // What fills the windows shows that what is in use was seen.
    let windows = i64::try_from(REQUESTS * WINDOW).unwrap() >> 10;
    assert!(windows <= check("in use", |it| it.used), "the windows of {REQUESTS} requests are {windows} KiB");
}
