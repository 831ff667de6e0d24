//! `match`: what a route, a limit or the explain header asks of a request.

use super::at::{At, Once};
use super::json::Value;
use super::name::MAX_NAME;
use super::words::one_of;
use crate::matching::{HeaderMatch, Match, Pattern};
use crate::method::Method;

#[inline(never)]
pub fn matcher(at: At<'_>) -> Option<Match> {
    let object = at.object(&["methods", "version", "label", "latest", "signature", "headers"])?;
    let asks = ["version", "label", "latest"].iter().filter(|key| object.get(key).is_some());
    if 1 < asks.count() {
        at.report("never matches, expected only one of \"version\", \"label\" and \"latest\"");
    }
    Some(Match {
        methods: object.get("methods").and_then(methods).map(|it| it.into_iter().collect()),
        version: object.get("version").and_then(At::version),
        label: object.get("label").and_then(At::name),
        latest: object.get("latest").and_then(latest).is_some(),
        signature: object.get("signature").and_then(|it| it.plain_text(0..=MAX_NAME)),
        headers: object.get("headers").map(headers).unwrap_or_default(),
    })
}

#[inline(never)]
fn methods(at: At<'_>) -> Option<Vec<Method>> {
    let choices = Method::ALL.map(|method| (method.name(), method));
    let mut once = Once::new();
    let items = at.items(Method::ALL.len())?;
    if items.len() == 0 {
        return at.expected("at least one method");
    }
    let read = |item: At<'_>| item.choice(&choices).inspect(|method| once.take(item, *method));
    Some(items.filter_map(read).collect())
}

/// `false` could mean "anything" as well as "a version or a label", so it is not taken.
fn latest(at: At<'_>) -> Option<()> {
    match at.value() {
        Value::Bool(true) => Some(()),
        _ => at.expected("true"),
    }
}

const MAX_HEADERS: usize = 256;

/// All of these must hold.
#[inline(never)]
pub fn headers(at: At<'_>) -> Vec<HeaderMatch> {
    at.items(MAX_HEADERS).into_iter().flatten().filter_map(header).collect()
}

const PATTERNS: [&str; 5] = ["exact", "prefix", "suffix", "contains", "present"];

#[inline(never)]
fn header(at: At<'_>) -> Option<HeaderMatch> {
    let object = at.object(&["name", "exact", "prefix", "suffix", "contains", "present", "invert"])?;
    let name = object.need("name").and_then(At::header_name);
    let invert = object.get("invert").and_then(At::flag).unwrap_or(false);
    let mut given = PATTERNS.iter().filter_map(|key| Some((*key, object.get(key)?)));
    let (Some((key, value)), None) = (given.next(), given.next()) else {
        at.report(format!("expected one of {}", one_of(PATTERNS)));
        return None;
    };
    let pattern = match key {
        "exact" => value.header_value().map(Pattern::Exact),
        "prefix" => part(value).map(Pattern::Prefix),
        "suffix" => part(value).map(Pattern::Suffix),
        "contains" => part(value).map(Pattern::Contains),
        _ => value.flag().map(Pattern::Present),
    };
    Some(HeaderMatch { name: name?, pattern: pattern?, invert })
}

/// A part of a value: no text is a part of every value, which `present` says better.
fn part(at: At<'_>) -> Option<Box<str>> {
    let text = at.header_value()?;
    if text.is_empty() { at.expected("text that is not empty") } else { Some(text) }
}
