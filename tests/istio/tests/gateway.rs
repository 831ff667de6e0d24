//! The shipped manifests in a real Envoy: what the model servers count is what counts.

use std::collections::BTreeMap;

use http::Method;
use model_server::client::{Asked, Client, predict_request, rest};
use model_server::{Code, Rpc};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::{Envoy, Pools, Scenario, share};
use predictgate_istio::{By, gateway, stripping};
use serde_json::{Value, json};

const X: [f32; 3] = [1.0, 2.0, 5.0];

struct Stage {
    pools: Pools,
    envoy: Envoy,
}

impl Stage {
    async fn of(by: By) -> Self {
        Self::with(by, |scenario| scenario).await
    }

    async fn with(by: By, change: impl FnOnce(Scenario) -> Scenario) -> Self {
        let pools = Pools::start().await.unwrap();
        let scenario = change(gateway(by).unwrap())
            .host("tfs-v1", pools.v1.grpc_addr(), pools.v1.rest_addr())
            .host("tfs-v2", pools.v2.grpc_addr(), pools.v2.rest_addr());
        let envoy = scenario.start().await.unwrap();
        Self { pools, envoy }
    }

    async fn configured(by: By, change: impl FnOnce(&mut Value)) -> Self {
        Self::with(by, |scenario| scenario.reconfigured(change).unwrap()).await
    }

    async fn client(&self) -> Client {
        Client::connect(self.envoy.addr).await.unwrap()
    }

    async fn rest(&self, path: &str, headers: &[(&str, &[u8])]) -> rest::RestReply {
        let body = json!({ "instances": X }).to_string();
        rest::request(self.envoy.addr, Method::POST, path, headers, body.into()).await.unwrap()
    }

    fn executed(&self) -> (u64, u64) {
        self.pools.executed()
    }
}

fn named(client: &Client, asked: &[(&str, &str)]) -> Client {
    let client = client.clone().with_metadata("x-model-name", MODEL);
    asked.iter().fold(client, |client, (name, value)| client.with_metadata(name, value))
}

#[tokio::test]
async fn a_wasm_plugin_sends_what_headers_name_to_its_subset() {
    for by in [By::WasmPlugin, By::TrafficExtension] {
        let stage = Stage::of(by).await;
        let client = stage.client().await;
        let cases = [
            ("x-model-version", "1", Asked::Version(1)),
            ("x-model-version", "2", Asked::Version(2)),
            ("x-model-label", "canary", Asked::Label("canary")),
        ];
        for (header, value, asked) in cases {
            let reply = named(&client, &[(header, value)]).predict(&predict_request(MODEL, asked, &X)).await;
            reply.unwrap().ok().unwrap_or_else(|error| panic!("{by:?}, {header}: {value}: {error}"));
        }
        assert_eq!(stage.executed(), (1, 2), "{by:?}");
    }
}

#[tokio::test]
async fn a_path_of_rest_names_the_model_itself() {
    let stage = Stage::of(By::WasmPlugin).await;
    for path in ["/v1/models/resnet/versions/1:predict", "/v1/models/resnet/versions/2:predict"] {
        assert_eq!(stage.rest(path, &[]).await.status, 200, "{path}");
    }
    assert_eq!(stage.executed(), (1, 1));
}

#[tokio::test]
async fn the_split_is_the_filters_and_a_user_stays_where_it_was() {
    let stage = Stage::of(By::WasmPlugin).await;
    let client = stage.client().await;
    let users = 2000;
    let mut first = BTreeMap::new();
    for round in 0..2 {
        for user in 0..users {
            let id = format!("user-{user}");
            // Each user is a tenant of its own, so that the limit of a tenant has no part in this.
            let client = named(&client, &[("x-user-id", &id), ("x-tenant", &id)]);
            let reply = client.predict(&predict_request(MODEL, Asked::Latest, &X)).await.unwrap();
            let version = reply.ok().unwrap().version().unwrap();
            assert_eq!(*first.entry(user).or_insert(version), version, "round {round}: user {user}");
        }
    }
    let canary = first.values().filter(|version| **version == 2).count();
    assert!(share::holds(canary, users, 0.05), "{canary} of {users} users on the canary, expected 5 in 100");
    assert_eq!(stage.executed(), (2 * (users - canary) as u64, 2 * canary as u64));
}

