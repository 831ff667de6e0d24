//! What the fields of request messages mean here, by their numbers in the servers' .proto files.
//!
//! Sources: tensorflow_serving/apis (predict, classification, inference, model, input), tensorflow/core/framework
//! (tensor, tensor_shape), and the Open Inference Protocol's `GRPCInferenceService`.

use super::{Layout, Sizes};

/// A message that is descended into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Root,
    /// `InferenceTask`.
    Task,
    ModelSpec,
    /// `google.protobuf.Int64Value`, the wrapper of a version.
    Int64Value,
    /// An entry of `PredictRequest.inputs`.
    Input,
    TensorProto,
    TensorShapeProto,
    Dim,
    /// `Input` of a classification or a regression: a oneof of two lists.
    Examples,
    ExampleList,
    ExampleListWithContext,
    /// `ModelInferRequest.InferInputTensor`.
    InferInputTensor,
    /// The packed numbers of its `shape`.
    PackedShape,
}

impl Kind {
    pub const fn names_a_model(self) -> bool {
        matches!(self, Self::Task | Self::ModelSpec | Self::Int64Value)
    }
}

/// A length-delimited field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Message(Kind),
    Text(TextField),
    /// One of the examples of a list, whose content does not matter.
    Example,
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextField {
    Name,
    Signature,
    Label,
    /// `model_version` of the Open Inference Protocol.
    Version,
    /// The name of an input.
    Input,
}

impl TextField {
    pub const fn names_a_model(self) -> bool {
        !matches!(self, Self::Input)
    }
}

impl Field {
    pub const fn names_a_model(self) -> bool {
        match self {
            Self::Message(kind) => kind.names_a_model(),
            Self::Text(text) => text.names_a_model(),
            Self::Example | Self::Unknown => false,
        }
    }
}

/// A varint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    Version,
    /// The size of a dimension.
    Size,
    Unknown,
}

pub const fn field(kind: Kind, layout: Layout, sizes: Sizes, number: u32) -> Field {
    match (kind, number) {
        (Kind::Root, _) => root_field(layout, sizes, number),
        (Kind::Task, 1) => Field::Message(Kind::ModelSpec),
        (Kind::ModelSpec, 1) => Field::Text(TextField::Name),
        (Kind::ModelSpec, 2) => Field::Message(Kind::Int64Value),
        (Kind::ModelSpec, 3) => Field::Text(TextField::Signature),
        (Kind::ModelSpec, 4) => Field::Text(TextField::Label),
        (Kind::Input, 1) => Field::Text(TextField::Input),
        (Kind::Input, 2) => Field::Message(Kind::TensorProto),
        (Kind::TensorProto, 2) => Field::Message(Kind::TensorShapeProto),
        (Kind::TensorShapeProto, 2) => Field::Message(Kind::Dim),
        (Kind::Examples, 1) => Field::Message(Kind::ExampleList),
        (Kind::Examples, 2) => Field::Message(Kind::ExampleListWithContext),
        (Kind::ExampleList | Kind::ExampleListWithContext, 1) => Field::Example,
        (Kind::InferInputTensor, 3) => Field::Message(Kind::PackedShape),
        _ => Field::Unknown,
    }
}

const fn root_field(layout: Layout, sizes: Sizes, number: u32) -> Field {
    match (layout, sizes, number) {
        (Layout::ModelSpec, _, 1) => Field::Message(Kind::ModelSpec),
        (Layout::FirstTask, _, 1) => Field::Message(Kind::Task),
        (Layout::NameAndVersion, _, 1) => Field::Text(TextField::Name),
        (Layout::NameAndVersion, _, 2) => Field::Text(TextField::Version),
        (_, Sizes::OfTensors, 2) => Field::Message(Kind::Input),
        (_, Sizes::OfExamples, 2) => Field::Message(Kind::Examples),
        (_, Sizes::OfInferInputs, 5) => Field::Message(Kind::InferInputTensor),
        _ => Field::Unknown,
    }
}

pub const fn value(kind: Kind, number: u32) -> Value {
    match (kind, number) {
        (Kind::Int64Value, 1) => Value::Version,
        // A `shape` that is not packed, as a proto2 writer may have it.
        (Kind::Dim, 1) | (Kind::InferInputTensor, 3) => Value::Size,
        _ => Value::Unknown,
    }
}
