//! Builds the filter for wasm32-wasip1, with whichever Rust has a standard library for it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::apt;
use crate::project::Project;
use crate::run::{Step, output_of, unavailable};

const TARGET: &str = "wasm32-wasip1";
/// How long rustup may take for the standard library; where its server is out of reach it may hang.
const RUSTUP_LIMIT: Duration = Duration::from_secs(30);

/// A Rust that can build for wasm32-wasip1.
pub enum Toolchain {
    /// The one that runs this command, with the target's standard library beside it.
    Own,
    /// Debian's, which builds the standard library from its sources.
    Debian { linker: PathBuf },
}

/// Builds `target/predictgate.wasm`.
///
/// # Errors
///
/// Says what is missing and how to get it where no Rust can build for the target;
/// else gives the compiler's own words.
pub fn build(project: &Project) -> Result<PathBuf> {
    let toolchain = Toolchain::find(project)?;
    let command = toolchain.cargo(project, &["build", "--profile", "wasm", "-p", "predictgate-filter"]);
    let what = format!("building the filter with {}", toolchain.name());
    Step::new(&what, command).run(&project.logs())?;
    let built = toolchain.folder(project).join(TARGET).join("wasm/predictgate_filter.wasm");
    let module = project.module();
    let bytes = replace_if_changed(&built, &module)?;
    #[allow(clippy::cast_precision_loss, reason = "a module is far smaller than 2^52 bytes")]
    let kib = bytes as f64 / 1024.0;
    eprintln!("{}: {kib:.0} KiB", project.short(&module));
    Ok(module)
}

/// Lints the filter as it is built: for wasm32-wasip1.
///
/// # Errors
///
/// Says what is missing where no clippy is to be had for the toolchain; else gives clippy's own words.
pub fn clippy(project: &Project) -> Result<()> {
    let toolchain = Toolchain::find(project)?;
    if matches!(toolchain, Toolchain::Debian { .. }) && !Path::new("/usr/bin/cargo-clippy").exists() {
        apt::install(project, "Debian's Rust has no clippy here", &["rust-web-clippy"])?;
    }
    // In the profile of the build, whose standard library and macros are there already.
    let mut command = toolchain.cargo(project, &["clippy", "--profile", "wasm", "-p", "predictgate-filter"]);
    command.args(["--", "-D", "warnings"]);
    let what = format!("linting the filter for {TARGET} with {}", toolchain.name());
    Step::new(&what, command).run(&project.logs()).map(drop)
}

impl Toolchain {
    fn find(project: &Project) -> Result<Self> {
        if own_sysroot(project).is_some_and(|sysroot| has_std(&sysroot)) {
            return Ok(Self::Own);
        }
        let rustup = add_by_rustup(project);
        if rustup.is_ok() && own_sysroot(project).is_some_and(|sysroot| has_std(&sysroot)) {
            return Ok(Self::Own);
        }
        let why = match rustup {
            Ok(()) => format!("rustup has added {TARGET} to another toolchain than the one in use"),
            Err(why) => why,
        };
        let debian = Debian::look(project);
        let missing = debian.missing(project);
        if !missing.is_empty() {
            let why = format!("no Rust here has a standard library for {TARGET}: {why}");
            apt::install(project, &why, &missing)?;
        }
        let debian = Debian::look(project);
        match (debian.missing(project).as_slice(), debian.linker) {
            ([], Some(linker)) => Ok(Self::Debian { linker }),
            (missing, _) => Err(unavailable(format!(
                "the installed packages do not give what is needed to build for {TARGET}: still missing, or too old: {}",
                missing.join(", ")
            ))),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Own => "the standard library of the Rust in use",
            Self::Debian { .. } => "Debian's Rust, the standard library from its sources",
        }
    }

    /// Each toolchain has a target folder of its own, so that neither throws away the other's work.
    fn folder(&self, project: &Project) -> PathBuf {
        project.target(match self {
            Self::Own => "wasm",
            Self::Debian { .. } => "wasm-debian",
        })
    }

    /// `cargo` with `arguments` for the target.
    fn cargo(&self, project: &Project, arguments: &[&str]) -> Command {
        let mut command = match self {
            Self::Own => project.cargo(arguments),
            Self::Debian { linker } => {
                let mut command = project.command("/usr/bin/cargo");
                command
                    .args(arguments)
                    .arg("-Zbuild-std=std,panic_abort")
                    .env("PATH", with_first("/usr/bin"))
                    .env("RUSTC", "/usr/bin/rustc")
                    // -Zbuild-std is for a nightly cargo, or one that takes itself for it.
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env("CARGO_TARGET_WASM32_WASIP1_LINKER", linker)
                    .env(
                        "CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS",
                        "-Clink-self-contained=no -Lnative=/usr/lib/wasm32-wasi -Clinker-flavor=wasm-ld",
                    )
                    // The libraries of the cargo that runs this command are not for another one.
                    .env_remove("LD_LIBRARY_PATH")
                    .env_remove("CARGO");
                command
            }
        };
        command
            .args(["--target", TARGET, "--target-dir"])
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

fn has_std(sysroot: &Path) -> bool {
    let libraries = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    fs::read_dir(libraries).is_ok_and(|mut entries| {
        entries
            .any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libstd")))
    })
}

/// Asks rustup for the standard library, once: a refusal is remembered, since a server out of reach costs
/// half a minute. The error says why there is none.
fn add_by_rustup(project: &Project) -> Result<(), String> {
    let command_line = format!("rustup target add {TARGET}");
    if which::which("rustup").is_err() {
        return Err("there is no rustup".to_owned());
    }
    let remembered = project.target("xtask/rustup-target-add-failed");
    if let Ok(why) = fs::read_to_string(&remembered) {
        return Err(format!("{why} (not tried again while {} exists)", project.short(&remembered)));
    }
    let mut command = project.command("rustup");
    command.args(["target", "add", TARGET]);
    let step = Step::new("asking rustup for the standard library of wasm32-wasip1", command);
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

    fn missing(&self, project: &Project) -> Vec<&'static str> {
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
        if !self.libc {
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

/// Puts a copy of `from` at `to` in one step and gives its size; an equal file stays as it is.
fn replace_if_changed(from: &Path, to: &Path) -> Result<usize> {
    let bytes = fs::read(from).with_context(|| format!("cannot read the built module {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(bytes.len());
    }
    let new = to.with_extension("wasm.new");
    fs::write(&new, &bytes).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, to).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(bytes.len())
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
    fn the_wanted_rust_is_a_version() {
        assert!(rustc_version(&format!("rustc {}", wanted_rust())).is_some());
    }
}
