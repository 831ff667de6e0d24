//! The library's unit tests as wasm32, in Node: what the filter is compiled to has pointers of 32 bits.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::project::Project;
use crate::report::Ran;
use crate::run::{Step, output_of, unavailable};
use crate::toolchain::{Target, Toolchain};
use crate::{apt, cases, kept};

/// Runs them.
///
/// # Errors
///
/// Says what is missing and how to get it where this machine cannot.
pub fn test(project: &Project) -> Result<Ran> {
    node(project)?;
    let toolchain = Toolchain::find(project, Target::Unknown)?;
    let runner = runner(project)?;
    let mut command = toolchain.cargo(project, &["test", "-p", "predictgate", "--lib"]);
    command.env(Target::Unknown.variable("RUNNER"), runner);
    cases::of_cargo(project, &format!("testing wasm32 with {}", toolchain.name()), command)
}

fn node(project: &Project) -> Result<()> {
    let here = || output_of(project.command("node").arg("--version")).is_some();
    if here() {
        return Ok(());
    }
    apt::install(project, "there is no Node.js on the PATH", &["nodejs"])?;
    if here() { Ok(()) } else { Err(unavailable("the package nodejs does not run here")) }
}

/// The program that runs a test binary of wasm-bindgen-test; it reads those of its own version alone.
fn runner(project: &Project) -> Result<PathBuf> {
    let wanted = output_of(&mut project.cargo(&["pkgid", "wasm-bindgen"]));
    let wanted = wanted.as_deref().and_then(version).context("Cargo.lock names no single wasm-bindgen")?;
    let program = "wasm-bindgen-test-runner";
    let folder = kept::folder(project, &format!("wasm-bindgen-{wanted}"), |unfinished| {
        let mut command = project.cargo(&["install", "wasm-bindgen-cli", "--version", wanted]);
        // To optimise it takes longer than it ever saves here.
        command.args(["--debug", "--bin", program, "--root"]).arg(unfinished);
        command.env("CARGO_PROFILE_DEV_DEBUG", "none");
        // They are meant for this project's own code.
        command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("CARGO_TARGET_DIR");
        Step::new(&format!("compiling {program} {wanted}"), command)
            .next("see that crates.io, or the registry that cargo is set up for, can be reached")
            .run(&project.logs())
            .map(drop)
            .map_err(|error| unavailable(format!("{error}")))
    })?;
    Ok(folder.join("bin").join(program))
}

/// `0.2.130` of `registry+https://github.com/rust-lang/crates.io-index#wasm-bindgen@0.2.130`.
fn version(package: &str) -> Option<&str> {
    package.rsplit_once('@').map(|(_, version)| version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_package_stands_at_the_end_of_its_name() {
        let package = "registry+https://github.com/rust-lang/crates.io-index#wasm-bindgen@0.2.130";
        assert_eq!(version(package), Some("0.2.130"));
        assert_eq!(version("error: ambiguous"), None);
    }
}
