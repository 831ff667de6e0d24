//! gRPC's length-prefixed messages: five bytes of prefix, then the message, perhaps compressed.

use std::io::Read;

use bytes::{BufMut, Bytes, BytesMut};
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use tonic::Code;

use crate::errors::{self, Failure};

/// Length of the prefix: a flag and a big-endian length.
pub const PREFIX: usize = 5;
/// Room that is taken at once for an announced message; a longer one grows as it comes.
const RESERVED: usize = 64 << 20;

/// A message with its prefix, as it goes on the wire.
pub fn frame(message: &[u8]) -> Bytes {
    framed(0, message)
}

/// A message compressed with gzip; the call's `grpc-encoding` must say so.
pub fn gzip_frame(message: &[u8]) -> Bytes {
    framed(1, &gzip(message))
}

/// What gzip makes of `bytes`.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    // Writing to a vector does not fail.
    let _ = std::io::Write::write_all(&mut encoder, bytes);
    encoder.finish().unwrap_or_default()
}

/// The bytes that gzip compressed, if they are.
pub fn gunzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut inflated = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut inflated)?;
    Ok(inflated)
}

fn framed(flag: u8, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.put_u8(flag);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

/// Takes the chunks of a body and makes the first message of them.
///
/// What follows the first message is dropped, as a unary method of a gRPC C-core server never asks for it.
#[derive(Debug, Default)]
pub struct Collector {
    prefix: [u8; PREFIX],
    prefix_bytes: usize,
    message: BytesMut,
    /// A message that came in one chunk, uncopied.
    whole: Option<Bytes>,
    hash: Option<Sha256>,
}

/// The first message of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected {
    pub compressed: bool,
    pub bytes: Bytes,
    pub sha256: Option<[u8; 32]>,
}

impl Collector {
    pub fn new(hashes: bool) -> Self {
        Self { hash: hashes.then(Sha256::new), ..Self::default() }
    }

    fn length(&self) -> usize {
        let [_, a, b, c, d] = self.prefix;
        u32::from_be_bytes([a, b, c, d]) as usize
    }

    fn missing(&self) -> usize {
        if self.whole.is_some() { 0 } else { self.length() - self.message.len() }
    }

    pub fn push(&mut self, mut chunk: Bytes) {
        if self.prefix_bytes < PREFIX {
            let taken = chunk.split_to(chunk.len().min(PREFIX - self.prefix_bytes));
            self.prefix[self.prefix_bytes..self.prefix_bytes + taken.len()].copy_from_slice(&taken);
            self.prefix_bytes += taken.len();
            if self.prefix_bytes < PREFIX {
                return;
            }
            if self.length() <= chunk.len() {
                chunk.truncate(self.length());
                self.hash(&chunk);
                self.whole = Some(chunk);
                return;
            }
            self.message.reserve(self.length().min(RESERVED));
        }
        chunk.truncate(self.missing());
        self.hash(&chunk);
        self.message.extend_from_slice(&chunk);
    }

    fn hash(&mut self, chunk: &[u8]) {
        if let Some(hash) = &mut self.hash {
            hash.update(chunk);
        }
    }

    /// The message, if it came whole.
    pub fn finish(self) -> Option<Collected> {
        if self.prefix_bytes < PREFIX || 0 < self.missing() {
            return None;
        }
        Some(Collected {
            compressed: self.prefix[0] != 0,
            bytes: self.whole.unwrap_or_else(|| self.message.freeze()),
            sha256: self.hash.map(|hash| hash.finalize().into()),
        })
    }
}

impl Collected {
    /// The message itself, inflated if its flag says so; `encoding` is the call's `grpc-encoding`.
    pub fn inflate(self, encoding: Option<&[u8]>) -> Result<Bytes, Failure> {
        // The flag decides, not the header: a small message may be left as it is.
        if !self.compressed {
            return Ok(self.bytes);
        }
        let mut inflated = Vec::new();
        let read = match encoding.unwrap_or(b"identity") {
            b"gzip" => GzDecoder::new(self.bytes.as_ref()).read_to_end(&mut inflated),
            b"deflate" => ZlibDecoder::new(self.bytes.as_ref()).read_to_end(&mut inflated),
            b"identity" => return Err(errors::undecodable()),
            other => {
                let other = String::from_utf8_lossy(other);
                let message = format!("Compression algorithm '{other}' is unknown.");
                return Err(Failure::new(Code::Unimplemented, message));
            }
        };
        read.map_err(|_| errors::undecodable())?;
        Ok(inflated.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"some bytes of a message";

    fn collect(body: &[u8], chunk: usize) -> Option<Collected> {
        let mut collector = Collector::new(true);
        body.chunks(chunk).for_each(|chunk| collector.push(Bytes::copy_from_slice(chunk)));
        collector.finish()
    }

    #[test]
    fn a_message_comes_whole_however_it_is_cut() {
        let body = frame(MESSAGE);
        let hash: [u8; 32] = Sha256::digest(MESSAGE).into();
        for chunk in 1..=body.len() {
            let collected = collect(&body, chunk).unwrap();
            assert_eq!(collected.sha256, Some(hash), "cut at {chunk}");
            assert_eq!(collected.inflate(None).unwrap(), MESSAGE, "cut at {chunk}");
        }
    }

    #[test]
    fn what_is_cut_short_is_no_message() {
        let body = frame(MESSAGE);
        for end in 0..body.len() {
            assert_eq!(collect(&body[..end], 3), None, "ends at {end}");
        }
    }

    #[test]
    fn what_follows_the_first_message_is_dropped() {
        let body = [frame(MESSAGE), frame(b"another")].concat();
        for chunk in 1..=body.len() {
            assert_eq!(collect(&body, chunk).unwrap().bytes, MESSAGE, "cut at {chunk}");
        }
    }

    #[test]
    fn the_flag_decides_whether_a_message_is_inflated() {
        let compressed = collect(&gzip_frame(MESSAGE), 7).unwrap();
        assert_eq!(compressed.clone().inflate(Some(b"gzip")).unwrap(), MESSAGE);
        assert_eq!(compressed.clone().inflate(None), Err(errors::undecodable()));
        assert_eq!(compressed.inflate(Some(b"br")).unwrap_err().code, Code::Unimplemented);
        assert_eq!(collect(&frame(MESSAGE), 7).unwrap().inflate(Some(b"gzip")).unwrap(), MESSAGE);
    }
}
