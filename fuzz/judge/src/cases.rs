//! The bodies that the library's own tests read.

use predictgate::call::{Call, Kind};
use predictgate::headers::Headers;
use serde::Deserialize;

use crate::message::Message;

#[derive(Deserialize)]
struct Cases {
    case: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    path: String,
    body: String,
}

/// The messages of all cases whose frame is whole and not compressed.
pub fn messages() -> Vec<Message> {
    let cases: Cases =
        toml::from_str(include_str!("../../../tests/cases/identity.toml")).expect("the cases are TOML");
    cases.case.iter().filter_map(message).collect()
}

fn message(case: &Case) -> Option<Message> {
    let headers = [(":path", case.path.as_str()), ("content-type", "application/grpc")];
    let Kind::Grpc { layout, .. } = Call::read(&Headers::from_pairs(&headers)).kind else {
        return None;
    };
    let body = unhex(&case.body)?;
    let (prefix, bytes) = body.split_at_checked(5)?;
    let whole = prefix[0] == 0 && prefix[1..] == (bytes.len() as u32).to_be_bytes();
    whole.then(|| Message { layout, bytes: bytes.to_vec() })
}

/// The bytes that hexadecimal digits stand for.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_cases_are_messages() {
        assert!(messages().len() > 50, "{}", messages().len());
    }
}
