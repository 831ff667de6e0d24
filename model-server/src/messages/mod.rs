//! TensorFlow Serving's wire messages, with the field numbers of its published `.proto` files.
//!
//! They are written by hand, so that a build needs no `protoc`; fields that this server neither reads nor
//! answers are left out, and are skipped on the wire as unknown fields.

mod example;
mod model;
mod prediction;
mod signature;
mod tensor;

pub use example::*;
pub use model::*;
pub use prediction::*;
pub use signature::*;
pub use tensor::*;

/// `google.protobuf.Int64Value`: its presence, not its value, says whether a version was asked for.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Int64Value {
    #[prost(int64, tag = "1")]
    pub value: i64,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Any {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: bytes::Bytes,
}
