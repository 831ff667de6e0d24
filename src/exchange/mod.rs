//! One request's life: what the host shows of it goes in, a verdict comes out.
//!
//! The only module that knows all the others. A request's headers are sanitised ([`sanitise`]); its method, its
//! body or its identity headers tell what it names; then [`decide`] holds the order of decisions, and [`forward`]
//! says what is changed on the way to a target.

mod bill;
mod body;
mod choice;
mod decide;
mod explain;
mod forward;
#[cfg(test)]
mod golden;
mod identity;
mod sanitise;

use std::borrow::Cow;
use std::time::Duration;

use crate::arena::{self, Arena};
use crate::call::{Call, Kind};
use crate::headers::Headers;
use crate::health::{self, Health, Probe};
use crate::hold::{Holds, HostAbility, Place};
use crate::host::Host;
use crate::identity::{Malformed, ModelSpec, Scanner, Sizes, Unreadable};
use crate::matching::all_hold;
use crate::method::Method;
use crate::policy::{AdminMethods, GrpcIdentity, Otherwise, Policy, Rewrite};
use crate::rate_limit::Limiter;
use crate::rng::Rng;
use crate::units::{Asked, Instant, ModelId, RouteId, TargetId};
use crate::verdict::{LocalReply, Protocol, Reason, Verdict};
use bill::{Bill, Extent, Shown, Till};
use decide::{Destination, Request, decide};
use identity::{compression, spec_of_headers};

pub use body::Body;
pub use decide::{Decision, Why};
pub use forward::{CLUSTER_HEADER, MIRROR_HEADER, TARGET_HEADER, headers};
pub use identity::IdentityResult;
pub use sanitise::{PREFIX, sanitise};

pub const DECISION_HEADER: &str = "x-predictgate-decision";

/// What a decision may look at beside the request itself.
pub struct World<'a> {
    pub policy: &'a Policy,
    pub local: &'a mut Local,
    /// Read once a callback.
    pub now: Instant,
    pub host: &'a dyn Host,
    /// Every decision is explained, whoever asks.
    pub explains: bool,
}

/// What one worker keeps for a configuration, from one request to the next.
#[derive(Debug)]
pub struct Local {
    pub holds: Holds,
    pub rng: Rng,
    pub limits: Limiter,
    pub health: Health,
    /// Kept for its memory, like `key`.
    bill: Bill,
    key: Vec<u8>,
}

impl Local {
    #[inline(never)]
    pub fn new(policy: &Policy, origin: Origin<'_>) -> Self {
        let Origin { instance, seed, secret, created } = origin;
        let mut rng = Rng::seeded(seed);
        let arena = Arena::new(&policy.state_namespace, arena::ENTRIES, arena::DRAIN);
        let mut limits = Limiter::new(arena, secret);
        let seed = rng.next_u64();
        let health = Health::new(policy, health::Origin { instance, seed, created, drain: arena::DRAIN });
        for (model, limit) in policy.limits() {
            let scope = model.and_then(|id| policy.models.get(id.0 as usize)).map(|model| &*model.name);
            limits.add(scope, &limit.rate, !limit.by.is_empty());
        }
        Self { holds: Holds::default(), rng, limits, health, bill: Bill::default(), key: Vec::new() }
    }
}

/// What a [`Local`] is made with beside the policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin<'a> {
    /// The plugin's name.
    pub instance: &'a [u8],
    /// Makes the chance of this worker.
    pub seed: u64,
    /// Hard to guess, since it keys the places of callers' keys.
    pub secret: u128,
    /// When the configuration was accepted in this worker.
    pub created: Instant,
}

/// A request that was sent to a target, for when its outcome is known.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub model: ModelId,
    pub route: RouteId,
    pub target: TargetId,
    pub at: Instant,
    pub probe: Option<Probe>,
    /// Which version or label the server is asked for is not the caller's wish.
    pub chosen_by_configuration: bool,
    /// The caller's own `grpc-timeout`.
    pub deadline: Option<Duration>,
    /// It is a stream of messages, whose length says nothing of the target.
    pub streams: bool,
    /// The health of the target is watched.
    pub is_watched: bool,
}

