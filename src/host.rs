//! What a decision asks the host for, beside headers and body.

use crate::units::WallTime;

/// The host of one request. Each answer costs a call, so nothing is asked that the configuration does not need.
pub trait Host {
    /// Address and port of the caller, as Envoy's `source.address`.
    fn source_address(&self) -> Option<Vec<u8>>;

    /// The first URI, or else the first DNS, subject alternative name of the caller's certificate.
    fn peer_san(&self) -> Option<Vec<u8>>;

    /// A claim of the token that `jwt_authn` verified, where its `payload_in_metadata` is `payload`.
    fn jwt_claim(&self, claim: &str) -> Option<Vec<u8>>;

    /// The highest wall time seen, so that a clock which is put back moves nobody.
    fn wall_time(&self) -> WallTime;
}

/// A host that knows nothing, at the beginning of time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Host for Silent {
    fn source_address(&self) -> Option<Vec<u8>> {
        None
    }

    fn peer_san(&self) -> Option<Vec<u8>> {
        None
    }

    fn jwt_claim(&self, _: &str) -> Option<Vec<u8>> {
        None
    }

    fn wall_time(&self) -> WallTime {
        WallTime::default()
    }
}
