//! Splits: which target answers a request that a route takes.
//!
//! A caller is bound to a target by weighted rendezvous hashing: each target draws a number for the caller, and
//! the target whose number, divided by its weight, is the smallest wins. The numbers are exponentially
//! distributed, so each target wins its share; and since a target's number depends on nothing but itself and the
//! caller, a caller moves only from a target whose weight fell relative to the one it moves to.
//! Sources: Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (1998); Efraimidis and
//! Spirakis, "Weighted random sampling with a reservoir" (2006).
//!
//! Hash and numbers are integers and fixed for good: a caller must find its target again after an update, behind
//! another gateway, and in a later version of this filter. `tests/cases/split.toml` holds examples.

use std::time::Duration;

use crate::units::{Share, TargetId, WallTime, nanos};

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
    /// The hash of the target's name, by [`KeyHash::text`].
    pub name: KeyHash,
    pub weight: u32,
}

/// A caller, or one request of a caller without a key, as a split sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw(u64);

impl Draw {
    /// The draw of a caller: every request with the same key has the same.
    pub const fn of(key: KeyHash) -> Self {
        Self(mix(key.0))
    }

    /// The draw of a request that nothing binds, from a generator of uniform numbers.
    pub const fn at_random(number: u64) -> Self {
        Self(number)
    }

    /// Whether the caller, or the request, is in a sample of this share, whatever target it has.
    pub const fn is_sampled(self, share: Share) -> bool {
        let (place, _) = product(mix(self.0 ^ SAMPLE), Share::WHOLE.millionths() as u64);
        place < share.millionths() as u64
    }

    /// The draw of a caller that stays bound for `every` and then is drawn anew.
    ///
    /// Each caller has a moment of its own within the period, so that not all move at once.
    pub fn rotating(key: KeyHash, every: Duration, now: WallTime) -> Self {
        let period = nanos(every).max(1);
        let phase = mix(key.0 ^ PHASE).checked_rem(period).unwrap_or(0);
        let turn = now.as_nanos().saturating_add(phase).checked_div(period).unwrap_or(0);
        Self(mix(key.number(turn).0))
    }
}

impl Split {
    /// The weights after the ramp, at a moment of wall time.
    pub fn weights(&self, ramp: Option<&Ramp>, now: WallTime) -> Weights<'_> {
        let ramp = ramp.map(|ramp| {
            let others = self.arms.iter().filter(|arm| arm.target != ramp.target);
            let sum = others.map(|arm| u64::from(arm.weight)).fold(0, u64::saturating_add);
            Ramped { target: ramp.target, share: ramp.share(now), others: sum }
        });
        Weights { split: self, ramp }
    }
}

/// The weights of a split as they are now. They count only in proportion to each other.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    split: &'a Split,
    ramp: Option<Ramped>,
}

#[derive(Clone, Copy, Debug)]
struct Ramped {
    target: TargetId,
    share: Share,
    /// What the other targets' weights sum to.
    others: u64,
}

impl Weights<'_> {
    /// Each target with its weight, which is below 2^40.
    pub fn iter(&self) -> impl Iterator<Item = (Arm, u64)> + Clone {
        self.split.arms.iter().map(|arm| (*arm, self.of(*arm)))
    }

    fn of(&self, arm: Arm) -> u64 {
        let weight = u64::from(arm.weight);
        let Some(ramp) = self.ramp else { return weight };
        // The ramped target gets its share of all, and the others share the rest in their proportions. Both factors are
        // below 2^20.
        let share = u64::from(ramp.share.millionths());
        if arm.target == ramp.target {
            share.wrapping_mul(ramp.others)
        } else {
            u64::from(Share::WHOLE.millionths()).saturating_sub(share).wrapping_mul(weight)
        }
    }
}

