//! All that must hold before a change is merged.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum as _;

use crate::check::{self, Options};
use crate::demo::{self, Show};
use crate::project::Project;
use crate::report::{Report, Unable};
use crate::run::{Step, output_of};
use crate::tiers::{self, Parts, Tier};
use crate::{tools, wasm};

/// Does every step, also after a failed one, and prints a table. Nothing may be left out but what needs a Go, where there
/// is none.
pub fn ci(project: &Project) -> ExitCode {
    let mut parts = Parts::of(project);
    let mut report = Report::new(Unable::FailsWhereItCouldBeHad);
    report.step("fmt", || fmt(project));
    report.step("clippy", || clippy(project));
    report.step("build", || parts.module().map(drop));
    report.step("clippy wasm32", || wasm::clippy(project));
    for &tier in Tier::value_variants() {
        report.tests(tier.name(), || tiers::run(project, tier, &mut parts));
    }
    report.step("check envoy/", || {
        parts.module()?;
        parts.envoy()?;
        let files = scenarios(project, "envoy.yaml")?;
        check::check(project, &Options { files, envoy: true, must_have_envoy: true })
    });
    report.step("compose files", || compose(project));
    report.step("demo", || demo(project, &mut parts));
    report.close()
}

fn demo(project: &Project, parts: &mut Parts<'_>) -> Result<()> {
    let ended = demo::demo(project, Show::default(), &[], parts)?;
    ensure!(ended == ExitCode::SUCCESS, "the demo did not show what it should");
    Ok(())
}

fn fmt(project: &Project) -> Result<()> {
    component(project, "rustfmt", "fmt")?;
    Step::new("checking the format", project.cargo(&["fmt", "--all", "--check"]))
        .next("cargo fmt --all")
        .run(&project.logs())
        .map(drop)
}

fn clippy(project: &Project) -> Result<()> {
    component(project, "clippy", "clippy")?;
    // The filter cannot be linked natively, but clippy does not link.
    let clippy = project.cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    Step::new("linting", clippy).run(&project.logs()).map(drop)
}

/// A minimal Rust comes without rustfmt and clippy.
fn component(project: &Project, name: &str, subcommand: &str) -> Result<()> {
    if output_of(project.cargo(&[subcommand]).arg("--version")).is_some() {
        return Ok(());
    }
    let mut command = project.command("rustup");
    command.args(["component", "add", name]);
    Step::new(&format!("asking rustup for {name}"), command).run(&project.logs()).map(drop)
}

fn compose(project: &Project) -> Result<()> {
    for file in scenarios(project, "docker-compose.yaml")? {
        let mut command = tools::compose(project)?;
        command.arg("-f").arg(&file).args(["config", "--quiet"]);
        Step::new(&format!("reading {}", file.display()), command).run(&project.logs())?;
    }
    Ok(())
}

/// The file `name` of every folder under `envoy/`, as one would type it in the project's folder.
fn scenarios(project: &Project, name: &str) -> Result<Vec<PathBuf>> {
    env::set_current_dir(project.root()).context("cannot go to the project's folder")?;
    let entries = fs::read_dir("envoy").context("cannot read the folder envoy")?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path().join(name)).collect();
    files.retain(|file| file.exists());
    files.sort();
    ensure!(!files.is_empty(), "found no envoy/*/{name}");
    Ok(files)
}
