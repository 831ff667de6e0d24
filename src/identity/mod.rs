//! Model identity: which model, version, label and signature a request names.
//!
//! A gRPC message names its model in its first field, but nothing obliges a client to send that field
//! first, once, or in one piece, and a reading that differs from the server's would be a way round every
//! route and limit. So [`Scanner`] reads the wire as libprotobuf does: it merges repeated fields, lets the
//! last member of a oneof win, keeps the presence of an empty `version`, takes a field of the wrong wire
//! type for an unknown one, and calls malformed what the server would refuse.
//! It holds the text of a name and a few numbers, never a tensor.

mod inflate;
mod scanner;
pub mod splice;
mod varint;

pub use inflate::Encoding;
pub use scanner::{Compression, Layout, Malformed, Progress, Rpc, Scanner, Unreadable, Until};

use crate::units::Asked;

/// What a request names. An empty name is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelSpec {
    pub name: String,
    pub asked: Asked,
    pub signature: String,
}

impl ModelSpec {
    /// Whether both name the same model and version; the signature may differ.
    pub fn same_model(&self, other: &Self) -> bool {
        self.name == other.name && self.asked == other.asked
    }
}
