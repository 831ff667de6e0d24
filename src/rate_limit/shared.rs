//! The part of a limit's state that all workers share: entries of the arena.

use super::gcra::{Gcra, Tat};
use super::slots::{ENTRY_BYTES, SETS_PER_ENTRY, Set};
use crate::arena::{Arena, Failed, Owner, Place, Then, Unclaimed};
use crate::store::SharedStore;
use crate::units::Instant;
use std::time::Duration;

/// The numbers under which the buckets of an entry were last clamped.
const NUMBERS_BYTES: usize = 8;

/// How long a worker goes on alone before it tries again to get an entry.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// What stands in an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One bucket.
    Bucket,
    /// Sets of slots.
    Sets,
}

impl Layout {
    const fn bytes(self) -> usize {
        match self {
            Self::Bucket => 8,
            Self::Sets => ENTRY_BYTES,
        }
    }
}

/// One entry, as a worker knows it.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    state: State,
    /// Whether the list of what is to be touched has it.
    pub is_listed: bool,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Unknown,
    At {
        place: Place,
        /// Whether its buckets have been clamped to this configuration's numbers.
        is_adopted: bool,
    },
    /// The arena had no room.
    Alone { retry_at: Instant },
}

/// Whose buckets an entry has, and by which numbers.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// Asked only for a claim, since it is a hash of names.
    pub owner: &'a dyn Fn() -> Owner,
    pub layout: Layout,
    pub gcra: &'a Gcra,
    /// Tells these numbers from others.
    pub numbers: u64,
}

/// Why a step was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmade {
    /// The arena is full: the worker's own state is all there is.
    Alone,
    /// Others wrote first, again and again.
    Conflict,
}

impl Entry {
    /// Lets `step` change the buckets of the entry, which is claimed first if need be.
    ///
    /// # Errors
    ///
    /// Says why nothing was changed.
    pub fn update<T>(
        &mut self,
        arena: &Arena,
        store: &dyn SharedStore,
        now: Instant,
        terms: Terms<'_>,
        mut step: impl FnMut(&mut [u8]) -> (Then, T),
    ) -> Result<T, Unmade> {
        // An entry that was lost is claimed again, once.
        for _ in 0..2 {
            let (place, is_adopted) = self.place(arena, store, now, terms)?;
            let was_adopted = *is_adopted;
            let made = arena.update(store, place, now, |body| {
                let adopts = !was_adopted && adopt(body, terms, now);
                let (then, answer) = step(body.get_mut(NUMBERS_BYTES..).unwrap_or_default());
                (if adopts { Then::Write } else { then }, answer)
            });
            match made {
                Ok(answer) => {
                    *is_adopted = true;
                    return Ok(answer);
                }
                Err(Failed::Conflict) => return Err(Unmade::Conflict),
                Err(Failed::Lost) => self.state = State::Unknown,
            }
        }
        Err(Unmade::Conflict)
    }

    fn place(
        &mut self,
        arena: &Arena,
        store: &dyn SharedStore,
        now: Instant,
        terms: Terms<'_>,
    ) -> Result<(&mut Place, &mut bool), Unmade> {
        match self.state {
            State::At { .. } => (),
            State::Alone { retry_at } if now < retry_at => return Err(Unmade::Alone),
            State::Unknown | State::Alone { .. } => {
                let mut body = vec![0; terms.layout.bytes().saturating_add(NUMBERS_BYTES)];
                adopt(&mut body, terms, now);
                self.state = match arena.claim(store, now, (terms.owner)(), &body) {
                    Ok(place) => State::At { place, is_adopted: false },
                    Err(Unclaimed::Full) => State::Alone { retry_at: now.after(RETRY_AFTER) },
                    Err(Unclaimed::Contended) => return Err(Unmade::Conflict),
                };
            }
        }
        match &mut self.state {
            State::At { place, is_adopted } => Ok((place, is_adopted)),
            State::Unknown | State::Alone { .. } => Err(Unmade::Alone),
        }
    }

    /// Keeps the entry from being taken by others; `false` when there is none.
    pub fn touch(&mut self, arena: &Arena, store: &dyn SharedStore, now: Instant) -> bool {
        let State::At { place, .. } = &mut self.state else { return false };
        let is_lost = arena.touch(store, place, now) == Err(Failed::Lost);
        if is_lost {
            self.state = State::Unknown;
        }
        !is_lost
    }

    /// Whether it is claimed.
    pub const fn is_shared(&self) -> bool {
        matches!(self.state, State::At { .. })
    }
}

/// Makes the buckets that other numbers wrote no emptier than empty by these, and says whether there was
/// anything to do.
///
/// It is done once, when a worker first uses the entry, and the entry says by which numbers. Were it done
/// whenever a bucket looks too empty, a root with a large burst that drains and a new one with a small burst
/// would take turns, and at each turn the old root's debits would be forgotten.
fn adopt(body: &mut Vec<u8>, terms: Terms<'_>, now: Instant) -> bool {
    let length = terms.layout.bytes().saturating_add(NUMBERS_BYTES);
    if body.len() != length {
        body.clear();
        body.resize(length, 0);
    }
    let Some((numbers, buckets)) = body.split_first_chunk_mut::<NUMBERS_BYTES>() else { return false };
    if u64::from_le_bytes(*numbers) == terms.numbers {
        return false;
    }
    *numbers = terms.numbers.to_le_bytes();
    let clamp = |tat| terms.gcra.clamp(tat, now);
    match terms.layout {
        Layout::Bucket => write_bucket(buckets, clamp(read_bucket(buckets))),
        Layout::Sets => {
            for place in 0..SETS_PER_ENTRY {
                if let Some(mut set) = Set::read(buckets, place) {
                    set.change(clamp);
                    set.write(buckets, place);
                }
            }
        }
    }
    true
}

pub fn read_bucket(buckets: &[u8]) -> Tat {
    let first = buckets.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    Tat::from_bits(first)
}

pub fn write_bucket(buckets: &mut [u8], tat: Tat) {
    if let Some(first) = buckets.first_chunk_mut() {
        *first = tat.to_bits().to_le_bytes();
    }
}
