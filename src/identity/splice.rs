//! Rewrites the identity of a request: in the first bytes of its message, or in its path.
//!
//! In a message nothing is replaced. A field is added behind the last one that names the model, and the merging
//! rules of protobuf do the rest: the last value of a string wins, so does the last member of a oneof, and every
//! other field of a `model_spec`, unknown ones too, stays as the client sent it.
//! Source: <https://protobuf.dev/programming-guides/encoding/#last-one-wins>.

use super::Layout;
use crate::policy::Rewrite;
use crate::units::{Asked, Version};

/// The bytes of a gRPC message's prefix: the compression flag and the length.
pub const PREFIX: usize = 5;

/// The field that makes a message of `layout` name what `rewrite` says.
///
/// None when such a message cannot say it: a label or a signature in the Open Inference Protocol, a version that
/// is not a number in TensorFlow Serving's. Nor can a `MultiInferenceRequest`, all of whose tasks name the model.
pub fn field(layout: Layout, rewrite: &Rewrite) -> Option<Vec<u8>> {
    let mut fields = Vec::new();
    match layout {
        Layout::FirstTask => return None,
        Layout::ModelSpec => {
            let mut spec = Vec::new();
            if let Some(model) = &rewrite.model {
                push(&mut spec, 1, model.as_bytes());
            }
            match &rewrite.asked {
                Some(Asked::Version(Version::Number(number))) => {
                    let mut wrapper = vec![VARINT_FIELD_1];
                    push_varint(&mut wrapper, number.cast_unsigned());
                    push(&mut spec, 2, &wrapper);
                }
                Some(Asked::Label(label)) => push(&mut spec, 4, label.as_bytes()),
                Some(Asked::Version(Version::Text(_)) | Asked::Latest) => return None,
                None => {}
            }
            if let Some(signature) = &rewrite.signature {
                push(&mut spec, 3, signature.as_bytes());
            }
            push(&mut fields, 1, &spec);
        }
        Layout::NameAndVersion => {
            if let Some(model) = &rewrite.model {
                push(&mut fields, 1, model.as_bytes());
            }
            match &rewrite.asked {
                Some(Asked::Version(version)) => push(&mut fields, 2, version.to_string().as_bytes()),
                Some(Asked::Label(_) | Asked::Latest) => return None,
                None => {}
            }
            if rewrite.signature.is_some() {
                return None;
            }
        }
    }
    Some(fields)
}

/// Adds `field` to the first message of `body`, `at` so many bytes behind its prefix, and corrects its length.
///
/// None when `body` does not reach so far, or when the message grows too long for its prefix.
pub fn splice(body: &[u8], at: usize, field: &[u8]) -> Option<Vec<u8>> {
    let (&[flag, ref length @ ..], message) = body.split_first_chunk::<PREFIX>()?;
    let (before, after) = message.split_at_checked(at)?;
    let length = u32::from_be_bytes(*length).checked_add(u32::try_from(field.len()).ok()?)?;
    let mut spliced = Vec::with_capacity(body.len().saturating_add(field.len()));
    spliced.push(flag);
    spliced.extend(length.to_be_bytes());
    spliced.extend([before, field, after].concat());
    Some(spliced)
}

/// The path that names what `rewrite` says instead of what `path` names.
///
/// None for a signature, which no path holds, and for a label outside TensorFlow Serving's paths.
pub fn path(path: &str, rewrite: &Rewrite) -> Option<String> {
    if rewrite.signature.is_some() {
        return None;
    }
    // The query is part of TensorFlow Serving's paths, as `call::rest` says.
    let serving = path.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("/v1/"));
    let (path, query) = match path.split_once('?') {
        Some((path, query)) if !serving => (path, Some(query)),
        _ => (path, None),
    };
    let mut segments = path.splitn(5, '/');
    let (root, protocol, models) = (segments.next()?, segments.next()?, segments.next()?);
    let (name, rest) = match segments.next()? {
        // Only TensorFlow Serving's paths end in `:verb`; `:` is part of a name elsewhere.
        last if serving => last.split_at_checked(last.find(':').unwrap_or(last.len()))?,
        name => (name, ""),
    };
    let more = segments.next();
    let (asked, rest) = match more.and_then(|more| more.split_once('/')) {
        Some((kind, value)) if is_asked(kind) => {
            let end = value.find(if serving { &['/', ':'][..] } else { &['/'] }).unwrap_or(value.len());
            let (value, rest) = value.split_at_checked(end)?;
            (Some((kind, value)), rest.to_owned())
        }
        _ => (None, more.map_or_else(|| rest.to_owned(), |more| ["/", more].concat())),
    };
    let mut text = [root, protocol, models].join("/");
    text.push('/');
    match &rewrite.model {
        Some(model) => push_escaped(&mut text, model),
        None => text.push_str(name),
    }
    match (&rewrite.asked, asked) {
        (Some(Asked::Version(version)), _) => {
            text.push_str("/versions/");
            push_escaped(&mut text, &version.to_string());
        }
        (Some(Asked::Label(label)), _) if serving => {
            text.push_str("/labels/");
            push_escaped(&mut text, label);
        }
        (Some(_), _) => return None,
        (None, Some((kind, value))) => text.extend(["/", kind, "/", value]),
        (None, None) => {}
    }
    text.push_str(&rest);
    if let Some(query) = query {
        text.extend(["?", query]);
    }
    Some(text)
}

