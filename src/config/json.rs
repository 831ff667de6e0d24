//! JSON text as a tree that remembers where everything stands.
//!
//! `serde_json::Value` would lose duplicate keys, their order and any hint of a place.
//! Here every value has its number in the order of the document, which is all that an error needs:
//! errors sort by it, and the path is found from it when it is printed.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::words;
use crate::siphash::siphash;

/// A value and its place.
#[derive(Debug)]
pub struct Json<'t> {
    pub order: Order,
    pub value: Value<'t>,
}

/// The number of a value in the document: before those inside it, after those that come before it.
pub type Order = u32;

#[derive(Debug)]
pub enum Value<'t> {
    Null,
    Bool(bool),
    Whole(i64),
    /// Any other number, and whole ones beyond 64 bits.
    Decimal(f64),
    Text(Cow<'t, str>),
    List(Vec<Json<'t>>),
    Object(Vec<(Cow<'t, str>, Json<'t>)>),
}

/// Reads the tree; `serde_json` bounds its depth at 128.
pub fn parse(text: &str) -> Result<Json<'_>, serde_json::Error> {
    let next = Cell::new(0);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let tree = Numbering { next: &next }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(tree)
}

impl Json<'_> {
    /// A hash of the value and all inside it.
    pub fn hash(&self) -> u64 {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        siphash(0, &bytes)
    }

    fn write(&self, to: &mut Vec<u8>) {
        match &self.value {
            Value::Null => to.push(0),
            Value::Bool(value) => to.push(u8::from(*value)),
            Value::Whole(number) => to.extend_from_slice(&number.to_le_bytes()),
            Value::Decimal(number) => to.extend_from_slice(&number.to_le_bytes()),
            Value::Text(value) => to.extend_from_slice(value.as_bytes()),
            Value::List(items) => items.iter().for_each(|item| item.write(to)),
            Value::Object(entries) => {
                for (key, value) in entries {
                    to.extend_from_slice(key.as_bytes());
                    value.write(to);
                }
            }
        }
    }

    /// The way to the value with this number: `models[0].routes[3].split`.
    pub fn path_to(&self, order: Order) -> String {
        let mut path = String::new();
        let mut json = self;
        while json.order < order {
            let child = match &json.value {
                Value::List(items) => {
                    let place = items.partition_point(|item| item.order <= order).checked_sub(1);
                    place.and_then(|place| Some((format!("[{place}]"), items.get(place)?)))
                }
                Value::Object(entries) => {
                    let place = entries.partition_point(|(_, value)| value.order <= order).checked_sub(1);
                    let entry = place.and_then(|place| entries.get(place));
                    entry.map(|(key, value)| (step(key, path.is_empty()), value))
                }
                _ => None,
            };
            let Some((step, value)) = child else { break };
            path.push_str(&step);
            json = value;
        }
        path
    }
}

fn step(key: &str, is_first: bool) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let is_short = (1..=words::LONGEST).contains(&key.len());
    match (is_short && key.bytes().all(is_plain), is_first) {
        (true, true) => key.to_owned(),
        (true, false) => format!(".{key}"),
        (false, _) => format!("[{}]", words::quote(key)),
    }
}

#[derive(Clone, Copy)]
struct Numbering<'n> {
    next: &'n Cell<Order>,
}

impl<'de> DeserializeSeed<'de> for Numbering<'_> {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let order = self.next.get();
        let next = order.checked_add(1).ok_or_else(|| D::Error::custom("too many values"))?;
        self.next.set(next);
        let value = deserializer.deserialize_any(self)?;
        Ok(Json { order, value })
    }
}

impl<'de> Visitor<'de> for Numbering<'_> {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Value::Whole(value))
    }

    #[allow(clippy::cast_precision_loss, reason = "no setting is so large; the error shows it nearly")]
    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(value).map_or(Value::Decimal(value as f64), Value::Whole))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Value::Decimal(value))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = vec![];
        while let Some(item) = list.next_element_seed(self)? {
            items.push(item);
        }
        items.shrink_to_fit();
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = vec![];
        // A key of JSON is always text, so it is read as a value is.
        while let Some(Json { value: Value::Text(key), .. }) = map.next_key_seed(self)? {
            entries.push((key, map.next_value_seed(self)?));
        }
        entries.shrink_to_fit();
        Ok(Value::Object(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Every path of the tree, in the order of the document.
    fn paths(text: &str) -> Vec<String> {
        fn collect(json: &Json<'_>, orders: &mut Vec<Order>) {
            orders.push(json.order);
            match &json.value {
                Value::List(items) => items.iter().for_each(|item| collect(item, orders)),
                Value::Object(entries) => entries.iter().for_each(|(_, value)| collect(value, orders)),
                _ => (),
            }
        }
        let tree = parse(text).unwrap();
        let mut orders = vec![];
        collect(&tree, &mut orders);
        orders.into_iter().map(|order| tree.path_to(order)).collect()
    }

    #[test]
    fn a_path_is_found_from_the_number_of_a_value() {
        let found = paths(r#"{"a": [1, {"b": null, "c-d": []}], "a": 2, "e.f": {"\"": 3}, "": 4}"#);
        let expected =
            ["", "a", "a[0]", "a[1]", "a[1].b", "a[1].c-d", "a", r#"["e.f"]"#, r#"["e.f"]["\""]"#, r#"[""]"#];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_not_json_or_too_deep_is_refused() {
        for text in ["", "{", "[1,]", "{} {}", "nan", "1e999", &"[".repeat(100_000)] {
            assert!(parse(text).is_err(), "{text:.20}");
        }
    }

    #[test]
    fn numbers_beyond_64_bits_are_kept_nearly() {
        assert!(matches!(parse("-9223372036854775808").unwrap().value, Value::Whole(i64::MIN)));
        assert!(matches!(parse("9223372036854775808").unwrap().value, Value::Decimal(_)));
    }
}
