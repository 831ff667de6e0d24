//! The side-by-side benchmark: one Envoy worker on a core of its own, callers and model servers on another, the same
//! traffic through every variant in turn.
//!
//! Rounds are interleaved, so that what the machine does to one it does to all, and a second copy of the variant
//! without a filter tells how far two equal things differ: beyond 5 % the run rejects itself.
//! `cargo xtask bench` builds what it needs and runs it.

mod bootstrap;
mod budget;
mod curves;
mod envoy;
mod load;
mod machine;
mod measure;
mod plot;
mod report;
mod request;
mod results;
mod servers;
mod variant;
mod wire;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};

use crate::envoy::Cores;
use crate::load::Load;
use crate::measure::Bench;
use crate::results::Results;
use crate::variant::{Modules, Variant};

/// Measure what the filter costs Envoy, beside what one would use instead (twenty minutes)
///
/// Without --variant, --size and --part everything is measured, and docs/benchmarks and README.md are written; else, and with
/// --quick, the results go to target/bench. Exits with 2 when the run rejects itself, since two equal variants
/// differed by more than 5 %, and with 1 when a figure is above the budget.
#[derive(Parser)]
#[command(bin_name = "cargo xtask bench")]
struct Options {
    /// Fewer and shorter rounds: three minutes, for a look
    #[arg(long)]
    quick: bool,
    /// Only these, beside the two without a filter; may be given several times
    #[arg(long = "variant", value_enum, value_name = "NAME")]
    variants: Vec<Variant>,
    /// Only bodies of this size; may be given several times
    #[arg(long = "size", value_enum, value_name = "SIZE")]
    sizes: Vec<Size>,
    /// Only these parts; with --variant or --size just `cpu` unless given; may be given several times
    #[arg(long = "part", value_enum, value_name = "PART")]
    parts: Vec<Part>,
    /// Rounds for each size (default 25, 5 with --quick)
    #[arg(long)]
    rounds: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Size {
    #[value(name = "1k")]
    K1,
    #[value(name = "64k")]
    K64,
    #[value(name = "1m")]
    M1,
    #[value(name = "4m")]
    M4,
}

impl Size {
    pub const fn bytes(self) -> usize {
        match self {
            Self::K1 => 1 << 10,
            Self::K64 => 64 << 10,
            Self::M1 => 1 << 20,
            Self::M4 => 4 << 20,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::K1 => "1 KB",
            Self::K64 => "64 KB",
            Self::M1 => "1 MB",
            Self::M4 => "4 MB",
        }
    }

