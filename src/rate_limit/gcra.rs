//! The token bucket as one moment: the generic cell rate algorithm.
//!
//! A bucket is described by its theoretical arrival time, the moment at which it is full again ([ITU-T I.371], annex A).
//! Admitting a cost moves that moment on by what the cost takes to refill; a cost is admitted when afterwards the
//! bucket is full within the time that an empty bucket takes.
//!
//! # The law
//!
//! For every interval of length W, admitted cost <= rate x W + burst.
//! Let `i` be the time one token takes and D = burst x i. Take the decisions whose moments lie in the interval [s, e], in
//! the order in which they were written. The first starts at max(TAT, t) >= s, each adds cost x i, and the last ends at
//! most D after its own moment, which is at most e. So the sum of cost x i is at most D + e - s = D + W. Nothing in this
//! needs the moments to be in order, so a worker whose clock reading has grown old in between breaks nothing.
//!
//! # Units
//!
//! Time is counted in sixteenths of a nanosecond, which a u64 holds for 36 years. The time of one token is rounded up
//! once, and the burst is a whole number of rounded tokens, so that the law holds exactly, a full bucket admits
//! exactly its burst, and only the rate is lower, by at most 1/256 (0.4 %). Where a token takes so little time that
//! rounding would cost more (above 60 million tokens a second), tokens are counted in groups of 2^n, a cost by the
//! groups that it begins.
//!
//! # Tokens that are used later than they are debited
//!
//! A worker may debit many tokens at once, a lease, and use them for at most [`LEASE`]. What is used in [s, e] was debited
//! in [s - LEASE, e], so the sum above is at most D' + W + LEASE, where D' is the depth to which debits may empty the
//! bucket. With D' = D - LEASE, which as tokens is burst - rate x LEASE, that is D + W again: the law holds for uses.
//!
//! A cost between the two depths is admitted alone: when TAT + LEASE <= now, no debit of the last LEASE exists, since each
//! leaves TAT behind its own moment. All debits from s - LEASE on then took at most now - s, and the cost at most D.
//!
//! [ITU-T I.371]: https://www.itu.int/rec/T-REC-I.371

use std::time::Duration;

use super::TokenBucket;
use crate::units::{Instant, nanos};

/// How long debited tokens may be used.
pub const LEASE: Duration = Duration::from_millis(20);

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

    /// The largest cost that a full bucket admits. It is the operator's `max_tokens`, but for what does not fill a group
    /// of tokens and for a bucket that takes longer than 18 years to fill.
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

    /// The bucket `tat` with as much of `debit` given back at `now` as the law allows; no use may have been made of it.
    ///
    /// Compare the bucket with one in which the debit never was. Directly after it they differ by the charge. The
    /// difference shrinks by the time for which the other bucket stood full, which begins no earlier than `base`; so at
    /// least charge - (now - base) of it is left. `now` must have been read after `tat`, so that no other debit in it
    /// is later.
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
        Some(groups.saturating_mul(self.interval))
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows stops")]
mod tests {
    use super::*;
    use crate::rng::Rng;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn bucket(max_tokens: u32, tokens_per_fill: u32, fill_interval: Duration) -> TokenBucket {
        TokenBucket { max_tokens, tokens_per_fill, fill_interval }
    }

    fn gcra(max_tokens: u32, tokens_per_fill: u32, fill_interval: Duration) -> Gcra {
        Gcra::new(bucket(max_tokens, tokens_per_fill, fill_interval))
    }

    const SECOND: Duration = Duration::from_secs(1);
    const START: Instant = Instant::from_nanos(1_000_000_000_000);

    /// How many requests of one token pass at once.
    fn at_once(gcra: &Gcra, mut tat: Tat, now: Instant) -> (u64, Tat) {
        let mut admitted = 0;
        while let Ok(next) = gcra.step(tat, now, 1) {
            (tat, admitted) = (next, admitted + 1);
        }
        (admitted, tat)
    }

    #[test]
    fn a_full_bucket_admits_exactly_its_burst_whatever_the_rate() {
        for tokens in [1, 2, 3, 5, 7, 10, 97] {
            for burst in [1, 2, 3, 100] {
                let gcra = gcra(burst, tokens, SECOND);
                assert_eq!(at_once(&gcra, Tat::default(), START).0, u64::from(burst), "{tokens} a second");
            }
        }
    }

    #[test]
    fn a_refused_request_is_admitted_at_the_promised_moment_and_not_before() {
        let mut rng = Rng::seeded(1);
        let mut draw = |below: u64| rng.below(below.try_into().unwrap());
        for _ in 0..2000 {
            let burst = 1 + u32::try_from(draw(5000)).unwrap();
            let gcra =
                gcra(burst, 1 + u32::try_from(draw(5000)).unwrap(), Duration::from_millis(1 + draw(5000)));
            let (_, tat) = at_once(&gcra, Tat::default(), START);
            let now = START.after(Duration::from_nanos(draw(1_000_000)));
            let cost = 1 + draw(gcra.burst());
            let Err(Refused::Exhausted { retry_after }) = gcra.step(tat, now, cost) else { continue };
            let then = now.after(retry_after);
            let before = Instant::from_nanos(then.as_nanos() - 1);
            assert!(gcra.step(tat, then, cost).is_ok(), "{gcra:?} {cost}");
            assert!(gcra.step(tat, before, cost).is_err(), "{gcra:?} {cost}");
        }
    }

