//! Builds and lints the filter for wasm32-wasip1.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::apt;
use crate::project::Project;
use crate::run::Step;
use crate::shrink::shrink;
use crate::toolchain::{Target, Toolchain};

const TARGET: Target = Target::Wasip1;

/// Builds `target/predictgate.wasm`.
///
/// # Errors
///
/// Says what is missing and how to get it where no Rust can build for the target;
/// else gives the compiler's own words.
pub fn build(project: &Project) -> Result<PathBuf> {
    build_as(project, "wasm", &[], project.module())
}

/// Builds the filter that logs when it decides, for tests of the limits.
///
/// # Errors
///
/// As [`build`] does.
pub fn build_with_decision_log(project: &Project) -> Result<PathBuf> {
    let feature = ["--features", "decision-log"];
    build_as(project, "wasm-decision-log", &feature, project.decision_log_module())
}

fn build_as(project: &Project, profile: &str, features: &[&str], module: PathBuf) -> Result<PathBuf> {
    let toolchain = Toolchain::find(project, TARGET)?;
    let mut command = toolchain.cargo(project, &["build", "--profile", profile, "-p", "predictgate-filter"]);
    command.args(features);
    let what = format!("building the filter with {}", [&[toolchain.name()], features].concat().join(" "));
    Step::new(&what, command).run(&project.logs())?;
    let built = toolchain.folder(project).join(TARGET.name()).join(profile).join("predictgate_filter.wasm");
    let bytes = replace_if_changed(&built, &module)?;
    #[allow(clippy::cast_precision_loss, reason = "a module is far smaller than 2^52 bytes")]
    let kib = bytes as f64 / 1024.0;
    eprintln!("{}: {kib:.0} KiB", project.short(&module));
    Ok(module)
}

/// Lints the filter as it is built: for wasm32-wasip1.
///
/// # Errors
///
/// Says what is missing where no clippy is to be had for the toolchain; else gives clippy's own words.
pub fn clippy(project: &Project) -> Result<()> {
    let toolchain = Toolchain::find(project, TARGET)?;
    if toolchain.is_debian() && !Path::new("/usr/bin/cargo-clippy").exists() {
        apt::install(project, "Debian's Rust has no clippy here", &["rust-web-clippy"])?;
    }
    // In the profile of the build, whose standard library and macros are there already.
    let mut command = toolchain.cargo(project, &["clippy", "--profile", "wasm", "-p", "predictgate-filter"]);
    command.args(["--", "-D", "warnings"]);
    let what = format!("linting the filter for {} with {}", TARGET.name(), toolchain.name());
    Step::new(&what, command).run(&project.logs()).map(drop)
}

/// Puts a smaller copy of `from` at `to` in one step and gives its size; an equal file stays as it is.
fn replace_if_changed(from: &Path, to: &Path) -> Result<usize> {
    let bytes = fs::read(from).with_context(|| format!("cannot read the built module {}", from.display()))?;
    let bytes = shrink(&bytes).with_context(|| from.display().to_string())?;
    if fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(bytes.len());
    }
    let new = to.with_extension("wasm.new");
    fs::write(&new, &bytes).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, to).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(bytes.len())
}
