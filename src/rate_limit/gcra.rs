//! The token bucket as one moment: the generic cell rate algorithm.
//!
//! A bucket is described by its theoretical arrival time, the moment at which it is full again
//! ([ITU-T I.371], annex A). Admitting a cost moves that moment on by what the cost takes to refill; a cost is
//! admitted when afterwards the bucket is full within the time that an empty bucket takes.
//!
//! # The law
//!
//! For every interval of length W, admitted cost <= rate x W + burst. Let `i` be the time one token takes and
//! D = burst x i. Take the decisions whose moments lie in the interval [s, e], in the order in which they
//! were written. The first starts at max(TAT, t) >= s, each adds cost x i, and the last ends at most D after
//! its own moment, which is at most e. So the sum of cost x i is at most D + e - s = D + W. Nothing in this
//! needs the moments to be in order, so a worker whose clock reading has grown old in between breaks nothing.
//!
//! # Units
//!
//! Time is counted in sixteenths of a nanosecond, which a u64 holds for 36 years. The time of one token is
//! rounded up once, and the burst is a whole number of rounded tokens, so that the law holds exactly, a full
//! bucket admits exactly its burst, and only the rate is lower, by at most 1/256 (0.4 %). Where a token takes
//! so little time that rounding would cost more (above 60 million tokens a second), tokens are counted in
//! groups of 2^n, a cost by the groups that it begins.
//!
//! # Tokens that are used later than they are debited
//!
//! A worker may debit many tokens at once, a lease, and use them for at most [`LEASE`]. What is used in
//! [s, e] was debited in [s - LEASE, e], so the sum above is at most D' + W + LEASE, where D' is the depth to
//! which debits may empty the bucket. That is D + W again when D' is D - LEASE, which as tokens is
//! burst - rate x LEASE: the law holds for uses.
//!
//! A cost between the two depths is admitted alone: when TAT + LEASE <= now, no debit of the last LEASE
//! exists, since each leaves TAT behind its own moment. All debits from s - LEASE on then took at most now -
//! s, and the cost at most D.
//!
//! [ITU-T I.371]: https://www.itu.int/rec/T-REC-I.371

use std::time::Duration;

use super::TokenBucket;
use crate::units::{Instant, nanos};

/// How long debited tokens may be used.
pub const LEASE: Duration = Duration::from_nanos(LEASE_NANOS);

pub const LEASE_NANOS: u64 = 20_000_000;

/// A lease is no larger than what the bucket gains in this time, so that little is lost when it is not used.
const LARGEST_LEASE: Duration = Duration::from_millis(10);

const UNITS_PER_NANO: u64 = 16;

/// No bucket takes longer to fill than 18 years, so that moments cannot overflow.
const LONGEST: u64 = 1 << 63;

/// The moment at which a bucket is full again. Zero is a bucket that nobody has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tat(u64);

impl Tat {
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Whether the bucket is full.
    pub fn has_passed(self, now: Instant) -> bool {
        self.0 <= units(now)
    }

    /// When the bucket is full again, from `now`.
    pub fn full_in(self, now: Instant) -> Duration {
        until(self.0, units(now))
    }
}

fn units(now: Instant) -> u64 {
    now.as_nanos().saturating_mul(UNITS_PER_NANO)
}

fn span(duration: Duration) -> u64 {
    nanos(duration).saturating_mul(UNITS_PER_NANO)
}

/// The time from `now` to `then`, to the next whole nanosecond.
const fn until(then: u64, now: u64) -> Duration {
    Duration::from_nanos(then.saturating_sub(now).div_ceil(UNITS_PER_NANO))
}

/// The numbers of one limit, made ready for its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gcra {
    /// The time that a group of tokens takes.
    interval: u64,
    /// A group is 2^shift tokens.
    shift: u32,
    /// The largest cost that a full bucket admits, in tokens.
    burst: u64,
    /// The time that an empty bucket takes to fill.
    full: u64,
    /// How much of that time debits may use up.
    depth: u64,
    /// The tokens of the largest lease; zero for what is never leased.
    largest_lease: u64,
}

/// Why a step was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It would be admitted at this time from now, and not before, if nobody else spends in between.
    Exhausted { retry_after: Duration },
    /// The cost is more than the bucket holds.
    NeverSatisfiable,
}

/// Tokens that were debited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debit {
    /// How many, at least as many as were needed.
    pub tokens: u64,
    /// The bucket after it.
    pub tat: Tat,
    /// When the bucket would have been full without it.
    base: u64,
    /// By how much it moved that.
    charge: u64,
}

