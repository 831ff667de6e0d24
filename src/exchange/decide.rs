//! The order of decisions: model, route, `choose_by`, split, `fallback`, limits.
//!
//! Limits come last, so that only a request that would be forwarded spends tokens.

use std::borrow::Cow;

use super::World;
use crate::headers::Headers;
use crate::identity::ModelSpec;
use crate::matching::Subject;
use crate::method::Method;
use crate::policy::{Model, Otherwise, Route, Target};
use crate::route;
use crate::units::{Asked, ModelId, RouteId, TargetId};
use crate::verdict::{LocalReply, Reason, escape};

/// A request whose identity is known.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    pub headers: &'r Headers,
    pub method: Method,
    pub spec: &'r ModelSpec,
}

/// Where a request goes, by the places in the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub model: Option<ModelId>,
    pub route: Option<RouteId>,
    pub target: Option<TargetId>,
    pub why: Why,
}

/// What chose the target, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Split,
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
            Self::Unmatched => "unmatched",
            Self::Otherwise => "otherwise",
            Self::Late => "late",
        }
    }
}

/// Chooses the target of a request; without one the request goes on as it is.
pub fn decide<'p>(
    world: &mut World<'p>,
    request: Request<'_>,
) -> (Decision, Result<Option<&'p Target>, LocalReply>) {
    let mut decision = Decision { model: None, route: None, target: None, why: Why::Unmatched };
    let result = choose(world, request, &mut decision);
    (decision, result)
}

fn choose<'p>(
    world: &mut World<'p>,
    request: Request<'_>,
    decision: &mut Decision,
) -> Result<Option<&'p Target>, LocalReply> {
    let policy = world.policy;
    let Request { headers, method, spec } = request;
    let model = policy.names.find(&spec.name).and_then(|id| Some((id, policy.models.get(id.0 as usize)?)));
    let Some((id, model)) = model else {
        return match policy.unmatched {
            Otherwise::Pass => within_limits(world, None).map(|()| None),
            Otherwise::Reject => {
                let message = format!("model {} is not configured", escape(&spec.name));
                Err(LocalReply::new(Reason::ModelNotConfigured, message))
            }
        };
    };
    decision.model = Some(id);

    let subject = Subject { method, asked: &spec.asked, signature: &spec.signature, headers };
    let route = route::first(model.routes.iter().map(|route| &route.matcher), subject);
    let Some((id, route)) = route.and_then(|id| Some((id, model.routes.get(usize::from(id.0))?))) else {
        decision.why = Why::Otherwise;
        return match model.otherwise {
            Otherwise::Pass => within_limits(world, Some(model)).map(|()| None),
            Otherwise::Reject => {
                let (name, asked) = (escape(&spec.name), asked(&spec.asked));
                let message = format!("no route of model {name} takes {} of {asked}", method.name());
                Err(LocalReply::new(Reason::ModelNotConfigured, message))
            }
        };
    };
    decision.route = Some(id);

    let chosen = choose_by(route, headers)
        .or_else(|| route.split.choose().map(|target| (target, Why::Split)))
        .or_else(|| fallback(route));
    let target = chosen.and_then(|(id, why)| Some((id, why, model.targets.get(usize::from(id.0))?)));
    let Some((id, why, target)) = target else {
        let message = format!("no target of model {} can answer", escape(&spec.name));
        return Err(LocalReply::new(Reason::NoTargetAvailable, message));
    };
    *decision = Decision { target: Some(id), why, ..*decision };

    within_limits(world, Some(model)).map(|()| Some(target))
}

/// The target that the caller names, where the route lets it.
fn choose_by(route: &Route, headers: &Headers) -> Option<(TargetId, Why)> {
    // The configuration accepts no `choose_by` yet.
    let _ = (route, headers);
    None
}

/// The first target of `fallback` that can answer when the split has none.
fn fallback(route: &Route) -> Option<(TargetId, Why)> {
    // The configuration accepts no `fallback` yet.
    let _ = route;
    None
}

/// Spends the tokens of every limit that applies, the model's and then the top level's, or of none.
#[expect(clippy::unnecessary_wraps, reason = "the configuration accepts no limit yet that could refuse")]
fn within_limits(world: &mut World<'_>, model: Option<&Model>) -> Result<(), LocalReply> {
    let _ = (world, model);
    Ok(())
}

/// What a caller asks for, as the decision header has it.
pub fn asked(asked: &Asked) -> Cow<'static, str> {
    match asked {
        Asked::Latest => Cow::Borrowed("latest"),
        Asked::Version(version) => Cow::Owned(format!("version.{}", escape(&version.to_string()))),
        Asked::Label(label) => Cow::Owned(format!("label.{}", escape(label))),
    }
}
