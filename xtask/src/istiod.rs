//! istiod, built from the Go module in `tests/istio/istiod`.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::kept;
use crate::project::Project;
use crate::run::{Step, elsewhere, output_of, unavailable};

const MODULE: &str = "tests/istio/istiod";

/// The program, compiled when it is not there.
///
/// # Errors
///
/// Says what is missing and how to get it where this machine cannot compile it.
pub fn istiod(project: &Project) -> Result<PathBuf> {
    let read = |name: &str| {
        let path = project.path(MODULE).join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let [module, sums, program] = [read("go.mod")?, read("go.sum")?, read("main.go")?];
    let wanted = asked_of_go(&module).with_context(|| format!("{MODULE}/go.mod asks for no Go"))?;
    let commit = commit(&module).with_context(|| format!("{MODULE}/go.mod has no commit of Istio"))?;
    let mut hasher = DefaultHasher::new();
    (&module, sums, program).hash(&mut hasher);
    // A folder for each state of the sources: go itself would ask the module proxy again and again.
    let name = format!("istiod-{commit}-{:08x}", hasher.finish() as u32);
    let folder = kept::folder(project, &name, |unfinished| {
        let mut command = project.command(go(project, wanted)?);
        command.current_dir(project.path(MODULE));
        command.args(["build", "-v", "-trimpath", "-ldflags", "-s -w", "-mod=readonly", "-buildvcs=false"]);
        // With the slash it is a folder, which go makes.
        command.arg("-o").arg(unfinished.join("")).arg(".");
        // It needs no compiler of C, nor a workspace that it may stand in.
        command.env("CGO_ENABLED", "0").env("GOWORK", "off");
        Step::new(&format!("compiling istiod of Istio's commit {commit}"), command)
            .next("see that the Go module proxy, or what GOPROXY names, can be reached and has these modules")
            .run(&project.logs())
            .map(drop)
            .map_err(|error| unavailable(format!("{error}")))
    })?;
    Ok(folder.join("istiod"))
}

/// The Go on the PATH, or where go.dev's own packages put it.
fn go(project: &Project, wanted: (u32, u32)) -> Result<String> {
    let mut found = Vec::new();
    for go in ["go", "/usr/local/go/bin/go"] {
        // In the folder of the module, where a Go that may fetch a newer one does.
        let mut command = project.command(go);
        let Some(answer) = output_of(command.current_dir(project.path(MODULE)).args(["env", "GOVERSION"]))
        else {
            continue;
        };
        if version(answer.trim().trim_start_matches("go")).is_some_and(|version| wanted <= version) {
            return Ok(go.to_owned());
        }
        found.push(answer.trim().to_owned());
    }
    let found =
        if found.is_empty() { "there is none".to_owned() } else { format!("found {}", found.join(", ")) };
    let (major, minor) = wanted;
    Err(elsewhere(format!(
        "istiod is compiled by Go {major}.{minor} or newer (https://go.dev/dl), and {found}"
    )))
}

/// `go 1.26.0` of a go.mod as (1, 26).
fn asked_of_go(module: &str) -> Option<(u32, u32)> {
    module.lines().find_map(|line| version(line.strip_prefix("go ")?))
}

/// The major and the minor of `1.26.8`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The commit of Istio in a go.mod: the end of the pseudo-version.
fn commit(module: &str) -> Option<&str> {
    let version = module.lines().find_map(|line| line.strip_prefix("require istio.io/istio "))?;
    version.rsplit_once('-').map(|(_, commit)| commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_go_mod_says_which_go_and_which_istio() {
        let module =
            "module istiod\n\ngo 1.26.0\n\nrequire istio.io/istio v0.0.0-20260827124520-eed52ebb66ad\n";
        assert_eq!(asked_of_go(module), Some((1, 26)));
        assert_eq!(commit(module), Some("eed52ebb66ad"));
        assert_eq!(asked_of_go("module istiod\n"), None);
    }

    #[test]
    fn versions_of_go_are_compared_as_numbers() {
        assert!(version("1.9.7") < version("1.26.0"));
        assert_eq!(version("devel"), None);
    }
}
