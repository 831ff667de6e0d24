//! The methods of model servers that name a model, whichever protocol calls them.

/// A call that names a model.
///
/// REST calls bear the name of the gRPC method that does the same: `:predict` is `Predict`,
/// `GET /v1/models/m` is `GetModelStatus`, `/v2/models/m/infer` is `ModelInfer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Method {
    Predict,
    Classify,
    Regress,
    MultiInference,
    GetModelMetadata,
    GetModelStatus,
    SessionRun,
    ModelInfer,
    ModelStreamInfer,
    ModelReady,
    ModelMetadata,
    ModelConfig,
    ModelStatistics,
    /// Triton's REST `generate`.
    Generate,
    /// Triton's REST `generate_stream`.
    GenerateStream,
}

impl Method {
    pub const ALL: [Self; 15] = [
        Self::Predict,
        Self::Classify,
        Self::Regress,
        Self::MultiInference,
        Self::GetModelMetadata,
        Self::GetModelStatus,
        Self::SessionRun,
        Self::ModelInfer,
        Self::ModelStreamInfer,
        Self::ModelReady,
        Self::ModelMetadata,
        Self::ModelConfig,
        Self::ModelStatistics,
        Self::Generate,
        Self::GenerateStream,
    ];

    /// The name that `match.methods` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Predict => "Predict",
            Self::Classify => "Classify",
            Self::Regress => "Regress",
            Self::MultiInference => "MultiInference",
            Self::GetModelMetadata => "GetModelMetadata",
            Self::GetModelStatus => "GetModelStatus",
            Self::SessionRun => "SessionRun",
            Self::ModelInfer => "ModelInfer",
            Self::ModelStreamInfer => "ModelStreamInfer",
            Self::ModelReady => "ModelReady",
            Self::ModelMetadata => "ModelMetadata",
            Self::ModelConfig => "ModelConfig",
            Self::ModelStatistics => "ModelStatistics",
            Self::Generate => "Generate",
            Self::GenerateStream => "GenerateStream",
        }
    }
}

/// A set of methods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MethodSet(u16);

impl MethodSet {
    pub const fn contains(self, method: Method) -> bool {
        self.0 & (1 << method as u8) != 0
    }

    #[must_use]
    pub const fn with(self, method: Method) -> Self {
        Self(self.0 | (1 << method as u8))
    }
}

impl FromIterator<Method> for MethodSet {
    fn from_iter<I: IntoIterator<Item = Method>>(methods: I) -> Self {
        methods.into_iter().fold(Self::default(), Self::with)
    }
}
