//! The wire scanner: gRPC framing and protobuf, a piece at a time.

#![deny(clippy::arithmetic_side_effects)]

use std::mem;

use super::ModelSpec;
use super::inflate::{Encoding, Inflater, Refused};
use super::varint::Varint;
use crate::units::{Asked, Version};

/// Where a request message keeps its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `model_spec` is field 1: all of TensorFlow Serving's requests but one.
    ModelSpec,
    /// `tasks[0].model_spec`: `MultiInferenceRequest`.
    FirstTask,
    /// `model_name` is field 1 and `model_version` field 2: the Open Inference Protocol.
    NameAndVersion,
}

/// How many messages a call carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rpc {
    Unary,
    /// Every message must name the same model.
    Streaming,
}

/// What the server would refuse, in the protobuf or in the gRPC framing around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    Flag,
    SecondMessage,
    Truncated,
    Wire,
    Utf8,
}

impl Malformed {
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::Flag => "the compression flag of the gRPC message is neither 0 nor 1",
            Self::SecondMessage => "a unary call carries a second message",
            Self::Truncated => "the body ends inside a gRPC message",
            Self::Wire => "the message is not well-formed protobuf",
            Self::Utf8 => "a string of the model's identity is not UTF-8",
        }
    }
}

/// How far the identity of the current message is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It may still come, or change.
    Reading,
    /// It is complete and another field has begun, or the message has ended, perhaps without any.
    Settled,
    /// It cannot be read, and nothing after it.
    Unreadable(Unreadable),
}

/// Why an identity cannot be read although nothing shows that the server would refuse the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// The message is compressed, and compressed messages are not to be read.
    Compressed,
    /// The message is compressed in an encoding that is not known.
    Encoding,
    /// The message is not what its encoding says.
    Corrupt,
    /// The message grows beyond the limit.
    TooLarge,
    /// A name, label or signature is longer than the limit.
    TooLong,
}

impl Unreadable {
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::Compressed => "compressed messages are refused",
            Self::Encoding => "the message is compressed in a grpc-encoding other than gzip and deflate",
            Self::Corrupt => "the compressed message is not what its grpc-encoding says",
            Self::TooLarge => "the compressed message grows beyond max_inflate_bytes or a thousandfold",
            Self::TooLong => "a name, label or signature is longer than max_peek_bytes",
        }
    }
}

/// What is done with compressed messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// They are not read, for this reason.
    Unread(Unreadable),
    /// They are inflated, to at most so many bytes each.
    Inflated { encoding: Encoding, most: u64, until: Until },
}

/// How far a compressed message is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// To the end, so that a later contradiction is seen.
    End,
    /// To the identity; nothing of the body is read after it.
    Identity,
}

