//! The messages on which the judge compares readings: by hand, made up, and spoilt.

use std::fmt;

use predictgate::identity::Layout;

use crate::dice::Dice;
use crate::writer::Writer;
use crate::{cases, spoil};

pub const LAYOUTS: [Layout; 3] = [Layout::ModelSpec, Layout::FirstTask, Layout::NameAndVersion];

/// A protobuf message without the gRPC frame around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub layout: Layout,
    pub bytes: Vec<u8>,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ", self.layout)?;
        self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Makes messages up.
pub struct Source {
    cases: Vec<Message>,
}

impl Source {
    pub fn new() -> Self {
        Self { cases: cases::messages() }
    }

    /// Real and hostile messages, none of them made up here.
    pub fn cases(&self) -> &[Message] {
        &self.cases
    }

    pub fn draw(&self, dice: &mut Dice) -> Message {
        match dice.below(20) {
            0..=8 => written(dice, false),
            9..=12 => written(dice, true),
            13..=14 => noise(dice),
            15..=17 => {
                let hostile = dice.one_in(4);
                let other = written(dice, hostile);
                let message = written(dice, false);
                spoil::spoil(dice, message, &other.bytes)
            }
            _ => {
                let other = self.cases[dice.below(self.cases.len())].bytes.clone();
                let case = self.cases[dice.below(self.cases.len())].clone();
                spoil::spoil(dice, case, &other)
            }
        }
    }
}

fn written(dice: &mut Dice, hostile: bool) -> Message {
    let layout = dice.pick(&LAYOUTS);
    Message { layout, bytes: Writer::new(dice, hostile).message(layout) }
}

/// Few bytes of those that mean something, so that some of them are well-formed.
fn noise(dice: &mut Dice) -> Message {
    const BYTES: &[u8] =
        &[0, 1, 2, 3, 4, 8, 10, 11, 12, 13, 16, 18, 19, 20, 26, 34, 0x61, 0x7f, 0x80, 0xc2, 0xff];
    let layout = dice.pick(&LAYOUTS);
    let bytes = (0..dice.below(16)).map(|_| dice.pick(BYTES)).collect();
    Message { layout, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_number_make_the_same_message_again() {
        let source = Source::new();
        let draw = |seed, number| source.draw(&mut Dice::of_message(seed, number));
        assert!((0..200).all(|number| draw(7, number) == draw(7, number)));
        assert!((0..200).any(|number| draw(7, number) != draw(8, number)));
    }
}
