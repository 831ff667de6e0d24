//! The buckets of a limit's keys in bounded room: sets of four slots, and one bucket for what finds none.
//!
//! A key uses its own slot. If it has none, it takes one whose bucket is full again, since nothing is lost
//! with that. If all four are in use, it shares the set's fifth bucket with whoever else finds no slot.
//!
//! # A key never gets more than its limit, whichever slots it has had
//!
//! The shared bucket bounds the bucket of every key that has no slot: its moment is no earlier than theirs.
//! That is so for a key that never came, and stays so while a key spends from it. When a slot is taken from a
//! key, the shared bucket moves to that slot's moment, unless it is later already. And a key that takes a
//! slot starts from the moment of the shared bucket. A moment that has passed is a full bucket, so this is
//! strict only while the set overflows, and for a worker whose reading of the clock is older than that of the
//! one who took the slot.
//!
//! Sharing a neighbour's slot instead would break that: as soon as a slot is free, the key would have a full
//! bucket on top of what it had spent; and the neighbour would pay for it.

use super::gcra::Tat;
use crate::units::Instant;

const WAYS: usize = 4;

/// A fingerprint and a moment a way, and the moment of the shared bucket.
const SET_BYTES: usize = WAYS * 16 + 8;

/// Sets that stand in one entry of the arena.
///
/// Larger entries are copied longer, into the VM and out again, and two workers more often write to the same
/// one at the same time; smaller ones fill the arena with fewer limits. With 16 sets an entry has 1.2 KB,
/// whose copies are little beside the 600 ns of the two calls. 4,096 slots take 64 entries, and the arena has
/// room for 128 such limits. Of 10,000 debits a second 0.02 % meet another in the same entry within a
/// microsecond.
pub const SETS_PER_ENTRY: usize = 16;

pub const ENTRY_BYTES: usize = SETS_PER_ENTRY * SET_BYTES;

/// Slots that stand in one entry.
pub const SLOTS_PER_ENTRY: u32 = 64;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slot {
    /// Zero is nobody's.
    fingerprint: u64,
    tat: Tat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set {
    slots: [Slot; WAYS],
    shared: Tat,
}

/// Which of a set's buckets a key uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seat {
    Own(usize),
    /// To be taken from another key, or from nobody.
    Taken(usize),
    Shared,
}

impl Set {
    /// The set at `place` of an entry's bytes.
    pub fn read(bytes: &[u8], place: usize) -> Option<Self> {
        let (sets, _) = bytes.as_chunks::<SET_BYTES>();
        let (words, _) = sets.get(place)?.as_chunks::<8>();
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let mut set = Self::default();
        for slot in &mut set.slots {
            slot.fingerprint = words.next()?;
            slot.tat = Tat::from_bits(words.next()?);
        }
        set.shared = Tat::from_bits(words.next()?);
        Some(set)
    }

    /// Puts the set back to where it was read.
    pub fn write(&self, bytes: &mut [u8], place: usize) {
        let (sets, _) = bytes.as_chunks_mut::<SET_BYTES>();
        let Some(bytes) = sets.get_mut(place) else { return };
        let (places, _) = bytes.as_chunks_mut::<8>();
        let slots = self.slots.iter().flat_map(|slot| [slot.fingerprint, slot.tat.to_bits()]);
        for (place, word) in places.iter_mut().zip(slots.chain([self.shared.to_bits()])) {
            *place = word.to_le_bytes();
        }
    }

    /// Where the key is seated at `now`, and the bucket that it finds there.
    pub fn seat(&self, fingerprint: u64, now: Instant) -> (Seat, Tat) {
        let slots = self.slots.iter().enumerate();
        let (mut oldest, mut at) = (Tat::from_bits(u64::MAX), 0);
        for (place, slot) in slots {
            if slot.fingerprint == fingerprint {
                return (Seat::Own(place), slot.tat);
            }
            if slot.tat < oldest {
                (oldest, at) = (slot.tat, place);
            }
        }
        if oldest.has_passed(now) { (Seat::Taken(at), self.shared) } else { (Seat::Shared, self.shared) }
    }

    /// Gives the key at `seat` the bucket `tat`.
    pub fn put(&mut self, seat: Seat, fingerprint: u64, tat: Tat) {
        match seat {
            Seat::Own(place) | Seat::Taken(place) => {
                let Some(slot) = self.slots.get_mut(place) else { return };
                if slot.fingerprint != fingerprint {
                    self.shared = self.shared.max(slot.tat);
                }
                *slot = Slot { fingerprint, tat };
            }
            Seat::Shared => self.shared = tat,
        }
    }

