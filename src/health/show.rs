//! The gauges: what of a model is out, and the weights in force.

#![deny(clippy::arithmetic_side_effects)]

use super::effects::{Effects, Gauge};
use super::in_force::Standing;
use super::{Health, model_of};
use crate::policy::{Model, Policy};
use crate::units::{Instant, ModelId, RouteId, Share, TargetId};

/// How often it is looked whether a ramp has gone on.
const RAMPS_EVERY: u64 = 1_000_000_000;

/// A route whose weights change with the clock.
#[derive(Debug)]
pub struct Ramping {
    model: ModelId,
    route: RouteId,
    /// As it was last shown.
    share: Option<Share>,
}

impl Ramping {
    pub fn all(policy: &Policy) -> Vec<Self> {
        let models = (0..).map(ModelId).zip(&policy.models);
        let routes = models
            .flat_map(|(model, it)| (0..).map(RouteId).zip(it.routes.iter()).map(move |it| (model, it)));
        routes
            .filter(|(_, (_, route))| route.ramp.is_some())
            .map(|(model, (route, _))| Self { model, route, share: None })
            .collect()
    }
}

impl Health {
    /// Shows what is out now and was not before, or the other way round, and the weights that follow.
    pub(super) fn show_changes(&self, model: &Model, place: u32, before: &Standing, effects: &mut Effects) {
        let Some(slot) = self.slots.get(place as usize).filter(|_| self.is_newest) else { return };
        let id = slot.model;
        for target in (0..).map(TargetId).take(model.targets.len()) {
            let [was_out, is_out] = [before, &slot.standing].map(|it| it.share_of(target) == Share::NONE);
            if was_out != is_out {
                effects.gauges.push(Gauge::Ejected { model: id, target, value: u64::from(is_out) });
            }
        }
        self.show_routes(id, model, effects);
    }

    /// Shows the weights of every route of a model that has a choice.
    pub fn show(&self, policy: &Policy, id: ModelId, effects: &mut Effects) {
        if let Some(model) = model_of(policy, id) {
            self.show_routes(id, model, effects);
        }
    }

    fn show_routes(&self, id: ModelId, model: &Model, effects: &mut Effects) {
        for (route, it) in (0..).map(RouteId).zip(model.routes.iter()) {
            if 1 < it.split.arms.len() {
                self.show_weights(id, model, route, effects);
            }
        }
    }

    fn show_weights(&self, id: ModelId, model: &Model, route: RouteId, effects: &mut Effects) {
        let Some(it) = model.routes.get(usize::from(route.0)) else { return };
        let in_force = self.standing(id).in_force(route, it, self.wall);
        let all = in_force.iter().fold(0_u128, |sum, (_, weight)| sum.saturating_add(u128::from(weight)));
        for (arm, weight) in in_force.iter() {
            let rounded = u128::from(weight).saturating_mul(1000).saturating_add(all >> 1);
            let part = rounded.checked_div(all).unwrap_or(0);
            let value = u64::try_from(part).unwrap_or(0);
            effects.gauges.push(Gauge::Weight { model: id, route, target: arm.target, value });
        }
    }

    /// Shows the weights of ramps that have gone on.
    pub(super) fn show_ramps(&mut self, policy: &Policy, now: Instant, effects: &mut Effects) {
        if !self.is_newest || now < self.ramps_due || self.ramps.is_empty() {
            return;
        }
        self.ramps_due = Instant::from_nanos(now.as_nanos().saturating_add(RAMPS_EVERY));
        let mut ramps = std::mem::take(&mut self.ramps);
        for ramping in &mut ramps {
            let Some(model) = model_of(policy, ramping.model) else { continue };
            let route = model.routes.get(usize::from(ramping.route.0));
            let share = route.and_then(|route| route.ramp.as_deref()).map(|ramp| ramp.share(self.wall));
            if share != std::mem::replace(&mut ramping.share, share) {
                self.show_weights(ramping.model, model, ramping.route, effects);
            }
        }
        self.ramps = ramps;
    }
}
