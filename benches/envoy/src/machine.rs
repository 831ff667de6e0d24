//! What the machine tells: CPU times, memory, and what it is.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Sub;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

/// CPU time that was used so far, by the kernel's own account in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Cpu(Duration);

impl Cpu {
    /// Of all threads of a process.
    ///
    /// # Errors
    ///
    /// When there is no such process any more.
    pub fn of_process(pid: u32) -> Result<Self> {
        let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed())).context("Envoy has ended")?;
        Ok(Self(clock.now()?.into()))
    }

    /// # Errors
    ///
    /// Never on Linux.
    pub fn of_this_thread() -> Result<Self> {
        Ok(Self(ClockId::CLOCK_THREAD_CPUTIME_ID.now()?.into()))
    }

    /// Of the threads of a process whose name begins so.
    ///
    /// # Errors
    ///
    /// When there is no such process, or the kernel keeps no account of its threads.
    pub fn of_threads(pid: u32, name: &str) -> Result<Self> {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task")).context("Envoy has ended")? {
            let task = task?.path();
            // A thread may end at any moment.
            let Ok(comm) = fs::read_to_string(task.join("comm")) else { continue };
            if comm.starts_with(name) {
                let stat = fs::read_to_string(task.join("schedstat")).context("no schedstat of a thread")?;
                sum += stat.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0);
            }
        }
        Ok(Self(Duration::from_nanos(sum)))
    }
}

impl Sub for Cpu {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The cores that this process may use.
///
/// # Errors
///
/// When the system does not tell.
pub fn cores() -> Result<Vec<usize>> {
    let set = nix::sched::sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false)).collect())
}

/// Keeps this thread, and what it starts from now on, to these cores.
///
/// # Errors
///
/// When it may not use them.
pub fn pin(cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot keep to the cores {cores:?}"))
}

/// Memory of a process in RAM, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Resident {
    pub now: u64,
    /// The most since [`forget_peak`].
    pub peak: u64,
}

/// # Errors
///
/// When there is no such process any more.
pub fn resident(pid: u32) -> Result<Resident> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("Envoy has ended")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.map(|kib| kib * 1024).with_context(|| format!("/proc has no {name}"))
    };
    Ok(Resident { now: field("VmRSS:")?, peak: field("VmHWM:")? })
}

/// # Errors
///
/// When this process may not.
pub fn forget_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("cannot reset the peak of memory")
}

/// What the figures were measured on and with.
///
/// # Errors
///
/// When Envoy does not tell its version.
pub fn describe(envoy: &Path, cores: usize) -> Result<BTreeMap<String, String>> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map_or("unknown", |(_, value)| value.trim()).to_owned()
    };
    let said = |program: &Path| {
        let output = Command::new(program).arg("--version").output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let version = said(envoy).with_context(|| format!("{} does not run", envoy.display()))?;
    let version = version.split_once("version:").map_or("", |(_, version)| version.trim());
    ensure!(!version.is_empty(), "{} --version names no Envoy", envoy.display());
    let kib: u64 = field(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
    let described = [
        ("cpu", field(&read("/proc/cpuinfo"), "model name")),
        ("cores", cores.to_string()),
        ("memory", format!("{} GiB", kib.div_ceil(1024 * 1024))),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("envoy", version.to_owned()),
        ("predictgate", env!("CARGO_PKG_VERSION").to_owned()),
        ("rust", said(Path::new("rustc")).unwrap_or_default()),
    ];
    Ok(described.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// SplitMix64: every run draws the same.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `among`.
    pub fn below(&mut self, among: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        ((u128::from(mixed) * u128::from(among)) >> 64) as u32
    }
}
