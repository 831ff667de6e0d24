//! How a configuration comes into force in the shared state.

#![deny(clippy::arithmetic_side_effects)]

use super::changes::{Changes, Instance};
use super::effects::Effects;
use super::step::Step;
use super::{Health, model_of};
use crate::policy::Policy;
use crate::store::SharedStore;
use crate::units::Instant;

/// How often it is tried in one tick.
const ATTEMPTS: usize = 4;

impl Health {
    /// Brings the configuration into force: what a configuration before it left behind is cleared where it is not
    /// valid, and only then is the arrival made known, so that a worker which dies in between changes nothing.
    pub(super) fn arrive(
        &mut self,
        store: &dyn SharedStore,
        policy: &Policy,
        now: Instant,
        effects: &mut Effects,
    ) {
        for _ in 0..ATTEMPTS {
            if !self.is_newest {
                self.epoch = Some(self.created);
                return;
            }
            let (value, version) = store.load(&self.changes);
            if value.is_none() && self.slots.is_empty() {
                self.epoch = Some(self.created);
                return;
            }
            let mut changes = Changes::read(&value.unwrap_or_default());
            let previous = match changes.instance(self.instance) {
                Some(known) if known.config == self.config => {
                    self.epoch = Some(known.since);
                    return;
                }
                Some(known) if self.created <= known.since => {
                    self.epoch = Some(self.created);
                    return;
                }
                known => known.map_or(Instant::default(), |known| known.since),
            };
            for listed in &changes.listed {
                let Some(place) = self.by_key.get(&listed.model).copied() else { continue };
                if !self.confirm(store, policy, place, previous, now, effects) {
                    return;
                }
            }
            // Confirming may have changed the list, which then has another version.
            changes.set_instance(Instance { key: self.instance, config: self.config, since: self.created });
            if store.store(&self.changes, &changes.write(), version).is_ok() {
                self.epoch = Some(self.created);
                return;
            }
        }
    }

    fn confirm(
        &mut self,
        store: &dyn SharedStore,
        policy: &Policy,
        place: u32,
        previous: Instant,
        now: Instant,
        effects: &mut Effects,
    ) -> bool {
        let Some(model) = self.slots.get(place as usize).and_then(|slot| model_of(policy, slot.model)) else {
            return true;
        };
        let (wall, created) = (self.wall, self.created);
        let confirmed = self.change(store, place, now, |slot, entry| {
            let before = entry.stamp;
            let step = Step { model, slot, now, wall, chance: 0, created, epoch: created, is_newest: true };
            let report = step.confirm(entry, previous);
            (report, entry.stamp != before)
        });
        let Some((entry, (report, is_news))) = confirmed else { return false };
        effects.events.extend(report.events);
        self.adopt(policy, place, &entry, now, effects);
        if is_news {
            self.say(store, place, now);
        }
        true
    }
}
