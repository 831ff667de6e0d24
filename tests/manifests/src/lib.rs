//! Checks the manifests of `istio/`.
//!
//! Each object by itself: it reads into the type of a crate and back without loss, and where CRDs are at hand it
//! holds by their schemas, strictly, and by their rules in CEL.
//! And what is applied together among itself: what the filter sets, a route matches; what a route names, exists;
//! what a rule or an autoscaler asks for, the filter counts.

mod kustomize;
mod metrics;
mod object;
mod plugin;
mod relations;
mod schema;
mod typed;

use std::fmt;
use std::path::PathBuf;

use anyhow::Result;

use crate::metrics::Metrics;
use crate::object::Object;
use crate::schema::Schemas;

/// What is checked, and against what.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The folder with the kustomizations.
    pub manifests: PathBuf,
    /// The filter's sources, which name its metrics.
    pub filter: PathBuf,
    /// The `envoy.yaml` whose `stats_tags` are the labels of the filter's metrics.
    pub bootstrap: PathBuf,
    /// A folder of CustomResourceDefinitions as YAML.
    pub definitions: Option<PathBuf>,
}

/// What is applied together, by folders. Each is checked as a whole.
const TOGETHER: [&[&str]; 4] = [
    &["base", "tf-serving", "overlays/security", "overlays/autoscaling", "overlays/monitoring"],
    &["overlays/body", "tf-serving", "overlays/security", "overlays/autoscaling-hpa", "overlays/monitoring"],
    &[
        "overlays/istio-1.30",
        "tf-serving",
        "overlays/security",
        "overlays/autoscaling",
        "overlays/monitoring",
    ],
    &["gateway-api", "tf-serving"],
];

/// What was looked at, and what is wrong.
#[derive(Debug, Default)]
pub struct Report {
    pub objects: usize,
    /// Objects that were read into a crate's type.
    pub typed: usize,
    /// Objects times the schemas that they were held against.
    pub schemas: usize,
    /// Rules in CEL that were evaluated.
    pub rules: usize,
    pub faults: Vec<Fault>,
}

/// Something wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The file, from the folder of the manifests, and the object in it.
    pub place: String,
    pub problem: String,
}

impl Fault {
    fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: place.into(), problem: problem.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.faults {
            writeln!(f, "{fault}")?;
        }
        let Self { objects, typed, schemas, rules, faults } = self;
        write!(
            f,
            "{objects} objects: {typed} by a crate's type, {schemas} checks against schemas, {rules} CEL rules evaluated; {} faults",
            faults.len()
        )
    }
}

/// Checks everything.
///
/// # Errors
///
/// When something to check against cannot be read; what is wrong with the manifests is in the report.
pub fn check(sources: &Sources) -> Result<Report> {
    let mut report = Report::default();
    let objects = kustomize::all(&sources.manifests, &mut report.faults)?;
    report.objects = objects.len();
    for object in &objects {
        report.typed += usize::from(typed::check(object, &mut report.faults));
        plugin::check(object, &mut report.faults);
    }
    if let Some(folder) = &sources.definitions {
        let schemas = Schemas::load(folder)?;
        for object in &objects {
            let checked = schemas.check(object, &mut report.faults);
            report.schemas += checked.schemas;
            report.rules += checked.rules;
        }
    }
    let metrics = Metrics::load(sources)?;
    metrics.check_values(&sources.manifests, &mut report.faults)?;
    for folders in TOGETHER {
        let mut together: Vec<Object> = Vec::new();
        for folder in folders {
            together.extend(kustomize::build(&sources.manifests, folder, &mut report.faults));
        }
        relations::check(&folders.join(" + "), &together, &mut report.faults);
        metrics.check(&together, &mut report.faults);
    }
    plugin::same(&objects, &mut report.faults);
    // What stands in several sets has its faults once.
    report.faults.sort();
    report.faults.dedup();
    Ok(report)
}
