//! One worker's side of one model: what it has seen since it last merged, and what it knows of the shared state.

#![deny(clippy::arithmetic_side_effects)]

use std::time::Duration;

use super::Observation;
use super::entry::Entry;
use super::in_force::Standing;
use super::names;
use crate::arena::{Owner, Place};
use crate::outcome::Outcome;
use crate::outlier::{Ejection, OutlierDetection};
use crate::policy::Model;
use crate::tally::{Counts, Row, RowPart, caller_bit};
use crate::units::{Instant, Mode, ModelId, RouteId, Share, TargetId};

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are facts that do not depend on each other")]
pub struct Slot {
    pub model: ModelId,
    pub key: u64,
    /// The hash of everything that health keeps of the model.
    pub config: u64,
    pub owner: Owner,
    pub place: Option<Place>,
    /// The state where the arena has no entry left: this worker's alone.
    pub alone: Option<Box<Entry>>,
    pub targets: Vec<LocalTarget>,
    pub guards: Vec<LocalGuard>,
    /// The stamp of the shared state that is known here.
    pub stamp: u64,
    pub standing: Standing,
    /// The model is not as configured, in either mode, and the worker follows it.
    pub stands: bool,
    /// The windows by which the model is judged, and by how much their clock is ahead of the workers': models of
    /// different phases have their buckets end at different moments, so that not all are due with one tick.
    pub windows: Box<[Duration]>,
    phase: Duration,
    /// The number of failures with which no row was there, after the last merge.
    pub calm_at: Option<u16>,
    /// Until when something waits to be merged.
    pub waits_until: Option<Instant>,
    /// It has something to merge, with the next tick.
    pub is_dirty: bool,
    /// It has merged out of turn since the last tick.
    pub has_hurried: bool,
    /// Others must learn of what this worker has changed.
    pub is_unsaid: bool,
    /// When a bucket ends that nobody may have closed.
    pub follow: Option<Instant>,
    pub is_followed: bool,
    /// When somebody last listed the model.
    pub said: Instant,
}

/// What a worker has seen of a target. Without outlier detection a model has none of these.
#[derive(Debug)]
pub struct LocalTarget {
    pub key: u64,
    pub ejection: Ejection,
    pub row: Row,
    pub seen: RowPart,
    pub counts: Counts,
    /// A probe that showed nothing is over.
    pub ended_probe: Option<Instant>,
}

/// What a worker has seen of a guarded route.
#[derive(Debug)]
pub struct LocalGuard {
    pub route: RouteId,
    pub key: u64,
    window: Duration,
    pub config: u64,
    pub is_latched: bool,
    pub row: Row,
    pub seen: RowPart,
    pub canary: Counts,
    pub baseline: Counts,
}

/// Whether an observation must be merged at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Haste {
    None,
    /// A threshold seems crossed.
    Threshold,
    /// A probe is over.
    Probe,
}

impl Slot {
    /// None when nothing of the model is to be watched.
    #[inline(never)]
    pub fn new(id: ModelId, model: &Model) -> Option<Self> {
        let mut guards: Vec<LocalGuard> = Vec::new();
        for (route_id, route) in (0..).map(RouteId).zip(model.routes.iter()) {
            let Some(guard) = &route.guard else { continue };
            let key = names::route(route);
            // Of two routes that match the same, requests reach only the first.
            if guards.iter().all(|guard| guard.key != key) {
                guards.push(LocalGuard {
                    route: route_id,
                    key,
                    window: guard.window,
                    config: names::guard(model, route, guard),
                    is_latched: false,
                    row: Row::default(),
                    seen: RowPart::NONE,
                    canary: Counts::NONE,
                    baseline: Counts::NONE,
                });
            }
        }
        let detects = model.outlier_detection.is_some();
        let interval = model.outlier_detection.iter().map(|policy| policy.interval);
        let windows = interval.chain(guards.iter().map(|guard| guard.window)).collect();
        if !detects && guards.is_empty() {
            return None;
        }
        let targets = model.targets.iter().filter(|_| detects).map(|target| LocalTarget {
            key: names::name(target.name.as_bytes()),
            ejection: Ejection::default(),
            row: Row::default(),
            seen: RowPart::NONE,
            counts: Counts::NONE,
            ended_probe: None,
        });
        let key = names::name(model.name.as_bytes());
        Some(Self {
            model: id,
            key,
            windows,
            // Up to 69 s.
            phase: Duration::from_nanos(key >> 28),
            calm_at: None,
            waits_until: None,
            config: names::model(model, guards.iter().map(|guard| (guard.key, guard.config))),
            owner: Owner::of("health", &[model.name.as_bytes()]),
            place: None,
            alone: None,
            targets: targets.collect(),
            guards,
            stamp: 0,
            standing: Standing::QUIET,
            stands: false,
            is_dirty: false,
            has_hurried: false,
            is_unsaid: false,
            follow: None,
            is_followed: false,
            said: Instant::default(),
        })
    }

