//! HTTP/2 as far as the load needs it: frames that are made once, flow control, and no header is ever decoded.

use std::io::{self, Read as _, Write as _};

use anyhow::{Result, bail};
use mio::net::TcpStream;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a peer takes in one frame unless it says otherwise; Envoy does not.
pub const MOST_IN_FRAME: usize = 16_384;
const INITIAL_WINDOW_SIZE: u16 = 4;
/// What is allowed by default.
const DEFAULT_WINDOW: i64 = 65_535;
/// What this side allows for a stream, which is more than any message has.
const OWN_STREAM_WINDOW: u32 = 0x7fff_ffff;
/// What this side allows for a connection beyond the default, and again whenever so much has come.
const OWN_WINDOW: u32 = 1 << 30;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8], into: &mut Vec<u8>) {
    head(kind, flags, stream, payload.len(), into);
    into.extend_from_slice(payload);
}

pub fn head(kind: u8, flags: u8, stream: u32, length: usize, into: &mut Vec<u8>) {
    into.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
    into.extend_from_slice(&[kind, flags]);
    into.extend_from_slice(&stream.to_be_bytes());
}

/// What a peer said of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Headers { stream: u32, ends: bool },
    Data { stream: u32, length: usize, ends: bool },
    Window { stream: u32, more: i64 },
    Reset { stream: u32 },
}

/// What is to be sent, and how much of it the peer allows.
#[derive(Debug)]
pub struct Sender {
    pub out: Vec<u8>,
    written: usize,
    /// Bytes of DATA that the connection may carry.
    pub window: i64,
    /// Bytes of DATA that a new stream may carry; none is known before the peer's settings.
    pub stream_window: Option<i64>,
    came: usize,
}

impl Sender {
    /// Bytes that the socket has not taken yet.
    pub fn pending(&self) -> usize {
        self.out.len() - self.written
    }

    /// Answers what concerns the connection, and gives what concerns a stream.
    fn take(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        length: usize,
        payload: &[u8],
    ) -> Result<Option<Said>> {
        let ends = flags & END_STREAM != 0;
        let number = || {
            let bytes = payload.get(..4).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
            i64::from(u32::from_be_bytes(bytes))
        };
        Ok(match kind {
            DATA => {
                self.came += length;
                if OWN_WINDOW as usize / 2 < self.came {
                    frame(WINDOW_UPDATE, 0, 0, &(self.came as u32).to_be_bytes(), &mut self.out);
                    self.came = 0;
                }
                Some(Said::Data { stream, length, ends })
            }
            HEADERS => Some(Said::Headers { stream, ends }),
            RST_STREAM => Some(Said::Reset { stream }),
            WINDOW_UPDATE if stream == 0 => {
                self.window += number();
                Some(Said::Window { stream, more: number() })
            }
            WINDOW_UPDATE => Some(Said::Window { stream, more: number() }),
            SETTINGS if flags & ACK == 0 => {
                let mut window = DEFAULT_WINDOW;
                for setting in payload.chunks_exact(6) {
                    if u16::from_be_bytes([setting[0], setting[1]]) == INITIAL_WINDOW_SIZE {
                        let value = [setting[2], setting[3], setting[4], setting[5]];
                        window = i64::from(u32::from_be_bytes(value));
                    }
                }
                self.stream_window = Some(window);
                frame(SETTINGS, ACK, 0, &[], &mut self.out);
                None
            }
            PING if flags & ACK == 0 => {
                frame(PING, ACK, 0, payload, &mut self.out);
                None
            }
            GOAWAY => bail!("Envoy ends the connection: {}", payload.escape_ascii()),
            _ => None,
        })
    }
}

/// Takes bytes apart into frames. What DATA holds is counted and not kept.
#[derive(Debug, Default)]
struct Frames {
    head: [u8; 9],
    have: usize,
    left: usize,
    payload: Vec<u8>,
}

