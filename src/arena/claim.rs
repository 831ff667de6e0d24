//! How an owner gets an entry, so that it has one and not two.
//!
//! An owner's entries are looked for in an order that its hash gives, up to the first that does not exist
//! yet. Since keys are never removed, nothing of this owner lies beyond that one. But entries are reclaimed,
//! so two workers that look for the same owner at the same time may see different vacancies, and
//! compare-and-swap guards only one entry. Therefore a claim has two steps: an entry is marked as claimed,
//! then all others are looked at, and only then the claimed one is promoted to owned.
//!
//! Two entries of one owner are never promoted. Say `a` was promoted by P and `b` by Q, and P read `a` as
//! claimed before Q read `b` as claimed. Q looked at `a` after that, found it claimed or owned (P's promotion
//! held, so nobody freed it), and then Q either gave up `b` or freed `a`, which would have made P's promotion
//! fail. Nobody waits for anybody: whoever finds a claim of its owner completes it.

use std::fmt::Write as _;

use super::{Arena, Owner, Place, State, Trailer, Unclaimed};
use crate::store::{SharedStore, Version};
use crate::units::Instant;

/// An owner looks at so many entries at most: of an arena that is nine tenths full all of them are taken once in
/// 0.9^-64, or 850, claims.
const PROBES: u32 = 64;

const ATTEMPTS: usize = 8;

/// What looking for an owner found.
enum Found {
    Owned(u32),
    Claimed(u32),
    /// The first entry that may be taken.
    Vacant(u32, Version),
    Nothing,
}

enum Settled {
    At(u32),
    TryAgain,
}

impl Arena {
    /// The entry of `owner`: the one that it has, whoever claimed it, or else a new one that starts with
    /// `initial`.
    ///
    /// What an owner has may be from long before, when nobody else needed the entry in between.
    /// A claim costs some ten calls of the host, so the place is to be remembered.
    ///
    /// # Errors
    ///
    /// Says why there is none.
    pub fn claim(
        &self,
        store: &dyn SharedStore,
        now: Instant,
        owner: Owner,
        initial: &[u8],
    ) -> Result<Place, Unclaimed> {
        for _ in 0..ATTEMPTS {
            let candidate = match self.look(store, now, owner) {
                Found::Owned(probe) => return Ok(self.place(owner, probe)),
                Found::Claimed(probe) => probe,
                Found::Nothing => return Err(Unclaimed::Full),
                Found::Vacant(probe, version) => {
                    let trailer = Trailer { state: State::Claimed, owner, touched: now };
                    if !self.write(store, owner, probe, initial.to_vec(), trailer, version) {
                        continue;
                    }
                    probe
                }
            };
            match self.settle(store, now, owner, candidate) {
                Settled::At(probe) => return Ok(self.place(owner, probe)),
                Settled::TryAgain => (),
            }
        }
        Err(Unclaimed::Contended)
    }

    fn look(&self, store: &dyn SharedStore, now: Instant, owner: Owner) -> Found {
        let (mut claimed, mut vacant) = (None, None);
        for probe in 0..self.probes() {
            let (value, version) = store.load(&self.key(owner, probe));
            let Some(mut value) = value else {
                vacant = vacant.or(Some((probe, version)));
                break;
            };
            let trailer = Trailer::cut(&mut value);
            if trailer.is(State::Owned, owner) {
                return Found::Owned(probe);
            }
            if trailer.is(State::Claimed, owner) {
                claimed = claimed.or(Some(probe));
            }
            if trailer.state == State::Free || now.since(trailer.touched) >= self.stale_after {
                vacant = vacant.or(Some((probe, version)));
            }
        }
        match (claimed, vacant) {
            (Some(probe), _) => Found::Claimed(probe),
            (None, Some((probe, version))) => Found::Vacant(probe, version),
            (None, None) => Found::Nothing,
        }
    }

    /// Promotes the claim at `candidate` when it is the only one, and takes away what is in its way.
    fn settle(&self, store: &dyn SharedStore, now: Instant, owner: Owner, candidate: u32) -> Settled {
        let (value, version) = store.load(&self.key(owner, candidate));
        let mut body = value.unwrap_or_default();
        let trailer = Trailer::cut(&mut body);
        if trailer.is(State::Owned, owner) {
            return Settled::At(candidate);
        }
        if !trailer.is(State::Claimed, owner) {
            return Settled::TryAgain;
        }
        for probe in (0..self.probes()).filter(|probe| *probe != candidate) {
            let (value, rival_version) = store.load(&self.key(owner, probe));
            let Some(mut value) = value else { break };
            let rival = Trailer::cut(&mut value);
            if rival.is(State::Owned, owner) {
                self.write(store, owner, candidate, Vec::new(), Trailer::FREE, version);
                return Settled::At(probe);
            }
            if rival.is(State::Claimed, owner) {
                // The first in the owner's order wins, so that all who look agree.
                if probe < candidate {
                    self.write(store, owner, candidate, Vec::new(), Trailer::FREE, version);
                    return Settled::TryAgain;
                }
                if !self.write(store, owner, probe, Vec::new(), Trailer::FREE, rival_version) {
                    return Settled::TryAgain;
                }
            }
        }
        let promoted = Trailer { state: State::Owned, owner, touched: trailer.touched.max(now) };
        if self.write(store, owner, candidate, body, promoted, version) {
            Settled::At(candidate)
        } else {
            Settled::TryAgain
        }
    }

    fn write(
        &self,
        store: &dyn SharedStore,
        owner: Owner,
        probe: u32,
        mut body: Vec<u8>,
        trailer: Trailer,
        version: Version,
    ) -> bool {
        trailer.put(&mut body);
        let written = store.store(&self.key(owner, probe), &body, version).is_ok();
        if !written {
            self.count_conflict();
        }
        written
    }

    fn place(&self, owner: Owner, probe: u32) -> Place {
        // The first touch looks when the entry was really touched.
        Place { key: self.key(owner, probe), owner, touched: Instant::default() }
    }

    fn probes(&self) -> u32 {
        self.entries.min(PROBES)
    }

    /// The key of the `probe`th entry in the owner's order, which visits each entry once: the stride is odd,
    /// and the number of entries a power of two.
    pub(super) fn key(&self, owner: Owner, probe: u32) -> Box<str> {
        #[allow(clippy::cast_possible_truncation, reason = "two halves of a hash")]
        let (start, stride) = (owner.0 as u32, (owner.0 >> 32) as u32 | 1);
        let entry = start.wrapping_add(probe.wrapping_mul(stride)) & self.entries.wrapping_sub(1);
        let mut key = String::with_capacity(self.prefix.len().saturating_add(10));
        key.push_str(&self.prefix);
        // Writing to a string does not fail.
        _ = write!(key, "{entry}");
        key.into()
    }
}
