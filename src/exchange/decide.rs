//! The order of decisions: model, route, `choose_by`, split, `fallback`, limits.
//!
//! Limits come last, so that only a request that would be forwarded spends tokens.

use std::borrow::Cow;
use std::cell::OnceCell;

use super::World;
use super::bill::Extent;
use crate::headers::Headers;
use crate::host::Host;
use crate::identity::ModelSpec;
use crate::key::{Caller, Key};
use crate::matching::Subject;
use crate::method::Method;
use crate::policy::{Model, Otherwise, Route, Target};
use crate::route;
use crate::split::{self, Draw};
use crate::units::{Asked, ModelId, RouteId, Share, TargetId, WallTime};
use crate::verdict::{LocalReply, Reason, escape};

/// A request whose identity is known.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    pub headers: &'r Headers,
    pub method: Method,
    pub spec: &'r ModelSpec,
    pub extent: Extent,
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
    /// The caller named the target.
    ChooseBy,
    /// No target of the split can answer.
    Fallback,
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
    /// The cluster that gets a copy.
    pub mirror: Option<&'p str>,
}

/// Chooses the target of a request; without one the request goes on as it is.
pub fn decide<'p>(
    world: &mut World<'p>,
    request: Request<'_>,
) -> (Decision, Result<Option<Destination<'p>>, LocalReply>) {
    let mut decision = Decision { model: None, route: None, target: None, why: Why::Unmatched };
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
    let Some((id, model)) = model else {
        return match policy.unmatched {
            Otherwise::Pass => within_limits(world, None, request).map(|()| None),
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
            Otherwise::Pass => within_limits(world, Some(model), request).map(|()| None),
            Otherwise::Reject => {
                let (name, asked) = (escape(&spec.name), asked(&spec.asked));
                let message = format!("no route of model {name} takes {} of {asked}", method.name());
                Err(LocalReply::new(Reason::ModelNotConfigured, message))
            }
        };
    };
    decision.route = Some(id);

    let drawn = OnceCell::new();
    let host = world.host;
    let random = world.local.rng.next_u64();
    let draw = || *drawn.get_or_init(|| draw(model, route, request, host, random));
    let chosen = choose_by(model, route, headers)
        .map(|target| (target, Why::ChooseBy))
        .or_else(|| by_split(route, world, &draw).map(|target| (target, Why::Split)))
        .or_else(|| fallback(route).map(|target| (target, Why::Fallback)));
    let target = chosen.and_then(|(id, why)| Some((id, why, model.targets.get(usize::from(id.0))?)));
    let Some((id, why, target)) = target else {
        let message = format!("no target of model {} can answer", escape(&spec.name));
        return Err(LocalReply::new(Reason::NoTargetAvailable, message));
    };
    *decision = Decision { target: Some(id), why, ..*decision };

    within_limits(world, Some(model), request)
        .map(|()| Some(Destination { target, mirror: mirror(route, headers, &draw) }))
}

/// What binds the caller to a target, or chance where nothing does.
fn draw(model: &Model, route: &Route, request: Request<'_>, host: &dyn Host, random: u64) -> Draw {
    let Some(sticky) = &route.sticky else { return Draw::at_random(random) };
    let Request { headers, method, spec, .. } = request;
    let caller = Caller { headers, method, model: &spec.name, asked: &spec.asked, host };
    let key = Key::read(&sticky.by, &caller);
    if !key.is_found() {
        return Draw::at_random(random);
    }
    let key = sticky.salt.text(&model.name).bytes(key.bytes());
    match sticky.rotate_every {
        None => Draw::of(key),
        Some(every) => Draw::rotating(key, every, host.wall_time()),
    }
}

/// The target that the caller names, where the route lets it. Any other name is as good as none.
fn choose_by(model: &Model, route: &Route, headers: &Headers) -> Option<TargetId> {
    let named = headers.joined(route.choose_by.as_deref()?)?;
    let place = model.targets.iter().position(|target| target.name.as_bytes() == &*named)?;
    u16::try_from(place).ok().map(TargetId)
}

fn by_split(route: &Route, world: &World<'_>, draw: &dyn Fn() -> Draw) -> Option<TargetId> {
    let now = route.ramp.as_ref().map_or_else(WallTime::default, |_| world.host.wall_time());
    let weights = route.split.weights(route.ramp.as_deref(), now);
    split::choose(weights.iter(), draw)
}

/// The first target of `fallback` that can answer.
fn fallback(route: &Route) -> Option<TargetId> {
    route.fallback.first().copied()
}

/// The cluster that gets a copy of the request, if it is in the sample.
fn mirror<'p>(route: &'p Route, headers: &Headers, draw: &dyn Fn() -> Draw) -> Option<&'p str> {
    let mirror = route.mirror.as_ref()?;
    let sampled =
        mirror.share == Share::WHOLE || (mirror.share > Share::NONE && draw().is_sampled(mirror.share));
    (sampled && !is_copy(headers)).then_some(&*mirror.cluster)
}

/// Whether Envoy made the request as the copy of another: it marks the host of a copy.
///
/// Source: `request_mirror_policies` of Envoy's `RouteAction`.
fn is_copy(headers: &Headers) -> bool {
    const MARK: &[u8] = b"-shadow";
    let host = headers.get(":authority").unwrap_or_default();
    let name = host.iter().rposition(|byte| *byte == b':').and_then(|colon| host.get(..colon));
    host.ends_with(MARK) || name.is_some_and(|name| name.ends_with(MARK))
}

/// Spends the tokens of every limit that applies, the model's and then the top level's, or of none.
fn within_limits(
    world: &mut World<'_>,
    model: Option<&Model>,
    request: Request<'_>,
) -> Result<(), LocalReply> {
    let Request { headers, method, spec, extent } = request;
    let subject = Subject { method, asked: &spec.asked, signature: &spec.signature, headers };
    let caller = Caller { headers, method, model: &spec.name, asked: &spec.asked, host: world.host };
    let mut bill = std::mem::take(&mut world.local.bill);
    bill.begin(model, &world.policy.rate_limits, subject, &caller);
    let settled = bill.settle(world, extent);
    world.local.bill = bill;
    settled
}

/// What a caller asks for, as the decision header has it.
pub fn asked(asked: &Asked) -> Cow<'static, str> {
    match asked {
        Asked::Latest => Cow::Borrowed("latest"),
        Asked::Version(version) => Cow::Owned(format!("version.{}", escape(&version.to_string()))),
        Asked::Label(label) => Cow::Owned(format!("label.{}", escape(label))),
    }
}
