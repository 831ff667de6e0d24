//! How a worker's part gets into shared memory, and what others have decided out of it.

#![deny(clippy::arithmetic_side_effects)]

use super::changes::{Changes, Listed};
use super::effects::Effects;
use super::entry::Entry;
use super::slot::Slot;
use super::step::Step;
use super::{Health, model_of};
use crate::arena::{Failed, Then, Unclaimed};
use crate::policy::Policy;
use crate::store::{Next, SharedStore, update};
use crate::units::Instant;

impl Health {
    /// Changes the shared state of a model by a pure step, or the worker's own state where the arena is full.
    /// None when others were faster too often.
    pub(super) fn change<T>(
        &mut self,
        store: &dyn SharedStore,
        place: u32,
        now: Instant,
        mut step: impl FnMut(&Slot, &mut Entry) -> T,
    ) -> Option<(Entry, T)> {
        let slot = self.slots.get_mut(place as usize)?;
        // An entry that was lost is claimed again, once.
        for _ in 0..2 {
            if let Some(mut entry) = slot.alone.take() {
                let answer = step(slot, &mut entry);
                slot.alone = Some(entry.clone());
                return Some((*entry, answer));
            }
            let mut at = match slot.place.take() {
                Some(at) => at,
                None => match self.arena.claim(store, now, slot.owner, &[]) {
                    Ok(at) => at,
                    Err(Unclaimed::Contended) => return None,
                    Err(Unclaimed::Full) => {
                        slot.alone = Some(Box::default());
                        self.alone = self.alone.saturating_add(1);
                        continue;
                    }
                },
            };
            let changed = self.arena.update(store, &mut at, now, |body| {
                let mut entry = Entry::read(body);
                let answer = step(slot, &mut entry);
                let written = entry.write(body.len());
                let then = if written == *body { Then::Keep } else { Then::Write };
                *body = written;
                (then, (entry, answer))
            });
            match changed {
                Ok(changed) => {
                    slot.place = Some(at);
                    return Some(changed);
                }
                Err(Failed::Lost) => {}
                Err(Failed::Conflict) => {
                    slot.place = Some(at);
                    return None;
                }
            }
        }
        None
    }

    /// Adds what the worker has seen of a model to the shared state.
    pub(super) fn merge(
        &mut self,
        store: &dyn SharedStore,
        policy: &Policy,
        place: u32,
        now: Instant,
        effects: &mut Effects,
    ) {
        let Some(model) = self.slots.get(place as usize).and_then(|slot| model_of(policy, slot.model)) else {
            return;
        };
        let (wall, chance, created, is_newest) =
            (self.wall, self.rng.next_u64(), self.created, self.is_newest);
        let merged = self.change(store, place, now, |slot, entry| {
            let before = entry.stamp;
            let report = Step { model, slot, now, wall, chance, created, is_newest }.take(entry);
            (report, entry.stamp != before)
        });
        let Some(slot) = self.slots.get_mut(place as usize) else { return };
        let Some((entry, (report, is_news))) = merged else {
            // It goes on with the next tick.
            slot.is_dirty = true;
            slot.waits_until = None;
            self.dirty.push(place);
            return;
        };
        let has_failures = slot.has_failures();
        slot.clear();
        slot.is_unsaid |= is_news;
        slot.follow = report.follow;
        if slot.follow.is_some() && !std::mem::replace(&mut slot.is_followed, true) {
            self.followed.push(place);
        }
        effects.events.extend(report.events);
        self.adopt(policy, place, &entry, now, effects);
        if let Some(slot) = self.slots.get_mut(place as usize) {
            slot.calm_at = slot.is_calm().then(|| self.failing.of(slot.key));
            if has_failures && slot.calm_at.is_none() {
                self.failing.add(slot.key);
            }
        }
        if is_news {
            self.say(store, place, now);
        }
    }

    /// Takes over the state of a model as others left it.
    pub(super) fn adopt(
        &mut self,
        policy: &Policy,
        place: u32,
        entry: &Entry,
        now: Instant,
        effects: &mut Effects,
    ) {
        if let Some(slot) = self.slots.get_mut(place as usize) {
            slot.adopt(entry, self.is_newest);
        }
        self.refresh(policy, place, now, effects);
    }

    /// Puts in force what is known of a model at this moment.
    fn refresh(&mut self, policy: &Policy, place: u32, now: Instant, effects: &mut Effects) {
        let Some(slot) = self.slots.get_mut(place as usize) else { return };
        let Some(model) = model_of(policy, slot.model) else { return };
        if slot.must_be_known(model, now) && !std::mem::replace(&mut slot.stands, true) {
            self.standing.push(place);
        }
        let standing = slot.standing_at(model, now);
        if standing == slot.standing {
            return;
        }
        let before = std::mem::replace(&mut slot.standing, standing);
        match (before.is_quiet(), slot.standing.is_quiet()) {
            (true, false) => self.acting = self.acting.saturating_add(1),
            (false, true) => self.acting = self.acting.saturating_sub(1),
            _ => {}
        }
        self.show_changes(model, place, &before, effects);
    }

