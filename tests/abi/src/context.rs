//! The contexts of one VM: its roots and its streams.

use std::collections::BTreeMap;

use crate::flow::Flow;
use crate::map::Map;

pub(crate) struct RootContext {
    /// Zero is no ticks.
    pub tick_period: u32,
    pub alive: bool,
}

/// What the filter answered by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub http_status: u32,
    /// `None` when the filter left it to Envoy.
    pub grpc_status: Option<u32>,
    pub details: String,
    pub body: Vec<u8>,
    pub headers: Map,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Request,
    Response,
    /// `on_log` runs: every map can be read and none changed.
    Log,
}

pub(crate) struct StreamContext {
    pub root: u32,
    /// Until `on_delete`: host calls may act on it.
    pub alive: bool,
    pub stage: Stage,
    pub request: Flow,
    pub response: Flow,
    pub reply: Option<Reply>,
    /// The stream was ended without an answer.
    pub reset: bool,
    pub properties: BTreeMap<Vec<u8>, Vec<u8>>,
    /// When it began, on the monotonic clock.
    pub began: u64,
}

impl StreamContext {
    pub fn new(root: u32, began: u64) -> Self {
        Self {
            root,
            alive: true,
            stage: Stage::Request,
            request: Flow::default(),
            response: Flow::default(),
            reply: None,
            reset: false,
            properties: BTreeMap::new(),
            began,
        }
    }
}

impl StreamContext {
    pub fn property(&self, path: &[u8]) -> Option<Vec<u8>> {
        if let Some(name) = path.strip_prefix(b"request\0headers\0") {
            let readable = self.stage == Stage::Log || self.request.sent.headers.is_none();
            return self.request.headers.as_ref().filter(|_| readable)?.get(name).map(<[u8]>::to_vec);
        }
        self.properties.get(path).cloned()
    }

    pub fn set_property(&mut self, path: &[&str], value: &[u8]) {
        self.properties.insert(path.join("\0").into_bytes(), value.to_vec());
    }

    fn set_number(&mut self, path: &[&str], number: i64) {
        self.set_property(path, &number.to_le_bytes());
    }

    fn is_grpc(&self) -> bool {
        let kind = self.request.headers.as_ref().and_then(|headers| headers.get("content-type"));
        kind.is_some_and(|kind| kind == b"application/grpc" || kind.starts_with(b"application/grpc+"))
    }

    /// Sets the properties that Envoy has from the response headers on.
    pub fn note_response(&mut self, headers: &Map) {
        let code = headers.text(":status").and_then(|code| code.parse().ok()).unwrap_or(200);
        self.set_number(&["response", "code"], code);
        self.properties.entry(b"response\0flags".to_vec()).or_insert(0_i64.to_le_bytes().to_vec());
        if self.reply.is_none() {
            let details = b"response\0code_details".to_vec();
            self.properties.entry(details).or_insert(b"via_upstream".to_vec());
        }
        if self.is_grpc() {
            // Envoy says UNKNOWN until it has seen a status.
            self.set_number(&["response", "grpc_status"], 2);
            self.note_status(headers);
        }
    }

    pub fn note_status(&mut self, headers: &Map) {
        if let Some(status) = headers.text("grpc-status").and_then(|status| status.parse().ok()) {
            self.set_number(&["response", "grpc_status"], status);
        }
    }

    /// The response headers and body that Envoy makes of a local reply.
    pub fn answer(&self, reply: &Reply) -> (Map, Vec<u8>) {
        let mut headers = Map::default();
        let body = if self.is_grpc() {
            headers.add(":status", "200");
            headers.add("content-type", "application/grpc");
            let status = reply.grpc_status.unwrap_or_else(|| from_http(reply.http_status));
            headers.add("grpc-status", status.to_string());
            if !reply.body.is_empty() {
                headers.add("grpc-message", percent_encoded(&reply.body));
            }
            Vec::new()
        } else {
            headers.add(":status", reply.http_status.to_string());
            if !reply.body.is_empty() {
                headers.add("content-length", reply.body.len().to_string());
                headers.add("content-type", "text/plain");
            }
            reply.body.clone()
        };
        for (name, value) in reply.headers.pairs() {
            // Envoy's own content-type gives way to one that the filter sets.
            if name == b"content-type" { headers.replace(name, value) } else { headers.add(name, value) }
        }
        (headers, body)
    }
}

/// The gRPC status that Envoy makes of an HTTP status.
fn from_http(status: u32) -> u32 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

fn percent_encoded(message: &[u8]) -> String {
    let plain = |byte: &u8| (0x20..0x7f).contains(byte) && *byte != b'%';
    message
        .iter()
        .map(|byte| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
