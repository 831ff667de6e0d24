//! A running istiod.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use predictgate_e2e::admin::Admin;
use predictgate_e2e::plugin::read_yaml;
use predictgate_e2e::process::Process;
use predictgate_e2e::tools;
use predictgate_e2e::wait::until;
use serde_json::Value;
use tempfile::TempDir;

use crate::Manifests;
use crate::log::{end_of, read};

const LOG: &str = "istiod.log";
const CONFIG: &str = "config";
const MESH: &str = "mesh.yaml";
/// What the program says before a file that istiod's validation refuses.
const REFUSED: &str = "refused: ";

/// An istiod that serves. It is killed when this is dropped.
pub struct Istiod {
    /// Discovery and the pages under `/debug`.
    pub addr: SocketAddr,
    // Ended before its directory goes.
    _process: Process,
    directory: TempDir,
}

impl Istiod {
    /// # Errors
    ///
    /// When istiod does not become ready; the error has what it said last.
    pub async fn start(manifests: &Manifests) -> Result<Self> {
        let (process, directory) = spawn(manifests)?;
        let log = directory.path().join(LOG);
        let (alive, said) = (&process, log.as_path());
        let addr = until("istiod to be ready", || async move {
            if let Some(status) = alive.ended() {
                bail!("istiod has ended, {status}");
            }
            Ok(address(&read(said)))
        })
        .await
        .with_context(|| end_of("istiod", &log))?;
        Ok(Self { addr, directory, _process: process })
    }

    /// Hands it other manifests while it serves.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn apply(&self, manifests: &Manifests) -> Result<()> {
        manifests.write(&self.directory.path().join(CONFIG))
    }

    /// The objects that it holds, as `KIND/NAME`.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn holds(&self) -> Result<Vec<String>> {
        let held = (Admin { addr: self.addr }).json("/debug/configz").await?;
        let held = held.as_array().context("/debug/configz is no list")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(held.iter().map(|it| format!("{}/{}", text(&it["kind"]), text(&it["metadata"]["name"]))).collect())
    }

    pub fn log(&self) -> String {
        read(&self.directory.path().join(LOG))
    }
}

impl Drop for Istiod {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", end_of("istiod", &self.directory.path().join(LOG)));
        }
    }
}

/// What istiod's own validation says of manifests that it must not take.
///
/// # Errors
///
/// When it takes them, or ends for another reason.
pub async fn verdict(manifests: &Manifests) -> Result<String> {
    let (process, directory) = spawn(manifests)?;
    let log = directory.path().join(LOG);
    let (alive, said) = (&process, log.as_path());
    until("istiod to refuse", || async move {
        let ended = alive.ended().is_some();
        let text = read(said);
        if let Some((why, _)) = text.split_once(REFUSED).and_then(|(_, rest)| rest.split_once('\n')) {
            return Ok(Some(why.to_owned()));
        }
        if ended || address(&text).is_some() {
            bail!("istiod has not refused them");
        }
        Ok(None)
    })
    .await
    .with_context(|| end_of("istiod", &log))
}

fn spawn(manifests: &Manifests) -> Result<(Process, TempDir)> {
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let config = directory.path().join(CONFIG);
    fs::create_dir(&config)?;
    manifests.write(&config)?;
    let log = File::create(directory.path().join(LOG))?;
    let mut command = Command::new(tools::istiod()?);
    let mesh = directory.path().join(MESH);
    fs::write(&mesh, mesh_configuration()?.to_string())?;
    command.arg("-config").arg(&config).arg("-mesh").arg(&mesh);
    // Filters that only Istio's own build of Envoy has.
    command.env("PILOT_ENABLE_METADATA_EXCHANGE", "false").env("PILOT_ENABLE_ALPN_FILTER", "false");
    command.current_dir(directory.path()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok((Process::spawn(command)?, directory))
}

/// What the values for the Helm chart make of the mesh's configuration.
fn mesh_configuration() -> Result<Value> {
    let values = read_yaml(&tools::root().join("istio/istiod-values.yaml"))?;
    ensure!(values["meshConfig"].is_object(), "istiod-values.yaml has no meshConfig");
    Ok(values["meshConfig"].clone())
}

/// Where it serves, once it says that it does.
fn address(log: &str) -> Option<SocketAddr> {
    let (log, _) = log.split_once("\tready\n")?;
    let (_, rest) = log.split_once("starting HTTP service at ")?;
    rest.lines().next()?.trim().parse().ok()
}
