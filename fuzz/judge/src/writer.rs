//! Writes messages that are legal in unusual ways, and hostile ones that are not legal.

use predictgate::identity::Layout;

use crate::dice::Dice;

pub struct Writer<'a> {
    dice: &'a mut Dice,
    hostile: bool,
    out: Vec<u8>,
}

/// A message by what its fields mean to a server.
#[derive(Clone, Copy)]
enum Kind {
    Root(Layout),
    Task,
    ModelSpec,
    Int64Value,
}

#[derive(Clone, Copy)]
enum Content {
    Message(Kind),
    Text,
    Number,
}

/// The wire types.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const START_GROUP: u64 = 3;
const END_GROUP: u64 = 4;
const FIXED32: u64 = 5;

const TEXTS: &[&[u8]] = &[
    b"",
    b"a",
    b"resnet",
    b"half_plus",
    b"stable",
    b"serving_default",
    b"2",
    b"007",
    b"-1",
    b"9223372036854775808",
    b"\0",
    b"a\r\nb",
    "\u{7f}".as_bytes(),
    "\u{80}".as_bytes(),
    "\u{7ff}".as_bytes(),
    "\u{800}".as_bytes(),
    "\u{d7ff}".as_bytes(),
    "\u{e000}".as_bytes(),
    "\u{ffff}".as_bytes(),
    "\u{10000}".as_bytes(),
    "\u{10ffff}".as_bytes(),
    "模型".as_bytes(),
];

/// None of them is UTF-8: continuations alone, overlong forms, surrogates, beyond U+10FFFF, cut short.
const NOT_UTF8: &[&[u8]] = &[
    b"\x80",
    b"\xbf",
    b"\xc0\x80",
    b"\xc1\xbf",
    b"\xc2",
    b"\xc2\x41",
    b"\xe0\x80\x80",
    b"\xe0\x9f\xbf",
    b"\xe1\x80",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xef\xbf",
    b"\xf0\x80\x80\x80",
    b"\xf0\x8f\xbf\xbf",
    b"\xf0\x90\x80",
    b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xfe",
    b"\xff",
    b"abcdefghijklmnopqrstuvwxyz\xed\xa0\x80",
    b"abcdefg\xc3",
];

impl<'a> Writer<'a> {
    /// A hostile writer breaks the rules now and then.
    pub fn new(dice: &'a mut Dice, hostile: bool) -> Self {
        Self { dice, hostile, out: Vec::new() }
    }

    pub fn message(mut self, layout: Layout) -> Vec<u8> {
        self.fields(Kind::Root(layout));
        if self.hostile && self.dice.one_in(8) {
            let end = self.dice.below(self.out.len() + 1);
            self.out.truncate(end);
        }
        self.out
    }

    fn fields(&mut self, kind: Kind) {
        for _ in 0..self.dice.below(5) {
            self.field(kind);
        }
    }

    fn field(&mut self, kind: Kind) {
        match self.dice.below(32) {
            0..=19 => self.known(kind),
            20..=24 => self.unknown(),
            25..=27 => self.wrong_wire_type(kind),
            28..=29 => self.group(kind),
            _ if self.hostile => self.broken(),
            _ => self.known(kind),
        }
    }

    fn known(&mut self, kind: Kind) {
        let (number, content) = self.dice.pick(known(kind));
        match content {
            Content::Message(kind) => {
                let around = std::mem::take(&mut self.out);
                self.fields(kind);
                let content = std::mem::replace(&mut self.out, around);
                self.delimited(number, &content);
            }
            Content::Text => {
                let text = self.text();
                self.delimited(number, &text);
            }
            Content::Number => {
                self.tag(number, VARINT);
                self.value();
            }
        }
    }

    /// A number that no message here has, or a known one's neighbour.
    fn unknown(&mut self) {
        let number = match self.dice.below(4) {
            0 => self.dice.pick(&[(1 << 29) - 1, 1 << 28, 19_000, 16, 2047, 2048]),
            _ => self.dice.within(5, 15) as u64,
        };
        match self.dice.below(4) {
            0 => {
                self.tag(number, VARINT);
                self.value();
            }
            1 => self.fixed(number),
            _ => {
                let length = self.dice.pick(&[0, 1, 2, 8, 16, 17, 64, 127, 128, 300]);
                let length = if self.dice.one_in(256) { 20_000 } else { length };
                let content: Vec<u8> = (0..length).map(|_| self.dice.byte()).collect();
                self.delimited(number, &content);
            }
        }
    }

    /// A known number as an unknown field: what it would mean must not count.
    fn wrong_wire_type(&mut self, kind: Kind) {
        let (number, content) = self.dice.pick(known(kind));
        match content {
            Content::Number => {
                let text = self.text();
                self.delimited(number, &text);
            }
            _ if self.dice.one_in(2) => self.fixed(number),
            _ => {
                self.tag(number, VARINT);
                self.value();
            }
        }
    }

    fn fixed(&mut self, number: u64) {
        let (wire_type, length) = self.dice.pick(&[(FIXED64, 8), (FIXED32, 4)]);
        self.tag(number, wire_type);
        self.bytes(length);
    }

    /// Groups within each other, around fields that would mean something outside of them.
    fn group(&mut self, kind: Kind) {
        let depth = if self.dice.one_in(8) { self.dice.within(95, 103) } else { self.dice.within(1, 3) };
        let numbers: Vec<u64> = (0..depth).map(|_| self.dice.within(1, 6) as u64).collect();
        for &number in &numbers {
            self.tag(number, START_GROUP);
        }
        for _ in 0..self.dice.below(3) {
            self.known(kind);
        }
        for &number in numbers.iter().rev() {
            let number = if self.hostile && self.dice.one_in(64) { number + 1 } else { number };
            self.tag(number, END_GROUP);
        }
    }