#[tokio::test]
async fn a_message_that_contradicts_the_headers_is_executed_by_nobody() {
    let stage = Stage::of(By::WasmPlugin).await;
    let client = named(&stage.client().await, &[("x-model-version", "1")]);
    let reply = client.predict(&predict_request(MODEL, Asked::Version(2), &X)).await.unwrap();
    assert_eq!(reply.code(), Code::InvalidArgument, "{reply:?}");
    assert_eq!(reply.header("x-predictgate-reason"), Some("contradicting_model_spec"));
    assert_eq!(stage.executed(), (0, 0));
}

#[tokio::test]
async fn without_headers_the_message_is_still_limited_and_goes_to_the_stable_subset() {
    let tokens = 5;
    let bucket = json!({ "max_tokens": tokens, "tokens_per_fill": 1, "fill_interval": "24h" });
    let stage = Stage::configured(By::WasmPlugin, |configuration| {
        configuration["models"][0]["rate_limits"][0]["token_bucket"] = bucket;
    });
    let stage = stage.await;
    let client = stage.client().await.with_metadata("x-tenant", "acme");
    let mut limited = 0;
    for _ in 0..4 * tokens {
        let reply = client.predict(&predict_request(MODEL, Asked::Latest, &X)).await.unwrap();
        if reply.code() == Code::ResourceExhausted {
            assert_eq!(reply.header("x-predictgate-reason"), Some("rate_limited"));
            limited += 1;
        } else {
            reply.ok().unwrap();
        }
    }
    assert_eq!(limited, 3 * tokens);
    assert_eq!(stage.executed(), (tokens, 0));
}

#[tokio::test]
async fn without_headers_a_model_that_is_not_configured_is_executed_by_nobody() {
    let stage = Stage::of(By::WasmPlugin).await;
    let reply = stage.client().await.predict(&predict_request("bert", Asked::Latest, &X)).await.unwrap();
    assert_eq!(reply.code(), Code::NotFound, "{reply:?}");
    assert_eq!(stage.executed(), (0, 0));
    assert_eq!(stage.pools.v1.counts().arrived.of(Rpc::Predict), 0);
}

/// Sends over both protocols, naming no version, and claims the canary's header.
async fn spoof(stage: &Stage) -> (u64, u64) {
    let client = stage.client().await.with_metadata("x-model-pool", "v2");
    // Whether a server has this version is not the point, but which was asked.
    client.predict(&predict_request(MODEL, Asked::Latest, &X)).await.unwrap();
    let client = named(&client, &[("x-model-version", "1")]);
    client.predict(&predict_request(MODEL, Asked::Version(1), &X)).await.unwrap();
    stage.rest("/v1/models/resnet/versions/1:predict", &[("x-model-pool", b"v2")]).await;
    let received = |server: &model_server::Server| {
        let received = server.received();
        received.iter().filter(|it| it.rpc == Some(Rpc::Predict)).count() as u64
    };
    (received(&stage.pools.v1), received(&stage.pools.v2))
}

#[tokio::test]
async fn the_filter_keeps_a_caller_from_choosing_the_subset() {
    for by in [By::WasmPlugin, By::EnvoyFilter] {
        assert_eq!(spoof(&Stage::of(by).await).await, (3, 0), "{by:?}");
    }
}

#[tokio::test]
async fn while_the_filter_is_absent_the_security_overlay_keeps_a_caller_from_choosing() {
    let absent = Stage::with(By::WasmPlugin, Scenario::with_the_filter_disabled).await;
    assert_eq!(spoof(&absent).await, (0, 3), "without the overlay, the header of a caller matches");
    let stripped =
        Stage::with(By::WasmPlugin, |scenario| stripping(scenario).unwrap().with_the_filter_disabled());
    assert_eq!(spoof(&stripped.await).await, (3, 0));
}

#[tokio::test]
async fn the_body_overlay_sends_what_the_message_names_to_its_subset() {
    let stage = Stage::of(By::EnvoyFilter).await;
    let client = stage.client().await;
    for asked in [Asked::Version(1), Asked::Version(2), Asked::Label("canary")] {
        client.predict(&predict_request(MODEL, asked, &X)).await.unwrap().ok().unwrap();
    }
    assert_eq!(stage.executed(), (1, 2));
}
