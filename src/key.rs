//! Where the key of a sticky split or of a rate limit comes from.

use crate::headers::Headers;
use crate::host::Host;
use crate::method::Method;
use crate::siphash::siphash;
use crate::units::Asked;

/// One part of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// A request header, in lower case; every value counts, and a missing one is a value of its own.
    Header(Box<str>),
    /// A claim of the token that Envoy's `jwt_authn` verified.
    JwtClaim(Box<str>),
    /// The caller's address without the port.
    SourceIp,
    /// The subject alternative name of the caller's certificate.
    PeerSan,
    /// The asked model name.
    Model,
    /// The asked version; none is a value of its own.
    Version,
    Method,
}

/// What keys are made of.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    pub headers: &'a Headers,
    pub method: Method,
    /// The asked model name.
    pub model: &'a str,
    pub asked: &'a Asked,
    pub host: &'a dyn Host,
}

impl KeySource {
    /// Whether it says who calls, and not only what is called.
    const fn is_of_caller(&self) -> bool {
        match self {
            Self::Header(_) | Self::JwtClaim(_) | Self::SourceIp | Self::PeerSan => true,
            Self::Model | Self::Version | Self::Method => false,
        }
    }
}

/// Adds the key of a caller to `key`, and tells whether any part was there that says who calls, where the key has such
/// parts.
///
/// Each part is a number of values, then each value behind its length, so that two callers have the same bytes only
/// when every part of their keys is the same. All numbers are of 32 bits, little-endian.
pub fn read(sources: &[KeySource], caller: &Caller<'_>, key: &mut Vec<u8>) -> bool {
    let (mut of_caller, mut found) = (false, false);
    for source in sources {
        let any = part(source, caller, key);
        of_caller |= source.is_of_caller();
        found |= any && source.is_of_caller();
    }
    found || !of_caller
}

/// Adds a part, and tells whether it was there.
fn part(source: &KeySource, caller: &Caller<'_>, key: &mut Vec<u8>) -> bool {
    let mut one = |bytes: Option<&[u8]>| values(key, bytes.into_iter());
    match source {
        KeySource::Header(name) => values(key, caller.headers.all(name)),
        KeySource::JwtClaim(claim) => one(caller.host.jwt_claim(claim).as_deref()),
        KeySource::SourceIp => one(caller.host.source_address().as_deref().map(without_port)),
        KeySource::PeerSan => one(caller.host.peer_san().as_deref()),
        KeySource::Model => one(Some(caller.model.as_bytes())),
        KeySource::Version => match caller.asked {
            Asked::Version(version) => one(Some(version.to_string().as_bytes())),
            Asked::Latest | Asked::Label(_) => one(None),
        },
        KeySource::Method => one(Some(caller.method.name().as_bytes())),
    }
}

fn values<'v>(key: &mut Vec<u8>, values: impl Iterator<Item = &'v [u8]>) -> bool {
    let count_at = key.len();
    key.extend_from_slice(&number(0));
    let mut count = 0_usize;
    for value in values {
        count = count.saturating_add(1);
        key.extend_from_slice(&number(value.len()));
        key.extend_from_slice(value);
    }
    if let Some(place) = key.get_mut(count_at..).and_then(<[u8]>::first_chunk_mut) {
        *place = number(count);
    }
    count > 0
}

fn number(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}

/// Tells callers apart by their address, whatever the port.
pub fn address_hash(address: &[u8]) -> u64 {
    siphash(0, without_port(address))
}

