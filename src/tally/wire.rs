//! How shared values are written: whole numbers of a variable length, as protobuf's varints.
//!
//! What is read comes from shared memory, where anything may stand: a [`Reader`] never trusts it.

#![deny(clippy::arithmetic_side_effects)]

#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            let [low, ..] = number.to_le_bytes();
            self.0.push(low | 0x80);
            number >>= 7;
        }
        let [low, ..] = number.to_le_bytes();
        self.0.push(low);
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0
    }
}

#[derive(Clone, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    #[inline]
    pub fn number(&mut self) -> Option<u64> {
        // Most numbers are small.
        match self.0 {
            [first @ ..0x80, rest @ ..] => {
                self.0 = rest;
                Some(u64::from(*first))
            }
            _ => self.long_number(),
        }
    }

    #[inline(never)]
    fn long_number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for place in 0..10_u32 {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(first & 0x7f).checked_shl(place.saturating_mul(7))?;
            if first & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// A number below 2^32.
    pub fn small(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    /// How many records follow. Each takes a byte at least, so a number that promises more is wrong.
    pub fn count(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok().filter(|count| *count <= self.0.len())
    }

    pub const fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows stops")]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn what_is_written_is_read_again() {
        let numbers = [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX];
        let mut writer = Writer::default();
        for number in numbers {
            writer.number(number);
        }
        let bytes = writer.bytes();
        let mut reader = Reader::new(&bytes);
        assert_eq!(numbers.map(|_| reader.number().unwrap()), numbers);
        assert!(reader.is_at_end());
        assert_eq!(reader.number(), None);
    }

    #[test]
    fn a_promise_of_more_than_there_is_is_not_believed() {
        assert_eq!(Reader::new(&[5, 0, 0]).count(), None);
        assert_eq!(Reader::new(&[2, 0, 0]).count(), Some(2));
        assert_eq!(Reader::new(&[0xff; 20]).number(), None);
        assert_eq!(Reader::new(&[0x80; 5]).small(), None);
    }
}
