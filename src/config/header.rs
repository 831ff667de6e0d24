//! Names and values of headers, and which of them the filter reads and which its targets set.
//!
//! Before anything is read, a caller's own headers of the names that targets set are removed.
//! So a name that is also read would always be missing, and that is an error.

use std::cell::Cell;

use hashbrown::HashSet;

use super::at::{At, Reading};
use super::json::Order;
use super::words::quote;

/// The uses of headers that a configuration makes.
#[derive(Default)]
pub struct Headers {
    reads: Cell<HashSet<Box<str>>>,
    sets: Cell<Vec<(Order, Box<str>)>>,
}

impl Headers {
    #[inline(never)]
    pub fn read(&self, name: &str) {
        let mut reads = self.reads.take();
        reads.insert(name.into());
        self.reads.set(reads);
    }

    fn set(&self, order: Order, name: &str) {
        let mut sets = self.sets.take();
        sets.push((order, name.into()));
        self.sets.set(sets);
    }
}

/// The names that targets set, without repetition; reports those that are read, too.
#[inline(never)]
pub fn owned(reading: &Reading) -> Vec<Box<str>> {
    let reads = reading.headers.reads.take();
    let mut owned = HashSet::new();
    for (order, name) in reading.headers.sets.take() {
        if reads.contains(&name) {
            reading.report(
                order,
                format!("{} is read from the caller, whose header a target must not replace", quote(&name)),
            );
        }
        owned.insert(name);
    }
    let mut owned: Vec<_> = owned.into_iter().collect();
    owned.sort_unstable();
    owned
}

/// Every header of a request with this prefix is the filter's own: a caller's is removed.
const OWN_PREFIX: &str = "x-predictgate-";

/// What the filter itself sets on a request or a response.
const OWN: [&str; 5] = [
    "x-predictgate-cluster",
    "x-predictgate-decision",
    "x-predictgate-mirror-cluster",
    "x-predictgate-reason",
    "x-predictgate-target",
];

/// What frames a message or says how it is to be read: no target may replace it.
const OF_THE_PROTOCOL: [&str; 11] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

const MAX_NAME: usize = 256;

const MAX_VALUE: usize = 8192;

impl At<'_> {
    /// The name of a header that the filter reads from the caller, in lower case.
    pub fn header_name(self) -> Option<Box<str>> {
        let name = lower_name(self, self.text()?)?;
        if name.starts_with(OWN_PREFIX) {
            self.report(format!("{} has the filter's own prefix, so a caller's is removed", quote(&name)));
            return None;
        }
        // Envoy shows the host in HTTP/2's way, whichever way it came.
        let name = if &*name == "host" { ":authority".into() } else { name };
        self.reading.headers.read(&name);
        Some(name)
    }

    /// The name of the header that asks for an explanation: it alone may have the filter's own prefix.
    pub fn explain_name(self) -> Option<Box<str>> {
        let name = lower_name(self, self.text()?)?;
        if OWN.contains(&&*name) {
            self.report(format!("{} is set by the filter, expected a name of its own", quote(&name)));
            return None;
        }
        self.reading.headers.read(&name);
        Some(name)
    }

    /// The name of a header that a target sets, whose value stands here.
    pub fn target_header_name(self, name: &str) -> Option<Box<str>> {
        let name = lower_name(self, name)?;
        if name.starts_with(OWN_PREFIX) {
            self.report(format!("{} has the filter's own prefix", quote(&name)));
            return None;
        }
        if OF_THE_PROTOCOL.contains(&&*name) || name.starts_with("grpc-") {
            self.report(format!("{} belongs to the protocol, a target must not set it", quote(&name)));
            return None;
        }
        self.reading.headers.set(self.json.order, &name);
        Some(name)
    }

    pub fn header_value(self) -> Option<Box<str>> {
        self.plain_text(0..=MAX_VALUE)
    }
}

/// A field name of RFC 9110, in lower case as HTTP/2 has it.
fn lower_name(at: At<'_>, name: &str) -> Option<Box<str>> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || MAX_NAME < name.len() || !name.bytes().all(is_token) {
        at.report(format!("{} is not a legal header name", quote(name)));
        return None;
    }
    Some(name.to_ascii_lowercase().into())
}
