//! Shows the filter at work: a shipped scenario in a real Envoy, with real Predict calls.
//!
//! It ends with exit 0 only if everything was as the configuration says, by the numbers of the answers and by
//! what the model servers themselves counted.

mod backend;
mod ejection;
mod plan;
mod report;
mod rollout;
mod steps;
mod tenants;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use backend::Kind;
use steps::Demo;

/// Sends real Predict calls through a real Envoy with the filter, and shows where they went
#[derive(Parser)]
struct Options {
    /// The folder of envoy/ that is shown; without it all are, one after the other and briefly
    #[arg(long, value_enum)]
    scenario: Option<Scenario>,
    /// Who computes the answers
    #[arg(long, value_enum, default_value_t)]
    backend: Kind,
    /// How many users call in the scenario canary
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(1_000..=100_000))]
    users: u32,
    /// How many seconds the modest tenant of the scenario rate-limit is alone, and then beside the greedy one
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// The `base_ejection_time` of the scenario ejection in seconds, to which its other times are in proportion
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    ejection_seconds: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Two versions of a model, chosen by what a request asks for
    Quickstart,
    /// A canary whose weight is raised and put back while users call
    Canary,
    /// A greedy tenant beside a modest one, each within its limits
    RateLimit,
    /// A canary that goes bad, is ejected, tried and brought back, and then rolled back
    Ejection,
}

#[tokio::main]
async fn main() -> ExitCode {
    match show(&Options::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn show(options: &Options) -> Result<ExitCode> {
    match options.scenario {
        None => all(options.backend).await,
        Some(Scenario::Quickstart) => quickstart(options.backend).await,
        Some(Scenario::Canary) => rollout::show(options.backend, options.users as usize).await,
        Some(Scenario::RateLimit) => tenants::show(options.backend, options.seconds).await,
        Some(Scenario::Ejection) => ejection::show(options.backend, options.ejection_seconds).await,
    }
}

/// Shows every scenario as briefly as it can be, also after one that went wrong.
async fn all(backend: Kind) -> Result<ExitCode> {
    let mut wrong = Vec::new();
    for scenario in Scenario::value_variants() {
        let name = scenario.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        println!("\n=== envoy/{name}");
        let ended = match scenario {
            Scenario::Quickstart => quickstart(backend).await?,
            Scenario::Canary => rollout::show(backend, 1_000).await?,
            Scenario::RateLimit => tenants::show(backend, 2).await?,
            Scenario::Ejection if backend == Kind::Tensorflow => {
                println!("   left out: TensorFlow does not fail on demand");
                ExitCode::SUCCESS
            }
            Scenario::Ejection => ejection::show(backend, 1).await?,
        };
        if ended != ExitCode::SUCCESS {
            wrong.push(name);
        }
    }
    if wrong.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("\nNot as the configuration says: {}", wrong.join(", "));
    Ok(ExitCode::FAILURE)
}

async fn quickstart(backend: Kind) -> Result<ExitCode> {
    let mut demo = Demo::start(backend).await?;
    demo.routing().await?;
    demo.explanation().await?;
    demo.refusals().await?;
    demo.spoofing().await?;
    demo.large_tensor().await?;
    demo.bad_update().await?;
    demo.good_update().await?;
    demo.metrics().await?;
    Ok(demo.finish())
}