/// The target that answers; none when every weight is zero.
///
/// Weights are below 2^62. `draw` is asked for only when there is something to choose.
pub fn choose(weights: impl Iterator<Item = (Arm, u64)>, draw: impl FnOnce() -> Draw) -> Option<TargetId> {
    let mut usable = weights.filter(|(_, weight)| *weight > 0);
    let first = usable.next()?;
    let Some(mut arm) = usable.next() else { return Some(first.0.target) };
    let draw = draw();
    let race = |(arm, weight): (Arm, u64)| (exponential(mix(draw.0 ^ arm.name.0)), weight, arm.target);
    let mut best = race(first);
    loop {
        let next = race(arm);
        // next.0 / next.1 < best.0 / best.1, without a division.
        if product(next.0, best.1) < product(best.0, next.1) {
            best = next;
        }
        match usable.next() {
            Some(more) => arm = more,
            None => return Some(best.2),
        }
    }
}

/// The hash of a sequence of texts and numbers, of which each begins where the one before it ends.
///
/// FNV-1a of 64 bits, mixed at the end by the finaliser of SplitMix64.
/// Sources: <https://datatracker.ietf.org/doc/html/draft-eastlake-fnv>; Steele, Lea and Flood, "Fast splittable
/// pseudorandom number generators" (2014).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(u64);

impl KeyHash {
    pub const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    /// Adds bytes, behind their length, so that `ab`, `c` is another sequence than `a`, `bc`.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        self.number(bytes.len() as u64).raw(bytes)
    }

    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// Adds a number.
    #[must_use]
    pub fn number(self, number: u64) -> Self {
        // Most numbers have one byte, and what the seven zeros behind it do is to multiply.
        if let Ok(byte) = u8::try_from(number) {
            return Self((self.0 ^ u64::from(byte)).wrapping_mul(const { PRIME.wrapping_pow(8) }));
        }
        self.raw(&number.to_le_bytes())
    }

    fn raw(self, bytes: &[u8]) -> Self {
        let add = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        // The compiler unrolls what is done with eight bytes.
        let (words, rest) = bytes.as_chunks::<8>();
        let hash = words.iter().fold(self.0, |hash, word| word.iter().fold(hash, add));
        Self(rest.iter().fold(hash, add))
    }
}

/// By which FNV of 64 bits multiplies.
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// Parts the moment of a caller's rotation from its draws.
const PHASE: u64 = 0x5bd1_e995_9e37_79b9;

/// Parts whether a caller is sampled from which target it has.
const SAMPLE: u64 = 0x27d4_eb2f_1656_67c5;

/// The finaliser of SplitMix64: every bit of the answer depends on every bit of the number.
const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The upper and the lower half of a product, of which 32-bit WebAssembly makes a call when it is one of `u128`.
const fn product(a: u64, b: u64) -> (u64, u64) {
    const LOWER: u64 = u32::MAX as u64;
    let (a_upper, a_lower, b_upper, b_lower) = (a >> 32, a & LOWER, b >> 32, b & LOWER);
    let lower = a_lower.wrapping_mul(b_lower);
    // Neither sum can overflow: (2^32 - 1)^2 + 2 (2^32 - 1) = 2^64 - 1.
    let middle = a_upper.wrapping_mul(b_lower).wrapping_add(lower >> 32);
    let other = a_lower.wrapping_mul(b_upper).wrapping_add(middle & LOWER);
    let upper = a_upper.wrapping_mul(b_upper).wrapping_add(middle >> 32).wrapping_add(other >> 32);
    (upper, a.wrapping_mul(b))
}

/// Bits behind the point of the numbers that [`exponential`] and [`LOG2`] hold.
const POINT: u32 = 56;
const STEPS: usize = 256;
const STEP_BITS: u32 = 8;

/// Makes an exponentially distributed number of a uniform one: -log2(uniform / 2^64), times 2^56.
///
/// Between 256 points of the logarithm it goes straight, which is off by less than 3e-6.
fn exponential(uniform: u64) -> u64 {
    let uniform = uniform.max(1);
    let zeros = uniform.leading_zeros();
    // The digits behind the leading one, as a fraction of 2^64.
    let fraction = uniform.unbounded_shl(zeros.saturating_add(1));
    let step = usize::try_from(fraction >> (u64::BITS - STEP_BITS)).unwrap_or(0);
    let (low, high) = (point(step), point(step.saturating_add(1)));
    let rest = fraction.unbounded_shl(STEP_BITS);
    let (rise, _) = product(high.saturating_sub(low), rest);
    let log = low.saturating_add(rise);
    // log2(uniform) is 63 - zeros and what comes behind the point.
    (u64::from(zeros.saturating_add(1)) << POINT).saturating_sub(log)
}

