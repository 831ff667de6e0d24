//! What ejections and roll-backs look like in the log and in the metrics.

use predictgate::health::{Effects, Event, Gauge};
use predictgate::policy::Policy;
use predictgate::units::Mode;

use crate::metrics::{Metric, Metrics, model_name, route_name, target_name};

/// Logs what happened and sets what the gauges show.
pub fn effects(policy: &Policy, metrics: &mut Metrics, effects: Effects) {
    for event in effects.events {
        log(policy, &event);
        if let Some(metric) = counted(&event) {
            metrics.add(policy, metric, 1);
        }
    }
    for gauge in effects.gauges {
        let (metric, value) = match gauge {
            Gauge::Ejected { model, target, value } => (Metric::Ejected { model, target }, value),
            Gauge::Weight { model, route, target, value } => (Metric::Weight { model, route, target }, value),
        };
        metrics.record(policy, metric, value);
    }
}

fn counted(event: &Event) -> Option<Metric> {
    match *event {
        Event::Ejected { model, target, cause, mode, .. } => {
            Some(Metric::Ejections { model, target, cause: cause.name(), mode })
        }
        Event::RefusedByMax { model, target, .. } => {
            Some(Metric::Ejections { model, target, cause: "refused_by_max", mode: Mode::Enforce })
        }
        Event::RolledBack { model, route, target, cause, mode, .. } => {
            Some(Metric::Rollbacks { model, route, target, cause: cause.name(), mode })
        }
        Event::Returned { .. } | Event::Cleared { .. } => None,
    }
}

fn log(policy: &Policy, event: &Event) {
    let target_of = |model, target| (model_name(policy, model), target_name(policy, model, target));
    match *event {
        Event::Ejected { model, target, cause, mode, .. } => {
            let (model, target) = target_of(model, target);
            log::warn!("{}ejected: model={model} target={target} cause={}", would(mode), cause.name());
        }
        Event::RefusedByMax { model, target, cause } => {
            let (model, target) = target_of(model, target);
            log::warn!(
                "not ejected, too much would be out: model={model} target={target} cause={}",
                cause.name()
            );
        }
        Event::Returned { model, target, mode } => {
            let (model, target) = target_of(model, target);
            log::info!("{}returned: model={model} target={target}", would(mode));
        }
        Event::RolledBack { model, route, target, cause, mode, ref numbers } => {
            let route = route_name(policy, model, route);
            let (model, target) = target_of(model, target);
            log::error!(
                "{}rolled back: model={model} route={route} target={target} cause={}: {numbers}",
                would(mode),
                cause.name()
            );
        }
        Event::Cleared { model } => {
            log::info!("roll-back cleared by the configuration: model={}", model_name(policy, model));
        }
    }
}

const fn would(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "",
        Mode::Shadow => "shadow: would have been ",
    }
}
