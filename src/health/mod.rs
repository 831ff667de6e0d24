//! Health: what a worker records of outcomes, how workers merge it, who judges, and what is in force.
//!
//! A worker counts in its own memory ([`Health::record`]) and adds its part to the shared state of the model on each
//! tick, later when it holds nothing but successes (`wait`), or at once when a threshold seems crossed. Whoever's write
//! closes a bucket, or completes a row, judges; the others learn of it by a list that they read on each tick
//! ([`Health::tick`]). Reads for a decision touch no shared memory ([`Health::is_quiet`], [`Health::standing`]).
//!
//! A policy that is off costs nothing: a model without `outlier_detection` and guards has no place here.

#![deny(clippy::arithmetic_side_effects)]

mod arrive;
mod changes;
mod effects;
mod entry;
mod in_force;
mod names;
mod share;
mod show;
mod slot;
mod step;
mod wait;

use std::time::Duration;

use hashbrown::HashMap;

use crate::arena::{Arena, ENTRIES};
use crate::outcome::Outcome;
use crate::policy::{Model, Policy};
use crate::rng::Rng;
use crate::store::{SharedStore, Version};
use crate::units::{Instant, Mode, ModelId, RouteId, Share, TargetId, WallTime};
use show::Ramping;
use slot::{Haste, Slot};
use wait::{Failing, Waiting};

pub use effects::{Effects, Event, Gauge, Numbers};
pub use in_force::{InForce, Standing};

/// What became of one request that was forwarded.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    pub model: ModelId,
    pub route: RouteId,
    pub target: TargetId,
    pub outcome: Outcome,
    /// From when it was forwarded to its end; none for a stream of messages.
    pub latency: Option<Duration>,
    /// A hash of the caller's address without the port, where [`Health::wants_caller`].
    pub caller: Option<u64>,
    /// When it was forwarded.
    pub started: Instant,
    /// What [`Health::probe`] gave, if the request is a probe.
    pub probe: Option<Probe>,
    pub now: Instant,
}

/// The right to send one request to a target that is out of traffic. It is given back by [`Health::record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Probe(Instant);

/// What a [`Health`] is made with beside the policy.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The plugin's name. Filters that share a `state_namespace` and have different configurations need different
    /// names.
    pub instance: &'a [u8],
    /// Seeds the jitter of ejections.
    pub seed: u64,
    /// When the configuration was accepted in this worker.
    pub created: Instant,
    /// How long an old configuration's streams may live on.
    pub drain: Duration,
}

/// One worker's side of the health of all models of one configuration.
#[derive(Debug)]
pub struct Health {
    arena: Arena,
    /// The key of the list of changes.
    changes: Box<str>,
    instance: u64,
    config: u64,
    created: Instant,
    stale_after: Duration,
    /// How often a model that is not as configured is listed again.
    say_again: Duration,
    rng: Rng,
    slots: Vec<Slot>,
    /// The slot of each model of the policy.
    by_model: Vec<Option<u32>>,
    /// The slot of each model by the hash of its name.
    by_key: HashMap<u64, u32>,
    wall: WallTime,
    is_newest: bool,
    /// The configuration is in force, or an older one by now.
    has_arrived: bool,
    /// The list of changes as it was last read.
    read: Option<Version>,
    dirty: Vec<u32>,
    /// The slots that have something to merge which may wait.
    waiting: Vec<Waiting>,
    failing: Failing,
    /// The slots whose model is not as configured, or that others must hear of.
    standing: Vec<u32>,
    /// The slots with a bucket that nobody may have closed.
    followed: Vec<u32>,
    /// How many slots have something in force.
    acting: usize,
    ramps: Vec<Ramping>,
    ramps_due: Instant,
    /// Models without an entry, because the arena is full.
    alone: u64,
}

impl Health {
    #[inline(never)]
    pub fn new(policy: &Policy, origin: Origin<'_>) -> Self {
        let mut slots = Vec::new();
        let (mut by_model, mut by_key) = (Vec::new(), HashMap::new());
        for (id, model) in (0..).map(ModelId).zip(&policy.models) {
            let slot = Slot::new(id, model);
            by_model.push(slot.as_ref().and_then(|_| u32::try_from(slots.len()).ok()));
            if let Some(slot) = slot {
                by_key.extend(u32::try_from(slots.len()).ok().map(|place| (slot.key, place)));
                slots.push(slot);
            }
        }
        if slots.is_empty() {
            by_model = Vec::new();
        }
        let config = slots.iter().fold(0_u64, |hash, slot: &Slot| {
            names::name(&[hash.to_le_bytes(), slot.key.to_le_bytes(), slot.config.to_le_bytes()].concat())
        });
        Self {
            arena: Arena::new(&policy.state_namespace, ENTRIES, origin.drain),
            changes: format!("pg1/{}/changes", policy.state_namespace).into(),
            instance: names::name(origin.instance),
            config,
            created: origin.created,
            stale_after: origin.drain.saturating_mul(2),
            say_again: origin.drain.checked_div(4).unwrap_or(origin.drain),
            rng: Rng::seeded(origin.seed),
            slots,
            by_model,
            by_key,
            wall: WallTime::default(),
            is_newest: true,
            has_arrived: false,
            read: None,
            dirty: Vec::new(),
            waiting: Vec::new(),
            failing: Failing::new(&policy.state_namespace),
            standing: Vec::new(),
            followed: Vec::new(),
            acting: 0,
            ramps: Ramping::all(policy),
            ramps_due: Instant::default(),
            alone: 0,
        }
    }

