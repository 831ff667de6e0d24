//! The details of a gRPC status, by which a caller's program tells one refusal from another.

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

/// What `grpc-status-details-bin` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    pub code: i32,
    pub message: String,
    pub info: ErrorInfo,
}

impl Details {
    /// Reads the decoded header; none if it is not a status with an `ErrorInfo`.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let status = Status::decode(bytes).ok()?;
        let is_info = |any: &&Any| any.type_url == "type.googleapis.com/google.rpc.ErrorInfo";
        let info = status.details.iter().find(is_info)?;
        let info = ErrorInfo::decode(info.value.clone()).ok()?;
        Some(Self { code: status.code, message: status.message, info })
    }
}
