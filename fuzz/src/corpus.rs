//! The inputs that are kept, a file each.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The corpus of a target that is kept with the project.
pub fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// Its files, sorted.
///
/// # Errors
///
/// Fails when the folder cannot be read.
pub fn files(target: &str) -> Result<Vec<PathBuf>> {
    let folder = folder(target);
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    Ok(files)
}
