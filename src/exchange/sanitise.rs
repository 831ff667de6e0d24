//! Headers that only the filter may set: a client's own are taken out before anything is decided.

use crate::headers::Headers;
use crate::policy::Policy;

/// Every header with this prefix is the filter's own.
pub const PREFIX: &str = "x-predictgate-";

/// Takes the headers that only the filter may set out of a client's, and names them.
pub fn sanitise(policy: &Policy, headers: Headers) -> (Headers, Vec<String>) {
    if policy.owned_headers.is_empty() && !headers.any_begins(PREFIX) {
        return (headers, Vec::new());
    }
    without_own(policy, headers)
}

#[inline(never)]
fn without_own(policy: &Policy, headers: Headers) -> (Headers, Vec<String>) {
    let explain = policy.explain.as_ref().map(|explain| explain.header.as_bytes());
    let spoofed = |name: &[u8]| {
        (name.starts_with(PREFIX.as_bytes()) && Some(name) != explain)
            || policy.owned_headers.binary_search_by(|owned| owned.as_bytes().cmp(name)).is_ok()
    };
    if !headers.iter().any(|(name, _)| spoofed(name)) {
        return (headers, Vec::new());
    }
    let (mut kept, mut removed) = (Vec::new(), Vec::<String>::new());
    for (name, value) in &headers {
        if !spoofed(name) {
            kept.push((name, value));
        } else if let Ok(name) = str::from_utf8(name)
            && !removed.iter().any(|known| known == name)
        {
            removed.push(name.to_owned());
        }
    }
    (Headers::from_pairs(&kept), removed)
}
