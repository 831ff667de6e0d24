//! What really happened, kept outside the simulated process.

use std::cell::RefCell;
use std::rc::Rc;

use predictgate::health::{Event, Standing};
use predictgate::outlier::{Cause, PROBE_EXPIRES};
use predictgate::policy::Policy;
use predictgate::units::{Instant, Share, TargetId, WallTime};

use super::{MODEL, ROLLOUT, TARGETS};

#[derive(Debug, Default)]
pub struct Ledger {
    /// The first law that was broken.
    pub broken: Option<String>,
    /// Probes on their way: whose, to which target, and since when.
    probes: Vec<(u64, TargetId, Instant)>,
    next_probe: u64,
    /// Until when each target was ejected, and when that was said.
    pub ejected: Vec<(TargetId, Instant, Instant)>,
    trips: Vec<Trip>,
    /// When roots were made, by the epoch of their configuration.
    pub created: Vec<(u32, Instant)>,
    /// When roots had arrived for good.
    pub arrived: Vec<Arrival>,
    /// The epochs of the roots that are in a call just now, and may have decided what they have not said yet.
    pub deciding: Vec<u32>,
    pub happened: Happened,
}

/// A guard that has tripped.
#[derive(Clone, Copy, Debug)]
pub struct Trip {
    pub epoch: u32,
    /// When the root that says so was made.
    created: Instant,
    pub said: Instant,
}

/// A root that has ticked often enough for its configuration to be in force.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub epoch: u32,
    pub created: Instant,
    pub at: Instant,
}

/// Counts by which a test knows that what it checks did happen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Happened {
    pub requests: u64,
    pub ejections: u64,
    pub refusals: u64,
    /// Rows of failures that ejected, or would have.
    pub rows: u64,
    pub returns: u64,
    pub failed_probes: u64,
    pub roll_backs: u64,
    pub probes: u64,
    pub obeyed: u64,
    /// Roots whose latch another guard had cleared before they began.
    pub starts_after_clearing: u64,
}

impl Ledger {
    pub fn check(&mut self, holds: bool, law: impl FnOnce() -> String) {
        if !holds && self.broken.is_none() {
            self.broken = Some(law());
        }
    }

    /// Takes down what a worker says to have decided; `after` is what it then sees in force.
    pub fn events(
        &mut self,
        events: &[Event],
        policy: &Policy,
        (epoch, created): (u32, Instant),
        before: &Standing,
        after: &Standing,
        said: Instant,
    ) {
        for event in events {
            if let Event::Ejected { cause: Cause::ConsecutiveFailures, .. }
            | Event::RefusedByMax { cause: Cause::ConsecutiveFailures, .. } = event
            {
                self.happened.rows += 1;
            }
            match *event {
                Event::Ejected { cause: Cause::FailedProbe, target, until, .. } => {
                    self.happened.failed_probes += 1;
                    self.ejected.push((target, until, said));
                }
                Event::Ejected { target, until, .. } => {
                    self.happened.ejections += 1;
                    self.ejected.push((target, until, said));
                    // A guard that tripped in the same call has taken weight away after the ejection.
                    if before.tripped == after.tripped {
                        self.check_percent(policy, after);
                    }
                }
                Event::RefusedByMax { .. } => self.happened.refusals += 1,
                Event::Returned { .. } => self.happened.returns += 1,
                Event::RolledBack { .. } => {
                    self.happened.roll_backs += 1;
                    self.trips.push(Trip { epoch, created, said });
                }
                Event::Cleared { .. } => {}
            }
        }
    }

    /// At the moment of an ejection not more than the percent of the weight is out.
    fn check_percent(&mut self, policy: &Policy, standing: &Standing) {
        let model = &policy.models[MODEL.0 as usize];
        let percent = model.outlier_detection.as_ref().unwrap().max_ejection_percent.millionths();
        let in_force = standing.in_force(ROLLOUT, &model.routes[usize::from(ROLLOUT.0)], WallTime::default());
        let (mut out, mut all) = (0, 0);
        for (arm, weight) in in_force.without_ejections() {
            let lacks = Share::WHOLE.millionths() - standing.share_of(arm.target).millionths();
            out += weight * u64::from(lacks);
            all += weight;
        }
        self.check(out <= all * u64::from(percent), || {
            format!("{out} of {all} millionths are out, more than {percent}: {standing:?}")
        });
    }

