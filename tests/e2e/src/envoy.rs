//! A running Envoy.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::admin::Admin;
use crate::files::Files;
use crate::plugin::PluginFile;
use crate::process::{Process, Resident};
use crate::scenario::Scenario;
use crate::wait::until;

/// An Envoy that serves. It is killed when this is dropped; if that is because a test failed, it leaves the
/// end of its log on standard error.
pub struct Envoy {
    /// Where callers connect.
    pub addr: SocketAddr,
    pub admin: Admin,
    process: Process,
    files: Files,
    updates: u64,
}

/// What became of a new configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    Accepted,
    Rejected,
}

const LOG: &str = "envoy.log";
const ACCESS_LOG: &str = "access.log";
const DISCOVERY: &str = "extension_config_discovery.http_filter.predictgate";
/// What counts listeners, or parts of them, that were replaced and end with their connections.
const DRAINING: &str = "listener_manager.total_filter_chains_draining";
const STARTS: usize = 3;

impl Envoy {
    /// # Errors
    ///
    /// When Envoy does not become ready; the error ends with what Envoy logged last.
    pub async fn start(scenario: Scenario) -> Result<Self> {
        for _ in 1..STARTS {
            match Self::start_once(&scenario).await {
                Err(error) if error.to_string().contains("Address already in use") => (),
                answer => return answer,
            }
        }
        Self::start_once(&scenario).await
    }

    async fn start_once(scenario: &Scenario) -> Result<Self> {
        let files = Files::write(scenario)?;
        let directory = files.directory.path();
        let mut command = Command::new(&scenario.envoy);
        command.arg("-c").arg(&files.bootstrap);
        command.args(["--concurrency", &scenario.concurrency.to_string()]);
        // Several Envoys run at once here, and none is ever restarted hot.
        command.arg("--disable-hot-restart");
        command.args(["--file-flush-interval-msec", "20"]);
        // At `info` the component `main` begins every log with the list of all extensions.
        let levels = scenario.log.as_ref().map_or(String::new(), |levels| format!(",{levels}"));
        command.args(["--component-log-level", &format!("main:warning{levels}")]);
        if let Some(seconds) = scenario.drain_seconds {
            command.args(["--drain-time-s", &seconds.to_string()]);
        }
        // The times in the log are those of the machine's zone.
        command.env("TZ", "UTC");
        command.stdin(Stdio::null());
        command.stdout(File::create(directory.join(ACCESS_LOG))?);
        command.stderr(File::create(directory.join(LOG))?);
        let process = Process::spawn(command)?;
        let admin = Admin { addr: files.admin };
        let mut envoy = Self { addr: files.admin, admin, process, files, updates: 0 };
        let (ready, process) = (&envoy, &envoy.process);
        until("Envoy to be ready", || async move {
            match process.ended() {
                Some(status) => bail!("Envoy has ended, {status}"),
                None => Ok(ready.admin.is_ready(&ready.files.bootstrap).await.then_some(())),
            }
        })
        .await
        .map_err(|error| error.context(envoy.log_end()))?;
        envoy.addr = admin.listener("models").await?;
        Ok(envoy)
    }

    /// Where another listener of the scenario listens.
    ///
    /// # Errors
    ///
    /// When there is no such listener.
    pub async fn listener(&self, name: &str) -> Result<SocketAddr> {
        self.admin.listener(name).await
    }

    /// How many connections of callers each worker has taken since Envoy started.
    ///
    /// # Errors
    ///
    /// When Envoy does not answer.
    pub async fn connections_by_worker(&self) -> Result<Vec<u64>> {
        // The address is the one that was asked for, which here every listener has; only callers use one.
        let stats = self.admin.get("/stats?filter=^listener\\.127.*worker_.*downstream_cx_total").await?;
        let count = |line: &str| {
            let (name, count) = line.split_once(": ")?;
            name.contains(".worker_").then(|| count.parse().ok())?
        };
        stats.lines().map(|line| count(line).with_context(|| format!("{line} is no count"))).collect()
    }

    /// The plugin file that Envoy has been given last.
    pub fn plugin(&self) -> &PluginFile {
        self.files.plugin()
    }

    /// Hands Envoy another plugin configuration while it serves, and waits until Envoy has judged it.
    ///
    /// # Errors
    ///
    /// When Envoy does not take notice.
    pub async fn configure(&mut self, configuration: &str) -> Result<Update> {
        let mut plugin = self.files.plugin().clone();
        plugin.configure(configuration);
        self.publish(plugin).await
    }

