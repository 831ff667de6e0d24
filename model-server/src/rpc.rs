//! The methods that the server answers, over gRPC and REST.

use serde::Serialize;

/// What a request asks for. A REST call bears the name of the gRPC method that does the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[repr(u8)]
pub enum Rpc {
    Predict,
    Classify,
    Regress,
    MultiInference,
    GetModelMetadata,
    GetModelStatus,
    HandleReloadConfigRequest,
}

impl Rpc {
    pub const ALL: [Self; 7] = [
        Self::Predict,
        Self::Classify,
        Self::Regress,
        Self::MultiInference,
        Self::GetModelMetadata,
        Self::GetModelStatus,
        Self::HandleReloadConfigRequest,
    ];

    /// The `:path` of the gRPC method.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Predict => "/tensorflow.serving.PredictionService/Predict",
            Self::Classify => "/tensorflow.serving.PredictionService/Classify",
            Self::Regress => "/tensorflow.serving.PredictionService/Regress",
            Self::MultiInference => "/tensorflow.serving.PredictionService/MultiInference",
            Self::GetModelMetadata => "/tensorflow.serving.PredictionService/GetModelMetadata",
            Self::GetModelStatus => "/tensorflow.serving.ModelService/GetModelStatus",
            Self::HandleReloadConfigRequest => "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
        }
    }

    pub fn from_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rpc| rpc.path() == path)
    }

    /// True for what runs a model; the others only tell about one.
    pub const fn is_inference(self) -> bool {
        matches!(self, Self::Predict | Self::Classify | Self::Regress | Self::MultiInference)
    }
}

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[repr(u8)]
pub enum Protocol {
    Grpc,
    Rest,
}

impl Protocol {
    pub const ALL: [Self; 2] = [Self::Grpc, Self::Rest];
}
