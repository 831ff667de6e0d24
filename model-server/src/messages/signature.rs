//! `tensorflow.SignatureDef`, as GetModelMetadata answers it.

use std::collections::BTreeMap;

use super::{DataType, TensorShapeProto};

/// `tensorflow.serving.SignatureDefMap`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SignatureDefMap {
    #[prost(btree_map = "string, message", tag = "1")]
    pub signature_def: BTreeMap<String, SignatureDef>,
}

impl SignatureDefMap {
    /// The type URL under which the map is packed in an `Any`.
    pub const TYPE_URL: &str = "type.googleapis.com/tensorflow.serving.SignatureDefMap";
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SignatureDef {
    #[prost(btree_map = "string, message", tag = "1")]
    pub inputs: BTreeMap<String, TensorInfo>,
    #[prost(btree_map = "string, message", tag = "2")]
    pub outputs: BTreeMap<String, TensorInfo>,
    #[prost(string, tag = "3")]
    pub method_name: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TensorInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(enumeration = "DataType", tag = "2")]
    pub dtype: i32,
    #[prost(message, optional, tag = "3")]
    pub tensor_shape: Option<TensorShapeProto>,
}
