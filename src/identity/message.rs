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
    /// The tag, value or length that is read now.
    varint: Varint,
    /// How much of the current text or content is still to come.
    left: u64,
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

/// What is read now. It is written for every field, so what it goes with is kept beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Tag,
    Value(Value),
    Length(Field),
    Text(TextField),
    Skip,
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

impl Message {
    /// A message before its first byte; [`begin`](Self::begin) says how long it is.
    pub const fn new(layout: Layout, max_text: u32) -> Self {
        Self {
            layout,
            sizes: Sizes::Unread,
            max_text,
            state: State::Tag,
            varint: Varint::EMPTY,
            left: 0,
            position: 0,
            field_start: 0,
            frames: Frames::of_message(UNKNOWN_LENGTH),
            text: Vec::new(),
            merged: ModelSpec::EMPTY,
            seen: false,
            settled: None,
            batch: None,
            inflated: false,
            is_over: false,
        }
    }

    /// Reads these sizes on the way.
    pub const fn read_sizes(&mut self, sizes: Sizes) {
        self.sizes = sizes;
    }

    /// Makes place for the message that follows this one, which is over, and gives its identity as it settled.
    pub fn restart(&mut self) -> ModelSpec {
        self.position = 0;
        self.seen = false;
        self.is_over = false;
        let merged = mem::replace(&mut self.merged, ModelSpec::EMPTY);
        self.settled.take().and_then(|settled| settled.spec).unwrap_or(merged)
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

    pub const fn layout(&self) -> Layout {
        self.layout
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
            State::Skip => self.left,
            _ => 0,
        }
    }

    /// Leaves `count` bytes of content behind if more of it follows, so that nothing ends.
    pub const fn skip_within(&mut self, count: u64) -> bool {
        let is_within = matches!(self.state, State::Skip) && self.left > count;
        if is_within {
            self.left = self.left.saturating_sub(count);
            self.position = self.after(count);
        }
        is_within
    }

    /// Its length is known. An empty one ends here.
    pub fn begin(&mut self, length: u64) -> Result<(), Malformed> {
        self.frames.innermost.end = length;
        self.inflated = length == UNKNOWN_LENGTH;
        if self.sizes != Sizes::Unread {
            self.batch = Some(Box::default());
        }
        if length > 0 { Ok(()) } else { self.leave_ended() }
    }

    /// Ends a message whose length was not known.
    pub fn end(&mut self) -> Result<(), Malformed> {
        if !self.expects_tag() || self.frames.in_group() || !self.frames.at_root() {
            return Err(Malformed::Wire);
        }
        self.settle(self.position);
        self.is_over = true;
        Ok(())
    }