    /// Lists a model as not as configured, for the other workers.
    pub(super) fn say(&mut self, store: &dyn SharedStore, place: u32, now: Instant) {
        let Some(slot) = self.slots.get_mut(place as usize) else { return };
        if slot.alone.is_some() {
            slot.is_unsaid = false;
            return;
        }
        let (model, stamp, instance) = (slot.key, slot.stamp, self.instance);
        let listed = Listed { model, stamp, said: now, instance, is_orphan: false };
        let stale_after = self.stale_after;
        let said = update(store, &self.changes, |old| {
            let mut changes = Changes::read(old.unwrap_or_default());
            changes.list(listed, stale_after);
            (Next::Write(changes.write()), ())
        });
        slot.is_unsaid = said.is_err();
        if said.is_ok() {
            slot.said = now;
        }
    }

    /// Reads what has changed.
    // A copy at each of its uses makes the module a kilobyte larger.
    #[inline(never)]
    pub(super) fn learn(
        &mut self,
        store: &dyn SharedStore,
        policy: &Policy,
        now: Instant,
        effects: &mut Effects,
    ) {
        let (value, version) = store.load(&self.changes);
        if self.read == Some(version) {
            return;
        }
        self.read = Some(version);
        let changes = Changes::read(&value.unwrap_or_default());
        for listed in &changes.listed {
            let Some(place) = self.by_key.get(&listed.model).copied() else { continue };
            let Some(slot) = self.slots.get_mut(place as usize) else { continue };
            slot.said = listed.said;
            if slot.stamp != listed.stamp || !slot.stands {
                self.reload(store, policy, place, now, effects);
            }
            if let Some(slot) = self.slots.get_mut(place as usize) {
                // Who changed it may have died before it could say so.
                slot.is_unsaid |= self.is_newest && listed.stamp < slot.stamp;
            }
        }
        for place in self.standing.clone() {
            let Some(slot) = self.slots.get(place as usize) else { continue };
            if slot.alone.is_none() && changes.listed(slot.key).is_none() {
                self.reload(store, policy, place, now, effects);
                if let Some(slot) = self.slots.get_mut(place as usize) {
                    slot.is_unsaid |= self.is_newest;
                }
            }
        }
    }

    fn reload(
        &mut self,
        store: &dyn SharedStore,
        policy: &Policy,
        place: u32,
        now: Instant,
        effects: &mut Effects,
    ) {
        match self.change(store, place, now, |_, _| ()) {
            Some((entry, ())) => self.adopt(policy, place, &entry, now, effects),
            // The list is read again on the next tick.
            None => self.read = None,
        }
    }

    /// Judges the buckets that have ended, if nobody else has.
    pub(super) fn follow_up(
        &mut self,
        store: &dyn SharedStore,
        policy: &Policy,
        now: Instant,
        effects: &mut Effects,
    ) {
        for place in std::mem::take(&mut self.followed) {
            let Some(slot) = self.slots.get_mut(place as usize) else { continue };
            match slot.follow {
                Some(end) if self.is_newest && now < end => self.followed.push(place),
                Some(_) if self.is_newest => {
                    slot.is_followed = false;
                    self.merge(store, policy, place, now, effects);
                }
                _ => slot.is_followed = false,
            }
        }
    }

    /// Follows the clock for models that are not as configured, and keeps others told of them.
    pub(super) fn keep_up(
        &mut self,
        store: &dyn SharedStore,
        policy: &Policy,
        now: Instant,
        effects: &mut Effects,
    ) {
        for at in std::mem::take(&mut self.standing) {
            self.refresh(policy, at, now, effects);
            let Some(slot) = self.slots.get_mut(at as usize) else { continue };
            let Some(model) = model_of(policy, slot.model) else { continue };
            if slot.must_be_known(model, now) {
                if let Some(place) = &mut slot.place
                    && self.arena.touch(store, place, now) == Err(Failed::Lost)
                {
                    slot.place = None;
                }
                self.standing.push(at);
                if slot.is_unsaid || (self.is_newest && self.say_again <= now.since(slot.said)) {
                    self.say(store, at, now);
                }
                continue;
            }
            slot.stands = false;
            let (key, stamp) = (slot.key, slot.stamp);
            if self.is_newest && slot.alone.is_none() {
                let unlisted = update(store, &self.changes, |old| {
                    let mut changes = Changes::read(old.unwrap_or_default());
                    let is_listed = changes.unlist(key, stamp);
                    (if is_listed { Next::Write(changes.write()) } else { Next::Keep }, ())
                });
                if unlisted.is_err() {
                    slot.stands = true;
                    self.standing.push(at);
                }
            }
        }
    }
}
