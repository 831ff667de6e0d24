//! The module, and the configuration that most tests use.

use std::sync::OnceLock;
use std::time::Duration;

use predictgate_abi::{Module, Process, Worker};
use serde_json::{Value, json};

/// The module is compiled once for all tests.
pub fn process() -> Process {
    static MODULE: OnceLock<Module> = OnceLock::new();
    Process::new(MODULE.get_or_init(Module::load))
}

/// Two versions of `resnet`, a label, a catch-all, and a model of which only version 1 is served.
pub fn configuration() -> Value {
    json!({
        "models": [
            {
                "name": "resnet",
                "targets": {
                    "stable": { "cluster": "tfs-v1", "headers": { "x-model-pool": "blue" } },
                    "canary": { "cluster": "tfs-v2" },
                },
                "routes": [
                    { "name": "two", "match": { "version": "2" }, "split": [{ "target": "canary" }] },
                    { "match": { "label": "canary" }, "split": [{ "target": "canary" }] },
                    { "name": "rest", "split": [{ "target": "stable" }] },
                ],
            },
            {
                "name": "old",
                "targets": { "one": { "cluster": "tfs-old" } },
                "routes": [{ "match": { "version": "1" }, "split": [{ "target": "one" }] }],
                "otherwise": "reject",
            },
        ],
        "unmatched": "reject",
        "explain": { "header": "x-predictgate-explain" },
    })
}

/// The usual configuration with other settings under `identity`.
pub fn with_identity(identity: Value) -> Value {
    let mut configuration = configuration();
    configuration["identity"] = identity;
    configuration
}

pub fn worker() -> Worker {
    start(&configuration())
}

pub fn start(configuration: &Value) -> Worker {
    process().worker(configuration.to_string()).unwrap_or_else(|refused| panic!("{refused}"))
}

pub const HOLD_TIMEOUT: Duration = Duration::from_secs(1);

pub fn held(worker: &Worker) -> i64 {
    worker.metric("predictgate_held", &[])
}