    fn broken(&mut self) {
        let number = self.dice.within(1, 5) as u64;
        match self.dice.below(8) {
            0 => {
                let wire_type = self.dice.below(8) as u64;
                self.tag(0, wire_type);
            }
            1 => {
                let wire_type = self.dice.pick(&[6, 7]);
                self.tag(number, wire_type);
            }
            2 => self.tag(number, END_GROUP),
            3 => self.tag(number, START_GROUP),
            4 => {
                let length = self.dice.within(6, 10);
                self.varint(number << 3 | LENGTH, length);
                self.out.push(0);
            }
            5 => {
                self.tag(number, VARINT);
                let length = self.dice.within(9, 12);
                let value = self.dice.number();
                self.varint(value, length);
            }
            6 => {
                self.tag(number, LENGTH);
                self.wrong_length();
            }
            _ => {
                let length = self.dice.within(1, 4);
                self.bytes(length);
            }
        }
    }

    /// Near the limits of an `int`, of 32 bits, of 5 bytes and of what is left.
    fn wrong_length(&mut self) {
        let near = self.dice.below(4) as u64;
        let (length, bytes) = self.dice.pick(&[
            (near, 6),
            (near, 10),
            (0x7fff_ffee + near, 5),
            (0xffff_fffe + near, 5),
            (0x7_ffff_fffc + near, 5),
            (u64::MAX - near, 10),
            (1000, 2),
        ]);
        self.varint(length, bytes);
    }

    fn delimited(&mut self, number: u64, content: &[u8]) {
        self.tag(number, LENGTH);
        let length = content.len() as u64;
        let wrong = self.hostile && self.dice.one_in(32);
        let length = if wrong {
            self.dice.pick(&[length + 1, length.saturating_sub(1), length + 100])
        } else {
            length
        };
        let most = if self.hostile { 6 } else { 5 };
        let bytes = if self.dice.one_in(16) { self.dice.within(1, most) } else { 1 };
        self.varint(length, bytes);
        self.out.extend_from_slice(content);
    }

    fn tag(&mut self, number: u64, wire_type: u64) {
        let tag = number << 3 | wire_type;
        match self.dice.below(32) {
            0 => {
                let bytes = self.dice.within(2, 5);
                self.varint(tag, bytes);
            }
            // The fifth byte has room for three bits more than a tag has.
            1 => {
                let above = self.dice.within(1, 7) as u64;
                self.varint(tag | above << 32, 5);
            }
            2 if self.hostile => self.varint(tag, 6),
            _ => self.varint(tag, 1),
        }
    }

    fn value(&mut self) {
        let value = match self.dice.below(4) {
            0 => self.dice.number(),
            1 => self.dice.pick(&[u64::MAX, i64::MAX as u64, 1 << 63, 1 << 32, u64::from(u32::MAX)]),
            _ => self.dice.below(4) as u64,
        };
        let bytes = if self.dice.one_in(8) { self.dice.within(1, 10) } else { 1 };
        self.varint(value, bytes);
        // The tenth byte has room for six bits more than a value has.
        if bytes == 10 && self.dice.one_in(2) {
            let above = (self.dice.byte() & 0x7e) | 1;
            if let Some(last) = self.out.last_mut() {
                *last = above;
            }
        }
    }

    /// At least `bytes` long, longer than needed where that is longer.
    fn varint(&mut self, mut value: u64, bytes: usize) {
        let mut written = 1;
        while value > 0x7f || written < bytes {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
            written += 1;
        }
        self.out.push(value as u8);
    }

    fn text(&mut self) -> Vec<u8> {
        let mut text = self.dice.pick(TEXTS).to_vec();
        while self.dice.one_in(4) {
            text.extend_from_slice(self.dice.pick(TEXTS));
        }
        if self.hostile && self.dice.one_in(8) {
            let at = self.dice.pick(&[0, text.len()]);
            text.splice(at..at, self.dice.pick(NOT_UTF8).iter().copied());
        }
        text
    }

    fn bytes(&mut self, length: usize) {
        for _ in 0..length {
            let byte = self.dice.byte();
            self.out.push(byte);
        }
    }
}

/// The fields of a message by their numbers.
const fn known(kind: Kind) -> &'static [(u64, Content)] {
    const MODEL_SPEC: Content = Content::Message(Kind::ModelSpec);
    match kind {
        Kind::Root(Layout::ModelSpec) => &[(1, MODEL_SPEC)],
        Kind::Root(Layout::FirstTask) => &[(1, Content::Message(Kind::Task))],
        Kind::Root(Layout::NameAndVersion) => &[(1, Content::Text), (2, Content::Text)],
        Kind::Task => &[(1, MODEL_SPEC)],
        Kind::ModelSpec => &[
            (1, Content::Text),
            (2, Content::Message(Kind::Int64Value)),
            (3, Content::Text),
            (4, Content::Text),
        ],
        Kind::Int64Value => &[(1, Content::Number)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_are_what_they_are_said_to_be() {
        assert!(TEXTS.iter().all(|text| str::from_utf8(text).is_ok()));
        assert!(NOT_UTF8.iter().all(|text| str::from_utf8(text).is_err()));
    }

    #[test]
    fn a_varint_is_as_long_as_asked() {
        let mut dice = Dice::of_message(0, 0);
        let mut writer = Writer::new(&mut dice, false);
        writer.varint(1, 1);
        writer.varint(1, 3);
        writer.varint(300, 1);
        assert_eq!(writer.out, [1, 0x81, 0x80, 0, 0xac, 2]);
    }
}