    #[test]
    fn a_cost_up_to_the_burst_passes_some_time_and_a_larger_one_never() {
        for gcra in [gcra(100, 100, SECOND), gcra(2000, 2000, SECOND), gcra(40, 1000, SECOND)] {
            let burst = gcra.burst();
            assert!(gcra.step(Tat::default(), START, burst).is_ok());
            assert_eq!(gcra.step(Tat::default(), START, burst + 1), Err(Refused::NeverSatisfiable));
            let (_, empty) = at_once(&gcra, Tat::default(), START);
            let Err(Refused::Exhausted { retry_after }) = gcra.step(empty, START, burst) else { panic!() };
            assert!(gcra.step(empty, START.after(retry_after), burst).is_ok());
        }
    }

    #[test]
    fn what_is_available_is_what_can_be_debited() {
        let gcra = gcra(1000, 2000, SECOND);
        let mut tat = gcra.step(Tat::default(), START, 1).unwrap();
        for step in 0..100 {
            let now = START.after(Duration::from_millis(step * 7));
            let available = gcra.available(tat, now);
            assert!(gcra.step(tat, now, available).is_ok());
            assert!(gcra.step(tat, now, available + 1).is_err());
            tat = gcra.debit(tat, now, available.min(1), available / 2).unwrap().tat;
        }
    }

    #[test]
    fn a_debit_takes_what_is_there_up_to_what_is_wanted() {
        let gcra = gcra(5, 1, SECOND);
        let debit = gcra.debit(Tat::default(), START, 2, 4).unwrap();
        assert_eq!(debit.tokens, 4);
        assert_eq!(gcra.debit(debit.tat, START, 1, 4).unwrap().tokens, 1);
        assert!(gcra.debit(debit.tat, START, 2, 4).is_err());
    }

    #[test]
    fn a_limit_is_leased_when_its_burst_is_twice_what_a_lease_time_gains() {
        // 20 ms at 1,000 a second are 20 tokens.
        for (burst, rate, depth) in [(40, 1000, 20), (39, 1000, 39), (2000, 2000, 1960), (100, 100, 100)] {
            let gcra = gcra(burst, rate, SECOND);
            assert_eq!(gcra.available(Tat::default(), START), depth, "{burst} at {rate} a second");
            assert_eq!(gcra.is_leased(), depth < u64::from(burst));
        }
    }

    #[test]
    fn a_whole_burst_waits_until_no_lease_can_be_in_use() {
        let gcra = gcra(100, 1000, SECOND);
        let tat = gcra.step(Tat::default(), START, 1).unwrap();
        let passed = START.after(Duration::from_millis(1));
        assert!(tat.has_passed(passed));
        let refused = Refused::Exhausted { retry_after: LEASE };
        assert_eq!(gcra.step(tat, passed, 100), Err(refused));
        assert!(gcra.step(tat, passed.after(LEASE), 100).is_ok());
    }

    #[test]
    fn the_rate_is_never_above_the_configured_one_and_at_most_four_thousandths_below() {
        for (tokens, fill) in [
            (1, SECOND),
            (3, SECOND),
            (7, Duration::from_millis(1)),
            (999_999_937, SECOND),
            (1_500_000_000, SECOND),
            (u32::MAX, Duration::from_millis(1)),
            (1, Duration::from_secs(315_360_000)),
        ] {
            let gcra = gcra(u32::MAX, tokens, fill);
            let group = u128::from(1_u64 << gcra.shift);
            // The time of a group, once exact and once as it is counted, both times tokens_per_fill.
            let exact = u128::from(span(fill)) * group;
            let counted = u128::from(gcra.interval) * u128::from(tokens);
            assert!(exact <= counted, "{tokens} in {fill:?}");
            assert!((counted - exact) * 250 <= exact, "{tokens} in {fill:?}");
        }
    }

    #[test]
    fn a_refund_undoes_a_debit_that_nobody_followed() {
        let gcra = gcra(10, 1, SECOND);
        let some = gcra.step(Tat::default(), START, 4).unwrap();
        let debit = gcra.debit(some, START, 3, 3).unwrap();
        assert_eq!(gcra.refund(debit.tat, debit, START), some);
    }

    #[test]
    fn a_refund_never_leaves_more_than_if_the_debit_had_not_been() {
        let mut rng = Rng::seeded(2);
        let mut draw = |below: u64| rng.below(below.try_into().unwrap());
        let mut refunded_less = 0;
        for _ in 0..5000 {
            let gcra = gcra(10, 1, SECOND);
            let mut now = START;
            let mut without = Tat(units(START) - span(SECOND) + draw(4 * span(SECOND)));
            let Ok(debit) = gcra.debit(without, now, 1 + draw(3), 0) else { continue };
            let mut with = debit.tat;
            for _ in 0..draw(4) {
                now = now.after(Duration::from_millis(draw(2000)));
                let cost = 1 + draw(3);
                if let Ok(next) = gcra.step(with, now, cost) {
                    with = next;
                    without = gcra.step(without, now, cost).expect("a fuller bucket admits it too");
                }
            }
            let refunded = gcra.refund(with, debit, now);
            let least = without.0.max(units(now));
            assert!(least <= refunded.0.max(units(now)), "{debit:?} {refunded:?} {without:?}");
            refunded_less += u64::from(with.0 - refunded.0 < debit.charge);
        }
        assert!(refunded_less > 1000, "{refunded_less}");
    }

    #[test]
    fn other_numbers_find_the_bucket_no_emptier_than_empty() {
        let (wide, narrow) = (gcra(1000, 1, SECOND), gcra(5, 1, SECOND));
        let (_, tat) = at_once(&wide, Tat::default(), START);
        let clamped = narrow.clamp(tat, START);
        let refused = Refused::Exhausted { retry_after: SECOND };
        assert_eq!(narrow.step(clamped, START, 1), Err(refused));
        assert_eq!(clamped.full_in(START), Duration::from_secs(5));
    }
}
