//! A Rust that can build for the wasm32 targets: the one in use, else Debian's.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::apt;
use crate::project::Project;
use crate::run::{Step, output_of, unavailable};

/// How long rustup may take for the standard library; where its server is out of reach it may hang.
const RUSTUP_LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Of the filter.
    Wasip1,
    /// Of the tests that run in Node.
    Unknown,
}

impl Target {
    pub fn name(self) -> &'static str {
        match self {
            Self::Wasip1 => "wasm32-wasip1",
            Self::Unknown => "wasm32-unknown-unknown",
        }
    }

    /// The variable by which cargo is told `what` of this target alone.
    pub fn variable(self, what: &str) -> String {
        format!("CARGO_TARGET_{}_{what}", self.name().to_uppercase().replace('-', "_"))
    }

    /// What Debian's Rust needs to be told to link for it.
    fn debian_flags(self) -> &'static str {
        match self {
            Self::Wasip1 => "-Clink-self-contained=no -Lnative=/usr/lib/wasm32-wasi -Clinker-flavor=wasm-ld",
            Self::Unknown => "-Clinker-flavor=wasm-ld",
        }
    }
}

/// A Rust that can build for a target.
pub struct Toolchain {
    target: Target,
    rust: Rust,
}

enum Rust {
    /// The one that runs this command, with the target's standard library beside it.
    Own,
    /// Debian's, which builds the standard library from its sources.
    Debian { linker: PathBuf },
}

impl Toolchain {
    /// The one in use where its standard library is here or can be had from rustup, else Debian's.
    ///
    /// # Errors
    ///
    /// Says what is missing and how to get it where there is neither.
    pub fn find(project: &Project, target: Target) -> Result<Self> {
        let own = || own_sysroot(project).is_some_and(|sysroot| has_std(&sysroot, target));
        if own() {
            return Ok(Self { target, rust: Rust::Own });
        }
        let rustup = add_by_rustup(project, target);
        if rustup.is_ok() && own() {
            return Ok(Self { target, rust: Rust::Own });
        }
        let name = target.name();
        let why = match rustup {
            Ok(()) => format!("rustup has added {name} to another toolchain than the one in use"),
            Err(why) => why,
        };
        let debian = Debian::look(project);
        let missing = debian.missing(project, target);
        if !missing.is_empty() {
            let why = format!("no Rust here has a standard library for {name}: {why}");
            apt::install(project, &why, &missing)?;
        }
        let debian = Debian::look(project);
        match (debian.missing(project, target).as_slice(), debian.linker) {
            ([], Some(linker)) => Ok(Self { target, rust: Rust::Debian { linker } }),
            (missing, _) => Err(unavailable(format!(
                "the installed packages do not give what is needed to build for {name}: still missing, or too old: {}",
                missing.join(", ")
            ))),
        }
    }

    pub fn name(&self) -> &'static str {
        match self.rust {
            Rust::Own => "the standard library of the Rust in use",
            Rust::Debian { .. } => "Debian's Rust, the standard library from its sources",
        }
    }

    pub fn is_debian(&self) -> bool {
        matches!(self.rust, Rust::Debian { .. })
    }

    /// Each toolchain has a target folder of its own, so that neither throws away the other's work.
    pub fn folder(&self, project: &Project) -> PathBuf {
        project.target(match self.rust {
            Rust::Own => "wasm",
            Rust::Debian { .. } => "wasm-debian",
        })
    }

    /// `cargo` with `arguments` for the target.
    pub fn cargo(&self, project: &Project, arguments: &[&str]) -> Command {
        let mut command = match &self.rust {
            Rust::Own => project.cargo(arguments),
            Rust::Debian { linker } => {
                let mut command = project.command("/usr/bin/cargo");
                command
                    .args(arguments)
                    .arg("-Zbuild-std=std,panic_abort")
                    .env("PATH", with_first("/usr/bin"))
                    .env("RUSTC", "/usr/bin/rustc")
                    // -Zbuild-std is for a nightly cargo, or one that takes itself for it.
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env(self.target.variable("LINKER"), linker)
                    .env(self.target.variable("RUSTFLAGS"), self.target.debian_flags())
                    // The libraries of the cargo that runs this command are not for another one.
                    .env_remove("LD_LIBRARY_PATH")
                    .env_remove("CARGO");
                command
            }
        };
        command
            .args(["--target", self.target.name(), "--target-dir"])
            .arg(self.folder(project))
            // They would take the place of the target's own flags.
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        command
    }
}

fn own_sysroot(project: &Project) -> Option<PathBuf> {
    output_of(project.command("rustc").args(["--print", "sysroot"])).map(PathBuf::from)
}

fn has_std(sysroot: &Path, target: Target) -> bool {
    let libraries = sysroot.join("lib/rustlib").join(target.name()).join("lib");
    fs::read_dir(libraries).is_ok_and(|mut entries| {
        entries
            .any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libstd")))
    })
}