/// One request.
#[derive(Debug)]
pub struct Exchange {
    /// Names the request among those that are held.
    id: u32,
    protocol: Protocol,
    stage: Stage,
    identity: IdentityResult,
    decision: Option<Decision>,
    refusal: Option<Reason>,
    /// The asked identity, for whoever may see why.
    explained: Option<ModelSpec>,
    /// The caller may.
    caller_sees: bool,
    /// What is still to be spent as the body comes.
    bill: Option<Box<Bill>>,
    sent: Option<Sent>,
}

#[derive(Debug)]
enum Stage {
    Headers,
    /// The headers wait for the identity in the body, of which `read` bytes were read.
    Held {
        pending: Pending,
        read: usize,
        place: Place,
    },
    /// The hold ended by its deadline before the host was proven capable: the headers have gone on.
    Released {
        pending: Pending,
        at: Instant,
    },
    /// The headers have gone on without an identity, and `read` bytes of the body; what follows decides what is still
    /// to decide.
    Late {
        pending: Pending,
        read: usize,
    },
    /// The headers have gone on to a target that is to be asked something else than what the message says.
    Rewriting {
        scanner: Box<Scanner>,
        rewrite: Box<Rewrite>,
    },
    /// Everything is decided; the rest of the body must not contradict it.
    Following(Box<Scanner>),
    /// Everything is decided, and so many bytes of the body have come that nobody announced.
    Counting(u64),
    /// Nothing of the request is looked at any more.
    Through,
}

/// A gRPC request whose identity is not known yet.
#[derive(Debug)]
struct Pending {
    method: Method,
    headers: Headers,
    /// Behind a pointer, since it is large and goes from stage to stage.
    scanner: Box<Scanner>,
}

impl Exchange {
    /// `id` is the host's name for the request.
    pub const fn new(id: u32) -> Self {
        Self {
            id,
            protocol: Protocol::Rest,
            stage: Stage::Headers,
            identity: IdentityResult::None,
            decision: None,
            refusal: None,
            explained: None,
            caller_sees: false,
            bill: None,
            sent: None,
        }
    }

    /// The language in which a refusal is to be written.
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether further callbacks of the request have nothing to do.
    pub const fn is_through(&self) -> bool {
        matches!(self.stage, Stage::Through)
    }

    /// Where it stands among those that are held, if its headers wait for the identity in the body.
    pub const fn held_at(&self) -> Option<Place> {
        match self.stage {
            Stage::Held { place, .. } => Some(place),
            _ => None,
        }
    }

    pub const fn identity(&self) -> IdentityResult {
        self.identity
    }

    pub const fn decision(&self) -> Option<Decision> {
        self.decision
    }

    /// Where it was sent, if to a target; also when it was refused after that was decided.
    pub const fn sent(&self) -> Option<Sent> {
        self.sent
    }

    /// Why the filter itself answered, if it did.
    pub const fn refusal(&self) -> Option<Reason> {
        self.refusal
    }

    /// The request's headers, sanitised. `ends` when no body follows.
    pub fn request_headers(&mut self, world: &mut World<'_>, headers: Headers, ends: bool) -> Verdict {
        let call = Call::read(&headers);
        self.protocol = call.protocol;
        self.stage = Stage::Through;
        match call.kind {
            Kind::Modelless => Verdict::PASS,
            Kind::Administrative => {
                self.identity = IdentityResult::Administrative;
                match world.policy.admin_methods {
                    AdminMethods::Pass => Verdict::PASS,
                    AdminMethods::Refuse => {
                        self.refuse(Reason::AdminMethodRefused, "administrative methods are refused")
                    }
                }
            }
            Kind::ContentType => {
                self.identity = IdentityResult::Malformed;
                self.unsupported_content_type()
            }
            Kind::MalformedPath(problem) => {
                self.identity = IdentityResult::Malformed;
                self.refuse(Reason::MalformedRequest, problem)
            }
            Kind::Rest { method, spec } => self.by_path(world, &headers, (method, &spec), ends),
            Kind::Grpc { method, layout, rpc } => {
                let scanner = Scanner::new(layout, rpc, world.policy.identity.max_peek_bytes)
                    .with_compression(compression(world.policy, &headers))
                    .with_sizes(if world.policy.counts_examples { Sizes::of(method) } else { Sizes::Unread });
                let pending = Pending { method, headers, scanner: Box::new(scanner) };
                let by_body = world.policy.identity.grpc == GrpcIdentity::Body
                    && world.local.holds.host() != HostAbility::Incapable;
                if ends {
                    self.unknown(world.policy, "the call has no message")
                } else if by_body {
                    self.hold(world, pending)
                } else {
                    self.by_headers(world, pending)
                }
            }
        }
    }

