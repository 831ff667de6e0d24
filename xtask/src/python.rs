//! Virtual environments with packages from PyPI, kept under `target/tools`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::apt;
use crate::project::Project;
use crate::run::{Step, output_of, unavailable};

/// What this project's own Python and its packages need.
const OLDEST: (u32, u32) = (3, 10);

/// One `pip install`.
pub enum Packages<'a> {
    Named(&'a str),
    /// A requirements file, by its path in the project.
    Listed(&'a str),
    /// The same, without what the packages ask for.
    ListedAlone(&'a str),
}

/// The Python of the virtual environment `target/tools/NAME` with `packages` in it.
///
/// # Errors
///
/// Fails when there is no usable Python or a package cannot be had.
pub fn environment(project: &Project, name: &str, packages: &[Packages<'_>]) -> Result<PathBuf> {
    let tools = project.target("tools");
    let folder = tools.join(name);
    let wanted = wanted(project, packages)?;
    // The Python that it was made with may be gone since.
    if folder.exists() && output_of(project.command(folder.join("bin/python")).arg("--version")).is_none() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    if folder.exists() {
        install(project, name, &folder, packages, &wanted)?;
        return Ok(folder.join("bin/python"));
    }
    let python = find(project)?;
    fs::create_dir_all(&tools).with_context(|| format!("cannot make {}", tools.display()))?;
    sweep(&tools, name);
    // An environment gets its name when it is complete, so that one whose making was interrupted is not used.
    let unfinished = tools.join(format!(".{name}.{}", std::process::id()));
    let mut command = project.command(&python);
    command.args(["-m", "venv"]).arg(&unfinished);
    let what = format!("making a virtual environment for {name}");
    Step::new(&what, command)
        .next("on Debian: apt-get install -y python3-venv")
        .run(&project.logs())
        .map_err(|error| unavailable(format!("{error}")))?;
    let installed = install(project, name, &unfinished, packages, &wanted);
    // Another run may have made it meanwhile; one is as good as the other.
    let renamed = installed.and_then(|()| match fs::rename(&unfinished, &folder) {
        Err(_) if folder.exists() => Ok(()),
        done => done.with_context(|| format!("cannot make {}", folder.display())),
    });
    let _ = fs::remove_dir_all(&unfinished);
    renamed.map(|()| folder.join("bin/python"))
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

/// A Python that can make virtual environments.
fn find(project: &Project) -> Result<PathBuf> {
    let python = || usable(project, which::which_all("python3").into_iter().flatten());
    if let Some(python) = python() {
        return Ok(python);
    }
    let (major, minor) = OLDEST;
    let why = format!("no python3 on the PATH is {major}.{minor} or newer and can make virtual environments");
    apt::install(project, &why, &["python3", "python3-venv"])?;
    usable(project, [PathBuf::from("/usr/bin/python3")]).ok_or_else(|| unavailable(why))
}

fn usable(project: &Project, candidates: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    // A shim of pyenv is a script that looks for the real one anew at each call, so that one is asked for.
    let script = "import ensurepip, sys, venv; print(*sys.version_info[:2], sys.executable)";
    candidates.into_iter().find_map(|candidate| {
        let answer = output_of(project.command(candidate).args(["-c", script]))?;
        let (version, path) = answer.splitn(3, ' ').fold((Vec::new(), ""), |(mut numbers, _), word| {
            numbers.extend(word.parse::<u32>().ok());
            (numbers, word)
        });
        let [major, minor] = version.as_slice() else { return None };
        (OLDEST <= (*major, *minor)).then(|| PathBuf::from(path))
    })
}

/// Removes what interrupted runs left behind.
fn sweep(tools: &Path, name: &str) {
    let prefix = format!(".{name}.");
    for entry in fs::read_dir(tools).into_iter().flatten().flatten() {
        let file_name = entry.file_name();
        let Some(process) = file_name.to_str().and_then(|name| name.strip_prefix(&prefix)) else { continue };
        if Path::new("/proc/self").exists() && !Path::new("/proc").join(process).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
