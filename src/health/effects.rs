//! What a worker has to log, count and show.

use std::fmt;
use std::time::Duration;

use crate::tally::Proportion;
use crate::units::{Instant, Mode, ModelId, RouteId, TargetId};
use crate::{guard, outlier};

/// Nothing, most of the time, which costs nothing.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct Effects {
    /// Each happens once in the process: only the worker that decided it has it here.
    pub events: Vec<Event>,
    /// Values of gauges that all workers share. The workers with the newest configuration each set them as they learn
    /// of a change, and agree in the end.
    pub gauges: Vec<Gauge>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The target gets no traffic until then; in shadow mode it would get none.
    Ejected { model: ModelId, target: TargetId, cause: outlier::Cause, until: Instant, mode: Mode },
    /// The target was to be ejected, but too much would be out.
    RefusedByMax { model: ModelId, target: TargetId, cause: outlier::Cause },
    /// A probe succeeded, and the target gets its traffic back in steps.
    Returned { model: ModelId, target: TargetId, mode: Mode },
    RolledBack {
        model: ModelId,
        route: RouteId,
        target: TargetId,
        cause: guard::Cause,
        mode: Mode,
        numbers: Numbers,
    },
    /// A latch was cleared, because its split, its ramp or its guard has changed.
    Cleared { model: ModelId },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gauge {
    /// `predictgate_ejected`: 1 while the target gets no traffic.
    Ejected { model: ModelId, target: TargetId, value: u64 },
    /// `predictgate_weight`, in thousandths of the route's traffic.
    Weight { model: ModelId, route: RouteId, target: TargetId, value: u64 },
}

/// What decided a roll-back. Shares and latencies are those of the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Failures in a row of the canary.
    pub row: u32,
    pub canary: Proportion,
    pub baseline: Proportion,
    /// At `latency_quantile`, each at most a quarter too long.
    pub canary_latency: Option<Duration>,
    pub baseline_latency: Option<Duration>,
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { row, canary, baseline, .. } = self;
        write!(f, "{row} failures in a row, ")?;
        write!(f, "bad {} of {} against {} of {}", canary.bad, canary.of, baseline.bad, baseline.of)?;
        if let Some((canary, baseline)) = self.canary_latency.zip(self.baseline_latency) {
            write!(f, ", latency {} ms against {} ms", canary.as_millis(), baseline.as_millis())?;
        }
        Ok(())
    }
}

impl Effects {
    pub fn extend(&mut self, other: Self) {
        self.events.extend(other.events);
        self.gauges.extend(other.gauges);
    }

    pub const fn is_empty(&self) -> bool {
        self.events.is_empty() && self.gauges.is_empty()
    }
}
