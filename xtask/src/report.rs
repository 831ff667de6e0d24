//! What became of each step of `test`, `soak` and `ci`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::run::{is_elsewhere, is_unavailable};

/// Test cases, as cargo counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cases {
    pub passed: u64,
    pub failed: u64,
}

impl std::ops::Add for Cases {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { passed: self.passed + other.passed, failed: self.failed + other.failed }
    }
}

/// The test cases that ran and, where some failed, their output.
pub type Ran = (Cases, Option<String>);

pub enum Outcome {
    Passed,
    Failed,
    /// This machine could not do it.
    LeftOut,
}

pub struct Row {
    name: String,
    outcome: Outcome,
    cases: Cases,
    took: Duration,
}

/// What it means that this machine cannot do a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unable {
    LeavesOut,
    /// It fails, but for what these commands cannot install.
    FailsWhereItCouldBeHad,
    Fails,
}

impl Unable {
    fn leaves_out(self, error: &anyhow::Error) -> bool {
        match self {
            Self::LeavesOut => is_unavailable(error),
            Self::FailsWhereItCouldBeHad => is_elsewhere(error),
            Self::Fails => false,
        }
    }
}

pub struct Report {
    unable: Unable,
    rows: Vec<Row>,
}

impl Report {
    pub fn new(unable: Unable) -> Self {
        Self { unable, rows: Vec::new() }
    }

    /// Does a step that has no test cases.
    pub fn step(&mut self, name: &str, step: impl FnOnce() -> Result<()>) {
        self.tests(name, || step().map(|()| (Cases::default(), None)));
    }

    /// Does a step and prints at once why it failed or was left out.
    pub fn tests(&mut self, name: &str, step: impl FnOnce() -> Result<Ran>) {
        let started = Instant::now();
        let (outcome, cases) = match step() {
            Ok((cases, None)) => (Outcome::Passed, cases),
            Ok((cases, Some(failure))) => {
                eprintln!("{name} failed: {failure}\n");
                (Outcome::Failed, cases)
            }
            Err(error) if self.unable.leaves_out(&error) => {
                eprintln!("{name} is left out: {error:#}\n");
                (Outcome::LeftOut, Cases::default())
            }
            Err(error) => {
                eprintln!("{name} failed: {error:#}\n");
                (Outcome::Failed, Cases::default())
            }
        };
        self.rows.push(Row { name: name.to_owned(), outcome, cases, took: started.elapsed() });
    }

    /// Prints the table and, alone on the last line, the sum of the test cases.
    pub fn close(self) -> ExitCode {
        println!("\n{}", self.table());
        let cases = self.cases();
        println!("{} passed, {} failed", cases.passed, cases.failed);
        if self.failed().next().is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// A step that failed without a failing test case counts as one, so that the sum never hides it.
    fn cases(&self) -> Cases {
        let bare = self.failed().filter(|row| row.cases.failed == 0).count();
        let bare = Cases { passed: 0, failed: bare as u64 };
        self.rows.iter().fold(bare, |sum, row| sum + row.cases)
    }

    fn failed(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| matches!(row.outcome, Outcome::Failed))
    }

    fn table(&self) -> String {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
        let lines = self.rows.iter().map(|row| {
            let outcome = match row.outcome {
                Outcome::Passed => "passed",
                Outcome::Failed => "FAILED",
                Outcome::LeftOut => "left out",
            };
            let cases = match row.cases {
                Cases { passed: 0, failed: 0 } => String::new(),
                Cases { passed: 1, failed: 0 } => "  1 test".to_owned(),
                Cases { passed, failed: 0 } => format!("  {passed} tests"),
                Cases { passed, failed } => format!("  {} tests, {failed} failed", passed + failed),
            };
            format!("{:width$}  {outcome:8}  {:7.1} s{cases}\n", row.name, row.took.as_secs_f64())
        });
        lines.collect()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;
    use crate::run::{elsewhere, unavailable};

    fn failed(report: &Report) -> Vec<&str> {
        report.failed().map(|row| row.name.as_str()).collect()
    }

    #[test]
    fn a_step_that_fails_without_a_test_case_counts_as_one() {
        let mut report = Report::new(Unable::LeavesOut);
        report.step("lint", || Ok(()));
        report.step("build", || Err(anyhow!("no")));
        report.tests("unit", || Ok((Cases { passed: 3, failed: 2 }, Some("two".to_owned()))));
        report.tests("abi", || Ok((Cases { passed: 4, failed: 0 }, None)));
        assert_eq!(report.cases(), Cases { passed: 7, failed: 3 });
        assert_eq!(failed(&report), ["build", "unit"]);
        assert_eq!(report.close(), ExitCode::FAILURE);
    }

    #[test]
    fn a_step_that_the_machine_cannot_do_is_left_out_where_that_is_allowed() {
        for (unable, expected) in [
            (Unable::LeavesOut, [].as_slice()),
            (Unable::FailsWhereItCouldBeHad, &["envoy"]),
            (Unable::Fails, &["envoy", "istio"]),
        ] {
            let mut report = Report::new(unable);
            report.step("envoy", || Err(unavailable("no Envoy").context("while looking for it")));
            report.step("istio", || Err(elsewhere("no Go")));
            assert_eq!(failed(&report), expected);
        }
    }
}
