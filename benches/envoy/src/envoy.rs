//! One Envoy under measurement.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::machine;

/// Long enough for the largest configuration on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(10);

/// It is killed when this is dropped. It would get a SIGTERM when the thread that started it ended, which is the main
/// thread.
pub struct Envoy {
    /// Where callers connect.
    pub addr: SocketAddr,
    admin: SocketAddr,
    child: Child,
    directory: tempfile::TempDir,
}

/// Which cores are whose.
#[derive(Clone, Debug)]
pub struct Cores {
    pub envoy: Vec<usize>,
    pub load: Vec<usize>,
}

impl Envoy {
    /// # Errors
    ///
    /// When it does not become ready; the error ends with what it logged.
    pub fn start(binary: &Path, bootstrap: &Value, workers: u32, cores: &Cores) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let place = |name: &str| directory.path().join(name);
        fs::write(place("envoy.json"), bootstrap.to_string())?;
        let mut command = Command::new(binary);
        command.arg("-c").arg(place("envoy.json")).arg("--admin-address-path").arg(place("admin"));
        command.args(["--concurrency", &workers.to_string(), "--disable-hot-restart", "-l", "error"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(place("log"))?);
        // A child has the cores of the thread that starts it.
        machine::pin(&cores.envoy)?;
        let child = command.spawn().with_context(|| format!("cannot start {}", binary.display()));
        machine::pin(&cores.load)?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut envoy = Self { addr: nowhere, admin: nowhere, child: child?, directory };
        let admin = envoy.until("its admin address", |envoy| {
            fs::read_to_string(envoy.directory.path().join("admin")).ok()?.parse().ok()
        })?;
        envoy.admin = admin;
        envoy.until("ready", |envoy| envoy.get("/ready").ok().filter(|answer| answer.contains("LIVE")))?;
        let listeners = envoy.get("/listeners")?;
        let (_, addr) = listeners.trim().split_once("::").context("Envoy has no listener")?;
        envoy.addr = addr.parse()?;
        Ok(envoy)
    }

    /// Asks until there is an answer.
    ///
    /// # Errors
    ///
    /// When Envoy has ended, or there is none for a minute.
    pub fn until<T>(&mut self, what: &str, ask: impl Fn(&Self) -> Option<T>) -> Result<T> {
        let began = Instant::now();
        loop {
            if let Some(answer) = ask(self) {
                return Ok(answer);
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || DEADLINE < began.elapsed() {
                let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                let tail: Vec<_> = log.lines().rev().take(10).collect();
                let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
                bail!("waited in vain for Envoy: {what}; it logged:\n{tail}");
            }
            thread::sleep(PAUSE);
        }
    }

    /// Lets it do nothing at all, or go on.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn halt(&self, halted: bool) -> Result<()> {
        let signal = if halted { Signal::SIGSTOP } else { Signal::SIGCONT };
        Ok(kill(Pid::from_raw(self.child.id().try_into()?), signal)?)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the administration interface answers.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.admin)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let (head, mut rest) = text.split_once("\r\n\r\n").context("an answer without an end of headers")?;
        if !head.contains("chunked") {
            return Ok(rest.to_owned());
        }
        let mut body = String::new();
        while let Some((length, chunk)) = rest.split_once("\r\n") {
            let length = usize::from_str_radix(length, 16)?;
            body.push_str(chunk.get(..length).context("a chunk that is cut off")?);
            rest = chunk.get(length + 2..).unwrap_or_default();
        }
        Ok(body)
    }

    /// The sum of the counters and gauges whose names end so.
    ///
    /// # Errors
    ///
    /// When Envoy does not answer.
    pub fn sum(&self, name: &str) -> Result<u64> {
        let stats = self.get(&format!("/stats?filter={name}"))?;
        let of_name =
            stats.lines().filter_map(|line| line.split_once(": ")).filter(|it| it.0.ends_with(name));
        Ok(of_name.filter_map(|(_, value)| value.trim().parse::<u64>().ok()).sum())
    }

    /// How many statistics have names that end so.
    ///
    /// # Errors
    ///
    /// When Envoy does not answer.
    pub fn count(&self, name: &str) -> Result<usize> {
        let stats = self.get(&format!("/stats?filter={name}"))?;
        Ok(stats.lines().filter_map(|line| line.split_once(": ")).filter(|it| it.0.ends_with(name)).count())
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
