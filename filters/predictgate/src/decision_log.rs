//! Tells when each request was admitted or refused, for tests that hold limits to their law.
//!
//! It is no part of the module that is shipped: only the feature `decision-log` builds it in.

use std::fmt::Write as _;

use predictgate::exchange::Decision;
use predictgate::units::Instant;
use predictgate::verdict::Verdict;

/// Decisions since the last tick. Each is the model's place in the configuration, the moment in nanoseconds, and `+`
/// for a request that goes on or `-` for one that does not: ` 0:3600000000000+`.
#[derive(Debug, Default)]
pub struct DecisionLog {
    decisions: String,
    /// How often other workers had written first when that was told last.
    conflicts: u64,
}

impl DecisionLog {
    pub fn note(&mut self, now: Instant, decision: Option<Decision>, verdict: &Verdict) {
        if let Some(model) = decision.and_then(|decision| decision.model) {
            let sign = if matches!(verdict, Verdict::Forward(_)) { '+' } else { '-' };
            // Writing to a string does not fail.
            _ = write!(self.decisions, " {}:{}{sign}", model.0, now.as_nanos());
        }
    }

    /// One line for many decisions, since a line costs as much as a request. `conflicts` is how often other workers
    /// have written first.
    pub fn write(&mut self, conflicts: u64) {
        if !self.decisions.is_empty() {
            log::info!("decisions:{}", std::mem::take(&mut self.decisions));
        }
        let more = conflicts.saturating_sub(self.conflicts);
        if more > 0 {
            log::info!("conflicts: {more}");
            self.conflicts = conflicts;
        }
    }
}
