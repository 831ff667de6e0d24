//! Compares the scanner's reading of a message with libprotobuf's.

use predictgate::identity::{Malformed, ModelSpec};

use crate::dice::Dice;
use crate::message::Message;
use crate::scan::{self, Reading};

/// What is demanded of the scanner, and what it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub demand: &'static str,
    pub found: String,
}

/// What a message was like, for the tally.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trait {
    pub accepted: bool,
    pub named: bool,
    pub contradicted: bool,
}

/// # Errors
///
/// The first demand that the scanner does not meet.
pub fn compare(message: &Message, oracle: Option<&ModelSpec>, dice: &mut Dice) -> Result<Trait, Difference> {
    let body = scan::framed(message);
    let whole = scan::whole(scan::scanner(message), &body);
    agree(oracle, &whole)?;
    let pieces = scan::in_pieces(scan::scanner(message), &body, dice);
    if whole.is_ok() != pieces.is_ok() || whole.as_ref().ok() != pieces.as_ref().ok() {
        return differ("the same reading in pieces as of the whole", &pieces);
    }
    let Some(oracle) = oracle else {
        return Ok(Trait::default());
    };
    let mut told = scan::scanner(message);
    told.pin_to(oracle.clone());
    let told = scan::in_pieces(told, &body, dice);
    if told.as_ref().is_ok_and(|told| told.contradicted) {
        return differ("no contradiction to headers that say what libprotobuf reads", &told);
    }
    let mut lied_to = scan::scanner(message);
    lied_to.pin_to(ModelSpec { name: format!("{}-", oracle.name), ..oracle.clone() });
    let lied_to = scan::in_pieces(lied_to, &body, dice);
    if lied_to.as_ref().is_ok_and(|told| !told.contradicted) {
        return differ("a contradiction to headers that name another model", &lied_to);
    }
    let contradicted = whole.is_ok_and(|whole| whole.contradicted);
    Ok(Trait { accepted: true, named: !oracle.name.is_empty(), contradicted })
}

fn agree(oracle: Option<&ModelSpec>, found: &Result<Reading, Malformed>) -> Result<(), Difference> {
    match (oracle, found) {
        (None, Err(_)) => Ok(()),
        (None, Ok(_)) => differ("malformed, as libprotobuf rejects the message", found),
        (Some(_), Err(_)) => differ("an identity, as libprotobuf accepts the message", found),
        (Some(oracle), Ok(reading)) if *oracle != reading.merged => differ("libprotobuf's reading", found),
        (Some(oracle), Ok(reading)) if reading.contradicted != (reading.decided != *oracle) => differ(
            "a contradiction exactly when the message ends with another identity than decided on",
            found,
        ),
        (Some(_), Ok(_)) => Ok(()),
    }
}

fn differ<T>(demand: &'static str, found: &Result<Reading, Malformed>) -> Result<T, Difference> {
    let found = match found {
        Ok(reading) => format!("{reading:?}"),
        Err(malformed) => format!("malformed: {}", malformed.explanation()),
    };
    Err(Difference { demand, found })
}

#[cfg(test)]
mod tests {
    use predictgate::identity::Layout;
    use predictgate::units::Asked;

    use super::*;

    /// The demand that a scanner of `bytes` does not meet when libprotobuf reads `oracle`.
    fn unmet(bytes: &[u8], oracle: Option<ModelSpec>) -> Option<&'static str> {
        let message = Message { layout: Layout::ModelSpec, bytes: bytes.to_vec() };
        compare(&message, oracle.as_ref(), &mut Dice::of_message(0, 0)).err().map(|it| it.demand)
    }

    #[test]
    fn every_way_to_differ_is_told() {
        let named = |name: &str| Some(ModelSpec { name: name.to_owned(), ..ModelSpec::default() });
        let labelled = ModelSpec { asked: Asked::Label("".into()), ..named("a").unwrap() };
        assert_eq!(unmet(b"\x0a\x03\x0a\x01a", named("a")), None);
        assert_eq!(unmet(b"\x07", None), None);
        assert_eq!(unmet(b"\x0a\x03\x0a\x01a", named("b")), Some("libprotobuf's reading"));
        assert_eq!(unmet(b"\x0a\x03\x0a\x01a", Some(labelled)), Some("libprotobuf's reading"));
        assert_eq!(unmet(b"", None), Some("malformed, as libprotobuf rejects the message"));
        assert_eq!(unmet(b"\x07", named("a")), Some("an identity, as libprotobuf accepts the message"));
    }
}
