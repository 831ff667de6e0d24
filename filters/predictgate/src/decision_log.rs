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
pub struct DecisionLog(String);

impl DecisionLog {
    pub fn note(&mut self, now: Instant, decision: Option<Decision>, verdict: &Verdict) {
        if let Some(model) = decision.and_then(|decision| decision.model) {
            let sign = if matches!(verdict, Verdict::Forward(_)) { '+' } else { '-' };
            // Writing to a string does not fail.
            _ = write!(self.0, " {}:{}{sign}", model.0, now.as_nanos());
        }
    }

    /// One line for many decisions, since a line costs as much as a request.
    pub fn write(&mut self) {
        if !self.0.is_empty() {
            log::info!("decisions:{}", std::mem::take(&mut self.0));
        }
    }
}
