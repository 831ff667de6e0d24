//! Many unary gRPC calls at little cost to the machine, so that what is measured is Envoy.
//!
//! A request is two frames that are made once and of which only the stream's number is new; of an answer only the
//! framing is read. So a call costs its caller a microsecond or two, where an HTTP/2 library takes a hundred.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, bail};
use model_server::framing;

use crate::wait::DEADLINE;

/// The headers and the message of a call.
#[derive(Clone, Debug)]
pub struct Request {
    headers: Vec<u8>,
    body: Vec<u8>,
}

impl Request {
    /// A call of `path` with these headers and this message.
    pub fn new(path: &str, headers: &[(&str, &str)], message: &[u8]) -> Self {
        let pseudo = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "models"),
            (":path", path),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        let mut block = Vec::new();
        for (name, value) in pseudo.iter().chain(headers) {
            // A literal without indexing and with a new name (RFC 7541, section 6.2.2).
            block.push(0);
            for text in [name, value] {
                integer(text.len(), &mut block);
                block.extend(text.as_bytes());
            }
        }
        Self { headers: block, body: framing::frame(message).to_vec() }
    }
}

/// An HPACK integer with a prefix of seven bits (RFC 7541, section 5.1).
fn integer(mut number: usize, into: &mut Vec<u8>) {
    if number < 127 {
        into.push(number as u8);
        return;
    }
    into.push(127);
    number -= 127;
    while 127 < number {
        into.push(number as u8 | 128);
        number >>= 7;
    }
    into.push(number as u8);
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The number of the call among those of its connection, from 0.
    pub call: usize,
    /// A message came; a refusal has none.
    pub has_message: bool,
}

/// One HTTP/2 connection. It blocks its thread.
pub struct Connection {
    stream: TcpStream,
    calls: usize,
    to_send: Vec<u8>,
    received: Vec<u8>,
    /// The streams of which a message has come.
    answered: Vec<u32>,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// More than all answers of a connection have bytes.
const WINDOW: u32 = 1 << 30;

impl Connection {
    /// # Errors
    ///
    /// When nobody listens there.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let mut stream =
            TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let mut hello = PREFACE.to_vec();
        frame(SETTINGS, 0, 0, &[], &mut hello);
        frame(WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes(), &mut hello);
        stream.write_all(&hello)?;
        Ok(Self { stream, calls: 0, to_send: Vec::new(), received: Vec::new(), answered: Vec::new() })
    }

    /// Begins a call, which is sent with the next [`Connection::wait`], and gives its number.
    pub fn call(&mut self, request: &Request) -> usize {
        let call = self.calls;
        self.calls += 1;
        let id = (2 * call + 1) as u32;
        frame(HEADERS, END_HEADERS, id, &request.headers, &mut self.to_send);
        frame(DATA, END_STREAM, id, &request.body, &mut self.to_send);
        call
    }

    /// Sends what was begun and waits until calls have ended, at least one.
    ///
    /// # Errors
    ///
    /// When the connection breaks, or nothing comes within the deadline.
    pub fn wait(&mut self) -> Result<Vec<Answer>> {
        let mut ended = Vec::new();
        let mut bytes = [0; 64 * 1024];
        while ended.is_empty() {
            self.stream.write_all(&self.to_send).context("the connection takes no more")?;
            self.to_send.clear();
            let read = match self.stream.read(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.context("no answer")?,
            };
            if read == 0 {
                bail!("Envoy has closed the connection");
            }
            self.received.extend_from_slice(&bytes[..read]);
            self.read_frames(&mut ended)?;
        }
        Ok(ended)
    }

    fn read_frames(&mut self, ended: &mut Vec<Answer>) -> Result<()> {
        let received = std::mem::take(&mut self.received);
        let mut rest = &received[..];
        while let Some((head, tail)) = rest.split_at_checked(9) {
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let Some((payload, tail)) = tail.split_at_checked(length) else { break };
            rest = tail;
            let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            self.take_frame(head[3], head[4], id, payload, ended)?;
        }
        self.received = rest.to_vec();
        Ok(())
    }

    fn take_frame(
        &mut self,
        kind: u8,
        flags: u8,
        id: u32,
        payload: &[u8],
        ended: &mut Vec<Answer>,
    ) -> Result<()> {
        match kind {
            SETTINGS if flags & ACK == 0 => frame(SETTINGS, ACK, 0, &[], &mut self.to_send),
            PING if flags & ACK == 0 => frame(PING, ACK, 0, payload, &mut self.to_send),
            GOAWAY => bail!("Envoy ends the connection: {}", payload.escape_ascii()),
            DATA if !payload.is_empty() => self.answered.push(id),
            _ => (),
        }
        let ends = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 || kind == RST_STREAM;
        if ends {
            let has_message = self.answered.contains(&id);
            self.answered.retain(|it| *it != id);
            ended.push(Answer { call: (id as usize - 1) / 2, has_message });
        }
        Ok(())
    }
}

fn frame(kind: u8, flags: u8, id: u32, payload: &[u8], into: &mut Vec<u8>) {
    into.extend(&(payload.len() as u32).to_be_bytes()[1..]);
    into.extend([kind, flags]);
    into.extend(id.to_be_bytes());
    into.extend(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_form_of_the_rfc() {
        let encoded = |number| {
            let mut bytes = Vec::new();
            integer(number, &mut bytes);
            bytes
        };
        assert_eq!(encoded(126), [126]);
        assert_eq!(encoded(127), [127, 0]);
        // Of RFC 7541, C.1.2, with two bits more of prefix.
        assert_eq!(encoded(1337), [127, 0xba, 9]);
    }
}