    /// Reads what is there of it, at most until its identity has settled if so asked, and gives what follows.
    pub fn read<'a>(&mut self, mut bytes: &'a [u8], to_identity: bool) -> Result<&'a [u8], Stop> {
        while !bytes.is_empty() && !self.is_over {
            bytes = self.step(bytes)?;
            if to_identity && self.has_settled() {
                break;
            }
        }
        Ok(bytes)
    }

    /// Reads the next bytes, at most a field, and gives what follows.
    fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Stop> {
        match self.state {
            State::Tag if self.varint.is_empty() => {
                if let &[tag, ref after @ ..] = bytes
                    && is_short_tag(tag)
                    && let Some((value, length, rest)) = Varint::short(after)
                {
                    return self.take_head(tag, value, length.saturating_add(1), rest);
                }
            }
            State::Skip => return self.skip(self.left, bytes),
            State::Text(field) => return self.take_text(field, self.left, bytes),
            State::Tag | State::Value(_) | State::Length(_) => {}
        }
        match bytes.split_first() {
            Some((&byte, rest)) => self.take(byte, rest),
            None => Ok(bytes),
        }
    }

    /// What [`take`](Self::take) makes of a tag of one byte and the varint behind it, `read` bytes together.
    fn take_head<'a>(&mut self, tag: u8, value: u64, read: u64, rest: &'a [u8]) -> Result<&'a [u8], Stop> {
        let (number, wire_type) = (u32::from(tag >> 3), tag & 7);
        if number == 0 {
            return Err(Malformed::Wire.into());
        }
        let start = self.position;
        self.position = self.after(read);
        if wire_type == 2 {
            let field = self.field(number);
            self.settle_before(start, field);
            return self.begin_content(field, value, rest);
        }
        self.settle_before(start, Field::Unknown);
        if self.position > self.frames.innermost.end {
            return Err(Malformed::Wire.into());
        }
        self.take_value(self.value(number), value.cast_signed());
        self.end_field()?;
        Ok(rest)
    }

    fn take<'a>(&mut self, byte: u8, rest: &'a [u8]) -> Result<&'a [u8], Stop> {
        // Every message but the one that ends here was left, so this byte belongs to a field that runs over its end.
        if self.position >= self.frames.innermost.end {
            return Err(Malformed::Wire.into());
        }
        if self.expects_tag() {
            self.field_start = self.position;
        }
        self.position = self.after(1);
        let most =
            if matches!(self.state, State::Value(_)) { Varint::VALUE_BYTES } else { Varint::HEAD_BYTES };
        let Some(number) = self.varint.take(byte, most)? else {
            return Ok(rest);
        };
        match self.state {
            // libprotobuf drops what does not fit into 32 bits.
            State::Tag => return self.begin_field((number & 0xffff_ffff) >> 3, (number & 7) as u8, rest),
            State::Length(field) => return self.begin_content(field, number, rest),
            State::Value(value) => {
                self.take_value(value, number.cast_signed());
                self.end_field()?;
            }
            State::Text(_) | State::Skip => {}
        }
        Ok(rest)
    }

    fn begin_field<'a>(&mut self, number: u64, wire_type: u8, rest: &'a [u8]) -> Result<&'a [u8], Stop> {
        let number = u32::try_from(number).map_err(|_| Malformed::Wire)?;
        if number == 0 {
            return Err(Malformed::Wire.into());
        }
        let field = if wire_type == 2 { self.field(number) } else { Field::Unknown };
        self.settle_before(self.field_start, field);
        match wire_type {
            0 => self.state = State::Value(self.value(number)),
            1 => return self.begin_skip(8, rest),
            2 => self.state = State::Length(field),
            3 => {
                self.frames.enter_group(number)?;
                self.end_field()?;
            }
            4 => {
                self.frames.leave_group(number)?;
                self.end_field()?;
            }
            5 => return self.begin_skip(4, rest),
            _ => return Err(Malformed::Wire.into()),
        }
        Ok(rest)
    }

    /// What a length-delimited field is here. Inside a group nothing is known.
    const fn field(&self, number: u32) -> Field {
        if self.frames.in_group() {
            return Field::Unknown;
        }
        schema::field(self.frames.innermost.kind, self.layout, self.sizes, number)
    }

    /// What a varint is here.
    const fn value(&self, number: u32) -> Value {
        if self.frames.in_group() {
            return Value::Unknown;
        }
        schema::value(self.frames.innermost.kind, number)
    }

    /// The identity settles where a field begins that does not name it.
    fn settle_before(&mut self, start: u64, field: Field) {
        if self.seen && self.frames.at_root() && !self.frames.in_group() && !field.names_a_model() {
            self.settle(start);
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
            Kind::PackedShape => State::Value(Value::Size),
            _ => State::Tag,
        }
    }

    /// Whether what is read now belongs to the identity.
    ///
    /// Each further task is an element of its own, which the server parses too; only the first selects the model.
    fn counts(&self) -> bool {
        self.layout != Layout::FirstTask || self.settled.is_none()
    }

    fn begin_skip<'a>(&mut self, left: u64, rest: &'a [u8]) -> Result<&'a [u8], Stop> {
        if self.after(left) > self.frames.innermost.end {
            return Err(Malformed::Wire.into());
        }
        self.skip(left, rest)
    }

    fn begin_content<'a>(&mut self, field: Field, length: u64, rest: &'a [u8]) -> Result<&'a [u8], Stop> {
        let end = self.after(length);
        if length > MAX_LENGTH || end > self.frames.innermost.end {
            return Err(Malformed::Wire.into());
        }
        match field {
            Field::Unknown => self.skip(length, rest),
            Field::Example => {
                if let Some(batch) = &mut self.batch {
                    batch.example();
                }
                self.skip(length, rest)
            }
            Field::Text(field) => {
                let counts = field.names_a_model() && self.counts();
                if counts {
                    self.keep_settled();
                }
                if length > u64::from(self.max_text) {
                    return Err(Stop::TooLong);
                }
                self.seen |= counts;
                self.take_text(field, length, rest)
            }
            Field::Message(kind) => {
                if kind.names_a_model() && self.counts() {
                    self.keep_settled();
                    self.begin_counted(kind);
                }
                if let Some(batch) = &mut self.batch {
                    batch.enter(kind);
                }
                self.frames.enter(Frame { kind, end })?;
                self.end_field()?;
                Ok(rest)
            }
        }
    }

    /// Leaves behind what is there of a content of which `left` bytes are still to come, and gives what follows.
    fn skip<'a>(&mut self, left: u64, bytes: &'a [u8]) -> Result<&'a [u8], Stop> {
        let (content, rest) = split(bytes, left);
        self.pass(left, content.len())?;
        Ok(rest)
    }

    /// Leaves `count` bytes of content behind.
    pub fn advance(&mut self, count: usize) -> Result<(), Malformed> {
        if self.state == State::Skip { self.pass(self.left, count) } else { Ok(()) }
    }

    fn pass(&mut self, left: u64, count: usize) -> Result<(), Malformed> {
        let count = count as u64;
        self.position = self.after(count);
        if count < left {
            self.state = State::Skip;
            self.left = left.saturating_sub(count);
            return Ok(());
        }
        self.end_field()
    }

    /// Takes what is there of a text of which `left` bytes are still to come, and gives what follows.
    fn take_text<'a>(&mut self, field: TextField, left: u64, bytes: &'a [u8]) -> Result<&'a [u8], Stop> {
        let (content, rest) = split(bytes, left);
        let count = content.len() as u64;
        self.position = self.after(count);
        if count < left {
            self.text.extend_from_slice(content);
            self.state = State::Text(field);
            self.left = left.saturating_sub(count);
            return Ok(rest);
        }
        let begun;
        let text = if self.text.is_empty() {
            content
        } else {
            begun = [&*mem::take(&mut self.text), content].concat();
            &begun
        };
        self.end_text(field, text)?;
        self.end_field()?;
        Ok(rest)
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

    /// What comes after a field: another one, unless the messages around it end with it.
    fn end_field(&mut self) -> Result<(), Malformed> {
        self.state = self.between_fields();
        if self.position < self.frames.innermost.end { Ok(()) } else { self.leave_ended() }
    }

    /// The position behind so many more bytes. What was seen or is promised is far fewer than a position can count.
    const fn after(&self, count: u64) -> u64 {
        self.position.wrapping_add(count)
    }

    /// Whether the next byte is the first one of a tag.
    const fn expects_tag(&self) -> bool {
        matches!(self.state, State::Tag) && self.varint.is_empty()
    }

    /// Leaves the messages that end at the position, which is between fields.
    fn leave_ended(&mut self) -> Result<(), Malformed> {
        while self.position >= self.frames.innermost.end {
            if self.frames.in_group() {
                return Err(Malformed::Wire);
            }
            let left = self.frames.innermost.kind;
            if let Some(batch) = &mut self.batch {
                batch.leave(left);
            }
            match left {
                Kind::Root => {
                    self.settle(self.position);
                    self.is_over = true;
                    return Ok(());
                }
                Kind::Task => self.settle(self.position),
                _ => {}
            }
            self.frames.leave();
            self.state = State::Tag;
        }
        Ok(())
    }

    fn end_text(&mut self, field: TextField, text: &[u8]) -> Result<(), Malformed> {
        let text = str::from_utf8(text).map_err(|_| Malformed::Utf8)?.to_owned();
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

/// Whether a tag is whole in one byte, and a varint follows it: a number or a length.
const fn is_short_tag(tag: u8) -> bool {
    tag < 0x80 && matches!(tag & 7, 0 | 2)
}

/// What is there of the next `length` bytes, and what follows.
fn split(bytes: &[u8], length: u64) -> (&[u8], &[u8]) {
    usize::try_from(length).ok().and_then(|length| bytes.split_at_checked(length)).unwrap_or((bytes, &[]))
}
