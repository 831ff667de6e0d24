//! Virtual environments with packages from PyPI, kept under `target/tools`.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::apt;
use crate::kept;
use crate::project::Project;
use crate::run::{Step, output_of, unavailable};

/// Major and minor, as of `python3 --version`.
type Version = (u32, u32);

/// One `pip install`.
pub enum Packages<'a> {
    Named(&'a str),
    /// A requirements file, by its path in the project.
    Listed(&'a str),
    /// The same, without what the packages ask for.
    ListedAlone(&'a str),
}

/// A virtual environment, by what is to be in it.
pub struct Environment<'a> {
    /// Its folder under `target/tools`.
    pub name: &'a str,
    /// The Pythons that there are packages for.
    pub pythons: RangeInclusive<Version>,
    pub packages: &'a [Packages<'a>],
}

/// The Python of an environment, made when it is not there.
///
/// # Errors
///
/// Fails when there is no usable Python or a package cannot be had.
pub fn environment(project: &Project, environment: &Environment<'_>) -> Result<PathBuf> {
    let &Environment { name, ref pythons, packages } = environment;
    let folder = project.target("tools").join(name);
    let wanted = wanted(project, packages)?;
    // The Python that it was made with may be gone since.
    if folder.exists() && output_of(project.command(folder.join("bin/python")).arg("--version")).is_none() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    if folder.exists() {
        install(project, name, &folder, packages, &wanted)?;
        return Ok(folder.join("bin/python"));
    }
    let folder = kept::folder(project, name, |unfinished| {
        let mut command = project.command(find(project, pythons)?);
        command.args(["-m", "venv"]).arg(unfinished);
        let what = format!("making a virtual environment for {name}");
        Step::new(&what, command)
            .next("on Debian: apt-get install -y python3-venv")
            .run(&project.logs())
            .map_err(|error| unavailable(format!("{error}")))?;
        install(project, name, unfinished, packages, &wanted)
    })?;
    Ok(folder.join("bin/python"))
}

/// Installs `packages` into the environment unless a note in it says that they are there.
fn install(
    project: &Project,
    name: &str,
    folder: &Path,
    packages: &[Packages<'_>],
    wanted: &str,
) -> Result<()> {
    let note = folder.join("installed.txt");
    if fs::read_to_string(&note).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    for package in packages {
        let mut command = project.command(folder.join("bin/python"));
        command.args(["-m", "pip", "install", "--no-input", "--disable-pip-version-check"]);
        match package {
            Packages::Named(package) => command.arg(package),
            Packages::Listed(file) => command.args(["-r", file]),
            Packages::ListedAlone(file) => command.args(["--no-deps", "-r", file]),
        };
        let what = format!("installing {name} from PyPI");
        Step::new(&what, command)
            .next("see that PyPI, or the index that pip is set up for, can be reached")
            .run(&project.logs())
            .map_err(|error| unavailable(format!("{error}")))?;
    }
    fs::write(&note, wanted).with_context(|| format!("cannot write {}", note.display()))
}

/// All that is to be installed, as text.
fn wanted(project: &Project, packages: &[Packages<'_>]) -> Result<String> {
    let mut text = String::new();
    for package in packages {
        match package {
            Packages::Named(package) => text.push_str(package),
            Packages::Listed(file) | Packages::ListedAlone(file) => {
                let path = project.path(file);
                text.push_str(
                    &fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?,
                );
            }
        }
        text.push('\n');
    }
    Ok(text)
}

/// A Python of one of these versions that can make virtual environments.
fn find(project: &Project, pythons: &RangeInclusive<Version>) -> Result<PathBuf> {
    let first = |candidates: &[PathBuf]| candidates.iter().find_map(|it| usable(project, it, pythons));
    if let Some(python) = first(&which::which_all("python3").into_iter().flatten().collect::<Vec<_>>()) {
        return Ok(python);
    }
    let ((major, oldest), (_, newest)) = (pythons.start(), pythons.end());
    let why = format!(
        "no python3 on the PATH is of the versions {major}.{oldest} to {major}.{newest} and can make virtual environments"
    );
    apt::install(project, &why, &["python3", "python3-venv"])?;
    first(&[PathBuf::from("/usr/bin/python3")]).ok_or_else(|| unavailable(why))
}

/// The program itself behind `candidate`: a shim of pyenv looks for it anew at each call.
fn usable(project: &Project, candidate: &Path, pythons: &RangeInclusive<Version>) -> Option<PathBuf> {
    let script = "import ensurepip, sys, venv; print(*sys.version_info[:2], sys.executable)";
    let answer = output_of(project.command(candidate).args(["-c", script]))?;
    let (version, program) = read_answer(&answer)?;
    pythons.contains(&version).then(|| program.into())
}

fn read_answer(answer: &str) -> Option<(Version, &str)> {
    let mut words = answer.splitn(3, ' ');
    let version = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some((version, words.next().filter(|program| !program.is_empty())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_a_python_is_its_version_and_its_program() {
        assert_eq!(read_answer("3 11 /usr/bin/python3"), Some(((3, 11), "/usr/bin/python3")));
        assert_eq!(read_answer("3 9 /home/a b/python"), Some(((3, 9), "/home/a b/python")));
        assert_eq!(read_answer("3 11 "), None);
        assert_eq!(read_answer("pyenv: python3: command not found"), None);
    }
}
