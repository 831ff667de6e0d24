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

/// The key of a caller, in bytes.
///
/// Each part is a number of values, then each value behind its length, so that two callers have the same bytes only
/// when every part of their keys is the same. All numbers are of 32 bits, little-endian.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key {
    bytes: Vec<u8>,
    found: bool,
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

impl Key {
    pub fn read(sources: &[KeySource], caller: &Caller<'_>) -> Self {
        let mut key = Self { bytes: Vec::new(), found: !sources.iter().any(KeySource::is_of_caller) };
        for source in sources {
            let any = key.part(source, caller);
            key.found |= any && source.is_of_caller();
        }
        key
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether any part was there that says who calls, where the key has such parts.
    pub const fn is_found(&self) -> bool {
        self.found
    }

    /// Adds a part, and tells whether it was there.
    fn part(&mut self, source: &KeySource, caller: &Caller<'_>) -> bool {
        match source {
            KeySource::Header(name) => self.values(caller.headers.all(name)),
            KeySource::JwtClaim(claim) => self.value(caller.host.jwt_claim(claim).as_deref()),
            KeySource::SourceIp => self.value(caller.host.source_address().as_deref().map(without_port)),
            KeySource::PeerSan => self.value(caller.host.peer_san().as_deref()),
            KeySource::Model => self.value(Some(caller.model.as_bytes())),
            KeySource::Version => match caller.asked {
                Asked::Version(version) => self.value(Some(version.to_string().as_bytes())),
                Asked::Latest | Asked::Label(_) => self.value(None),
            },
            KeySource::Method => self.value(Some(caller.method.name().as_bytes())),
        }
    }

    fn value(&mut self, value: Option<&[u8]>) -> bool {
        self.values(value.into_iter())
    }

    fn values<'v>(&mut self, values: impl Iterator<Item = &'v [u8]>) -> bool {
        let count_at = self.bytes.len();
        self.number(0);
        let mut count = 0_usize;
        for value in values {
            count = count.saturating_add(1);
            self.number(value.len());
            self.bytes.extend_from_slice(value);
        }
        if let Some(place) = self.bytes.get_mut(count_at..count_at.saturating_add(4)) {
            place.copy_from_slice(&number(count));
        }
        count > 0
    }

    fn number(&mut self, value: usize) {
        self.bytes.extend_from_slice(&number(value));
    }
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
        let key = Key::read(sources, &caller);
        let mut bytes = Vec::new();
        for values in expected {
            bytes.extend(number(values.len()));
            for value in *values {
                bytes.extend(number(value.len()));
                bytes.extend_from_slice(value);
            }
        }
        assert_eq!(key.bytes(), bytes);
        key.is_found()
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
