//! What one Envoy reads: a scenario, written down.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::plugin::PluginFile;
use crate::scenario::Scenario;

/// The files of one Envoy, in a directory that goes when this is dropped.
#[derive(Debug)]
pub struct Files {
    pub directory: tempfile::TempDir,
    pub bootstrap: PathBuf,
    pub admin: SocketAddr,
    plugin: (PathBuf, PluginFile),
    /// The discovery response with the listener `models`, where it is discovered.
    listener: Option<(PathBuf, Value)>,
}

impl Files {
    /// # Errors
    ///
    /// When an endpoint has no address on this machine, or nothing can be written.
    pub fn write(scenario: &Scenario) -> Result<Self> {
        let mut scenario = scenario.clone();
        let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
        let place = |name: &str| directory.path().join(name);
        let plugin = place("predictgate.json");
        let admin = free_address()?;
        scenario.substitute(admin.port(), &plugin)?;
        publish(&scenario.plugin.0, &plugin)?;
        let mut listener = None;
        if scenario.drain_seconds.is_some() {
            let response = discover_listener(&mut scenario.bootstrap, &place("listener.json"));
            publish(&response, &place("listener.json"))?;
            listener = Some((place("listener.json"), response));
        }
        let bootstrap = place("envoy.json");
        fs::write(&bootstrap, scenario.bootstrap.to_string())?;
        Ok(Self { bootstrap, admin, plugin: (plugin, scenario.plugin), listener, directory })
    }

    /// The plugin file that was written last.
    pub fn plugin(&self) -> &PluginFile {
        &self.plugin.1
    }

    /// # Errors
    ///
    /// When the directory cannot be written.
    pub fn replace_plugin(&mut self, plugin: PluginFile) -> Result<()> {
        publish(&plugin.0, &self.plugin.0)?;
        self.plugin.1 = plugin;
        Ok(())
    }

    /// # Errors
    ///
    /// When the listener is not discovered, or the directory cannot be written.
    pub fn replace_listener(&mut self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let (path, response) =
            self.listener.as_mut().context("the scenario has its listener in the bootstrap")?;
        change(&mut response["resources"][0]);
        publish(response, path)
    }
}

/// Takes the first listener out of the bootstrap, and gives the discovery response that has it instead.
fn discover_listener(bootstrap: &mut Value, path: &Path) -> Value {
    let mut listener =
        bootstrap["static_resources"]["listeners"].as_array_mut().map_or(Value::Null, |all| all.remove(0));
    listener["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
    bootstrap["dynamic_resources"]["lds_config"] =
        json!({ "resource_api_version": "V3", "path_config_source": { "path": path } });
    json!({ "resources": [listener] })
}

/// Writes the file beside its place and moves it there, which is what Envoy watches for.
fn publish(content: &Value, path: &Path) -> Result<()> {
    let fresh = path.with_extension("fresh");
    fs::write(&fresh, content.to_string()).with_context(|| fresh.display().to_string())?;
    fs::rename(&fresh, path).with_context(|| path.display().to_string())
}

/// An address that is free now.
///
/// The administration interface needs its port before Envoy starts, since a cluster names it; should
/// somebody be faster, Envoy does not start, and is started again with another.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?)
}
