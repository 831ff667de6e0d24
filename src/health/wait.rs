//! Which parts need not be merged yet.
//!
//! A part that holds nothing but successes changes no decision while the model's shared rows are empty, and a window
//! is judged only when its bucket ends. So such a part waits until shortly before that, and a model that is well costs
//! a merge for each bucket, however many requests it answers.
//!
//! A row that another worker begins must not miss the successes that come after it. So whoever merges a failure counts
//! that in a table that all workers share ([`Failing`]), and who reads there that a model's number has changed merges
//! on each tick until the row is empty again.

#![deny(clippy::arithmetic_side_effects)]

use std::time::Duration;

use super::slot::Slot;
use super::{Effects, Health};
use crate::hold::TICK;
use crate::policy::Policy;
use crate::store::{Next, SharedStore, Version, update};
use crate::tally::bucket_ends;
use crate::units::Instant;

/// How long before the end of a bucket its parts are merged, so that a worker may miss some ticks: what comes later is
/// judged with the next bucket, and failures, which do not wait, would be judged without it.
const AHEAD: Duration = TICK.saturating_mul(4);

/// No part waits longer, however long the buckets are.
const LONGEST: Duration = Duration::from_secs(2);

/// How many numbers the table has, a power of two. Models that share one wait less than they could.
const PLACES: usize = 1024;

/// A model with a part that waits. It stands beside the others, so that a tick need not look at each model.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    place: u32,
    /// Where the model's number is in the table, and which it was.
    number_at: u16,
    number: u16,
    due: Instant,
}

/// How often failures were merged, by models: a table that all workers of a namespace share.
#[derive(Debug)]
pub struct Failing {
    key: Box<str>,
    table: Vec<u8>,
    read: Option<Version>,
    /// Where failures are to be counted that are merged.
    uncounted: Vec<u16>,
}

impl Failing {
    pub fn new(namespace: &str) -> Self {
        let key = ["pg1/", namespace, "/failing"].concat().into();
        Self { key, table: Vec::new(), read: None, uncounted: Vec::new() }
    }

    fn learn(&mut self, store: &dyn SharedStore) {
        let (table, version) = store.load(&self.key);
        if self.read != Some(version) {
            (self.table, self.read) = (table.unwrap_or_default(), Some(version));
        }
    }

    /// The number of a model, which changes when somebody has merged a failure of it.
    pub fn of(&self, model: u64) -> u16 {
        self.number_at(place(model))
    }

    fn number_at(&self, place: u16) -> u16 {
        let (numbers, _) = self.table.as_chunks::<2>();
        numbers.get(usize::from(place)).map_or(0, |number| u16::from_le_bytes(*number))
    }

    pub fn add(&mut self, model: u64) {
        self.uncounted.push(place(model));
    }

    /// Counts what was merged. What conflicts is counted with the next tick.
    pub fn count(&mut self, store: &dyn SharedStore) {
        let Self { key, uncounted, .. } = self;
        if uncounted.is_empty() {
            return;
        }
        let counted = update(store, key, |old| {
            let mut table = old.unwrap_or_default().to_vec();
            table.resize(size_of::<[u16; PLACES]>(), 0);
            let (numbers, _) = table.as_chunks_mut::<2>();
            for place in &*uncounted {
                if let Some(number) = numbers.get_mut(usize::from(*place)) {
                    *number = u16::from_le_bytes(*number).wrapping_add(1).to_le_bytes();
                }
            }
            (Next::Write(table), ())
        });
        if counted.is_ok() {
            uncounted.clear();
        }
    }
}

fn place(model: u64) -> u16 {
    const MASK: u64 = PLACES as u64 - 1;
    u16::try_from(model & MASK).unwrap_or_default()
}

impl Health {
    /// Merges what waits no longer, and what the worker has seen since the last tick, unless that may wait.
    // A copy at each of its uses makes the module a kilobyte larger.
    #[inline(never)]
    pub(super) fn merge_due(
        &mut self,
        store: &dyn SharedStore,
        policy: &Policy,
        now: Instant,
        effects: &mut Effects,
    ) {
        let mut is_learnt = !self.waiting.is_empty();
        if is_learnt {
            self.failing.learn(store);
        }
        for it in std::mem::take(&mut self.waiting) {
            if self.is_newest && now < it.due && self.failing.number_at(it.number_at) == it.number {
                self.waiting.push(it);
                continue;
            }
            let waits =
                self.slots.get(it.place as usize).is_some_and(|slot| slot.waits_until == Some(it.due));
            if waits {
                self.merge(store, policy, it.place, now, effects);
            }
        }
        for place in std::mem::take(&mut self.dirty) {
            let Some(slot) = self.slots.get_mut(place as usize) else { continue };
            slot.has_hurried = false;
            if !slot.is_dirty {
                continue;
            }
            let mut due = None;
            if self.is_newest && slot.may_wait() {
                if !std::mem::replace(&mut is_learnt, true) {
                    self.failing.learn(store);
                }
                due = slot.wait(self.failing.of(slot.key), now);
            }
            let Some(due) = due else {
                self.merge(store, policy, place, now, effects);
                continue;
            };
            slot.is_dirty = false;
            if slot.waits_until.is_none() {
                slot.waits_until = Some(due);
                let number_at = self::place(slot.key);
                self.waiting.push(Waiting {
                    place,
                    number_at,
                    number: self.failing.number_at(number_at),
                    due,
                });
            }
        }
        self.failing.count(store);
    }

    /// Hands over what the worker has seen, since no tick comes any more. It judges nothing.
    pub fn end(&mut self, store: &dyn SharedStore, policy: &Policy, now: Instant) -> Effects {
        let mut effects = Effects::default();
        self.is_newest = false;
        self.merge_due(store, policy, now, &mut effects);
        // What others wrote first is tried once more.
        self.merge_due(store, policy, now, &mut effects);
        effects
    }
}

#[cfg(test)]
impl Health {
    /// Whether something has waited long enough.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.waiting.iter().any(|it| it.due <= now)
    }
}

impl Slot {
    /// Whether nothing but successes are to be merged, of a model that nobody has to know of.
    fn may_wait(&self) -> bool {
        self.calm_at.is_some()
            && !self.stands
            && self.targets.iter().all(|target| target.counts.bad == 0 && target.ended_probe.is_none())
            && self.guards.iter().all(|guard| guard.canary.bad == 0 && guard.baseline.bad == 0)
    }

    /// Lets what the worker has seen since it last merged wait, if there still is no row, and says until when.
    fn wait(&mut self, number: u16, now: Instant) -> Option<Instant> {
        if self.calm_at != Some(number) {
            return None;
        }
        let on_clock = self.on_clock(now);
        let until_end =
            self.windows.iter().map(|window| bucket_ends(*window, on_clock).since(on_clock)).min()?;
        let left = until_end.saturating_sub(AHEAD).min(LONGEST);
        // By the next tick it would be too late.
        if left < TICK {
            return None;
        }
        // There was no row that the successes could restart.
        for target in &mut self.targets {
            target.seen.grow_old();
        }
        for guard in &mut self.guards {
            guard.seen.grow_old();
        }
        Some(now.after(left))
    }
}
