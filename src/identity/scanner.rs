//! The wire scanner: gRPC framing, compression, and which identity of a call counts.

use super::inflate::{Encoding, Inflater, Refused};
use super::message::{Message, Stop, UNKNOWN_LENGTH};
use super::{Layout, Malformed, ModelSpec, Progress, Rpc, Sizes, Unreadable};

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
    rpc: Rpc,
    compression: Compression,
    state: State,
    /// The current message, or the last one, or the first before it has begun.
    message: Message,
    begun: Begun,
    /// What was decided on before the current message: by the headers, or by a stream's first message.
    decided: Option<Decided>,
    rewritten: bool,
    contradicted: bool,
    unreadable: Option<Unreadable>,
    /// The examples in the messages before the current one.
    examples_before: u64,
    bytes: u64,
    message_bytes: u64,
}

/// Which of a call's messages is the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    None,
    First,
    /// Not the first, so that the identity that counts is known.
    Later,
}

#[derive(Clone, Debug)]
enum State {
    /// The 5 bytes before a message: the compression flag and the length.
    Prefix {
        have: u8,
        flag: u8,
        length: u32,
    },
    Message,
    Compressed(Box<Inflating>),
    /// What cannot be read, to the end of the body.
    Opaque,
}

#[derive(Clone, Debug)]
struct Inflating {
    inflater: Inflater,
    /// How many of its compressed bytes are still to come.
    left: u32,
}

#[derive(Clone, Debug)]
enum Decided {
    /// Headers say nothing of a signature.
    ByHeaders(ModelSpec),
    ByFirstMessage(ModelSpec),
}

/// Why inflating stopped.
enum Inflated {
    /// The identity is known, and no more is asked for.
    Enough,
    Stopped(Stop),
    Refused(Refused),
}

impl From<Refused> for Inflated {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// The compression flag and the length.
const PREFIX_BYTES: usize = 5;
const PREFIX: State = State::Prefix { have: 0, flag: 0, length: 0 };

impl Scanner {
    /// `max_text` bounds a name, label or signature, in bytes. Compressed messages are unreadable.
    pub const fn new(layout: Layout, rpc: Rpc, max_text: u32) -> Self {
        Self {
            rpc,
            compression: Compression::Unread(Unreadable::Encoding),
            state: PREFIX,
            message: Message::new(layout, max_text),
            begun: Begun::None,
            decided: None,
            rewritten: false,
            contradicted: false,
            unreadable: None,
            examples_before: 0,
            bytes: 0,
            message_bytes: 0,
        }
    }

    #[must_use]
    pub fn with_compression(self, compression: Compression) -> Self {
        Self { compression, ..self }
    }

    /// Which sizes to read on the way; without it none are.
    #[must_use]
    pub fn with_sizes(mut self, sizes: Sizes) -> Self {
        self.message.read_sizes(sizes);
        self
    }

    /// The size of the current message's batch, as far as it was read: the leading dimension of its inputs, the
    /// largest where they differ.
    pub fn batch(&self) -> Option<i64> {
        self.message.batch()
    }

    /// The examples in all messages so far. A message that is not known to have more counts as one.
    pub fn examples(&self) -> u64 {
        match self.begun {
            Begun::None => 0,
            Begun::First | Begun::Later => self.examples_before.saturating_add(examples(&self.message)),
        }
    }

    /// The examples and the bytes of the current message.
    pub fn sizes(&self) -> (u64, u64) {
        (examples(&self.message), self.message_bytes)
    }

    /// The bytes of all messages that have begun, compressed where they are.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn progress(&self) -> Progress {
        if let Some(why) = self.unreadable {
            return Progress::Unreadable(why);
        }
        if self.begun == Begun::Later || self.message.has_settled() {
            Progress::Settled
        } else {
            Progress::Reading
        }
    }

    /// The identity that counts: the headers', a stream's first message's, or else the one that settled first.
    ///
    /// So what is decided never depends on how the body was cut into pieces.
    pub fn spec(&self) -> &ModelSpec {
        match &self.decided {
            Some(Decided::ByHeaders(spec) | Decided::ByFirstMessage(spec)) => spec,
            None => self.message.spec(),
        }
    }

    /// The identity of the current message, merged so far as libprotobuf merges it.
    pub const fn merged(&self) -> &ModelSpec {
        self.message.merged()
    }

