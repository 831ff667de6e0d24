//! The only parser of operator input: plugin configuration text to a [`Policy`].
//!
//! The text becomes a tree (`json`), a cursor reads it (`at`), and each area has a file of its own.
//! It runs in the proxy, so nothing here can panic, whatever the text.
//!
//! Whatever reads one object stays a function of its own (`#[inline(never)]`): V8 compiles functions whole, the memory
//! it takes grows faster than they do, and Envoy's allocator keeps it.
#![deny(clippy::arithmetic_side_effects)]

mod at;
mod header;
mod health;
mod identity;
mod json;
mod key;
mod limit;
mod matching;
mod model;
mod name;
mod number;
mod route;
mod time;
mod unsupported;
mod words;

use std::fmt;

use crate::policy::{AdminMethods, Explain, Histograms, Limit, Model, Otherwise, Policy};
use crate::rate_limit::{Cost, LimitId};
use crate::units::Mode;
use at::{At, Reading};

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where, in the operator's own spelling: `models[0].routes[3].split[1].target`. Empty for the whole.
    pub path: String,
    /// What was found, what was wanted, and a near name where there is one.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.problem)
        } else {
            write!(f, "{}: {}", self.path, self.problem)
        }
    }
}

impl std::error::Error for ConfigError {}

/// Reads a plugin configuration.
///
/// # Errors
///
/// Every error of the text at once, in the order in which they stand in it; a text that is not JSON has one.
#[inline(never)]
pub fn parse(text: &str) -> Result<Policy, Vec<ConfigError>> {
    read(text, unsupported::refuse)
}

/// Reads a plugin configuration with the settings that the filter checks but does not follow yet.
///
/// # Errors
///
/// As [`parse`], except that no setting is refused as not yet supported.
pub fn parse_all(text: &str) -> Result<Policy, Vec<ConfigError>> {
    read(text, |_| ())
}

fn read(text: &str, refuse: impl FnOnce(At<'_>)) -> Result<Policy, Vec<ConfigError>> {
    let tree = json::parse(text)
        .map_err(|error| vec![ConfigError { path: String::new(), problem: format!("not JSON: {error}") }])?;
    let reading = Reading::default();
    let root = At { json: &tree, reading: &reading };
    let policy = policy(root);
    refuse(root);
    let problems = reading.into_problems();
    match policy {
        Some(policy) if problems.is_empty() => Ok(policy),
        _ => {
            let error = |(order, problem)| ConfigError { path: tree.path_to(order), problem };
            Err(problems.into_iter().map(error).collect())
        }
    }
}

#[inline(never)]
fn policy(root: At<'_>) -> Option<Policy> {
    let object = root.object(&[
        "identity",
        "models",
        "rate_limits",
        "unmatched",
        "admin_methods",
        "explain",
        "metrics",
        "state_namespace",
        "concurrency",
    ])?;
    let identity = object.get("identity").and_then(identity::identity).unwrap_or_default();
    for name in [&identity.model_header, &identity.version_header, &identity.label_header] {
        root.reading.headers.read(name);
    }
    let (mut models, names) = object.need("models").map(model::models).unwrap_or_default();
    let mut rate_limits = object.get("rate_limits").map(limit::limits).unwrap_or_default();
    let histograms = object.get("metrics").and_then(|at| histograms(at, models.len())).unwrap_or_default();
    let counts_examples = number(&mut models, &mut rate_limits);
    Some(Policy {
        identity,
        models,
        names,
        rate_limits,
        counts_examples,
        unmatched: object.get("unmatched").and_then(|it| it.choice(&OTHERWISE)).unwrap_or(Otherwise::Pass),
        admin_methods: object
            .get("admin_methods")
            .and_then(|it| it.choice(&ADMIN_METHODS))
            .unwrap_or_default(),
        explain: object.get("explain").and_then(explain),
        histograms,
        state_namespace: object
            .get("state_namespace")
            .and_then(At::state_namespace)
            .unwrap_or_else(|| "predictgate".into()),
        owned_headers: header::owned(root.reading),
    })
}

/// Gives every limit its place among all, and says whether one counts examples.
#[inline(never)]
fn number(models: &mut [Model], top: &mut [Limit]) -> bool {
    let mut next = 0_u32;
    let mut counts_examples = false;
    let mut place = |limits: &mut [Limit]| {
        let first = LimitId(next);
        for limit in limits {
            limit.id = LimitId(next);
            counts_examples |= limit.rate.cost == Cost::Batch;
            next = next.saturating_add(1);
        }
        first
    };
    for model in models {
        model.first_limit = place(&mut model.rate_limits);
    }
    place(top);
    counts_examples
}

const OTHERWISE: [(&str, Otherwise); 2] = [("pass", Otherwise::Pass), ("reject", Otherwise::Reject)];

const MODE: [(&str, Mode); 2] = [("enforce", Mode::Enforce), ("shadow", Mode::Shadow)];

const ADMIN_METHODS: [(&str, AdminMethods); 2] =
    [("refuse", AdminMethods::Refuse), ("pass", AdminMethods::Pass)];

#[inline(never)]
fn explain(at: At<'_>) -> Option<Explain> {
    let object = at.object(&["header", "match"])?;
    Some(Explain {
        header: object.need("header").and_then(At::explain_name).unwrap_or_default(),
        matches: object.get("match").map(matching::headers).unwrap_or_default(),
    })
}

/// A histogram takes some 10 KB in Envoy.
const MAX_HISTOGRAM_MODELS: usize = 200;

#[inline(never)]
fn histograms(at: At<'_>, models: usize) -> Option<Histograms> {
    let at = at.object(&["histograms"])?.get("histograms")?;
    let histograms = at.choice(&[("target", Histograms::Target), ("model", Histograms::Model)])?;
    if histograms == Histograms::Model && MAX_HISTOGRAM_MODELS < models {
        at.report(format!("found {models} models, expected at most {MAX_HISTOGRAM_MODELS} for \"model\""));
    }
    Some(histograms)
}
