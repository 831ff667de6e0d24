//! The tiers of tests, from the plain library to the real thing.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Result, anyhow, ensure};
use clap::ValueEnum;

use crate::project::Project;
use crate::report::{Cases, Report, Unable};
use crate::run::{Step, Unavailable, is_unavailable};
use crate::{tools, wasm};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tier {
    /// The library, the model server and these commands, natively
    Unit,
    /// The built module in a host that scripts what Envoy does
    Abi,
    /// The built module in a real Envoy, before the native model server
    Envoy,
    /// The same before real TensorFlow, called by its official client
    Tensorflow,
}

impl Tier {
    pub fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Abi => "abi",
            Self::Envoy => "envoy",
            Self::Tensorflow => "tensorflow",
        }
    }

    fn cargo_test(self) -> &'static [&'static str] {
        match self {
            Self::Unit => &["-p", "predictgate", "-p", "model-server", "-p", "xtask"],
            Self::Abi => &["-p", "predictgate-abi"],
            Self::Envoy => &["-p", "predictgate-e2e", "--test", "envoy"],
            Self::Tensorflow => &["-p", "predictgate-e2e", "--test", "tensorflow"],
        }
    }
}

/// What tests and the demo are given, each got once and when first asked for.
pub struct Parts<'a> {
    project: &'a Project,
    module: Option<Got>,
    envoy: Option<Got>,
    tensorflow: Option<Got>,
}

/// The path, or whether this machine lacks it and in what words.
type Got = Result<PathBuf, (bool, String)>;

impl<'a> Parts<'a> {
    pub fn of(project: &'a Project) -> Self {
        Self { project, module: None, envoy: None, tensorflow: None }
    }

    pub fn module(&mut self) -> Result<PathBuf> {
        get(&mut self.module, || wasm::build(self.project))
    }

    pub fn envoy(&mut self) -> Result<PathBuf> {
        get(&mut self.envoy, || tools::envoy(self.project))
    }

    fn tensorflow(&mut self) -> Result<PathBuf> {
        get(&mut self.tensorflow, || tools::tensorflow(self.project))
    }

    /// Tells `command` by its environment where the parts are that the tier needs.
    pub fn hand_to(&mut self, command: &mut Command, tier: Tier) -> Result<()> {
        if tier != Tier::Unit {
            command.env("PREDICTGATE_WASM", self.module()?);
        }
        if matches!(tier, Tier::Envoy | Tier::Tensorflow) {
            command.env("PREDICTGATE_ENVOY", self.envoy()?);
        }
        if tier == Tier::Tensorflow {
            command.env("PREDICTGATE_PYTHON", self.tensorflow()?);
        }
        Ok(())
    }
}

fn get(kept: &mut Option<Got>, make: impl FnOnce() -> Result<PathBuf>) -> Result<PathBuf> {
    let got =
        kept.get_or_insert_with(|| make().map_err(|error| (is_unavailable(&error), format!("{error:#}"))));
    match got {
        Ok(path) => Ok(path.clone()),
        Err((true, why)) => Err(Unavailable(why.clone()).into()),
        Err((false, why)) => Err(anyhow!("{why}")),
    }
}

/// Runs `asked`, or every tier, and prints a table.
///
/// In CI, and for a tier that was asked for by name, not being able to run is a failure.
pub fn test(project: &Project, asked: &[Tier]) -> ExitCode {
    let all = asked.is_empty();
    let mut report = Report::new(if all && !is_ci() { Unable::LeavesOut } else { Unable::Fails });
    let mut parts = Parts::of(project);
    for &tier in if all { Tier::value_variants() } else { asked } {
        report.tests(tier.name(), || run(project, tier, &mut parts));
    }
    report.close()
}

fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"))
}

/// Runs one tier and gives the cases and, where it failed, why.
pub fn run(project: &Project, tier: Tier, parts: &mut Parts<'_>) -> Result<(Cases, Option<String>)> {
    let mut command = project.cargo(&["test", "--no-fail-fast"]);
    command.args(tier.cargo_test());
    parts.hand_to(&mut command, tier)?;
    let what = format!("testing {}", tier.name());
    let finished = Step::new(&what, command).attempt()?;
    let cases = count(&finished.output);
    if finished.succeeded() {
        ensure!(cases != Cases::default(), "{what}: no test ran");
        return Ok((cases, None));
    }
    let failure = match failures(&finished.output) {
        Some(said) => format!("{}\n{said}{}", finished.ended(), finished.saved(&what, &project.logs())),
        None => finished.failure(&what, None, &project.logs()),
    };
    Ok((cases, Some(failure)))
}

/// Sums cargo's own lines: `test result: ok. 5 passed; 0 failed; 1 ignored; ...`.
fn count(output: &str) -> Cases {
    let results = output.lines().filter_map(|line| line.strip_prefix("test result: "));
    results.fold(Cases::default(), |sum, result| {
        let number = |what: &str| {
            let before = result.split(what).next().filter(|before| before.len() < result.len());
            before.and_then(|before| before.split(' ').next_back()?.parse().ok()).unwrap_or_default()
        };
        sum + Cases { passed: number(" passed"), failed: number(" failed") }
    })
}

/// What the failing tests of every binary said: it stands far from the end when others ran after them.
fn failures(output: &str) -> Option<String> {
    let mut text = String::new();
    let mut inside = false;
    for line in output.lines() {
        inside = match line {
            "failures:" => true,
            _ if line.starts_with("test result: ") => false,
            _ => inside,
        };
        if inside {
            text.push_str(line);
            text.push('\n');
        }
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 2 tests
test a ... ok
test b ... FAILED

failures:

---- b stdout ----
b says why

failures:
    b

test result: FAILED. 1 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.00s

running 12 tests
test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.31s
a line that says 7 passed and 8 failed
";

    #[test]
    fn the_result_lines_of_all_binaries_are_summed() {
        assert_eq!(count(OUTPUT), Cases { passed: 13, failed: 1 });
        assert_eq!(count("error: could not compile"), Cases::default());
    }

    #[test]
    fn what_failing_tests_said_is_found_wherever_it_stands() {
        let said = failures(OUTPUT).unwrap();
        assert!(said.contains("b says why") && !said.contains("running 12"), "{said}");
        assert_eq!(failures("test result: ok. 1 passed; 0 failed;"), None);
    }

    #[test]
    fn a_part_is_made_once_even_when_it_cannot_be_had() {
        let mut kept = None;
        let first = get(&mut kept, || Err(crate::run::unavailable("none here"))).unwrap_err();
        let second = get(&mut kept, || Ok(PathBuf::from("made again"))).unwrap_err();
        assert!(is_unavailable(&first) && is_unavailable(&second));
        assert_eq!(second.to_string(), "none here");
    }
}
