//! Envoy's administration interface.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use model_server::client::rest;
use serde_json::Value;

/// The address of one Envoy's administration interface.
#[derive(Clone, Copy, Debug)]
pub struct Admin {
    pub addr: SocketAddr,
}

impl Admin {
    /// # Errors
    ///
    /// When there is no answer, or one other than 200.
    pub async fn get(self, path: &str) -> Result<String> {
        let answer = rest::get(self.addr, path).await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(answer.status == 200, "Envoy answers {} to {path}: {text}", answer.status);
        Ok(text)
    }

    /// True when an Envoy serves that was started with this bootstrap, and not another that was faster to take the port.
    /// No connection, or another answer, is no error: it may be starting.
    pub async fn is_ready(self, bootstrap: &Path) -> bool {
        let Ok(info) = self.json("/server_info").await else { return false };
        info["state"] == "LIVE" && info["command_line_options"]["config_path"].as_str() == bootstrap.to_str()
    }

    /// # Errors
    ///
    /// When there is no answer, or no JSON.
    pub async fn json(self, path: &str) -> Result<Value> {
        serde_json::from_str(&self.get(path).await?).with_context(|| format!("{path} is no JSON"))
    }

    /// A counter or a gauge by its full name; what Envoy does not have yet is 0.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub async fn stat(self, name: &str) -> Result<u64> {
        let stats = self.get("/stats").await?;
        let found = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        found.map_or(Ok(0), |value| value.parse().with_context(|| format!("{name} is {value}, not a number")))
    }

    /// All samples that a Prometheus server would scrape.
    ///
    /// # Errors
    ///
    /// When there is no answer, or it is not in the text format of Prometheus.
    pub async fn prometheus(self) -> Result<Vec<Sample>> {
        let text = self.get("/stats/prometheus").await?;
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(|line| Sample::parse(line).with_context(|| format!("cannot read {line}"))).collect()
    }

    /// The address on which a listener really listens.
    ///
    /// # Errors
    ///
    /// When there is no such listener.
    pub async fn listener(self, name: &str) -> Result<SocketAddr> {
        let listeners = self.json("/listeners?format=json").await?;
        let mut all = listeners["listener_statuses"].as_array().into_iter().flatten();
        let listener = all.find(|listener| listener["name"] == name);
        let listener = listener.with_context(|| format!("no listener {name} in {listeners}"))?;
        let address = &listener["local_address"]["socket_address"];
        let ip = address["address"].as_str().context("a listener without an address")?.parse()?;
        let port = address["port_value"].as_u64().context("a listener without a port")?;
        Ok(SocketAddr::new(ip, u16::try_from(port)?))
    }

    /// How many hosts of a cluster pass their health check, and how many hosts it has.
    ///
    /// # Errors
    ///
    /// When there is no such cluster.
    pub async fn healthy_hosts(self, cluster: &str) -> Result<(usize, usize)> {
        let clusters = self.clusters().await?;
        let found = clusters.iter().find(|status| status["name"] == cluster);
        let hosts = hosts(found.with_context(|| format!("no cluster {cluster}"))?);
        Ok((hosts.iter().filter(|host| !has_failed(host)).count(), hosts.len()))
    }

    /// The cluster and the address of every host that fails its health check, or has not passed one yet.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub async fn unhealthy_hosts(self) -> Result<Vec<String>> {
        let clusters = self.clusters().await?;
        let failed = clusters.iter().flat_map(|status| {
            let failed = hosts(status).iter().filter(|host| has_failed(host));
            failed.map(|host| format!("{} {}", status["name"], host["address"]))
        });
        Ok(failed.collect())
    }

    async fn clusters(self) -> Result<Vec<Value>> {
        let mut clusters = self.json("/clusters?format=json").await?;
        match clusters["cluster_statuses"].take() {
            Value::Array(clusters) => Ok(clusters),
            other => bail!("/clusters: found {other}, wanted a list of clusters"),
        }
    }
}

fn hosts(cluster: &Value) -> &[Value] {
    cluster["host_statuses"].as_array().map_or(&[], Vec::as_slice)
}

fn has_failed(host: &Value) -> bool {
    host["health_status"]["failed_active_health_check"] == true
}

/// One line of a Prometheus scrape.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Sample {
    /// True when the name is this and all these labels have these values; there may be more labels.
    pub fn is(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.name == name
            && labels.iter().all(|&(label, value)| self.labels.get(label).is_some_and(|has| has == value))
    }

    /// Reads `name{label="value",...} 1`. Values with escaped quotes do not come from Envoy's names.
    fn parse(line: &str) -> Option<Self> {
        let (head, value) = line.rsplit_once(' ')?;
        let (name, labels) = match head.split_once('{') {
            None => (head, ""),
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
        };
        let mut rest = labels;
        let mut labels = BTreeMap::new();
        while !rest.is_empty() {
            let (label, tail) = rest.split_once("=\"")?;
            let (value, tail) = tail.split_once('"')?;
            labels.insert(label.to_owned(), value.to_owned());
            rest = tail.strip_prefix(',').unwrap_or(tail);
        }
        Some(Self { name: name.to_owned(), labels, value: value.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_and_without_labels() {
        let sample = Sample::parse(r#"requests{model="res,net",code="OK"} 3"#).unwrap();
        assert!(sample.is("requests", &[("model", "res,net"), ("code", "OK")]));
        assert!(!sample.is("requests", &[("model", "resnet")]));
        assert!((sample.value - 3.0).abs() < f64::EPSILON);
        assert!(Sample::parse("held{} 0").unwrap().labels.is_empty());
        assert!(Sample::parse("held 0").unwrap().labels.is_empty());
        assert_eq!(Sample::parse("held"), None);
    }
}
