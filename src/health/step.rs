//! The step from one state of a model to the next: a worker's part is added, and what is due is judged.
//!
//! It is a pure function of the entry, so it can run again after each conflict. Whoever closes a bucket judges its
//! window, and that is one worker, because only one compare-and-swap succeeds.

#![deny(clippy::arithmetic_side_effects)]

use super::effects::{Event, Numbers};
use super::entry::{Entry, GuardState, Latch, TargetState};
use super::in_force::{Room, Standing};
use super::slot::{LocalGuard, LocalTarget, Slot, min_clients};
use crate::guard::{self, Guard, OnEjection};
use crate::outlier::{Cause, OutlierDetection};
use crate::policy::Model;
use crate::tally::{Counts, Row, Window};
use crate::units::{Instant, Mode, RouteId, Share, TargetId, WallTime};

/// What a step is taken with.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    pub model: &'a Model,
    pub slot: &'a Slot,
    pub now: Instant,
    pub wall: WallTime,
    /// A uniform number.
    pub chance: u64,
    /// When the root was made.
    pub created: Instant,
    /// The root is the newest of its worker.
    pub is_newest: bool,
}

/// What a step leads to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub events: Vec<Event>,
    /// When a bucket ends in which there is something to judge.
    pub follow: Option<Instant>,
}

