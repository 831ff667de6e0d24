//! Configurations that the module accepts and refuses.

use serde::Deserialize;

use crate::request::{Asked, complete};
use crate::setup::{configuration, process, worker};

#[derive(Deserialize)]
struct Cases {
    case: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    json: String,
    errors: Vec<String>,
}

#[test]
fn a_refused_configuration_logs_every_error_with_its_path() {
    let cases: Cases = toml::from_str(include_str!("../../../cases/config/bad.toml")).unwrap();
    assert!(cases.case.len() > 10);
    let process = process();
    for case in cases.case {
        let Some(refused) = process.worker(&case.json).err() else { panic!("{} was accepted", case.name) };
        assert_eq!(refused.trap, None, "{}", case.name);
        for error in &case.errors {
            let told = refused.log.iter().any(|line| line.contains(error.as_str()));
            assert!(told, "{}: the log does not have {error:?} but {:#?}", case.name, refused.log);
        }
    }
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let process = process();
    // A Struct arrives as protobuf, not as JSON.
    for bytes in [&b"\n\x11\n\x04zeta\x12\x09\x11\0\0\0\0\0\0\xf0?"[..], b"\xff\xfe", b""] {
        let refused = process.worker(bytes).err().expect("it is no configuration");
        assert_eq!(refused.trap, None);
        assert!(!refused.log.is_empty());
    }
}

#[test]
fn a_refused_update_leaves_the_running_configuration_in_force() {
    let mut worker = worker();
    let mut wrong = configuration();
    wrong["unmached"] = "pass".into();
    let refused = worker.reconfigure(wrong.to_string()).unwrap_err();
    assert!(refused.log.iter().any(|line| line.contains("unmached: unknown key")), "{:?}", refused.log);
    complete(&worker, Asked::Latest, 0);
    let tags = [("model", "resnet"), ("target", "stable"), ("code", "OK")];
    assert_eq!(worker.metric("predictgate_requests", &tags), 1);
}

#[test]
fn a_worker_asks_for_ticks() {
    let period = worker().newest_tick_period();
    assert!((1..=100).contains(&period), "holds end within a tick: {period} ms");
}
