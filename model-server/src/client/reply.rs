//! What came back of a call.

use std::fmt;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::HeaderMap;
use tonic::{Code, Status};

use crate::framing::Collector;
use crate::messages::PredictResponse;

/// The answer to a call, whatever its status is.
#[derive(Clone, Debug)]
pub struct Reply<T> {
    /// The HTTP status.
    pub http: u16,
    pub headers: HeaderMap,
    /// Empty when the answer was trailers-only: its status is in `headers`.
    pub trailers: HeaderMap,
    /// True when response headers ended the stream.
    pub trailers_only: bool,
    /// The gRPC status; none when the answer bore none.
    pub status: Option<Code>,
    /// The decoded `grpc-message`.
    pub text: String,
    /// The decoded `grpc-status-details-bin`.
    pub details: Bytes,
    pub message: Option<T>,
    /// All bytes of the body, with prefix.
    pub body: Bytes,
}

impl<T> Reply<T> {
    /// The gRPC status; UNKNOWN when there was none, as clients read it.
    pub fn code(&self) -> Code {
        self.status.unwrap_or(Code::Unknown)
    }

    /// The message of a call that succeeded.
    pub fn ok(self) -> anyhow::Result<T> {
        if self.code() != Code::Ok {
            bail!("the call failed with {:?} (HTTP {}): {:?}", self.code(), self.http, self.text);
        }
        self.message.context("the call succeeded without a message that can be decoded")
    }

    /// The first value of a header or trailer, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers.get(name).or_else(|| self.trailers.get(name));
        value.and_then(|value| value.to_str().ok())
    }

    pub(super) fn new(
        head: http::response::Parts,
        body: Bytes,
        trailers: Option<HeaderMap>,
        decode: impl FnOnce(Bytes) -> Option<T>,
    ) -> Self {
        let trailers_only = trailers.is_none();
        let trailers = trailers.unwrap_or_default();
        let status = Status::from_header_map(&trailers).or_else(|| Status::from_header_map(&head.headers));
        let mut collector = Collector::new(false);
        collector.push(body.clone());
        let encoding = head.headers.get("grpc-encoding").map(http::HeaderValue::as_bytes);
        let message = collector.finish().and_then(|collected| collected.inflate(encoding).ok());
        Self {
            http: head.status.as_u16(),
            trailers_only,
            status: status.as_ref().map(Status::code),
            text: status.as_ref().map(|status| status.message().to_owned()).unwrap_or_default(),
            details: status.map(|status| Bytes::copy_from_slice(status.details())).unwrap_or_default(),
            message: message.and_then(decode),
            headers: head.headers,
            trailers,
            body,
        }
    }
}

impl PredictResponse {
    /// The values of the one output.
    pub fn values(&self) -> &[f32] {
        self.outputs.values().next().map(|tensor| tensor.float_val.as_slice()).unwrap_or_default()
    }

    /// The version that answered.
    pub fn version(&self) -> Option<i64> {
        self.model_spec.as_ref()?.version()
    }
}

/// A call that brought no answer.
#[derive(Debug)]
pub enum Broken {
    /// No connection: refused, or no HTTP/2 on the other side.
    Connect(String),
    /// The connection ended under the call.
    Connection(String),
    /// The stream was reset.
    Reset(h2::Reason),
    /// The client's own deadline passed; the stream was cancelled.
    Deadline,
}

impl From<h2::Error> for Broken {
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            Some(reason) if error.is_reset() => Self::Reset(reason),
            _ => Self::Connection(error.to_string()),
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(why) => write!(f, "no connection: {why}"),
            Self::Connection(why) => write!(f, "the connection ended: {why}"),
            Self::Reset(reason) => write!(f, "the stream was reset: {reason}"),
            Self::Deadline => f.write_str("the deadline passed"),
        }
    }
}

impl std::error::Error for Broken {}
