//! `tensorflow.serving.ModelSpec` and the messages of `ModelService`.

use std::collections::BTreeMap;

use super::{Any, Int64Value};

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ModelSpec {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(oneof = "VersionChoice", tags = "2, 4")]
    pub version_choice: Option<VersionChoice>,
    #[prost(string, tag = "3")]
    pub signature_name: String,
}

#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum VersionChoice {
    #[prost(message, tag = "2")]
    Version(Int64Value),
    #[prost(string, tag = "4")]
    VersionLabel(String),
}

impl ModelSpec {
    /// The version that the spec names, as the server fills it in when it answers.
    pub fn version(&self) -> Option<i64> {
        match &self.version_choice {
            Some(VersionChoice::Version(version)) => Some(version.value),
            _ => None,
        }
    }
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GetModelStatusRequest {
    #[prost(message, optional, tag = "1")]
    pub model_spec: Option<ModelSpec>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GetModelStatusResponse {
    #[prost(message, repeated, tag = "1")]
    pub model_version_status: Vec<ModelVersionStatus>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ModelVersionStatus {
    #[prost(int64, tag = "1")]
    pub version: i64,
    #[prost(enumeration = "State", tag = "2")]
    pub state: i32,
    #[prost(message, optional, tag = "3")]
    pub status: Option<StatusProto>,
}

/// `ModelVersionStatus.State`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum State {
    Unknown = 0,
    Start = 10,
    Loading = 20,
    Available = 30,
    Unloading = 40,
    End = 50,
}

impl State {
    /// Its name in the `.proto` file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Start => "START",
            Self::Loading => "LOADING",
            Self::Available => "AVAILABLE",
            Self::Unloading => "UNLOADING",
            Self::End => "END",
        }
    }
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StatusProto {
    #[prost(int32, tag = "1")]
    pub error_code: i32,
    #[prost(string, tag = "2")]
    pub error_message: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GetModelMetadataRequest {
    #[prost(message, optional, tag = "1")]
    pub model_spec: Option<ModelSpec>,
    #[prost(string, repeated, tag = "2")]
    pub metadata_field: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GetModelMetadataResponse {
    #[prost(message, optional, tag = "1")]
    pub model_spec: Option<ModelSpec>,
    #[prost(btree_map = "string, message", tag = "2")]
    pub metadata: BTreeMap<String, Any>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ReloadConfigRequest {
    #[prost(message, optional, tag = "1")]
    pub config: Option<ModelServerConfig>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ModelServerConfig {
    #[prost(message, optional, tag = "1")]
    pub model_config_list: Option<ModelConfigList>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ModelConfigList {
    #[prost(message, repeated, tag = "1")]
    pub config: Vec<ModelConfigProto>,
}

/// `tensorflow.serving.ModelConfig`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ModelConfigProto {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub base_path: String,
    #[prost(string, tag = "4")]
    pub model_platform: String,
    #[prost(btree_map = "string, int64", tag = "8")]
    pub version_labels: BTreeMap<String, i64>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ReloadConfigResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<StatusProto>,
}