    /// The bucket from which a debit at `seat` was made, when it is still there.
    pub fn debited(&self, seat: Seat, fingerprint: u64) -> Option<(Seat, Tat)> {
        match seat {
            Seat::Own(_) | Seat::Taken(_) => {
                let own = self.slots.iter().position(|slot| slot.fingerprint == fingerprint)?;
                Some((Seat::Own(own), self.slots.get(own)?.tat))
            }
            Seat::Shared => Some((Seat::Shared, self.shared)),
        }
    }

    pub fn change(&mut self, change: impl Fn(Tat) -> Tat) {
        for slot in &mut self.slots {
            slot.tat = change(slot.tat);
        }
        self.shared = change(self.shared);
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows stops")]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const NOW: Instant = Instant::from_nanos(1000);

    fn tat(nanos: u64) -> Tat {
        Tat::from_bits(nanos * 16)
    }

    /// A set whose keys 1 to 4 are full again after so many nanoseconds.
    fn set(nanos: [u64; WAYS]) -> Set {
        let mut set = Set::default();
        for (place, nanos) in nanos.into_iter().enumerate() {
            set.slots[place] = Slot { fingerprint: place as u64 + 1, tat: tat(nanos) };
        }
        set
    }

    #[test]
    fn a_key_uses_its_own_slot_even_when_that_has_passed() {
        assert_eq!(set([1001, 900, 800, 700]).seat(2, NOW), (Seat::Own(1), tat(900)));
    }

    #[test]
    fn a_new_key_takes_the_slot_that_passed_first_with_a_full_bucket() {
        let mut set = set([1001, 900, 800, 1002]);
        assert_eq!(set.seat(9, NOW), (Seat::Taken(2), tat(0)));
        set.put(Seat::Taken(2), 9, tat(1500));
        assert_eq!(set.seat(9, NOW), (Seat::Own(2), tat(1500)));
        assert_eq!(set.seat(1, NOW), (Seat::Own(0), tat(1001)));
    }

    #[test]
    fn keys_without_a_slot_share_one_bucket_and_leave_their_neighbours_alone() {
        let mut set = set([1001, 1002, 1003, 1004]);
        set.put(Seat::Shared, 9, tat(1800));
        assert_eq!(set.seat(10, NOW), (Seat::Shared, tat(1800)));
        assert_eq!([1, 2, 3, 4].map(|key| set.seat(key, NOW).1), [1001, 1002, 1003, 1004].map(tat));
    }

    #[test]
    fn a_key_that_spent_without_a_slot_takes_that_along_into_its_own() {
        let mut set = set([1001, 1002, 1003, 1004]);
        set.put(Seat::Shared, 9, tat(1800));
        assert_eq!(set.seat(9, Instant::from_nanos(1001)), (Seat::Taken(0), tat(1800)));
    }

    #[test]
    fn a_key_that_lost_its_slot_gets_no_more_from_a_worker_with_an_older_clock() {
        let mut set = set([1001, 1002, 1003, 990]);
        set.put(Seat::Taken(3), 9, tat(2000));
        let older = Instant::from_nanos(980);
        assert_eq!(set.seat(4, older), (Seat::Shared, tat(990)));
    }

    #[test]
    fn a_debit_is_found_where_it_was_made_or_not_at_all() {
        let mut set = set([1001, 1002, 1003, 990]);
        assert_eq!(set.debited(Seat::Taken(0), 4), Some((Seat::Own(3), tat(990))));
        assert_eq!(set.debited(Seat::Shared, 4), Some((Seat::Shared, tat(0))));
        set.put(Seat::Taken(3), 9, tat(2000));
        assert_eq!(set.debited(Seat::Own(3), 4), None);
    }

    #[test]
    fn sets_are_read_as_they_were_written() {
        let mut bytes = vec![0; ENTRY_BYTES];
        let sets: Vec<_> = (0..SETS_PER_ENTRY as u64).map(|place| set([place, 2, 3, 4])).collect();
        for (place, set) in sets.iter().enumerate() {
            set.write(&mut bytes, place);
        }
        let read: Vec<_> = (0..SETS_PER_ENTRY).map(|place| Set::read(&bytes, place).unwrap()).collect();
        assert_eq!(read, sets);
        assert_eq!(Set::read(&bytes, SETS_PER_ENTRY), None);
        assert_eq!(SLOTS_PER_ENTRY as usize, SETS_PER_ENTRY * WAYS);
    }
}
