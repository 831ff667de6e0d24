//! `by`: where the key of a sticky split or of a rate limit comes from.

use super::at::{At, Once};
use super::json::Value;
use super::words::quote;
use crate::key::KeySource;

const MAX_SOURCES: usize = 16;

const WORDS: [(&str, KeySource); 5] = [
    ("source_ip", KeySource::SourceIp),
    ("peer_san", KeySource::PeerSan),
    ("model", KeySource::Model),
    ("version", KeySource::Version),
    ("method", KeySource::Method),
];

const SOURCES: &str =
    r#"{"header": NAME}, {"jwt_claim": NAME}, "source_ip", "peer_san", "model", "version" or "method""#;

pub fn sources(at: At<'_>) -> Option<Vec<KeySource>> {
    let mut once = Once::new();
    let items = at.items(MAX_SOURCES)?;
    Some(items.filter_map(|item| source(item, &mut once)).collect())
}

fn source(at: At<'_>, once: &mut Once<KeySource>) -> Option<KeySource> {
    match at.value() {
        Value::Text(text) => {
            let word = WORDS.into_iter().find(|(word, _)| word == text);
            let Some((_, source)) = word else {
                let words = WORDS.iter().map(|(word, _)| *word);
                match at.near(text, words) {
                    Some(near) => at.report(format!("found {} (did you mean {}?)", at.found(), quote(near))),
                    None => return at.expected(SOURCES),
                }
                return None;
            };
            once.take(at, source.clone());
            Some(source)
        }
        Value::Object(_) => {
            let object = at.object(&["header", "jwt_claim"])?;
            let (name, source) = match (object.get("header"), object.get("jwt_claim")) {
                (Some(at), None) => (at, KeySource::Header(at.header_name()?)),
                (None, Some(at)) => (at, KeySource::JwtClaim(at.name()?)),
                _ => {
                    at.report("expected one of \"header\" and \"jwt_claim\"");
                    return None;
                }
            };
            once.take(name, source.clone());
            Some(source)
        }
        _ => at.expected(SOURCES),
    }
}
