//! A Prometheus with the shipped scrape configuration and rules, in which the addresses and the times are others.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use model_server::client::rest;
use predictgate_e2e::plugin::read_yaml;
use predictgate_e2e::process::Process;
use predictgate_e2e::tools::{self, root};
use predictgate_e2e::wait::until;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Ends when this is dropped.
pub struct Prometheus {
    addr: SocketAddr,
    process: Process,
    folder: TempDir,
}

const STARTS: usize = 3;

/// What an alert is, from quiet to loud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alert {
    Inactive,
    Pending,
    Firing,
}

impl Prometheus {
    /// Lets a Prometheus scrape these instead of the shipped targets, so often that a test need not wait.
    pub async fn start(targets: &[SocketAddr]) -> Result<Self> {
        for _ in 1..STARTS {
            match Self::start_once(targets).await {
                // Somebody else was given the port that was free.
                Err(error) if error.to_string().contains("address already in use") => (),
                answer => return answer,
            }
        }
        Self::start_once(targets).await
    }

    async fn start_once(targets: &[SocketAddr]) -> Result<Self> {
        let folder = TempDir::new()?;
        let shipped = root().join("envoy/prometheus");
        let mut configuration = read_yaml(&shipped.join("prometheus.yml"))?;
        configuration["global"]["scrape_interval"] = json!("200ms");
        configuration["scrape_configs"][0]["static_configs"][0]["targets"] = json!(targets);
        let mut rules = read_yaml(&shipped.join("rules.yml"))?;
        for group in rules["groups"].as_array_mut().context("rules.yml has no groups")? {
            group["interval"] = json!("500ms");
        }
        // JSON is YAML.
        let place = |name: &str| folder.path().join(name);
        fs::write(place("prometheus.yml"), configuration.to_string())?;
        fs::write(place("rules.yml"), rules.to_string())?;

        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = Command::new(tools::prometheus()?);
        command.arg(format!("--config.file={}", place("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", place("data").display()));
        command.arg(format!("--web.listen-address={free}"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(place("log"))?);
        let process = Process::spawn(command)?;
        let prometheus = Self { addr: free, process, folder };
        until("Prometheus to be ready", || async {
            if let Some(status) = prometheus.process.ended() {
                let log = fs::read_to_string(prometheus.folder.path().join("log"))?;
                bail!("Prometheus has ended, {status}:\n{log}");
            }
            Ok(rest::get(prometheus.addr, "/-/ready").await.is_ok_and(|it| it.status == 200).then_some(()))
        })
        .await?;
        Ok(prometheus)
    }

    /// The labels of each series that answers a query.
    pub async fn series(&self, query: &str) -> Result<Vec<Value>> {
        let path = format!("/api/v1/query?query={}", percent_encoded(query));
        let mut answer = self.get(&path).await.with_context(|| query.to_owned())?;
        let Value::Array(result) = answer["result"].take() else { bail!("{query}: {answer}") };
        Ok(result.into_iter().map(|mut series| series["metric"].take()).collect())
    }

    /// The same, once there are any: after a scrape that took too long nothing shows until the next one.
    pub async fn shown(&self, query: &str) -> Result<Vec<Value>> {
        until(format!("{query} to show something"), || async {
            let series = self.series(query).await?;
            Ok((!series.is_empty()).then_some(series))
        })
        .await
    }

    /// How the rules are that alert, by name, in their order.
    pub async fn alerts(&self) -> Result<Vec<(String, Alert)>> {
        let rules = self.rules().await?;
        let alerts = rules.iter().filter(|rule| rule["type"] == "alerting").map(|rule| {
            let state = match rule["state"].as_str() {
                Some("inactive") => Alert::Inactive,
                Some("pending") => Alert::Pending,
                Some("firing") => Alert::Firing,
                _ => bail!("found {rule}, wanted a state that an alert has"),
            };
            Ok((rule["name"].as_str().unwrap_or_default().to_owned(), state))
        });
        alerts.collect()
    }

    /// The names under which rules record.
    pub async fn recorded(&self) -> Result<Vec<String>> {
        let rules = self.rules().await?;
        let recorded = rules.iter().filter(|rule| rule["type"] == "recording");
        Ok(recorded.filter_map(|rule| rule["name"].as_str().map(str::to_owned)).collect())
    }

    /// Every rule; none may have failed.
    async fn rules(&self) -> Result<Vec<Value>> {
        let answer = self.get("/api/v1/rules").await?;
        let groups = answer["groups"].as_array().into_iter().flatten();
        let rules: Vec<Value> =
            groups.flat_map(|group| group["rules"].as_array().into_iter().flatten().cloned()).collect();
        for rule in &rules {
            ensure!(rule["health"] != "err", "{rule}");
        }
        Ok(rules)
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let answer = rest::get(self.addr, path).await?;
        let mut body: Value = serde_json::from_slice(&answer.body).with_context(|| path.to_owned())?;
        ensure!(body["status"] == "success", "{body}");
        Ok(body["data"].take())
    }
}

/// Runs promtool, and gives what it says when it objects.
pub fn promtool(arguments: &[&str], file: &Path) -> Result<()> {
    let promtool = tools::prometheus()?.with_file_name("promtool");
    let output = Command::new(&promtool).args(arguments).arg(file).output();
    let output = output.with_context(|| promtool.display().to_string())?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    Ok(())
}

fn percent_encoded(text: &str) -> String {
    let encoded = |byte: u8| {
        if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(encoded).collect()
}
