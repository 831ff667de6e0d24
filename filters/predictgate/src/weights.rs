//! The gauge `predictgate_weight`: what each target of a split gets now.

use std::time::Duration;

use predictgate::policy::{Policy, Route};
use predictgate::units::{Instant, ModelId, RouteId, WallTime};

use crate::metrics::{Metric, Metrics};

/// Defining a gauge costs some 16 us, so a large configuration is shown over many ticks.
const MODELS_A_TICK: u32 = 100;

/// A ramp changes its step at the earliest after this long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What of one configuration is to be shown yet, and what changes with the clock.
#[derive(Debug, Default)]
pub struct Weights {
    /// The models before this one are shown.
    next: u32,
    /// The routes with a ramp.
    ramps: Vec<(ModelId, RouteId)>,
    looked: Instant,
}

impl Weights {
    pub fn of(policy: &Policy) -> Self {
        let mut ramps = Vec::new();
        for (model, routes) in (0..).zip(policy.models.iter().map(|model| &*model.routes)) {
            let with_ramp = (0..).zip(routes).filter(|(_, route)| route.ramp.is_some());
            ramps.extend(with_ramp.map(|(route, _)| (ModelId(model), RouteId(route))));
        }
        Self { ramps, ..Self::default() }
    }

    /// Shows what is new.
    pub fn show(
        &mut self,
        policy: &Policy,
        metrics: &mut Metrics,
        now: Instant,
        wall: impl Fn() -> WallTime,
    ) {
        let first = self.next;
        let last =
            first.saturating_add(MODELS_A_TICK).min(u32::try_from(policy.models.len()).unwrap_or(u32::MAX));
        for model in first..last {
            let routes = policy.models.get(model as usize).map_or(&[][..], |model| &*model.routes);
            for (route, _) in (0..).zip(routes).filter(|(_, route)| route.split.arms.len() > 1) {
                show(policy, metrics, ModelId(model), RouteId(route), &wall);
            }
        }
        self.next = last;
        if now.since(self.looked) >= LOOK_AGAIN {
            self.looked = now;
            for (model, route) in &self.ramps {
                show(policy, metrics, *model, *route, &wall);
            }
        }
    }
}

fn show(policy: &Policy, metrics: &mut Metrics, model: ModelId, route: RouteId, wall: impl Fn() -> WallTime) {
    let routes = policy.models.get(model.0 as usize).map(|model| &model.routes);
    let Some(Route { split, ramp, .. }) = routes.and_then(|routes| routes.get(usize::from(route.0))) else {
        return;
    };
    let now = ramp.as_ref().map_or_else(WallTime::default, |_| wall());
    let weights = split.weights(ramp.as_deref(), now);
    let sum = weights.iter().map(|(_, weight)| weight).fold(0, u64::saturating_add).max(1);
    for (arm, weight) in weights.iter() {
        metrics.set(policy, Metric::Weight { model, route, target: arm.target }, per_mille(weight, sum));
    }
}

/// To the nearest.
fn per_mille(weight: u64, sum: u64) -> u64 {
    let half = sum >> 1;
    weight.saturating_mul(1000).saturating_add(half).checked_div(sum).unwrap_or(0)
}
