//! One request's life: what the host shows of it goes in, a verdict comes out.
//!
//! The only module that knows all the others. The order of decisions is [`Exchange::decide`]:
//! method class, identity, model, route, `choose_by`, split, `fallback`, limits. Spoofed headers are removed
//! before any of them, by [`sanitise`].

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::call::{Call, Kind};
use crate::headers::Headers;
use crate::hold::{Holds, HostAbility};
use crate::identity::{Compression, Encoding, Malformed, ModelSpec, Progress, Scanner, Unreadable, Until};
use crate::matching::{Subject, all_hold};
use crate::method::Method;
use crate::policy::{AdminMethods, Compressed, GrpcIdentity, Model, Otherwise, Policy, Route, Target};
use crate::route;
use crate::units::{Asked, Instant, ModelId, RouteId, TargetId, Version};
use crate::verdict::{LocalReply, Protocol, Reason, Verdict, escape};

/// Every header with this prefix is the filter's own.
pub const PREFIX: &str = "x-predictgate-";
pub const CLUSTER_HEADER: &str = "x-predictgate-cluster";
pub const TARGET_HEADER: &str = "x-predictgate-target";
pub const DECISION_HEADER: &str = "x-predictgate-decision";

/// What a decision may look at beside the request itself.
#[derive(Debug)]
pub struct World<'a> {
    pub policy: &'a Policy,
    pub holds: &'a mut Holds,
    /// Read once a callback.
    pub now: Instant,
}

/// A piece of a request's body. While a request is held, each piece begins where the first one did.
pub struct Body<'a> {
    pub length: usize,
    /// `read(offset, most)` gives at most so many bytes from an offset, and at least one where there are any.
    pub read: &'a mut dyn FnMut(usize, usize) -> Option<Vec<u8>>,
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
    /// The asked identity, for a caller who may see why.
    explained: Option<ModelSpec>,
}

#[derive(Debug)]
enum Stage {
    Headers,
    /// The headers wait for the identity in the body, of which `read` bytes were read.
    Held {
        pending: Pending,
        read: usize,
    },
    /// The hold ended by its deadline before the host was proven capable: the headers have gone on.
    Released {
        pending: Pending,
        at: Instant,
    },
    /// The headers have gone on without an identity; the body decides what is still to decide.
    Late(Pending),
    /// Everything is decided; the rest of the body must not contradict it.
    Following(Scanner),
    /// Nothing of the request is looked at any more.
    Through,
}

/// A gRPC request whose identity is not known yet.
#[derive(Debug)]
struct Pending {
    method: Method,
    headers: Headers,
    scanner: Scanner,
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

/// Where the identity of a request was found: the label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdentityResult {
    Body,
    Headers,
    Path,
    /// The method names no model.
    None,
    /// The method names a model, but none could be read.
    Unknown,
    Malformed,
    Administrative,
}

impl IdentityResult {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Headers => "headers",
            Self::Path => "path",
            Self::None => "none",
            Self::Unknown => "unknown",
            Self::Malformed => "malformed",
            Self::Administrative => "administrative",
        }
    }
}

