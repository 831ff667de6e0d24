//! The guard of a canary: when a bad version is rolled back.

use std::time::Duration;

use crate::units::{Factor, Mode, Share, TargetId};

/// The operator's settings of one guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    pub target: TargetId,
    pub baseline: TargetId,
    pub window: Duration,
    /// Fewer requests in a window judge nothing.
    pub min_requests: u32,
    /// Failures in a row that trip; 0 turns the rule off.
    pub consecutive_failures: u32,
    /// How much more of the canary's requests than of the baseline's may fail.
    pub max_failure_increase: Share,
    /// How sure the test of two proportions must be.
    pub confidence: Share,
    /// How many times the baseline's latency is too slow; 0 turns the rule off.
    pub max_latency_ratio: Factor,
    pub latency_quantile: Share,
    pub on_ejection: OnEjection,
    /// Raised by the operator to clear a latch.
    pub epoch: u64,
    pub mode: Mode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnEjection {
    #[default]
    Trip,
    Ignore,
}
