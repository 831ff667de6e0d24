//! Trying a law on many seeds.

use std::panic::{AssertUnwindSafe, catch_unwind};

const SEED: &str = "PREDICTGATE_SIMULATION_SEED";
const RUNS: &str = "PREDICTGATE_SIMULATION_RUNS";

/// Few enough for every push; `cargo xtask soak` tries more.
const DEFAULT_RUNS: u64 = 500;

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, expected a whole number")))
}

/// Checks `law` for each seed and fails with the first seed that breaks it.
#[track_caller]
pub fn explore(law: impl Fn(u64) -> Result<(), String>) {
    explore_part(DEFAULT_RUNS, 1, law);
}

/// The same for one in so many seeds, of `runs` unless the environment says how many.
#[track_caller]
pub fn explore_part(runs: u64, one_in: u64, law: impl Fn(u64) -> Result<(), String>) {
    let seeds = match variable(SEED) {
        Some(seed) => seed..seed.saturating_add(1),
        None => 0..variable(RUNS).unwrap_or(runs).div_ceil(one_in),
    };
    assert!(!seeds.is_empty(), "{RUNS} is 0, so nothing would be checked");
    for seed in seeds {
        let outcome = catch_unwind(AssertUnwindSafe(|| law(seed)));
        let broken = match outcome {
            Ok(Ok(())) => continue,
            Ok(Err(broken)) => broken,
            Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "it panicked".to_owned()),
        };
        panic!("seed {seed}: {broken}\nto replay it: {SEED}={seed} cargo test --test simulation");
    }
}

/// The first of the default seeds that breaks `law`.
pub fn first_broken(law: impl Fn(u64) -> Result<(), String>) -> Option<u64> {
    (0..DEFAULT_RUNS).find(|&seed| law(seed).is_err())
}
