//! Configurations as an operator writes them, accepted and refused: `cases/config/*.toml`.

#![allow(clippy::panic, reason = "a test may stop where it stands")]

use std::fs;
use std::path::Path;

use predictgate::config::{self, ConfigError};
use predictgate::policy::Policy;
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[derive(Deserialize)]
struct Cases<T> {
    case: Vec<T>,
}

/// A configuration with errors, and how they are printed.
#[derive(Deserialize)]
struct Bad {
    name: String,
    json: String,
    errors: Vec<String>,
}

/// A configuration without errors, and what of it the filter refuses all the same.
#[derive(Deserialize)]
struct Good {
    name: String,
    json: String,
    #[serde(default)]
    not_yet_supported: Vec<String>,
}

fn cases<T: DeserializeOwned>(file: &str) -> Vec<T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/config").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let cases: Cases<T> = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    cases.case
}

fn lines(result: Result<Policy, Vec<ConfigError>>) -> Vec<String> {
    result.map_or_else(|errors| errors.iter().map(ToString::to_string).collect(), |_| vec![])
}

/// Shows every case that differs, not only the first.
#[track_caller]
fn check(differences: &[String]) {
    assert!(differences.is_empty(), "{} cases differ\n\n{}", differences.len(), differences.join("\n\n"));
}

fn difference(name: &str, found: &[String], expected: &[String]) -> Option<String> {
    let list = |lines: &[String]| lines.join("\n    ");
    (found != expected)
        .then(|| format!("{name}\n  found\n    {}\n  expected\n    {}", list(found), list(expected)))
}

#[test]
fn every_error_of_a_bad_configuration_is_reported_with_its_path() {
    let bad = cases::<Bad>("bad.toml");
    assert!(bad.iter().all(|case| !case.errors.is_empty()), "a bad case has errors");
    let differs = |case: &Bad| difference(&case.name, &lines(config::parse_all(&case.json)), &case.errors);
    check(&bad.iter().filter_map(differs).collect::<Vec<_>>());
}

#[test]
fn what_is_bad_is_never_accepted_by_the_filter_either() {
    for case in cases::<Bad>("bad.toml") {
        let found = lines(config::parse(&case.json));
        assert!(case.errors.iter().all(|error| found.contains(error)), "{}: {found:?}", case.name);
    }
}

#[test]
fn a_good_configuration_is_accepted_but_for_what_is_not_yet_supported() {
    let mut differences = vec![];
    for case in cases::<Good>("good.toml") {
        differences.extend(difference(&case.name, &lines(config::parse_all(&case.json)), &[]));
        let paths = case.not_yet_supported.iter();
        let expected: Vec<_> = paths.map(|path| format!("{path}: not yet supported")).collect();
        differences.extend(difference(&case.name, &lines(config::parse(&case.json)), &expected));
    }
    check(&differences);
}