fn point(step: usize) -> u64 {
    LOG2.get(step).copied().unwrap_or(0)
}

/// log2(1 + step / 256), times 2^56.
static LOG2: [u64; STEPS + 1] = log2_table();

#[expect(clippy::indexing_slicing, reason = "it runs when the library is compiled")]
const fn log2_table() -> [u64; STEPS + 1] {
    let mut table = [0; STEPS + 1];
    let mut step = 0;
    while step < STEPS {
        // A number from 1 to 2, times 2^63; squaring it brings out one digit of its logarithm after the other.
        let mut number = ((STEPS + step) as u128) << (63 - STEP_BITS);
        let mut log = 0_u64;
        let mut digit = 0;
        while digit < POINT {
            number = (number * number) >> 63;
            log <<= 1;
            if number >> 64 != 0 {
                number >>= 1;
                log |= 1;
            }
            digit += 1;
        }
        table[step] = log;
        step += 1;
    }
    table[STEPS] = 1 << POINT;
    table
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

impl Ramp {
    /// The target's share at a moment: a function of the configuration alone, so that a restart changes nothing.
    pub fn share(&self, now: WallTime) -> Share {
        let Some(mut gone) = now.as_nanos().checked_sub(self.start.as_nanos()) else { return Share::NONE };
        for step in &self.steps {
            match step.lasts.and_then(|lasts| gone.checked_sub(nanos(lasts))) {
                Some(left) => gone = left,
                None => return step.share,
            }
        }
        self.steps.last().map_or(Share::NONE, |step| step.share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(KeyHash::EMPTY.raw(b"a").0, 0xaf63_dc4c_8601_ec8c);
        assert_eq!(KeyHash::EMPTY.raw(b"foobar").0, 0x8594_4171_f739_67e8);
    }

    #[test]
    fn sequences_of_texts_are_told_apart() {
        let hash = |texts: &[&str]| texts.iter().fold(KeyHash::EMPTY, |hash, text| hash.text(text));
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
        assert_ne!(hash(&["a"]), hash(&["a", ""]));
    }

    #[test]
    #[allow(clippy::cast_precision_loss, reason = "53 bits are enough to compare by")]
    fn the_numbers_are_negative_logarithms() {
        let one = 1_u64 << POINT;
        assert_eq!(exponential(1 << 63), one);
        assert_eq!(exponential(1 << 62), 2 * one);
        assert_eq!(exponential(1), 64 * one);
        assert_eq!(exponential(0), 64 * one);
        for uniform in [3_u64 << 62, 0xdead_beef_0000_0001, 12_345_678_901_234, u64::MAX >> 7] {
            let exact = 64.0 - (uniform as f64).log2();
            let found = exponential(uniform) as f64 / one as f64;
            assert!((found - exact).abs() < 3e-6, "{uniform}: {found} is not {exact}");
        }
    }

    #[test]
    fn a_product_is_that_of_wider_numbers() {
        let edges = [0, 1, u64::from(u32::MAX), 1 << 32, (1 << 32) | 1, u64::MAX - 1, u64::MAX];
        let mixed = (0..100).map(mix);
        let numbers: Vec<_> = edges.into_iter().chain(mixed).collect();
        for (a, b) in numbers.iter().flat_map(|a| numbers.iter().map(move |b| (*a, *b))) {
            let (upper, lower) = product(a, b);
            let whole = u128::from(upper) << 64 | u128::from(lower);
            assert_eq!(whole, u128::from(a) * u128::from(b), "{a} * {b}");
        }
    }

    #[test]
    fn a_number_is_its_bytes() {
        for number in [0, 1, 255, 256, 65_535, u64::MAX] {
            assert_eq!(KeyHash::EMPTY.number(number), KeyHash::EMPTY.raw(&number.to_le_bytes()), "{number}");
        }
    }

    #[test]
    fn a_luckier_number_is_never_larger() {
        let mut last = u64::MAX;
        for step in 0..10_000_u64 {
            let number = exponential(step.wrapping_mul(u64::MAX / 10_000));
            assert!(number <= last);
            last = number;
        }
    }
}
