//! One root's life: requests that are chosen a target, answered later, and recorded; and ticks.

use std::cell::RefCell;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::Duration;

use predictgate::arena::DRAIN;
use predictgate::health::{Effects, Health, Observation, Origin, Standing};
use predictgate::outcome::Outcome;
use predictgate::policy::Policy;
use predictgate::rng::Rng;
use predictgate::split::{Draw, choose};
use predictgate::store::{MemStore, SharedStore};
use predictgate::units::{Instant, Share, WallTime};

use super::ledger::{Arrival, Ledger, ProbeFlight};
use super::{CANARY, DIRECT, MODEL, ROLLOUT, Setting, TARGETS, policy};
use crate::scheduler::Host;

const TICK: Duration = Duration::from_millis(100);

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub settings: Vec<Setting>,
    pub ticks: u32,
    pub requests_per_tick: u64,
    /// From when to when each target fails, in milliseconds.
    pub fails: [(u64, u64); 3],
    /// One request in so many fails by itself.
    pub odds_of_failure: u64,
    /// Up to so many ticks pass from when a configuration is accepted to its first tick, and workers that stand side
    /// by side begin with different ones: an update has reached only some.
    pub starts_apart: Option<NonZeroU64>,
    /// In so many ticks a root must obey what was decided before the first of them.
    pub obeys_within: u32,
}

/// The parts of a worker that a wrong variant replaces.
pub trait Worker {
    fn is_newest(&self, host: &Host<'_>) -> bool {
        host.is_newest()
    }

    fn created(&self, now: Instant) -> Instant {
        now
    }

    fn shares(&self) -> bool {
        true
    }

    /// The policy by which the worker judges.
    fn judged_by(&self, policy: &Policy) -> Policy {
        policy.clone()
    }
}

/// As it is meant.
pub struct Right;

impl Worker for Right {}

struct Root<'a, 'h> {
    host: &'a Host<'h>,
    store: &'a dyn SharedStore,
    scenario: &'a Scenario,
    setting: Setting,
    created: Instant,
    policy: Policy,
    judged_by: Policy,
    health: Health,
    ledger: &'a Rc<RefCell<Ledger>>,
    rng: Rng,
    /// What is on its way, with the tick of its answer.
    pending: Vec<(u32, Observation, Option<ProbeFlight>)>,
    /// When the ticks began that are over.
    ticked: Vec<Instant>,
}

pub fn life(host: &Host<'_>, scenario: &Scenario, ledger: &Rc<RefCell<Ledger>>, worker: &dyn Worker) {
    let own = MemStore::default();
    let store: &dyn SharedStore = if worker.shares() { host } else { &own };
    let before = if scenario.starts_apart.is_some() { host.worker() } else { 0 };
    let setting = scenario.settings[(before + host.root() as usize) % scenario.settings.len()];
    let chance = (0..64).fold(0, |bits, _| bits << 1 | u64::from(host.one_in(2)));
    let policy = policy(setting);
    let created = host.now();
    ledger.borrow_mut().created.push((setting.epoch, created));
    let judged_by = worker.judged_by(&policy);
    let origin = Origin { instance: b"filter", seed: chance, created: worker.created(created), drain: DRAIN };
    let mut root = Root {
        host,
        store,
        scenario,
        setting,
        created,
        health: Health::new(&judged_by, origin),
        policy,
        judged_by,
        ledger,
        rng: Rng::seeded(chance),
        pending: vec![],
        ticked: vec![],
    };
    if let Some(ticks) = scenario.starts_apart {
        for _ in 0..root.rng.below(ticks) {
            host.wait(TICK);
        }
    }
    for tick in 0..scenario.ticks {
        root.tick(worker);
        // A root that is not the newest gets no new requests, and finishes those that it has.
        if host.is_newest() {
            for _ in 0..scenario.requests_per_tick {
                root.request(tick);
            }
        }
        for at in (0..root.pending.len()).rev() {
            if root.pending[at].0 <= tick {
                let (_, answered, flight) = root.pending.swap_remove(at);
                // Its answer is there, so it is not on its way any more.
                drop(flight);
                root.answer(answered);
            }
        }
        // Now and then nothing happens for so long that what has an expiry expires.
        host.wait(if host.one_in(60) { Duration::from_secs(61) } else { TICK });
    }
}

impl Root<'_, '_> {
    fn below(&mut self, bound: u64) -> u64 {
        self.rng.below(NonZeroU64::new(bound).expect("a choice of at least one"))
    }