impl Step<'_> {
    pub fn take(&self, entry: &mut Entry) -> Report {
        let mut report = Report::default();
        let judges = self.is_newest && self.take_over(entry, &mut report);
        for local in &self.slot.guards {
            self.merge_guard(entry, local, judges, &mut report);
        }
        if let Some(policy) = &self.model.outlier_detection {
            if judges {
                self.judge_windows(entry, policy, &mut report);
            }
            for (target, local) in (0..).map(TargetId).zip(&self.slot.targets) {
                self.merge_target(entry, policy, target, local, judges, &mut report);
            }
            // What nobody failed accuses nobody but by its latency, and is closed with what comes next.
            let accuses = |state: &&TargetState| policy.compares_latencies() || state.window.has_bad();
            for state in entry.targets.iter().filter(accuses) {
                report.follow(state.window.ends(policy.interval));
            }
        }
        report.follow = report.follow.map(|end| self.slot.off_clock(end));
        report
    }

    /// Makes the entry one of this configuration, and says whether it is one.
    fn take_over(&self, entry: &mut Entry, report: &mut Report) -> bool {
        if entry.config == self.slot.config {
            // A root of another configuration that is older than this one does not take it over.
            entry.since = entry.since.max(self.created);
            return true;
        }
        let is_new = *entry == Entry::default();
        if !is_new && self.created <= entry.since {
            // A newer configuration judges this model.
            return false;
        }
        (entry.config, entry.since) = (self.slot.config, self.created);
        entry.targets.retain(|state| self.slot.targets.iter().any(|target| target.key == state.key));
        let is_own = |state: &GuardState| {
            self.slot.guards.iter().any(|guard| guard.key == state.key && guard.config == state.config)
        };
        let was_latched = entry.guards.iter().any(|state| state.latch.is_some() && !is_own(state));
        entry.guards.retain(is_own);
        if was_latched {
            report.events.push(Event::Cleared { model: self.slot.model });
        }
        if !is_new {
            entry.stamp();
        }
        true
    }

    /// Makes the entry one of this configuration that has just come into force. What an orphan had latched does not
    /// hold any more.
    pub fn arrive(&self, entry: &mut Entry, is_orphan: bool) -> Report {
        let mut report = Report::default();
        if self.take_over(entry, &mut report)
            && is_orphan
            && entry.guards.iter().any(|guard| guard.latch.is_some())
        {
            entry.guards.clear();
            entry.stamp();
            report.events.push(Event::Cleared { model: self.slot.model });
        }
        report
    }

    fn merge_guard(&self, entry: &mut Entry, local: &LocalGuard, judges: bool, report: &mut Report) {
        let route = self.model.routes.get(usize::from(local.route.0));
        let Some(guard) = route.and_then(|route| route.guard.as_deref()) else { return };
        let clients = min_clients(self.model);
        let known = entry.guard(local.key);
        if local.is_empty() && known.is_none() {
            return;
        }
        // What an older root sees of another canary says nothing about this one.
        if !judges && known.is_some_and(|state| state.config != local.config) {
            return;
        }
        let Some(state) = entry.guard_mut(local.key, local.config) else { return };
        let mut cause = None;
        if judges {
            let now = self.slot.on_clock(self.now);
            let closes = state.canary.close(guard.window, now) | state.baseline.close(guard.window, now);
            if closes {
                cause = guard.judge(&state.canary.total(), &state.baseline.total(), clients);
            }
        }
        state.canary.add(&local.canary);
        state.baseline.add(&local.baseline);
        state.row = state.row.and(local.seen);
        if judges && cause.is_none() && state.row.reaches(guard.consecutive_failures, clients) {
            cause = Some(guard::Cause::ConsecutiveFailures);
        }
        if state.latch.is_some() {
            return;
        }
        for window in [&state.canary, &state.baseline] {
            report.follow(window.ends(guard.window));
        }
        if let Some(cause) = cause {
            self.trip(state, local.route, guard, cause, report);
            entry.stamp();
        }
    }

    fn trip(
        &self,
        state: &mut GuardState,
        route: RouteId,
        guard: &Guard,
        cause: guard::Cause,
        report: &mut Report,
    ) {
        // The rules that compare have judged what is closed; the others judge at once.
        let counts = match cause {
            guard::Cause::FailureIncrease | guard::Cause::Latency => Window::total,
            guard::Cause::ConsecutiveFailures | guard::Cause::Ejection => Window::so_far,
        };
        let (canary, baseline) = (counts(&state.canary), counts(&state.baseline));
        let latency = |counts: &Counts| counts.latencies.quantile(guard.latency_quantile);
        report.events.push(Event::RolledBack {
            model: self.slot.model,
            route,
            target: guard.target,
            cause,
            mode: guard.mode,
            numbers: Numbers {
                row: state.row.failures,
                canary: canary.proportion(),
                baseline: baseline.proportion(),
                canary_latency: latency(&canary),
                baseline_latency: latency(&baseline),
            },
        });
        state.latch = Some(Latch { cause, at: self.now });
        state.row = Row::default();
    }

    /// Closes the buckets of all targets together, so that they are compared over the same time.
    fn judge_windows(&self, entry: &mut Entry, policy: &OutlierDetection, report: &mut Report) {
        let now = self.slot.on_clock(self.now);
        let is_due = entry
            .targets
            .iter_mut()
            .fold(false, |is_due, state| is_due | state.window.close(policy.interval, now));
        if !is_due {
            return;
        }
        let mut totals = Vec::new();
        for (target, local) in (0..).map(TargetId).zip(&self.slot.targets) {
            let state = entry.target(local.key).filter(|state| !state.ejection.is_out());
            totals.extend(state.map(|state| (target, state.window.total())));
        }
        for (target, own) in &totals {
            let cause = if policy.fails_too_often(own) {
                Some(Cause::FailurePercentage)
            } else if policy.compares() {
                self.compare(policy, *target, own, &totals)
            } else {
                None
            };
            if let Some(cause) = cause {
                self.eject(entry, policy, *target, cause, report);
            }
        }
    }

    /// Whether the target stands out in one of the splits that it is in.
    fn compare(
        &self,
        policy: &OutlierDetection,
        target: TargetId,
        own: &Counts,
        all: &[(TargetId, Counts)],
    ) -> Option<Cause> {
        self.model.routes.iter().find_map(|route| {
            let is_in = |target: TargetId| route.split.arms.iter().any(|arm| arm.target == target);
            if !is_in(target) {
                return None;
            }
            let others = all.iter().filter(|(other, _)| *other != target && is_in(*other));
            let others: Vec<_> = others.map(|(_, counts)| counts).collect();
            policy.stands_out(own, &others)
        })
    }

    fn merge_target(
        &self,
        entry: &mut Entry,
        policy: &OutlierDetection,
        target: TargetId,
        local: &LocalTarget,
        judges: bool,
        report: &mut Report,
    ) {
        if local.is_empty() {
            return;
        }
        let Some(state) = entry.target_mut(local.key) else { return };
        let before = state.ejection;
        if let Some(began) = local.ended_probe {
            state.ejection = before.end_probe(began);
        }
        let is_changed = state.ejection != before;
        // What was seen under another ejection proves nothing about this one.
        let counts = if before.until == local.ejection.until { &local.counts } else { &Counts::NONE };
        let mut cause = None;
        if !before.is_out() {
            if judges {
                // A window that is new begins now; any other has been closed before.
                state.window.close(policy.interval, self.slot.on_clock(self.now));
            }
            state.window.add(counts);
            state.row = state.row.and(local.seen);
            if judges && state.row.reaches(policy.consecutive_failures, policy.min_clients) {
                cause = Some(Cause::ConsecutiveFailures);
                // Where it may not be ejected the row begins again, so that not every failure asks.
                state.row = Row::default();
            }
        } else if judges && before.is_on_probation(self.now) && !counts.is_empty() {
            state.row = Row::default();
            state.window.clear();
            if 0 < counts.bad {
                // It is out already, so nothing more is out than before.
                state.ejection = state.ejection.eject(policy, self.now, self.chance);
                report.events.push(self.ejected(policy, target, Cause::FailedProbe, state.ejection.until));
            } else {
                state.ejection = state.ejection.come_back(self.now);
                report.events.push(Event::Returned { model: self.slot.model, target, mode: policy.mode });
            }
            entry.stamp();
            return;
        }
        if is_changed {
            entry.stamp();
        }
        if let Some(cause) = cause {
            self.eject(entry, policy, target, cause, report);
        }
    }

    fn eject(
        &self,
        entry: &mut Entry,
        policy: &OutlierDetection,
        target: TargetId,
        cause: Cause,
        report: &mut Report,
    ) {
        let model = self.slot.model;
        match self.standing(entry, policy).room(self.model, target, policy.max_ejection_percent, self.wall) {
            Room::Enough => {}
            Room::TooLittle => return report.events.push(Event::RefusedByMax { model, target, cause }),
            Room::Pointless => return,
        }
        let key = self.slot.targets.get(usize::from(target.0)).map(|target| target.key);
        let Some(state) = key.and_then(|key| entry.target_mut(key)) else { return };
        state.ejection = state.ejection.eject(policy, self.now, self.chance);
        state.row = Row::default();
        state.window.clear();
        report.events.push(self.ejected(policy, target, cause, state.ejection.until));
        entry.stamp();
        if policy.mode == Mode::Shadow {
            return;
        }
        for local in &self.slot.guards {
            let route = self.model.routes.get(usize::from(local.route.0));
            let guard = route.and_then(|route| route.guard.as_deref());
            let trips = |guard: &&Guard| guard.target == target && guard.on_ejection == OnEjection::Trip;
            if let Some(guard) = guard.filter(trips)
                && let Some(state) = entry.guard_mut(local.key, local.config)
                && state.latch.is_none()
            {
                self.trip(state, local.route, guard, guard::Cause::Ejection, report);
            }
        }
    }

    fn ejected(&self, policy: &OutlierDetection, target: TargetId, cause: Cause, until: Instant) -> Event {
        Event::Ejected { model: self.slot.model, target, cause, until, mode: policy.mode }
    }

    /// What is out by the shared state. In shadow mode it is what would be out.
    fn standing(&self, entry: &Entry, policy: &OutlierDetection) -> Standing {
        let mut standing = Standing::default();
        for (id, local) in (0..).map(TargetId).zip(&self.slot.targets) {
            let share =
                entry.target(local.key).map_or(Share::WHOLE, |it| it.ejection.share(policy, self.now));
            if share < Share::WHOLE {
                standing.shares.push((id, share));
            }
        }
        for local in &self.slot.guards {
            let route = self.model.routes.get(usize::from(local.route.0));
            let acts =
                route.and_then(|route| route.guard.as_deref()).is_some_and(|it| it.mode == Mode::Enforce);
            let state = entry.guard(local.key).filter(|state| state.config == local.config);
            if acts && state.is_some_and(|state| state.latch.is_some()) {
                standing.tripped.push(local.route);
            }
        }
        standing
    }
}

impl Report {
    fn follow(&mut self, end: Option<Instant>) {
        self.follow = match (self.follow, end) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
}