/// Reads the body of a gRPC request in pieces of any size.
#[derive(Clone, Debug)]
pub struct Scanner {
    layout: Layout,
    rpc: Rpc,
    max_text: u32,
    compression: Compression,
    /// The compressed message around the position.
    inflating: Option<Box<Inflating>>,
    first_message: bool,
    progress: Progress,
    state: State,
    /// How much of the current message was read or skipped.
    position: u64,
    /// Where in the current message its current field begins.
    field_start: u64,
    /// Where in its message the identity settled, unless it came compressed.
    settled_at: Option<u64>,
    /// The identity was rewritten on the way, so that no later field may name it again.
    rewritten: Rewritten,
    frames: Frames,
    /// The field numbers of the unknown groups around the position, inside the innermost frame.
    groups: Vec<u32>,
    text: Vec<u8>,
    /// The identity of the current message, merged so far.
    merged: ModelSpec,
    /// Whether the current message has shown any of it.
    seen: bool,
    pinned: Pinned,
    contradicted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rewritten {
    No,
    Yes,
}

#[derive(Clone, Debug)]
struct Inflating {
    inflater: Inflater,
    /// How many of its compressed bytes are still to come.
    left: u32,
}

/// Why inflating stopped.
enum Stopped {
    Malformed(Malformed),
    Refused(Refused),
}

impl From<Refused> for Stopped {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// The identity that counts, with which every message must end.
#[derive(Clone, Debug)]
enum Pinned {
    No,
    /// `merged` is it; nothing has touched it since it settled.
    Current,
    /// Something may have changed `merged` since. The signature counts only where a body named it.
    Apart {
        decided: ModelSpec,
        with_signature: bool,
    },
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The 5 bytes before a message: the compression flag and the length.
    Prefix {
        have: u8,
        flag: u8,
        length: u32,
    },
    Tag(Varint),
    Value {
        counts: bool,
        varint: Varint,
    },
    Length {
        field: Field,
        varint: Varint,
    },
    Text {
        field: TextField,
        left: u64,
    },
    Skip {
        left: u64,
    },
    /// What cannot be read, to the end of the body.
    Opaque,
}

/// A length-delimited field, by what it means here.
#[derive(Clone, Copy, Debug)]
enum Field {
    Message(Kind),
    Text(TextField),
    Unknown,
}

/// A message that is descended into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Root,
    Task,
    ModelSpec,
    /// `google.protobuf.Int64Value`, the wrapper of a version.
    Int64Value,
}

#[derive(Clone, Copy, Debug)]
enum TextField {
    Name,
    Signature,
    Label,
    /// `model_version` of the Open Inference Protocol.
    Version,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: Kind,
    /// The position behind its last byte.
    end: u64,
}

/// The known messages around the position; at most root, task, model_spec and version are nested.
#[derive(Clone, Copy, Debug)]
struct Frames {
    innermost: Frame,
    around: [Frame; 3],
    depth: u8,
}

/// libprotobuf's default recursion limit, of messages and groups together.
const MAX_DEPTH: usize = 100;
/// libprotobuf keeps 16 bytes of slop below the largest `int`.
const MAX_LENGTH: u64 = 0x7fff_ffef;
const PREFIX: State = State::Prefix { have: 0, flag: 0, length: 0 };
const TAG: State = State::Tag(Varint::EMPTY);

impl Frames {
    const fn of_message(end: u64) -> Self {
        let root = Frame { kind: Kind::Root, end };
        Self { innermost: root, around: [root; 3], depth: 0 }
    }

    fn enter(&mut self, frame: Frame) -> Result<(), Malformed> {
        *self.around.get_mut(usize::from(self.depth)).ok_or(Malformed::Wire)? = self.innermost;
        self.innermost = frame;
        self.depth = self.depth.saturating_add(1);
        Ok(())
    }

    fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        if let Some(&outer) = self.around.get(usize::from(self.depth)) {
            self.innermost = outer;
        }
    }
}

impl Scanner {
    /// `max_text` bounds a name, label or signature, in bytes.
    pub const fn new(layout: Layout, rpc: Rpc, max_text: u32) -> Self {
        Self {
            layout,
            rpc,
            max_text,
            compression: Compression::Unread(Unreadable::Encoding),
            inflating: None,
            first_message: true,
            progress: Progress::Reading,
            state: PREFIX,
            position: 0,
            field_start: 0,
            settled_at: None,
            rewritten: Rewritten::No,
            frames: Frames::of_message(0),
            groups: Vec::new(),
            text: Vec::new(),
            merged: ModelSpec { name: String::new(), asked: Asked::Latest, signature: String::new() },
            seen: false,
            pinned: Pinned::No,
            contradicted: false,
        }
    }

    /// What to do with compressed messages; without it they are unreadable.
    #[must_use]
    pub fn with_compression(self, compression: Compression) -> Self {
        Self { compression, ..self }
    }

    pub const fn progress(&self) -> Progress {
        self.progress
    }

    /// The identity that counts: the one that settled first, or the one pinned.
    ///
    /// So what is decided never depends on how the body was cut into pieces.
    pub const fn spec(&self) -> &ModelSpec {
        match &self.pinned {
            Pinned::Apart { decided, .. } => decided,
            Pinned::No | Pinned::Current => &self.merged,
        }
    }

    /// The identity of the current message, merged so far as libprotobuf merges it.
    pub const fn merged(&self) -> &ModelSpec {
        &self.merged
    }

