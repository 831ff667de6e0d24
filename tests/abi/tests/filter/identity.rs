//! The cases of `tests/cases/identity.toml` through the module, whole and a byte at a time.

use predictgate_abi::{State, Worker};
use serde::Deserialize;
use serde_json::json;

use crate::request::{grpc, send};
use crate::setup::start;

#[derive(Deserialize)]
struct Cases {
    case: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    path: String,
    #[serde(default)]
    malformed: bool,
    #[serde(default)]
    compressed: bool,
    #[serde(default)]
    model: String,
    version: Option<String>,
    label: Option<String>,
    body: String,
}

impl Case {
    fn bytes(&self) -> Vec<u8> {
        let digits = self.body.as_bytes().chunks(2);
        digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    /// The reason for which the request is refused, or the decision that is explained.
    fn expected(&self) -> Result<String, &'static str> {
        if self.malformed {
            return Err("malformed_request");
        }
        if self.model.is_empty() {
            return Err("identity_not_found");
        }
        let asked = match (&self.version, &self.label) {
            (Some(version), _) => format!("version.{}", escape(version)),
            (None, Some(label)) => format!("label.{}", escape(label)),
            (None, None) => "latest".to_owned(),
        };
        Ok(format!("model={};asked={asked};route=0;target=all;reason=split", escape(&self.model)))
    }
}

/// The form of a client's text in the decision header: 64 bytes of `[A-Za-z0-9._-]` and percent encoding.
fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let escaped: String = text
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    escaped.chars().take(64).collect()
}

fn outcome(state: &State) -> Result<String, String> {
    match state.response_header("x-predictgate-reason") {
        Some(reason) => Err(reason),
        None => Ok(state.response_header("x-predictgate-decision").unwrap_or_default()),
    }
}

fn play(worker: &Worker, case: &Case, length: usize) -> State {
    let mut headers = grpc(&case.path);
    headers.push(("x-predictgate-explain", "1"));
    if case.compressed {
        headers.push(("grpc-encoding", "gzip"));
    }
    let bytes = case.bytes();
    let stream = send(worker, &headers, &bytes.chunks(length).collect::<Vec<_>>());
    if stream.state().reply.is_none() {
        assert_eq!(stream.state().body, bytes, "{}", case.name);
        stream.grpc_response(0);
    }
    stream.log();
    stream.state()
}

fn cases() -> (Worker, Vec<Case>) {
    let worker = start(&json!({
        "models": [{
            "name": "*",
            "targets": { "all": { "cluster": "all" } },
            "routes": [{ "split": [{ "target": "all" }] }],
        }],
        "explain": { "header": "x-predictgate-explain" },
    }));
    let cases: Cases = toml::from_str(include_str!("../../../cases/identity.toml")).unwrap();
    assert!(cases.case.len() > 70);
    (worker, cases.case)
}

/// Cases whose `model_spec` comes in parts with something else between them: the server merges the parts,
/// and the filter, which has routed by the first, refuses.
const IN_PARTS: [&str; 2] = ["craft_spec_split_merge", "craft_spec_split_version_then_label"];

#[test]
fn every_case_is_read_as_the_server_reads_it_however_it_is_cut() {
    let (worker, cases) = cases();
    for case in cases {
        for length in [usize::MAX, 7, 1] {
            let state = play(&worker, &case, length);
            if IN_PARTS.contains(&case.name.as_str()) {
                assert_eq!(outcome(&state), Err("contradicting_model_spec".to_owned()), "{}", case.name);
                assert!(!state.complete, "{}: the server executes nothing", case.name);
            } else {
                let expected = case.expected().map_err(str::to_owned);
                assert_eq!(outcome(&state), expected, "{} in pieces of {length}", case.name);
            }
        }
    }
}

#[test]
fn a_compressed_message_whose_encoding_is_not_told_has_no_identity() {
    let (worker, cases) = cases();
    let case = cases.into_iter().find(|case| case.compressed).expect("one case is compressed");
    let state = play(&worker, &Case { compressed: false, ..case }, usize::MAX);
    assert_eq!(outcome(&state), Err("identity_not_found".to_owned()));
}