    /// A piece of the request's body; `ends` when it is the last.
    pub fn request_body(&mut self, world: &mut World<'_>, body: &mut Body<'_>, ends: bool) -> Verdict {
        match std::mem::replace(&mut self.stage, Stage::Through) {
            Stage::Headers | Stage::Through => Verdict::PASS,
            Stage::Held { pending, read, place } => {
                world.local.holds.prove_capable();
                let verdict = self.held_body(world, pending, (read, place), body, ends);
                if !matches!(verdict, Verdict::Hold) {
                    world.local.holds.release(self.id, place);
                }
                verdict
            }
            Stage::Released { pending, at } => {
                if world.local.holds.conclude_incapable(world.now.since(at))
                    || world.local.holds.host() == HostAbility::Incapable
                {
                    self.late_body(world, pending, 0, body, ends)
                } else {
                    self.hold_timed_out(world.policy)
                }
            }
            Stage::Late { pending, read } => self.late_body(world, pending, read, body, ends),
            Stage::Rewriting { scanner, rewrite } => self.rewrite_body(world, scanner, &rewrite, body, ends),
            Stage::Following(scanner) => self.follow(world, scanner, body, ends),
            Stage::Counting(before) => {
                let bytes = before.saturating_add(body.length as u64);
                if let Err(refusal) = self.settle(world, Shown::once(Extent { examples: 1, bytes })) {
                    refusal
                } else {
                    if !ends {
                        self.stage = Stage::Counting(bytes);
                    }
                    Verdict::PASS
                }
            }
        }
    }

    /// Whether the next `length` bytes of the body lie inside a tensor of a request that is decided, so that nothing
    /// depends on them. They are taken as seen then.
    pub fn skips(&mut self, length: usize) -> bool {
        match &mut self.stage {
            Stage::Following(scanner) => scanner.skip_content(length),
            _ => false,
        }
    }

    /// The request has trailers, which end its body.
    pub fn request_trailers(&mut self, world: &mut World<'_>) -> Verdict {
        self.request_body(world, &mut Body { length: 0, read: &mut |_, _| None }, true)
    }

    /// The stream is over.
    pub fn end(&mut self, holds: &mut Holds) {
        if let Some(place) = self.held_at() {
            holds.release(self.id, place);
        }
        self.stage = Stage::Through;
    }

    /// The deadline of a hold has come.
    pub fn hold_expired(&mut self, world: &mut World<'_>) -> Verdict {
        match std::mem::replace(&mut self.stage, Stage::Through) {
            Stage::Held { pending, .. } if world.local.holds.host() != HostAbility::Capable => {
                self.stage = Stage::Released { pending, at: world.now };
                Verdict::PASS
            }
            Stage::Held { place, .. } => {
                world.local.holds.release(self.id, place);
                self.hold_timed_out(world.policy)
            }
            stage => {
                self.stage = stage;
                Verdict::PASS
            }
        }
    }

    /// The hold ended to make room for another.
    pub fn evicted(&mut self) -> Verdict {
        self.identity = IdentityResult::Unknown;
        self.refuse(Reason::Overloaded, "more requests than max_held wait for the first bytes of their body")
    }

    /// The value of the decision header, if the caller asked for it and may see it.
    pub fn explanation(&self, policy: &Policy) -> Option<String> {
        self.story(policy).filter(|_| self.caller_sees)
    }

    /// Why the request went where it went, if the caller may see it or every decision is explained.
    pub fn story(&self, policy: &Policy) -> Option<String> {
        let spec = self.explained.as_ref()?;
        Some(explain::header(policy, spec, self.decision, self.refusal))
    }

    fn hold(&mut self, world: &mut World<'_>, pending: Pending) -> Verdict {
        let deadline = world.now.after(world.policy.identity.hold_timeout);
        match world.local.holds.admit(self.id, deadline, world.policy.identity.max_held) {
            Ok(place) => {
                self.stage = Stage::Held { pending, read: 0, place };
                Verdict::Hold
            }
            Err(many) => {
                let message =
                    format!("{} requests already wait for the first bytes of their body", many.held);
                self.refuse(Reason::Overloaded, message)
            }
        }
    }