impl Gcra {
    pub fn new(bucket: TokenBucket) -> Self {
        let tokens = u128::from(bucket.tokens_per_fill.max(1));
        let per_fill = u128::from(span(bucket.fill_interval).max(1));
        // Groups of 2^17 are enough for the most that can be configured, 2^32 tokens a millisecond.
        let rounded = |shift: u32| per_fill.wrapping_shl(shift).div_ceil(tokens);
        let is_close = |shift: &u32| {
            let exact = per_fill.wrapping_shl(*shift).saturating_mul(257);
            rounded(*shift).saturating_mul(tokens).saturating_mul(256) <= exact
        };
        let shift = (0..32).find(is_close).unwrap_or(32);
        let interval = u64::try_from(rounded(shift)).unwrap_or(LONGEST).min(LONGEST);
        let burst = u64::from(bucket.max_tokens.max(1));
        let groups = (burst >> shift).max(1).min(LONGEST.checked_div(interval).unwrap_or(1));
        let full = groups.saturating_mul(interval);
        let in_time = |time: u64| time.checked_div(interval).unwrap_or(0) << shift;
        let lease = span(LEASE);
        let is_leased = lease.saturating_mul(2) <= full && 2 <= in_time(span(LARGEST_LEASE));
        Self {
            interval,
            shift,
            burst: burst.min(groups << shift),
            full,
            depth: if is_leased { full.saturating_sub(lease) } else { full },
            largest_lease: if is_leased { in_time(span(LARGEST_LEASE)) } else { 0 },
        }
    }

    /// The largest cost that a full bucket admits. It is the operator's `max_tokens`, but for what does not
    /// fill a group of tokens and for a bucket that takes longer than 18 years to fill.
    pub const fn burst(&self) -> u64 {
        self.burst
    }

    /// The most tokens that one lease may hold; zero for a limit that is never leased.
    pub const fn largest_lease(&self) -> u64 {
        self.largest_lease
    }

    /// Whether tokens may be used later than they were debited.
    pub const fn is_leased(&self) -> bool {
        self.largest_lease > 0
    }

    /// The time in which an empty bucket fills.
    pub fn window(&self) -> Duration {
        until(self.full, 0)
    }

    /// Admits `cost` or refuses it: the bucket afterwards.
    ///
    /// # Errors
    ///
    /// Says why it is refused, which leaves the bucket as it was.
    pub fn step(&self, tat: Tat, now: Instant, cost: u64) -> Result<Tat, Refused> {
        let charge = self.charge(cost).ok_or(Refused::NeverSatisfiable)?;
        let now = units(now);
        let next = tat.0.max(now).saturating_add(charge);
        if next <= now.saturating_add(self.depth) {
            return Ok(Tat(next));
        }
        if charge <= self.depth {
            return Err(Refused::Exhausted { retry_after: until(next, now.saturating_add(self.depth)) });
        }
        // Larger than what debits leave, it needs a bucket that has been full for the time of a lease.
        let rested = tat.0.saturating_add(self.full.saturating_sub(self.depth));
        if tat.0 == 0 || rested <= now {
            Ok(Tat(next))
        } else {
            Err(Refused::Exhausted { retry_after: until(rested, now) })
        }
    }

    /// Debits `need` tokens, or up to `want` when the bucket has them.
    ///
    /// # Errors
    ///
    /// Says why not even `need` is there.
    pub fn debit(&self, tat: Tat, now: Instant, need: u64, want: u64) -> Result<Debit, Refused> {
        self.step(tat, now, need)?;
        let base = tat.0.max(units(now));
        let tokens = if need < want { want.min(self.available(tat, now)).max(need) } else { need };
        let charge = self.charge(tokens).ok_or(Refused::NeverSatisfiable)?;
        Ok(Debit { tokens, tat: Tat(base.saturating_add(charge)), base, charge })
    }

    /// The bucket `tat` with as much of `debit` given back at `now` as the law allows; no use may have been
    /// made of it.
    ///
    /// Compare the bucket with one in which the debit never was. Directly after it they differ by the charge.
    /// The difference shrinks by the time for which the other bucket stood full, which begins no earlier than
    /// `base`; so at least charge - (now - base) of it is left. `now` must have been read after `tat`, so
    /// that no other debit in it is later.
    #[must_use]
    pub fn refund(&self, tat: Tat, debit: Debit, now: Instant) -> Tat {
        let left = debit.charge.saturating_sub(units(now).saturating_sub(debit.base));
        Tat(tat.0.saturating_sub(left))
    }

    /// The tokens that could be debited at once.
    pub fn available(&self, tat: Tat, now: Instant) -> u64 {
        let now = units(now);
        let left = now.saturating_add(self.depth).saturating_sub(tat.0.max(now));
        let groups = left.checked_div(self.interval).unwrap_or(0);
        (groups << self.shift).min(self.burst)
    }

    /// A bucket that a limit with other numbers wrote: it is no emptier than empty.
    #[must_use]
    pub fn clamp(&self, tat: Tat, now: Instant) -> Tat {
        Tat(tat.0.min(units(now).saturating_add(self.full)))
    }

    fn charge(&self, cost: u64) -> Option<u64> {
        if cost > self.burst {
            return None;
        }
        let groups = cost.div_ceil(1_u64.wrapping_shl(self.shift));
        // At most `full`, or one group.
        Some(groups.wrapping_mul(self.interval))
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows stops")]
mod tests;
