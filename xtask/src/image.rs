//! The filter as an OCI image, and the tests of it with a real registry.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::project::Project;
use crate::report::Ran;
use crate::run::unavailable;
use crate::tiers::Parts;
use crate::{apt, cases, wasm};

/// Where to push to.
pub struct Push {
    pub reference: Option<String>,
    pub plain_http: bool,
}

/// Builds the filter, writes `target/image`, and pushes it when told where to.
///
/// # Errors
///
/// When a part of that fails.
pub fn image(project: &Project, push: &Push) -> Result<()> {
    let module = wasm::build(project)?;
    let mut command = project.cargo(&["run", "--quiet", "-p", "predictgate-image", "--"]);
    command.arg("--module").arg(&module).arg("--out").arg(project.target("image"));
    if let Some(reference) = &push.reference {
        command.args(["--push", reference]);
    }
    if push.plain_http {
        command.arg("--plain-http");
    }
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("the image was not {}", if push.reference.is_some() { "pushed" } else { "written" });
    }
    Ok(())
}

/// Runs the tests of the image with a real registry.
///
/// # Errors
///
/// Says what is missing and how to get it where this machine cannot.
pub fn test(project: &Project, parts: &mut Parts<'_>) -> Result<Ran> {
    let registry = registry(project)?;
    let mut command = project.cargo(&["test", "--no-fail-fast", "-p", "predictgate-image"]);
    command.env("PREDICTGATE_REGISTRY", registry).env("PREDICTGATE_WASM", parts.module()?);
    cases::of_cargo(project, "testing image", command)
}

/// Debian's registry.
fn registry(project: &Project) -> Result<PathBuf> {
    let here = || which::which("docker-registry").ok();
    if let Some(path) = here() {
        return Ok(path);
    }
    apt::install(project, "there is no docker-registry on the PATH", &["docker-registry"])?;
    here().ok_or_else(|| unavailable("the package docker-registry has no docker-registry here"))
}