    /// Decides by what the path of a REST request names.
    #[inline(never)]
    fn by_path(
        &mut self,
        world: &mut World<'_>,
        headers: &Headers,
        (method, spec): (Method, &ModelSpec),
        ends: bool,
    ) -> Verdict {
        self.identity = IdentityResult::Path;
        let length = if ends { Some(0) } else { announced_length(headers) };
        let extent = Extent { examples: 1, bytes: length.unwrap_or(0) };
        let request = Request { headers, method, spec, shown: Shown::once(extent), is_late: false };
        match self.decide(world, request) {
            Err(refusal) => refusal,
            Ok(destination) => {
                if length.is_none() && self.bill.is_some() {
                    self.stage = Stage::Counting(0);
                }
                destination.map_or(Verdict::PASS, |it| self.forward_path(it, headers))
            }
        }
    }

    /// Decides by the identity headers, and holds the body against them.
    #[inline(never)]
    fn by_headers(&mut self, world: &mut World<'_>, mut pending: Pending) -> Verdict {
        let spec = match spec_of_headers(world.policy, &pending.headers) {
            Ok(Some(spec)) => spec,
            Ok(None) => {
                if world.policy.identity.verify_body {
                    self.stage = Stage::Late { pending, read: 0 };
                    return Verdict::PASS;
                }
                return self.unknown(world.policy, "no header names the model");
            }
            Err(problem) => {
                self.identity = IdentityResult::Malformed;
                return self.refuse(Reason::MalformedRequest, problem);
            }
        };
        self.identity = IdentityResult::Headers;
        let extent = Extent { examples: 1, bytes: 0 };
        let request = Request {
            headers: &pending.headers,
            method: pending.method,
            spec: &spec,
            shown: Shown::once(extent),
            is_late: false,
        };
        let destination = match self.decide(world, request) {
            Err(refusal) => return refusal,
            Ok(destination) => destination,
        };
        let rewrite = destination.and_then(|it| it.target.rewrite.as_ref());
        if rewrite.is_some() && forward::declares_length(&pending.headers) {
            return self.reply(forward::declared_length());
        }
        let verifies = world.policy.identity.verify_body;
        if verifies || rewrite.is_some() {
            pending.scanner.pin_to(spec);
        }
        if let Some(rewrite) = rewrite {
            self.stage = Stage::Rewriting { scanner: pending.scanner, rewrite: Box::new(rewrite.clone()) };
        } else if verifies || self.bill.is_some() {
            self.stage = Stage::Following(pending.scanner);
        }
        destination.map_or(Verdict::PASS, |it| Verdict::Forward(forward::to(it)))
    }

    fn forward_path(&mut self, destination: Destination<'_>, headers: &Headers) -> Verdict {
        let forward = forward::to(destination);
        match &destination.target.rewrite {
            None => Verdict::Forward(forward),
            Some(rewrite) => match forward::with_path(forward, headers, rewrite) {
                Ok(forward) => Verdict::Forward(forward),
                Err(reply) => self.reply(reply),
            },
        }
    }

