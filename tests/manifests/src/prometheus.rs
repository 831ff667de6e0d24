//! What is shipped for a Prometheus outside of Kubernetes, and for Grafana: `envoy/prometheus`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::Fault;
use crate::metrics::{self, Metrics};
use crate::object::{Object, list, text};

/// What Grafana puts in place of this is a duration.
const RATE_INTERVAL: (&str, &str) = ("$__rate_interval", "1m");

const RULES: &str = "prometheus/rules.yml";
const DASHBOARD: &str = "prometheus/dashboard.json";

/// Checks what the files of the folder ask for, and that the rules are those of the manifests.
///
/// # Errors
///
/// When a file cannot be read.
pub fn check(folder: &Path, metrics: &Metrics, objects: &[Object], faults: &mut Vec<Fault>) -> Result<()> {
    let rules = metrics::yaml(&folder.join("rules.yml"))?;
    let groups = list(&rules, "/groups");
    let all: Vec<&Value> = groups.iter().flat_map(|group| list(group, "/rules")).collect();
    let recorded: BTreeSet<&str> = all.iter().map(|rule| text(rule, "/record")).collect();
    for rule in &all {
        for problem in metrics.problems(text(rule, "/expr"), &recorded) {
            let name = [text(rule, "/alert"), text(rule, "/record")].concat();
            faults.push(Fault::new(RULES, format!("{name}: expr: {problem}")));
        }
    }
    same(groups, objects, faults);

    let path: PathBuf = folder.join("dashboard.json");
    let dashboard = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let dashboard: Value = serde_json::from_str(&dashboard).with_context(|| path.display().to_string())?;
    let panels = list(&dashboard, "/panels");
    if panels.is_empty() {
        faults.push(Fault::new(DASHBOARD, "panels: found none"));
    }
    for panel in panels {
        let targets = list(panel, "/targets");
        if targets.is_empty() {
            faults.push(Fault::new(DASHBOARD, format!("{}: targets: found none", text(panel, "/title"))));
        }
        for target in targets {
            let query = text(target, "/expr").replace(RATE_INTERVAL.0, RATE_INTERVAL.1);
            for problem in metrics.problems(&query, &recorded) {
                faults.push(Fault::new(DASHBOARD, format!("{}: expr: {problem}", text(panel, "/title"))));
            }
        }
    }
    Ok(())
}

/// The manifests have each group as it is here.
fn same(groups: &[Value], objects: &[Object], faults: &mut Vec<Fault>) {
    let manifests = || objects.iter().filter(|object| object.kind() == "PrometheusRule");
    for group in groups {
        let name = text(group, "/name");
        let theirs = manifests().flat_map(|object| object.list("/spec/groups"));
        if theirs.filter(|theirs| text(theirs, "/name") == name).collect::<Vec<_>>() != [group] {
            let places: Vec<_> = manifests().map(Object::place).collect();
            let problem =
                format!("group {name}: is another one in {places:?}, expected the same rules in both");
            faults.push(Fault::new(RULES, problem));
        }
    }
}
