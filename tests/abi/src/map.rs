//! A header map as Envoy keeps it: pairs in order, names in lower case, values as bytes.

use std::fmt;

#[derive(Clone, Default, PartialEq, Eq)]
pub struct Map(Vec<(Vec<u8>, Vec<u8>)>);

const NUMBER: usize = 4;

impl Map {
    pub fn new<N: AsRef<[u8]>, V: AsRef<[u8]>>(pairs: &[(N, V)]) -> Self {
        let pairs =
            pairs.iter().map(|(name, value)| (name.as_ref().to_ascii_lowercase(), value.as_ref().to_vec()));
        Self(pairs.collect())
    }

    pub fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first value of `name`.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&[u8]> {
        let name = name.as_ref().to_ascii_lowercase();
        self.pairs().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The first value of `name` as text, for assertions.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    pub fn add(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.0.push((name.as_ref().to_ascii_lowercase(), value.as_ref().to_vec()));
    }

    /// Leaves one pair of this name, at the place of the first.
    pub fn replace(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let name = name.as_ref().to_ascii_lowercase();
        let place = self.0.iter().position(|(key, _)| *key == name).unwrap_or(self.0.len());
        self.remove(&name);
        self.0.insert(place, (name, value.as_ref().to_vec()));
    }

    pub fn remove(&mut self, name: impl AsRef<[u8]>) {
        let name = name.as_ref().to_ascii_lowercase();
        self.0.retain(|(key, _)| *key != name);
    }

    /// The form in which maps cross the ABI; an empty one is no bytes at all.
    pub(crate) fn serialise(&self) -> Vec<u8> {
        if self.is_empty() {
            return Vec::new();
        }
        let number = |length: usize| u32::try_from(length).expect("a map of less than 4 GiB").to_le_bytes();
        let mut bytes = number(self.len()).to_vec();
        for (name, value) in self.pairs() {
            bytes.extend(number(name.len()));
            bytes.extend(number(value.len()));
        }
        for (name, value) in self.pairs() {
            for piece in [name, value] {
                bytes.extend_from_slice(piece);
                bytes.push(0);
            }
        }
        bytes
    }

    /// Reads what the module hands over; `None` when the lengths do not add up.
    pub(crate) fn deserialise(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| -> Option<usize> {
            let bytes = bytes.get(at..)?.first_chunk::<NUMBER>()?;
            usize::try_from(u32::from_le_bytes(*bytes)).ok()
        };
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let count = number(0)?;
        let mut data = NUMBER + count.checked_mul(2 * NUMBER)?;
        let mut piece = |length: usize| -> Option<Vec<u8>> {
            let piece = bytes.get(data..data.checked_add(length)?)?.to_vec();
            data += length + 1;
            Some(piece)
        };
        let mut pairs = Vec::new();
        for place in 0..count {
            let lengths = NUMBER + place * 2 * NUMBER;
            let name = piece(number(lengths)?)?;
            pairs.push((name.to_ascii_lowercase(), piece(number(lengths + NUMBER)?)?));
        }
        Some(Self(pairs))
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        f.debug_list().entries(self.pairs().map(|(name, value)| (text(name), text(value)))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_crosses_the_abi_unchanged() {
        let map = Map::new(&[("A", b"1".as_slice()), ("b", b"\xff\xfe"), ("a", b"")]);
        assert_eq!(Map::deserialise(&map.serialise()), Some(map));
        assert_eq!(Map::deserialise(&[]), Some(Map::default()));
    }

    #[test]
    fn a_map_that_is_cut_short_is_refused() {
        let whole = Map::new(&[("a", "1"), ("b", "2")]).serialise();
        for end in 1..whole.len() - 1 {
            assert_eq!(Map::deserialise(&whole[..end]), None, "{end} bytes");
        }
    }

    #[test]
    fn replacing_leaves_one_value_in_the_first_place() {
        let mut map = Map::new(&[("a", "1"), ("b", "2"), ("a", "3")]);
        map.replace("A", "4");
        assert_eq!(map, Map::new(&[("a", "4"), ("b", "2")]));
    }
}
