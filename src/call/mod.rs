//! What a request is, by its headers alone: the protocol, the method, and where its identity stands.
//!
//! The path decides the protocol and not the content-type, because a gRPC server executes a known method
//! whatever content-type it comes with.

mod grpc;
mod rest;

use crate::headers::Headers;
use crate::identity::{Layout, ModelSpec, Rpc};
use crate::method::Method;
use crate::verdict::Protocol;

/// A request, as its headers show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The language that the caller reads.
    pub protocol: Protocol,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Names a model in its message.
    Grpc { method: Method, layout: Layout, rpc: Rpc },
    /// Names a model in its path.
    Rest { method: Method, spec: ModelSpec },
    /// Changes or reveals the server itself.
    Administrative,
    /// Names no model: health, reflection, server metadata, lists, and every path that is not known.
    Modelless,
    /// A known gRPC method whose content-type no gRPC client sends, or whose framing cannot be read.
    ContentType,
    /// A path that names a model in a way that the server refuses.
    MalformedPath(&'static str),
}

impl Call {
    pub fn read(headers: &Headers) -> Self {
        let path = headers.get(":path").unwrap_or_default();
        let Some(known) = grpc::find(path) else {
            return Self { protocol: Protocol::Rest, kind: rest::read(path) };
        };
        let Some(protocol) = grpc_protocol(headers.get("content-type").unwrap_or_default()) else {
            return Self { protocol: Protocol::Rest, kind: Kind::ContentType };
        };
        let kind = match known {
            grpc::Known::Model { method, layout, rpc } => Kind::Grpc { method, layout, rpc },
            grpc::Known::Administrative => Kind::Administrative,
        };
        Self { protocol, kind }
    }
}

/// `application/grpc`, alone or with a message format or parameters, and gRPC-Web with binary framing.
fn grpc_protocol(content_type: &[u8]) -> Option<Protocol> {
    // What all but a few clients send.
    if content_type == b"application/grpc" {
        return Some(Protocol::Grpc);
    }
    let end = content_type.iter().position(|byte| *byte == b';').unwrap_or(content_type.len());
    let media_type = content_type.get(..end)?.trim_ascii().to_ascii_lowercase();
    let suffix = media_type.strip_prefix(b"application/grpc")?;
    let binary = suffix.strip_prefix(b"-web").unwrap_or(suffix);
    if !binary.is_empty() && !binary.starts_with(b"+") {
        return None;
    }
    // Envoy takes for gRPC only what begins with exactly this (Grpc::Common::hasGrpcContentType).
    let exact = content_type.strip_prefix(b"application/grpc");
    let native = exact.is_some_and(|suffix| suffix.is_empty() || suffix.starts_with(b"+"));
    Some(if native { Protocol::Grpc } else { Protocol::GrpcWeb })
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[track_caller]
    fn check(path: &str, content_type: Option<&str>, protocol: Protocol, kind: &Kind) {
        let mut pairs = vec![(":path", path)];
        pairs.extend(content_type.map(|it| ("content-type", it)));
        let expected = Call { protocol, kind: kind.clone() };
        assert_eq!(Call::read(&Headers::from_pairs(&pairs)), expected, "{path} as {content_type:?}");
    }

    const PREDICT: &str = "/tensorflow.serving.PredictionService/Predict";
    const RELOAD: &str = "/tensorflow.serving.ModelService/HandleReloadConfigRequest";

    #[test]
    fn a_grpc_method_is_known_by_its_path() {
        let predict = Kind::Grpc { method: Method::Predict, layout: Layout::ModelSpec, rpc: Rpc::Unary };
        for content_type in ["application/grpc", "application/grpc+proto"] {
            check(PREDICT, Some(content_type), Protocol::Grpc, &predict);
        }
        for content_type in ["application/grpc; a=b", "Application/gRPC", "application/grpc-web+proto"] {
            check(PREDICT, Some(content_type), Protocol::GrpcWeb, &predict);
        }
    }

    #[test]
    fn a_grpc_method_with_another_content_type_is_refused() {
        for content_type in
            ["application/json", "text/plain", "application/grpc-web-text", "application/grpcx", ""]
        {
            check(PREDICT, Some(content_type), Protocol::Rest, &Kind::ContentType);
        }
        check(PREDICT, None, Protocol::Rest, &Kind::ContentType);
        check(RELOAD, None, Protocol::Rest, &Kind::ContentType);
    }

    #[test]
    fn administrative_methods_are_known_on_both_sides() {
        let grpc = Some("application/grpc");
        check(RELOAD, grpc, Protocol::Grpc, &Kind::Administrative);
        let unload = "/inference.GRPCInferenceService/RepositoryModelUnload";
        check(unload, grpc, Protocol::Grpc, &Kind::Administrative);
        check("/v2/repository/models/resnet/unload", None, Protocol::Rest, &Kind::Administrative);
    }

    #[test]
    fn what_names_no_model_is_left_alone() {
        for path in
            ["/grpc.health.v1.Health/Check", "/inference.GRPCInferenceService/ServerLive", "/", "*", ""]
        {
            check(path, Some("application/grpc"), Protocol::Rest, &Kind::Modelless);
        }
    }
}
