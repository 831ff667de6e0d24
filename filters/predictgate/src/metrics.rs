//! The filter's metrics: their names, and which of them exist so far.
//!
//! Envoy's statistics have no labels, so the labels stand in the name as `tag=.=value;.;`, from where the
//! `stats_tags` of the bootstrap take them; Istio's proxies do the same.
//! Every label comes from the configuration or from a closed set, never from a client's bytes, so the number
//! of metrics is bounded. A metric is defined on its first event, because defining is what costs.

use std::borrow::Cow;
use std::fmt::Write as _;

use hashbrown::HashMap;
use predictgate::exchange::IdentityResult;
use predictgate::outcome::Code;
use predictgate::policy::{Histograms, Policy};
use predictgate::rate_limit::LimitId;
use predictgate::units::{Mode, ModelId, RouteId, TargetId};
use predictgate::verdict::Reason;

use crate::host::{self, MetricKind};

/// What may be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    Requests {
        model: ModelId,
        target: TargetId,
        code: Code,
    },
    /// Milliseconds from when a request is forwarded to its end.
    Duration {
        model: ModelId,
        target: TargetId,
    },
    Rejected {
        model: Option<ModelId>,
        reason: Reason,
    },
    Identity(IdentityResult),
    /// It was found out that the host runs no body callback while headers are held.
    HostCannotHold,
    Held,
    /// A limit in shadow mode would have refused.
    ShadowRejected(LimitId),
    /// A key shared its slot with others.
    LimitShared(LimitId),
    LimitErrors(LimitId, LimitError),
    /// A target was ejected, or would have been in shadow mode.
    Ejections {
        model: ModelId,
        target: TargetId,
        cause: &'static str,
        mode: Mode,
    },
    Rollbacks {
        model: ModelId,
        route: RouteId,
        target: TargetId,
        cause: &'static str,
        mode: Mode,
    },
    /// Whether a target is ejected now.
    Ejected {
        model: ModelId,
        target: TargetId,
    },
    /// What a target of a split gets, in thousandths.
    Weight {
        model: ModelId,
        route: RouteId,
        target: TargetId,
    },
}

/// Why a limit was not counted for all workers together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitError {
    /// Other workers wrote first, again and again, so that the limit's `on_error` decided.
    Conflict,
    /// There is no room in shared data, so that each worker counts for itself.
    NoRoom,
}

/// The metrics that exist, and what is still to be told of them.
///
/// A call of the host for each event would cost as much as deciding, so counters are told on the tick.
#[derive(Debug, Default)]
pub struct Metrics {
    places: HashMap<Metric, usize>,
    told: Vec<Told>,
    /// Those asked for last, one of a kind: what a request counts, the one before it often did.
    last: [Option<(Metric, usize)>; 3],
    /// The places of those with something to tell.
    changed: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    /// The host's number; none where it has none to give.
    id: Option<u32>,
    untold: i64,
    has_changed: bool,
}

impl Metrics {
    /// Adds to a counter or a gauge, at the next tick.
    pub fn add(&mut self, policy: &Policy, metric: Metric, offset: i64) {
        let place = self.place(policy, metric);
        let Some(told) = self.told.get_mut(place).filter(|_| offset != 0) else { return };
        if !std::mem::replace(&mut told.has_changed, true) {
            self.changed.push(place);
        }
        told.untold = told.untold.saturating_add(offset);
    }

    /// Sets a gauge, or adds a value to a histogram.
    pub fn record(&mut self, policy: &Policy, metric: Metric, value: u64) {
        let place = self.place(policy, metric);
        if let Some(id) = self.told.get(place).and_then(|told| told.id) {
            host::record_metric(id, value);
        }
    }

    /// Tells the host what has changed.
    pub fn tell(&mut self) {
        for place in self.changed.drain(..) {
            let Some(told) = self.told.get_mut(place) else { continue };
            told.has_changed = false;
            let untold = std::mem::take(&mut told.untold);
            if let Some(id) = told.id.filter(|_| untold != 0) {
                host::increment_metric(id, untold);
            }
        }
    }

    fn place(&mut self, policy: &Policy, metric: Metric) -> usize {
        let Self { places, told, last, .. } = self;
        let [requests, durations, others] = last;
        let last = match metric {
            Metric::Requests { .. } => requests,
            Metric::Duration { .. } => durations,
            _ => others,
        };
        if let Some((_, place)) = last.filter(|(known, _)| *known == metric) {
            return place;
        }
        let place = *places.entry(metric).or_insert_with(|| {
            let id = host::define_metric(kind(metric), &name(policy, metric));
            told.push(Told { id, untold: 0, has_changed: false });
            told.len().saturating_sub(1)
        });
        *last = Some((metric, place));
        place
    }
}

const fn kind(metric: Metric) -> MetricKind {
    match metric {
        Metric::Held | Metric::Weight { .. } | Metric::Ejected { .. } => MetricKind::Gauge,
        Metric::Duration { .. } => MetricKind::Histogram,
        _ => MetricKind::Counter,
    }
}

