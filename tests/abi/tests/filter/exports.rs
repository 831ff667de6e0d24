//! Which callbacks the module has: Envoy calls each that is there, for every piece of every response.

use wasmparser::{Parser, Payload};

#[test]
fn no_callback_is_there_that_would_do_nothing() {
    let module = std::fs::read(std::env::var_os("PREDICTGATE_WASM").unwrap()).unwrap();
    let mut callbacks: Vec<_> = Parser::new(0)
        .parse_all(&module)
        .filter_map(|payload| match payload.unwrap() {
            Payload::ExportSection(exports) => Some(exports),
            _ => None,
        })
        .flatten()
        .map(|export| export.unwrap().name.to_owned())
        .filter(|name| name.starts_with("proxy_on_"))
        .collect();
    callbacks.sort();
    let expected = [
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
    ];
    assert_eq!(callbacks, expected);
}
