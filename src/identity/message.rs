//! One request message: protobuf, a piece at a time, as far as it names a model.

use std::mem;

use super::batch::Batch;
use super::frames::{Frame, Frames};
use super::schema::{self, Field, Kind, TextField, Value};
use super::varint::Varint;
use super::{Layout, Malformed, ModelSpec, Sizes};
use crate::units::{Asked, Version};

/// A message of which some bytes were read.
#[derive(Clone, Debug)]
pub struct Message {
    layout: Layout,
    sizes: Sizes,
    max_text: u32,
    state: State,
    /// How much of it was read or skipped.
    position: u64,
    /// Where its current field begins.
    field_start: u64,
    frames: Frames,
    text: Vec<u8>,
    /// The identity, merged so far.
    merged: ModelSpec,
    /// Whether any of the identity was seen.
    seen: bool,
    settled: Option<Settled>,
    /// Kept only where the sizes are read.
    batch: Option<Box<Batch>>,
    inflated: bool,
    is_over: bool,
}

/// The identity as it was when another field began, or when the message ended.
#[derive(Clone, Debug)]
struct Settled {
    at: u64,
    /// It, once something may have changed what is merged.
    spec: Option<ModelSpec>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Tag(Varint),
    Value { value: Value, varint: Varint },
    Length { field: Field, varint: Varint },
    Text { field: TextField, left: u64 },
    Skip { left: u64 },
}

/// Why reading stopped.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    Malformed(Malformed),
    /// A name, label or signature is longer than the limit.
    TooLong,
}

impl From<Malformed> for Stop {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// libprotobuf keeps 16 bytes of slop below the largest `int`.
const MAX_LENGTH: u64 = 0x7fff_ffef;
/// Stands for the length of a message that is not known before its end.
pub const UNKNOWN_LENGTH: u64 = u64::MAX;
const TAG: State = State::Tag(Varint::EMPTY);

impl Message {
    /// A message of `length` bytes.
    pub fn new(layout: Layout, sizes: Sizes, max_text: u32, length: u64) -> Self {
        Self {
            layout,
            sizes,
            max_text,
            state: TAG,
            position: 0,
            field_start: 0,
            frames: Frames::of_message(length),
            text: Vec::new(),
            merged: ModelSpec::EMPTY,
            seen: false,
            settled: None,
            batch: (sizes != Sizes::Unread).then(Box::default),
            inflated: length == UNKNOWN_LENGTH,
            is_over: false,
        }
    }

    /// The identity as it settled, or as far as it has come.
    pub fn spec(&self) -> &ModelSpec {
        self.settled.as_ref().and_then(|settled| settled.spec.as_ref()).unwrap_or(&self.merged)
    }

    /// The identity with all that came after it settled, as the server has it.
    pub const fn merged(&self) -> &ModelSpec {
        &self.merged
    }

    pub const fn has_settled(&self) -> bool {
        self.settled.is_some()
    }

    /// Where the identity settled.
    pub fn settled_at(&self) -> Option<u64> {
        self.settled.as_ref().map(|settled| settled.at)
    }

    /// Whether a field came after the identity had settled that names one, even the same.
    pub fn named_again(&self) -> bool {
        self.settled.as_ref().is_some_and(|settled| settled.spec.is_some())
    }

    /// The size of its batch, as far as it was read.
    pub fn batch(&self) -> Option<i64> {
        self.batch.as_ref()?.size()
    }

    /// Whether its bytes are others than those of the body.
    pub const fn is_inflated(&self) -> bool {
        self.inflated
    }

    /// Whether all of it was read.
    pub const fn is_over(&self) -> bool {
        self.is_over
    }

    /// How many of the next bytes are content that need not be read.
    pub const fn skippable(&self) -> u64 {
        match self.state {
            State::Skip { left } => left,
            _ => 0,
        }
    }

    /// Ends a message that is empty.
    pub fn begin(&mut self) -> Result<(), Malformed> {
        self.close_ended()
    }

    /// Ends a message whose length was not known.
    pub fn end(&mut self) -> Result<(), Malformed> {
        let between_fields = matches!(self.state, State::Tag(varint) if varint.is_empty());
        if !between_fields || self.frames.in_group() || !self.frames.at_root() {
            return Err(Malformed::Wire);
        }
        self.settle(self.position);
        self.is_over = true;
        Ok(())
    }