    /// Counts what became of a request.
    pub fn record(&mut self, model: &Model, seen: &Observation) -> Haste {
        let hurries = self.guards.iter_mut().any(|guard| guard.record(model, seen));
        let mut haste = if hurries { Haste::Threshold } else { Haste::None };
        if let Some(policy) = &model.outlier_detection
            && let Some(target) = self.targets.get_mut(usize::from(seen.target.0))
        {
            if let Some(probe) = seen.probe {
                target.ended_probe = Some(probe.0);
                haste = Haste::Probe;
            }
            let began = seen.probe.map_or(seen.started, |probe| seen.started.max(probe.0));
            // What was sent before the ejection ended proves nothing of the time after.
            if target.ejection.until <= began {
                haste = haste.max(target.record(policy, seen));
            }
        }
        haste
    }

    /// Forgets what was merged.
    pub fn clear(&mut self) {
        self.is_dirty = false;
        self.waits_until = None;
        for target in &mut self.targets {
            target.seen = RowPart::NONE;
            target.counts.clear();
            target.ended_probe = None;
        }
        for guard in &mut self.guards {
            guard.seen = RowPart::NONE;
            guard.canary.clear();
            guard.baseline.clear();
        }
    }

    /// The moment on the clock of the model's windows.
    pub fn on_clock(&self, now: Instant) -> Instant {
        now.after(self.phase)
    }

    /// The moment that is `end` on the clock of the model's windows.
    pub fn off_clock(&self, end: Instant) -> Instant {
        Instant::default().after(end.since(Instant::default().after(self.phase)))
    }

    /// Whether failures are to be merged.
    pub fn has_failures(&self) -> bool {
        self.targets.iter().any(|target| !target.seen.is_success())
            || self.guards.iter().any(|guard| !guard.seen.is_success())
    }

    /// Whether no row has begun in the shared state.
    pub fn is_calm(&self) -> bool {
        self.targets.iter().all(|target| target.row.failures == 0)
            && self.guards.iter().all(|guard| guard.row.failures == 0)
    }

    /// Takes over the shared state.
    pub fn adopt(&mut self, entry: &Entry, is_newest: bool) {
        self.stamp = entry.stamp;
        for target in &mut self.targets {
            let state = entry.target(target.key);
            let ejection = state.map_or_else(Ejection::default, |state| state.ejection);
            if ejection.until != target.ejection.until {
                // What was seen under another ejection proves nothing about this one.
                target.seen = RowPart::NONE;
                target.counts.clear();
            }
            target.ejection = ejection;
            target.row = state.map_or_else(Row::default, |state| state.row);
        }
        for guard in &mut self.guards {
            let state = entry.guard(guard.key).filter(|state| state.config == guard.config);
            if !is_newest && state.is_none() {
                // The newer configuration knows nothing of this guard, whose canary still is what it was.
                continue;
            }
            guard.is_latched = state.is_some_and(|state| state.latch.is_some());
            guard.row = state.map_or_else(Row::default, |state| state.row);
        }
        if !self.is_calm() {
            self.calm_at = None;
        }
    }

