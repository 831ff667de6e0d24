//! Base-128 varints, a byte at a time or short ones whole, with libprotobuf's limits.

use super::Malformed;

/// A varint of which some bytes were read, or the place for the next one.
#[derive(Clone, Copy, Debug)]
pub struct Varint {
    value: u64,
    bytes: u8,
}

impl Varint {
    pub const EMPTY: Self = Self { value: 0, bytes: 0 };
    /// Of a tag or a length.
    pub const HEAD_BYTES: u8 = 5;
    pub const VALUE_BYTES: u8 = 10;

    pub const fn is_empty(self) -> bool {
        self.bytes == 0
    }

    /// The value and the length of a varint of at most three bytes that lies whole in `bytes`, and what follows it.
    ///
    /// No limit is reached within three bytes.
    pub const fn short(bytes: &[u8]) -> Option<(u64, u64, &[u8])> {
        Some(match *bytes {
            [a @ ..0x80, ref rest @ ..] => (a as u64, 1, rest),
            [a, b @ ..0x80, ref rest @ ..] => ((a & 0x7f) as u64 | (b as u64) << 7, 2, rest),
            [a, b, c @ ..0x80, ref rest @ ..] => {
                ((a & 0x7f) as u64 | ((b & 0x7f) as u64) << 7 | (c as u64) << 14, 3, rest)
            }
            _ => return None,
        })
    }

    /// Takes the next byte and gives the value when it was the last one, to begin anew.
    ///
    /// Bits that do not fit into 64 are dropped, as libprotobuf does.
    pub fn take(&mut self, byte: u8, most: u8) -> Result<Option<u64>, Malformed> {
        let shift = u32::from(self.bytes).saturating_mul(7);
        self.value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        self.bytes = self.bytes.saturating_add(1);
        if byte < 0x80 {
            Ok(Some(std::mem::replace(self, Self::EMPTY).value))
        } else if self.bytes < most {
            Ok(None)
        } else {
            Err(Malformed::Wire)
        }
    }
}
