//! Takes out of the built module what Envoy has no use for.
//!
//! The SDK exports a handler for every callback of the ABI, and each export keeps alive what it calls. Envoy calls
//! every callback that is exported, so those for a response's body and trailers would cost a call into the VM for
//! each piece of each response, and do nothing. `proxy_on_done` comes between `proxy_on_log` and `proxy_on_delete`, which
//! are enough.

use anyhow::Result;
use walrus::ModuleConfig;

/// The callbacks that the filter has, and what the ABI needs to be there.
const KEPT: [&str; 15] = [
    "_initialize",
    "memory",
    "proxy_abi_version_0_2_1",
    "proxy_on_configure",
    "proxy_on_context_create",
    "proxy_on_delete",
    "proxy_on_log",
    "proxy_on_memory_allocate",
    "proxy_on_request_body",
    "proxy_on_request_headers",
    "proxy_on_request_trailers",
    "proxy_on_response_headers",
    "proxy_on_tick",
    "proxy_on_vm_start",
    "__indirect_function_table",
];

/// The module with only these exports, without what nothing calls any more and without the names of functions.
///
/// # Errors
///
/// When the bytes are no module.
pub fn shrink(module: &[u8]) -> Result<Vec<u8>> {
    let mut module = ModuleConfig::new().generate_name_section(false).parse(module)?;
    let dropped: Vec<_> = module
        .exports
        .iter()
        .filter(|export| !KEPT.contains(&&*export.name))
        .map(|export| export.id())
        .collect();
    for export in dropped {
        module.exports.delete(export);
    }
    walrus::passes::gc::run(&mut module);
    Ok(module.emit_wasm())
}
