//! Builds a target for libFuzzer and runs it.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::corpus;

/// What makes the compiler count edges and show comparisons to libFuzzer.
const FLAGS: &str = "--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";

const STILL_AT_WORK: Duration = Duration::from_secs(15);
const TAIL_LINES: usize = 40;

fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from)
        .join("fuzz")
}

/// The longest input that is tried.
fn longest(target: &str) -> usize {
    if target == "config" { 4096 } else { 512 }
}

/// Builds the target and gives its program.
///
/// Its own folder, because the flags differ from those of every other build; only what is made for the named
/// triple gets them, so that build scripts and macros do not.
fn build(target: &str) -> Result<PathBuf> {
    let rustc = Command::new("rustc").arg("-vV").output().context("cannot start rustc")?;
    let said = String::from_utf8(rustc.stdout)?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let folder = target_folder().join("build");
    let program = format!("fuzz_{target}");
    eprintln!("building {program}");
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--release", "--package", "predictgate-fuzz", "--features", "libfuzzer"])
        .args(["--bin", &program, "--target", host, "--target-dir"])
        .arg(&folder)
        .env("RUSTFLAGS", FLAGS)
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true")
        .output()
        .context("cannot start cargo")?;
    ensure!(
        built.status.success(),
        "cannot build {program}:\n{}\nlibFuzzer needs a C++ compiler; on Debian:\n    \
         apt-get install -y --no-install-recommends g++",
        String::from_utf8_lossy(&built.stderr)
    );
    Ok(folder.join(host).join("release").join(program))
}

/// Runs the target so many times and tells how it went; fails where an input breaks it.
///
/// # Errors
///
/// Fails when the target cannot be built or started.
pub fn run(target: &str, executions: u64, seed: u32) -> Result<ExitCode> {
    let program = build(target)?;
    let grown = target_folder().join("corpus").join(target);
    let broken = target_folder().join("broken");
    for folder in [&grown, &broken] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let started = Instant::now();
    let mut child = Command::new(program)
        .arg(&grown)
        .arg(corpus::folder(target))
        .arg(format!("-runs={executions}"))
        .arg(format!("-seed={seed}"))
        .arg(format!("-max_len={}", longest(target)))
        .arg(format!("-artifact_prefix={}/{target}-", broken.display()))
        .args(["-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"])
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start the target {target}"))?;
    let (mut tail, mut last, mut said) = (VecDeque::new(), String::new(), Instant::now());
    for line in BufReader::new(child.stderr.take().context("libFuzzer says nothing")?).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        if line.contains(" cov: ") {
            last.clone_from(&line);
        }
        if said.elapsed() > STILL_AT_WORK {
            said = Instant::now();
            eprintln!("fuzzing {target}: {last}");
        }
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(line);
    }
    let status = child.wait()?;
    let done = tail.iter().find_map(|line| line.strip_prefix("stat::number_of_executed_units: "));
    let done: u64 = done.and_then(|done| done.trim().parse().ok()).unwrap_or_default();
    if !status.success() {
        for line in tail {
            eprintln!("{line}");
        }
        println!("{target}: broken after {done} executions; the input is in {}", broken.display());
        println!("again: cargo run -p predictgate-fuzz -- replay {target} FILE");
        return Ok(ExitCode::FAILURE);
    }
    let seconds = started.elapsed().as_secs_f64();
    let reached = last.split_once("cov: ").map_or("", |(_, reached)| reached);
    println!(
        "{target}: {done} executions in {seconds:.0} s ({:.0} a second), cov: {reached}",
        done as f64 / seconds
    );
    Ok(ExitCode::SUCCESS)
}

/// Keeps what is needed to reach what the corpus and the last runs reached, and what was named by hand.
///
/// # Errors
///
/// Fails when the target cannot be built, or an input breaks it.
pub fn minimise(target: &str) -> Result<()> {
    let program = build(target)?;
    let kept = corpus::folder(target);
    let grown = target_folder().join("corpus").join(target);
    let fewest = target_folder().join("fewest").join(target);
    if fewest.exists() {
        fs::remove_dir_all(&fewest)?;
    }
    for folder in [&fewest, &grown, &kept] {
        fs::create_dir_all(folder)?;
    }
    let output = Command::new(program)
        // Edges alone, not how often each was passed: fewer inputs that reach the same code.
        .args(["-set_cover_merge=1", "-use_counters=0", "-timeout=10"])
        .arg(format!("-max_len={}", longest(target)))
        .args([&fewest, &kept, &grown])
        .output()
        .with_context(|| format!("cannot start the target {target}"))?;
    if !output.status.success() {
        bail!("an input of {target} breaks it:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    for file in corpus::files(target)? {
        if has_libfuzzers_name(&file) {
            fs::remove_file(file)?;
        }
    }
    let (mut files, mut bytes) = (0_u64, 0);
    for entry in fs::read_dir(&fewest)? {
        let entry = entry?;
        bytes += fs::copy(entry.path(), kept.join(entry.file_name()))?;
        files += 1;
    }
    println!("{target}: {files} inputs of {bytes} bytes, beside those that were named by hand");
    Ok(())
}

/// libFuzzer names an input by its SHA-1.
fn has_libfuzzers_name(file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}
