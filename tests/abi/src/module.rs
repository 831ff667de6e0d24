//! The compiled module.

use std::path::Path;

use anyhow::{Context as _, Result};
use wasmtime::{Config, Engine};

/// A module, compiled once and instantiated for every VM.
#[derive(Clone)]
pub struct Module(pub(crate) wasmtime::Module);

impl Module {
    /// The built filter, at the path that `PREDICTGATE_WASM` names.
    ///
    /// # Panics
    ///
    /// When the variable or the file is missing: a tier that has nothing to test must not pass.
    pub fn load() -> Self {
        let path = std::env::var_os("PREDICTGATE_WASM")
            .expect("PREDICTGATE_WASM is not set: run `cargo xtask test --tier abi`");
        Self::from_file(Path::new(&path)).expect("PREDICTGATE_WASM names a module that compiles")
    }

    /// # Errors
    ///
    /// When the file cannot be read or does not compile.
    pub fn from_file(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        Self::from_binary(&bytes)
    }

    /// # Errors
    ///
    /// When the bytes are no valid module.
    pub fn from_binary(bytes: &[u8]) -> Result<Self> {
        let mut config = Config::new();
        // Fuel ends a callback that never returns, and counts the work of one without jitter.
        config.consume_fuel(true);
        let engine = Engine::new(&config)?;
        Ok(Self(wasmtime::Module::new(&engine, bytes)?))
    }
}
