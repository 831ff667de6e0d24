//! Where the identity of a request comes from.

use crate::headers::Headers;
use crate::identity::{Compression, Encoding, ModelSpec, Unreadable, Until};
use crate::policy::{Compressed, Policy};
use crate::units::{Asked, Version};

/// Where the identity of a request was found: the label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdentityResult {
    Body,
    Headers,
    Path,
    /// The method names no model.
    None,
    /// The method names a model, but none could be read.
    Unknown,
    Malformed,
    Administrative,
}

impl IdentityResult {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Headers => "headers",
            Self::Path => "path",
            Self::None => "none",
            Self::Unknown => "unknown",
            Self::Malformed => "malformed",
            Self::Administrative => "administrative",
        }
    }
}

/// What the identity headers say, or nothing when none names a model.
pub fn spec_of_headers(policy: &Policy, headers: &Headers) -> Result<Option<ModelSpec>, &'static str> {
    let text = |name: &str| match headers.joined(name) {
        None => Ok(None),
        Some(value) => String::from_utf8(value.into_owned())
            .map(|text| Some(text).filter(|text| !text.is_empty()))
            .map_err(|_| "a header that names the model, version or label is not UTF-8"),
    };
    let identity = &policy.identity;
    let Some(name) = text(&identity.model_header)? else {
        return Ok(None);
    };
    let asked = match (text(&identity.version_header)?, text(&identity.label_header)?) {
        (None, None) => Asked::Latest,
        (Some(version), None) => Asked::Version(Version::parse(&version)),
        (None, Some(label)) => Asked::Label(label.into()),
        (Some(_), Some(_)) => return Err("the headers ask for a version and for a label"),
    };
    Ok(Some(ModelSpec { name, asked, signature: String::new() }))
}

/// What the configuration and the caller's `grpc-encoding` make of compressed messages.
pub fn compression(policy: &Policy, headers: &Headers) -> Compression {
    let until = match policy.identity.compressed {
        Compressed::Reject => return Compression::Unread(Unreadable::Compressed),
        Compressed::Scan => Until::End,
        Compressed::First => Until::Identity,
    };
    match headers.get("grpc-encoding").and_then(Encoding::named) {
        None => Compression::Unread(Unreadable::Encoding),
        Some(encoding) => {
            let most = u64::from(policy.identity.max_inflate_bytes);
            Compression::Inflated { encoding, most, until }
        }
    }
}