    /// Takes what the headers said for the identity that counts; they say nothing of a signature.
    pub fn pin_to(&mut self, decided: ModelSpec) {
        self.pinned = Pinned::Apart { decided, with_signature: false };
    }

    /// Where a field that names another identity takes effect, in bytes behind the prefix of the message, if it can.
    pub fn splice_point(&self) -> Option<(Layout, usize)> {
        let at = usize::try_from(self.settled_at?).ok()?;
        let possible = self.rpc == Rpc::Unary && self.layout != Layout::FirstTask;
        possible.then_some((self.layout, at))
    }

    /// The identity was rewritten, so that a later field that names one, even the same, would undo it: it contradicts.
    pub fn rewritten(&mut self) {
        self.rewritten = Rewritten::Yes;
        self.contradicted |= matches!(self.pinned, Pinned::Apart { with_signature: true, .. });
    }

    /// Whether a message has ended with another identity than the one that counts.
    pub const fn contradicted(&self) -> bool {
        self.contradicted
    }

    /// How many of the next bytes are content that need not be read.
    pub const fn skippable(&self) -> u64 {
        match self.state {
            State::Opaque => u64::MAX,
            State::Skip { left } if self.inflating.is_none() => left,
            _ => 0,
        }
    }

    /// Goes over `length` more bytes of the body, of which it asks `read` only for those that matter.
    ///
    /// `read(offset, most)` gives at most so many of those bytes, and at least one.
    ///
    /// # Errors
    ///
    /// The first thing that the server would refuse, or nothing read: then the body is not what it was said to be.
    pub fn follow<B: AsRef<[u8]>>(
        &mut self,
        length: usize,
        mut read: impl FnMut(usize, usize) -> Option<B>,
    ) -> Result<(), Malformed> {
        // The fields around a model_spec fit; more would copy content for nothing.
        const WINDOW: usize = 256;
        const COMPRESSED_WINDOW: usize = 16_384;
        let mut at = 0_usize;
        while at < length {
            let left = length.saturating_sub(at);
            let skip = usize::try_from(self.skippable()).unwrap_or(usize::MAX).min(left);
            if skip > 0 {
                self.advance(skip)?;
                at = at.saturating_add(skip);
                continue;
            }
            let window = if self.inflating.is_some() { COMPRESSED_WINDOW } else { WINDOW };
            let bytes = read(at, left.min(window)).ok_or(Malformed::Truncated)?;
            let bytes = bytes.as_ref();
            if bytes.is_empty() {
                return Err(Malformed::Truncated);
            }
            self.feed(bytes)?;
            at = at.saturating_add(bytes.len());
        }
        Ok(())
    }

