//! What a worker reads on each tick: which models are not as configured.
//!
//! It names levels and not events, so that a worker which has missed a few, or has just begun, needs nothing else;
//! while nothing is out it is a few bytes, however many models there are.

#![deny(clippy::arithmetic_side_effects)]

use std::time::Duration;

use crate::tally::{Reader, Writer};
use crate::units::Instant;

const LAYOUT: u64 = 1;

/// More models than this cannot be out at once and be told to workers that have no traffic for them; those that have
/// learn it with what they merge.
const MOST_LISTED: usize = 4096;

/// More filters of different names do not share a namespace.
const MOST_INSTANCES: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub instances: Vec<Instance>,
    pub listed: Vec<Listed>,
}

/// The configuration that one filter has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance {
    pub key: u64,
    pub config: u64,
    pub since: Instant,
}

/// A model that is not as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    pub model: u64,
    pub stamp: u64,
    /// When somebody last said so.
    pub said: Instant,
    /// Whose configuration knows the model.
    pub instance: u64,
    /// That filter has had a configuration since which does not.
    pub is_orphan: bool,
}

impl Changes {
    pub fn read(bytes: &[u8]) -> Self {
        Self::try_read(&mut Reader::new(bytes)).unwrap_or_default()
    }

    fn try_read(from: &mut Reader<'_>) -> Option<Self> {
        if from.number()? != LAYOUT {
            return None;
        }
        let mut changes = Self::default();
        for _ in 0..from.count()? {
            let (key, config) = (from.number()?, from.number()?);
            changes.instances.push(Instance { key, config, since: Instant::from_nanos(from.number()?) });
        }
        for _ in 0..from.count()? {
            let (model, stamp) = (from.number()?, from.number()?);
            let (said, instance) = (Instant::from_nanos(from.number()?), from.number()?);
            changes.listed.push(Listed { model, stamp, said, instance, is_orphan: from.number()? != 0 });
        }
        Some(changes)
    }

    pub fn write(&self) -> Vec<u8> {
        let mut to = Writer::default();
        to.number(LAYOUT);
        to.number(self.instances.len() as u64);
        for instance in &self.instances {
            to.number(instance.key);
            to.number(instance.config);
            to.number(instance.since.as_nanos());
        }
        to.number(self.listed.len() as u64);
        for listed in &self.listed {
            to.number(listed.model);
            to.number(listed.stamp);
            to.number(listed.said.as_nanos());
            to.number(listed.instance);
            to.number(u64::from(listed.is_orphan));
        }
        to.bytes()
    }

    pub fn instance(&self, key: u64) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.key == key)
    }

    pub fn set_instance(&mut self, instance: Instance) {
        self.instances.retain(|it| it.key != instance.key);
        if MOST_INSTANCES <= self.instances.len() {
            self.instances.remove(0);
        }
        self.instances.push(instance);
    }

    pub fn listed(&self, model: u64) -> Option<&Listed> {
        self.listed.iter().find(|listed| listed.model == model)
    }

    /// Lists a model, or says again that it is not as configured. What nobody has said for `stale_after` is forgotten:
    /// no configuration that is in force knows the model.
    pub fn list(&mut self, listed: Listed, stale_after: Duration) {
        let before = self.listed(listed.model).copied();
        self.listed.retain(|it| it.model != listed.model && listed.said.since(it.said) < stale_after);
        if self.listed.len() < MOST_LISTED {
            let stamp = before.map_or(listed.stamp, |it| it.stamp.max(listed.stamp));
            // Only a configuration that comes into force takes an orphan in.
            let is_orphan = before.is_some_and(|it| it.is_orphan);
            self.listed.push(Listed { stamp, is_orphan, ..listed });
        }
    }

    /// Takes a model off the list, unless something has happened since `stamp`.
    pub fn unlist(&mut self, model: u64, stamp: u64) -> bool {
        let before = self.listed.len();
        self.listed.retain(|it| it.model != model || stamp < it.stamp);
        self.listed.len() < before
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows stops")]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const STALE: Duration = Duration::from_secs(1200);

    fn listed(model: u64, stamp: u64, secs: u64) -> Listed {
        Listed {
            model,
            stamp,
            said: Instant::from_nanos(secs * 1_000_000_000),
            instance: 9,
            is_orphan: false,
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_anything_else_is_nothing() {
        let mut changes = Changes::default();
        changes.set_instance(Instance { key: 1, config: 2, since: Instant::from_nanos(3) });
        changes.list(listed(1, 2, 3), STALE);
        let bytes = changes.write();
        assert_eq!(Changes::read(&bytes), changes);
        for end in 0..bytes.len() {
            assert_eq!(Changes::read(&bytes[..end]), Changes::default());
        }
    }

    #[test]
    fn a_model_is_listed_once_with_its_newest_stamp() {
        let mut changes = Changes::default();
        for stamp in [1, 3, 2] {
            changes.list(listed(1, stamp, 0), STALE);
        }
        assert_eq!(changes.listed, [listed(1, 3, 0)]);
    }

    #[test]
    fn a_model_leaves_the_list_only_when_nothing_has_happened_since() {
        let mut changes = Changes::default();
        changes.list(listed(1, 3, 0), STALE);
        assert!(!changes.unlist(1, 2));
        assert!(changes.unlist(1, 3));
    }

    #[test]
    fn what_nobody_says_any_more_is_forgotten() {
        let mut changes = Changes::default();
        changes.list(listed(1, 1, 0), STALE);
        changes.list(listed(2, 1, 1199), STALE);
        assert_eq!(changes.listed.len(), 2);
        changes.list(listed(3, 1, 1200), STALE);
        assert_eq!(changes.listed, [listed(2, 1, 1199), listed(3, 1, 1200)]);
    }

    #[test]
    fn the_lists_are_bounded() {
        let mut changes = Changes::default();
        for number in 0..10_000 {
            changes.list(listed(number, 1, 0), STALE);
            changes.set_instance(Instance { key: number, config: 2, since: Instant::default() });
        }
        assert_eq!(changes.listed.len(), MOST_LISTED);
        assert_eq!(changes.instances.len(), MOST_INSTANCES);
    }
}
