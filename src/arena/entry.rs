//! An entry in bytes: what its owner keeps, then whose it is.

use super::Owner;
use crate::units::Instant;

/// State, owner and the moment it was last touched.
const TRAILER: usize = 17;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody's: what can be read no better counts as this too.
    Free,
    /// Somebody is about to own it.
    Claimed,
    Owned,
}

/// The end of an entry, so that the owner's part can be cut off and put back without moving it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    pub state: State,
    pub owner: Owner,
    pub touched: Instant,
}

impl Trailer {
    pub const FREE: Self = Self { state: State::Free, owner: Owner(0), touched: Instant::from_nanos(0) };

    pub fn is(self, state: State, owner: Owner) -> bool {
        self.state == state && self.owner == owner
    }

    /// Cuts the trailer off `value`, which leaves the owner's part. Any bytes are read as something.
    pub fn cut(value: &mut Vec<u8>) -> Self {
        let Some((body, [state, owner_and_touched @ ..])) = value.split_last_chunk::<TRAILER>() else {
            value.clear();
            return Self::FREE;
        };
        let ([owner, touched], _) = owner_and_touched.as_chunks::<8>() else { return Self::FREE };
        let trailer = Self {
            state: match state {
                1 => State::Claimed,
                2 => State::Owned,
                _ => State::Free,
            },
            owner: Owner(u64::from_le_bytes(*owner)),
            touched: Instant::from_nanos(u64::from_le_bytes(*touched)),
        };
        let length = body.len();
        value.truncate(length);
        trailer
    }

    pub fn put(self, body: &mut Vec<u8>) {
        body.reserve_exact(TRAILER);
        body.push(match self.state {
            State::Free => 0,
            State::Claimed => 1,
            State::Owned => 2,
        });
        body.extend_from_slice(&self.owner.0.to_le_bytes());
        body.extend_from_slice(&self.touched.as_nanos().to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_trailer_is_read_as_it_was_written() {
        let trailer = Trailer {
            state: State::Owned,
            owner: Owner(0x0123_4567_89ab_cdef),
            touched: Instant::from_nanos(42),
        };
        let mut value = vec![7, 8];
        trailer.put(&mut value);
        assert_eq!(Trailer::cut(&mut value), trailer);
        assert_eq!(value, [7, 8]);
    }

    #[test]
    fn whatever_else_is_there_is_nobodys() {
        for length in 0..TRAILER {
            let mut value = vec![2; length];
            assert_eq!(Trailer::cut(&mut value), Trailer::FREE);
            assert!(value.is_empty());
        }
        let mut value = vec![9; 40];
        assert_eq!(Trailer::cut(&mut value).state, State::Free);
    }
}
