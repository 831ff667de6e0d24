//! Workers that share a store, one call after the other.

mod ejection;
mod guard;
mod waiting;
mod workers;

use std::cell::Cell;

use super::*;
use crate::arena::DRAIN;
use crate::config;
use crate::store::{Conflict, MemStore};
use crate::units::nanos;

const STABLE: TargetId = TargetId(1);
const CANARY: TargetId = TargetId(0);
const ROLLOUT: RouteId = RouteId(0);
const TICK: Duration = Duration::from_millis(100);

/// One model with a rollout; `more` stands in the model, `guard` is the route's guard.
fn configured(weights: (u32, u32), more: &str, guard: &str) -> Policy {
    let guard = if guard.is_empty() {
        String::new()
    } else {
        format!(r#", "guard": {{ "target": "canary", "baseline": "stable", {guard} }}"#)
    };
    let more = if more.is_empty() { String::new() } else { format!(", {more}") };
    let text = format!(
        r#"{{ "models": [ {{ "name": "resnet",
             "targets": {{ "canary": {{ "cluster": "v2" }}, "stable": {{ "cluster": "v1" }} }},
             "routes": [ {{ "name": "rollout", "split": [ {{ "target": "stable", "weight": {} }},
                 {{ "target": "canary", "weight": {} }} ]{guard} }} ]{more} }} ] }}"#,
        weights.0, weights.1
    );
    config::parse_all(&text).unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn ejecting() -> Policy {
    configured((50, 50), r#""outlier_detection": {}"#, "")
}

fn guarded(more: &str) -> Policy {
    configured((90, 10), "", &format!(r#""window": "60s"{more}"#))
}

/// Counts the calls of a store.
#[derive(Default)]
struct Counting {
    store: MemStore,
    calls: Cell<u32>,
}

impl SharedStore for Counting {
    fn load(&self, key: &str) -> (Option<Vec<u8>>, Version) {
        self.calls.set(self.calls.get() + 1);
        self.store.load(key)
    }

    fn store(&self, key: &str, value: &[u8], version: Version) -> Result<(), Conflict> {
        self.calls.set(self.calls.get() + 1);
        self.store.store(key, value, version)
    }
}

/// Workers that share a store and a clock.
struct Process {
    store: Counting,
    now: Instant,
    workers: Vec<(Policy, Health)>,
    events: Vec<Event>,
    gauges: Vec<Gauge>,
}

impl Process {
    fn new(policy: &Policy, workers: usize) -> Self {
        let mut process = Self {
            store: Counting::default(),
            now: Instant::from_nanos(1_000_000_000_000),
            workers: vec![],
            events: vec![],
            gauges: vec![],
        };
        process.update(policy, workers);
        process
    }

    /// All workers get this configuration, and the old ones are gone.
    fn update(&mut self, policy: &Policy, workers: usize) {
        self.wait(Duration::from_millis(1));
        self.workers = (0..workers).map(|_| self.worker(policy)).collect();
        self.tick();
    }

    fn worker(&self, policy: &Policy) -> (Policy, Health) {
        let origin = Origin { instance: b"predictgate", seed: 1, created: self.now, drain: DRAIN };
        (policy.clone(), Health::new(policy, origin))
    }

    fn wait(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
    }

    fn take(&mut self, effects: Effects) {
        self.events.extend(effects.events);
        self.gauges.extend(effects.gauges);
    }

    fn tick(&mut self) {
        self.wait(TICK);
        for worker in 0..self.workers.len() {
            self.tick_one(worker, true);
        }
    }

    fn tick_one(&mut self, worker: usize, is_newest: bool) {
        let (policy, health) = &mut self.workers[worker];
        let effects = health.tick(&self.store, policy, self.now, WallTime::default(), is_newest);
        self.take(effects);
    }

    fn ticks(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        while self.now < end {
            self.tick();
        }
    }

    fn answer(&mut self, worker: usize, target: TargetId, outcome: Outcome) {
        self.observe(worker, Observation { outcome, ..self.seen(target) });
    }

    fn observe(&mut self, worker: usize, seen: Observation) {
        let (policy, health) = &mut self.workers[worker];
        let effects = health.record(&self.store, policy, &seen);
        self.take(effects);
    }

    fn seen(&self, target: TargetId) -> Observation {
        Observation {
            model: ModelId(0),
            route: ROLLOUT,
            target,
            outcome: Outcome::Success,
            latency: Some(Duration::from_millis(10)),
            caller: None,
            started: self.now,
            probe: None,
            now: self.now,
        }
    }

    fn fail(&mut self, worker: usize, target: TargetId, times: u32) {
        for _ in 0..times {
            self.answer(worker, target, Outcome::Failure);
        }
    }

    fn probe(&mut self, worker: usize, target: TargetId) -> Option<Probe> {
        let (policy, health) = &mut self.workers[worker];
        health.probe(&self.store, policy, ModelId(0), target, self.now)
    }

    fn share(&self, worker: usize, target: TargetId) -> Share {
        self.workers[worker].1.share_of(ModelId(0), target)
    }

    fn is_tripped(&self, worker: usize) -> bool {
        self.workers[worker].1.is_tripped(ModelId(0), ROLLOUT)
    }

    fn causes(&self) -> Vec<&'static str> {
        let name = |event: &Event| match event {
            Event::Ejected { cause, .. } => cause.name(),
            Event::RolledBack { cause, .. } => cause.name(),
            Event::RefusedByMax { .. } => "refused",
            Event::Returned { .. } => "returned",
            Event::Cleared { .. } => "cleared",
        };
        self.events.iter().map(name).collect()
    }
}
