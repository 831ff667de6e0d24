//! What rules and autoscalers ask for is counted: by the filter, or by what else is known to count.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use promql_parser::parser::{self, Expr, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::Value;

use crate::object::{Object, list, text};
use crate::{Fault, Sources};

const OWN: &str = "predictgate_";
/// Metrics of others: of Istio's agent.
const OTHERS: [&str; 1] = ["istio_agent_wasm_remote_fetch_count"];
/// What Prometheus makes of a histogram.
const PARTS: [&str; 3] = ["_bucket", "_sum", "_count"];

pub struct Metrics {
    /// The names in the filter's sources.
    own: BTreeSet<String>,
    /// The labels that proxies take out of the names.
    labels: BTreeSet<String>,
}

impl Metrics {
    /// # Errors
    ///
    /// When the sources or the bootstrap cannot be read, or name no metric.
    pub fn load(sources: &Sources) -> Result<Self> {
        let mut own = BTreeSet::new();
        let folder = &sources.filter;
        for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            if path.is_file() {
                let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                own.extend(names(&text));
            }
        }
        ensure!(!own.is_empty(), "{} names no metric", folder.display());
        let bootstrap = yaml(&sources.bootstrap)?;
        let tags = list(&bootstrap, "/stats_config/stats_tags");
        let labels: BTreeSet<_> = tags.iter().map(|tag| text(tag, "/tag_name").to_owned()).collect();
        ensure!(!labels.is_empty(), "{} has no stats_tags", sources.bootstrap.display());
        Ok(Self { own, labels })
    }

    /// Checks every query of a set of objects.
    pub fn check(&self, objects: &[Object], faults: &mut Vec<Fault>) {
        let recorded: BTreeSet<&str> =
            objects.iter().flat_map(rules).map(|rule| text(rule, "/record")).collect();
        for object in objects {
            for (place, query) in queries(object) {
                for problem in self.problems(query, &recorded) {
                    faults.push(Fault::new(object.place(), format!("{place}: {problem}")));
                }
            }
        }
    }

    /// Istio takes out of the names the labels that the values for the gateway's chart list.
    ///
    /// # Errors
    ///
    /// When the values cannot be read.
    pub fn check_values(&self, manifests: &Path, faults: &mut Vec<Fault>) -> Result<()> {
        let file = "gateway-values.yaml";
        let values = yaml(&manifests.join(file))?;
        let proxy = text(&values, "/podAnnotations/proxy.istio.io~1config");
        let proxy: Value = yaml_serde::from_str(proxy).with_context(|| file.to_owned())?;
        let listed: BTreeSet<String> =
            list(&proxy, "/extraStatTags").iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect();
        if listed != self.labels {
            let problem =
                format!("extraStatTags: found {listed:?}, expected {:?} as in stats_tags", self.labels);
            faults.push(Fault::new(file, problem));
        }
        Ok(())
    }

    /// What is wrong with a query, where these are recorded by rules.
    pub fn problems(&self, query: &str, recorded: &BTreeSet<&str>) -> Vec<String> {
        let mut selectors = Selectors(Vec::new());
        match parser::parse(query) {
            Ok(expression) => {
                let Ok(_) = walk_expr(&mut selectors, &expression);
            }
            Err(error) => return vec![format!("not PromQL: {error}")],
        }
        let mut problems = Vec::new();
        for selector in selectors.0 {
            let name = selector.name.unwrap_or_default();
            let known =
                recorded.contains(name.as_str()) || OTHERS.contains(&name.as_str()) || self.counts(&name);
            if !known {
                problems.push(format!("{name}: nothing counts that; the filter counts {:?}", self.own));
            }
            if name.starts_with(OWN) {
                let of_labels = selector.matchers.matchers.iter().map(|matcher| &matcher.name);
                for label in of_labels.filter(|label| !self.labels.contains(*label)) {
                    problems.push(format!("{name} has no label {label}, expected one of {:?}", self.labels));
                }
            }
        }
        problems
    }

    fn counts(&self, name: &str) -> bool {
        let of_histogram = || PARTS.iter().find_map(|part| name.strip_suffix(part));
        self.own.contains(name) || of_histogram().is_some_and(|name| self.own.contains(name))
    }
}

struct Selectors(Vec<VectorSelector>);

impl ExprVisitor for Selectors {
    type Error = std::convert::Infallible;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, Self::Error> {
        match expression {
            Expr::VectorSelector(selector) => self.0.push(selector.clone()),
            Expr::MatrixSelector(matrix) => self.0.push(matrix.vs.clone()),
            _ => (),
        }
        Ok(true)
    }
}

/// The literals of a source that begin as the filter's metrics do.
fn names(source: &str) -> Vec<String> {
    let begin = format!("\"{OWN}");
    let rests = source.split(&begin).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0));
    let names = rests.filter(|rest| rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
    names.map(|rest| format!("{OWN}{rest}")).collect()
}

fn rules(object: &Object) -> Vec<&Value> {
    let groups = if object.kind() == "PrometheusRule" { object.list("/spec/groups") } else { &[] };
    groups.iter().flat_map(|group| list(group, "/rules")).collect()
}

/// Every query of an object, with its place.
fn queries(object: &Object) -> Vec<(String, &str)> {
    let of_rules = rules(object).into_iter().map(|rule| {
        let name = [text(rule, "/alert"), text(rule, "/record")].concat();
        (format!("{name}: expr"), text(rule, "/expr"))
    });
    let triggers = if object.kind() == "ScaledObject" { object.list("/spec/triggers") } else { &[] };
    let of_triggers = triggers.iter().enumerate();
    let of_triggers = of_triggers.map(|(number, trigger)| {
        (format!("spec.triggers[{number}].metadata.query"), text(trigger, "/metadata/query"))
    });
    of_rules.chain(of_triggers).collect()
}

/// Reads a file of YAML.
///
/// # Errors
///
/// When it cannot be read, or is none.
pub fn yaml(path: &Path) -> Result<Value> {
    let read = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    yaml_serde::from_str(&read).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, expected: &[&str]) {
        let metrics = Metrics {
            own: ["predictgate_requests", "predictgate_time_ms"].map(str::to_owned).into(),
            labels: ["model".to_owned()].into(),
        };
        let problems = metrics.problems(query, &BTreeSet::from(["a:b"]));
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for (problem, expected) in problems.iter().zip(expected) {
            assert!(problem.contains(expected), "{problem}");
        }
    }

    #[test]
    fn only_what_is_counted_may_be_asked_for() {
        check(r#"sum by (model) (rate(predictgate_requests{model="a"}[5m])) / a:b > 1"#, &[]);
        check("rate(predictgate_time_ms_sum[1m])", &[]);
        check("rate(predictgate_request[5m])", &["predictgate_request: nothing counts that"]);
        check(r#"predictgate_requests{modell="a"}"#, &["no label modell"]);
        check("sum(", &["not PromQL"]);
    }

    #[test]
    fn names_stand_in_the_literals_of_the_source() {
        let source = r#"tagged(&[("model", m)], "predictgate_requests"); // "predictgate_ {}""#;
        assert_eq!(names(source), ["predictgate_requests"]);
    }
}
