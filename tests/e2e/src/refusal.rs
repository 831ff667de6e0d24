//! The details of a gRPC status, by which a caller's program tells one refusal from another.

use std::time::Duration;

use model_server::messages::Any;
use prost::Message;

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ErrorInfo {
    #[prost(string, tag = "1")]
    pub reason: String,
    #[prost(string, tag = "2")]
    pub domain: String,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Eq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Eq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// What `grpc-status-details-bin` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    pub code: i32,
    pub message: String,
    pub info: ErrorInfo,
    /// When to come again, of `RetryInfo`.
    pub retry_delay: Option<Duration>,
}

impl Details {
    /// Reads the decoded header; none if it is not a status with an `ErrorInfo`.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let status = Status::decode(bytes).ok()?;
        let is_info = |any: &&Any| any.type_url == "type.googleapis.com/google.rpc.ErrorInfo";
        let info = status.details.iter().find(is_info)?;
        let info = ErrorInfo::decode(info.value.clone()).ok()?;
        let is_retry = |any: &&Any| any.type_url == "type.googleapis.com/google.rpc.RetryInfo";
        let retry = status.details.iter().find(is_retry).map(|any| RetryInfo::decode(any.value.clone()));
        let retry_delay = match retry.transpose().ok()?.and_then(|retry| retry.retry_delay) {
            Some(delay) => Some(Duration::new(delay.seconds.try_into().ok()?, delay.nanos.try_into().ok()?)),
            None => None,
        };
        Some(Self { code: status.code, message: status.message, info, retry_delay })
    }
}