/// Asks rustup for the standard library, once: a refusal is remembered, since a server out of reach costs
/// half a minute. The error says why there is none.
fn add_by_rustup(project: &Project, target: Target) -> Result<(), String> {
    let name = target.name();
    let command_line = format!("rustup target add {name}");
    if which::which("rustup").is_err() {
        return Err("there is no rustup".to_owned());
    }
    let remembered = project.target(&format!("xtask/rustup-target-add-{name}-failed"));
    if let Ok(why) = fs::read_to_string(&remembered) {
        return Err(format!("{why} (not tried again while {} exists)", project.short(&remembered)));
    }
    let mut command = project.command("rustup");
    command.args(["target", "add", name]);
    let what = format!("asking rustup for the standard library of {name}");
    let step = Step::new(&what, command);
    let why = match step.limit(RUSTUP_LIMIT).attempt() {
        Ok(finished) if finished.succeeded() => return Ok(()),
        Ok(finished) if finished.status.is_none() => {
            format!("`{command_line}` took longer than {} s", RUSTUP_LIMIT.as_secs())
        }
        Ok(finished) => {
            let said = finished.output.lines().rfind(|line| line.contains("error")).unwrap_or("it failed");
            format!("`{command_line}`: {}", said.trim())
        }
        Err(error) => format!("{error:#}"),
    };
    eprintln!("{why}");
    // Without the note it is only tried again.
    if let Some(folder) = remembered.parent() {
        let _ = fs::create_dir_all(folder);
    }
    let _ = fs::write(&remembered, &why);
    Err(why)
}

/// What of Debian's Rust is here.
struct Debian {
    /// A rustc that is new enough for this project.
    rustc: bool,
    cargo: bool,
    sources: bool,
    libc: bool,
    linker: Option<PathBuf>,
}

impl Debian {
    fn look(project: &Project) -> Self {
        let version =
            output_of(project.command("/usr/bin/rustc").env_remove("LD_LIBRARY_PATH").arg("--version"));
        let version = version.as_deref().and_then(rustc_version);
        let rustc = version.is_some() && rustc_version(&format!("rustc {}", wanted_rust())) <= version;
        Self {
            rustc,
            // Debian's rustc comes with the cargo and the sources of its own version.
            cargo: rustc && Path::new("/usr/bin/cargo").exists(),
            sources: rustc && Path::new("/usr/lib/rustlib/src/rust/library/std/Cargo.toml").exists(),
            libc: Path::new("/usr/lib/wasm32-wasi/libc.a").exists(),
            linker: linker(project),
        }
    }

    fn missing(&self, project: &Project, target: Target) -> Vec<&'static str> {
        let mut packages = Vec::new();
        if !self.rustc {
            packages.push("rustc-web");
        }
        if !self.cargo {
            packages.push("cargo-web");
        }
        if !self.sources {
            packages.push("rust-web-src");
        }
        if self.linker.is_none() {
            packages.push(apt::first_known(project, &["lld-22", "lld"]).unwrap_or("lld-22"));
        }
        if target == Target::Wasip1 && !self.libc {
            packages.push("wasi-libc");
        }
        packages
    }
}

/// The newest `wasm-ld` of the system, else the one that comes with the Rust in use.
fn linker(project: &Project) -> Option<PathBuf> {
    let newest = (14..40).rev().map(|version| PathBuf::from(format!("/usr/bin/wasm-ld-{version}")));
    newest.chain([PathBuf::from("/usr/bin/wasm-ld")]).find(|path| path.exists()).or_else(|| {
        let host = output_of(project.command("rustc").arg("-vV"))?;
        let host = host.lines().find_map(|line| line.strip_prefix("host: "))?.to_owned();
        let path = own_sysroot(project)?.join("lib/rustlib").join(host).join("bin/rust-lld");
        path.exists().then_some(path)
    })
}

/// The oldest Rust that this project builds with.
fn wanted_rust() -> &'static str {
    env!("CARGO_PKG_RUST_VERSION")
}

/// `rustc 1.96.0 (ac68faa20 2026-05-25)` as (1, 96).
fn rustc_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.strip_prefix("rustc ")?.split(['.', ' ', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn with_first(folder: &str) -> OsString {
    let mut path = OsString::from(folder);
    if let Some(rest) = std::env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_rustc_is_read_from_its_own_line() {
        assert_eq!(
            rustc_version("rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)"),
            Some((1, 96))
        );
        assert_eq!(rustc_version("rustc 1.88"), Some((1, 88)));
        assert_eq!(rustc_version("rustc 1.97.0-nightly"), Some((1, 97)));
        assert_eq!(rustc_version("cargo 1.96.0"), None);
    }

    #[test]
    fn cargo_is_told_of_a_target_by_variables_of_its_name() {
        assert_eq!(Target::Wasip1.variable("LINKER"), "CARGO_TARGET_WASM32_WASIP1_LINKER");
        assert_eq!(Target::Unknown.variable("RUNNER"), "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER");
    }

    #[test]
    fn the_wanted_rust_is_a_version() {
        assert!(rustc_version(&format!("rustc {}", wanted_rust())).is_some());
    }
}
