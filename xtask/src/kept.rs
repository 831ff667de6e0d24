//! Tools under `target/tools`: a folder each, complete or absent.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::project::Project;

/// The folder `name`, filled by `make` when it is not there.
///
/// A folder gets its name when it is complete, so that one whose making was interrupted is not used.
///
/// # Errors
///
/// Fails when `make` does, or the folder cannot be put in its place.
pub fn folder(project: &Project, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let tools = project.target("tools");
    let folder = tools.join(name);
    if folder.exists() {
        return Ok(folder);
    }
    fs::create_dir_all(&tools).with_context(|| format!("cannot make {}", tools.display()))?;
    sweep(&tools, name);
    let unfinished = tools.join(format!(".{name}.{}", std::process::id()));
    // Another run may have made it meanwhile; one is as good as the other.
    let made = make(&unfinished).and_then(|()| match fs::rename(&unfinished, &folder) {
        Err(_) if folder.exists() => Ok(()),
        done => done.with_context(|| format!("cannot make {}", folder.display())),
    });
    let _ = fs::remove_dir_all(&unfinished);
    made.map(|()| folder)
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