    /// What is in force now by what is known here.
    pub fn standing_at(&self, model: &Model, now: Instant) -> Standing {
        let mut standing = Standing::default();
        if let Some(policy) = model.outlier_detection.as_ref().filter(|policy| policy.mode == Mode::Enforce) {
            for (id, target) in (0..).map(TargetId).zip(&self.targets) {
                let share = target.ejection.share(policy, now);
                if share < Share::WHOLE {
                    standing.shares.push((id, share));
                }
            }
        }
        for guard in self.guards.iter().filter(|guard| guard.is_latched) {
            let route = model.routes.get(usize::from(guard.route.0));
            if route.and_then(|route| route.guard.as_ref()).is_some_and(|guard| guard.mode == Mode::Enforce) {
                standing.tripped.push(guard.route);
            }
        }
        standing
    }

    /// Whether others must know of the model's state, whatever its modes are.
    pub fn must_be_known(&self, model: &Model, now: Instant) -> bool {
        let is_away = |target: &LocalTarget| {
            let policy = model.outlier_detection.as_ref();
            policy.is_some_and(|policy| target.ejection.share(policy, now) < Share::WHOLE)
        };
        self.targets.iter().any(is_away) || self.guards.iter().any(|guard| guard.is_latched)
    }
}

impl LocalTarget {
    fn record(&mut self, policy: &OutlierDetection, seen: &Observation) -> Haste {
        if matches!(seen.outcome, Outcome::Neutral | Outcome::Overload) {
            return Haste::None;
        }
        count(&mut self.counts, &mut self.seen, seen);
        if policy.compares_latencies() {
            count_latency(&mut self.counts, seen);
        }
        if self.ejection.is_on_probation(seen.now) {
            return Haste::Probe;
        }
        let row = self.row.and(self.seen);
        let crosses =
            seen.outcome != Outcome::Success && row.reaches(policy.consecutive_failures, policy.min_clients);
        if crosses { Haste::Threshold } else { Haste::None }
    }

    pub fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.ended_probe.is_none()
    }
}

impl LocalGuard {
    /// Counts the answer, and says whether the canary seems to have failed too often in a row.
    fn record(&mut self, model: &Model, seen: &Observation) -> bool {
        if self.route != seen.route {
            return false;
        }
        let Some(guard) =
            model.routes.get(usize::from(self.route.0)).and_then(|route| route.guard.as_deref())
        else {
            return false;
        };
        if seen.target == guard.baseline {
            count(&mut self.baseline, &mut RowPart::default(), seen);
            count_latency(&mut self.baseline, seen);
        } else if seen.target == guard.target {
            count(&mut self.canary, &mut self.seen, seen);
            count_latency(&mut self.canary, seen);
            let clients = min_clients(model);
            return !self.is_latched
                && matches!(seen.outcome, Outcome::Failure | Outcome::NotServed)
                && self.row.and(self.seen).reaches(guard.consecutive_failures, clients);
        }
        false
    }

    pub const fn is_empty(&self) -> bool {
        self.canary.is_empty() && self.baseline.is_empty()
    }
}

/// How many callers must have seen a row of failures.
pub fn min_clients(model: &Model) -> u32 {
    model.outlier_detection.as_ref().map_or(1, |policy| policy.min_clients)
}

fn count(counts: &mut Counts, row: &mut RowPart, seen: &Observation) {
    match seen.outcome {
        Outcome::Neutral => return,
        Outcome::Success => row.success(),
        Outcome::Failure | Outcome::NotServed => {
            row.failure(seen.caller);
            counts.bad = counts.bad.saturating_add(1);
        }
        // It is counted, and shows neither that the target works nor that it does not.
        Outcome::Overload => counts.bad = counts.bad.saturating_add(1),
    }
    if seen.outcome != Outcome::Success {
        counts.callers |= seen.caller.map_or(0, caller_bit);
    }
    counts.requests = counts.requests.saturating_add(1);
}

fn count_latency(counts: &mut Counts, seen: &Observation) {
    if let (Outcome::Success, Some(latency)) = (seen.outcome, seen.latency) {
        counts.latencies.add(latency);
    }
}
