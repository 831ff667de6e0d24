//! VMs: how they refuse, die and change their configuration.

use std::time::Duration;

use predictgate_abi::Action;

use crate::module::{HEADERS, on_headers, process};

/// Accepts a configuration that begins with `a`, and logs it.
const PICKY: &str = r#"
    (func (export "proxy_on_configure") (param $id i32) (param $size i32) (result i32)
        (drop (call $get_buffer (i32.const 7) (i32.const 0) (local.get $size) (i32.const 20) (i32.const 24)))
        (drop (call $log (i32.const 2) (i32.load (i32.const 20)) (i32.load (i32.const 24))))
        (i32.eq (i32.load8_u (i32.load (i32.const 20))) (i32.const 97)))
    (func (export "proxy_on_context_create") (param $id i32) (param $root i32)
        (call $report (local.get $root)))"#;

#[test]
fn a_refused_configuration_leaves_the_running_one_in_force() {
    let process = process(PICKY);
    let refused = process.worker("bad").err().unwrap();
    assert_eq!((refused.log, refused.trap), (vec!["0".into(), "bad".into()], None));
    let mut worker = process.worker("a good one").unwrap();
    assert!(worker.reconfigure("bad").is_err());
    worker.stream().request_headers(HEADERS, true);
    assert_eq!(process.log().last().map(String::as_str), Some("1"), "the stream belongs to the first root");
    worker.reconfigure("another").unwrap();
    worker.stream().request_headers(HEADERS, true);
    assert_eq!(process.log().last().map(String::as_str), Some("4"), "and now to the newest");
}

#[test]
fn a_trap_kills_the_vm_and_every_stream_of_it() {
    let process = process(&on_headers("unreachable"));
    let (worker, other) = (process.worker("").unwrap(), process.worker("").unwrap());
    let stream = worker.stream();
    assert_eq!(stream.request_headers(HEADERS, false), Action::Ended);
    assert!(worker.trap().unwrap().contains("unreachable"));
    assert_eq!(worker.stream().request_headers(HEADERS, true), Action::Ended);
    assert_eq!(other.trap(), None);
}

#[test]
fn a_vm_dies_at_the_call_that_the_test_names() {
    let process = process(&on_headers("(call $report (i32.const 1)) (i32.const 0)"));
    let worker = process.worker("").unwrap();
    process.die_at("proxy_log", 2);
    assert_eq!(worker.stream().request_headers(HEADERS, true), Action::Continue);
    assert_eq!(worker.stream().request_headers(HEADERS, true), Action::Ended);
    assert!(worker.trap().unwrap().contains("proxy_log"));
    assert_eq!(process.calls("proxy_log"), 2);
}

#[test]
fn a_callback_that_never_returns_runs_out_of_fuel() {
    let process = process(&on_headers("(loop $forever (br $forever)) (i32.const 0)"));
    let worker = process.worker("").unwrap();
    worker.limit_fuel(1_000_000);
    assert_eq!(worker.stream().request_headers(HEADERS, true), Action::Ended);
    assert!(worker.trap().unwrap().contains("fuel"));
}

#[test]
fn both_clocks_move_together_and_only_the_wall_clock_can_be_set() {
    let module = r#"
        (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
        (func (export "seconds") (param $clock i32) (result i32)
            (drop (call $clock (local.get $clock) (i64.const 1) (i32.const 32)))
            (i32.wrap_i64 (i64.div_u (i64.load (i32.const 32)) (i64.const 1000000000))))"#;
    let source = format!(
        r#"(module {module} (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1")))"#
    );
    let module = predictgate_abi::Module::from_binary(&wat::parse_str(source).unwrap()).unwrap();
    let process = predictgate_abi::Process::new(&module);
    let worker = process.worker("").unwrap();
    let read = || [0, 1].map(|clock| worker.call("seconds", &[clock]).unwrap());
    let [wall, monotonic] = read();
    process.advance(Duration::from_secs(5));
    assert_eq!(read(), [wall + 5, monotonic + 5]);
    process.set_wall_clock(Duration::from_secs(7));
    assert_eq!(read(), [7, monotonic + 5]);
}
