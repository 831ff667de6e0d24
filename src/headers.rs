//! Request and response headers as the host hands them over, read in place.
//!
//! The host serialises a header map as `u32` count, then for each pair the two lengths as `u32`, then for
//! each pair the name and the value, each followed by a zero byte; all numbers little-endian
//! (proxy-wasm ABI 0.2.1). One host call brings them all, and nothing is copied out of it.
//! Values are bytes: Envoy lets through what is not UTF-8.

use std::borrow::Cow;
use std::slice;

/// A header map. Names are in lower case, as HTTP/2 and Envoy have them.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    bytes: Vec<u8>,
}

const NUMBER: usize = 4;
/// Two numbers for each pair.
const LENGTHS: usize = 2 * NUMBER;

impl Headers {
    /// Takes the serialised map. What is cut short is read as far as it goes.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }

    /// Serialises pairs as the host would.
    pub fn from_pairs<N: AsRef<[u8]>, V: AsRef<[u8]>>(pairs: &[(N, V)]) -> Self {
        Self { bytes: serialise(pairs) }
    }

    /// All pairs, in order; a name may come more than once.
    pub fn iter(&self) -> Pairs<'_> {
        let (lengths, data) = self.parts();
        Pairs { lengths, data }
    }

    /// The lengths of all pairs, and their bytes; nothing when even the lengths are cut short.
    fn parts(&self) -> (&[u8], &[u8]) {
        let parts = || {
            let (count, rest) = self.bytes.split_first_chunk::<NUMBER>()?;
            rest.split_at_checked(number(*count).checked_mul(LENGTHS)?)
        };
        parts().unwrap_or_default()
    }

    /// How many bytes they take.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The first value of `name`.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// Every value of `name`, in order.
    pub fn all<'h, 'n>(&'h self, name: &'n str) -> Named<'h, 'n> {
        let (lengths, data) = self.parts();
        let (lengths, _) = lengths.as_chunks();
        Named { name: name.as_bytes(), lengths: lengths.iter(), passed: 0, data }
    }

    /// Whether any name begins like this.
    pub fn any_begins(&self, prefix: &str) -> bool {
        let (lengths, data) = self.parts();
        let (lengths, _) = lengths.as_chunks();
        let mut passed = 0;
        // Most names are too short.
        lengths.iter().any(|both| {
            let start = pass(&mut passed, *both);
            let (key, _) = halves(u64::from_le_bytes(*both));
            prefix.len() <= key
                && data
                    .get(start..)
                    .and_then(|rest| rest.get(..prefix.len()))
                    .is_some_and(|begin| is_same(begin, prefix.as_bytes()))
        })
    }

    /// The values of `name` joined by commas, as RFC 9110 section 5.2 reads repeated headers.
    pub fn joined(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let mut values = self.all(name);
        let mut answer = Cow::Borrowed(values.next()?);
        for value in values {
            let joined = answer.to_mut();
            joined.push(b',');
            joined.extend_from_slice(value);
        }
        Some(answer)
    }
}

/// The iterator over the values of one name.
#[derive(Clone, Debug)]
pub struct Named<'h, 'n> {
    name: &'n [u8],
    lengths: slice::Iter<'h, [u8; LENGTHS]>,
    /// The lengths of all pairs that were passed, with their zero bytes: of the names in the lower half, of the values
    /// in the upper one. They stand like that in the map, so one addition passes a pair.
    passed: u64,
    data: &'h [u8],
}

impl<'h> Iterator for Named<'h, '_> {
    type Item = &'h [u8];

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        // Most names differ by their lengths alone.
        for both in &mut self.lengths {
            let start = pass(&mut self.passed, *both);
            let (key, value) = halves(u64::from_le_bytes(*both));
            if key != self.name.len() {
                continue;
            }
            let rest = self.data.get(start..);
            let Some((found, rest)) = rest.and_then(|rest| rest.split_at_checked(key)) else { break };
            if is_same(found, self.name) {
                let Some(found) = rest.get(1..).and_then(|rest| rest.get(..value)) else { break };
                return Some(found);
            }
        }
        self.lengths = [].iter();
        None
    }
}

/// Adds a pair's lengths, with its zero bytes, to those of all before it, and tells where it starts.
fn pass(passed: &mut u64, both: [u8; LENGTHS]) -> usize {
    const ZEROS: u64 = 1 << u32::BITS | 1;
    let (names, values) = halves(*passed);
    *passed = passed.wrapping_add(u64::from_le_bytes(both)).wrapping_add(ZEROS);
    names.wrapping_add(values)
}

