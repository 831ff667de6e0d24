//! Holds the reading of model identity against the real libprotobuf.
//!
//! The scanner is right when it reads what the server reads, whatever the bytes. So the judge makes messages
//! up, asks libprotobuf in a process of its own (`fuzz/oracle`), and demands the same answer of the scanner:
//! whole, in pieces, with an identity that the headers named, and rewritten.

mod cases;
mod dice;
mod judge;
mod message;
mod minimise;
mod oracle;
mod rewrite;
mod run;
mod scan;
mod spoil;
mod writer;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand, ValueEnum};
use predictgate::identity::Layout;

use crate::dice::Dice;
use crate::message::{Message, Source};
use crate::oracle::Oracle;
use crate::run::{Finding, MOST_FINDINGS, Plan};

/// Holds the reading of model identity against the real libprotobuf
///
/// Builds fuzz/oracle with g++ and protoc into target/oracle when it is not there.
#[derive(Parser)]
#[command(arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compare the readings of many made-up messages, and of the test cases; exits with 1 when any differ
    Run {
        /// How many
        #[arg(long, default_value_t = 200_000)]
        messages: u64,
        /// Decides what is made up
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// The number of the first message: a message depends on the seed and its number alone
        #[arg(long, default_value_t = 0)]
        first: u64,
        /// How many cores to use; all by default
        #[arg(long)]
        jobs: Option<usize>,
    },
    /// Show how both read one message
    Read {
        layout: LayoutName,
        /// The message in hexadecimal, without the gRPC frame
        hex: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum LayoutName {
    /// `model_spec` is field 1: PredictRequest and most others
    ModelSpec,
    /// `tasks[0].model_spec`: MultiInferenceRequest
    FirstTask,
    /// `model_name` and `model_version` are fields 1 and 2: ModelInferRequest
    NameAndVersion,
}

impl From<LayoutName> for Layout {
    fn from(name: LayoutName) -> Self {
        match name {
            LayoutName::ModelSpec => Self::ModelSpec,
            LayoutName::FirstTask => Self::FirstTask,
            LayoutName::NameAndVersion => Self::NameAndVersion,
        }
    }
}

fn main() -> ExitCode {
    run(Cli::parse().command).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> Result<ExitCode> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    let program = oracle::build(&target.join("oracle"))?;
    let mut oracle = Oracle::start(&program)?;
    match command {
        Command::Run { messages, seed, first, jobs } => {
            let jobs =
                jobs.or_else(|| thread::available_parallelism().ok().map(NonZeroUsize::get)).unwrap_or(1);
            let plan = Plan { seed, first, messages, jobs };
            let cases = judge_cases(&mut oracle)?;
            let started = Instant::now();
            let tally = run::run(plan, &program)?;
            let seconds = started.elapsed().as_secs_f64();
            println!(
                "{} messages in {seconds:.1} s ({:.0} a second), seed {seed}, and {cases} cases: libprotobuf \
                 accepts {}, of which {} name a model and {} contradict themselves, \
                 and reads {} as they were rewritten; {} differ",
                tally.messages,
                tally.messages as f64 / seconds,
                tally.accepted,
                tally.named,
                tally.contradicted,
                tally.rewritten,
                tally.findings.len()
            );
            for finding in tally.findings.iter().take(MOST_FINDINGS) {
                show(finding, seed, &mut oracle)?;
            }
            Ok(if tally.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Read { layout, hex } => {
            let bytes = cases::unhex(&hex).context("the message is not hexadecimal")?;
            read(&Message { layout: layout.into(), bytes }, &mut oracle)
        }
    }
}

/// The number of cases, all of which agree.
fn judge_cases(oracle: &mut Oracle) -> Result<usize> {
    let source = Source::new();
    let read = oracle.read(source.cases())?;
    for (message, oracle) in source.cases().iter().zip(&read) {
        let compared = judge::compare(message, oracle.as_ref(), &mut Dice::of_message(0, 0));
        if let Err(difference) = compared {
            anyhow::bail!("a test case: {message}\n  libprotobuf: {oracle:?}\n  scanner: {difference:?}");
        }
    }
    Ok(read.len())
}

fn show(finding: &Finding, seed: u64, oracle: &mut Oracle) -> Result<()> {
    let Finding { number, message, oracle: read, difference } = finding;
    println!("\nseed {seed} message {number}: {message}");
    println!("  libprotobuf: {read:?}");
    println!("  wanted:      {}", difference.demand);
    println!("  scanner:     {}", difference.found);
    println!("  shorter:     {}", minimise::minimise(message, oracle)?);
    println!("  again:       judge run --seed {seed} --first {number} --messages 1");
    Ok(())
}

fn read(message: &Message, oracle: &mut Oracle) -> Result<ExitCode> {
    let read = oracle.read(std::slice::from_ref(message))?.pop().flatten();
    println!("libprotobuf: {read:?}");
    println!("scanner:     {:?}", scan::whole(scan::scanner(message), &scan::framed(message)));
    Ok(match judge::compare(message, read.as_ref(), &mut Dice::of_message(0, 0)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(difference) => {
            println!("wanted {}, found {}", difference.demand, difference.found);
            ExitCode::FAILURE
        }
    })
}