    /// Takes what the headers said for the identity that counts.
    pub fn pin_to(&mut self, decided: ModelSpec) {
        self.decided = Some(Decided::ByHeaders(decided));
    }

    /// Where a field that names another identity takes effect, in bytes behind the prefix of the message, if it can.
    pub fn splice_point(&self) -> Option<(Layout, usize)> {
        let plain = matches!(self.state, State::Message | State::Prefix { .. });
        let possible = plain && self.rpc == Rpc::Unary && self.message.layout() != Layout::FirstTask;
        let at = self.message.settled_at().filter(|_| possible && !self.message.is_inflated())?;
        Some((self.message.layout(), usize::try_from(at).ok()?))
    }

    /// The identity was rewritten, so that a later field that names one, even the same, would undo it: it contradicts.
    pub fn rewritten(&mut self) {
        self.rewritten = true;
        self.watch();
    }

    /// Whether a message has ended with another identity than the one that counts.
    pub const fn contradicted(&self) -> bool {
        self.contradicted
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
            let window = match &self.state {
                State::Opaque => return Ok(()),
                State::Compressed(_) => COMPRESSED_WINDOW,
                State::Prefix { .. } | State::Message => WINDOW,
            };
            let skipped = self.skip(left)?;
            if skipped > 0 {
                at = at.saturating_add(skipped);
                continue;
            }
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

    /// Leaves `length` bytes behind if nothing but content is among them and more of it follows.
    pub const fn skip_content(&mut self, length: usize) -> bool {
        matches!(self.state, State::Message) && self.message.skip_within(length as u64)
    }

    /// Leaves at most `most` bytes of content behind, and says how many.
    fn skip(&mut self, most: usize) -> Result<usize, Malformed> {
        if !matches!(self.state, State::Message) {
            return Ok(0);
        }
        let skip = usize::try_from(self.message.skippable()).unwrap_or(usize::MAX).min(most);
        if skip > 0 {
            self.message.advance(skip)?;
            self.watch();
        }
        Ok(skip)
    }

    /// Reads the next bytes of the body.
    ///
    /// # Errors
    ///
    /// The first thing that the server would refuse.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Malformed> {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Prefix { have, flag, length } => self.read_prefix(have, flag, length, bytes)?,
                State::Message => self.read_message(bytes)?,
                State::Compressed(_) => self.read_compressed(bytes)?,
                State::Opaque => return Ok(()),
            };
        }
        Ok(())
    }

    /// The body has ended.
    ///
    /// # Errors
    ///
    /// When it ended inside a message.
    pub const fn end(&self) -> Result<(), Malformed> {
        match self.state {
            State::Prefix { have: 0, .. } | State::Opaque => Ok(()),
            _ => Err(Malformed::Truncated),
        }
    }

    /// Reads the prefix of a message, of which `have` bytes were read, and gives what follows it.
    fn read_prefix<'a>(
        &mut self,
        mut have: u8,
        mut flag: u8,
        mut length: u32,
        bytes: &'a [u8],
    ) -> Result<&'a [u8], Malformed> {
        if have == 0
            && let Some((&[first, ref of_length @ ..], rest)) = bytes.split_first_chunk::<PREFIX_BYTES>()
        {
            self.check_flag(first)?;
            self.begin_message(first, u32::from_be_bytes(*of_length))?;
            return Ok(rest);
        }
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            if have == 0 {
                self.check_flag(byte)?;
                flag = byte;
            } else {
                length = (length << 8) | u32::from(byte);
            }
            have = have.saturating_add(1);
            if have > 4 {
                self.begin_message(flag, length)?;
                return Ok(rest);
            }
        }
        self.state = State::Prefix { have, flag, length };
        Ok(rest)
    }

    const fn check_flag(&self, flag: u8) -> Result<(), Malformed> {
        if !matches!(self.begun, Begun::None) && matches!(self.rpc, Rpc::Unary) {
            Err(Malformed::SecondMessage)
        } else if flag > 1 {
            Err(Malformed::Flag)
        } else {
            Ok(())
        }
    }

    fn begin_message(&mut self, flag: u8, length: u32) -> Result<(), Malformed> {
        self.message_bytes = u64::from(length);
        self.bytes = self.bytes.saturating_add(self.message_bytes);
        if flag == 0 {
            self.follow_last();
            self.state = State::Message;
            self.message.begin(u64::from(length))?;
            self.watch();
            return Ok(());
        }
        match self.compression {
            Compression::Unread(unreadable) => self.give_up(unreadable),
            // No compressed stream is empty.
            Compression::Inflated { .. } if length == 0 => self.give_up(Unreadable::Corrupt),
            Compression::Inflated { encoding, most, .. } => {
                self.follow_last();
                self.message.begin(UNKNOWN_LENGTH)?;
                let inflater = Inflater::new(encoding, length, most);
                self.state = State::Compressed(Box::new(Inflating { inflater, left: length }));
            }
        }
        Ok(())
    }

    /// Makes place for a message behind the last one, if there was any.
    fn follow_last(&mut self) {
        self.begun = match self.begun {
            Begun::None => Begun::First,
            Begun::First | Begun::Later => {
                self.leave_last();
                Begun::Later
            }
        };
    }

    fn leave_last(&mut self) {
        self.examples_before = self.examples_before.saturating_add(examples(&self.message));
        let before = self.message.restart();
        self.decided.get_or_insert(Decided::ByFirstMessage(before));
    }

    fn read_message<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Malformed> {
        match self.message.read(bytes, false) {
            Ok(rest) => {
                self.watch();
                Ok(rest)
            }
            Err(Stop::Malformed(malformed)) => Err(malformed),
            Err(Stop::TooLong) => {
                self.give_up(Unreadable::TooLong);
                Ok(&[])
            }
        }
    }

    /// Reads the next bytes of a compressed message, and gives what follows the message.
    #[inline(never)]
    fn read_compressed<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Malformed> {
        let State::Compressed(inflating) = &mut self.state else {
            return Ok(&[]);
        };
        let message = &mut self.message;
        let length = usize::try_from(inflating.left).unwrap_or(usize::MAX).min(bytes.len());
        let (part, rest) = bytes.split_at_checked(length).unwrap_or((bytes, &[]));
        inflating.left = inflating.left.saturating_sub(u32::try_from(length).unwrap_or(u32::MAX));
        let to_identity = matches!(self.compression, Compression::Inflated { until: Until::Identity, .. });
        let fed = inflating.inflater.feed(part, |plain| {
            message.read(plain, to_identity).map_err(Inflated::Stopped)?;
            if to_identity && message.has_settled() { Err(Inflated::Enough) } else { Ok(()) }
        });
        match fed {
            Err(Inflated::Enough) => self.state = State::Opaque,
            Err(Inflated::Stopped(Stop::Malformed(malformed))) => return Err(malformed),
            Err(Inflated::Stopped(Stop::TooLong)) => self.give_up(Unreadable::TooLong),
            Err(Inflated::Refused(Refused::TooLarge)) => self.give_up(Unreadable::TooLarge),
            Ok(()) if inflating.left > 0 => {}
            Ok(()) if inflating.inflater.is_done() => {
                message.end()?;
                self.state = State::Message;
            }
            Ok(()) | Err(Inflated::Refused(Refused::Corrupt)) => self.give_up(Unreadable::Corrupt),
        }
        self.watch();
        Ok(rest)
    }

    /// Looks whether the message has ended, and whether it contradicts what counts.
    fn watch(&mut self) {
        if self.rewritten && self.message.named_again() {
            self.contradicted = true;
        }
        if self.message.is_over() && matches!(self.state, State::Message) {
            self.contradicted |= !self.agrees();
            self.state = PREFIX;
        }
    }

    /// Whether the message that has ended names what counts.
    fn agrees(&self) -> bool {
        let merged = self.message.merged();
        match &self.decided {
            Some(Decided::ByHeaders(spec)) => spec.same_model(merged),
            Some(Decided::ByFirstMessage(spec)) => spec == merged,
            None => !self.message.named_again() || self.message.spec() == merged,
        }
    }

    /// Reads nothing more.
    fn give_up(&mut self, unreadable: Unreadable) {
        self.unreadable = Some(unreadable);
        self.state = State::Opaque;
    }
}

/// A client may write any size, zero and negative ones too.
fn examples(message: &Message) -> u64 {
    message.batch().and_then(|batch| u64::try_from(batch).ok()).unwrap_or(1).max(1)
}
