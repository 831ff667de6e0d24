//! The order of decisions: model, route, `choose_by`, split, `fallback`, limits.
//!
//! Limits come last, so that only a request that would be forwarded spends tokens.

use std::borrow::Cow;

use super::bill::{Shown, Till};
use super::choice::Choice;
use super::{Local, World};
use crate::headers::Headers;
use crate::health::Probe;
use crate::identity::ModelSpec;
use crate::key::Caller;
use crate::matching::Subject;
use crate::method::Method;
use crate::policy::{Model, Otherwise, Target};
use crate::route;
use crate::units::{Asked, ModelId, RouteId, TargetId};
use crate::verdict::{LocalReply, Reason, To, escape};

/// A request whose identity is known.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    pub headers: &'r Headers,
    pub method: Method,
    pub spec: &'r ModelSpec,
    pub shown: Shown,
    /// The headers have gone on, so that no target can be reached that they do not lead to.
    pub is_late: bool,
}

/// Where a request goes, by the places in the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub model: Option<ModelId>,
    pub route: Option<RouteId>,
    pub target: Option<TargetId>,
    pub why: Why,
    /// The request tries whether its target answers again.
    pub probe: Option<Probe>,
}

/// What chose the target, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Split,
    /// The caller named the target.
    ChooseBy,
    /// No target of the split can answer.
    Fallback,
    /// The target is ejected, and the request tries whether it answers again.
    Probe,
    /// The model is not configured.
    Unmatched,
    /// No route of the model matches.
    Otherwise,
    /// The headers had gone on before the identity was known.
    Late,
}

impl Why {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Split => "split",
            Self::ChooseBy => "choose_by",
            Self::Fallback => "fallback",
            Self::Probe => "probe",
            Self::Unmatched => "unmatched",
            Self::Otherwise => "otherwise",
            Self::Late => "late",
        }
    }
}

/// Where a request goes, as the configuration has it.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'p> {
    pub target: &'p Target,
    pub to: To,
}

/// Chooses the target of a request; without one the request goes on as it is.
pub fn decide<'p>(
    world: &mut World<'p>,
    request: Request<'_>,
) -> (Decision, Result<Option<Destination<'p>>, LocalReply>) {
    let mut decision = Decision { model: None, route: None, target: None, why: Why::Unmatched, probe: None };
    let result = choose(world, request, &mut decision);
    (decision, result)
}

fn choose<'p>(
    world: &mut World<'p>,
    request: Request<'_>,
    decision: &mut Decision,
) -> Result<Option<Destination<'p>>, LocalReply> {
    let policy = world.policy;
    let Request { headers, method, spec, .. } = request;
    let model = policy.names.find(&spec.name).and_then(|id| Some((id, policy.models.get(id.0 as usize)?)));
    let Some((model_id, model)) = model else {
        return match policy.unmatched {
            Otherwise::Pass => within_limits(world, None, request).map(|()| None),
            Otherwise::Reject => Err(not_configured(spec)),
        };
    };
    decision.model = Some(model_id);

    let subject = Subject { method, asked: &spec.asked, signature: &spec.signature, headers };
    let route = route::first(model.routes.iter().map(|route| &route.matcher), subject);
    let Some((route_id, route)) = route.and_then(|id| Some((id, model.routes.get(usize::from(id.0))?)))
    else {
        decision.why = Why::Otherwise;
        return match model.otherwise {
            Otherwise::Pass => within_limits(world, Some(model), request).map(|()| None),
            Otherwise::Reject => Err(not_taken(spec, method)),
        };
    };
    decision.route = Some(route_id);

    let chosen = Choice { model_id, model, route_id, route, request }.choose(world);
    let Some((chosen, target)) =
        chosen.and_then(|it| Some((it, model.targets.get(usize::from(it.target.0))?)))
    else {
        return Err(not_answered(spec));
    };
    let to = To { model: model_id, route: route_id, target: chosen.target, is_mirrored: chosen.is_mirrored };
    *decision = Decision { target: Some(chosen.target), why: chosen.why, probe: chosen.probe, ..*decision };

    within_limits(world, Some(model), request).map(|()| Some(Destination { target, to }))
}

#[cold]
fn not_configured(spec: &ModelSpec) -> LocalReply {
    let message = format!("model {} is not configured", escape(&spec.name));
    LocalReply::new(Reason::ModelNotConfigured, message)
}

#[cold]
fn not_taken(spec: &ModelSpec, method: Method) -> LocalReply {
    let (name, asked) = (escape(&spec.name), asked(&spec.asked));
    let message = format!("no route of model {name} takes {} of {asked}", method.name());
    LocalReply::new(Reason::ModelNotConfigured, message)
}

#[cold]
fn not_answered(spec: &ModelSpec) -> LocalReply {
    LocalReply::new(
        Reason::NoTargetAvailable,
        format!("no target of model {} can answer", escape(&spec.name)),
    )
}

/// Spends the tokens of every limit that applies, the model's and then the top level's, or of none.
fn within_limits(
    world: &mut World<'_>,
    model: Option<&Model>,
    request: Request<'_>,
) -> Result<(), LocalReply> {
    let World { policy, host, now, .. } = *world;
    let Local { bill, limits, .. } = &mut *world.local;
    bill.clear();
    if policy.rate_limits.is_empty() && model.is_none_or(|model| model.rate_limits.is_empty()) {
        return Ok(());
    }
    let Request { headers, method, spec, shown, .. } = request;
    let subject = Subject { method, asked: &spec.asked, signature: &spec.signature, headers };
    let caller = Caller { headers, method, model: &spec.name, asked: &spec.asked, host };
    bill.add(model, &policy.rate_limits, subject, &caller);
    bill.settle(&mut Till { limits, policy, host, now }, shown)
}

/// What a caller asks for, as the decision header has it.
pub fn asked(asked: &Asked) -> Cow<'static, str> {
    match asked {
        Asked::Latest => Cow::Borrowed("latest"),
        Asked::Version(version) => Cow::Owned(format!("version.{}", escape(&version.to_string()))),
        Asked::Label(label) => Cow::Owned(format!("label.{}", escape(label))),
    }
}
