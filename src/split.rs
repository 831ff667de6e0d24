//! Splits: which target answers a request that a route takes.

use std::time::Duration;

use crate::units::{Share, TargetId, WallTime};

/// The targets of a route with their weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// At least one; the weights sum to 1 at least and [`MAX_WEIGHT_SUM`] at most.
    pub arms: Vec<Arm>,
}

pub const MAX_WEIGHT_SUM: u32 = 1_000_000;

/// One target of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arm {
    pub target: TargetId,
    pub weight: u32,
}

impl Split {
    /// The target that answers, or none when every weight is zero.
    ///
    /// A configuration with more than one target of positive weight is not accepted yet, so there is nothing to choose between.
    pub fn choose(&self) -> Option<TargetId> {
        self.arms.iter().find(|arm| arm.weight > 0).map(|arm| arm.target)
    }
}

/// A weight that grows by the clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ramp {
    pub target: TargetId,
    pub start: WallTime,
    /// At least one; only the last has no duration.
    pub steps: Vec<RampStep>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RampStep {
    pub share: Share,
    /// How long the step lasts; the last one lasts for good.
    pub lasts: Option<Duration>,
}
