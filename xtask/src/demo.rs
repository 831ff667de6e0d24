//! Shows the filter at work.

use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::project::Project;
use crate::run::Step;
use crate::tiers::Parts;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// The native model servers of this project
    #[default]
    ModelServer,
    /// Real TensorFlow behind the API of TensorFlow Serving
    Tensorflow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Two versions of a model, chosen by what a request asks for
    Quickstart,
    /// A canary whose weight is raised and put back while users call
    Canary,
    /// A greedy tenant beside a modest one, each within its limits
    RateLimit,
    /// A canary that goes bad, is ejected, tried and brought back, and then rolled back
    Ejection,
}

/// What is shown.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Show {
    /// The folder of envoy/ that is shown; without it all are, one after the other and briefly
    #[arg(long, value_enum)]
    pub scenario: Option<Scenario>,
    /// What answers
    #[arg(long, value_enum, default_value_t)]
    pub backend: Backend,
}

/// Gets all parts, runs the demo on this terminal and gives its exit code: 0 when it showed what it should.
///
/// # Errors
///
/// Fails when a part cannot be had or the demo cannot be built or started.
pub fn demo(project: &Project, show: Show, arguments: &[String], parts: &mut Parts<'_>) -> Result<ExitCode> {
    let demo = ["-p", "predictgate-e2e", "--bin", "demo"];
    let mut command = project.cargo(&["run", "--quiet"]);
    command.args(demo).arg("--");
    if let Some(scenario) = show.scenario.and_then(|scenario| scenario.to_possible_value()) {
        command.args(["--scenario", scenario.get_name()]);
    }
    match show.backend {
        Backend::ModelServer => parts.hand_to(&mut command)?,
        Backend::Tensorflow => {
            parts.hand_tensorflow_to(&mut command)?;
            command.args(["--backend", "tensorflow"]);
        }
    }
    command.args(arguments);
    let mut build = project.cargo(&["build"]);
    build.args(demo);
    Step::new("building the demo", build).run(&project.logs())?;
    let status = command.stdin(Stdio::null()).status().context("cannot start the demo")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
