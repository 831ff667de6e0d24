//! Looks for bytes for which something does not hold, and keeps those that show how far the looking went.

mod corpus;
mod libfuzzer;

use std::process::ExitCode;

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand};
use predictgate_fuzz::TARGETS;

/// Coverage-guided runs of the fuzz targets, and replay of their corpora
///
/// A run compiles the target for libFuzzer into target/fuzz; that needs a C++ compiler (g++ or clang++), no
/// nightly Rust.
#[derive(Parser)]
#[command(arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Look for bytes that break a target; exits with 1 when it finds any
    ///
    /// It begins with fuzz/corpus/TARGET and keeps what it finds worth keeping in target/fuzz/corpus/TARGET.
    Run {
        #[arg(value_parser = targets())]
        target: String,
        /// How often to run the target
        #[arg(long, default_value_t = 1_000_000)]
        executions: u64,
        /// Decides how bytes are changed
        #[arg(long, default_value_t = 1)]
        seed: u32,
    },
    /// Run targets on their corpora, or on given files
    Replay {
        /// All by default
        #[arg(value_parser = targets())]
        target: Option<String>,
        /// Files instead of the corpus
        files: Vec<std::path::PathBuf>,
    },
    /// Replace fuzz/corpus/TARGET by the few inputs of it and of the last runs that reach as much code
    ///
    /// Inputs that were named by hand stay.
    Minimise {
        #[arg(value_parser = targets())]
        target: String,
    },
}

fn targets() -> PossibleValuesParser {
    PossibleValuesParser::new(TARGETS.map(|(name, _)| name))
}

fn main() -> ExitCode {
    run(Cli::parse().command).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run { target, executions, seed } => libfuzzer::run(&target, executions, seed),
        Command::Minimise { target } => libfuzzer::minimise(&target).map(|()| ExitCode::SUCCESS),
        Command::Replay { target, files } => {
            for (name, run) in TARGETS {
                if target.as_ref().is_some_and(|target| target != name) {
                    continue;
                }
                let files = if files.is_empty() { corpus::files(name)? } else { files.clone() };
                for file in &files {
                    // A panic names the file by being the last line before it.
                    eprintln!("{}", file.display());
                    run(&std::fs::read(file)?);
                }
                println!("{name}: {} inputs", files.len());
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
