//! Modules of a few lines: each test writes the callbacks that it needs.

use predictgate_abi::{Module, Process, Worker};

/// The host calls that the callbacks of these tests make, an allocator that never frees, and `$report`,
/// which logs a status as one digit.
const PRELUDE: &str = r#"
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
    (import "env" "proxy_set_effective_context" (func $act_on (param i32) (result i32)))
    (import "env" "proxy_get_buffer_bytes" (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_buffer_bytes" (func $set_buffer (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_shared_data" (func $get_shared (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_shared_data" (func $set_shared (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_replace_header_map_value" (func $set_header (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_header_map_value" (func $get_header (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_send_local_response"
        (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_tick_period_milliseconds" (func $tick_every (param i32) (result i32)))
    (memory (export "memory") 4)
    (data (i32.const 64) "x-test")
    (data (i32.const 80) "yes")
    (data (i32.const 96) "key")
    (data (i32.const 112) "refused")
    (global $free (mut i32) (i32.const 65536))
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
        (global.get $free)
        (global.set $free (i32.add (global.get $free) (local.get $size))))
    (func $report (param $status i32)
        (i32.store8 (i32.const 16) (i32.add (i32.const 48) (local.get $status)))
        (drop (call $log (i32.const 2) (i32.const 16) (i32.const 1))))
    ;; Logs the first 100 bytes of the request body as the module sees it.
    (func $show_body
        (i32.store (i32.const 24) (i32.const 0))
        (drop (call $get_buffer (i32.const 0) (i32.const 0) (i32.const 100) (i32.const 20) (i32.const 24)))
        (drop (call $log (i32.const 2) (i32.load (i32.const 20)) (i32.load (i32.const 24)))))
    ;; Sets x-test: yes in a map.
    (func $mark (param $map i32) (result i32)
        (call $set_header (local.get $map) (i32.const 64) (i32.const 6) (i32.const 80) (i32.const 3)))
"#;

pub fn process(callbacks: &str) -> Process {
    let binary = wat::parse_str(format!("(module {PRELUDE} {callbacks})")).unwrap();
    Process::new(&Module::from_binary(&binary).unwrap())
}

pub fn worker(callbacks: &str) -> Worker {
    process(callbacks).worker("").unwrap()
}

/// A callback on request headers with this body.
pub fn on_headers(body: &str) -> String {
    format!(
        r#"(func (export "proxy_on_request_headers") (param $id i32) (param i32 i32) (result i32) {body})"#
    )
}

/// A callback on a chunk of the request body, which comes with `$size` and `$end`.
pub fn on_body(body: &str) -> String {
    format!(
        r#"(func (export "proxy_on_request_body") (param $id i32) (param $size i32) (param $end i32) (result i32)
            {body})"#
    )
}

/// A tick that resumes the first stream.
pub const RESUME_ON_TICK: &str = r#"
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (drop (call $tick_every (i32.const 100)))
        (i32.const 1))
    (func (export "proxy_on_tick") (param i32)
        (call $report (call $act_on (i32.const 2)))
        (drop (call $continue (i32.const 0))))"#;

pub const HEADERS: &[(&str, &str)] =
    &[(":method", "POST"), (":path", "/"), ("content-type", "application/grpc")];
