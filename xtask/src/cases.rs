//! Runs tests and counts their cases.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::project::Project;
use crate::report::{Cases, Ran};
use crate::run::{Finished, Step};

/// Runs `cargo test` and gives the cases as cargo counts them.
///
/// # Errors
///
/// Fails when it cannot be started, or succeeds without running any test.
pub fn of_cargo(project: &Project, what: &str, command: Command) -> Result<Ran> {
    judge(project, what, &Step::new(what, command).attempt()?)
}

/// The same of tests whose measurements are of interest when they pass, too: prints what they say.
///
/// # Errors
///
/// As [`of_cargo`] does.
pub fn of_cargo_aloud(project: &Project, what: &str, command: Command) -> Result<Ran> {
    let finished = Step::new(what, command).attempt()?;
    let said = finished.output.lines().skip_while(|line| !line.starts_with("running "));
    said.for_each(|line| println!("{line}"));
    judge(project, what, &finished)
}

fn judge(project: &Project, what: &str, finished: &Finished) -> Result<Ran> {
    let cases = count(&finished.output);
    if finished.succeeded() {
        ensure!(cases != Cases::default(), "{what}: no test ran");
        return Ok((cases, None));
    }
    let failure = match failures(&finished.output) {
        Some(said) => format!("{}\n{said}{}", finished.ended(), finished.saved(what, &project.logs())),
        None => finished.failure(what, None, &project.logs()),
    };
    Ok((cases, Some(failure)))
}

/// Runs a command that is one case as a whole, and prints the line that it closes with: what it has done.
///
/// # Errors
///
/// Fails when it cannot be started.
pub fn of_one(project: &Project, what: &str, command: Command) -> Result<Ran> {
    let finished = Step::new(what, command).attempt()?;
    if finished.succeeded() {
        println!("{}", finished.output.lines().last().unwrap_or_default());
        return Ok((Cases { passed: 1, failed: 0 }, None));
    }
    Ok((Cases { passed: 0, failed: 1 }, Some(finished.failure(what, None, &project.logs()))))
}

/// Sums cargo's own lines: `test result: ok. 5 passed; 0 failed; 1 ignored; ...`.
fn count(output: &str) -> Cases {
    let results = output.lines().filter_map(|line| line.strip_prefix("test result: "));
    results.fold(Cases::default(), |sum, result| {
        let number = |what: &str| {
            let before = result.split(what).next().filter(|before| before.len() < result.len());
            before.and_then(|before| before.split(' ').next_back()?.parse().ok()).unwrap_or_default()
        };
        sum + Cases { passed: number(" passed"), failed: number(" failed") }
    })
}

/// What the failing tests of every binary said: it stands far from the end when others ran after them.
fn failures(output: &str) -> Option<String> {
    let mut text = String::new();
    let mut inside = false;
    for line in output.lines() {
        inside = match line {
            "failures:" => true,
            _ if line.starts_with("test result: ") => false,
            _ => inside,
        };
        if inside {
            text.push_str(line);
            text.push('\n');
        }
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 2 tests
test a ... ok
test b ... FAILED

failures:

---- b stdout ----
b says why

failures:
    b

test result: FAILED. 1 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.00s

running 12 tests
test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.31s
a line that says 7 passed and 8 failed
";

    #[test]
    fn the_result_lines_of_all_binaries_are_summed() {
        assert_eq!(count(OUTPUT), Cases { passed: 13, failed: 1 });
        assert_eq!(count("error: could not compile"), Cases::default());
    }

    #[test]
    fn what_failing_tests_said_is_found_wherever_it_stands() {
        let said = failures(OUTPUT).unwrap();
        assert!(said.contains("b says why") && !said.contains("running 12"), "{said}");
        assert_eq!(failures("test result: ok. 1 passed; 0 failed;"), None);
    }
}
