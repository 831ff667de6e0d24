//! What all workers know of one model: the value of its entry in shared memory.
//!
//! One entry holds all targets and guards of a model, so that one compare-and-swap decides about all of them: two
//! workers cannot each eject the other's last target.

#![deny(clippy::arithmetic_side_effects)]

use crate::guard::Cause;
use crate::outlier::Ejection;
use crate::tally::{Reader, Row, Window, Writer};
use crate::units::Instant;

/// The layout below. What has another is forgotten.
const LAYOUT: u64 = 2;

/// By how much an entry grows between two writes, mostly.
const SLACK: usize = 64;

/// Memory for more targets is taken as they come: the number that says so is not to be trusted.
const MOST_RESERVED: usize = 16;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// The configuration of the model that judges, and when the first root with it was made.
    pub config: u64,
    pub since: Instant,
    /// Counts what the other workers must learn of.
    pub stamp: u64,
    pub targets: Vec<TargetState>,
    pub guards: Vec<GuardState>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TargetState {
    pub key: u64,
    pub ejection: Ejection,
    pub row: Row,
    pub window: Window,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct GuardState {
    pub key: u64,
    /// What the latch is valid for.
    pub config: u64,
    pub latch: Option<Latch>,
    pub row: Row,
    pub canary: Window,
    pub baseline: Window,
}

/// A guard that has tripped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latch {
    pub cause: Cause,
    pub at: Instant,
}

impl Entry {
    /// Any bytes are read as something: what cannot be understood is as good as nothing.
    pub fn read(bytes: &[u8]) -> Self {
        Self::try_read(&mut Reader::new(bytes)).unwrap_or_default()
    }

    fn try_read(from: &mut Reader<'_>) -> Option<Self> {
        if from.number()? != LAYOUT {
            return None;
        }
        let mut entry =
            Self { config: from.number()?, since: instant(from)?, stamp: from.number()?, ..Self::default() };
        let targets = from.count()?;
        entry.targets.reserve_exact(targets.min(MOST_RESERVED));
        for _ in 0..targets {
            entry.targets.push(TargetState {
                key: from.number()?,
                ejection: Ejection::read(from)?,
                row: Row::read(from)?,
                window: Window::read(from)?,
            });
        }
        for _ in 0..from.count()? {
            entry.guards.push(GuardState {
                key: from.number()?,
                config: from.number()?,
                latch: match from.number()? {
                    0 => None,
                    number => Some(Latch { cause: cause(number)?, at: instant(from)? }),
                },
                row: Row::read(from)?,
                canary: Window::read(from)?,
                baseline: Window::read(from)?,
            });
        }
        from.is_at_end().then_some(entry)
    }

    /// `like` is as long as what is written, more or less.
    pub fn write(&self, like: usize) -> Vec<u8> {
        let mut to = Writer::with_capacity(like.saturating_add(SLACK));
        to.number(LAYOUT);
        to.number(self.config);
        to.number(self.since.as_nanos());
        to.number(self.stamp);
        to.number(self.targets.len() as u64);
        for target in &self.targets {
            to.number(target.key);
            target.ejection.write(&mut to);
            target.row.write(&mut to);
            target.window.write(&mut to);
        }
        to.number(self.guards.len() as u64);
        for guard in &self.guards {
            to.number(guard.key);
            to.number(guard.config);
            match guard.latch {
                None => to.number(0),
                Some(Latch { cause, at }) => {
                    to.number(cause_number(cause));
                    to.number(at.as_nanos());
                }
            }
            guard.row.write(&mut to);
            guard.canary.write(&mut to);
            guard.baseline.write(&mut to);
        }
        to.bytes()
    }

    pub fn target(&self, key: u64) -> Option<&TargetState> {
        self.targets.iter().find(|target| target.key == key)
    }

    /// The state of a target, new when there is none.
    pub fn target_mut(&mut self, key: u64) -> Option<&mut TargetState> {
        if self.target(key).is_none() {
            self.targets.push(TargetState { key, ..TargetState::default() });
        }
        self.targets.iter_mut().find(|target| target.key == key)
    }

    pub fn guard(&self, key: u64) -> Option<&GuardState> {
        self.guards.iter().find(|guard| guard.key == key)
    }

    /// The state of a guard, new when there is none that is valid for `config`.
    pub fn guard_mut(&mut self, key: u64, config: u64) -> Option<&mut GuardState> {
        if self.guard(key).is_none_or(|guard| guard.config != config) {
            self.guards.retain(|guard| guard.key != key);
            self.guards.push(GuardState { key, config, ..GuardState::default() });
        }
        self.guards.iter_mut().find(|guard| guard.key == key)
    }

    /// Tells the other workers.
    pub const fn stamp(&mut self) {
        self.stamp = self.stamp.wrapping_add(1);
    }
}

fn instant(from: &mut Reader<'_>) -> Option<Instant> {
    from.number().map(Instant::from_nanos)
}

/// From 1 on, since 0 stands for no latch.
fn cause_number(cause: Cause) -> u64 {
    Cause::ALL.iter().zip(1..).find(|(it, _)| **it == cause).map_or(0, |(_, number)| number)
}

fn cause(number: u64) -> Option<Cause> {
    Cause::ALL.into_iter().find(|it| cause_number(*it) == number)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows stops")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rng::Rng;
    use crate::tally::{Counts, RowPart};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn example() -> Entry {
        let window = |number: u64| {
            let mut window = Window::default();
            for secs in 1000..1000 + number {
                window.close(Duration::from_secs(60), Instant::from_nanos(secs * 1_000_000_000));
                let mut counts = Counts { requests: 9, bad: 2, ..Counts::NONE };
                counts.latencies.add(Duration::from_millis(secs));
                window.add(&counts);
            }
            window
        };
        let mut part = RowPart::NONE;
        part.failure(Some(5));
        let row = Row::default().and(part);
        let target = |key| TargetState { key, ejection: Ejection::default(), row, window: window(key) };
        let guard = |key, latch| GuardState {
            key,
            config: u64::MAX,
            latch,
            row,
            canary: window(key),
            baseline: window(30 * key),
        };
        let at = Instant::from_nanos(77);
        Entry {
            config: 3,
            since: at,
            stamp: 300,
            targets: vec![target(1), target(40)],
            guards: vec![guard(2, None), guard(3, Some(Latch { cause: Cause::Ejection, at }))],
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for entry in [Entry::default(), example()] {
            assert_eq!(Entry::read(&entry.write(0)), entry);
        }
    }

    #[test]
    fn any_bytes_are_read_as_something() {
        let bytes = example().write(0);
        for end in 0..bytes.len() {
            assert_eq!(Entry::read(&bytes[..end]), Entry::default(), "cut at {end}");
        }
        let mut rng = Rng::seeded(1);
        for _ in 0..20_000 {
            let mut spoilt = bytes.clone();
            for _ in 0..=rng.next_u64() % 4 {
                let place = usize::try_from(rng.next_u64() % spoilt.len() as u64).unwrap();
                spoilt[place] = rng.next_u64().to_le_bytes()[0];
            }
            let entry = Entry::read(&spoilt);
            assert!(entry.write(0).len() <= spoilt.len() * 10, "it grew");
        }
    }

    #[test]
    fn a_guard_of_another_configuration_starts_anew() {
        let mut entry = example();
        assert!(entry.guard_mut(3, u64::MAX).unwrap().latch.is_some());
        assert!(entry.guard_mut(3, 5).unwrap().latch.is_none());
        assert_eq!(entry.guards.len(), 2);
    }
}