impl Frames {
    fn feed(
        &mut self,
        mut bytes: &[u8],
        mut take: impl FnMut(u8, u8, u32, usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        loop {
            if self.have < self.head.len() {
                let count = bytes.len().min(self.head.len() - self.have);
                self.head[self.have..self.have + count].copy_from_slice(&bytes[..count]);
                self.have += count;
                bytes = &bytes[count..];
                if self.have < self.head.len() {
                    return Ok(());
                }
                self.left = self.length();
                self.payload.clear();
            }
            let count = bytes.len().min(self.left);
            if self.head[3] != DATA {
                self.payload.extend_from_slice(&bytes[..count]);
            }
            self.left -= count;
            bytes = &bytes[count..];
            if 0 < self.left {
                return Ok(());
            }
            self.have = 0;
            let stream = u32::from_be_bytes([self.head[5], self.head[6], self.head[7], self.head[8]]);
            take(self.head[3], self.head[4], stream & 0x7fff_ffff, self.length(), &self.payload)?;
        }
    }

    fn length(&self) -> usize {
        usize::from(self.head[0]) << 16 | usize::from(self.head[1]) << 8 | usize::from(self.head[2])
    }
}

/// One connection.
#[derive(Debug)]
pub struct Link {
    pub stream: TcpStream,
    pub sender: Sender,
    frames: Frames,
    /// The bytes of the peer's preface that are still to come.
    preface: usize,
}

impl Link {
    pub fn caller(stream: TcpStream) -> Self {
        Self::new(stream, PREFACE, 0)
    }

    pub fn server(stream: TcpStream) -> Self {
        Self::new(stream, &[], PREFACE.len())
    }

    fn new(stream: TcpStream, hello: &[u8], preface: usize) -> Self {
        let mut out = hello.to_vec();
        let mut settings = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
        settings.extend(OWN_STREAM_WINDOW.to_be_bytes());
        frame(SETTINGS, 0, 0, &settings, &mut out);
        frame(WINDOW_UPDATE, 0, 0, &OWN_WINDOW.to_be_bytes(), &mut out);
        let sender = Sender { out, written: 0, window: DEFAULT_WINDOW, stream_window: None, came: 0 };
        Self { stream, sender, frames: Frames::default(), preface }
    }

    /// Reads what has come; `false` when the peer has closed.
    ///
    /// # Errors
    ///
    /// When the connection breaks.
    pub fn read(
        &mut self,
        buffer: &mut [u8],
        mut heard: impl FnMut(&mut Sender, Said) -> Result<()>,
    ) -> Result<bool> {
        loop {
            let count = match self.stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let skipped = count.min(self.preface);
            self.preface -= skipped;
            let sender = &mut self.sender;
            self.frames.feed(&buffer[skipped..count], |kind, flags, stream, length, payload| match sender
                .take(kind, flags, stream, length, payload)?
            {
                Some(said) => heard(sender, said),
                None => Ok(()),
            })?;
            // A short read has emptied the socket.
            if count < buffer.len() {
                return Ok(true);
            }
        }
    }

    /// Writes what the socket takes.
    ///
    /// # Errors
    ///
    /// When the connection breaks.
    pub fn flush(&mut self) -> io::Result<()> {
        let Self { stream, sender, .. } = self;
        while sender.written < sender.out.len() {
            match stream.write(&sender.out[sender.written..]) {
                Ok(count) => sender.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        sender.out.clear();
        sender.written = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_the_same_however_their_bytes_come() {
        let mut bytes = Vec::new();
        frame(HEADERS, END_HEADERS, 1, b"abc", &mut bytes);
        frame(DATA, 0, 1, &[7; 300], &mut bytes);
        frame(DATA, END_STREAM, 1, &[], &mut bytes);
        frame(PING, 0, 0, &[1; 8], &mut bytes);
        let expected = [
            (HEADERS, END_HEADERS, 1, 3, b"abc".to_vec()),
            (DATA, 0, 1, 300, vec![]),
            (DATA, END_STREAM, 1, 0, vec![]),
            (PING, 0, 0, 8, vec![1; 8]),
        ];
        for size in [1, 2, 9, 10, 100, 1000] {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for piece in bytes.chunks(size) {
                let take = |kind, flags, stream, length, payload: &[u8]| {
                    seen.push((kind, flags, stream, length, payload.to_vec()));
                    Ok(())
                };
                frames.feed(piece, take).unwrap();
            }
            assert_eq!(seen, expected, "{size} bytes at a time");
        }
    }
}
