//! Shows the filter at work: the quickstart as shipped, in a real Envoy, with real Predict calls.
//!
//! It ends with exit 0 only if everything was as the configuration says, by the numbers of the answers and by
//! what the model servers themselves counted.

mod backend;
mod plan;
mod report;
mod steps;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use backend::Kind;
use steps::Demo;

/// Sends real Predict calls through a real Envoy with the filter, and shows where they went
#[derive(Parser)]
struct Options {
    /// Who computes the answers
    #[arg(long, value_enum, default_value_t)]
    backend: Kind,
}

#[tokio::main]
async fn main() -> ExitCode {
    match show(Options::parse().backend).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn show(backend: Kind) -> Result<ExitCode> {
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
