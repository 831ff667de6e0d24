//! The host calls of ABI 0.2.1 and the few of WASI that Envoy answers.

mod http;
mod shared;
mod system;
mod wasi;

use anyhow::Result;
use wasmtime::Linker;

use crate::vm::VmState;

pub fn add(linker: &mut Linker<VmState>) -> Result<()> {
    system::add(linker)?;
    http::add(linker)?;
    shared::add(linker)?;
    wasi::add(linker)
}
