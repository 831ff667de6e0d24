//! Holds the library against libprotobuf, and runs the fuzz targets.

use std::env;

use anyhow::Result;

use crate::project::Project;
use crate::report::Ran;
use crate::run::{output_of, unavailable};
use crate::{apt, cases};

/// Compares how the library and libprotobuf read so many made-up messages.
///
/// # Errors
///
/// Says what is missing and how to get it where this machine cannot.
pub fn judge(project: &Project, messages: &str) -> Result<Ran> {
    protobuf(project)?;
    // Not optimised: it is compiled for the tests anyhow, and its arithmetic is checked.
    let command = project.cargo(&["run", "-p", "predictgate-judge", "--", "run", "--messages", messages]);
    cases::of_one(project, &format!("judging {messages} messages"), command)
}

/// Lets libFuzzer look for bytes that break a target of `fuzz/`.
///
/// # Errors
///
/// Says what is missing and how to get it where this machine cannot.
pub fn fuzz(project: &Project, target: &str, executions: &str) -> Result<Ran> {
    compiler(project)?;
    let mut command = project.cargo(&["run", "-p", "predictgate-fuzz", "--bin", "fuzz", "--", "run"]);
    command.args([target, "--executions", executions]);
    cases::of_one(project, &format!("fuzzing {target}"), command)
}

/// What the judge compiles its libprotobuf side with.
fn protobuf(project: &Project) -> Result<()> {
    let has = |program: &str| which::which(program).is_ok();
    let library = || {
        let mut command = project.command("g++");
        command.args(["-E", "-x", "c++", "-include", "google/protobuf/message.h", "-o", "/dev/null"]);
        output_of(command.arg("/dev/null")).is_some()
    };
    let missing = || {
        let mut packages = Vec::new();
        if !has("g++") {
            packages.push("g++");
        }
        if !has("protoc") {
            packages.push("protobuf-compiler");
        }
        if !library() {
            packages.push("libprotobuf-dev");
        }
        packages
    };
    let packages = missing();
    if packages.is_empty() {
        return Ok(());
    }
    apt::install(project, "the judge is compiled with g++, protoc and libprotobuf", &packages)?;
    match missing().as_slice() {
        [] => Ok(()),
        missing => Err(unavailable(format!(
            "the installed packages do not give the judge what it is compiled with: still missing: {}",
            missing.join(", ")
        ))),
    }
}

/// What libFuzzer is compiled with.
fn compiler(project: &Project) -> Result<()> {
    let here = || env::var_os("CXX").is_some_and(|name| !name.is_empty()) || which::which("c++").is_ok();
    if here() {
        return Ok(());
    }
    apt::install(project, "libFuzzer is compiled with a C++ compiler", &["g++"])?;
    if here() { Ok(()) } else { Err(unavailable("the package g++ has no c++ here")) }
}