fn is_asked(segment: &str) -> bool {
    segment.eq_ignore_ascii_case("versions") || segment.eq_ignore_ascii_case("labels")
}

/// Percent-encodes what is not unreserved (RFC 3986 section 2.3).
fn push_escaped(text: &mut String, segment: &str) {
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            text.push('%');
            for half in [byte >> 4, byte & 15] {
                text.extend(char::from_digit(u32::from(half), 16).map(|digit| digit.to_ascii_uppercase()));
            }
        }
    }
}

/// The tag of a varint in field 1.
const VARINT_FIELD_1: u8 = 1 << 3;
const LENGTH_DELIMITED: u8 = 2;

/// Adds a length-delimited field whose number is below 16.
fn push(message: &mut Vec<u8>, number: u8, content: &[u8]) {
    message.push(number << 3 | LENGTH_DELIMITED);
    push_varint(message, content.len() as u64);
    message.extend_from_slice(content);
}

fn push_varint(message: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        message.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    message.push(value.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn to(model: Option<&str>, asked: Option<Asked>, signature: Option<&str>) -> Rewrite {
        Rewrite { model: model.map(Into::into), asked, signature: signature.map(Into::into) }
    }

    fn version(number: i64) -> Asked {
        Asked::Version(Version::Number(number))
    }

    #[test]
    fn a_model_spec_is_merged_onto_the_clients() {
        let rewrite = to(Some("m"), Some(version(300)), Some("s"));
        let expected = b"\x0a\x0b\x0a\x01m\x12\x03\x08\xac\x02\x1a\x01s";
        assert_eq!(field(Layout::ModelSpec, &rewrite).as_deref(), Some(&expected[..]));
        let label = to(None, Some(Asked::Label("l".into())), None);
        assert_eq!(field(Layout::ModelSpec, &label).as_deref(), Some(&b"\x0a\x03\x22\x01l"[..]));
        assert_eq!(field(Layout::NameAndVersion, &label), None);
        let text = to(None, Some(Asked::Version(Version::Text("v2".into()))), None);
        assert_eq!(field(Layout::ModelSpec, &text), None);
        assert_eq!(field(Layout::NameAndVersion, &text).as_deref(), Some(&b"\x12\x02v2"[..]));
        assert_eq!(field(Layout::FirstTask, &text), None);
    }

    #[test]
    fn the_length_of_the_message_grows_with_it() {
        let spliced = splice(&[0, 0, 0, 0, 255, 1, 2, 3], 2, &[9, 9]);
        assert_eq!(spliced, Some(vec![0, 0, 0, 1, 1, 1, 2, 9, 9, 3]));
        assert_eq!(splice(&[0, 0, 0, 0, 255, 1], 2, &[9]), None);
        assert_eq!(splice(&[0, 255, 255, 255, 255, 1], 1, &[9]), None);
        assert_eq!(splice(&[0, 0], 0, &[9]), None);
    }

    #[track_caller]
    fn check(from: &str, rewrite: &Rewrite, expected: Option<&str>) {
        assert_eq!(path(from, rewrite).as_deref(), expected, "{from}");
    }

    #[test]
    fn a_path_keeps_what_is_not_rewritten() {
        let model = to(Some("a/b c"), None, None);
        check("/v1/models/m:predict", &model, Some("/v1/models/a%2Fb%20c:predict"));
        check(
            "/v1/models/m/versions/1:predict?x=/y",
            &model,
            Some("/v1/models/a%2Fb%20c/versions/1:predict?x=/y"),
        );
        check("/V1/Models/m/Labels/l/metadata", &model, Some("/V1/Models/a%2Fb%20c/Labels/l/metadata"));
        check("/v1/models/m/metadata", &model, Some("/v1/models/a%2Fb%20c/metadata"));
        check("/v1/models/m", &model, Some("/v1/models/a%2Fb%20c"));
        check("/v2/models/m/infer?x=/y", &model, Some("/v2/models/a%2Fb%20c/infer?x=/y"));
        check("/v2/models/m:n/versions/1/infer", &model, Some("/v2/models/a%2Fb%20c/versions/1/infer"));
    }

    #[test]
    fn a_version_or_label_takes_the_place_of_what_was_asked() {
        let two = to(None, Some(version(2)), None);
        check("/v1/models/m:predict", &two, Some("/v1/models/m/versions/2:predict"));
        check("/v1/models/m/labels/x:predict", &two, Some("/v1/models/m/versions/2:predict"));
        check("/v1/models/m/metadata", &two, Some("/v1/models/m/versions/2/metadata"));
        check("/v2/models/m/versions/1", &two, Some("/v2/models/m/versions/2"));
        check("/v2/models/m", &two, Some("/v2/models/m/versions/2"));
        let label = to(None, Some(Asked::Label("c".into())), None);
        check("/v1/models/m/versions/1:predict", &label, Some("/v1/models/m/labels/c:predict"));
        check("/v2/models/m/infer", &label, None);
        check("/v1/models/m:predict", &to(None, None, Some("s")), None);
    }
}
