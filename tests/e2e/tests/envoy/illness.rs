//! What can be wrong with a server, and what callers saw of it.

use std::time::{Duration, Instant};

use anyhow::Result;
use model_server::{Fault, VersionConfig};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::traffic::end;
use predictgate_e2e::users::Call;
use predictgate_e2e::{Pools, Scenario};
use serde_json::{Value, json};

use super::outcomes::without_health_checks;
use super::split::CANARY;
use super::stage::Stage;

/// After which Envoy gives up a server that has not begun to answer: longer than any machine keeps a well one from it.
pub const PATIENT: Duration = Duration::from_secs(30);
/// The same where a server hangs: longer than one that is well takes on a busy machine.
pub const IMPATIENT: Duration = Duration::from_secs(2);

/// The ejection scenario with four workers, in which nothing but the filter looks after the servers' health.
/// The last route deals out by `weights`; `change` is given the model.
pub async fn stage(weights: [u32; 2], timeout: Duration, change: impl FnOnce(&mut Value)) -> Stage {
    Stage::shipped("ejection", |scenario| of(scenario, weights, timeout, change)).await
}

pub fn of(
    scenario: Scenario,
    weights: [u32; 2],
    timeout: Duration,
    change: impl FnOnce(&mut Value),
) -> Result<Scenario> {
    let scenario = without_health_checks(scenario).concurrency(4).connection_manager(|manager| {
        let timeout = format!("{}s", timeout.as_secs());
        manager["route_config"]["virtual_hosts"][0]["retry_policy"]["per_try_timeout"] = json!(timeout);
    });
    scenario.reconfigured(|configuration| {
        let model = &mut configuration["models"][0];
        let route = rollout(model);
        route["split"] = json!([
            { "target": "stable", "weight": weights[0] },
            { "target": "canary", "weight": weights[1] },
        ]);
        route.as_object_mut().unwrap().remove("guard");
        model.as_object_mut().unwrap().remove("outlier_detection");
        change(model);
    })
}

/// The route of the model that deals out.
pub fn rollout(model: &mut Value) -> &mut Value {
    let rollout = &mut model["routes"][4];
    assert_eq!(rollout["name"], "rollout");
    rollout
}

/// What is wrong with the canary's server.
#[derive(Clone, Debug)]
pub enum Illness {
    Refuses,
    Unloaded,
    Fault(Fault),
}

impl Illness {
    pub async fn begin(&self, pools: &Pools) {
        match self {
            Self::Refuses => pools.v2.refuse(true).await.unwrap(),
            Self::Unloaded => assert!(pools.v2.unload(MODEL, CANARY)),
            Self::Fault(fault) => pools.v2.set_fault(MODEL, CANARY, Some(fault.clone())),
        }
    }

    pub async fn end(&self, pools: &Pools) {
        match self {
            Self::Refuses => pools.v2.refuse(false).await.unwrap(),
            Self::Unloaded => pools.v2.load(MODEL, VersionConfig::half_plus(CANARY)),
            Self::Fault(_) => pools.v2.set_fault(MODEL, CANARY, None),
        }
    }
}

/// Whether the canary was asked, where nobody else fails.
pub fn is_canarys(call: &Call) -> bool {
    call.answer != Ok(super::split::STABLE)
}

/// When the so manyth failed answer came, counted from 1.
pub fn nth_failure(calls: &[Call], nth: usize) -> Instant {
    let mut ends: Vec<_> = calls.iter().filter(|call| call.answer.is_err()).map(end).collect();
    ends.sort();
    ends.get(nth - 1).copied().unwrap_or_else(|| panic!("{} failed answers, wanted {nth}", ends.len()))
}

/// When the last of these calls began that the canary was asked.
pub fn last_canary<'a>(calls: impl IntoIterator<Item = &'a Call>) -> Option<Instant> {
    calls.into_iter().filter(|call| is_canarys(call)).map(|call| call.begun).max()
}

/// How often a metric with these labels was counted, or what a gauge shows.
pub async fn metric(stage: &Stage, name: &str, labels: &[(&str, &str)]) -> f64 {
    let samples = stage.envoy.admin.prometheus().await.unwrap();
    samples.iter().filter(|it| it.is(name, labels)).map(|it| it.value).sum()
}
