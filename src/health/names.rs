//! What things are called in shared memory: by hashes of names and settings, since places in tables change with
//! each configuration.
//!
//! The hashes are made of the values one by one and not of how the code prints them, so that a latch outlives an
//! update of the module too.

#![deny(clippy::arithmetic_side_effects)]

use crate::guard::Guard;
use crate::outlier::OutlierDetection;
use crate::policy::{Model, Route};
use crate::siphash::siphash;
use crate::tally::Writer;
use crate::units::{Mode, TargetId, nanos};

/// The hash of a name.
pub fn name(text: &[u8]) -> u64 {
    siphash(0, text)
}

pub fn target(model: &Model, target: TargetId) -> u64 {
    model.targets.get(usize::from(target.0)).map_or(0, |target| name(target.name.as_bytes()))
}

/// A route without a name is known by what it matches.
pub fn route(route: &Route) -> u64 {
    match &route.name {
        Some(text) => name(text.as_bytes()),
        None => name(format!("{:?}", route.matcher).as_bytes()),
    }
}

/// What a latch is valid for: the split, the ramp, and the guard with its epoch.
pub fn guard(model: &Model, route: &Route, guard: &Guard) -> u64 {
    let mut to = Writer::default();
    to.number(route.split.arms.len() as u64);
    for arm in &route.split.arms {
        to.number(target(model, arm.target));
        to.number(u64::from(arm.weight));
    }
    match &route.ramp {
        None => to.number(0),
        Some(ramp) => {
            to.number(1);
            to.number(target(model, ramp.target));
            to.number(ramp.start.as_nanos());
            to.number(ramp.steps.len() as u64);
            for step in &ramp.steps {
                to.number(u64::from(step.share.millionths()));
                to.number(step.lasts.map_or(0, nanos));
            }
        }
    }
    to.number(target(model, guard.target));
    to.number(target(model, guard.baseline));
    to.number(nanos(guard.window));
    to.number(u64::from(guard.min_requests));
    to.number(u64::from(guard.consecutive_failures));
    to.number(u64::from(guard.max_failure_increase.millionths()));
    to.number(u64::from(guard.confidence.millionths()));
    to.number(u64::from(guard.max_latency_ratio.thousandths()));
    to.number(u64::from(guard.latency_quantile.millionths()));
    to.number(guard.on_ejection as u64);
    to.number(guard.epoch);
    mode(&mut to, guard.mode);
    name(&to.bytes())
}

/// Everything that health keeps of a model: its targets, their ejection, and the guards.
pub fn model(model: &Model, guards: impl Iterator<Item = (u64, u64)>) -> u64 {
    let mut to = Writer::default();
    to.number(model.targets.len() as u64);
    for target in model.targets.iter() {
        to.number(name(target.name.as_bytes()));
    }
    match &model.outlier_detection {
        None => to.number(0),
        Some(policy) => {
            to.number(1);
            outlier_detection(&mut to, policy);
        }
    }
    for (route, guard) in guards {
        to.number(route);
        to.number(guard);
    }
    name(&to.bytes())
}

fn outlier_detection(to: &mut Writer, policy: &OutlierDetection) {
    to.number(u64::from(policy.consecutive_failures));
    to.number(u64::from(policy.failure_percentage_threshold.millionths()));
    to.number(u64::from(policy.request_volume));
    to.number(nanos(policy.interval));
    to.number(u64::from(policy.success_rate_stdev_factor.thousandths()));
    to.number(u64::from(policy.latency_ratio.thousandths()));
    to.number(u64::from(policy.min_clients));
    to.number(nanos(policy.base_ejection_time));
    to.number(nanos(policy.max_ejection_time));
    to.number(nanos(policy.max_ejection_time_jitter));
    to.number(u64::from(policy.max_ejection_percent.millionths()));
    to.number(policy.recovery_steps.len() as u64);
    for step in &policy.recovery_steps {
        to.number(u64::from(step.millionths()));
    }
    to.number(nanos(policy.recovery_step_time));
    mode(to, policy.mode);
}

fn mode(to: &mut Writer, mode: Mode) {
    to.number(match mode {
        Mode::Enforce => 0,
        Mode::Shadow => 1,
    });
}