    /// At least one target is never out, and somebody answers.
    pub fn check_someone_answers(&mut self, policy: &Policy, standing: &Standing) {
        let model = &policy.models[MODEL.0 as usize];
        let someone = TARGETS.iter().any(|target| standing.share_of(*target) > Share::NONE);
        self.check(someone, || format!("every target is out: {standing:?}"));
        for (id, route) in (0..).map(predictgate::units::RouteId).zip(model.routes.iter()) {
            let in_force = standing.in_force(id, route, WallTime::default());
            let weight: u64 = in_force.iter().map(|(_, weight)| weight).sum();
            self.check(weight > 0, || format!("nobody answers on {id:?}: {standing:?}"));
        }
    }

    /// The latches of a guard that no newer configuration with another guard may have cleared.
    pub fn trips_that_hold(&self, epoch: u32) -> Vec<Trip> {
        let is_newer = |trip: &Trip| {
            self.created.iter().any(|(other, created)| *other != trip.epoch && trip.created < *created)
        };
        self.trips.iter().filter(|trip| trip.epoch == epoch && !is_newer(trip)).copied().collect()
    }

    /// A call of a root is over.
    pub fn decided(&mut self, epoch: u32) {
        let at = self.deciding.iter().position(|it| *it == epoch).expect("a call began");
        self.deciding.swap_remove(at);
    }

    /// A root that finds a latch with its first tick finds one that no other guard has cleared.
    pub fn check_start(&mut self, epoch: u32, created: Instant, is_tripped: bool) {
        let mut trips = self.trips.iter().filter(|trip| trip.epoch == epoch);
        let is_found = trips.clone().any(|trip| !self.was_cleared(trip, created));
        self.happened.starts_after_clearing += u64::from(trips.any(|trip| self.was_cleared(trip, created)));
        // Who is in a call may have tripped it and not said so yet.
        let may_be_tripped = is_found || self.deciding.contains(&epoch);
        self.check(may_be_tripped || !is_tripped, || {
            format!("a latch of epoch {epoch} came back at {created:?}")
        });
    }

    /// Whether a root with another guard was made after the trip and had arrived by `then`, without a rival that was
    /// made in between and came first.
    fn was_cleared(&self, trip: &Trip, then: Instant) -> bool {
        self.arrived.iter().any(|arrival| {
            let rivals = |(epoch, created): &(u32, Instant)| {
                *epoch == trip.epoch && arrival.created < *created && *created < arrival.at
            };
            arrival.epoch != trip.epoch
                && trip.said < arrival.created
                && arrival.at < then
                && !self.created.iter().any(rivals)
        })
    }

    fn probe_begins(&mut self, target: TargetId, now: Instant) -> u64 {
        let on_their_way =
            |(_, it, began): &&(u64, TargetId, Instant)| *it == target && now.since(*began) < PROBE_EXPIRES;
        let other = self.probes.iter().find(on_their_way).copied();
        self.check(other.is_none(), || format!("two probes to {target:?}: {other:?} and one at {now:?}"));
        self.next_probe += 1;
        self.happened.probes += 1;
        self.probes.push((self.next_probe, target, now));
        self.next_probe
    }
}

/// A probe on its way. It goes with its worker.
pub struct ProbeFlight {
    number: u64,
    ledger: Rc<RefCell<Ledger>>,
}

impl ProbeFlight {
    pub fn begin(ledger: &Rc<RefCell<Ledger>>, target: TargetId, now: Instant) -> Self {
        let number = ledger.borrow_mut().probe_begins(target, now);
        Self { number, ledger: Rc::clone(ledger) }
    }
}

impl Drop for ProbeFlight {
    fn drop(&mut self) {
        self.ledger.borrow_mut().probes.retain(|(number, ..)| *number != self.number);
    }
}
