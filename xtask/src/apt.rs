//! System packages of Debian and its kin.

use std::cell::Cell;
use std::os::unix::fs::MetadataExt;

use anyhow::Result;

use crate::project::Project;
use crate::run::{Step, output_of, unavailable};

thread_local! {
    /// The package lists are read again once a run.
    static UPDATED: Cell<bool> = const { Cell::new(false) };
}

/// Installs `packages` where that was allowed and can be done.
///
/// # Errors
///
/// Says what to type, and why, where it was not allowed or cannot be done.
pub fn install(project: &Project, why: &str, packages: &[&str]) -> Result<()> {
    let commands =
        format!("    apt-get update\n    apt-get install -y --no-install-recommends {}", packages.join(" "));
    if which::which("apt-get").is_err() {
        return Err(unavailable(format!(
            "{why}\non Debian 12 and later these packages have it: {}",
            packages.join(" ")
        )));
    }
    if !project.install {
        return Err(unavailable(format!("{why}\nrun, as root:\n{commands}\nor this command with --install")));
    }
    if !is_root() {
        return Err(unavailable(format!("{why}\n--install needs root; run, as root:\n{commands}")));
    }
    if !UPDATED.get() {
        let mut update = project.command("apt-get");
        update.args(["update", "-q"]);
        Step::new("reading the lists of system packages", update)
            .run(&project.logs())
            .map_err(|error| unavailable(format!("{why}\n{error}")))?;
        UPDATED.set(true);
    }
    let mut command = project.command("apt-get");
    command
        .args(["install", "-y", "-q", "--no-install-recommends"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive");
    let what = format!("installing the system packages {}", packages.join(", "));
    Step::new(&what, command).run(&project.logs()).map_err(|error| unavailable(format!("{why}\n{error}")))?;
    Ok(())
}

/// The first of `packages` that can be installed here.
pub fn first_known<'a>(project: &Project, packages: &[&'a str]) -> Option<&'a str> {
    let known = |name: &str| output_of(project.command("apt-cache").args(["show", name])).is_some();
    packages.iter().copied().find(|name| known(name))
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