    fn request(&mut self, tick: u32) {
        let now = self.host.now();
        let draw = Draw::at_random(self.rng.next_u64());
        let mut seen = Observation {
            model: MODEL,
            route: ROLLOUT,
            target: CANARY,
            outcome: Outcome::Success,
            latency: Some(Duration::from_millis(1 + self.below(20))),
            caller: None,
            started: now,
            probe: None,
            now,
        };
        let mut flight = None;
        if self.below(10) == 0 {
            seen.route = DIRECT;
        } else {
            let standing = self.health.standing(MODEL).clone();
            let route = &self.policy.models[0].routes[usize::from(ROLLOUT.0)];
            let in_force = standing.in_force(ROLLOUT, route, WallTime::default());
            let bound_to = choose(in_force.without_ejections(), || draw).unwrap();
            seen.target = choose(in_force.iter(), || draw).unwrap();
            if standing.share_of(bound_to) == Share::NONE {
                seen.probe = self.health.probe(self.store, &self.judged_by, MODEL, bound_to, now);
                if seen.probe.is_some() {
                    seen.target = bound_to;
                    flight = Some(ProbeFlight::begin(self.ledger, bound_to, now));
                }
            }
        }
        self.ledger.borrow_mut().happened.requests += 1;
        let answered = tick + u32::try_from(self.below(4)).unwrap();
        self.pending.push((answered, seen, flight));
    }

    fn answer(&mut self, mut seen: Observation) {
        seen.now = self.host.now();
        let millis = seen.now.as_nanos() / 1_000_000;
        let target = TARGETS.iter().position(|it| *it == seen.target).unwrap();
        let (from, to) = self.scenario.fails[target];
        let fails = if from <= millis && millis < to { 9 } else { 0 };
        let odds = self.scenario.odds_of_failure;
        seen.outcome = if self.below(10) < fails || (odds > 0 && self.below(odds) == 0) {
            Outcome::Failure
        } else if self.below(20) == 0 {
            Outcome::Neutral
        } else {
            Outcome::Success
        };
        let before = self.health.standing(MODEL).clone();
        self.ledger.borrow_mut().deciding.push(self.setting.epoch);
        let effects = self.health.record(self.store, &self.judged_by, &seen);
        self.take(&before, &effects);
    }

    fn tick(&mut self, worker: &dyn Worker) {
        let began = self.host.now();
        let is_newest = worker.is_newest(self.host);
        let before = self.health.standing(MODEL).clone();
        let wall = WallTime::default();
        self.ledger.borrow_mut().deciding.push(self.setting.epoch);
        let effects = self.health.tick(self.store, &self.judged_by, began, wall, is_newest);
        self.ticked.push(began);
        self.take(&before, &effects);
        self.check_obedience(began);
    }

    fn take(&self, before: &Standing, effects: &Effects) {
        let mut ledger = self.ledger.borrow_mut();
        let after = self.health.standing(MODEL);
        ledger.decided(self.setting.epoch);
        let said = self.host.now();
        ledger.events(&effects.events, &self.policy, (self.setting.epoch, self.created), before, after, said);
        ledger.check_someone_answers(&self.policy, after);
    }

    /// Whether enough ticks have begun since then, so that what was said then must be known.
    fn must_know(&self, said: Instant) -> bool {
        let since = self.ticked.iter().filter(|began| said < **began).count();
        self.scenario.obeys_within as usize <= since
    }

    fn check_obedience(&self, now: Instant) {
        let mut ledger = self.ledger.borrow_mut();
        let standing = self.health.standing(MODEL);
        for (target, until, said) in ledger.ejected.clone() {
            if now < until && self.must_know(said) {
                ledger.happened.obeyed += 1;
                let share = standing.share_of(target);
                ledger.check(share == Share::NONE, || {
                    format!("{target:?} has {share:?} at {now:?}, ejected at {said:?} until {until:?}")
                });
            }
        }
        for trip in ledger.trips_that_hold(self.setting.epoch) {
            if self.must_know(trip.said) {
                ledger.happened.obeyed += 1;
                ledger.check(standing.is_tripped(ROLLOUT), || format!("{trip:?} is lost at {now:?}"));
            }
        }
        let arrived = self.scenario.obeys_within as usize;
        if self.ticked.len() == arrived {
            let (epoch, created) = (self.setting.epoch, self.created);
            ledger.arrived.push(Arrival { epoch, created, at: now });
        }
        if self.ticked.len() == 1 {
            ledger.check_start(self.setting.epoch, self.created, standing.is_tripped(ROLLOUT));
        }
    }
}
