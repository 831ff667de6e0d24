//! A child process that ends with its owner.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fs, io, thread};

use anyhow::{Context, Result, anyhow};

/// A running program. It is killed when this is dropped, and when this process ends in any way.
///
/// The kernel sends the child a SIGTERM when its parent ends, and to the kernel the parent is the thread
/// that spawned it. So each child is spawned by a thread of its own that lives as long as the child does,
/// not by whichever test thread happened to come along.
pub struct Process {
    pid: u32,
    ended: Arc<OnceLock<ExitStatus>>,
    stop: Option<Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

const POLL: Duration = Duration::from_millis(20);

impl Process {
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn spawn(mut command: Command) -> Result<Self> {
        let program = Path::new(command.get_program()).display().to_string();
        let (stop, stopped) = channel();
        let (started, start) = channel();
        let ended = Arc::new(OnceLock::new());
        let status = Arc::clone(&ended);
        // SAFETY: prctl is a bare system call, which is all that may run between fork and exec.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        let keeper = thread::spawn(move || match command.spawn() {
            Err(error) => drop(started.send(Err(error))),
            Ok(child) => {
                drop(started.send(Ok(child.id())));
                keep(child, &stopped, &status);
            }
        });
        let pid = start
            .recv()
            .map_err(|_| anyhow!("the thread that starts {program} ended"))?
            .with_context(|| format!("cannot start {program}"))?;
        Ok(Self { pid, ended, stop: Some(stop), keeper: Some(keeper) })
    }

    /// How the program ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.ended.get().copied()
    }

    /// The memory that the program has in RAM, in bytes: now, and the most that it ever had.
    ///
    /// # Errors
    ///
    /// When the program has ended.
    pub fn resident(&self) -> Result<Resident> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))
            .with_context(|| format!("no process {} any more", self.pid))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            kib.map(|kib| kib * 1024).with_context(|| format!("/proc has no {name} of process {}", self.pid))
        };
        Ok(Resident { now: field("VmRSS:")?, peak: field("VmHWM:")? })
    }
}

/// Bytes in RAM.
#[derive(Clone, Copy, Debug)]
pub struct Resident {
    pub now: u64,
    pub peak: u64,
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// Reaps the child when it ends, or kills it when its owner is gone.
fn keep(mut child: Child, stopped: &Receiver<()>, ended: &OnceLock<ExitStatus>) {
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            let _ = ended.set(status);
            return;
        }
        match stopped.recv_timeout(POLL) {
            Err(RecvTimeoutError::Timeout) => (),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                let _ = child.kill();
                let _ = child.wait();
                return;
            }
        }
    }
}
