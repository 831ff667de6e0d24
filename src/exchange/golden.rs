//! Who gets which target, for good: the answers stand in a file, which tests with a real Envoy read too.

#![cfg(test)]

use serde_json::{Map, Value, json};

use super::{Body, Exchange, Local, Origin, TARGET_HEADER, World};
use crate::config;
use crate::headers::Headers;
use crate::host::{Host, Silent};
use crate::store::SharedStore;
use crate::units::{Instant, WallTime};
use crate::verdict::Verdict;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

struct At(WallTime, Silent);

impl Host for At {
    fn source_address(&self) -> Option<Vec<u8>> {
        self.1.source_address()
    }

    fn peer_san(&self) -> Option<Vec<u8>> {
        self.1.peer_san()
    }

    fn jwt_claim(&self, claim: &str) -> Option<Vec<u8>> {
        self.1.jwt_claim(claim)
    }

    fn wall_time(&self) -> WallTime {
        self.0
    }

    fn now(&self) -> Instant {
        self.1.now()
    }

    fn store(&self) -> &dyn SharedStore {
        self.1.store()
    }
}

fn target_of(case: &Value) -> String {
    let by: Vec<_> = case["by"].as_array().unwrap().iter().map(|name| json!({ "header": name })).collect();
    let mut sticky = json!({ "by": by, "salt": case["salt"] });
    if let Some(every) = case.get("rotate_every") {
        sticky["rotate_every"] = every.clone();
    }
    let targets: Map<_, _> = case["split"]
        .as_array()
        .unwrap()
        .iter()
        .map(|arm| (arm["target"].as_str().unwrap().to_owned(), json!({ "cluster": "c" })))
        .collect();
    let routes = json!([{ "split": case["split"], "sticky": sticky }]);
    let models = json!([{ "name": case["model"], "targets": targets, "routes": routes }]);
    let policy = config::parse(&json!({ "models": models }).to_string()).unwrap();

    let path = format!("/v1/models/{}:predict", case["model"].as_str().unwrap().replace('*', "x"));
    let mut pairs = vec![(":method", "POST"), (":path", &path)];
    for header in case["headers"].as_array().unwrap() {
        pairs.push((header[0].as_str().unwrap(), header[1].as_str().unwrap()));
    }
    let at = WallTime::from_nanos(case.get("at").map_or(0, |at| at.as_u64().unwrap()) * 1_000_000_000);
    // Chance decides nothing here, so two workers with different luck must agree.
    let [one, other] = [1, 2].map(|seed| {
        let mut local = Local::new(&policy, Origin { seed, ..Origin::default() });
        let mut world = World {
            policy: &policy,
            local: &mut local,
            now: Instant::default(),
            host: &At(at, Silent::default()),
            explains: false,
        };
        let mut exchange = Exchange::new(1);
        let verdict = exchange.request_headers(&mut world, Headers::from_pairs(&pairs), false);
        let Verdict::Forward(forward) = verdict else { panic!("{verdict:?}") };
        let mut body = Body { length: 0, read: &mut |_, _| None };
        exchange.request_body(&mut world, &mut body, true);
        super::headers(&policy, &forward).find(|(name, _)| *name == TARGET_HEADER).unwrap().1.to_owned()
    });
    assert_eq!(one, other);
    one
}

#[test]
fn a_caller_keeps_its_target_over_versions_of_this_code() {
    let cases: Value = serde_json::from_str(include_str!("../../tests/cases/split.json")).unwrap();
    let cases = cases["cases"].as_array().unwrap();
    let moved: Vec<_> =
        cases.iter().filter(|case| target_of(case) != case["expect"]).map(|case| &case["name"]).collect();
    assert!(cases.len() >= 70);
    assert!(moved.is_empty(), "{moved:?}");
}
