//! Checks the manifests of `istio/`.

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::project::Project;
use crate::report::Ran;
use crate::run::{Step, output_of, unavailable};
use crate::{cases, kept};

/// The newest that Go 1.24 compiles.
const KUSTOMIZE: &str = "5.7.1";

/// Runs the tests of the check, and the check, which prints how much it has looked at.
///
/// # Errors
///
/// Fails when either cannot be run.
pub fn test(project: &Project) -> Result<Ran> {
    let definitions = definitions(project);
    let cargo = |arguments: &[&str]| {
        let mut command = project.cargo(arguments);
        command.args(["-p", "predictgate-manifests"]);
        if let Some(folder) = &definitions {
            command.env("PREDICTGATE_CRDS", folder);
        }
        command
    };
    let (tests, failed) = cases::of_cargo(project, "breaking manifests", cargo(&["test", "--no-fail-fast"]))?;
    let mut command = cargo(&["run", "--quiet"]);
    match kustomize(project) {
        Ok(program) => drop(command.env("PREDICTGATE_KUSTOMIZE", program)),
        Err(error) => eprintln!("kustomize is left out: {error:#}"),
    }
    if definitions.is_none() {
        eprintln!("schemas and CEL rules are left out: PREDICTGATE_CRDS names no folder of definitions");
    }
    let (check, refused) = cases::of_one(project, "checking the manifests", command)?;
    let failures: Vec<String> = [failed, refused].into_iter().flatten().collect();
    Ok((tests + check, (!failures.is_empty()).then(|| failures.join("\n"))))
}

/// A folder of CustomResourceDefinitions: the one that `PREDICTGATE_CRDS` names, or `data/crds` of a folder beside
/// the project's.
fn definitions(project: &Project) -> Option<PathBuf> {
    if let Some(named) = env::var_os("PREDICTGATE_CRDS").filter(|value| !value.is_empty()) {
        return Some(named.into());
    }
    let root = fs::canonicalize(project.root()).ok()?;
    let mut beside: Vec<_> = fs::read_dir(root.parent()?).ok()?.flatten().map(|entry| entry.path()).collect();
    beside.sort();
    beside.into_iter().map(|folder| folder.join("data/crds")).find(|folder| folder.is_dir())
}

/// The program kustomize: from the PATH, or compiled by Go.
fn kustomize(project: &Project) -> Result<PathBuf> {
    if let Ok(path) = which::which("kustomize") {
        return Ok(path);
    }
    let folder = kept::folder(project, &format!("kustomize-{KUSTOMIZE}"), |unfinished| {
        if output_of(project.command("go").arg("version")).is_none() {
            return Err(unavailable("there is neither kustomize nor Go on the PATH"));
        }
        let mut command = project.command("go");
        command.args(["install", &format!("sigs.k8s.io/kustomize/kustomize/v5@v{KUSTOMIZE}")]);
        command.env("GOBIN", unfinished);
        Step::new(&format!("compiling kustomize {KUSTOMIZE}"), command)
            .next("see that the Go module proxy that Go is set up for can be reached")
            .run(&project.logs())
            .map(drop)
            .map_err(|error| unavailable(format!("{error}")))
    })?;
    Ok(folder.join("kustomize"))
}
