//! What the tests and the demo are given to work with, by environment variables that `cargo xtask` sets.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The built filter.
///
/// # Errors
///
/// Says what to run when the variable is not set or names no file.
pub fn wasm() -> Result<PathBuf> {
    given("PREDICTGATE_WASM", "the built filter")
}

/// The built filter that logs its decisions, which tests of the limits read.
///
/// # Errors
///
/// Says what to run when the variable is not set or names no file.
pub fn decision_log_wasm() -> Result<PathBuf> {
    given("PREDICTGATE_DECISION_LOG_WASM", "the built filter that logs its decisions")
}

/// The Envoy binary.
///
/// # Errors
///
/// Says what to run when the variable is not set or names no file.
pub fn envoy() -> Result<PathBuf> {
    given("PREDICTGATE_ENVOY", "the Envoy binary")
}

/// The Prometheus binary; promtool stands beside it.
///
/// # Errors
///
/// Says what to run when the variable is not set or names no file.
pub fn prometheus() -> Result<PathBuf> {
    given("PREDICTGATE_PROMETHEUS", "the Prometheus binary")
}

/// The program of `tests/istio/istiod`.
///
/// # Errors
///
/// Says what to run when the variable is not set or names no file.
pub fn istiod() -> Result<PathBuf> {
    given("PREDICTGATE_ISTIOD", "the istiod that reads a folder")
}

/// The checkout.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn given(variable: &str, what: &str) -> Result<PathBuf> {
    let path = env::var_os(variable).map(PathBuf::from).with_context(|| {
        format!("{variable} ({what}) is not set: run `cargo xtask test` or `cargo xtask demo`, which set it")
    })?;
    ensure!(path.is_file(), "{variable} names {}, which is not a file", path.display());
    Ok(path)
}
