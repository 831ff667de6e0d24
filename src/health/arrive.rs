//! How a configuration comes into force in the shared state.
//!
//! What it finds latched under another split, ramp or guard is cleared by the first step that it takes on the model.
//! A model that it does not know at all is marked as an orphan, so that it starts clean when it comes back.

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
    /// Brings the configuration into force. The list that says so is written last, so that a worker which dies in
    /// between has done nothing that the next does not do again.
    pub(super) fn arrive(
        &mut self,
        store: &dyn SharedStore,
        policy: &Policy,
        now: Instant,
        effects: &mut Effects,
    ) {
        for _ in 0..ATTEMPTS {
            let (value, version) = store.load(&self.changes);
            let mut changes = Changes::read(value.as_deref().unwrap_or_default());
            let known = changes.instance(self.instance);
            let is_in_force = known.is_some_and(|known| known.config == self.config);
            let is_older = known.is_some_and(|known| self.created <= known.since) || !self.is_newest;
            if is_in_force || is_older || (value.is_none() && self.slots.is_empty()) {
                self.has_arrived = true;
                return;
            }
            for listed in &mut changes.listed {
                match self.by_key.get(&listed.model).copied() {
                    Some(place) => {
                        if !self.arrive_at(store, policy, place, listed.is_orphan, now, effects) {
                            return;
                        }
                        listed.is_orphan = false;
                    }
                    None => listed.is_orphan |= listed.instance == self.instance,
                }
            }
            changes.set_instance(Instance { key: self.instance, config: self.config, since: self.created });
            // Whoever has changed the list in between is heard first.
            if store.store(&self.changes, &changes.write(), version).is_ok() {
                self.has_arrived = true;
                return;
            }
        }
    }

    fn arrive_at(
        &mut self,
        store: &dyn SharedStore,
        policy: &Policy,
        place: u32,
        is_orphan: bool,
        now: Instant,
        effects: &mut Effects,
    ) -> bool {
        let Some(model) = self.slots.get(place as usize).and_then(|slot| model_of(policy, slot.model)) else {
            return true;
        };
        let (wall, created) = (self.wall, self.created);
        let arrived = self.change(store, place, now, |slot, entry| {
            let before = entry.stamp;
            let step = Step { model, slot, now, wall, chance: 0, created, is_newest: true };
            (step.arrive(entry, is_orphan), entry.stamp != before)
        });
        let Some((entry, (report, is_news))) = arrived else { return false };
        effects.events.extend(report.events);
        self.adopt(policy, place, &entry, now, effects);
        if let Some(slot) = self.slots.get_mut(place as usize) {
            slot.is_unsaid |= is_news;
        }
        true
    }
}
