//! What takes longer than a minute: the same laws as the tests', on many more cases.

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;

use crate::project::Project;
use crate::report::{Ran, Report, Unable};
use crate::tiers::Parts;
use crate::{cases, fuzz};

/// The times are of two cores that have nothing else to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Soak {
    /// How the library reads 10,000,000 made-up messages, against how libprotobuf does (5 minutes)
    Judge,
    /// 50,000,000 messages, guided by coverage: the scanner against prost (25 minutes)
    FuzzScanner,
    /// 10,000,000 texts, guided by coverage: the parser of configurations (10 minutes)
    FuzzConfig,
    /// 10,000,000 sets of headers, guided by coverage (5 minutes)
    FuzzHeaders,
    /// 10,000,000 requests from headers to end, guided by coverage (10 minutes)
    FuzzExchange,
    /// Workers that share a store, interleaved in 100,000 ways for each law (an hour or more)
    Simulation,
    /// An Envoy whose servers fail one request in a hundred at random, and one caller that makes every mistake: nothing
    /// may be ejected (10 minutes)
    Healthy,
    /// Limits in an Envoy that is saturated for half a minute, and a million tenants (3 minutes)
    Limits,
    /// What is promised of times, such as half a second from a canary's twentieth failure to its last request (2 minutes)
    Times,
}

/// Tells tests that the machine has nothing else to do, so that they allow no more than what is promised.
const IDLE: &str = "PREDICTGATE_IDLE";

/// Runs `asked`, or every part, and prints a table.
///
/// For a part that was asked for by name, not being able to run is a failure.
pub fn soak(project: &Project, asked: &[Soak]) -> ExitCode {
    let all = asked.is_empty();
    let mut report = Report::new(if all { Unable::LeavesOut } else { Unable::Fails });
    for &part in if all { Soak::value_variants() } else { asked } {
        report.tests(&part.name(), || run(project, part));
    }
    report.close()
}

impl Soak {
    /// As it is typed.
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

fn run(project: &Project, part: Soak) -> Result<Ran> {
    match part {
        Soak::Judge => fuzz::judge(project, "10000000"),
        Soak::FuzzScanner => fuzz::fuzz(project, "scanner", "50000000"),
        Soak::FuzzConfig => fuzz::fuzz(project, "config", "10000000"),
        Soak::FuzzHeaders => fuzz::fuzz(project, "headers", "10000000"),
        Soak::FuzzExchange => fuzz::fuzz(project, "exchange", "10000000"),
        Soak::Simulation => {
            // Not optimised, so that arithmetic is checked.
            let mut command = project.cargo(&["test", "-p", "predictgate", "--test", "simulation"]);
            command.env("PREDICTGATE_SIMULATION_RUNS", "100000");
            cases::of_cargo(project, "simulating", command)
        }
        Soak::Healthy => {
            let tests = ["test", "-p", "predictgate-e2e", "--test", "envoy", "ejection_wrong::"];
            let mut command = project.cargo(&tests);
            Parts::of(project).hand_to(&mut command)?;
            command.env("PREDICTGATE_HEALTHY_SECONDS", "600").env(IDLE, "1");
            cases::of_cargo(project, "calling", command)
        }
        Soak::Limits => {
            let mut command = project.cargo(&["test", "-p", "predictgate-e2e", "--test", "envoy", "limits"]);
            // One after the other, each with the machine for itself; what they print is tables.
            command.args(["--", "--nocapture", "--test-threads", "1"]);
            Parts::of(project).hand_decision_log_to(&mut command)?;
            command.env("PREDICTGATE_SATURATION_SECONDS", "30").env("PREDICTGATE_TENANTS", "1000000");
            command.env(IDLE, "1");
            cases::of_cargo_aloud(project, "saturating", command)
        }
        Soak::Times => {
            let mut command = project.cargo(&["test", "-p", "predictgate-e2e", "--test", "envoy"]);
            command.args(["--", "--nocapture", "--test-threads", "1", "ejection::", "guard::"]);
            command.args(["a_changed_weight_acts", "ten_thousand_models"]);
            Parts::of(project).hand_to(&mut command)?;
            command.env(IDLE, "1");
            cases::of_cargo_aloud(project, "measuring times", command)
        }
    }
}
