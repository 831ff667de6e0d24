//! What the server saw and did: counts of requests begun, arrived and executed, and the last of them whole.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::watch;

use crate::rpc::{Protocol, Rpc};

/// Numbers of one kind, by protocol and method.
#[derive(Debug, Default)]
struct Table([[AtomicU64; Rpc::ALL.len()]; Protocol::ALL.len()]);

impl Table {
    fn add(&self, protocol: Protocol, rpc: Rpc) {
        self.0[protocol as usize][rpc as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn numbers(&self) -> ByRpc {
        let cells = Protocol::ALL.into_iter().flat_map(|protocol| Rpc::ALL.map(|rpc| (protocol, rpc)));
        let number = |(protocol, rpc)| self.0[protocol as usize][rpc as usize].load(Ordering::Relaxed);
        ByRpc(cells.map(|cell| (cell, number(cell))).filter(|&(_, number)| 0 < number).collect())
    }

    fn clear(&self) {
        self.0.iter().flatten().for_each(|number| number.store(0, Ordering::Relaxed));
    }
}

/// What one version did.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    executed: Table,
    faults: AtomicU64,
}

impl Tally {
    pub(crate) fn add_fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }
}

/// How many requests there were, by protocol and method; what never happened is not listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByRpc(pub BTreeMap<(Protocol, Rpc), u64>);

impl ByRpc {
    pub fn of(&self, rpc: Rpc) -> u64 {
        Protocol::ALL.into_iter().map(|protocol| self.by(protocol, rpc)).sum()
    }

    pub fn by(&self, protocol: Protocol, rpc: Rpc) -> u64 {
        self.0.get(&(protocol, rpc)).copied().unwrap_or(0)
    }

    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// What ran a model; a health check by GetModelStatus does not.
    pub fn inference(&self) -> u64 {
        self.0.iter().filter(|((_, rpc), _)| rpc.is_inference()).map(|(_, number)| number).sum()
    }
}

impl Serialize for ByRpc {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = |&(protocol, rpc): &(Protocol, Rpc)| match protocol {
            Protocol::Grpc => format!("{rpc:?}"),
            Protocol::Rest => format!("REST {rpc:?}"),
        };
        serializer.collect_map(self.0.iter().map(|(cell, number)| (name(cell), number)))
    }
}

/// What one version executed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Executed {
    /// Requests that arrived whole, were valid and ran.
    pub by_rpc: ByRpc,
    /// Requests that a fault of this version answered, cut off or swallowed.
    pub faults: u64,
}

/// Everything that is counted, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By (model, version), loaded or not.
    pub versions: BTreeMap<(String, i64), Executed>,
    /// Streams and HTTP requests of known methods whose headers came.
    pub begun: ByRpc,
    /// Those whose message came whole and was decoded, whatever the answer was.
    pub arrived: ByRpc,
    /// Requests to paths that are no method of this server.
    pub unknown: u64,
}

impl Counts {
    /// Inferences that a version ran.
    pub fn executed(&self, model: &str, version: i64) -> u64 {
        self.of(model, version).by_rpc.inference()
    }

    /// Inferences that a version ran for one method, by both protocols.
    pub fn executed_by(&self, model: &str, version: i64, rpc: Rpc) -> u64 {
        self.of(model, version).by_rpc.of(rpc)
    }

    /// Requests that a version's fault answered, cut off or swallowed.
    pub fn faults(&self, model: &str, version: i64) -> u64 {
        self.of(model, version).faults
    }

    /// Inferences that all versions ran.
    pub fn total(&self) -> u64 {
        self.versions.values().map(|executed| executed.by_rpc.inference()).sum()
    }

    fn of(&self, model: &str, version: i64) -> Executed {
        self.versions.get(&(model.to_owned(), version)).cloned().unwrap_or_default()
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Outcome {
    /// It has not ended yet.
    Open,
    /// The answer was handed over: with this gRPC code, or for REST this HTTP status.
    Completed(u16),
    /// The server reset the stream or cut the connection, as a fault told it to.
    Reset,
    /// The client, or a proxy in between, went away first.
    Cancelled,
}

/// One request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub protocol: Protocol,
    pub http_method: String,
    /// As it came, with the query.
    pub path: String,
    /// In the order of the connection's header table; a name may come more than once.
    pub headers: Vec<(String, Vec<u8>)>,
    pub rpc: Option<Rpc>,
    /// Bytes of the body that came: for gRPC with the prefix of the message.
    pub body_bytes: u64,
    /// Bytes of the gRPC message without its prefix, or of the REST body.
    pub message_bytes: u64,
    /// SHA-256 of these, once they have come whole; of a compressed message as it was on the wire.
    pub sha256: Option<[u8; 32]>,
    /// The model that was asked for.
    pub model: Option<String>,
    /// The version that the request resolved to.
    pub version: Option<i64>,
    pub executed: bool,
    pub outcome: Outcome,
}

impl Received {
    /// The first value of a header, whose name is in lower case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_slice())
    }