/// Takes the headers that only the filter may set out of a client's, and names them.
pub fn sanitise(policy: &Policy, headers: Headers) -> (Headers, Vec<String>) {
    let explain = policy.explain.as_ref().map(|explain| explain.header.as_bytes());
    let spoofed = |name: &[u8]| {
        (name.starts_with(PREFIX.as_bytes()) && Some(name) != explain)
            || policy.owned_headers.iter().any(|owned| owned.as_bytes() == name)
    };
    if !headers.iter().any(|(name, _)| spoofed(name)) {
        return (headers, Vec::new());
    }
    let (mut kept, mut removed) = (Vec::new(), Vec::<String>::new());
    for (name, value) in &headers {
        if !spoofed(name) {
            kept.push((name, value));
        } else if let Ok(name) = str::from_utf8(name)
            && !removed.iter().any(|known| known == name)
        {
            removed.push(name.to_owned());
        }
    }
    (Headers::from_pairs(&kept), removed)
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

    pub const fn identity(&self) -> IdentityResult {
        self.identity
    }

    pub const fn decision(&self) -> Option<Decision> {
        self.decision
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
        let verdict = match call.kind {
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
            Kind::Rest { method, spec } => {
                self.identity = IdentityResult::Path;
                self.explain(world.policy, &headers, &spec);
                self.decide(world, &headers, method, &spec)
            }
            Kind::Grpc { method, layout, rpc } => {
                let scanner = Scanner::new(layout, rpc, world.policy.identity.max_peek_bytes)
                    .with_compression(compression(world.policy, &headers));
                let pending = Pending { method, headers, scanner };
                let by_body = world.policy.identity.grpc == GrpcIdentity::Body
                    && world.holds.host() != HostAbility::Incapable;
                if ends {
                    self.unknown(world.policy, "the call has no message")
                } else if by_body {
                    self.hold(world, pending)
                } else {
                    self.by_headers(world, pending)
                }
            }
        };
        self.concluded(world, verdict)
    }

    /// A piece of the request's body; `ends` when it is the last.
    pub fn request_body(&mut self, world: &mut World<'_>, body: &mut Body<'_>, ends: bool) -> Verdict {
        let verdict = match std::mem::replace(&mut self.stage, Stage::Through) {
            Stage::Headers | Stage::Through => Verdict::PASS,
            Stage::Held { pending, read } => {
                world.holds.prove_capable();
                self.held_body(world, pending, read, body, ends)
            }
            Stage::Released { pending, at } => {
                if world.holds.conclude_incapable(world.now.since(at))
                    || world.holds.host() == HostAbility::Incapable
                {
                    self.late_body(world, pending, body, ends)
                } else {
                    self.hold_timed_out(world.policy)
                }
            }
            Stage::Late(pending) => self.late_body(world, pending, body, ends),
            Stage::Following(scanner) => self.follow(world.policy, scanner, body, 0, ends),
        };
        self.concluded(world, verdict)
    }

    /// The request has trailers, which end its body.
    pub fn request_trailers(&mut self, world: &mut World<'_>) -> Verdict {
        self.request_body(world, &mut Body { length: 0, read: &mut |_, _| None }, true)
    }

    /// The stream is over.
    pub fn end(&mut self, holds: &mut Holds) {
        holds.release(self.id);
        self.stage = Stage::Through;
    }

    /// The deadline of a hold has come.
    pub fn hold_expired(&mut self, world: &mut World<'_>) -> Verdict {
        match std::mem::replace(&mut self.stage, Stage::Through) {
            Stage::Held { pending, .. } if world.holds.host() != HostAbility::Capable => {
                self.stage = Stage::Released { pending, at: world.now };
                Verdict::PASS
            }
            Stage::Held { .. } => {
                let verdict = self.hold_timed_out(world.policy);
                self.concluded(world, verdict)
            }
            stage => {
                self.stage = stage;
                Verdict::PASS
            }
        }
    }

    /// The value of the decision header, if the caller asked for it and may see it.
    pub fn explanation(&self, policy: &Policy) -> Option<String> {
        let spec = self.explained.as_ref()?;
        let decision = self.decision;
        let model = decision.and_then(|it| it.model).and_then(|it| policy.models.get(it.0 as usize));
        let route = decision.and_then(|it| it.route);
        let target = decision.and_then(|it| it.target);
        let mut text = format!("model={};asked={}", escape(&spec.name), asked(&spec.asked));
        if let (Some(model), Some(id)) = (model, route) {
            match model.routes.get(usize::from(id.0)).and_then(|route| route.name.as_deref()) {
                Some(name) => _ = write!(text, ";route={}", escape(name)),
                None => _ = write!(text, ";route={}", id.0),
            }
        }
        if let Some(target) = model.zip(target).and_then(|(model, id)| model.targets.get(usize::from(id.0))) {
            _ = write!(text, ";target={}", escape(&target.name));
        }
        let why = self.refusal.map(Reason::name).or(decision.map(|it| it.why.name())).unwrap_or("none");
        _ = write!(text, ";reason={why}");
        Some(text)
    }

    fn hold(&mut self, world: &mut World<'_>, pending: Pending) -> Verdict {
        let deadline = world.now.after(world.policy.identity.hold_timeout);
        match world.holds.admit(self.id, deadline, world.policy.identity.max_held) {
            Ok(()) => {
                self.stage = Stage::Held { pending, read: 0 };
                Verdict::Hold
            }
            Err(many) => {
                let message =
                    format!("{} requests already wait for the first bytes of their body", many.held);
                self.refuse(Reason::Overloaded, message)
            }
        }
    }

    /// Decides by the identity headers, and holds the body against them.
    fn by_headers(&mut self, world: &mut World<'_>, mut pending: Pending) -> Verdict {
        let spec = match spec_of_headers(world.policy, &pending.headers) {
            Ok(Some(spec)) => spec,
            Ok(None) => {
                if world.policy.identity.verify_body {
                    self.stage = Stage::Late(pending);
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
        self.explain(world.policy, &pending.headers, &spec);
        let verdict = self.decide(world, &pending.headers, pending.method, &spec);
        if world.policy.identity.verify_body && matches!(verdict, Verdict::Forward(_)) {
            pending.scanner.pin_to(spec);
            self.stage = Stage::Following(pending.scanner);
        }
        verdict
    }

    fn held_body(
        &mut self,
        world: &mut World<'_>,
        mut pending: Pending,
        read: usize,
        body: &mut Body<'_>,
        ends: bool,
    ) -> Verdict {
        let most = world.policy.identity.max_peek_bytes as usize;
        let peek = body.length.min(most);
        if let Err(malformed) = follow(&mut pending.scanner, body, read, peek) {
            return self.malformed(malformed);
        }
        if pending.scanner.progress() != Progress::Reading {
            return self.by_body(world, pending, body, peek, ends);
        }
        if body.length >= most {
            return self.unknown(world.policy, "no model within the first bytes of the message");
        }
        if ends {
            return self.without_identity(world.policy, &pending.scanner);
        }
        self.stage = Stage::Held { pending, read: peek };
        Verdict::Hold
    }

    fn late_body(
        &mut self,
        world: &mut World<'_>,
        mut pending: Pending,
        body: &mut Body<'_>,
        ends: bool,
    ) -> Verdict {
        let length = body.length;
        if let Err(malformed) = follow(&mut pending.scanner, body, 0, length) {
            return self.malformed(malformed);
        }
        let verdict = if pending.scanner.progress() != Progress::Reading {
            self.by_body(world, pending, body, length, ends)
        } else if ends {
            self.without_identity(world.policy, &pending.scanner)
        } else {
            self.stage = Stage::Late(pending);
            Verdict::PASS
        };
        // The headers have gone on, so that no target can be chosen any more; a refusal still can.
        if let (Verdict::Forward(_), Some(decision)) = (&verdict, &mut self.decision) {
            *decision = Decision { target: None, route: None, why: Why::Late, ..*decision };
        }
        match verdict {
            Verdict::Forward(_) => Verdict::PASS,
            verdict => verdict,
        }
    }

    /// The body has ended before the identity was known.
    fn without_identity(&mut self, policy: &Policy, scanner: &Scanner) -> Verdict {
        match scanner.end() {
            Ok(()) => self.unknown(policy, "the call has no message"),
            Err(malformed) => self.malformed(malformed),
        }
    }

    /// The scanner has gone as far as `from` and knows the identity, or that there is none.
    fn by_body(
        &mut self,
        world: &mut World<'_>,
        pending: Pending,
        body: &mut Body<'_>,
        from: usize,
        ends: bool,
    ) -> Verdict {
        if let Progress::Unreadable(why) = pending.scanner.progress() {
            return self.unreadable(world.policy, why);
        }
        if pending.scanner.spec().name.is_empty() {
            return self.unknown(world.policy, "the message names no model");
        }
        self.identity = IdentityResult::Body;
        let spec = pending.scanner.spec().clone();
        self.explain(world.policy, &pending.headers, &spec);
        let verdict = self.decide(world, &pending.headers, pending.method, &spec);
        if !matches!(verdict, Verdict::Forward(_)) {
            return verdict;
        }
        match self.follow(world.policy, pending.scanner, body, from, ends) {
            Verdict::Forward(_) => verdict,
            refusal => refusal,
        }
    }

    fn follow(
        &mut self,
        policy: &Policy,
        mut scanner: Scanner,
        body: &mut Body<'_>,
        from: usize,
        ends: bool,
    ) -> Verdict {
        let length = body.length;
        let read = follow(&mut scanner, body, from, length);
        if let Err(malformed) = read.and_then(|()| if ends { scanner.end() } else { Ok(()) }) {
            return self.malformed(malformed);
        }
        if scanner.contradicted() {
            return self.refuse(
                Reason::ContradictingModelSpec,
                "the message names another model, version, label or signature than the one that was routed",
            );
        }
        if let Progress::Unreadable(why) = scanner.progress() {
            return self.unreadable(policy, why);
        }
        if !ends {
            self.stage = Stage::Following(scanner);
        }
        Verdict::PASS
    }

    /// Model, route, `choose_by`, split, `fallback`, limits, in this order; only what would be forwarded spends tokens.
    fn decide(
        &mut self,
        world: &mut World<'_>,
        headers: &Headers,
        method: Method,
        spec: &ModelSpec,
    ) -> Verdict {
        let policy = world.policy;
        let mut decision = Decision { model: None, route: None, target: None, why: Why::Unmatched };
        let found = policy.names.find(&spec.name);
        let Some((id, model)) = found.and_then(|id| Some((id, policy.models.get(id.0 as usize)?))) else {
            self.decision = Some(decision);
            return match policy.unmatched {
                Otherwise::Pass => within_limits(world, None).unwrap_or(Verdict::PASS),
                Otherwise::Reject => {
                    let message = format!("model {} is not configured", escape(&spec.name));
                    self.refuse(Reason::ModelNotConfigured, message)
                }
            };
        };
        decision.model = Some(id);
        let subject = Subject { method, asked: &spec.asked, signature: &spec.signature, headers };
        let taken = route::first(model.routes.iter().map(|route| &route.matcher), subject);
        let Some((id, route)) = taken.and_then(|id| Some((id, model.routes.get(usize::from(id.0))?))) else {
            decision.why = Why::Otherwise;
            self.decision = Some(decision);
            return match model.otherwise {
                Otherwise::Pass => within_limits(world, Some(model)).unwrap_or(Verdict::PASS),
                Otherwise::Reject => {
                    let message = format!(
                        "no route of model {} takes {} of {}",
                        escape(&spec.name),
                        method.name(),
                        asked(&spec.asked)
                    );
                    self.refuse(Reason::ModelNotConfigured, message)
                }
            };
        };
        decision.route = Some(id);
        let chosen = choose_by(route, headers)
            .or_else(|| route.split.choose().map(|target| (target, Why::Split)))
            .or_else(|| fallback(route));
        let chosen = chosen.and_then(|(id, why)| Some((id, why, model.targets.get(usize::from(id.0))?)));
        let Some((id, why, target)) = chosen else {
            self.decision = Some(decision);
            let message = format!("no target of model {} can answer", escape(&spec.name));
            return self.refuse(Reason::NoTargetAvailable, message);
        };
        self.decision = Some(Decision { target: Some(id), why, ..decision });
        within_limits(world, Some(model)).unwrap_or_else(|| Verdict::Forward(headers_to_set(target)))
    }

    fn explain(&mut self, policy: &Policy, headers: &Headers, spec: &ModelSpec) {
        let asked_for = policy.explain.as_ref().is_some_and(|explain| {
            headers.get(&explain.header).is_some() && all_hold(&explain.matches, headers)
        });
        self.explained = asked_for.then(|| spec.clone());
    }

    fn refuse(&mut self, reason: Reason, message: impl Into<Cow<'static, str>>) -> Verdict {
        self.refusal = Some(reason);
        self.stage = Stage::Through;
        Verdict::Reply(LocalReply::new(reason, message))
    }

    fn unsupported_content_type(&mut self) -> Verdict {
        const MESSAGE: &str = "a gRPC method needs a content-type of application/grpc, with binary framing";
        self.refusal = Some(Reason::MalformedRequest);
        let reply = LocalReply::new(Reason::MalformedRequest, MESSAGE);
        Verdict::Reply(LocalReply { http: 415, ..reply })
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

    /// Ends the hold unless the verdict is to go on holding.
    fn concluded(&self, world: &mut World<'_>, verdict: Verdict) -> Verdict {
        if verdict != Verdict::Hold {
            world.holds.release(self.id);
        }
        verdict
    }
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
fn within_limits(world: &mut World<'_>, model: Option<&Model>) -> Option<Verdict> {
    // The configuration accepts no limit yet.
    let _ = (world, model);
    None
}

fn headers_to_set(target: &Target) -> Vec<(String, String)> {
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut set = vec![own(TARGET_HEADER, &target.name)];
    set.extend(target.cluster.as_deref().map(|cluster| own(CLUSTER_HEADER, cluster)));
    set.extend(target.headers.iter().map(|(name, value)| own(name, value)));
    set
}

/// What the identity headers say, or nothing when none names a model.
fn spec_of_headers(policy: &Policy, headers: &Headers) -> Result<Option<ModelSpec>, &'static str> {
    let text = |name: &str| match headers.joined(name) {
        None => Ok(None),
        Some(value) => String::from_utf8(value.into_owned())
            .map(|text| Some(text).filter(|text| !text.is_empty()))
            .map_err(|_| "a header that names the model, version or label is not UTF-8"),
    };
    let identity = &policy.identity;
    let Some(name) = text(&identity.model_header)? else {
        return Ok(None);
    };
    let asked = match (text(&identity.version_header)?, text(&identity.label_header)?) {
        (None, None) => Asked::Latest,
        (Some(version), None) => Asked::Version(Version::parse(&version)),
        (None, Some(label)) => Asked::Label(label.into()),
        (Some(_), Some(_)) => return Err("the headers ask for a version and for a label"),
    };
    Ok(Some(ModelSpec { name, asked, signature: String::new() }))
}

/// What the configuration and the caller's `grpc-encoding` make of compressed messages.
fn compression(policy: &Policy, headers: &Headers) -> Compression {
    let until = match policy.identity.compressed {
        Compressed::Reject => return Compression::Unread(Unreadable::Compressed),
        Compressed::Scan => Until::End,
        Compressed::First => Until::Identity,
    };
    match headers.get("grpc-encoding").and_then(Encoding::named) {
        None => Compression::Unread(Unreadable::Encoding),
        Some(encoding) => {
            let most = u64::from(policy.identity.max_inflate_bytes);
            Compression::Inflated { encoding, most, until }
        }
    }
}

/// Lets the scanner see the body from one offset to another.
fn follow(scanner: &mut Scanner, body: &mut Body<'_>, from: usize, to: usize) -> Result<(), Malformed> {
    scanner.follow(to.saturating_sub(from), |at, most| (body.read)(from.saturating_add(at), most))
}

/// What a caller asks for, as the decision header has it.
fn asked(asked: &Asked) -> Cow<'static, str> {
    match asked {
        Asked::Latest => Cow::Borrowed("latest"),
        Asked::Version(version) => Cow::Owned(format!("version.{}", escape(&version.to_string()))),
        Asked::Label(label) => Cow::Owned(format!("label.{}", escape(label))),
    }
}
