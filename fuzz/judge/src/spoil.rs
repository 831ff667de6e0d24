//! Spoils messages byte by byte, without regard to what the bytes mean.

use crate::dice::Dice;
use crate::message::{LAYOUTS, Message};

const TELLING: &[u8] = &[0, 1, 2, 4, 7, 8, 10, 11, 12, 18, 26, 34, 0x7f, 0x80, 0x81, 0xff];

/// Changes `message` in a few places; some of the changes take bytes from `other`.
pub fn spoil(dice: &mut Dice, message: Message, other: &[u8]) -> Message {
    let Message { mut layout, mut bytes } = message;
    for _ in 0..dice.within(1, 3) {
        change(dice, &mut bytes, other);
    }
    if dice.one_in(8) {
        layout = dice.pick(&LAYOUTS);
    }
    Message { layout, bytes }
}

fn change(dice: &mut Dice, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = dice.below(bytes.len());
    let end = bytes.len().min(at + dice.within(1, 16));
    match dice.below(8) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at.min(end)..end)),
        2 => {
            let piece = bytes[at.min(end)..end].to_vec();
            let to = dice.below(bytes.len() + 1);
            drop(bytes.splice(to..to, piece));
        }
        3 => {
            let from = dice.below(other.len());
            let piece = other[from..].iter().copied().take(dice.within(1, 32));
            let piece: Vec<u8> = piece.collect();
            drop(bytes.splice(at..at, piece));
        }
        4 => bytes.extend_from_slice(other),
        5 => bytes.insert(at, dice.pick(TELLING)),
        place => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = match place {
                    6 => *byte ^ (1 << dice.below(8)),
                    _ => dice.pick(TELLING),
                };
            }
        }
    }
}