    /// The hash in hexadecimal, or nothing.
    pub fn sha256_hex(&self) -> Option<String> {
        self.sha256.map(|hash| hex(&hash))
    }
}

/// Bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Counts and remembers for one server.
#[derive(Debug)]
pub(crate) struct Recorder {
    begun: Table,
    arrived: Table,
    unknown: AtomicU64,
    remembered: usize,
    received: Mutex<VecDeque<Arc<Mutex<Received>>>>,
    /// Rises with every change, so that a test can wait for one.
    changes: watch::Sender<u64>,
}

impl Recorder {
    pub(crate) fn new(remembered: usize) -> Self {
        Self {
            begun: Table::default(),
            arrived: Table::default(),
            unknown: AtomicU64::default(),
            remembered,
            received: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }

    /// Counts a request whose headers came, and remembers it if that is wanted.
    pub(crate) fn begin(
        self: &Arc<Self>,
        protocol: Protocol,
        rpc: Option<Rpc>,
        parts: &http::request::Parts,
    ) -> Entry {
        match rpc {
            Some(rpc) => self.begun.add(protocol, rpc),
            None => {
                self.unknown.fetch_add(1, Ordering::Relaxed);
            }
        }
        let received = (0 < self.remembered).then(|| self.remember(protocol, rpc, parts));
        self.changed();
        Entry { recorder: Arc::clone(self), protocol, rpc, received }
    }

    fn remember(
        &self,
        protocol: Protocol,
        rpc: Option<Rpc>,
        parts: &http::request::Parts,
    ) -> Arc<Mutex<Received>> {
        let pair = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            (name.as_str().to_owned(), value.as_bytes().to_vec())
        };
        let mut headers: Vec<_> = parts.headers.iter().map(pair).collect();
        // HTTP/2 has the authority outside the header map; HTTP/1.1 has it as the header `host`.
        if let Some(authority) = parts.uri.authority() {
            headers.insert(0, (":authority".to_owned(), authority.as_str().as_bytes().to_vec()));
        }
        let received = Arc::new(Mutex::new(Received {
            protocol,
            http_method: parts.method.as_str().to_owned(),
            path: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            headers,
            rpc,
            body_bytes: 0,
            message_bytes: 0,
            sha256: None,
            model: None,
            version: None,
            executed: false,
            outcome: Outcome::Open,
        }));
        let mut all = lock(&self.received);
        if all.len() == self.remembered {
            all.pop_front();
        }
        all.push_back(Arc::clone(&received));
        received
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        lock(&self.received).iter().map(|received| lock(received).clone()).collect()
    }

    pub(crate) fn counts(&self, tallies: Vec<((String, i64), Arc<Tally>)>) -> Counts {
        let executed = |(key, tally): ((String, i64), Arc<Tally>)| {
            let faults = tally.faults.load(Ordering::Relaxed);
            (key, Executed { by_rpc: tally.executed.numbers(), faults })
        };
        Counts {
            versions: tallies.into_iter().map(executed).collect(),
            begun: self.begun.numbers(),
            arrived: self.arrived.numbers(),
            unknown: self.unknown.load(Ordering::Relaxed),
        }
    }

    /// Forgets everything; requests that are open go on, unremembered.
    pub(crate) fn reset(&self, tallies: &[((String, i64), Arc<Tally>)]) {
        for (_, tally) in tallies {
            tally.executed.clear();
            tally.faults.store(0, Ordering::Relaxed);
        }
        self.begun.clear();
        self.arrived.clear();
        self.unknown.store(0, Ordering::Relaxed);
        lock(&self.received).clear();
        self.changed();
    }
}

/// The record of one request while it lasts. One that is dropped before its end was cancelled.
#[derive(Debug)]
pub(crate) struct Entry {
    recorder: Arc<Recorder>,
    protocol: Protocol,
    rpc: Option<Rpc>,
    received: Option<Arc<Mutex<Received>>>,
}

impl Entry {
    /// True when the message is to be hashed.
    pub(crate) fn is_remembered(&self) -> bool {
        self.received.is_some()
    }

    /// Changes what is remembered, and tells those who wait for a change.
    pub(crate) fn note(&self, change: impl FnOnce(&mut Received)) {
        if let Some(received) = &self.received {
            change(&mut lock(received));
            self.recorder.changed();
        }
    }

    pub(crate) fn arrived(&self) {
        if let Some(rpc) = self.rpc {
            self.recorder.arrived.add(self.protocol, rpc);
            self.recorder.changed();
        }
    }

    pub(crate) fn executed(&self, tally: &Tally) {
        if let Some(rpc) = self.rpc {
            tally.executed.add(self.protocol, rpc);
            self.recorder.changed();
        }
        self.note(|received| received.executed = true);
    }

    pub(crate) fn end(&self, outcome: Outcome) {
        self.note(|received| received.outcome = outcome);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.note(|received| {
            if received.outcome == Outcome::Open {
                received.outcome = Outcome::Cancelled;
            }
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
