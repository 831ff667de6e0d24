//! `models`, their targets, and which routes they need.

use std::sync::Arc;

use hashbrown::{HashMap, HashTable};

use super::at::{At, Once};
use super::{OTHERWISE, health, limit, name, route};
use crate::policy::{Model, Otherwise, Rewrite, Route, Target};
use crate::rate_limit::LimitId;
use crate::route::Names;
use crate::units::{Asked, ModelId, TargetId};

/// Keeps a policy within the memory of a VM.
const MAX_MODELS: usize = 100_000;

/// As many as a place counts to.
const MAX_TARGETS: usize = 65_535;
const MAX_ROUTES: usize = 65_535;

/// More than that, Envoy refuses a request by default.
const MAX_HEADERS: usize = 100;

pub fn models(at: At<'_>) -> (Vec<Model>, Names) {
    let mut names = Names::default();
    let Some(items) = at.items(MAX_MODELS) else { return (vec![], names) };
    if items.len() == 0 {
        at.expected::<()>("at least one model");
    }
    let mut models = Vec::with_capacity(items.len());
    let mut known = Common::default();
    for (place, item) in (0..).zip(items) {
        models.extend(model(item, ModelId(place), &mut names, &mut known));
    }
    (models, names)
}

/// What models may have in common.
#[derive(Default)]
struct Common {
    targets: Known<Target>,
    routes: Known<Route>,
}

/// Lists by the hash of the text that they were read from.
type Known<T> = HashTable<(u64, Arc<[T]>)>;

/// The one of `known` that is the same.
///
/// To hash what was read rather than the items takes one function for all kinds of them.
fn common<T: Eq>(known: &mut Known<T>, at: Option<At<'_>>, items: Vec<T>) -> Arc<[T]> {
    let hash = at.map_or(0, |at| at.json.hash());
    if let Some((_, same)) = known.find(hash, |(_, same)| **same == *items) {
        return Arc::clone(same);
    }
    let items: Arc<[T]> = items.into();
    known.insert_unique(hash, (hash, Arc::clone(&items)), |(hash, _)| *hash);
    items
}

fn model(at: At<'_>, place: ModelId, names: &mut Names, known: &mut Common) -> Option<Model> {
    let object = at.object(&[
        "name",
        "targets",
        "routes",
        "otherwise",
        "rate_limits",
        "outlier_detection",
        "concurrency",
    ])?;
    let name = object.need("name").and_then(|at| {
        let name = at.model_name()?;
        if let Err(taken) = names.add(&name, place) {
            at.report(format!("{} is the name of models[{}] already", at.found(), taken.by.0));
        }
        Some(name)
    });
    let (targets, scope) = targets(object.get("targets"));
    let otherwise = object.get("otherwise").map(|it| it.choice(&OTHERWISE));
    let (routes, has_catch_all) = routes(object.get("routes"), &scope);
    if !has_catch_all && otherwise.is_none() {
        at.report("expected a route without \"match\", or \"otherwise\"");
    }
    Some(Model {
        name: name.unwrap_or_default(),
        targets: common(&mut known.targets, object.get("targets"), targets),
        routes: common(&mut known.routes, object.get("routes"), routes),
        otherwise: otherwise.flatten().unwrap_or(Otherwise::Reject),
        rate_limits: object.get("rate_limits").map(limit::limits).unwrap_or_default(),
        first_limit: LimitId(0),
        outlier_detection: object.get("outlier_detection").and_then(health::outlier_detection),
    })
}

/// The targets that a model's routes may name.
#[derive(Debug, Default)]
pub struct Targets<'a> {
    names: Vec<&'a str>,
    places: HashMap<&'a str, TargetId>,
    /// Without them, it cannot be said that a name is not defined.
    are_unreadable: bool,
}

