//! Checks the manifests of `istio/`, and the rules and the dashboard of `envoy/prometheus`.
//!
//! Each object by itself: it reads into the type of a crate and back without loss, and where CRDs are at hand it
//! holds by their schemas, strictly, and by their rules in CEL.
//! And what is applied together among itself: what the filter sets, a route matches; what a route names, exists;
//! what a rule, a panel or an autoscaler asks for, the filter counts.

mod kustomize;
mod metrics;
mod object;
mod plugin;
mod prometheus;
mod relations;
mod schema;
mod typed;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::metrics::Metrics;
use crate::object::Object;
use crate::schema::Schemas;

/// What the manifests are checked against.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The filter's sources, which name its metrics.
    pub filter: PathBuf,
    /// The `envoy.yaml` whose `stats_tags` are the labels of the filter's metrics.
    pub bootstrap: PathBuf,
    /// The folder with the rules and the dashboard for those who run no Kubernetes.
    pub prometheus: PathBuf,
    /// A folder of CustomResourceDefinitions as YAML. Without it their schemas and rules are left out.
    pub definitions: Option<PathBuf>,
    /// The program kustomize. Without it nobody sees whether it builds what is checked here.
    pub kustomize: Option<PathBuf>,
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
    /// Folders that kustomize built as they are read here.
    pub built: usize,
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
        let Self { objects, typed, schemas, rules, built, faults } = self;
        write!(
            f,
            "{objects} objects: {typed} by a crate's type, {schemas} times by a schema, {rules} CEL rules evaluated, \
             {built} folders built by kustomize; faults: {}",
            faults.len()
        )
    }
}

/// The objects that `kubectl apply -k` would apply of a folder.
///
/// # Errors
///
/// When a file cannot be read, or uses of kustomize what is not known here.
pub fn applied(manifests: &Path, folder: &str) -> Result<Vec<Value>> {
    let mut faults = Vec::new();
    let objects = kustomize::build(manifests, folder, &mut faults);
    match faults.first() {
        None => Ok(objects.into_iter().map(|object| object.value).collect()),
        Some(fault) => bail!("{fault}"),
    }
}

/// What the sources say.
pub struct Checker {
    metrics: Metrics,
    prometheus: PathBuf,
    schemas: Option<Schemas>,
    kustomize: Option<PathBuf>,
}

impl Checker {
    /// # Errors
    ///
    /// When a source cannot be read.
    pub fn load(sources: &Sources) -> Result<Self> {
        Ok(Self {
            metrics: Metrics::load(sources)?,
            prometheus: sources.prometheus.clone(),
            schemas: sources.definitions.as_deref().map(Schemas::load).transpose()?,
            kustomize: sources.kustomize.clone(),
        })
    }

    /// Checks the folder with the kustomizations.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read or kustomize cannot be run; what is wrong with the manifests is in the report.
    pub fn check(&self, manifests: &Path) -> Result<Report> {
        let mut report = Report::default();
        let faults = &mut report.faults;
        let objects = kustomize::all(manifests, faults)?;
        report.objects = objects.len();
        for object in &objects {
            report.typed += usize::from(typed::check(object, faults));
            plugin::check(object, faults);
            if let Some(schemas) = &self.schemas {
                let checked = schemas.check(object, faults);
                report.schemas += checked.schemas;
                report.rules += checked.rules;
            }
        }
        plugin::same(&objects, faults);
        self.metrics.check_values(manifests, faults)?;
        prometheus::check(&self.prometheus, &self.metrics, &objects, faults)?;
        for folders in TOGETHER {
            let mut together: Vec<Object> = Vec::new();
            for folder in folders {
                together.extend(kustomize::build(manifests, folder, faults));
            }
            relations::check(&folders.join(" + "), &together, faults);
            self.metrics.check(&together, faults);
        }
        if let Some(program) = &self.kustomize {
            let folders: BTreeSet<&str> = TOGETHER.into_iter().flatten().copied().collect();
            for folder in folders {
                kustomize::compare(program, manifests, folder, faults)?;
                report.built += 1;
            }
        }
        // What stands in several sets has its faults once.
        report.faults.sort();
        report.faults.dedup();
        Ok(report)
    }
}
