//! One limit, as a worker has it: its numbers, where its shared buckets are, and how a debit is made on them.

use super::account::Account;
use super::gcra::{Debit, Gcra, Refused, Tat};
use super::secret::Reach;
use super::shared::{Entry, Layout, Terms, Unmade, read_bucket, write_bucket};
use super::slots::{ENTRY_BYTES, SETS_PER_ENTRY, SLOTS_PER_ENTRY, Seat, Set};
use super::{OnError, RateLimit};
use crate::arena::{Arena, Owner, Then};
use crate::siphash::siphash;
use crate::store::SharedStore;
use crate::units::{Instant, Mode, nanos};

#[derive(Clone, Debug)]
pub struct Limit {
    pub gcra: Gcra,
    pub on_error: OnError,
    pub mode: Mode,
    pub counts: Counts,
    pub buckets: Buckets,
    /// The account of a limit that has one bucket.
    pub account: Account,
    scope: Option<Box<str>>,
    name: Box<str>,
    numbers: u64,
    /// Buckets of this worker's own, for when the arena has no room: as many as an entry has.
    alone: Vec<u8>,
}

/// Where the buckets of a limit are.
#[derive(Clone, Debug)]
pub enum Buckets {
    One(Entry),
    /// Keyed: `slots` of them, and the entries that have them, made on first use.
    Slots {
        slots: u32,
        entries: Vec<Entry>,
    },
}

/// What happened on a limit that an operator wants to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that a limit in `shadow` mode would have refused.
    pub shadow_refused: u64,
    /// Requests of a key that shared a bucket with others, because its set had no slot free.
    pub shared: u64,
    /// Requests whose debit could not be written, for which `on_error` decided.
    pub failed: u64,
    /// Requests that spent from buckets of this worker's own, because the arena is full.
    pub alone: u64,
}

/// A debit and the bucket that it was made on.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    pub debit: Debit,
    pub seat: Seat,
    /// Whether others had spent from the same bucket.
    pub is_shared: bool,
    /// Whether it was made on this worker's own buckets.
    pub is_alone: bool,
}

/// Why there was none.
#[derive(Clone, Copy, Debug)]
pub enum NotMade {
    Refused {
        why: Refused,
        tat: Tat,
        seat: Seat,
    },
    /// Others wrote first, again and again.
    Conflict,
}

/// What a step on shared state needs.
#[derive(Clone, Copy)]
pub struct Workplace<'a> {
    pub arena: &'a Arena,
    pub store: &'a dyn SharedStore,
    pub now: Instant,
}

impl Limit {
    pub fn new(scope: Option<&str>, rate: &RateLimit, is_keyed: bool) -> Self {
        let buckets = if is_keyed {
            Buckets::Slots { slots: rate.slots.max(4), entries: Vec::new() }
        } else {
            Buckets::One(Entry::default())
        };
        let bucket = rate.bucket;
        let [max, fill] = [bucket.max_tokens, bucket.tokens_per_fill].map(u32::to_le_bytes);
        let numbers = [&max[..], &fill, &nanos(bucket.fill_interval).to_le_bytes()].concat();
        Self {
            gcra: Gcra::new(bucket),
            on_error: rate.on_error,
            mode: rate.mode,
            counts: Counts::default(),
            buckets,
            account: Account::default(),
            scope: scope.map(Into::into),
            name: rate.name.clone(),
            // Zero is what an entry has before anybody adopted it.
            numbers: siphash(0, &numbers).max(1),
            alone: Vec::new(),
        }
    }

    /// Debits `need` tokens or up to `want` for the key with this fingerprint, which a limit with one bucket
    /// ignores.
    #[inline(never)]
    pub fn debit(
        &mut self,
        at: Workplace<'_>,
        fingerprint: u64,
        reach: Reach,
        (need, want): (u64, u64),
    ) -> Result<Made, NotMade> {
        let (gcra, place, now) = (self.gcra, self.place(fingerprint), at.now);
        let step = |buckets: &mut [u8]| {
            let (seat, tat) = seat(buckets, place, fingerprint, now);
            match gcra.debit(tat, now, need, want) {
                Ok(debit) => {
                    put(buckets, place, seat, fingerprint, debit.tat);
                    let is_shared =
                        seat == Seat::Shared || matches!(seat, Seat::Taken(_)) && !tat.has_passed(now);
                    (Then::Write, Ok(Made { debit, seat, is_shared, is_alone: false }))
                }
                Err(why) => (Then::Keep, Err(NotMade::Refused { why, tat, seat })),
            }
        };
        let made = match reach {
            Reach::AllWorkers => self.update(at, fingerprint, step),
            Reach::ThisWorker => Err(Unmade::Alone),
            Reach::Unsettled => Err(Unmade::Conflict),
        };
        match made {
            Ok(result) => result,
            Err(Unmade::Conflict) => Err(NotMade::Conflict),
            Err(Unmade::Alone) => {
                let (_, result) = step(self.alone());
                result.map(|made| Made { is_alone: true, ..made })
            }
        }
    }