impl Targets<'_> {
    pub fn find(&self, at: At<'_>) -> Option<TargetId> {
        let name = at.text()?;
        let place = self.places.get(name).copied();
        if place.is_none() && !self.are_unreadable {
            let names = self.names.iter().copied();
            at.unknown(format_args!("{} is not defined", at.found()), name, names);
        }
        place
    }
}

fn targets(at: Option<At<'_>>) -> (Vec<Target>, Targets<'_>) {
    let mut scope = Targets::default();
    let Some(at) = at else { return (vec![], scope) };
    let Some(entries) = at.entries() else {
        return (vec![], Targets { are_unreadable: true, ..scope });
    };
    if MAX_TARGETS < entries.len() {
        at.report(format!("found {} targets, expected at most {MAX_TARGETS}", entries.len()));
        return (vec![], Targets { are_unreadable: true, ..scope });
    }
    let mut targets = Vec::with_capacity(entries.len());
    for (place, (name, at)) in (0..).zip(entries) {
        if !name::is_visible(name, name::MAX_NAME) {
            at.report("expected a name of 1 to 256 bytes of visible ASCII");
        }
        scope.names.push(name);
        scope.places.insert(name, TargetId(place));
        targets.extend(target(at, name));
    }
    (targets, scope)
}

fn target(at: At<'_>, name: &str) -> Option<Target> {
    let keys = ["cluster", "headers", "rewrite"];
    let object = at.object(&keys)?;
    if keys.iter().all(|key| object.get(key).is_none()) {
        at.report("expected at least one of \"cluster\", \"headers\" and \"rewrite\"");
    }
    Some(Target {
        name: name.into(),
        cluster: object.get("cluster").and_then(At::cluster),
        headers: object.get("headers").map(target_headers).unwrap_or_default(),
        rewrite: object.get("rewrite").and_then(rewrite),
    })
}

fn target_headers(at: At<'_>) -> Vec<(Box<str>, Box<str>)> {
    let Some(entries) = at.entries() else { return vec![] };
    if !(1..=MAX_HEADERS).contains(&entries.len()) {
        at.report(format!("found {} headers, expected 1 to {MAX_HEADERS}", entries.len()));
        return vec![];
    }
    let mut headers: Vec<(Box<str>, Box<str>)> = vec![];
    for (name, at) in entries {
        let (name, value) = (at.target_header_name(name), at.header_value());
        let Some((name, value)) = name.zip(value) else { continue };
        if headers.iter().any(|(other, _)| *other == name) {
            at.report("the header is given twice");
        }
        headers.push((name, value));
    }
    headers
}

fn rewrite(at: At<'_>) -> Option<Rewrite> {
    let keys = ["model", "version", "label", "signature"];
    let object = at.object(&keys)?;
    if keys.iter().all(|key| object.get(key).is_none()) {
        at.report("expected at least one of \"model\", \"version\", \"label\" and \"signature\"");
    }
    let version = object.get("version").and_then(At::version).map(Asked::Version);
    let label = object.get("label").and_then(At::name).map(Asked::Label);
    if version.is_some() && label.is_some() {
        at.report("expected only one of \"version\" and \"label\"");
    }
    Some(Rewrite {
        model: object.get("model").and_then(At::name),
        asked: version.or(label),
        signature: object.get("signature").and_then(At::name),
    })
}

/// The routes, and whether one of them takes every request.
fn routes(at: Option<At<'_>>, targets: &Targets<'_>) -> (Vec<Route>, bool) {
    let mut names = Once::new();
    let mut catch_all = None;
    let Some(items) = at.and_then(|at| at.items(MAX_ROUTES)) else { return (vec![], false) };
    let mut routes = Vec::with_capacity(items.len());
    for (place, item) in items.enumerate() {
        if let Some(earlier) = catch_all {
            item.report(format!("never matches, routes[{earlier}] before it takes every request"));
        }
        let Some((route, takes_all)) = route::route(item, targets, &mut names) else { continue };
        if takes_all {
            catch_all = catch_all.or(Some(place));
        }
        routes.push(route);
    }
    (routes, catch_all.is_some())
}