const DURATION: &str = "predictgate_request_duration_ms";

/// The label of what has no name, such as a model that is not configured.
const NO_NAME: &str = "-";

pub fn model_name(policy: &Policy, model: ModelId) -> &str {
    policy.models.get(model.0 as usize).map_or(NO_NAME, |model| &model.name)
}

pub fn target_name(policy: &Policy, model: ModelId, target: TargetId) -> &str {
    let model = policy.models.get(model.0 as usize);
    model.and_then(|model| model.targets.get(usize::from(target.0))).map_or(NO_NAME, |target| &target.name)
}

/// The name of a route, or else its place.
pub fn route_name(policy: &Policy, model: ModelId, route: RouteId) -> String {
    let model = policy.models.get(model.0 as usize);
    let name = model.and_then(|model| model.routes.get(usize::from(route.0))?.name.as_deref());
    name.map_or_else(|| route.0.to_string(), str::to_owned)
}

fn name(policy: &Policy, metric: Metric) -> String {
    match metric {
        Metric::Requests { model, target, code } => {
            let tags = [
                ("model", model_name(policy, model)),
                ("target", target_name(policy, model, target)),
                ("code", &code_label(code)),
            ];
            tagged(&tags, "predictgate_requests")
        }
        Metric::Duration { model, target } => {
            let target = ("target", target_name(policy, model, target));
            match policy.histograms {
                Histograms::Target => tagged(&[target], DURATION),
                Histograms::Model => tagged(&[("model", model_name(policy, model)), target], DURATION),
            }
        }
        Metric::Rejected { model, reason } => {
            let model = model.map_or(NO_NAME, |model| model_name(policy, model));
            tagged(&[("model", model), ("reason", reason.name())], "predictgate_rejected")
        }
        Metric::Identity(result) => tagged(&[("result", result.name())], "predictgate_identity"),
        Metric::HostCannotHold => tagged(&[("result", "host_cannot_hold")], "predictgate_identity"),
        Metric::Held => "predictgate_held".to_owned(),
        Metric::ShadowRejected(limit) => of_limit(policy, limit, &[], "predictgate_shadow_rejected"),
        Metric::LimitShared(limit) => of_limit(policy, limit, &[], "predictgate_limit_shared"),
        Metric::LimitErrors(limit, error) => {
            let cause = match error {
                LimitError::Conflict => "conflict",
                LimitError::NoRoom => "no_room",
            };
            of_limit(policy, limit, &[("cause", cause)], "predictgate_limit_errors")
        }
        Metric::Ejections { model, target, cause, mode } => {
            let cause = in_mode(mode, cause);
            let target = target_name(policy, model, target);
            let tags = [("model", model_name(policy, model)), ("target", target), ("cause", &*cause)];
            tagged(&tags, "predictgate_ejections")
        }
        Metric::Rollbacks { model, route, target, cause, mode } => {
            let tags = [
                ("model", model_name(policy, model)),
                ("route", &route_name(policy, model, route)),
                ("target", target_name(policy, model, target)),
                ("cause", &in_mode(mode, cause)),
            ];
            tagged(&tags, "predictgate_rollbacks")
        }
        Metric::Ejected { model, target } => {
            let tags = [("model", model_name(policy, model)), ("target", target_name(policy, model, target))];
            tagged(&tags, "predictgate_ejected")
        }
        Metric::Weight { model, route, target } => {
            let tags = [
                ("model", model_name(policy, model)),
                ("route", &route_name(policy, model, route)),
                ("target", target_name(policy, model, target)),
            ];
            tagged(&tags, "predictgate_weight")
        }
    }
}

fn of_limit(policy: &Policy, limit: LimitId, more: &[(&str, &str)], name: &str) -> String {
    let (model, limit) = policy.limit(limit).map_or((NO_NAME, NO_NAME), |(model, limit)| {
        (model.map_or(NO_NAME, |model| model_name(policy, model)), &*limit.rate.name)
    });
    tagged(&[&[("model", model), ("limit", limit)], more].concat(), name)
}

/// What would have happened is told from what did.
fn in_mode(mode: Mode, cause: &'static str) -> Cow<'static, str> {
    match mode {
        Mode::Enforce => Cow::Borrowed(cause),
        Mode::Shadow => Cow::Owned(["shadow_", cause].concat()),
    }
}

fn code_label(code: Code) -> String {
    match code {
        Code::Grpc(status) => status.name().to_owned(),
        Code::Http(status) => format!("http_{status}"),
        Code::None => "none".to_owned(),
    }
}

fn tagged(tags: &[(&str, &str)], name: &str) -> String {
    let mut text = String::new();
    for (tag, value) in tags {
        text.extend([*tag, "=.="]);
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') {
                text.push(char::from(byte));
            } else {
                _ = write!(text, "_{byte:02x}");
            }
        }
        text.push_str(";.;");
    }
    text.push_str(name);
    text
}