    /// Gives back a debit of which nothing was used, as far as the law allows. The bucket afterwards, when it
    /// could be told.
    #[inline(never)]
    pub fn refund(
        &mut self,
        at: Workplace<'_>,
        fingerprint: u64,
        made: &Made,
        clock: &dyn Fn() -> Instant,
    ) -> Option<Tat> {
        let (gcra, place) = (self.gcra, self.place(fingerprint));
        let step = |buckets: &mut [u8]| {
            let Some((seat, tat)) = debited(buckets, place, made.seat, fingerprint) else {
                return (Then::Keep, None);
            };
            // Read after the bucket, so that whatever was debited before is not later.
            let refunded = gcra.refund(tat, made.debit, clock());
            put(buckets, place, seat, fingerprint, refunded);
            (Then::Write, Some(refunded))
        };
        if made.is_alone {
            return step(self.alone()).1;
        }
        self.update(at, fingerprint, step).ok().flatten()
    }

    fn update<T>(
        &mut self,
        at: Workplace<'_>,
        fingerprint: u64,
        step: impl FnMut(&mut [u8]) -> (Then, T),
    ) -> Result<T, Unmade> {
        let number = self.entry(fingerprint);
        let (layout, slots, entry) = match &mut self.buckets {
            Buckets::One(entry) => (Layout::Bucket, None, Some(entry)),
            Buckets::Slots { slots, entries } => {
                if entries.is_empty() {
                    let length = slots.div_ceil(SLOTS_PER_ENTRY);
                    entries.resize_with(usize::try_from(length).unwrap_or(1), Entry::default);
                }
                (Layout::Sets, Some((*slots, number)), entries.get_mut(number))
            }
        };
        let owner = || owner(self.scope.as_deref(), &self.name, slots);
        let terms = Terms { owner: &owner, layout, gcra: &self.gcra, numbers: self.numbers };
        entry.map_or(Err(Unmade::Alone), |entry| entry.update(at.arena, at.store, at.now, terms, step))
    }

    /// The entry of a key, by its place among those of this limit.
    pub fn entry(&self, fingerprint: u64) -> usize {
        self.set(fingerprint).checked_div(SETS_PER_ENTRY).unwrap_or(0)
    }

    pub fn entry_mut(&mut self, number: usize) -> Option<&mut Entry> {
        match &mut self.buckets {
            Buckets::One(entry) => Some(entry),
            Buckets::Slots { entries, .. } => entries.get_mut(number),
        }
    }

    /// The set of a key, by its place in its entry; none for a limit that has one bucket.
    fn place(&self, fingerprint: u64) -> Option<usize> {
        match self.buckets {
            Buckets::One(_) => None,
            Buckets::Slots { .. } => self.set(fingerprint).checked_rem(SETS_PER_ENTRY),
        }
    }

    fn set(&self, fingerprint: u64) -> usize {
        match self.buckets {
            Buckets::One(_) => 0,
            Buckets::Slots { slots, .. } => {
                let sets = u64::from(slots.div_ceil(4));
                fingerprint.checked_rem(sets).and_then(|set| usize::try_from(set).ok()).unwrap_or(0)
            }
        }
    }

    fn alone(&mut self) -> &mut [u8] {
        if self.alone.is_empty() {
            let bytes = if matches!(self.buckets, Buckets::One(_)) { 8 } else { ENTRY_BYTES };
            self.alone = vec![0; bytes];
        }
        &mut self.alone
    }
}

/// Whose an entry of the limit `name` is: the limit's, or the part of a limit with so many slots that has
/// this number.
fn owner(scope: Option<&str>, name: &str, slots: Option<(u32, usize)>) -> Owner {
    let (is_scoped, scope) = ([u8::from(scope.is_some())], scope.unwrap_or_default());
    let limit = [&is_scoped[..], scope.as_bytes(), name.as_bytes()];
    match slots {
        None => Owner::of("limit", &limit),
        Some((slots, number)) => {
            let [is_scoped, scope, name] = limit;
            Owner::of("limit slots", &[is_scoped, scope, name, &slots.to_le_bytes(), &number.to_le_bytes()])
        }
    }
}

fn seat(buckets: &[u8], place: Option<usize>, fingerprint: u64, now: Instant) -> (Seat, Tat) {
    match place {
        None => (Seat::Own(0), read_bucket(buckets)),
        Some(place) => Set::read(buckets, place).unwrap_or_default().seat(fingerprint, now),
    }
}

fn put(buckets: &mut [u8], place: Option<usize>, seat: Seat, fingerprint: u64, tat: Tat) {
    match place {
        None => write_bucket(buckets, tat),
        Some(place) => {
            if let Some(mut set) = Set::read(buckets, place) {
                set.put(seat, fingerprint, tat);
                set.write(buckets, place);
            }
        }
    }
}

fn debited(buckets: &[u8], place: Option<usize>, seat: Seat, fingerprint: u64) -> Option<(Seat, Tat)> {
    match place {
        None => Some((seat, read_bucket(buckets))),
        Some(place) => Set::read(buckets, place)?.debited(seat, fingerprint),
    }
}