    /// As many as take a third of a second or so: whatever else the machine does lasts longer than a few of them,
    /// and is then the same for all variants of a round.
    const fn requests(self) -> usize {
        match self {
            Self::K1 => 10_000,
            Self::K64 => 4_000,
            Self::M1 => 400,
            Self::M4 => 100,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// CPU time of Envoy for a request, and requests per second
    Cpu,
    /// From request to answer at 2,000 requests per second
    Latency,
    /// At rest, for each worker, and with 32 messages of 4 MB at once
    Memory,
    /// How costs grow with models, tenants, routes and workers
    Curves,
    /// What models cost at rest; not with --quick unless asked for, as rest comes slowly
    Idle,
}

/// How much is measured.
pub struct Plan {
    pub variants: Vec<Variant>,
    pub sizes: Vec<Size>,
    pub parts: Vec<Part>,
    pub rounds: usize,
    /// Of the requests of a round.
    pub share: f64,
    pub quick: bool,
}

impl Plan {
    fn of(options: &Options) -> Self {
        let all = || Variant::value_variants().to_vec();
        let mut variants = vec![Variant::NoFilter, Variant::NoFilterAgain];
        let asked = if options.variants.is_empty() { all() } else { options.variants.clone() };
        variants.extend(asked.into_iter().filter(|it| *it > Variant::NoFilterAgain));
        variants.dedup();
        let sizes =
            if options.sizes.is_empty() { Size::value_variants().to_vec() } else { options.sizes.clone() };
        let some = !options.variants.is_empty() || !options.sizes.is_empty();
        let parts = match (options.parts.is_empty(), some) {
            (false, _) => options.parts.clone(),
            (true, true) => vec![Part::Cpu],
            (true, false) if options.quick => vec![Part::Cpu, Part::Latency, Part::Memory, Part::Curves],
            (true, false) => Part::value_variants().to_vec(),
        };
        let quick = options.quick;
        let rounds = options.rounds.unwrap_or(if quick { 5 } else { 25 }).max(1);
        Self { variants, sizes, parts, rounds, share: if quick { 0.3 } else { 1.0 }, quick }
    }

    /// Whether nothing was left out, so that the results may be published.
    fn is_whole(&self) -> bool {
        !self.quick
            && self.variants.len() == Variant::value_variants().len()
            && self.sizes.len() == Size::value_variants().len()
            && self.parts.len() == Part::value_variants().len()
    }

    pub fn requests(&self, size: Size) -> usize {
        ((size.requests() as f64 * self.share) as usize).max(40)
    }
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    let plan = Plan::of(&Options::parse());
    let envoy = given("PREDICTGATE_ENVOY", "the Envoy binary")?;
    let module = given("PREDICTGATE_WASM", "the built filter")?;
    let all = machine::cores()?;
    let [load, proxy, ..] = all[..] else {
        anyhow::bail!("{} core, expected two: one for Envoy, one for callers and servers", all.len());
    };
    let cores = Cores { envoy: vec![proxy], load: vec![load] };
    machine::pin(&cores.load)?;
    let directory = tempfile::tempdir()?;
    let compiled = |name: &str, text: &str| -> Result<PathBuf> {
        let path = directory.path().join(name);
        std::fs::write(&path, wat::parse_str(text)?)?;
        Ok(path)
    };
    let noop = compiled("noop.wasm", include_str!("noop.wat"))?;
    let calls = compiled("calls.wasm", include_str!("calls.wat"))?;
    let mut results = Results::new(machine::describe(&envoy, all.len())?);
    results.module_bytes = std::fs::metadata(&module)?.len();
    let modules = Modules { predictgate: &module, noop: &noop, calls: &calls };
    let mut bench = Bench { envoy: &envoy, modules, all: &all, cores, load: Load::start()?, plan: &plan };
    for part in &plan.parts {
        match part {
            Part::Cpu => bench.cpu(&mut results)?,
            Part::Latency => bench.latency(&mut results)?,
            Part::Memory => bench.memory(&mut results)?,
            Part::Curves => bench.curves(&mut results)?,
            Part::Idle => bench.idle(&mut results)?,
        }
    }
    let bars = budget::bars(&results);
    if !bars.is_empty() {
        println!("\n{}", report::bars(&bars));
    }
    let rejected = results.rejected();
    let is_published = plan.is_whole() && rejected.is_empty();
    let folder = if is_published { "docs/benchmarks" } else { "target/bench" };
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    report::write(&results, &bars, &root.join(folder))?;
    if is_published {
        report::write_readme(&results, &root.join("README.md"))?;
    }
    println!("written: {folder}");
    let slowed = results.slowed();
    if 0 < slowed {
        let rows = results.cpu.len();
        println!(
            "requests per second say nothing in {slowed} of {rows} rows: Envoy's core worked less than 90 %"
        );
    }
    for why in &rejected {
        println!("rejected: {why}");
    }
    Ok(match () {
        () if !rejected.is_empty() => ExitCode::from(2),
        () if bars.iter().any(|bar| !bar.holds()) => ExitCode::FAILURE,
        () => ExitCode::SUCCESS,
    })
}

fn given(variable: &str, what: &str) -> Result<PathBuf> {
    let path = env::var_os(variable).map(PathBuf::from);
    let path = path
        .with_context(|| format!("{variable} ({what}) is not set: run `cargo xtask bench`, which sets it"))?;
    ensure!(path.is_file(), "{variable} names {}, which is not a file", path.display());
    Ok(path)
}