    /// Decides where the request goes; without a target it goes on as it is.
    fn decide<'p>(
        &mut self,
        world: &mut World<'p>,
        request: Request<'_>,
    ) -> Result<Option<Destination<'p>>, Verdict> {
        let policy = world.policy;
        self.caller_sees = policy.explain.as_ref().is_some_and(|explain| {
            request.headers.get(&explain.header).is_some() && all_hold(&explain.matches, request.headers)
        });
        self.explained = (self.caller_sees || world.explains).then(|| request.spec.clone());
        let (decision, result) = decide(world, request);
        self.decision = Some(decision);
        self.sent = sent(world, request, decision);
        if result.is_ok() && world.local.bill.grows() {
            self.bill = Some(Box::new(std::mem::take(&mut world.local.bill)));
        }
        result.map_err(|reply| self.reply(reply))
    }

    /// Spends what the body has shown of the request since the last time.
    fn settle(&mut self, world: &mut World<'_>, shown: Shown) -> Result<(), Verdict> {
        let Some(mut bill) = self.bill.take() else { return Ok(()) };
        let World { policy, host, now, .. } = *world;
        let mut till = Till { limits: &mut world.local.limits, policy, host, now };
        bill.settle(&mut till, shown).map_err(|reply| self.reply(reply))?;
        self.bill = Some(bill);
        Ok(())
    }

    fn refuse(&mut self, reason: Reason, message: impl Into<Cow<'static, str>>) -> Verdict {
        self.reply(LocalReply::new(reason, message))
    }

    fn reply(&mut self, reply: LocalReply) -> Verdict {
        self.refusal = Some(reply.reason);
        self.stage = Stage::Through;
        Verdict::Reply(reply)
    }

    fn unsupported_content_type(&mut self) -> Verdict {
        const MESSAGE: &str = "a gRPC method needs a content-type of application/grpc, with binary framing";
        self.reply(LocalReply { http: 415, ..LocalReply::new(Reason::MalformedRequest, MESSAGE) })
    }

    fn malformed(&mut self, malformed: Malformed) -> Verdict {
        self.identity = IdentityResult::Malformed;
        self.refuse(Reason::MalformedRequest, malformed.explanation())
    }

    fn unknown(&mut self, policy: &Policy, problem: &'static str) -> Verdict {
        self.identity = IdentityResult::Unknown;
        match policy.identity.on_unknown {
            Otherwise::Pass => Verdict::PASS,
            Otherwise::Reject => self.refuse(Reason::IdentityNotFound, problem),
        }
    }

    fn unreadable(&mut self, policy: &Policy, why: Unreadable) -> Verdict {
        match why {
            // The configuration says so, whatever becomes of other requests without an identity.
            Unreadable::Compressed => {
                self.identity = IdentityResult::Unknown;
                self.refuse(Reason::IdentityNotFound, why.explanation())
            }
            _ => self.unknown(policy, why.explanation()),
        }
    }

    fn hold_timed_out(&mut self, policy: &Policy) -> Verdict {
        self.identity = IdentityResult::Unknown;
        match policy.identity.on_hold_timeout {
            Otherwise::Pass => Verdict::PASS,
            Otherwise::Reject => {
                self.refuse(Reason::HoldTimeout, "the first bytes of the message did not come in time")
            }
        }
    }
}

fn sent(world: &World<'_>, request: Request<'_>, decision: Decision) -> Option<Sent> {
    let (model, route, target) = (decision.model?, decision.route?, decision.target?);
    let is_watched = world.local.health.watches(model);
    let targets = world.policy.models.get(model.0 as usize).map(|model| &model.targets);
    let rewrite = targets.and_then(|targets| targets.get(usize::from(target.0))?.rewrite.as_ref());
    let rewritten = rewrite.is_some_and(|rewrite| rewrite.asked.is_some());
    let deadline = if is_watched { request.headers.get("grpc-timeout") } else { None };
    Some(Sent {
        model,
        route,
        target,
        at: world.now,
        probe: decision.probe,
        chosen_by_configuration: rewritten || request.spec.asked == Asked::Latest,
        deadline: deadline.and_then(grpc_timeout),
        streams: matches!(request.method, Method::ModelStreamInfer | Method::GenerateStream),
        is_watched,
    })
}

/// None when it is longer than the specification lets it be, which nobody waits for.
///
/// Source: the gRPC over HTTP/2 specification, "Timeout".
fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    const MOST_DIGITS: usize = 8;
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || MOST_DIGITS < digits.len() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |count: u64, digit: &u8| count.wrapping_mul(10).wrapping_add(u64::from(digit & 15));
    let count = digits.iter().fold(0, add);
    Some(match unit {
        b'H' => Duration::from_secs(count.wrapping_mul(3_600)),
        b'M' => Duration::from_secs(count.wrapping_mul(60)),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// The length of the body, where the caller says it. Envoy sees to it that the body has it.
fn announced_length(headers: &Headers) -> Option<u64> {
    str::from_utf8(headers.get("content-length")?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_timeout_is_at_most_eight_digits_and_a_unit() {
        let most = Duration::from_secs(99_999_999 * 3_600);
        for (value, expected) in [
            ("5S", Some(Duration::from_secs(5))),
            ("2M", Some(Duration::from_secs(120))),
            ("007m", Some(Duration::from_millis(7))),
            ("12u", Some(Duration::from_micros(12))),
            ("0n", Some(Duration::ZERO)),
            ("99999999H", Some(most)),
            ("100000000n", None),
            ("+5S", None),
            ("5", None),
            ("S", None),
            ("", None),
            ("5s", None),
        ] {
            assert_eq!(grpc_timeout(value.as_bytes()), expected, "{value}");
        }
    }
}
