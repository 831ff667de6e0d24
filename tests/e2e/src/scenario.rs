//! A shipped configuration of Envoy, made to run on this machine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::files::Files;
use crate::plugin::{PluginFile, read_yaml};
use crate::{Envoy, tools};

/// What one Envoy will run with.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub bootstrap: Value,
    pub plugin: PluginFile,
    pub concurrency: u32,
    /// What `--component-log-level` takes, such as `wasm:debug`.
    pub log: Option<String>,
    /// Given where the listener `models` comes from a file of its own: how long connections of one that was replaced
    /// may go on.
    pub drain_seconds: Option<u32>,
    pub(crate) envoy: PathBuf,
    endpoints: BTreeMap<(String, u16), SocketAddr>,
}

impl Scenario {
    /// The scenario of a folder of `envoy/`, such as `quickstart`, with the built filter.
    ///
    /// # Errors
    ///
    /// When a file is not as expected, or `PREDICTGATE_ENVOY` or `PREDICTGATE_WASM` names none.
    pub fn shipped(folder: &str) -> Result<Self> {
        let directory = tools::root().join("envoy").join(folder);
        let mut plugin = PluginFile::load(&directory.join("predictgate.yaml"))?;
        plugin.use_module(&tools::wasm()?);
        let bootstrap = read_yaml(&directory.join("envoy.yaml"))?;
        let scenario = Self {
            bootstrap,
            plugin,
            concurrency: 1,
            log: None,
            drain_seconds: None,
            envoy: tools::envoy()?,
            endpoints: BTreeMap::new(),
        };
        Ok(scenario.with_frequent_health_checks())
    }

    /// The address that stands for `host:port` of the shipped clusters.
    #[must_use]
    pub fn endpoint(mut self, host: &str, port: u16, at: SocketAddr) -> Self {
        self.endpoints.insert((host.to_owned(), port), at);
        self
    }

    /// The servers that stand for one host of the shipped clusters, with TensorFlow Serving's usual ports.
    #[must_use]
    pub fn host(self, host: &str, grpc: SocketAddr, rest: SocketAddr) -> Self {
        self.endpoint(host, 8500, grpc).endpoint(host, 8501, rest)
    }

    #[must_use]
    pub fn concurrency(mut self, workers: u32) -> Self {
        self.concurrency = workers;
        self
    }

    /// Lets Envoy discover the listener `models` from a file, and gives the connections of one that was replaced so
    /// many seconds; Envoy's default is ten minutes.
    #[must_use]
    pub fn discovered_listener(mut self, drain_seconds: u32) -> Self {
        self.drain_seconds = Some(drain_seconds);
        self
    }

