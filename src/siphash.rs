//! SipHash-1-3: a hash of bytes that nobody without its key can steer.
//!
//! It is the function of Rust's own hash maps (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012),
//! which the standard library offers with a key of one's own only in a deprecated form.

/// The hash of `bytes` under `key`.
pub fn siphash(key: u128, bytes: &[u8]) -> u64 {
    siphash_rounds::<1, 3>(key, bytes)
}

fn siphash_rounds<const PER_WORD: usize, const AT_END: usize>(key: u128, bytes: &[u8]) -> u64 {
    let [low, high] = halves(key);
    let mut state = State([
        low ^ 0x736f_6d65_7073_6575,
        high ^ 0x646f_7261_6e64_6f6d,
        low ^ 0x6c79_6765_6e65_7261,
        high ^ 0x7465_6462_7974_6573,
    ]);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state.absorb::<PER_WORD>(u64::from_le_bytes(*word));
    }
    // The last word holds what is left, and the length in its highest byte.
    let mut last = [0; 8];
    for (place, byte) in last.iter_mut().zip(rest) {
        *place = *byte;
    }
    state.absorb::<PER_WORD>(u64::from_le_bytes(last) | (bytes.len() as u64) << 56);
    let State([_, _, third, _]) = &mut state;
    *third ^= 0xff;
    for _ in 0..AT_END {
        state.round();
    }
    let State([a, b, c, d]) = state;
    a ^ b ^ c ^ d
}

#[allow(clippy::cast_possible_truncation, reason = "the halves of a number")]
const fn halves(number: u128) -> [u64; 2] {
    [number as u64, (number >> 64) as u64]
}

struct State([u64; 4]);

impl State {
    fn absorb<const ROUNDS: usize>(&mut self, word: u64) {
        self.0[3] ^= word;
        for _ in 0..ROUNDS {
            self.round();
        }
        self.0[0] ^= word;
    }

    const fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.0;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        self.0 = [a, b, c, d];
    }
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher as _;

    use super::*;
    use crate::rng::Rng;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|place| u8::try_from(place * 7 % 256).unwrap()).collect()
    }

    #[test]
    fn without_a_key_it_is_the_hash_of_the_standard_library() {
        for length in 0..70 {
            let mut hasher = std::hash::DefaultHasher::new();
            hasher.write(&bytes(length));
            assert_eq!(siphash(0, &bytes(length)), hasher.finish(), "{length} bytes");
        }
    }

    #[test]
    #[allow(deprecated, reason = "the only keyed form there is, with more rounds")]
    fn a_key_enters_as_in_the_standard_library() {
        let mut rng = Rng::seeded(1);
        for length in 0..70 {
            let [low, high] = [(); 2].map(|()| rng.next_u64());
            let mut hasher = std::hash::SipHasher::new_with_keys(low, high);
            hasher.write(&bytes(length));
            let key = u128::from(high) << 64 | u128::from(low);
            assert_eq!(siphash_rounds::<2, 4>(key, &bytes(length)), hasher.finish(), "{length} bytes");
        }
    }
}
