//! What a worker keeps of a key that it has seen: the rest of its lease, how much it is asked for, and
//! the bucket as it was last seen.

use super::gcra::{Gcra, LEASE_NANOS, Refused, Tat};
use super::slots::Seat;
use crate::units::Instant;

/// Demand is the sum of what was asked for, of which a part goes in proportion to the time; at a steady rate
/// it is what comes in this time.
const MEMORY_NANOS: u64 = 40_000_000;

/// A lease is a sixth of the demand, what comes in 7 ms: a third of the 20 ms in which it can be used, so
/// that little of it is lost when less comes. At 2,500 requests a second that is a debit every 16 requests.
const LEASES_IN_DEMAND: u64 = 6;

/// While the bucket is nearly full, a lease is all that comes in its 20 ms, though more of it is lost then: that takes
/// a sixteenth of the bucket at most from who comes later. Without it a key needs 300 requests a second to have a
/// lease, and each of its requests a debit until then.
const LEASES_IN_DEMAND_OF_PLENTY: u64 = 2;

/// Bits behind the point of the demand.
const FRACTION: u32 = 16;

/// How long a bucket that was seen empty is believed to be, unless it fills before. It is empty unless
/// another worker's debit was given back.
const BELIEF_NANOS: u64 = 20_000_000;

/// `whole` times `nanos` / [`MEMORY_NANOS`], which is at most 1, rounded down. The product is taken in two parts that
/// fit, since a wider number takes calls.
const fn part(whole: u64, nanos: u64) -> u64 {
    let (times, rest) = (whole.wrapping_div(MEMORY_NANOS), whole.wrapping_rem(MEMORY_NANOS));
    let rest = rest.wrapping_mul(nanos).wrapping_div(MEMORY_NANOS);
    times.wrapping_mul(nanos).wrapping_add(rest)
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Debited for this worker and not used.
    tokens: u64,
    debited_at: Instant,
    demand: u64,
    asked_at: Instant,
    /// The bucket when it was last seen, and when that was.
    tat: Tat,
    seen_at: Instant,
    /// Until a lease is worth debiting: the bucket is left to fill so far.
    asleep_until: Instant,
}

impl Account {
    /// Notes that `cost` is asked for, admitted or not.
    pub fn ask(&mut self, cost: u64, now: Instant) {
        let left = MEMORY_NANOS.saturating_sub(now.nanos_since(self.asked_at));
        let more = cost.min(u64::MAX >> FRACTION) << FRACTION;
        self.demand = part(self.demand, left).saturating_add(more);
        self.asked_at = self.asked_at.max(now);
    }

    /// How many tokens a lease should have at this demand, by what is known of the bucket; less than two needs are no
    /// lease.
    pub fn lease(&self, gcra: &Gcra, need: u64, now: Instant) -> Option<u64> {
        let is_known = now.nanos_since(self.seen_at) < MEMORY_NANOS;
        let most = gcra.available(Tat::default(), now);
        let has_plenty = is_known && most.saturating_sub(most / 16) <= gcra.available(self.tat, now);
        self.part_of_demand(
            gcra,
            need,
            if has_plenty { LEASES_IN_DEMAND_OF_PLENTY } else { LEASES_IN_DEMAND },
        )
    }

    fn part_of_demand(&self, gcra: &Gcra, need: u64, leases: u64) -> Option<u64> {
        let demand = self.demand.checked_div(leases).unwrap_or(0) >> FRACTION;
        let lease = demand.min(gcra.largest_lease());
        (need.saturating_mul(2) <= lease).then_some(lease)
    }

    /// The tokens of the lease that may still be used.
    pub fn leased(&self, now: Instant) -> u64 {
        if now.nanos_since(self.debited_at) <= LEASE_NANOS { self.tokens } else { 0 }
    }

    pub fn use_lease(&mut self, cost: u64) {
        self.tokens = self.tokens.saturating_sub(cost);
    }

    pub fn put_lease(&mut self, tokens: u64, now: Instant) {
        (self.tokens, self.debited_at) = (tokens, now);
    }

    /// Why the bucket is known not to admit `cost`, without looking.
    pub fn refuses(&mut self, gcra: &Gcra, cost: u64, now: Instant) -> Option<Refused> {
        if BELIEF_NANOS <= now.nanos_since(self.seen_at) {
            return None;
        }
        if let Err(why) = gcra.step(self.tat, now, cost) {
            return Some(self.sleep(gcra, cost, now, why));
        }
        let is_asleep =
            now < self.asleep_until && self.part_of_demand(gcra, cost, LEASES_IN_DEMAND).is_some();
        is_asleep.then(|| Refused::Exhausted { retry_after: self.asleep_until.since(now) })
    }

    /// The bucket was seen too empty for `cost`: why, for the caller.
    pub fn see_empty(&mut self, gcra: &Gcra, tat: Tat, cost: u64, now: Instant, why: Refused) -> Refused {
        self.see(tat, now);
        self.sleep(gcra, cost, now, why)
    }

    /// Where demand is high, debiting each token as it comes would take two calls of the host for each, so an
    /// empty bucket is left to fill for a lease. Nothing is lost with that, because the largest lease is a
    /// quarter of the burst at most.
    fn sleep(&mut self, gcra: &Gcra, cost: u64, now: Instant, why: Refused) -> Refused {
        let Some(lease) = self.part_of_demand(gcra, cost, LEASES_IN_DEMAND) else { return why };
        let Err(Refused::Exhausted { retry_after }) = gcra.step(self.tat, now, lease) else { return why };
        self.asleep_until = now.after(retry_after);
        Refused::Exhausted { retry_after }
    }

    /// Keeps what the bucket was seen to be. A bucket that is shared is not kept, since the key may have its
    /// own next time.
    pub fn remember(&mut self, seat: Seat, tat: Tat, now: Instant) {
        if seat == Seat::Shared {
            self.see(Tat::default(), Instant::default());
        } else {
            self.see(tat, now);
        }
    }

    fn see(&mut self, tat: Tat, now: Instant) {
        (self.tat, self.seen_at, self.asleep_until) = (tat, now, Instant::default());
    }

    pub const fn tat(&self) -> Tat {
        self.tat
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows stops")]
mod tests {
    use super::*;
    use crate::rng::Rng;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_part_is_that_of_the_exact_product() {
        let mut rng = Rng::seeded(1);
        let wholes = (0..=63).map(|shift| rng.next_u64() >> shift).chain([0, MEMORY_NANOS, u64::MAX]);
        for whole in wholes.collect::<Vec<_>>() {
            for nanos in [0, 1, rng.next_u64() % MEMORY_NANOS, MEMORY_NANOS - 1, MEMORY_NANOS] {
                let exact = u128::from(whole) * u128::from(nanos) / u128::from(MEMORY_NANOS);
                assert_eq!(u128::from(part(whole, nanos)), exact, "{whole} for {nanos}");
            }
        }
    }
}
