//! Draws, each decided by a seed.

use std::num::NonZeroU64;

use predictgate::rng::Rng;

#[derive(Clone, Debug)]
pub struct Dice(Rng);

impl Dice {
    /// The dice of one message, so that any message of a run can be made again without those before it.
    pub fn of_message(seed: u64, number: u64) -> Self {
        let mut of_run = Rng::seeded(seed);
        Self(Rng::seeded(of_run.next_u64() ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Below `bound`, which is taken for 1 where it is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = NonZeroU64::new(bound as u64).unwrap_or(NonZeroU64::MIN);
        self.0.below(bound) as usize
    }

    pub fn within(&mut self, from: usize, to: usize) -> usize {
        from + self.below(to - from + 1)
    }

    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub fn byte(&mut self) -> u8 {
        self.number() as u8
    }
}
