//! The accepted configuration, compiled to tables: what `config` makes and `exchange` reads.
//!
//! Every place (`ModelId`, `TargetId`, `RouteId`) in a policy is one of its own tables,
//! and no text of it is longer than the configuration that it came from.

use std::sync::Arc;
use std::time::Duration;

use crate::guard::Guard;
use crate::key::KeySource;
use crate::matching::{HeaderMatch, Match};
use crate::outlier::OutlierDetection;
use crate::rate_limit::{LimitId, RateLimit};
use crate::route::Names;
use crate::split::{KeyHash, Ramp, Split};
use crate::units::{Asked, ModelId, Share, TargetId};

/// One plugin configuration.
#[derive(Clone, Debug)]
pub struct Policy {
    pub identity: Identity,
    pub models: Vec<Model>,
    /// Finds a model by the name that a request asks for.
    pub names: Names,
    /// Limits across models.
    pub rate_limits: Vec<Limit>,
    /// Some limit counts examples, so that the sizes of inputs are read.
    pub counts_examples: bool,
    pub unmatched: Otherwise,
    pub admin_methods: AdminMethods,
    pub explain: Option<Explain>,
    pub histograms: Histograms,
    pub state_namespace: Box<str>,
    /// Every request header that some target sets, without repetition and sorted: a client's own are removed.
    pub owned_headers: Vec<Box<str>>,
}

impl Policy {
    /// Every limit with the model that it belongs to, in the order of their [`LimitId`]s.
    pub fn limits(&self) -> impl Iterator<Item = (Option<ModelId>, &Limit)> {
        let of_models = (0..).zip(&self.models).flat_map(|(place, model)| {
            model.rate_limits.iter().map(move |limit| (Some(ModelId(place)), limit))
        });
        of_models.chain(self.rate_limits.iter().map(|limit| (None, limit)))
    }

    /// The limit with this place, and its model.
    pub fn limit(&self, id: LimitId) -> Option<(Option<ModelId>, &Limit)> {
        if let Some(limit) = self
            .rate_limits
            .first()
            .and_then(|first| self.rate_limits.get(usize::try_from(id.0.checked_sub(first.id.0)?).ok()?))
        {
            return Some((None, limit));
        }
        // The model's first limit is the last that does not come after it.
        let after = self.models.partition_point(|model| model.first_limit <= id);
        let place = after.checked_sub(1)?;
        let model = self.models.get(place)?;
        let limit = model.rate_limits.get(usize::try_from(id.0.checked_sub(model.first_limit.0)?).ok()?)?;
        Some((Some(ModelId(u32::try_from(place).ok()?)), limit))
    }
}

/// How the model of a request is found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub grpc: GrpcIdentity,
    pub verify_body: bool,
    pub on_unknown: Otherwise,
    pub compressed: Compressed,
    /// In lower case, like every header name of a policy.
    pub model_header: Box<str>,
    pub version_header: Box<str>,
    pub label_header: Box<str>,
    pub max_peek_bytes: u32,
    pub max_inflate_bytes: u32,
    pub hold_timeout: Duration,
    pub on_hold_timeout: Otherwise,
    /// Requests of one worker held at once.
    pub max_held: u32,
}

/// Where the identity of a gRPC request is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GrpcIdentity {
    /// Headers are held until the first bytes of the message name the model.
    #[default]
    Body,
    /// Headers name the model; nothing is held.
    Metadata,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compressed {
    /// Inflate to the end, so that a later contradiction is seen.
    #[default]
    Scan,
    /// Inflate until the identity is known.
    First,
    Reject,
}

/// What happens to a request that nothing else decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    Pass,
    Reject,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdminMethods {
    #[default]
    Refuse,
    Pass,
}

/// One entry of `models`.
#[derive(Clone, Debug)]
pub struct Model {
    /// As configured: a name, or a prefix that ends in `*`.
    pub name: Box<str>,
    /// Models whose targets, or whose routes, are the same have them in common, so that a large configuration made from
    /// a template stays small.
    pub targets: Arc<[Target]>,
    pub routes: Arc<[Route]>,
    /// For what no route matches; a model whose last route takes everything never needs it.
    pub otherwise: Otherwise,
    pub rate_limits: Vec<Limit>,
    /// The place of its first limit, or where that would be.
    pub first_limit: LimitId,
    pub outlier_detection: Option<OutlierDetection>,
}

/// A place that can answer. At least one of `cluster`, `headers` and `rewrite` is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub name: Box<str>,
    pub cluster: Option<Box<str>>,
    pub headers: Vec<(Box<str>, Box<str>)>,
    pub rewrite: Option<Rewrite>,
}

/// What the server is asked instead of what the caller asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    pub model: Option<Box<str>>,
    /// A version or a label.
    pub asked: Option<Asked>,
    pub signature: Option<Box<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub name: Option<Box<str>>,
    pub matcher: Match,
    pub split: Split,
    pub sticky: Option<Box<Sticky>>,
    /// The request header that names a target.
    pub choose_by: Option<Box<str>>,
    pub fallback: Box<[TargetId]>,
    pub mirror: Option<Box<Mirror>>,
    pub ramp: Option<Box<Ramp>>,
    pub guard: Option<Box<Guard>>,
}

/// What binds a caller to a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    pub by: Vec<KeySource>,
    /// The hash of the salt, in which the hash of a caller's key begins.
    pub salt: KeyHash,
    pub rotate_every: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    pub cluster: Box<str>,
    pub share: Share,
}

/// A rate limit with what it applies to.
#[derive(Clone, Debug)]
pub struct Limit {
    /// Its place among all limits of the policy: those of the models first, in order, then those across models.
    pub id: LimitId,
    pub by: Vec<KeySource>,
    pub matcher: Match,
    pub rate: RateLimit,
}

/// Who may see why a request went where it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explain {
    pub header: Box<str>,
    pub matches: Vec<HeaderMatch>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Histograms {
    #[default]
    Target,
    Model,
}
