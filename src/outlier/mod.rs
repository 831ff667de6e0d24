//! Outlier detection: when a target of a model stops, and resumes, taking traffic.

use std::time::Duration;

use crate::units::{Factor, Mode, Share};

/// The operator's settings, named as in Envoy's `outlier_detection`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Failures in a row that eject; 0 turns the rule off.
    pub consecutive_failures: u32,
    /// The share of failures in an interval that ejects; none turns the rule off.
    pub failure_percentage_threshold: Share,
    /// Fewer requests in an interval judge nothing.
    pub request_volume: u32,
    pub interval: Duration,
    /// Standard deviations below the mean success rate of the split's targets; 0 turns the rule off.
    pub success_rate_stdev_factor: Factor,
    /// The multiple of the other targets' median latency that ejects; 0 turns the rule off.
    pub latency_ratio: Factor,
    /// Failures in a row count only when so many callers saw them.
    pub min_clients: u32,
    pub base_ejection_time: Duration,
    pub max_ejection_time: Duration,
    pub max_ejection_time_jitter: Duration,
    pub max_ejection_percent: Share,
    /// The shares of its weight that a target gets back one after the other.
    pub recovery_steps: Vec<Share>,
    pub recovery_step_time: Duration,
    pub mode: Mode,
}
