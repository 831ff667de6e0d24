//! Large configurations.

use serde_json::{Value, json};

use crate::request::{Asked, PREDICT, grpc, predict, send};
use crate::setup::process;

fn models(count: usize) -> Value {
    let models: Vec<_> = (0..count)
        .map(|place| {
            json!({
                "name": format!("model-{place:05}"),
                "targets": {
                    "stable": { "cluster": format!("tfs-{place}-v1") },
                    "canary": { "cluster": format!("tfs-{place}-v2"), "rewrite": { "version": "2" } },
                },
                "routes": [
                    { "match": { "version": "1" }, "split": [{ "target": "stable" }] },
                    { "match": { "label": "canary" }, "split": [{ "target": "canary" }] },
                    {
                        "name": "rollout",
                        "split": [{ "target": "stable", "weight": 95 }, { "target": "canary", "weight": 5 }],
                        "sticky": { "by": [{ "header": "x-user-id" }], "salt": "2026-11" },
                    },
                ],
            })
        })
        .collect();
    json!({ "models": models })
}

#[test]
fn ten_thousand_models_take_less_than_40_mb() {
    let small = process().worker(models(1).to_string()).unwrap();
    let text = models(10_000).to_string();
    let large = process().worker(&text).unwrap();
    for place in [0, 4_999, 9_999] {
        let body = predict(&format!("model-{place:05}"), Asked::Version(1), 10);
        let stream = send(&large, &grpc(PREDICT), &[&body]);
        assert_eq!(stream.state().header("x-predictgate-cluster"), Some(format!("tfs-{place}-v1")));
    }
    let grown = large.memory() - small.memory();
    println!("10,000 models, {} KB of text: {} KB of memory", text.len() >> 10, grown >> 10);
    assert!(grown < 40_000_000, "{grown} bytes");
}

#[test]
fn the_weights_of_many_models_are_shown_a_part_at_a_time() {
    let process = process();
    let worker = process.worker(models(250).to_string()).unwrap();
    let shown = || process.metrics().keys().filter(|name| name.ends_with("predictgate_weight")).count();
    for expected in [200, 400, 500, 500] {
        worker.tick();
        assert_eq!(shown(), expected);
    }
}
