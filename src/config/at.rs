//! A place in the configuration: reads what stands there, and reports what is wrong with it.
//!
//! Whoever reads gets `None` for what is wrong, goes on with any value in its place, and so finds every error
//! of a file in one go. A policy that was made of such values is never handed out.

use std::cell::Cell;
use std::fmt::Display;
use std::hash::Hash;

use hashbrown::HashSet;

use super::header::Headers;
use super::json::{Json, Order, Value};
use super::words::{decimal, nearest, one_of, quote};

/// What one reading of a configuration gathers besides the policy.
#[derive(Default)]
pub struct Reading {
    problems: Cell<Vec<(Order, String)>>,
    count: Cell<usize>,
    /// How many near names were searched for.
    searches: Cell<usize>,
    pub headers: Headers,
}

/// Of a file that is wrong all over, only so many errors get a near name, since each takes a search.
const MAX_SEARCHES: usize = 100;

impl Reading {
    #[inline(never)]
    pub fn report(&self, order: Order, problem: String) {
        let mut problems = self.problems.take();
        problems.push((order, problem));
        self.count.set(problems.len());
        self.problems.set(problems);
    }

    /// What is wrong, in the order of the document.
    pub fn into_problems(self) -> Vec<(Order, String)> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|(order, _)| *order);
        problems
    }

    fn near<'n>(&self, wrong: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
        let searches = self.searches.get().saturating_add(1);
        self.searches.set(searches);
        if searches <= MAX_SEARCHES { nearest(wrong, names) } else { None }
    }
}

/// One value of the configuration.
#[derive(Clone, Copy)]
pub struct At<'a> {
    pub json: &'a Json<'a>,
    pub reading: &'a Reading,
}

impl<'a> At<'a> {
    pub fn value(self) -> &'a Value<'a> {
        &self.json.value
    }

    fn with(self, json: &'a Json<'a>) -> Self {
        Self { json, ..self }
    }

    /// The value of a key, where this is an object that has it; reports nothing.
    #[inline(never)]
    pub fn key(self, key: &str) -> Option<Self> {
        let Value::Object(entries) = self.value() else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(_, value)| self.with(value))
    }

    /// The values right inside this one; reports nothing.
    pub fn children(self) -> impl Iterator<Item = Self> {
        let (items, entries): (&[_], &[_]) = match self.value() {
            Value::List(items) => (items, &[]),
            Value::Object(entries) => (&[], entries),
            _ => (&[], &[]),
        };
        items.iter().chain(entries.iter().map(|(_, value)| value)).map(move |json| self.with(json))
    }

    #[inline(never)]
    pub fn report(self, problem: impl Into<String>) {
        self.reading.report(self.json.order, problem.into());
    }

    /// Reports that something else was wanted here.
    pub fn expected<T>(self, wanted: impl Display) -> Option<T> {
        self.report(format!("found {}, expected {wanted}", self.found()));
        None
    }

    /// The one of `names` that was probably meant.
    pub fn near<'n>(self, wrong: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
        self.reading.near(wrong, names)
    }

    /// Reports a name that is none of `names`.
    pub fn unknown<'n>(
        self,
        what: impl Display,
        wrong: &str,
        names: impl IntoIterator<Item = &'n str> + Clone,
    ) {
        let near = self.reading.near(wrong, names.clone());
        let listed = one_of(names);
        self.report(match near {
            Some(near) => format!("{what} (did you mean {}?)", quote(near)),
            None if listed.is_empty() => what.to_string(),
            None => format!("{what}, expected {listed}"),
        });
    }

    /// What stands here, for an error.
    #[inline(never)]
    pub fn found(self) -> String {
        match self.value() {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Whole(value) => value.to_string(),
            Value::Decimal(value) => decimal(*value),
            Value::Text(text) => quote(text),
            Value::List(items) if items.is_empty() => "an empty list".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
        }
    }

    /// What `read` reads, unless it reports anything.
    pub fn sound<T>(self, read: impl FnOnce(Self) -> Option<T>) -> Option<T> {
        let before = self.reading.count.get();
        let answer = read(self);
        answer.filter(|_| before == self.reading.count.get())
    }

    /// An object that has no other keys than these.
    #[inline(never)]
    pub fn object(self, keys: &[&'static str]) -> Option<Object<'a>> {
        let Value::Object(entries) = self.value() else { return self.expected("an object") };
        let mut seen: u64 = 0;
        for (key, value) in entries {
            let Some(place) = keys.iter().position(|known| known == key) else {
                self.with(value).unknown("unknown key", key, keys.iter().copied());
                continue;
            };
            // No object of the contract has as many as 64 keys.
            let bit = u32::try_from(place).ok().and_then(|place| 1_u64.checked_shl(place)).unwrap_or(0);
            if seen & bit != 0 {
                self.with(value).report(GIVEN_TWICE);
            }
            seen |= bit;
        }
        Some(Object { at: self })
    }

    /// The entries of an object whose keys are the operator's.
    #[inline(never)]
    pub fn entries(self) -> Option<impl ExactSizeIterator<Item = (&'a str, Self)>> {
        let Value::Object(entries) = self.value() else { return self.expected("an object") };
        let mut seen = HashSet::with_capacity(entries.len());
        for (key, value) in entries {
            if !seen.insert(key) {
                self.with(value).report(GIVEN_TWICE);
            }
        }
        Some(entries.iter().map(move |(key, value)| (&**key, self.with(value))))
    }

    /// The items of a list that is not longer than `most`.
    pub fn items(self, most: usize) -> Option<impl ExactSizeIterator<Item = Self>> {
        let Value::List(items) = self.value() else { return self.expected("a list") };
        if most < items.len() {
            self.report(format!("found {} items, expected at most {most}", items.len()));
            return None;
        }
        Some(items.iter().map(move |item| self.with(item)))
    }

    pub fn text(self) -> Option<&'a str> {
        match self.value() {
            Value::Text(text) => Some(text),
            _ => self.expected("text"),
        }
    }

    pub fn flag(self) -> Option<bool> {
        match self.value() {
            Value::Bool(flag) => Some(*flag),
            _ => self.expected("true or false"),
        }
    }

    /// One of a few words.
    pub fn choice<T: Clone>(self, choices: &[(&'static str, T)]) -> Option<T> {
        let words = choices.iter().map(|(word, _)| *word);
        let Value::Text(text) = self.value() else { return self.expected(one_of(words)) };
        let chosen = choices.iter().find(|(word, _)| word == text);
        if chosen.is_none() {
            self.unknown(format_args!("found {}", self.found()), text, words);
        }
        chosen.map(|(_, value)| value.clone())
    }
}

const GIVEN_TWICE: &str = "the key is given twice";

/// An object whose keys are known.
#[derive(Clone, Copy)]
pub struct Object<'a> {
    at: At<'a>,
}

impl<'a> Object<'a> {
    pub fn get(self, key: &str) -> Option<At<'a>> {
        self.at.key(key)
    }

    /// Reports the key when it is missing.
    #[inline(never)]
    pub fn need(self, key: &str) -> Option<At<'a>> {
        let found = self.get(key);
        if found.is_none() {
            self.at.report(format!("{} is missing", quote(key)));
        }
        found
    }
}

/// What may be given only once.
#[derive(Debug)]
pub struct Once<T>(HashSet<T>);

impl<T: Eq + Hash> Once<T> {
    pub fn new() -> Self {
        Self(HashSet::new())
    }

    /// Takes the value, or reports it when it came before.
    pub fn take(&mut self, at: At<'_>, value: T) {
        if !self.0.insert(value) {
            at.report(format!("{} is given twice", at.found()));
        }
    }
}
