//! The REST paths of model servers, read as TensorFlow Serving reads them.
//!
//! Its server matches a path without regard to case and only then decodes the name and the label
//! (http_rest_api_handler.cc), so `%2F` in a name is a slash of the name and not one of the path.
//! Its paths include the query (evhttp_request.cc), so `m?x` names a model `m?x` and `:predict?x` is no verb;
//! in the Open Inference Protocol the query is none of the path.

use super::Kind;
use crate::identity::ModelSpec;
use crate::method::Method;
use crate::units::{Asked, Version};

#[inline(never)]
pub fn read(path: &[u8]) -> Kind {
    let read = if let Some(rest) = strip_prefix(path, b"/v1/models/") {
        serving(rest)
    } else if let Some(rest) = strip_prefix(path, b"/v2/") {
        let end = rest.iter().position(|byte| *byte == b'?').unwrap_or(rest.len());
        inference(rest.get(..end).unwrap_or_default())
    } else {
        None
    };
    read.unwrap_or(Kind::Modelless)
}

/// `NAME[/versions/V|/labels/L][:verb|/metadata]`
fn serving(rest: &[u8]) -> Option<Kind> {
    let (name, rest) = segment(rest, b"/:")?;
    let (asked, rest) = if let Some(rest) = strip_prefix(rest, b"/versions/") {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (version, rest) = rest.split_at_checked(digits).filter(|(version, _)| !version.is_empty())?;
        (Path::Version(version), rest)
    } else if let Some(rest) = strip_prefix(rest, b"/labels/") {
        let (label, rest) = segment(rest, b"/:")?;
        (Path::Label(label), rest)
    } else {
        (Path::Latest, rest)
    };
    let method = match rest.to_ascii_lowercase().as_slice() {
        b"" => Method::GetModelStatus,
        b"/metadata" => Method::GetModelMetadata,
        b":predict" => Method::Predict,
        b":classify" => Method::Classify,
        b":regress" => Method::Regress,
        _ => return None,
    };
    Some(named(method, name, asked))
}

/// `models/NAME[/versions/V][/verb]` and what has no model.
fn inference(rest: &[u8]) -> Option<Kind> {
    let administrative = |path: &[u8]| {
        let path = path.to_ascii_lowercase();
        [&b"repository"[..], b"systemsharedmemory", b"cudasharedmemory", b"trace", b"logging"].iter().any(
            |prefix| path.strip_prefix(*prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/")),
        )
    };
    let Some(rest) = strip_prefix(rest, b"models/") else {
        return administrative(rest).then_some(Kind::Administrative);
    };
    let (name, rest) = segment(rest, b"/")?;
    if name.eq_ignore_ascii_case(b"stats") && rest.is_empty() {
        return None;
    }
    let (asked, rest) = match strip_prefix(rest, b"/versions/") {
        Some(rest) => {
            let (version, rest) = segment(rest, b"/")?;
            (Path::Version(version), rest)
        }
        None => (Path::Latest, rest),
    };
    let method = match rest.to_ascii_lowercase().as_slice() {
        b"" => Method::ModelMetadata,
        b"/infer" => Method::ModelInfer,
        b"/generate" => Method::Generate,
        b"/generate_stream" => Method::GenerateStream,
        b"/ready" => Method::ModelReady,
        b"/config" => Method::ModelConfig,
        b"/stats" => Method::ModelStatistics,
        b"/trace/setting" => return Some(Kind::Administrative),
        _ => return None,
    };
    Some(named(method, name, asked))
}

/// What a path asks for, not yet decoded.
#[derive(Clone, Copy)]
enum Path<'a> {
    Latest,
    Version(&'a [u8]),
    Label(&'a [u8]),
}

fn named(method: Method, name: &[u8], asked: Path<'_>) -> Kind {
    const NOT_UTF8: &str = "the path names the model or the label in bytes that are not UTF-8";
    let Some(name) = decode(name) else {
        return Kind::MalformedPath(NOT_UTF8);
    };
    let asked = match asked {
        Path::Latest => Asked::Latest,
        Path::Version(version) => match decode(version).map(|text| Version::parse(&text)) {
            Some(Version::Text(text)) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Kind::MalformedPath("the path asks for a version above 9223372036854775807");
            }
            Some(version) => Asked::Version(version),
            None => return Kind::MalformedPath("the path asks for a version in bytes that are not UTF-8"),
        },
        Path::Label(label) => match decode(label) {
            Some(label) => Asked::Label(label.into()),
            None => return Kind::MalformedPath(NOT_UTF8),
        },
    };
    Kind::Rest { method, spec: ModelSpec { name, asked, signature: String::new() } }
}

/// Splits off what comes before the first of `ends`; there must be something.
fn segment<'a>(path: &'a [u8], ends: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let end = path.iter().position(|byte| ends.contains(byte)).unwrap_or(path.len());
    path.split_at_checked(end).filter(|(segment, _)| !segment.is_empty())
}

