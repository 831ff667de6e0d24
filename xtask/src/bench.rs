//! Measures what the filter costs, and accepts what it costs now.

use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result};

use crate::project::Project;
use crate::run::Step;
use crate::tiers::Parts;
use crate::wasm;

/// Builds the filter and the benchmark, gets Envoy, runs the benchmark on this terminal and gives its exit code.
///
/// # Errors
///
/// Fails when a part cannot be had or the benchmark cannot be built or started.
pub fn bench(project: &Project, arguments: &[String]) -> Result<ExitCode> {
    let bench = ["-p", "predictgate-envoy-bench"];
    let mut build = project.cargo(&["build"]);
    build.args(bench);
    Step::new("building the benchmark", build).run(&project.logs())?;
    let mut command = project.cargo(&["run", "--quiet"]);
    command.args(bench).arg("--").args(arguments);
    Parts::of(project).hand_to(&mut command)?;
    let status = command.stdin(Stdio::null()).status().context("cannot start the benchmark")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Records the calls, the fuel and the size of the built module as accepted, for the tier `abi`.
///
/// # Errors
///
/// Fails when the module cannot be built or measured.
pub fn accept(project: &Project) -> Result<()> {
    let module = wasm::build(project)?;
    let mut command = project.cargo(&["test", "-p", "predictgate-abi", "--test", "filter"]);
    command.args(["gate::the_module_costs_what_was_accepted", "--", "--exact", "--nocapture"]);
    command.env("PREDICTGATE_WASM", module).env("PREDICTGATE_ACCEPT", "1");
    let said = Step::new("measuring the module", command).run(&project.logs())?;
    for line in said.lines().filter(|line| line.contains(" fuel, ") || line.ends_with(" bytes")) {
        println!("{line}");
    }
    println!("accepted: tests/abi/tests/filter/gate.toml");
    Ok(())
}
