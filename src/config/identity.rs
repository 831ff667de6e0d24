//! `identity`: how the model of a request is found out.

use std::time::Duration;

use super::at::At;
use super::words::quote;
use super::{OTHERWISE, time};
use crate::policy::{Compressed, GrpcIdentity, Identity, Otherwise};

const MAX_HOLD: Duration = Duration::from_secs(60);

impl Default for Identity {
    fn default() -> Self {
        Self {
            grpc: GrpcIdentity::Body,
            verify_body: true,
            on_unknown: Otherwise::Reject,
            compressed: Compressed::Scan,
            model_header: "x-model-name".into(),
            version_header: "x-model-version".into(),
            label_header: "x-model-label".into(),
            max_peek_bytes: 65_536,
            max_inflate_bytes: 16_777_216,
            hold_timeout: Duration::from_secs(1),
            on_hold_timeout: Otherwise::Reject,
            max_held: 1024,
        }
    }
}

#[inline(never)]
pub fn identity(at: At<'_>) -> Option<Identity> {
    let object = at.object(&[
        "grpc",
        "verify_body",
        "on_unknown",
        "contradiction",
        "compressed",
        "model_header",
        "version_header",
        "label_header",
        "max_peek_bytes",
        "max_inflate_bytes",
        "hold_timeout",
        "on_hold_timeout",
        "max_held",
    ])?;
    let get = |key| object.get(key);
    // A request whose parts contradict each other is always refused; the key says so to whoever reads the file.
    get("contradiction").and_then(|it| it.choice(&[("reject", ())]));
    let or = Identity::default();
    let identity = Identity {
        grpc: get("grpc").and_then(|it| it.choice(&GRPC)).unwrap_or(or.grpc),
        verify_body: get("verify_body").and_then(At::flag).unwrap_or(or.verify_body),
        on_unknown: get("on_unknown").and_then(|it| it.choice(&OTHERWISE)).unwrap_or(or.on_unknown),
        compressed: get("compressed").and_then(|it| it.choice(&COMPRESSED)).unwrap_or(or.compressed),
        model_header: get("model_header").and_then(At::header_name).unwrap_or(or.model_header),
        version_header: get("version_header").and_then(At::header_name).unwrap_or(or.version_header),
        label_header: get("label_header").and_then(At::header_name).unwrap_or(or.label_header),
        // Five bytes are the prefix of a gRPC message.
        max_peek_bytes: get("max_peek_bytes")
            .and_then(|it| it.whole(5..=1 << 20))
            .unwrap_or(or.max_peek_bytes),
        max_inflate_bytes: get("max_inflate_bytes")
            .and_then(|it| it.whole(5..=1 << 30))
            .unwrap_or(or.max_inflate_bytes),
        hold_timeout: get("hold_timeout")
            .and_then(|it| it.duration(time::SHORTEST..=MAX_HOLD))
            .unwrap_or(or.hold_timeout),
        on_hold_timeout: get("on_hold_timeout")
            .and_then(|it| it.choice(&OTHERWISE))
            .unwrap_or(or.on_hold_timeout),
        max_held: get("max_held").and_then(|it| it.whole(1..=1 << 16)).unwrap_or(or.max_held),
    };
    check_headers_differ(at, &identity);
    Some(identity)
}

const GRPC: [(&str, GrpcIdentity); 2] = [("body", GrpcIdentity::Body), ("metadata", GrpcIdentity::Metadata)];

const COMPRESSED: [(&str, Compressed); 3] =
    [("scan", Compressed::Scan), ("first", Compressed::First), ("reject", Compressed::Reject)];

#[inline(never)]
fn check_headers_differ(at: At<'_>, identity: &Identity) {
    let Identity { model_header, version_header, label_header, .. } = identity;
    for (one, other, name) in [
        ("model_header", "version_header", (model_header, version_header)),
        ("model_header", "label_header", (model_header, label_header)),
        ("version_header", "label_header", (version_header, label_header)),
    ] {
        if name.0 == name.1 {
            at.report(format!("{} is both \"{one}\" and \"{other}\"", quote(name.0)));
        }
    }
}
