//! The tiers of tests, from the plain library to the real thing.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Result, anyhow};
use clap::ValueEnum;

use crate::project::Project;
use crate::report::{Ran, Report, Unable};
use crate::run::{is_unavailable, unavailable};
use crate::{cases, fuzz, image, istiod, manifests, node, tools, wasm};

/// What needs nothing but a native Rust.
const UNIT: [&str; 12] = [
    "-p",
    "predictgate",
    "-p",
    "model-server",
    "-p",
    "predictgate-fuzz",
    "-p",
    "predictgate-judge",
    "-p",
    "predictgate-envoy-bench",
    "-p",
    "xtask",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tier {
    /// The library, the model server and these commands, natively; replays what fuzzing has found
    Unit,
    /// The library's own tests as wasm32, in Node
    Wasm32,
    /// How the library reads 200,000 made-up messages, against how libprotobuf does
    Judge,
    /// The manifests of istio/: by types, by CRDs where they are at hand, and among themselves
    Manifests,
    /// The filter as an OCI image, in a real registry
    Image,
    /// The built module in a host that scripts what Envoy does
    Abi,
    /// The built module in a real Envoy, before the native model server
    Envoy,
    /// The manifests of istio/ in a real istiod, which configures a real Envoy
    Istio,
    /// The scrape configuration, the rules and the dashboard of envoy/prometheus in a real Prometheus that scrapes real
    /// Envoys
    Prometheus,
    /// The built module in a real Envoy before real TensorFlow, called by its official client
    Tensorflow,
}

impl Tier {
    pub fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Wasm32 => "wasm32",
            Self::Judge => "judge",
            Self::Manifests => "manifests",
            Self::Image => "image",
            Self::Abi => "abi",
            Self::Envoy => "envoy",
            Self::Istio => "istio",
            Self::Prometheus => "prometheus",
            Self::Tensorflow => "tensorflow",
        }
    }
}

/// What tests and the demo are given, each got once and when first asked for.
pub struct Parts<'a> {
    project: &'a Project,
    module: Option<Got>,
    decision_log_module: Option<Got>,
    envoy: Option<Got>,
    tensorflow: Option<Got>,
}

/// The path, or whether this machine lacks it and in what words.
type Got = Result<PathBuf, (bool, String)>;

impl<'a> Parts<'a> {
    pub fn of(project: &'a Project) -> Self {
        Self { project, module: None, decision_log_module: None, envoy: None, tensorflow: None }
    }

    pub fn module(&mut self) -> Result<PathBuf> {
        get(&mut self.module, || wasm::build(self.project))
    }

    fn decision_log_module(&mut self) -> Result<PathBuf> {
        get(&mut self.decision_log_module, || wasm::build_with_decision_log(self.project))
    }

    pub fn envoy(&mut self) -> Result<PathBuf> {
        get(&mut self.envoy, || tools::envoy(self.project))
    }

    fn tensorflow(&mut self) -> Result<PathBuf> {
        get(&mut self.tensorflow, || tools::tensorflow(self.project))
    }

    /// Tells `command` by its environment where the built module and an Envoy are.
    pub fn hand_to(&mut self, command: &mut Command) -> Result<()> {
        command.env("PREDICTGATE_WASM", self.module()?).env("PREDICTGATE_ENVOY", self.envoy()?);
        Ok(())
    }

    /// Tells `command` besides where the module is that logs its decisions.
    pub fn hand_decision_log_to(&mut self, command: &mut Command) -> Result<()> {
        self.hand_to(command)?;
        command.env("PREDICTGATE_DECISION_LOG_WASM", self.decision_log_module()?);
        Ok(())
    }

    /// Tells `command` besides where a Python with TensorFlow is.
    pub fn hand_tensorflow_to(&mut self, command: &mut Command) -> Result<()> {
        self.hand_to(command)?;
        command.env("PREDICTGATE_PYTHON", self.tensorflow()?);
        Ok(())
    }
}

fn get(kept: &mut Option<Got>, make: impl FnOnce() -> Result<PathBuf>) -> Result<PathBuf> {
    let got =
        kept.get_or_insert_with(|| make().map_err(|error| (is_unavailable(&error), format!("{error:#}"))));
    match got {
        Ok(path) => Ok(path.clone()),
        Err((true, why)) => Err(unavailable(why.clone())),
        Err((false, why)) => Err(anyhow!("{why}")),
    }
}

/// Runs `asked`, or every tier, and prints a table.
///
/// For a tier that was asked for by name, not being able to run is a failure; in CI it is, too, but for one that needs what
/// these commands do not install.
pub fn test(project: &Project, asked: &[Tier]) -> ExitCode {
    let all = asked.is_empty();
    let mut report = Report::new(match (all, is_ci()) {
        (true, false) => Unable::LeavesOut,
        (true, true) => Unable::FailsWhereItCouldBeHad,
        (false, _) => Unable::Fails,
    });
    let mut parts = Parts::of(project);
    for &tier in if all { Tier::value_variants() } else { asked } {
        report.tests(tier.name(), || run(project, tier, &mut parts));
    }
    report.close()
}

fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"))
}

/// Runs one tier.
///
/// # Errors
///
/// Fails when the tier cannot be run; a test that fails is no error but a case that failed.
pub fn run(project: &Project, tier: Tier, parts: &mut Parts<'_>) -> Result<Ran> {
    let test = |arguments: &[&str]| {
        let mut command = project.cargo(&["test", "--no-fail-fast"]);
        command.args(arguments);
        command
    };
    let command = match tier {
        Tier::Unit => test(&UNIT),
        Tier::Wasm32 => return node::test(project),
        Tier::Judge => return fuzz::judge(project, "200000"),
        Tier::Manifests => return manifests::test(project),
        Tier::Image => return image::test(project, parts),
        Tier::Abi => {
            let mut command = test(&["-p", "predictgate-abi"]);
            command.env("PREDICTGATE_WASM", parts.module()?);
            command
        }
        Tier::Envoy => {
            let mut command = test(&["-p", "predictgate-e2e", "--test", "envoy"]);
            parts.hand_decision_log_to(&mut command)?;
            command
        }
        Tier::Istio => {
            let mut command = test(&["-p", "predictgate-istio"]);
            command.env("PREDICTGATE_ISTIOD", istiod::istiod(project)?);
            parts.hand_to(&mut command)?;
            command
        }
        Tier::Prometheus => {
            let mut command = test(&["-p", "predictgate-e2e", "--test", "prometheus"]);
            command.env("PREDICTGATE_PROMETHEUS", tools::prometheus(project)?);
            parts.hand_to(&mut command)?;
            command
        }
        Tier::Tensorflow => {
            let mut command = test(&["-p", "predictgate-e2e", "--test", "tensorflow", "--test", "verify"]);
            parts.hand_tensorflow_to(&mut command)?;
            command
        }
    };
    cases::of_cargo(project, &format!("testing {}", tier.name()), command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_made_once_even_when_it_cannot_be_had() {
        let mut kept = None;
        let first = get(&mut kept, || Err(crate::run::unavailable("none here"))).unwrap_err();
        let second = get(&mut kept, || Ok(PathBuf::from("made again"))).unwrap_err();
        assert!(is_unavailable(&first) && is_unavailable(&second));
        assert_eq!(second.to_string(), "none here");
    }
}