    /// Changes the bootstrap.
    #[must_use]
    pub fn bootstrap(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.bootstrap);
        self
    }

    /// Changes the HTTP connection manager of the listener `models`.
    #[must_use]
    pub fn connection_manager(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(connection_manager(&mut self.bootstrap));
        self
    }

    /// Changes the filter's settings in Envoy, not its own configuration.
    #[must_use]
    pub fn filter(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.plugin.wasm()["config"]);
        self
    }

    /// Replaces the plugin's configuration by a text.
    #[must_use]
    pub fn configured(mut self, configuration: &str) -> Self {
        self.plugin.configure(configuration);
        self
    }

    /// Changes the plugin's configuration.
    ///
    /// # Errors
    ///
    /// When the present one is not JSON.
    pub fn reconfigured(self, change: impl FnOnce(&mut Value)) -> Result<Self> {
        let mut configuration = self.plugin.configuration()?;
        change(&mut configuration);
        Ok(self.configured(&configuration.to_string()))
    }

    /// Switches the filter off for every route, as Envoy can by itself.
    #[must_use]
    pub fn with_the_filter_disabled(self) -> Self {
        self.connection_manager(|manager| {
            manager["route_config"]["virtual_hosts"][0]["typed_per_filter_config"] = json!({
                "predictgate": {
                    "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
                    "disabled": true,
                }
            });
        })
    }

    /// Puts the filter into the bootstrap instead of a file of its own, so that `--mode validate` reads it.
    #[must_use]
    pub fn inlined(mut self) -> Self {
        let wasm = self.plugin.wasm().take();
        for filter in items(connection_manager(&mut self.bootstrap), "/http_filters") {
            if filter["config_discovery"].is_object() {
                *filter = json!({ "name": filter["name"], "typed_config": wasm });
            }
        }
        self
    }

    /// # Errors
    ///
    /// When Envoy does not become ready; the error ends with what Envoy logged last.
    pub async fn start(self) -> Result<Envoy> {
        Envoy::start(self).await
    }

    /// What `envoy --mode validate` says.
    ///
    /// # Errors
    ///
    /// When Envoy cannot be run.
    pub fn validate(self) -> Result<Validation> {
        let files = Files::write(&self)?;
        let mut command = Command::new(&self.envoy);
        command.args(["--mode", "validate", "-c"]).arg(&files.bootstrap);
        let output = command.output().with_context(|| self.envoy.display().to_string())?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(Validation { ok: output.status.success(), text })
    }

    /// Failover is tested in seconds, which takes health checks more often than a deployment wants. They are
    /// patient, as the servers may share a busy thread with a test; one that is gone refuses the connection.
    fn with_frequent_health_checks(self) -> Self {
        self.bootstrap(|bootstrap| {
            for cluster in items(bootstrap, "/static_resources/clusters") {
                for check in items(cluster, "/health_checks") {
                    for interval in ["interval", "no_traffic_interval", "unhealthy_interval"] {
                        check[interval] = json!("0.1s");
                    }
                    check["timeout"] = json!("10s");
                }
            }
        })
    }

    /// Puts the addresses of this machine in place of the shipped ones.
    ///
    /// # Errors
    ///
    /// When an endpoint has no address on this machine.
    pub(crate) fn substitute(&mut self, admin: u16, plugin: &Path) -> Result<()> {
        let admin_socket = &mut self.bootstrap["admin"]["address"]["socket_address"];
        let shipped_admin = admin_socket.clone();
        admin_socket["port_value"] = admin.into();
        for listener in items(&mut self.bootstrap, "/static_resources/listeners") {
            listener["address"]["socket_address"] = json!({ "address": "127.0.0.1", "port_value": 0 });
            for filter in items(listener, "/filter_chains/0/filters/0/typed_config/http_filters") {
                let source = filter.pointer_mut("/config_discovery/config_source/path_config_source/path");
                if let Some(path) = source {
                    *path = json!(plugin);
                }
            }
        }
        for cluster in items(&mut self.bootstrap, "/static_resources/clusters") {
            let Some(socket) = cluster.pointer_mut(ONLY_SOCKET) else { continue };
            if *socket == shipped_admin {
                *socket = json!({ "address": "127.0.0.1", "port_value": admin });
                continue;
            }
            for locality in items(cluster, "/load_assignment/endpoints") {
                for host in items(locality, "/lb_endpoints") {
                    substitute_endpoint(&mut host["endpoint"], &self.endpoints)?;
                }
            }
        }
        Ok(())
    }
}

/// What `envoy --mode validate` said.
#[derive(Clone, Debug)]
pub struct Validation {
    pub ok: bool,
    pub text: String,
}

/// Where a cluster of one host has its address.
const ONLY_SOCKET: &str = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address";

/// The HTTP connection manager of the listener that callers use, the first.
fn connection_manager(bootstrap: &mut Value) -> &mut Value {
    &mut bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
}

fn substitute_endpoint(endpoint: &mut Value, to: &BTreeMap<(String, u16), SocketAddr>) -> Result<()> {
    let socket = &mut endpoint["address"]["socket_address"];
    let host = socket["address"].as_str().context("an endpoint without an address")?.to_owned();
    let find = |port: &Value| {
        let port = port.as_u64().and_then(|port| u16::try_from(port).ok()).context("an endpoint's port")?;
        match to.get(&(host.clone(), port)) {
            Some(at) => Ok(*at),
            None => bail!("no address is given for {host}:{port}"),
        }
    };
    let at = find(&socket["port_value"])?;
    *socket = json!({ "address": at.ip(), "port_value": at.port() });
    if let Some(port) = endpoint.pointer_mut("/health_check_config/port_value") {
        *port = find(port)?.port().into();
    }
    Ok(())
}

/// The items of the list at `pointer`; none where there is no list.
fn items<'a>(value: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Value> + use<'a> {
    value.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten()
}
