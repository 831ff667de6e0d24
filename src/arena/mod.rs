//! A fixed arena of shared entries, each of which belongs to one owner at a time.
//!
//! Keys of shared data are never removed, so the keys must be bounded whatever configurations come and go.
//! The arena has `pg1/<state_namespace>/<n>` for a fixed number of `n`. Whoever needs an entry claims one
//! (see `claim.rs`) and remembers its [`Place`]; the entry names its owner, and every access looks, in the
//! value that it reads anyway, whether it still does. What no live generation has touched for twice the drain
//! time may be taken by another owner.

#![deny(clippy::arithmetic_side_effects)]

mod claim;
mod entry;

use std::cell::Cell;
use std::time::Duration;

use crate::siphash::siphash;
use crate::store::SharedStore;
use crate::units::Instant;
use entry::{State, Trailer};

/// As many entries as a namespace has unless somebody asks for another number.
pub const ENTRIES: u32 = 8192;

/// How long Envoy lets old connections live after an update (`--drain-time-s`), unless it is told otherwise.
pub const DRAIN: Duration = Duration::from_secs(600);

/// How often a step is tried before the caller goes on without: conflicts come in short bursts.
const ATTEMPTS: usize = 6;

/// The entries of one namespace, as one worker sees them.
#[derive(Clone, Debug)]
pub struct Arena {
    prefix: Box<str>,
    /// A power of two.
    entries: u32,
    /// An entry that nobody touched for so long has no owner that lives.
    stale_after: Duration,
    conflicts: Cell<u64>,
}

/// Whose an entry is: a kind of owner, and which of that kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner(u64);

impl Owner {
    /// Two owners are the same when kind and all parts are.
    pub fn of(kind: &str, parts: &[&[u8]]) -> Self {
        let mut bytes = Vec::new();
        for part in [kind.as_bytes()].iter().chain(parts) {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
        }
        Self(siphash(0, &bytes))
    }
}

/// Where an owner's entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    key: Box<str>,
    owner: Owner,
    /// When the entry was last seen touched.
    touched: Instant,
}

/// Why an owner has no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unclaimed {
    /// All entries that this owner may have belong to others: it goes on with state of its own.
    Full,
    /// Others were faster too often. The next try may succeed.
    Contended,
}

/// Why an entry was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It has another owner now: claim again.
    Lost,
    /// Other workers wrote first, again and again.
    Conflict,
}

/// Whether a step changed what it was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Write,
    Keep,
}

impl Arena {
    /// The arena of `namespace`. `entries` is rounded down to a power of two.
    pub fn new(namespace: &str, entries: u32, drain: Duration) -> Self {
        Self {
            prefix: ["pg1/", namespace, "/"].concat().into(),
            entries: 1_u32.checked_shl(entries.max(1).ilog2()).unwrap_or(1),
            stale_after: drain.saturating_mul(2),
            conflicts: Cell::new(0),
        }
    }

    /// How often another worker wrote first, since this arena was made.
    pub fn conflicts(&self) -> u64 {
        self.conflicts.get()
    }

    /// Shows `read` what the owner keeps.
    ///
    /// # Errors
    ///
    /// Says [`Failed::Lost`] when the entry has another owner now.
    pub fn read<T>(
        &self,
        store: &dyn SharedStore,
        place: &mut Place,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Failed> {
        let mut body = store.load(&place.key).0.unwrap_or_default();
        let trailer = Trailer::cut(&mut body);
        if !trailer.is(State::Owned, place.owner) {
            return Err(Failed::Lost);
        }
        place.touched = trailer.touched;
        Ok(read(&body))
    }

    /// Lets `step` change what the owner keeps, and passes on what else it says. A write touches the entry.
    ///
    /// `step` runs again after each conflict, so it must be a pure function of what it is shown.
    ///
    /// # Errors
    ///
    /// Writes nothing when the entry has another owner, and when others wrote first too often.
    pub fn update<T>(
        &self,
        store: &dyn SharedStore,
        place: &mut Place,
        now: Instant,
        mut step: impl FnMut(&mut Vec<u8>) -> (Then, T),
    ) -> Result<T, Failed> {
        for _ in 0..ATTEMPTS {
            let (value, version) = store.load(&place.key);
            let mut value = value.unwrap_or_default();
            let mut trailer = Trailer::cut(&mut value);
            if !trailer.is(State::Owned, place.owner) {
                return Err(Failed::Lost);
            }
            let (then, answer) = step(&mut value);
            place.touched = trailer.touched;
            if then == Then::Keep {
                return Ok(answer);
            }
            trailer.touched = trailer.touched.max(now);
            trailer.put(&mut value);
            if store.store(&place.key, &value, version).is_ok() {
                place.touched = trailer.touched;
                return Ok(answer);
            }
            self.count_conflict();
        }
        Err(Failed::Conflict)
    }

    /// Keeps the entry from being taken by others. It costs no call of the host unless the last touch that
    /// was seen is a quarter of the drain time ago, so it may be called on every tick.
    ///
    /// # Errors
    ///
    /// As for [`Arena::update`].
    pub fn touch(&self, store: &dyn SharedStore, place: &mut Place, now: Instant) -> Result<(), Failed> {
        if !self.is_due(place.touched, now) {
            return Ok(());
        }
        // Whoever else lives touches it too, and one of them is enough.
        self.read(store, place, |_| ())?;
        if !self.is_due(place.touched, now) {
            return Ok(());
        }
        self.update(store, place, now, |_| (Then::Write, ()))
    }

    fn is_due(&self, touched: Instant, now: Instant) -> bool {
        now.since(touched).saturating_mul(8) >= self.stale_after
    }

    fn count_conflict(&self) {
        self.conflicts.set(self.conflicts.get().wrapping_add(1));
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows stops")]
mod tests;
