//! Chance as a value: a small generator whose seed decides everything it draws.
//!
//! The filter seeds one for each VM and a test prints its seed, so that whatever chance decided can be
//! repeated. It is SplitMix64 (Steele, Lea and Flood, 2014), which needs eight bytes of state and takes
//! any seed; it is no source of secrets.

use std::num::NonZeroU64;

#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, each as likely as the next: what does not fit is drawn again, not folded.
    pub fn below(&mut self, bound: NonZeroU64) -> u64 {
        let bound = bound.get();
        // The fewest low bits that hold every wanted number, so that at least half of all draws fit.
        let mask = u64::MAX.checked_shr(bound.wrapping_sub(1).leading_zeros()).unwrap_or(0);
        loop {
            let drawn = self.next_u64() & mask;
            if drawn < bound {
                return drawn;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_seed_decides_what_is_drawn() {
        let mut rng = Rng::seeded(0);
        // From the reference implementation, https://prng.di.unimi.it/splitmix64.c.
        assert_eq!(rng.next_u64(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(rng.next_u64(), 0x6e78_9e6a_a1b9_65f4);
        assert_eq!(rng.next_u64(), 0x06c4_5d18_8009_454f);
    }

    #[test]
    fn the_smallest_and_the_largest_bound_are_kept() {
        let mut rng = Rng::seeded(1);
        assert_eq!([0; 100].map(|_| rng.below(NonZeroU64::MIN)), [0; 100]);
        let mut same = rng.clone();
        assert!((0..100).all(|_| rng.below(NonZeroU64::MAX) == same.next_u64()));
    }

    #[test]
    fn every_number_below_the_bound_is_as_likely() {
        const DRAWS: u64 = 60_000;
        const BOUND: NonZeroU64 = NonZeroU64::new(6).unwrap();
        let mut rng = Rng::seeded(2);
        let mut seen = [0_u64; 6];
        for _ in 0..DRAWS {
            seen[usize::try_from(rng.below(BOUND)).unwrap()] += 1;
        }
        // Pearson's test: 20.5 is the 99.9th percentile of chi squared with five degrees of freedom.
        let expected = DRAWS / BOUND.get();
        let squares: u64 = seen.iter().map(|count| count.abs_diff(expected).pow(2)).sum();
        assert!(squares * 10 < 205 * expected, "{seen:?}");
    }
}
