//! Which target of a route answers: the one that the caller names, or the split's, or a fallback.

use super::World;
use super::decide::{Request, Why};
use crate::headers::Headers;
use crate::health::{Probe, Standing};
use crate::host::Host;
use crate::key::{self, Caller};
use crate::policy::{Model, Route};
use crate::split::{self, Draw};
use crate::units::{ModelId, RouteId, Share, TargetId, WallTime};

/// One route of one model, and the request that it takes.
#[derive(Clone, Copy)]
pub struct Choice<'p, 'r> {
    pub model_id: ModelId,
    pub model: &'p Model,
    pub route_id: RouteId,
    pub route: &'p Route,
    pub request: Request<'r>,
}

/// The target that was chosen.
#[derive(Clone, Copy, Debug)]
pub struct Chosen {
    pub target: TargetId,
    pub why: Why,
    /// The target gets no traffic but this request, which tries whether it answers again.
    pub probe: Option<Probe>,
    /// The route's mirror gets a copy.
    pub is_mirrored: bool,
}

/// What binds the caller of a request to a target, found out when it is first asked for.
struct Lot<'c> {
    choice: &'c Choice<'c, 'c>,
    host: &'c dyn Host,
    /// Where nothing binds the caller, chance does.
    random: u64,
    /// Lent for its memory.
    key: Vec<u8>,
    drawn: Option<Draw>,
}

impl Lot<'_> {
    fn draw(&mut self) -> Draw {
        let drawn = self.drawn.unwrap_or_else(|| self.drawn_anew());
        self.drawn = Some(drawn);
        drawn
    }

    fn drawn_anew(&mut self) -> Draw {
        let Choice { model, route, request, .. } = *self.choice;
        let chance = Draw::at_random(self.random);
        let Some(sticky) = &route.sticky else { return chance };
        let Request { headers, method, spec, .. } = request;
        let caller = Caller { headers, method, model: &spec.name, asked: &spec.asked, host: self.host };
        self.key.clear();
        if !key::read(&sticky.by, &caller, &mut self.key) {
            return chance;
        }
        let key = sticky.salt.text(&model.name).bytes(&self.key);
        match sticky.rotate_every {
            None => Draw::of(key),
            Some(every) => Draw::rotating(key, every, self.host.wall_time()),
        }
    }
}

impl Choice<'_, '_> {
    /// None when no target has any weight.
    pub fn choose(self, world: &mut World<'_>) -> Option<Chosen> {
        let key = std::mem::take(&mut world.local.key);
        let random = world.local.rng.next_u64();
        let mut lot = Lot { choice: &self, host: world.host, random, key, drawn: None };
        let chosen = self.choose_by(world, &mut lot);
        world.local.key = lot.key;
        chosen
    }

    fn choose_by(self, world: &mut World<'_>, lot: &mut Lot<'_>) -> Option<Chosen> {
        let (target, why, probe) = match self.named(world) {
            Some(target) => (target, Why::ChooseBy, None),
            None => self.by_split(world, lot)?,
        };
        Some(Chosen { target, why, probe, is_mirrored: self.is_mirrored(lot) })
    }

    /// The target that the caller names, where the route lets it and the target answers. Any other name is as good as
    /// none.
    fn named(self, world: &World<'_>) -> Option<TargetId> {
        let named = self.request.headers.joined(self.route.choose_by.as_deref()?)?;
        let place = self.model.targets.iter().position(|target| target.name.as_bytes() == &*named)?;
        let target = TargetId(u16::try_from(place).ok()?);
        self.answers(world.local.health.standing(self.model_id), target).then_some(target)
    }

    fn by_split(self, world: &mut World<'_>, lot: &mut Lot<'_>) -> Option<(TargetId, Why, Option<Probe>)> {
        let route = self.route;
        let wall = if route.ramp.is_some() { world.host.wall_time() } else { WallTime::default() };
        if world.local.health.standing(self.model_id).is_quiet() {
            let weights = route.split.weights(route.ramp.as_deref(), wall);
            return split::choose(weights.iter(), || lot.draw()).map(|target| (target, Why::Split, None));
        }
        self.by_weights_in_force(world, lot, wall)
    }

    /// As long as something of the model is not as configured.
    #[inline(never)]
    fn by_weights_in_force(
        self,
        world: &mut World<'_>,
        lot: &mut Lot<'_>,
        wall: WallTime,
    ) -> Option<(TargetId, Why, Option<Probe>)> {
        let route = self.route;
        let health = &mut world.local.health;
        let standing = health.standing(self.model_id);
        let in_force = standing.in_force(self.route_id, route, wall);
        let bound_to = split::choose(in_force.without_ejections(), || lot.draw())?;
        let is_ejected = standing.share_of(bound_to) == Share::NONE;
        let fallback = route.fallback.iter().copied().find(|target| self.answers(standing, *target));
        let instead = match fallback.filter(|_| in_force.diverts()) {
            Some(target) => (target, Why::Fallback, None),
            None => (split::choose(in_force.iter(), || lot.draw())?, Why::Split, None),
        };
        let probe = (is_ejected && !self.request.is_late)
            .then(|| health.probe(world.host.store(), world.policy, self.model_id, bound_to, world.now))
            .flatten();
        Some(probe.map_or(instead, |probe| (bound_to, Why::Probe, Some(probe))))
    }

    /// Whether a target takes requests that it is not bound to.
    fn answers(self, standing: &Standing, target: TargetId) -> bool {
        let is_rolled_back = standing.is_tripped(self.route_id)
            && self.route.guard.as_ref().is_some_and(|guard| guard.target == target);
        !is_rolled_back && standing.share_of(target) > Share::NONE
    }

    /// Whether the request is in the sample of those that are copied.
    fn is_mirrored(self, lot: &mut Lot<'_>) -> bool {
        let Some(mirror) = &self.route.mirror else { return false };
        let all = mirror.share == Share::WHOLE;
        let sampled = all || (mirror.share > Share::NONE && lot.draw().is_sampled(mirror.share));
        sampled && !is_copy(self.request.headers)
    }
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
