//! Envoys that have every trouble which a metric tells of.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use model_server::client::{Asked, Client, predict_request};
use model_server::{Code, Fault, Place};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::users::Users;
use predictgate_e2e::{Envoy, Pools};
use serde_json::json;

const X: [f32; 1] = [1.0];
const CANARY: i64 = 2;

/// The listener that a Prometheus scrapes.
const METRICS: &str = "metrics";

/// The ejection scenario, whose guard acts, with limits on callers who name a tenant.
pub struct Rollout {
    pools: Pools,
    envoy: Envoy,
    users: Users,
    client: Client,
}

impl Rollout {
    pub async fn start() -> Result<Self> {
        let pools = Pools::start().await?;
        let scenario = pools.shipped("ejection")?.concurrency(2).reconfigured(|configuration| {
            let model = &mut configuration["models"][0];
            model["routes"][4]["guard"]["mode"] = json!("enforce");
            // Longer than the test takes, so that the canary is still out when it is asked for.
            model["outlier_detection"]["base_ejection_time"] = json!("300s");
            model["outlier_detection"]["max_ejection_time"] = json!("300s");
            let who = json!({ "headers": [{ "name": "x-tenant", "present": true }] });
            let bucket = json!({ "max_tokens": 10, "tokens_per_fill": 1, "fill_interval": "100s" });
            let by = json!([{ "header": "x-tenant" }]);
            model["rate_limits"] = json!([
                { "name": "trial", "match": who, "token_bucket": bucket, "mode": "shadow" },
                // More tenants than slots.
                { "name": "crowded", "match": who, "token_bucket": bucket, "by": by, "slots": 4 },
            ]);
        })?;
        let envoy = scenario.start().await?;
        envoy.wait_until_healthy().await?;
        let users = Users::connect(&envoy, 100).await?;
        let client = Client::connect(envoy.addr).await?;
        Ok(Self { pools, envoy, users, client })
    }

    pub async fn metrics(&self) -> Result<SocketAddr> {
        self.envoy.listener(METRICS).await
    }

    pub async fn healthy_calls(&self) -> Result<()> {
        for call in self.users.call(0).await? {
            ensure!(call.answer.is_ok(), "{:?}", call.answer);
        }
        let canary = predict_request(MODEL, Asked::Version(CANARY), &X);
        for _ in 0..100 {
            self.client.predict(&canary).await?;
        }
        Ok(())
    }

    /// From now on every answer of the canary is a failure.
    pub fn fall_ill(&self) {
        let fault = Fault::fail(1.0, Code::Internal, Place::AfterHeaders);
        self.pools.v2.set_fault(MODEL, CANARY, Some(fault));
    }

    /// Calls of everybody, of those who ask for the canary by its version, which no ejection keeps from them, of
    /// tenants, and for a model that is not there.
    pub async fn troubled_calls(&self) -> Result<()> {
        self.users.call(1).await?;
        let canary = predict_request(MODEL, Asked::Version(CANARY), &X);
        let stable = predict_request(MODEL, Asked::Version(1), &X);
        let unknown = predict_request("bert", Asked::Latest, &X);
        for tenant in 0..50 {
            self.client.predict(&canary).await?;
            self.client.predict(&unknown).await?;
            let client = self.client.clone().with_metadata("x-tenant", format!("tenant-{tenant}"));
            client.predict(&stable).await?;
        }
        Ok(())
    }
}

/// The quickstart in an Envoy that was not allowed to hold headers, with more limits than fit into shared memory.
pub struct Incapable {
    _pools: Pools,
    envoy: Envoy,
    client: Client,
}

/// Each of as many limits as a model may have; together they are more than the 8,192 entries.
const MODELS: usize = 40;
const LIMITS: usize = 256;

impl Incapable {
    pub async fn start() -> Result<Self> {
        let pools = Pools::start().await?;
        let scenario = pools
            .quickstart()?
            .filter(|filter| filter["allow_on_headers_stop_iteration"] = json!(false))
            .reconfigured(|configuration| {
                let bucket = json!({ "max_tokens": 1_000_000, "tokens_per_fill": 1, "fill_interval": "1s" });
                let limits: Vec<_> = (0..LIMITS)
                    .map(|limit| json!({ "name": limit.to_string(), "token_bucket": bucket }))
                    .collect();
                let models = configuration["models"].as_array_mut().unwrap();
                models.extend((0..MODELS).map(|model| {
                    json!({
                        "name": model.to_string(),
                        "targets": { "all": { "cluster": "tfs-v1" } },
                        "routes": [{ "split": [{ "target": "all" }] }],
                        "rate_limits": limits,
                    })
                }));
            })?;
        let envoy = scenario.start().await?;
        envoy.wait_until_healthy().await?;
        let client = Client::connect(envoy.addr).await?;
        Ok(Self { _pools: pools, envoy, client })
    }

    pub async fn metrics(&self) -> Result<SocketAddr> {
        self.envoy.listener(METRICS).await
    }

    /// One call for each model, the first of which waits in vain for its message, and more for the last, for whose
    /// limits no room is left.
    pub async fn troubled_calls(&self) -> Result<()> {
        for model in (0..MODELS).chain([MODELS - 1; 20]) {
            self.client.predict(&predict_request(&model.to_string(), Asked::Latest, &X)).await?;
        }
        Ok(())
    }
}