    /// Whether everything is as configured: no target is ejected or recovering, and no guard has tripped.
    pub const fn is_quiet(&self) -> bool {
        self.acting == 0
    }

    /// What of a model is not as configured.
    pub fn standing(&self, model: ModelId) -> &Standing {
        static QUIET: Standing = Standing::QUIET;
        self.slot(model).map_or(&QUIET, |slot| &slot.standing)
    }

    /// The share of its weight that a target has.
    pub fn share_of(&self, model: ModelId, target: TargetId) -> Share {
        self.standing(model).share_of(target)
    }

    pub fn is_tripped(&self, model: ModelId, route: RouteId) -> bool {
        self.standing(model).is_tripped(route)
    }

    /// Whether outcomes of the model are to be recorded.
    pub fn watches(&self, model: ModelId) -> bool {
        self.place(model).is_some()
    }

    /// Whether failures of the model are to come with a hash of their caller's address.
    pub fn wants_caller(&self, policy: &Policy, model: ModelId) -> bool {
        self.slot(model).is_some() && model_of(policy, model).is_some_and(|it| 1 < slot::min_clients(it))
    }

    /// Models whose state this worker keeps for itself, because the arena is full. It only grows.
    pub const fn alone(&self) -> u64 {
        self.alone
    }

    /// Lets one request go to an ejected target whose time is over, unless another does already in some worker.
    /// Without one to give it touches no shared memory.
    pub fn probe(
        &mut self,
        store: &dyn SharedStore,
        policy: &Policy,
        model: ModelId,
        target: TargetId,
        now: Instant,
    ) -> Option<Probe> {
        let place = self.place(model)?;
        let settings = model_of(policy, model)?.outlier_detection.as_ref()?;
        let known = self.slot(model)?.targets.get(usize::from(target.0))?;
        if settings.mode == Mode::Shadow || !known.ejection.awaits_probe(now) {
            return None;
        }
        let key = known.key;
        let taken = self.change(store, place, now, |_, entry| {
            let state = entry.target_mut(key)?;
            let awaits = state.ejection.awaits_probe(now);
            if awaits {
                state.ejection = state.ejection.begin_probe(now);
            }
            awaits.then_some(())
        });
        let (entry, probe) = taken?;
        self.adopt(policy, place, &entry, now, &mut Effects::default());
        probe.map(|()| Probe(now))
    }

    /// Takes account of what became of a request.
    pub fn record(&mut self, store: &dyn SharedStore, policy: &Policy, seen: &Observation) -> Effects {
        if seen.outcome == Outcome::Neutral && seen.probe.is_none() {
            return Effects::default();
        }
        let Some(place) = self.place(seen.model) else { return Effects::default() };
        let Some(model) = model_of(policy, seen.model) else { return Effects::default() };
        let Some(slot) = self.slots.get_mut(place as usize) else { return Effects::default() };
        let haste = slot.record(model, seen);
        if !std::mem::replace(&mut slot.is_dirty, true) {
            self.dirty.push(place);
        }
        match haste {
            Haste::None => return Effects::default(),
            // Old roots judge nothing, and a row that may not eject is not asked for at each failure.
            Haste::Threshold if !self.is_newest || slot.has_hurried => return Effects::default(),
            Haste::Threshold => slot.has_hurried = true,
            Haste::Probe => {}
        }
        let mut effects = Effects::default();
        self.merge(store, policy, place, seen.now, &mut effects);
        self.failing.count(store);
        effects
    }

    /// Learns what is in force already, so that the first request obeys it, too, and changes nothing of it: the
    /// configuration may still be refused elsewhere.
    pub fn catch_up(
        &mut self,
        store: &dyn SharedStore,
        policy: &Policy,
        now: Instant,
        wall: WallTime,
    ) -> Effects {
        let mut effects = Effects::default();
        self.wall = wall;
        if !self.slots.is_empty() {
            self.learn(store, policy, now, &mut effects);
        }
        effects
    }

    /// Merges, judges and learns what others have decided. `now` and `wall` are one moment, `wall` the highest that
    /// was seen; `is_newest` unless the same plugin has a newer configuration in this worker.
    pub fn tick(
        &mut self,
        store: &dyn SharedStore,
        policy: &Policy,
        now: Instant,
        wall: WallTime,
        is_newest: bool,
    ) -> Effects {
        let mut effects = Effects::default();
        (self.wall, self.is_newest) = (wall, is_newest);
        self.show_ramps(policy, now, &mut effects);
        if self.slots.is_empty() && self.has_arrived {
            return effects;
        }
        if !self.has_arrived {
            self.arrive(store, policy, now, &mut effects);
        }
        self.learn(store, policy, now, &mut effects);
        self.merge_due(store, policy, now, &mut effects);
        self.follow_up(store, policy, now, &mut effects);
        self.keep_up(store, policy, now, &mut effects);
        effects
    }

    fn place(&self, model: ModelId) -> Option<u32> {
        self.by_model.get(usize::try_from(model.0).ok()?).copied().flatten()
    }

    fn slot(&self, model: ModelId) -> Option<&Slot> {
        self.slots.get(self.place(model)? as usize)
    }
}

fn model_of(policy: &Policy, model: ModelId) -> Option<&Model> {
    policy.models.get(usize::try_from(model.0).ok()?)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows stops")]
mod tests;
