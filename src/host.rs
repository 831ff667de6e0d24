//! What a decision asks the host for, beside headers and body.

use crate::store::{MemStore, SharedStore};
use crate::units::{Instant, WallTime};

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

    /// The monotonic clock, for what cannot wait for the next callback.
    fn now(&self) -> Instant;

    /// What all workers have in common.
    fn store(&self) -> &dyn SharedStore;
}

/// A host that knows nothing, at the beginning of time, and has one worker.
#[derive(Debug, Default)]
pub struct Silent {
    store: MemStore,
}

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

    fn now(&self) -> Instant {
        Instant::default()
    }

    fn store(&self) -> &dyn SharedStore {
        &self.store
    }
}