    /// Reads the next byte, or the next bytes of content, and gives what follows. It reads nothing behind its end.
    pub fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Stop> {
        let run = match self.state {
            State::Skip { left } | State::Text { left, .. } => left,
            _ => 0,
        };
        if run == 0 {
            if let [tag, length, rest @ ..] = bytes
                && self.begins_short(*tag, *length)
            {
                self.take_short(*tag, *length)?;
                return Ok(rest);
            }
            if let Some((&byte, rest)) = bytes.split_first() {
                self.take(byte)?;
                return Ok(rest);
            }
            return Ok(bytes);
        }
        let run = usize::try_from(run).unwrap_or(usize::MAX).min(bytes.len());
        let (content, rest) = bytes.split_at_checked(run).unwrap_or((bytes, &[]));
        if matches!(self.state, State::Text { .. }) {
            self.text.extend_from_slice(content);
        }
        self.advance(run)?;
        Ok(rest)
    }

    /// Leaves `count` bytes of content behind.
    pub fn advance(&mut self, count: usize) -> Result<(), Malformed> {
        let count = count as u64;
        if let State::Skip { left } | State::Text { left, .. } = &mut self.state {
            *left = left.saturating_sub(count);
            self.position = self.position.saturating_add(count);
        }
        self.close_ended()
    }

    /// Whether a field begins here whose tag and length are a byte each, as most fields around an identity do.
    const fn begins_short(&self, tag: u8, length: u8) -> bool {
        let between_fields = matches!(self.state, State::Tag(varint) if varint.is_empty());
        between_fields
            && tag < 0x80
            && tag & 7 == 2
            && length < 0x80
            && self.position < self.frames.innermost.end
    }

    /// What [`take`](Self::take) makes of the two bytes.
    fn take_short(&mut self, tag: u8, length: u8) -> Result<(), Stop> {
        if self.frames.at_root() {
            self.field_start = self.position;
        }
        self.position = self.position.saturating_add(1);
        self.begin_field(u64::from(tag) >> 3, 2)?;
        if self.position >= self.frames.innermost.end {
            return Err(Malformed::Wire.into());
        }
        self.position = self.position.saturating_add(1);
        if let State::Length { field, .. } = self.state {
            self.begin_content(field, u64::from(length))?;
        }
        Ok(self.close_ended()?)
    }

    fn take(&mut self, byte: u8) -> Result<(), Stop> {
        // Every message but the one that ends here was left, so this byte belongs to a field that runs over its end.
        if self.position >= self.frames.innermost.end {
            return Err(Malformed::Wire.into());
        }
        if self.frames.at_root() && matches!(self.state, State::Tag(varint) if varint.is_empty()) {
            self.field_start = self.position;
        }
        self.position = self.position.saturating_add(1);
        match self.state {
            State::Tag(mut varint) => match varint.take(byte, Varint::TAG_BYTES)? {
                None => self.state = State::Tag(varint),
                // libprotobuf drops what does not fit into 32 bits.
                Some(tag) => self.begin_field((tag & 0xffff_ffff) >> 3, tag & 7)?,
            },
            State::Value { value, mut varint } => match varint.take(byte, Varint::VALUE_BYTES)? {
                None => self.state = State::Value { value, varint },
                Some(number) => {
                    self.take_value(value, number.cast_signed());
                    self.state = self.between_fields();
                }
            },
            State::Length { field, mut varint } => match varint.take(byte, Varint::LENGTH_BYTES)? {
                None => self.state = State::Length { field, varint },
                Some(length) => self.begin_content(field, length)?,
            },
            State::Text { .. } | State::Skip { .. } => {}
        }
        Ok(self.close_ended()?)
    }

    fn begin_field(&mut self, number: u64, wire_type: u64) -> Result<(), Malformed> {
        let number = u32::try_from(number).map_err(|_| Malformed::Wire)?;
        if number == 0 {
            return Err(Malformed::Wire);
        }
        let kind = if self.frames.in_group() { None } else { Some(self.frames.innermost.kind) };
        let field = kind
            .filter(|_| wire_type == 2)
            .map_or(Field::Unknown, |kind| schema::field(kind, self.layout, self.sizes, number));
        if kind == Some(Kind::Root) && self.seen && !field.names_a_model() {
            self.settle(self.field_start);
        }
        match wire_type {
            0 => {
                let value = kind.map_or(Value::Unknown, |kind| schema::value(kind, number));
                self.state = State::Value { value, varint: Varint::EMPTY };
                Ok(())
            }
            1 => self.begin_skip(8),
            2 => {
                self.state = State::Length { field, varint: Varint::EMPTY };
                Ok(())
            }
            3 => {
                self.state = TAG;
                self.frames.enter_group(number)
            }
            4 => {
                self.state = TAG;
                self.frames.leave_group(number)
            }
            5 => self.begin_skip(4),
            _ => Err(Malformed::Wire),
        }
    }

    fn take_value(&mut self, value: Value, number: i64) {
        match value {
            Value::Version if self.counts() => self.merged.asked = Asked::Version(Version::Number(number)),
            Value::Size => {
                if let Some(batch) = &mut self.batch {
                    batch.dimension(self.frames.innermost.kind, number);
                }
            }
            Value::Version | Value::Unknown => {}
        }
    }