/// Whether two texts are the same. Names are short, and to have them compared elsewhere costs more than the comparison;
/// and those that begin alike, as those in `x-` do, mostly end in another way.
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    if let (Some(last), Some(other_last)) = (one.last_chunk::<8>(), other.last_chunk::<8>()) {
        let ((words, _), (other_words, _)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
        return last == other_last && words.iter().zip(other_words).all(|(one, other)| one == other);
    }
    if let (Some(last), Some(other_last)) = (one.last_chunk::<4>(), other.last_chunk::<4>()) {
        return last == other_last && one.first_chunk::<4>() == other.first_chunk::<4>();
    }
    one.iter().zip(other).all(|(one, other)| one == other)
}

impl<'a> IntoIterator for &'a Headers {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = Pairs<'a>;

    fn into_iter(self) -> Pairs<'a> {
        self.iter()
    }
}

/// The iterator over the pairs of [`Headers`].
#[derive(Clone, Debug)]
pub struct Pairs<'a> {
    lengths: &'a [u8],
    data: &'a [u8],
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (both, rest) = self.lengths.split_first_chunk()?;
        self.lengths = rest;
        let (name, value) = halves(u64::from_le_bytes(*both));
        Some((self.piece(name)?, self.piece(value)?))
    }
}

impl<'a> Pairs<'a> {
    /// The next piece of so many bytes, behind which stands a zero byte.
    fn piece(&mut self, length: usize) -> Option<&'a [u8]> {
        let (piece, rest) = self.data.split_at_checked(length)?;
        (_, self.data) = rest.split_first()?;
        Some(piece)
    }
}

fn number(bytes: [u8; NUMBER]) -> usize {
    usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX)
}

/// The lower and the upper 32 bits.
fn halves(both: u64) -> (usize, usize) {
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    (number(both & u64::from(u32::MAX)), number(both >> u32::BITS))
}

/// The host's form of a header map, for what the filter hands over.
pub fn serialise<N: AsRef<[u8]>, V: AsRef<[u8]>>(pairs: &[(N, V)]) -> Vec<u8> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = u32::try_from(pairs.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    for (name, value) in pairs {
        bytes.extend(length(name.as_ref()));
        bytes.extend(length(value.as_ref()));
    }
    for (name, value) in pairs {
        for piece in [name.as_ref(), value.as_ref()] {
            bytes.extend_from_slice(piece);
            bytes.push(0);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const PAIRS: [(&str, &[u8]); 3] = [("a", b"1"), ("b", b"\xff\xfe"), ("a", b"")];

    #[test]
    fn pairs_come_back_as_they_were_serialised() {
        let headers = Headers::from_pairs(&PAIRS);
        let pairs: Vec<_> = headers.iter().collect();
        assert_eq!(pairs, PAIRS.map(|(name, value)| (name.as_bytes(), value)));
        assert_eq!(headers.get("b"), Some(&b"\xff\xfe"[..]));
        assert_eq!(headers.get("c"), None);
        assert_eq!(headers.joined("a").as_deref(), Some(&b"1,"[..]));
    }

    #[test]
    fn a_name_that_begins_in_a_way_is_found_wherever_it_stands() {
        let headers = Headers::from_pairs(&[("x-pre", "fix"), ("x-prefix-1", ""), ("z", "x-other-1")]);
        for (prefix, expected) in [
            ("x-prefix-", true),
            ("x-prefix-1", true),
            ("x-prefix-12", false),
            ("x-other-", false),
            ("z", true),
        ] {
            assert_eq!(headers.any_begins(prefix), expected, "{prefix}");
        }
    }

    #[test]
    fn texts_are_the_same_when_no_byte_differs() {
        for length in 0..40_u8 {
            let text: Vec<u8> = (0..length).collect();
            assert!(is_same(&text, &text.clone()));
            for place in 0..text.len() {
                let mut other = text.clone();
                other[place] ^= 1;
                assert!(!is_same(&text, &other), "{length} bytes, of which {place} differs");
                assert!(!is_same(&text, &text[..place]));
            }
        }
    }

    #[test]
    fn what_is_cut_short_is_read_as_far_as_it_goes() {
        let whole = Headers::from_pairs(&PAIRS).bytes;
        for end in 0..whole.len() {
            let cut = Headers::from_bytes(whole[..end].to_vec());
            assert!(cut.iter().zip(PAIRS).all(|((name, _), expected)| name == expected.0.as_bytes()));
        }
    }
}
