//! What a request is, by its headers alone: the protocol, the method, and where its identity stands.
//!
//! The path decides the protocol and not the content-type, because a gRPC server executes a known method
//! whatever content-type it comes with.

mod grpc;
mod rest;

use crate::headers::Headers;
use crate::identity::{Layout, ModelSpec};
use crate::method::Method;

/// A request, as its headers show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Names a model in its message.
    Grpc { method: Method, layout: Layout, streaming: bool },
    /// Names a model in its path.
    Rest { method: Method, spec: ModelSpec },
    /// Changes or reveals the server itself.
    Administrative(Protocol),
    /// Names no model: health, reflection, server metadata, lists, and every path that is not known.
    Modelless,
    /// A known gRPC method whose content-type no gRPC client sends, or whose framing cannot be read.
    ContentType,
    /// A path that names a model in a way that the server refuses.
    MalformedPath(&'static str),
}

/// The language in which a caller reads a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    Rest,
}

impl Call {
    pub fn read(headers: &Headers) -> Self {
        let path = headers.get(":path").unwrap_or_default();
        let content_type = headers.get("content-type").unwrap_or_default();
        match grpc::find(path) {
            Some(_) if !is_grpc(content_type) => Self::ContentType,
            Some(grpc::Known::Model { method, layout, streaming }) => {
                Self::Grpc { method, layout, streaming }
            }
            Some(grpc::Known::Administrative) => Self::Administrative(Protocol::Grpc),
            None => rest::read(path),
        }
    }

    pub const fn protocol(&self) -> Protocol {
        match self {
            Self::Grpc { .. } | Self::Administrative(Protocol::Grpc) => Protocol::Grpc,
            _ => Protocol::Rest,
        }
    }
}

/// `application/grpc`, alone or with a message format or parameters, and gRPC-Web with binary framing.
fn is_grpc(content_type: &[u8]) -> bool {
    let end = content_type.iter().position(|byte| *byte == b';').unwrap_or(content_type.len());
    let media_type = content_type.get(..end).unwrap_or_default().trim_ascii().to_ascii_lowercase();
    let Some(suffix) = media_type.strip_prefix(b"application/grpc") else {
        return false;
    };
    let suffix = suffix.strip_prefix(b"-web").unwrap_or(suffix);
    suffix.is_empty() || suffix.starts_with(b"+")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, content_type: Option<&str>, expected: &Call) {
        let mut pairs = vec![(":path", path)];
        pairs.extend(content_type.map(|it| ("content-type", it)));
        assert_eq!(&Call::read(&Headers::from_pairs(&pairs)), expected, "{path} as {content_type:?}");
    }

    const PREDICT: &str = "/tensorflow.serving.PredictionService/Predict";

    #[test]
    fn a_grpc_method_is_known_by_its_path() {
        let predict = Call::Grpc { method: Method::Predict, layout: Layout::ModelSpec, streaming: false };
        for content_type in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc; a=b",
            "Application/gRPC-Web+proto",
        ] {
            check(PREDICT, Some(content_type), &predict);
        }
    }

    #[test]
    fn a_grpc_method_with_another_content_type_is_refused() {
        for content_type in
            ["application/json", "text/plain", "application/grpc-web-text", "application/grpcx", ""]
        {
            check(PREDICT, Some(content_type), &Call::ContentType);
        }
        check(PREDICT, None, &Call::ContentType);
        check("/tensorflow.serving.ModelService/HandleReloadConfigRequest", None, &Call::ContentType);
    }

    #[test]
    fn administrative_methods_are_known_on_both_sides() {
        let grpc = Some("application/grpc");
        let administrative = Call::Administrative(Protocol::Grpc);
        check("/tensorflow.serving.ModelService/HandleReloadConfigRequest", grpc, &administrative);
        check("/inference.GRPCInferenceService/RepositoryModelUnload", grpc, &administrative);
        check("/v2/repository/models/resnet/unload", None, &Call::Administrative(Protocol::Rest));
    }

    #[test]
    fn what_names_no_model_is_left_alone() {
        for path in
            ["/grpc.health.v1.Health/Check", "/inference.GRPCInferenceService/ServerLive", "/", "*", ""]
        {
            check(path, Some("application/grpc"), &Call::Modelless);
        }
    }
}