    /// What comes next where a field has ended.
    const fn between_fields(&self) -> State {
        match self.frames.innermost.kind {
            Kind::PackedShape => State::Value { value: Value::Size, varint: Varint::EMPTY },
            _ => TAG,
        }
    }

    /// Whether what is read now belongs to the identity.
    ///
    /// Each further task is an element of its own, which the server parses too; only the first selects the model.
    fn counts(&self) -> bool {
        self.layout != Layout::FirstTask || self.settled.is_none()
    }

    fn begin_skip(&mut self, left: u64) -> Result<(), Malformed> {
        self.state = State::Skip { left };
        if self.position.saturating_add(left) > self.frames.innermost.end {
            Err(Malformed::Wire)
        } else {
            Ok(())
        }
    }

    fn begin_content(&mut self, field: Field, length: u64) -> Result<(), Stop> {
        let end = self.position.saturating_add(length);
        if length > MAX_LENGTH || end > self.frames.innermost.end {
            return Err(Malformed::Wire.into());
        }
        let counts = field.names_a_model() && self.counts();
        if counts {
            self.keep_settled();
        }
        match field {
            Field::Unknown => self.state = State::Skip { left: length },
            Field::Example => {
                if let Some(batch) = &mut self.batch {
                    batch.example();
                }
                self.state = State::Skip { left: length };
            }
            Field::Text(_) if length > u64::from(self.max_text) => return Err(Stop::TooLong),
            Field::Text(field) => {
                self.seen |= counts;
                self.text.clear();
                self.state = State::Text { field, left: length };
            }
            Field::Message(kind) => {
                if counts {
                    self.begin_counted(kind);
                }
                if let Some(batch) = &mut self.batch {
                    batch.enter(kind);
                }
                self.frames.enter(Frame { kind, end })?;
                self.state = self.between_fields();
            }
        }
        Ok(())
    }

    fn begin_counted(&mut self, kind: Kind) {
        match kind {
            Kind::ModelSpec => self.seen = true,
            // A oneof keeps what it has when the same member comes again, and starts anew for another.
            Kind::Int64Value if !matches!(self.merged.asked, Asked::Version(_)) => {
                self.merged.asked = Asked::Version(Version::Number(0));
            }
            _ => {}
        }
    }

    /// Keeps the identity that has settled, because what is merged may change from here on.
    fn keep_settled(&mut self) {
        if let Some(Settled { spec: spec @ None, .. }) = &mut self.settled {
            *spec = Some(self.merged.clone());
        }
    }

    /// Finishes what ends at the position: a text, a skipped field, the messages around it.
    fn close_ended(&mut self) -> Result<(), Malformed> {
        match self.state {
            State::Skip { left: 0 } => self.state = TAG,
            State::Text { field, left: 0 } => {
                self.end_text(field)?;
                self.state = TAG;
            }
            _ => {}
        }
        while !self.is_over && self.is_between_fields() && self.position >= self.frames.innermost.end {
            if self.frames.in_group() {
                return Err(Malformed::Wire);
            }
            let left = self.frames.innermost.kind;
            self.frames.leave();
            self.state = TAG;
            if let Some(batch) = &mut self.batch {
                batch.leave(left);
            }
            match left {
                Kind::Root => {
                    self.settle(self.position);
                    self.is_over = true;
                }
                Kind::Task => self.settle(self.position),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the position is where a field, or a number of a packed one, may begin or the message may end.
    const fn is_between_fields(&self) -> bool {
        match self.state {
            State::Tag(varint) => varint.is_empty(),
            State::Value { varint, .. } => {
                varint.is_empty() && matches!(self.frames.innermost.kind, Kind::PackedShape)
            }
            _ => false,
        }
    }

    fn end_text(&mut self, field: TextField) -> Result<(), Malformed> {
        let text = String::from_utf8(mem::take(&mut self.text)).map_err(|_| Malformed::Utf8)?;
        match field {
            TextField::Input => {
                if let Some(batch) = &mut self.batch {
                    batch.name(text);
                }
            }
            _ if !self.counts() => {}
            TextField::Name => self.merged.name = text,
            TextField::Signature => self.merged.signature = text,
            TextField::Label => self.merged.asked = Asked::Label(text.into()),
            TextField::Version if text.is_empty() => self.merged.asked = Asked::Latest,
            TextField::Version => self.merged.asked = Asked::Version(Version::parse(&text)),
        }
        Ok(())
    }

    fn settle(&mut self, at: u64) {
        if self.settled.is_none() {
            self.settled = Some(Settled { at, spec: None });
        }
    }
}