    /// Hands Envoy another plugin file while it serves, and waits until Envoy has judged it.
    ///
    /// # Errors
    ///
    /// When Envoy does not take notice.
    pub async fn publish(&mut self, mut plugin: PluginFile) -> Result<Update> {
        self.updates += 1;
        plugin.0["version_info"] = format!("update {}", self.updates).into();
        let before = self.judged().await?;
        self.files.replace_plugin(plugin)?;
        until("Envoy to judge the new configuration", || async {
            let (accepted, rejected) = self.judged().await?;
            Ok(match () {
                () if before.0 < accepted => Some(Update::Accepted),
                () if before.1 < rejected => Some(Update::Rejected),
                () => None,
            })
        })
        .await
    }

    /// Hands Envoy another listener `models` while it serves, and waits until new connections come to it.
    ///
    /// # Errors
    ///
    /// When the listener is in the bootstrap, or Envoy does not take the new one.
    pub async fn replace_listener(&mut self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let draining = self.admin.stat(DRAINING).await?;
        self.files.replace_listener(change)?;
        until("Envoy to take the new listener", || async {
            let rejected = self.admin.stat("listener_manager.lds.update_rejected").await?;
            ensure!(rejected == 0, "Envoy has rejected the listener");
            Ok((draining < self.admin.stat(DRAINING).await?).then_some(()))
        })
        .await
    }

    /// How many plugin files Envoy has accepted, and how many it has rejected.
    ///
    /// # Errors
    ///
    /// When Envoy does not answer.
    pub async fn judged(&self) -> Result<(u64, u64)> {
        let accepted = self.admin.stat(&format!("{DISCOVERY}.update_success")).await?;
        let rejected = self.admin.stat(&format!("{DISCOVERY}.update_rejected")).await?;
        Ok((accepted, rejected))
    }

    /// Waits until every host of every cluster passes its health check.
    ///
    /// # Errors
    ///
    /// When one does not within the deadline.
    pub async fn wait_until_healthy(&self) -> Result<()> {
        until("all hosts to be healthy", || async {
            Ok(self.admin.unhealthy_hosts().await?.is_empty().then_some(()))
        })
        .await
    }

    /// Waits until some host of a cluster passes its health check.
    ///
    /// # Errors
    ///
    /// When none does within the deadline.
    pub async fn wait_for_healthy(&self, cluster: &str) -> Result<()> {
        until(format!("a healthy host in {cluster}"), || async {
            Ok((0 < self.admin.healthy_hosts(cluster).await?.0).then_some(()))
        })
        .await
    }

    /// Waits until no host of a cluster passes its health check.
    ///
    /// # Errors
    ///
    /// When one still does at the deadline.
    pub async fn wait_for_none_healthy(&self, cluster: &str) -> Result<()> {
        until(format!("no healthy host in {cluster}"), || async {
            Ok((self.admin.healthy_hosts(cluster).await?.0 == 0).then_some(()))
        })
        .await
    }

    /// What Envoy has logged, the filter's words among it.
    pub fn log(&self) -> String {
        whole_lines(&fs::read(self.files.directory.path().join(LOG)).unwrap_or_default())
    }

    /// The access log so far.
    ///
    /// # Errors
    ///
    /// When a line is not JSON.
    pub fn access_log(&self) -> Result<Vec<Value>> {
        self.access_lines()
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
            .collect()
    }

    /// The whole lines of the access log so far, whatever their form is.
    pub fn access_lines(&self) -> String {
        whole_lines(&fs::read(self.files.directory.path().join(ACCESS_LOG)).unwrap_or_default())
    }

    /// Waits for an access log entry.
    ///
    /// # Errors
    ///
    /// When there is none within the deadline.
    pub async fn wait_for_access(&self, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
        until("an entry of the access log", || async { Ok(self.access_log()?.into_iter().find(&is_it)) })
            .await
            .map_err(|error| error.context(format!("{:#?}", self.access_log())))
    }

    /// The memory that Envoy has in RAM.
    ///
    /// # Errors
    ///
    /// When Envoy has ended.
    pub fn resident(&self) -> Result<Resident> {
        self.process.resident()
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let start = lines.len().saturating_sub(25);
        format!("the end of Envoy's log:\n{}\n", lines.get(start..).unwrap_or_default().join("\n"))
    }
}

/// The lines of a file to which somebody writes; the last may be half written.
fn whole_lines(bytes: &[u8]) -> String {
    let end = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

impl Drop for Envoy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_end());
        }
    }
}