/// The address of `192.0.2.1:50051` or `[2001:db8::1]:50051`; what has no port, such as the path of a pipe, is whole.
fn without_port(address: &[u8]) -> &[u8] {
    let colon = address.iter().rposition(|byte| *byte == b':');
    let Some((host, port)) = colon.and_then(|at| address.split_at_checked(at)) else { return address };
    if let [b'[', inner @ .., b']'] = host {
        return inner;
    }
    let port = port.strip_prefix(b":").unwrap_or(port);
    let is_port = !port.is_empty() && port.iter().all(u8::is_ascii_digit);
    if is_port && !host.contains(&b':') { host } else { address }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Silent;
    use crate::store::SharedStore;
    use crate::units::{Instant, Version, WallTime};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[derive(Default)]
    struct Told(Silent);

    impl Host for Told {
        fn source_address(&self) -> Option<Vec<u8>> {
            Some(b"[2001:db8::1]:443".to_vec())
        }

        fn peer_san(&self) -> Option<Vec<u8>> {
            Some(b"spiffe://lab/client".to_vec())
        }

        fn jwt_claim(&self, claim: &str) -> Option<Vec<u8>> {
            (claim == "sub").then(|| b"ada".to_vec())
        }

        fn wall_time(&self) -> WallTime {
            self.0.wall_time()
        }

        fn now(&self) -> Instant {
            self.0.now()
        }

        fn store(&self) -> &dyn SharedStore {
            self.0.store()
        }
    }

    #[track_caller]
    fn check(sources: &[KeySource], pairs: &[(&str, &[u8])], host: &dyn Host, expected: &[&[&[u8]]]) -> bool {
        let headers = Headers::from_pairs(pairs);
        let asked = Asked::Version(Version::Number(7));
        let caller =
            Caller { headers: &headers, method: Method::Predict, model: "resnet", asked: &asked, host };
        let (mut key, mut bytes) = (Vec::new(), Vec::new());
        let is_found = read(sources, &caller, &mut key);
        for values in expected {
            bytes.extend(number(values.len()));
            for value in *values {
                bytes.extend(number(value.len()));
                bytes.extend_from_slice(value);
            }
        }
        assert_eq!(key, bytes);
        is_found
    }

    fn header(name: &str) -> KeySource {
        KeySource::Header(name.into())
    }

    #[test]
    fn every_value_of_a_header_counts_whatever_its_bytes() {
        let pairs: [(&str, &[u8]); 3] = [("x-user", b"\xff\x00"), ("x-other", b"o"), ("x-user", b"b")];
        assert!(check(&[header("x-user")], &pairs, &Silent::default(), &[&[b"\xff\x00", b"b"]]));
    }

    #[test]
    fn a_missing_part_is_another_key_than_an_empty_one() {
        assert!(check(
            &[header("x-user"), header("x-device")],
            &[("x-device", b"")],
            &Silent::default(),
            &[&[], &[b""]]
        ));
        assert!(!check(&[header("x-user")], &[], &Silent::default(), &[&[]]));
        let told = [KeySource::SourceIp, KeySource::PeerSan, KeySource::JwtClaim("sub".into())];
        assert!(!check(&told, &[], &Silent::default(), &[&[], &[], &[]]));
    }

    #[test]
    fn the_request_and_the_host_are_sources_too() {
        let sources = [
            KeySource::SourceIp,
            KeySource::PeerSan,
            KeySource::JwtClaim("sub".into()),
            KeySource::JwtClaim("missing".into()),
            KeySource::Model,
            KeySource::Version,
            KeySource::Method,
        ];
        let expected: [&[&[u8]]; 7] = [
            &[b"2001:db8::1"],
            &[b"spiffe://lab/client"],
            &[b"ada"],
            &[],
            &[b"resnet"],
            &[b"7"],
            &[b"Predict"],
        ];
        assert!(check(&sources, &[], &Told::default(), &expected));
    }

    #[test]
    fn what_is_called_does_not_tell_who_calls() {
        assert!(!check(&[header("x-user"), KeySource::Model], &[], &Silent::default(), &[&[], &[b"resnet"]]));
        assert!(check(&[KeySource::Model], &[], &Silent::default(), &[&[b"resnet"]]));
    }

    #[test]
    fn a_port_is_no_part_of_an_address() {
        for (address, expected) in [
            ("192.0.2.1:50051", "192.0.2.1"),
            ("[2001:db8::1]:50051", "2001:db8::1"),
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("/run/envoy.sock", "/run/envoy.sock"),
            ("host:", "host:"),
            ("", ""),
        ] {
            assert_eq!(without_port(address.as_bytes()), expected.as_bytes(), "{address}");
        }
    }
}
