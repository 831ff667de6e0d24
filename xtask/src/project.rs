//! Where things are, and what a command may do to the machine.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Project {
    root: PathBuf,
    /// System packages may be installed.
    pub install: bool,
}

impl Project {
    pub fn here(install: bool) -> Self {
        // Cargo sets it for what it runs; a binary that is called by itself knows where it was built.
        let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&package).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf);
        Self { root, install }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    pub fn target(&self, relative: &str) -> PathBuf {
        self.root.join("target").join(relative)
    }

    /// Where the built filter is, or will be.
    pub fn module(&self) -> PathBuf {
        self.target("predictgate.wasm")
    }

    /// Where the built filter is that logs its decisions.
    pub fn decision_log_module(&self) -> PathBuf {
        self.target("predictgate-decision-log.wasm")
    }

    /// The whole outputs of commands that failed.
    pub fn logs(&self) -> PathBuf {
        self.target("xtask/logs")
    }

    /// The path as one would type it in the project's folder.
    pub fn short<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }

    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        command
    }

    /// The cargo that runs this command.
    pub fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // These are of the package xtask. Build scripts that look at them would run again, and all that depends on
        // them be compiled again, whenever one changes between this command and plain cargo.
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&*name);
            }
        }
        command.args(arguments);
        command
    }
}
