//! What a test stands on: the quickstart with both of its pools.

use anyhow::Result;
use model_server::client::rest::{self, RestReply};
use predictgate_e2e::{Envoy, Pools, Scenario};
use serde_json::{Value, json};

/// The inputs of every request, and what the two versions make of them.
pub const X: [f32; 3] = [1.0, 2.0, 5.0];
pub const BY_V1: [f32; 3] = [2.5, 3.0, 4.5];
pub const BY_V2: [f32; 3] = [3.5, 4.0, 5.5];

pub struct Stage {
    pub pools: Pools,
    pub envoy: Envoy,
}

impl Stage {
    /// The quickstart as shipped.
    pub async fn quickstart() -> Self {
        Self::with(Ok).await
    }

    /// The quickstart with a change.
    pub async fn with(change: impl FnOnce(Scenario) -> Result<Scenario>) -> Self {
        let pools = Pools::start().await.unwrap();
        let envoy = change(pools.quickstart().unwrap()).unwrap().start().await.unwrap();
        pools.wait_until_healthy(&envoy).await.unwrap();
        Self { pools, envoy }
    }

    /// The quickstart with a change of the plugin's configuration.
    pub async fn configured(change: impl FnOnce(&mut Value)) -> Self {
        Self::with(|scenario| scenario.reconfigured(change)).await
    }

    /// How many inferences the two pools have executed.
    pub fn executed(&self) -> (u64, u64) {
        self.pools.executed()
    }

    pub async fn post(&self, path: &str) -> RestReply {
        rest::post(self.envoy.addr, path, instances()).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> RestReply {
        rest::get(self.envoy.addr, path).await.unwrap()
    }

    /// Asserts that the filter's VM has not failed, which Envoy says in its log.
    #[track_caller]
    pub fn assert_no_vm_failed(&self) {
        let log = self.envoy.log();
        for words in ["Wasm VM failed", "RuntimeError", "panicked", "vm_reload"] {
            assert!(!log.contains(words), "{words} in the log:\n{log}");
        }
    }
}

/// The body of a REST predict.
pub fn instances() -> String {
    json!({ "instances": X }).to_string()
}

/// A response header of a REST answer, if it is text.
pub fn header<'a>(answer: &'a RestReply, name: &str) -> Option<&'a str> {
    answer.headers.get(name)?.to_str().ok()
}