fn strip_prefix<'a>(path: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = path.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Decodes `%41`; a `%` that two hexadecimal digits do not follow stands for itself.
fn decode(text: &[u8]) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let hex = match (byte, after) {
            (b'%', [high, low, ..]) => digit(*high).zip(digit(*low)),
            _ => None,
        };
        if let Some((high, low)) = hex {
            decoded.push((high << 4) | low);
            rest = after.get(2..).unwrap_or_default();
        } else {
            decoded.push(byte);
            rest = after;
        }
    }
    String::from_utf8(decoded).ok()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Shows a reading as `Method name asked`.
    #[track_caller]
    fn check(path: &str, expected: &str) {
        let shown = match read(path.as_bytes()) {
            Kind::Rest { method, spec } => {
                let asked = match spec.asked {
                    Asked::Latest => "latest".to_owned(),
                    Asked::Version(version) => format!("version {version}"),
                    Asked::Label(label) => format!("label {label}"),
                };
                format!("{} {} {asked}", method.name(), spec.name)
            }
            Kind::Administrative => "administrative".to_owned(),
            Kind::Modelless => "no model".to_owned(),
            Kind::MalformedPath(_) => "malformed".to_owned(),
            other => format!("{other:?}"),
        };
        assert_eq!(shown, expected, "{path}");
    }

    #[test]
    fn serving_paths_are_read_as_the_server_reads_them() {
        check("/v1/models/resnet:predict", "Predict resnet latest");
        check("/v1/models/resnet/versions/2:classify", "Classify resnet version 2");
        check("/v1/models/resnet/versions/007:predict", "Predict resnet version 7");
        check("/v1/models/resnet/labels/canary:regress", "Regress resnet label canary");
        check("/v1/models/resnet", "GetModelStatus resnet latest");
        check("/v1/models/resnet/versions/2/metadata", "GetModelMetadata resnet version 2");
        check("/V1/Models/res%6eet:predict", "Predict resnet latest");
        check("/v1/models/a%2Fb%3ac:predict", "Predict a/b:c latest");
        check("/v1/models/resnet?x=1", "GetModelStatus resnet?x=1 latest");
        check("/v1/models/50%:predict", "Predict 50% latest");
    }

    #[test]
    fn paths_that_the_server_does_not_match_name_no_model() {
        check("/v1/models", "no model");
        check("/v1/models/", "no model");
        check("/v1/models/:predict", "no model");
        check("/v1/models/resnet:explain", "no model");
        check("/v1/models/resnet:predict?x=1", "no model");
        check("/v1/models/resnet/versions/:predict", "no model");
        check("/v1/models/resnet/versions/x:predict", "no model");
        check("/v1/models/resnet/labels/canary/metadata/x", "no model");
        check("/v1/mod%65ls/resnet:predict", "no model");
        check("/monitoring/prometheus/metrics", "no model");
    }

    #[test]
    fn a_version_or_a_name_that_no_server_can_read_is_malformed() {
        check("/v1/models/resnet/versions/9223372036854775808:predict", "malformed");
        check("/v1/models/%ff:predict", "malformed");
        check("/v1/models/m/labels/%ff:predict", "malformed");
    }

    #[test]
    fn inference_paths_name_a_model_or_the_server() {
        check("/v2/models/echo/infer?x=/y", "ModelInfer echo latest");
        check("/v2/models/echo/versions/v2/ready", "ModelReady echo version v2");
        check("/v2/models/a:b", "ModelMetadata a:b latest");
        check("/v2/models/echo/generate_stream", "GenerateStream echo latest");
        check("/v2/models/stats", "no model");
        check("/v2", "no model");
        check("/v2/health/ready", "no model");
        check("/v2/models/echo/trace/setting", "administrative");
        check("/v2/repository/index", "administrative");
        check("/v2/logging", "administrative");
        check("/v2/loggings", "no model");
    }
}
