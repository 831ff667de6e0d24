//! What was decided, kept outside the simulated process, and the law that it is held to.

use std::collections::BTreeMap;
use std::time::Duration;

use predictgate::rate_limit::{Refusal, TokenBucket, Why};
use predictgate::units::Instant;

use super::{Request, Setting};

#[derive(Clone, Copy, Debug)]
pub struct Decision {
    pub at: Instant,
    pub limit: u32,
    pub key: u8,
    pub cost: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Flight {
    from: Instant,
    /// None while it lasts, and for ever when its worker died.
    until: Option<Instant>,
    limit: u32,
    key: u8,
}

#[derive(Debug, Default)]
pub struct Ledger {
    pub admitted: Vec<Decision>,
    /// With the moment at which the answer was there.
    pub refused: Vec<(Decision, Refusal, Instant)>,
    /// Every spend that was asked for, from the question to the answer.
    pub flights: Vec<Flight>,
}

impl Ledger {
    pub fn start(&mut self, now: Instant, request: &Request) -> std::ops::Range<usize> {
        let first = self.flights.len();
        let flights = request.iter().map(|&(limit, key, _)| Flight { from: now, until: None, limit, key });
        self.flights.extend(flights);
        first..self.flights.len()
    }

    pub fn end(&mut self, flights: std::ops::Range<usize>, now: Instant) {
        for flight in &mut self.flights[flights] {
            flight.until = Some(now);
        }
    }

    pub fn refuse(&mut self, now: Instant, answered: Instant, request: &Request, refusal: Refusal) {
        let (limit, key, cost) =
            *request.iter().find(|spend| spend.0 == refusal.limit.0).expect("one that was asked");
        self.refused.push((Decision { at: now, limit, key, cost }, refusal, answered));
    }

    /// Admitted cost is at most rate x time + burst, for every limit, key and interval.
    ///
    /// The most that any interval which ends at a decision has above rate x time is the running maximum
    /// below, so one pass tells of all of them. It is exact: tokens are counted in units of 1 /
    /// fill_interval.
    pub fn law(&self, settings: &[Setting]) -> Result<(), String> {
        let mut sorted: Vec<_> = self.admitted.iter().collect();
        sorted.sort_by_key(|decision| decision.at);
        let mut above: BTreeMap<(u32, u8), (u128, Instant)> = BTreeMap::new();
        for decision in sorted {
            let setting = &settings[decision.limit as usize];
            let TokenBucket { max_tokens, tokens_per_fill, fill_interval } = setting.bucket;
            let key = if setting.is_keyed { decision.key } else { 0 };
            let (most, last) = above.entry((decision.limit, key)).or_insert((0, decision.at));
            let gained = decision.at.since(*last).as_nanos() * u128::from(tokens_per_fill);
            *most = most.saturating_sub(gained) + u128::from(decision.cost) * fill_interval.as_nanos();
            *last = decision.at;
            let allowed = u128::from(max_tokens) * fill_interval.as_nanos();
            if allowed < *most {
                let over = (*most - allowed) as f64 / fill_interval.as_nanos() as f64;
                return Err(format!("{over} tokens too many by {decision:?} under {setting:?}"));
            }
        }
        Ok(())
    }

    /// Nobody is refused by a bucket that must be full: one from which nothing that was admitted, and nothing
    /// that is being decided, has taken a token for as long as it takes to fill, and for as long as a worker
    /// believes what it saw.
    ///
    /// Returns how many refusals there were to look at.
    pub fn nothing_leaks(&self, settings: &[Setting]) -> Result<usize, String> {
        const BELIEF: Duration = Duration::from_millis(20);
        let mut looked_at = 0;
        for (refused, refusal, answered) in &self.refused {
            if refusal.why == Why::Unavailable || refusal.why == Why::NeverSatisfiable {
                continue;
            }
            let setting = &settings[refused.limit as usize];
            let is_same = |limit, key| limit == refused.limit && (key == refused.key || !setting.is_keyed);
            let TokenBucket { max_tokens, tokens_per_fill, fill_interval } = setting.bucket;
            let fill = fill_interval * max_tokens / tokens_per_fill;
            // What others are deciding at the same time may hold tokens that they give back.
            let in_flight = self.flights.iter().filter(|flight| {
                is_same(flight.limit, flight.key)
                    && flight.from != refused.at
                    && flight.from <= *answered
                    && flight.until.is_none_or(|until| refused.at.since(until) <= BELIEF)
                    && flight.until.is_none_or(|until| until.since(flight.from) > Duration::ZERO)
            });
            if in_flight.count() > 0 {
                continue;
            }
            looked_at += 1;
            let quiet = fill + BELIEF;
            let took = |decision: &&Decision| {
                is_same(decision.limit, decision.key)
                    && decision.at <= refused.at
                    && refused.at.since(decision.at) <= quiet
            };
            if !self.admitted.iter().any(|decision| took(&decision)) {
                return Err(format!("{refused:?} was refused by a full bucket: {refusal:?}"));
            }
        }
        Ok(looked_at)
    }
}
