//! The file by which Envoy discovers the filter, and the plugin configuration in it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// A discovery response with one resource: the filter.
#[derive(Clone, Debug)]
pub struct PluginFile(pub Value);

impl PluginFile {
    /// # Errors
    ///
    /// When there is no such file, or it is not YAML.
    pub fn load(path: &Path) -> Result<Self> {
        read_yaml(path).map(Self)
    }

    /// The filter as Envoy's extension `Wasm` takes it.
    pub fn wasm(&mut self) -> &mut Value {
        &mut self.0["resources"][0]["typed_config"]
    }

    /// The plugin's own configuration.
    ///
    /// # Errors
    ///
    /// When it is not JSON in a `StringValue`.
    pub fn configuration(&self) -> Result<Value> {
        let text = &self.0["resources"][0]["typed_config"]["config"]["configuration"]["value"];
        let text = text.as_str().context("the plugin's configuration is not a StringValue")?;
        serde_json::from_str(text).context("the plugin's configuration is not JSON")
    }

    /// Puts another plugin configuration in place; any text will do, as tests also need bad ones.
    pub fn configure(&mut self, configuration: &str) {
        self.wasm()["config"]["configuration"] = json!({
            "@type": "type.googleapis.com/google.protobuf.StringValue",
            "value": configuration,
        });
    }

    pub fn use_module(&mut self, module: &Path) {
        self.wasm()["config"]["vm_config"]["code"] = json!({ "local": { "filename": module } });
    }
}

/// # Errors
///
/// When there is no such file, or it is not YAML.
pub fn read_yaml(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    yaml_serde::from_str(&text).with_context(|| path.display().to_string())
}
