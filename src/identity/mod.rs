//! Model identity: which model, version, label and signature a request names.
//!
//! A gRPC message names its model in its first field, but nothing obliges a client to send that field
//! first, once, or in one piece, and a reading that differs from the server's would be a way round every
//! route and limit. So the wire is read as libprotobuf reads it: repeated fields are merged, the last member of a
//! oneof wins, an empty `version` is present, a field of the wrong wire type is an unknown one, and malformed is
//! what the server would refuse. What is held is the text of a name and a few numbers, never a tensor.
//!
//! [`Scanner`] knows the gRPC framing and compression, and which identity counts; `message` knows protobuf.

#![deny(clippy::arithmetic_side_effects)]

mod batch;
mod frames;
mod inflate;
mod message;
mod scanner;
mod schema;
pub mod splice;
mod varint;

pub use inflate::Encoding;
pub use scanner::{Compression, Scanner, Until};

use crate::method::Method;
use crate::units::Asked;

/// What a request names. An empty name is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelSpec {
    pub name: String,
    pub asked: Asked,
    pub signature: String,
}

impl ModelSpec {
    pub(crate) const EMPTY: Self =
        Self { name: String::new(), asked: Asked::Latest, signature: String::new() };

    /// Whether both name the same model and version; the signature may differ.
    pub fn same_model(&self, other: &Self) -> bool {
        self.name == other.name && self.asked == other.asked
    }
}

/// Where a request message keeps its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `model_spec` is field 1: all of TensorFlow Serving's requests but one.
    ModelSpec,
    /// `tasks[0].model_spec`: `MultiInferenceRequest`.
    FirstTask,
    /// `model_name` is field 1 and `model_version` field 2: the Open Inference Protocol.
    NameAndVersion,
}

/// Which sizes of a message are read for its batch: those of the inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sizes {
    #[default]
    Unread,
    /// The shapes of `PredictRequest.inputs`.
    OfTensors,
    /// The number of examples in the `input` of a classification, regression or multi-inference.
    OfExamples,
    /// The shapes of `ModelInferRequest.inputs`.
    OfInferInputs,
}

impl Sizes {
    /// The sizes in the requests of a gRPC method.
    pub const fn of(method: Method) -> Self {
        match method {
            Method::Predict => Self::OfTensors,
            Method::Classify | Method::Regress | Method::MultiInference => Self::OfExamples,
            Method::ModelInfer | Method::ModelStreamInfer => Self::OfInferInputs,
            _ => Self::Unread,
        }
    }
}

/// How many messages a call carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rpc {
    Unary,
    /// Every message must name the same model.
    Streaming,
}

/// What the server would refuse, in the protobuf or in the gRPC framing around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    Flag,
    SecondMessage,
    Truncated,
    Wire,
    Utf8,
}

impl Malformed {
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::Flag => "the compression flag of the gRPC message is neither 0 nor 1",
            Self::SecondMessage => "a unary call carries a second message",
            Self::Truncated => "the body ends inside a gRPC message",
            Self::Wire => "the message is not well-formed protobuf",
            Self::Utf8 => "a string of the model's identity is not UTF-8",
        }
    }
}

/// How far the identity of a call is known. Later messages of a stream change nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It may still come, or change.
    Reading,
    /// It is complete and another field has begun, or the first message has ended, perhaps without any.
    Settled,
    /// It cannot be read, and nothing after it.
    Unreadable(Unreadable),
}

/// Why an identity cannot be read although nothing shows that the server would refuse the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// The message is compressed, and compressed messages are not to be read.
    Compressed,
    /// The message is compressed in an encoding that is not known.
    Encoding,
    /// The message is not what its encoding says.
    Corrupt,
    /// The message grows beyond the limit.
    TooLarge,
    /// A name, label or signature is longer than the limit.
    TooLong,
}

impl Unreadable {
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::Compressed => "compressed messages are refused",
            Self::Encoding => "the message is compressed in a grpc-encoding other than gzip and deflate",
            Self::Corrupt => "the compressed message is not what its grpc-encoding says",
            Self::TooLarge => "the compressed message grows beyond max_inflate_bytes or a thousandfold",
            Self::TooLong => "a name, label or signature is longer than max_peek_bytes",
        }
    }
}
