//! What is changed on a request that goes to a target: its headers, and what it names.

use super::Body;
use super::decide::Destination;
use crate::headers::Headers;
use crate::identity::{Scanner, splice};
use crate::policy::{Policy, Rewrite};
use crate::verdict::{Forward, LocalReply, Reason};

pub const CLUSTER_HEADER: &str = "x-predictgate-cluster";
/// For `request_mirror_policies[].cluster_header`.
pub const MIRROR_HEADER: &str = "x-predictgate-mirror-cluster";
pub const TARGET_HEADER: &str = "x-predictgate-target";

/// The headers to set on a request that goes to a target, or anywhere.
pub fn headers<'p>(policy: &'p Policy, forward: &'p Forward) -> impl Iterator<Item = (&'p str, &'p str)> {
    let model = forward.to.and_then(|to| policy.models.get(to.model.0 as usize));
    let target = forward.to.zip(model).and_then(|(to, model)| model.targets.get(usize::from(to.target.0)));
    let route = forward.to.zip(model).and_then(|(to, model)| model.routes.get(usize::from(to.route.0)));
    let mirror =
        route.and_then(|route| route.mirror.as_ref()).filter(|_| forward.to.is_some_and(|to| to.is_mirrored));
    let own = [
        target.map(|target| (TARGET_HEADER, &*target.name)),
        target.and_then(|target| Some((CLUSTER_HEADER, target.cluster.as_deref()?))),
        mirror.map(|mirror| (MIRROR_HEADER, &*mirror.cluster)),
    ];
    let more = target.map_or(&[][..], |target| &target.headers);
    let more = more.iter().map(|(name, value)| (&**name, &**value));
    own.into_iter().flatten().chain(more).chain(forward.path.as_deref().map(|path| (":path", path)))
}

/// Towards a target.
pub fn to(destination: Destination<'_>) -> Forward {
    Forward { to: Some(destination.to), ..Forward::default() }
}

/// Rewrites the path.
pub fn with_path(mut forward: Forward, headers: &Headers, rewrite: &Rewrite) -> Result<Forward, LocalReply> {
    let path = headers.get(":path").and_then(|path| str::from_utf8(path).ok());
    let path = path.and_then(|path| splice::path(path, rewrite)).ok_or_else(|| {
        impossible("the path of this request cannot name what the configuration wants the server to be asked")
    })?;
    forward.path = Some(path);
    Ok(forward)
}

/// Rewrites the message, of which `body` holds everything so far.
pub fn with_message(
    mut forward: Forward,
    scanner: &mut Scanner,
    body: &mut Body<'_>,
    rewrite: &Rewrite,
) -> Result<Forward, LocalReply> {
    let (layout, at) = scanner.splice_point().ok_or_else(|| {
        impossible("the identity of a compressed, streaming or multi-task message cannot be rewritten")
    })?;
    let field = splice::field(layout, rewrite).ok_or_else(|| {
        impossible("a message of this method cannot name what the configuration wants the server to be asked")
    })?;
    let whole = (body.read)(0, body.length).filter(|whole| whole.len() == body.length);
    let spliced = whole.and_then(|whole| splice::splice(&whole, at, &field));
    forward.body =
        Some(spliced.ok_or_else(|| impossible("the identity is not within the bytes that are held"))?);
    scanner.rewritten();
    Ok(forward)
}

/// Whether the headers tell how long the body is.
pub fn declares_length(headers: &Headers) -> bool {
    headers.get("content-length").is_some()
}

pub fn declared_length() -> LocalReply {
    impossible("a message of a declared length cannot be rewritten once its headers have gone on")
}

pub fn late_identity() -> LocalReply {
    impossible("the identity is not within the first piece of the message")
}

pub fn impossible(message: &'static str) -> LocalReply {
    LocalReply::new(Reason::RewriteImpossible, message)
}
