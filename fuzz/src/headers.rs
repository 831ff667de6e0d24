//! Header maps as the host serialises them, and what a call's headers say.

use predictgate::call::{Call, Kind};
use predictgate::headers::Headers;

use crate::input::Input;

pub fn run(data: &[u8]) {
    any_map(data);
    any_call(data);
}

/// Whatever the bytes, the pairs that are read are pairs.
fn any_map(data: &[u8]) {
    let headers = Headers::from_bytes(data.to_vec());
    let pairs: Vec<_> = headers.iter().collect();
    assert_eq!(headers.is_empty(), pairs.is_empty());
    let again = Headers::from_pairs(&pairs);
    assert!(again.iter().eq(pairs.iter().copied()), "written again they are the same");
    for (name, _) in &pairs {
        let Ok(name) = str::from_utf8(name) else { continue };
        let first = headers.get(name);
        assert!(first.is_some() && first == headers.all(name).next());
        let joined = headers.all(name).collect::<Vec<_>>().join(&b","[..]);
        assert_eq!(headers.joined(name).as_deref(), Some(&joined[..]));
    }
    Call::read(&headers);
}

fn any_call(data: &[u8]) {
    let mut input = Input::new(data);
    let content_type = input.piece();
    let start = input.pick(&[
        &b""[..],
        b"/v1/models/",
        b"/v2/models/",
        b"/v2/",
        b"/tensorflow.serving.",
        b"/inference.",
    ]);
    let rest = input.rest();
    let path = [start, rest].concat();
    let read = |path: &[u8]| {
        Call::read(&Headers::from_pairs(&[(&b":path"[..], path), (b"content-type", content_type)]))
    };
    let call = read(&path);
    match &call.kind {
        Kind::Rest { spec, .. } => {
            assert!(!spec.name.is_empty(), "a path that names a model names it");
            assert!(spec.signature.is_empty(), "no path names a signature");
            if path.starts_with(b"/v2/") && !path.contains(&b'?') {
                let with_query = [&path[..], b"?x=/versions/3:predict"].concat();
                assert_eq!(read(&with_query), call, "the query is no part of these paths");
            }
        }
        Kind::Grpc { .. } | Kind::ContentType => assert!(!path.contains(&b'?'), "a gRPC path is exact"),
        Kind::Administrative | Kind::Modelless | Kind::MalformedPath(_) => {}
    }
}
