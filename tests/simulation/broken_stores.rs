//! Shared data as it must not be, for tests that show that a law would be broken by it.

use predictgate::store::{Conflict, MemStore, SharedStore, Version};

/// A store that takes "not there" for "whatever is there", as token 0 of proxy-wasm would.
#[derive(Default)]
pub struct Overwriting(MemStore);

impl SharedStore for Overwriting {
    fn load(&self, key: &str) -> (Option<Vec<u8>>, Version) {
        self.0.load(key)
    }

    fn store(&self, key: &str, value: &[u8], version: Version) -> Result<(), Conflict> {
        let version = if version == Version::Absent { self.0.load(key).1 } else { version };
        self.0.store(key, value, version)
    }
}

/// A store in which the last who writes wins.
#[derive(Default)]
pub struct Blind(MemStore);

impl SharedStore for Blind {
    fn load(&self, key: &str) -> (Option<Vec<u8>>, Version) {
        self.0.load(key)
    }

    fn store(&self, key: &str, value: &[u8], _: Version) -> Result<(), Conflict> {
        self.0.store(key, value, self.0.load(key).1)
    }
}