    /// Reads the next bytes of the body.
    ///
    /// # Errors
    ///
    /// The first thing that the server would refuse.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Malformed> {
        while !bytes.is_empty() && !matches!(self.state, State::Opaque) {
            bytes = match self.inflating.take() {
                Some(inflating) => self.feed_compressed(inflating, bytes)?,
                None => self.step(bytes)?,
            };
        }
        Ok(())
    }

    /// Reads the next byte, or the next bytes of content, and gives what follows.
    fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Malformed> {
        let run = match self.state {
            State::Skip { left } | State::Text { left, .. } => left,
            State::Opaque => return Ok(&[]),
            _ => 0,
        };
        if run == 0 {
            let Some((&byte, rest)) = bytes.split_first() else {
                return Ok(&[]);
            };
            self.take(byte)?;
            return Ok(rest);
        }
        let run = usize::try_from(run).unwrap_or(usize::MAX).min(bytes.len());
        let (content, rest) = bytes.split_at_checked(run).unwrap_or((bytes, &[]));
        if matches!(self.state, State::Text { .. }) {
            self.text.extend_from_slice(content);
        }
        self.advance(run)?;
        Ok(rest)
    }

    /// Reads the next bytes of a compressed message, and gives what follows the message.
    fn feed_compressed<'a>(
        &mut self,
        mut inflating: Box<Inflating>,
        bytes: &'a [u8],
    ) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(inflating.left).unwrap_or(usize::MAX).min(bytes.len());
        let (part, rest) = bytes.split_at_checked(length).unwrap_or((bytes, &[]));
        inflating.left = inflating.left.saturating_sub(u32::try_from(length).unwrap_or(u32::MAX));
        let fed = inflating.inflater.feed(part, |mut plain| {
            while !plain.is_empty() {
                plain = self.step(plain).map_err(Stopped::Malformed)?;
            }
            Ok(())
        });
        match fed {
            Err(Stopped::Malformed(malformed)) => return Err(malformed),
            Err(Stopped::Refused(Refused::TooLarge)) => self.give_up(Unreadable::TooLarge),
            Ok(()) if matches!(self.state, State::Opaque) => {}
            Ok(()) if inflating.left > 0 => {
                let read_on =
                    !matches!(self.compression, Compression::Inflated { until: Until::Identity, .. })
                        || self.progress == Progress::Reading;
                if read_on {
                    self.inflating = Some(inflating);
                } else {
                    self.state = State::Opaque;
                }
            }
            Ok(()) if inflating.inflater.is_done() => self.end_inflated()?,
            Ok(()) | Err(Stopped::Refused(Refused::Corrupt)) => self.give_up(Unreadable::Corrupt),
        }
        Ok(rest)
    }

    /// A compressed message has ended, whose length was not known before.
    fn end_inflated(&mut self) -> Result<(), Malformed> {
        let between_fields = matches!(self.state, State::Tag(varint) if varint.is_empty());
        if !between_fields || !self.groups.is_empty() || self.frames.depth > 0 {
            return Err(Malformed::Wire);
        }
        self.end_message();
        Ok(())
    }

    /// Reads nothing more.
    fn give_up(&mut self, unreadable: Unreadable) {
        self.progress = Progress::Unreadable(unreadable);
        self.state = State::Opaque;
    }

    /// The body has ended.
    ///
    /// # Errors
    ///
    /// When it ended inside a message.
    pub const fn end(&self) -> Result<(), Malformed> {
        match self.state {
            State::Opaque => Ok(()),
            State::Prefix { have: 0, .. } if self.inflating.is_none() => Ok(()),
            _ => Err(Malformed::Truncated),
        }
    }

    /// Leaves `count` bytes of content behind.
    fn advance(&mut self, count: usize) -> Result<(), Malformed> {
        let count = count as u64;
        if let State::Skip { left } | State::Text { left, .. } = &mut self.state {
            *left = left.saturating_sub(count);
            self.position = self.position.saturating_add(count);
        }
        self.close_ended()
    }

    fn take(&mut self, byte: u8) -> Result<(), Malformed> {
        if let State::Prefix { have, flag, length } = self.state {
            return self.take_prefix(have, flag, length, byte);
        }
        // Every message but the one that ends here was left, so this byte belongs to a field that runs over its end.
        if self.position >= self.frames.innermost.end {
            return Err(Malformed::Wire);
        }
        if self.frames.depth == 0 && matches!(self.state, State::Tag(varint) if varint.is_empty()) {
            self.field_start = self.position;
        }
        self.position = self.position.saturating_add(1);
        match self.state {
            State::Tag(mut varint) => match varint.take(byte, Varint::TAG_BYTES)? {
                None => self.state = State::Tag(varint),
                // libprotobuf drops what does not fit into 32 bits.
                Some(tag) => self.begin_field((tag & 0xffff_ffff) >> 3, tag & 7)?,
            },
            State::Value { counts, mut varint } => match varint.take(byte, Varint::VALUE_BYTES)? {
                None => self.state = State::Value { counts, varint },
                Some(value) => {
                    if counts {
                        self.merged.asked = Asked::Version(Version::Number(value.cast_signed()));
                    }
                    self.state = TAG;
                }
            },
            State::Length { field, mut varint } => match varint.take(byte, Varint::LENGTH_BYTES)? {
                None => self.state = State::Length { field, varint },
                Some(length) => self.begin_content(field, length)?,
            },
            State::Prefix { .. } | State::Text { .. } | State::Skip { .. } | State::Opaque => {}
        }
        self.close_ended()
    }

    fn take_prefix(&mut self, have: u8, flag: u8, length: u32, byte: u8) -> Result<(), Malformed> {
        match have {
            0 if !self.first_message && self.rpc == Rpc::Unary => return Err(Malformed::SecondMessage),
            0 if byte > 1 => return Err(Malformed::Flag),
            0 => self.state = State::Prefix { have: 1, flag: byte, length: 0 },
            _ => {
                let length = (length << 8) | u32::from(byte);
                if have < 4 {
                    self.state = State::Prefix { have: have.saturating_add(1), flag, length };
                } else if flag == 0 {
                    self.begin_message(u64::from(length));
                    return self.close_ended();
                } else {
                    self.begin_compressed(length);
                }
            }
        }
        Ok(())
    }

    fn begin_compressed(&mut self, length: u32) {
        match self.compression {
            Compression::Unread(unreadable) => self.give_up(unreadable),
            // No compressed stream is empty.
            Compression::Inflated { .. } if length == 0 => self.give_up(Unreadable::Corrupt),
            Compression::Inflated { encoding, most, .. } => {
                let inflater = Inflater::new(encoding, most);
                self.begin_message(u64::MAX);
                self.inflating = Some(Box::new(Inflating { inflater, left: length }));
            }
        }
    }

    fn begin_message(&mut self, length: u64) {
        if !self.first_message {
            self.set_apart();
            self.merged = ModelSpec::default();
            self.progress = Progress::Reading;
            self.seen = false;
        }
        self.first_message = false;
        self.position = 0;
        self.frames = Frames::of_message(length);
        self.state = TAG;
    }

    /// Keeps the identity that counts, because the current one may change from here on.
    fn set_apart(&mut self) {
        self.contradicted |= self.rewritten == Rewritten::Yes;
        if matches!(self.pinned, Pinned::Current) {
            self.pinned = Pinned::Apart { decided: self.merged.clone(), with_signature: true };
        }
    }

    fn begin_field(&mut self, number: u64, wire_type: u64) -> Result<(), Malformed> {
        let number = u32::try_from(number).map_err(|_| Malformed::Wire)?;
        if number == 0 {
            return Err(Malformed::Wire);
        }
        let field = match wire_type {
            2 if self.groups.is_empty() => self.meaning(number),
            _ => Field::Unknown,
        };
        let at_root = self.frames.depth == 0 && self.groups.is_empty();
        if at_root && matches!(field, Field::Unknown) && self.seen {
            self.settle(self.field_start);
        }
        match wire_type {
            0 => {
                let counts = number == 1
                    && self.groups.is_empty()
                    && self.frames.innermost.kind == Kind::Int64Value
                    && self.counts();
                self.state = State::Value { counts, varint: Varint::EMPTY };
                Ok(())
            }
            1 => self.begin_skip(8),
            2 => {
                self.state = State::Length { field, varint: Varint::EMPTY };
                Ok(())
            }
            3 => {
                self.groups.push(number);
                self.state = TAG;
                let depth = self.groups.len().saturating_add(usize::from(self.frames.depth));
                if depth > MAX_DEPTH { Err(Malformed::Wire) } else { Ok(()) }
            }
            4 => {
                self.state = TAG;
                if self.groups.pop() == Some(number) { Ok(()) } else { Err(Malformed::Wire) }
            }
            5 => self.begin_skip(4),
            _ => Err(Malformed::Wire),
        }
    }

    /// What a length-delimited field of the innermost message means.
    const fn meaning(&self, number: u32) -> Field {
        match (self.frames.innermost.kind, self.layout, number) {
            (Kind::Root, Layout::ModelSpec, 1) | (Kind::Task, _, 1) => Field::Message(Kind::ModelSpec),
            (Kind::Root, Layout::FirstTask, 1) => Field::Message(Kind::Task),
            (Kind::Root, Layout::NameAndVersion, 1) | (Kind::ModelSpec, _, 1) => Field::Text(TextField::Name),
            (Kind::Root, Layout::NameAndVersion, 2) => Field::Text(TextField::Version),
            (Kind::ModelSpec, _, 2) => Field::Message(Kind::Int64Value),
            (Kind::ModelSpec, _, 3) => Field::Text(TextField::Signature),
            (Kind::ModelSpec, _, 4) => Field::Text(TextField::Label),
            _ => Field::Unknown,
        }
    }

    /// Whether what is read now belongs to the identity.
    ///
    /// Each further task is an element of its own, which the server parses too; only the first selects the model.
    fn counts(&self) -> bool {
        self.layout != Layout::FirstTask || self.progress != Progress::Settled
    }

    fn begin_skip(&mut self, left: u64) -> Result<(), Malformed> {
        self.state = State::Skip { left };
        if self.position.saturating_add(left) > self.frames.innermost.end {
            Err(Malformed::Wire)
        } else {
            Ok(())
        }
    }

    fn begin_content(&mut self, field: Field, length: u64) -> Result<(), Malformed> {
        let end = self.position.saturating_add(length);
        if length > MAX_LENGTH || end > self.frames.innermost.end {
            return Err(Malformed::Wire);
        }
        match field {
            Field::Unknown => self.state = State::Skip { left: length },
            Field::Text(_) if length > u64::from(self.max_text) => self.give_up(Unreadable::TooLong),
            Field::Text(field) => {
                if self.counts() {
                    self.set_apart();
                    self.seen = true;
                }
                self.text.clear();
                self.state = State::Text { field, left: length };
            }
            Field::Message(kind) => {
                if self.counts() {
                    self.begin_counted(kind);
                }
                self.frames.enter(Frame { kind, end })?;
                self.state = TAG;
            }
        }
        Ok(())
    }

    fn begin_counted(&mut self, kind: Kind) {
        self.set_apart();
        match kind {
            Kind::ModelSpec => self.seen = true,
            // A oneof keeps what it has when the same member comes again, and starts anew for another.
            Kind::Int64Value if !matches!(self.merged.asked, Asked::Version(_)) => {
                self.merged.asked = Asked::Version(Version::Number(0));
            }
            _ => {}
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
        while matches!(self.state, State::Tag(varint) if varint.is_empty())
            && self.position >= self.frames.innermost.end
        {
            if !self.groups.is_empty() {
                return Err(Malformed::Wire);
            }
            match self.frames.innermost.kind {
                Kind::Root => self.end_message(),
                Kind::Task => {
                    self.frames.leave();
                    self.settle(self.position);
                }
                Kind::ModelSpec | Kind::Int64Value => self.frames.leave(),
            }
        }
        Ok(())
    }

    fn end_text(&mut self, field: TextField) -> Result<(), Malformed> {
        let text = String::from_utf8(mem::take(&mut self.text)).map_err(|_| Malformed::Utf8)?;
        match field {
            _ if !self.counts() => {}
            TextField::Name => self.merged.name = text,
            TextField::Signature => self.merged.signature = text,
            TextField::Label => self.merged.asked = Asked::Label(text.into()),
            TextField::Version if text.is_empty() => self.merged.asked = Asked::Latest,
            TextField::Version => self.merged.asked = Asked::Version(Version::parse(&text)),
        }
        Ok(())
    }

    fn end_message(&mut self) {
        self.settle(self.position);
        if let Pinned::Apart { decided, with_signature } = &self.pinned {
            let same = decided.same_model(&self.merged)
                && (!with_signature || decided.signature == self.merged.signature);
            self.contradicted |= !same;
        }
        self.state = PREFIX;
    }

    fn settle(&mut self, at: u64) {
        if self.progress == Progress::Reading {
            self.progress = Progress::Settled;
            if self.inflating.is_none() && self.frames.innermost.end < u64::MAX {
                self.settled_at = self.settled_at.or(Some(at));
            }
            if matches!(self.pinned, Pinned::No) {
                self.pinned = Pinned::Current;
            }
        }
    }
}
