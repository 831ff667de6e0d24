//! The scanner's reading of a message, in ways that must all come to the same.

use predictgate::identity::{Malformed, ModelSpec, Progress, Rpc, Scanner};

use crate::dice::Dice;
use crate::message::Message;

/// What a scanner shows at the end of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// With what the message ends.
    pub merged: ModelSpec,
    /// By what the request was decided.
    pub decided: ModelSpec,
    pub contradicted: bool,
}

/// The message as a unary call's body.
pub fn framed(message: &Message) -> Vec<u8> {
    let length = (message.bytes.len() as u32).to_be_bytes();
    [&[0][..], &length, &message.bytes].concat()
}

pub fn scanner(message: &Message) -> Scanner {
    // Longer than any message, so that no text is too long to be held.
    Scanner::new(message.layout, Rpc::Unary, u32::MAX)
}

pub fn whole(mut scanner: Scanner, body: &[u8]) -> Result<Reading, Malformed> {
    scanner.feed(body)?;
    ended(&scanner)
}

/// Pieces of random sizes, fed or followed.
pub fn in_pieces(mut scanner: Scanner, body: &[u8], dice: &mut Dice) -> Result<Reading, Malformed> {
    let most = dice.pick(&[1, 2, 8, 64]);
    let mut rest = body;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(dice.within(1, most.min(rest.len())));
        if dice.one_in(2) {
            scanner.feed(piece)?;
        } else {
            let window = dice.within(1, 16);
            scanner
                .follow(piece.len(), |at, asked| piece.get(at..piece.len().min(at + asked.min(window))))?;
        }
        rest = after;
    }
    ended(&scanner)
}

fn ended(scanner: &Scanner) -> Result<Reading, Malformed> {
    scanner.end()?;
    assert_eq!(scanner.progress(), Progress::Settled, "a message that has ended is settled");
    Ok(Reading {
        merged: scanner.merged().clone(),
        decided: scanner.spec().clone(),
        contradicted: scanner.contradicted(),
    })
}
