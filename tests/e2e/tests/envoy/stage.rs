//! What a test stands on: a shipped scenario, mostly the quickstart, with both of its pools.

use anyhow::Result;
use model_server::Code;
use model_server::client::raw::Raw;
use model_server::client::rest::{self, RestReply};
use model_server::client::{Asked, Client, predict_request};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::wait::until;
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
    /// The quickstart as shipped, but for [`patient`].
    pub async fn quickstart() -> Self {
        Self::with(Ok).await
    }

    /// The quickstart with a change.
    pub async fn with(change: impl FnOnce(Scenario) -> Result<Scenario>) -> Self {
        Self::shipped("quickstart", change).await
    }

    /// The scenario of a folder of `envoy/`, with a change.
    pub async fn shipped(folder: &str, change: impl FnOnce(Scenario) -> Result<Scenario>) -> Self {
        let pools = Pools::start().await.unwrap();
        let scenario = patient(change(pools.shipped(folder).unwrap()).unwrap());
        let envoy = scenario.start().await.unwrap();
        envoy.wait_until_healthy().await.unwrap();
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

    /// A gRPC client, connected to Envoy.
    pub async fn client(&self) -> Client {
        Client::connect(self.envoy.addr).await.unwrap()
    }

    /// A client that sends HTTP/2 frame by frame, connected to Envoy.
    pub async fn raw(&self) -> Raw {
        Raw::connect(self.envoy.addr).await.unwrap()
    }

    /// Asserts that Envoy goes on to serve and the VM has lived through what was done to it.
    pub async fn assert_alive(&self) {
        let reply =
            self.client().await.predict(&predict_request(MODEL, Asked::Version(2), &X)).await.unwrap();
        assert_eq!(reply.ok().unwrap().values(), BY_V2);
        let log = self.envoy.log();
        for words in ["VM failed", "RuntimeError", "panicked", "unreachable"] {
            assert!(!log.contains(words), "{words} in the log:\n{log}");
        }
        for stat in ["vm_reload", "vm_reload_backoff", "vm_reload_failure", "vm_reload_success"] {
            assert_eq!(
                self.envoy.admin.stat(&format!("wasm.predictgate.{stat}")).await.unwrap(),
                0,
                "{stat}"
            );
        }
    }

    /// Calls until the filter has found out that Envoy does not hold headers, and one call was answered.
    ///
    /// It concludes that from a body that comes within a tick of the hold's end. On a busy machine the body may come
    /// later, which refuses the call and proves nothing.
    pub async fn until_found_out(&self) {
        let client = self.client().await;
        let latest = predict_request(MODEL, Asked::Latest, &X);
        until("the filter to find out that Envoy does not hold headers", || async {
            let reply = client.predict(&latest).await?;
            let is_answered = reply.code() == Code::Ok;
            assert!(is_answered || reply.header("x-predictgate-reason") == Some("hold_timeout"), "{reply:?}");
            Ok(is_answered.then_some(()))
        })
        .await
        .unwrap();
    }

    /// Waits until a metric of the filter with at least these labels has this value.
    pub async fn wait_for_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        until(format!("{name}{labels:?} {value}"), || async {
            let samples = self.envoy.admin.prometheus().await?;
            let sum = samples.iter().filter(|it| it.is(name, labels)).map(|it| it.value).sum::<f64>();
            Ok(((sum - value).abs() < 0.5).then_some(()))
        })
        .await
        .unwrap();
    }

    pub async fn post(&self, path: &str) -> RestReply {
        rest::post(self.envoy.addr, path, instances()).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> RestReply {
        rest::get(self.envoy.addr, path).await.unwrap()
    }
}

/// Lets the filter wait for the first bytes of a body however long a busy machine keeps the caller from sending them,
/// unless the scenario says how long, or has its configuration elsewhere.
fn patient(scenario: Scenario) -> Scenario {
    let Ok(mut configuration) = scenario.plugin.configuration() else { return scenario };
    let timeout = &mut configuration["identity"]["hold_timeout"];
    if timeout.is_null() {
        *timeout = json!("30s");
    }
    scenario.configured(&configuration.to_string())
}

/// The body of a REST predict.
pub fn instances() -> String {
    json!({ "instances": X }).to_string()
}

/// A response header of a REST answer, if it is text.
pub fn header<'a>(answer: &'a RestReply, name: &str) -> Option<&'a str> {
    answer.headers.get(name)?.to_str().ok()
}
