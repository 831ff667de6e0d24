//! What a route, a limit or the explain header asks of a request before it applies.

use std::borrow::Cow;

use crate::headers::{Headers, is_same};
use crate::method::{Method, MethodSet};
use crate::units::{Asked, Version};

/// Everything that is given must hold; an empty match always holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    pub methods: Option<MethodSet>,
    pub version: Option<Version>,
    pub label: Option<Box<str>>,
    /// True: the caller must have asked for no version and no label.
    pub latest: bool,
    pub signature: Option<Box<str>>,
    pub headers: Vec<HeaderMatch>,
}

/// What a match is held against.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub method: Method,
    pub asked: &'a Asked,
    pub signature: &'a str,
    pub headers: &'a Headers,
}

impl Match {
    pub fn is_catch_all(&self) -> bool {
        *self == Self::default()
    }

    pub fn holds(&self, subject: Subject<'_>) -> bool {
        self.holds_beside(subject, &mut None)
    }

    /// The same, where other matches are held against the same subject before it and after it.
    pub fn holds_beside<'m, 'h>(&'m self, subject: Subject<'h>, last: &mut Last<'m, 'h>) -> bool {
        self.methods.is_none_or(|methods| methods.contains(subject.method))
            && self
                .version
                .as_ref()
                .is_none_or(|version| matches!(subject.asked, Asked::Version(asked) if asked == version))
            && self
                .label
                .as_ref()
                .is_none_or(|label| matches!(subject.asked, Asked::Label(asked) if asked == label))
            && (!self.latest || *subject.asked == Asked::Latest)
            && self.signature.as_deref().is_none_or(|signature| signature == subject.signature)
            && self.headers.iter().all(|header| header.holds(subject.headers, last))
    }
}

/// The header that was looked up last, and its value: the routes of a model mostly ask for the same one.
pub type Last<'m, 'h> = Option<(&'m str, Option<Cow<'h, [u8]>>)>;

/// True when every one of `matches` holds; so it is when there is none.
pub fn all_hold(matches: &[HeaderMatch], headers: &Headers) -> bool {
    let mut last = None;
    matches.iter().all(|header| header.holds(headers, &mut last))
}

/// One header, as in Envoy's `HeaderMatcher`: repeated values are joined by a comma before the comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// In lower case.
    pub name: Box<str>,
    pub pattern: Pattern,
    pub invert: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Contains(Box<str>),
    /// `true`: the header must be there; `false`: it must not.
    Present(bool),
}

impl HeaderMatch {
    fn holds<'m, 'h>(&'m self, headers: &'h Headers, last: &mut Last<'m, 'h>) -> bool {
        if last.as_ref().is_none_or(|(name, _)| !is_same(name.as_bytes(), self.name.as_bytes())) {
            *last = Some((&self.name, headers.joined(&self.name)));
        }
        let value = last.as_ref().and_then(|(_, value)| value.as_deref());
        let holds = match (&self.pattern, value) {
            (Pattern::Present(wanted), value) => value.is_some() == *wanted,
            (_, None) => false,
            (Pattern::Exact(text), Some(value)) => is_same(value, text.as_bytes()),
            (Pattern::Prefix(text), Some(value)) => value.starts_with(text.as_bytes()),
            (Pattern::Suffix(text), Some(value)) => value.ends_with(text.as_bytes()),
            (Pattern::Contains(text), Some(value)) => contains(value, text.as_bytes()),
        };
        holds != self.invert
    }
}

fn contains(value: &[u8], part: &[u8]) -> bool {
    part.is_empty() || value.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[track_caller]
    fn check(pattern: Pattern, invert: bool, headers: &[(&str, &str)], expected: bool) {
        let header = HeaderMatch { name: "x-tenant".into(), pattern, invert };
        let holds = all_hold(std::slice::from_ref(&header), &Headers::from_pairs(headers));
        assert_eq!(holds, expected, "{header:?} on {headers:?}");
    }

    #[test]
    fn a_pattern_is_held_against_the_value() {
        let gold = [("x-tenant", "gold")];
        check(Pattern::Exact("gold".into()), false, &gold, true);
        check(Pattern::Exact("gol".into()), false, &gold, false);
        check(Pattern::Prefix("go".into()), false, &gold, true);
        check(Pattern::Suffix("ld".into()), false, &gold, true);
        check(Pattern::Contains("ol".into()), false, &gold, true);
        check(Pattern::Contains("".into()), false, &gold, true);
        check(Pattern::Contains("golden".into()), false, &gold, false);
        check(Pattern::Present(true), false, &gold, true);
        check(Pattern::Present(false), false, &gold, false);
    }

    #[test]
    fn a_missing_header_holds_only_where_it_is_asked_for_or_inverted() {
        check(Pattern::Exact("gold".into()), false, &[], false);
        check(Pattern::Exact("gold".into()), true, &[], true);
        check(Pattern::Present(false), false, &[], true);
    }

    #[test]
    fn repeated_values_are_one_value_with_commas() {
        let twice = [("x-tenant", "gold"), ("x-tenant", "iron")];
        check(Pattern::Exact("gold".into()), false, &twice, false);
        check(Pattern::Exact("gold,iron".into()), false, &twice, true);
    }

    #[test]
    fn what_was_looked_up_last_serves_the_same_name_and_no_other() {
        let headers = Headers::from_pairs(&[("x-a", "1"), ("x-b", "2"), ("x-b", "3")]);
        let is = |name: &str, value: &str| HeaderMatch {
            name: name.into(),
            pattern: Pattern::Exact(value.into()),
            invert: false,
        };
        let good = [is("x-a", "1"), is("x-a", "1"), is("x-b", "2,3"), is("x-b", "2,3"), is("x-a", "1")];
        assert!(all_hold(&good, &headers));
        for place in 0..good.len() {
            let mut bad = good.clone();
            bad[place].name = "x-c".into();
            assert!(!all_hold(&bad, &headers), "{bad:?}");
        }
    }

    #[test]
    fn all_that_is_given_must_hold() {
        let headers = Headers::default();
        let subject = |asked| Subject { method: Method::Predict, asked, signature: "", headers: &headers };
        let version = Asked::Version(Version::Number(1));
        let mut it = Match { latest: true, ..Match::default() };
        assert!(it.holds(subject(&Asked::Latest)));
        assert!(!it.holds(subject(&version)));
        it = Match { version: Some(Version::Number(1)), ..Match::default() };
        assert!(it.holds(subject(&version)));
        it.methods = Some([Method::Classify].into_iter().collect());
        assert!(!it.holds(subject(&version)));
    }
}
