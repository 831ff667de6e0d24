//! Health that workers share: targets that fail and heal, probes, latches, updates and deaths, and wrong variants that
//! the laws must catch.

mod chance;
mod law;
mod ledger;
mod life;
mod update;
mod wrong;

use predictgate::config;
use predictgate::policy::Policy;
use predictgate::units::{ModelId, RouteId, TargetId};

pub const MODEL: ModelId = ModelId(0);
/// The route with a choice; [`DIRECT`] always leads to the canary.
pub const ROLLOUT: RouteId = RouteId(1);
pub const DIRECT: RouteId = RouteId(0);
pub const CANARY: TargetId = TargetId(0);
pub const TARGETS: [TargetId; 3] = [CANARY, TargetId(1), TargetId(2)];

/// What differs between the configurations of a simulation.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Of canary, other and stable.
    pub weights: [u32; 3],
    pub max_ejection_percent: u8,
    pub consecutive_failures: u32,
    /// What the guard's latch is valid for.
    pub epoch: u32,
    /// In milliseconds: the interval of ejection and the guard's window.
    pub windows: [u32; 2],
}

/// Times are short, so that a target goes out and comes back within seconds.
pub fn policy(setting: Setting) -> Policy {
    let Setting { weights: [canary, other, stable], max_ejection_percent, consecutive_failures, .. } =
        setting;
    let Setting { epoch, windows: [interval, window], .. } = setting;
    let text = format!(
        r#"{{ "models": [ {{
            "name": "model",
            "targets": {{ "canary": {{ "cluster": "c" }}, "other": {{ "cluster": "o" }}, "stable": {{ "cluster": "s" }} }},
            "routes": [
              {{ "match": {{ "label": "canary" }}, "split": [ {{ "target": "canary" }} ] }},
              {{ "name": "rollout",
                "split": [ {{ "target": "canary", "weight": {canary} }}, {{ "target": "other", "weight": {other} }},
                           {{ "target": "stable", "weight": {stable} }} ],
                "guard": {{ "target": "canary", "baseline": "stable", "window": "{window}ms", "min_requests": 20,
                            "consecutive_failures": 4, "on_ejection": "ignore", "epoch": {epoch} }} }} ],
            "outlier_detection": {{
              "consecutive_failures": {consecutive_failures}, "interval": "{interval}ms", "request_volume": 8,
              "base_ejection_time": "200ms", "max_ejection_time": "1s", "max_ejection_time_jitter": "100ms",
              "max_ejection_percent": {max_ejection_percent},
              "recovery_steps": [50, 100], "recovery_step_time": "200ms" }}
        }} ] }}"#
    );
    config::parse_all(&text).unwrap_or_else(|errors| panic!("{errors:?}"))
}
