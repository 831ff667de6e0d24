//! Inflates a compressed message a piece at a time, in a window of 32 KB, for reading and not for keeping.
//!
//! Sources: RFC 1950 (zlib, which gRPC calls `deflate`), RFC 1951, RFC 1952 (gzip).

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

/// A message encoding of gRPC, by its name in `grpc-encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Gzip,
    Deflate,
}

impl Encoding {
    pub fn named(name: &[u8]) -> Option<Self> {
        match name {
            b"gzip" => Some(Self::Gzip),
            b"deflate" => Some(Self::Deflate),
            _ => None,
        }
    }
}

/// Why a message is not inflated to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is not what its encoding says.
    Corrupt,
    /// It grows beyond the limit, or beyond [`MAX_RATIO`].
    TooLarge,
}

/// How many bytes one compressed byte may become. Deflate itself can make 1,032 of one.
pub const MAX_RATIO: u64 = 1000;

/// One compressed message.
#[derive(Clone)]
pub struct Inflater {
    encoding: Encoding,
    stage: Stage,
    core: Box<DecompressorOxide>,
    window: Box<[u8]>,
    /// Where in the window the next byte goes.
    at: usize,
    written: u64,
    most: u64,
    crc: u32,
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater")
            .field("stage", &self.stage)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    GzipHeader(Part),
    Data,
    /// The checksum and the length behind a gzip stream, of which so many bytes were read.
    GzipTrailer {
        have: u8,
        trailer: u64,
    },
    Done,
}

/// Where in a gzip header the next byte stands. The flags of the optional parts that are still to come go along.
#[derive(Clone, Copy, Debug)]
enum Part {
    Fixed {
        have: u8,
        flags: u8,
    },
    ExtraLength {
        have: u8,
        length: u16,
        flags: u8,
    },
    Extra {
        left: u16,
        flags: u8,
    },
    /// The file's name or the comment, up to a zero byte.
    Text {
        flags: u8,
    },
    Checksum {
        left: u8,
    },
}

/// The flags of a gzip header.
mod flag {
    pub const CHECKSUM: u8 = 2;
    pub const EXTRA: u8 = 4;
    pub const NAME: u8 = 8;
    pub const COMMENT: u8 = 16;
    pub const RESERVED: u8 = 0xe0;
}

const WINDOW: usize = 32 * 1024;
const GZIP_TRAILER_BYTES: u8 = 8;

impl Inflater {
    /// A message of `length` compressed bytes; `most` bounds what comes out of them, and so does [`MAX_RATIO`].
    pub fn new(encoding: Encoding, length: u32, most: u64) -> Self {
        let stage = match encoding {
            Encoding::Gzip => Stage::GzipHeader(Part::Fixed { have: 0, flags: 0 }),
            Encoding::Deflate => Stage::Data,
        };
        Self {
            encoding,
            stage,
            core: Box::default(),
            window: vec![0; WINDOW].into_boxed_slice(),
            at: 0,
            written: 0,
            most: most.min(u64::from(length).saturating_mul(MAX_RATIO)),
            crc: 0,
        }
    }

    /// Inflates the next bytes of the message and shows what comes out, piece by piece.
    ///
    /// # Errors
    ///
    /// What is not a stream of the encoding, with nothing behind its end, or what grows too large.
    /// Also what `show` refuses.
    pub fn feed<E: From<Refused>>(
        &mut self,
        mut bytes: &[u8],
        mut show: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            if let Stage::Data = self.stage {
                let gone = self.inflate(bytes, &mut show)?;
                bytes = bytes.get(gone..).unwrap_or_default();
            } else if let Some((&byte, rest)) = bytes.split_first() {
                self.take(byte)?;
                bytes = rest;
            }
        }
        Ok(())
    }

    /// Whether the message has come to its end, as its encoding has it.
    pub const fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// Inflates until the input or the stream ends, and says how much of the input that took.
    #[inline(never)]
    fn inflate<E: From<Refused>>(
        &mut self,
        bytes: &[u8],
        show: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        let zlib = match self.encoding {
            Encoding::Gzip => 0,
            Encoding::Deflate => inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER,
        };
        let flags = zlib | inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
        let mut gone = 0_usize;
        loop {
            let input = bytes.get(gone..).unwrap_or_default();
            let (status, read, written) = decompress(&mut self.core, input, &mut self.window, self.at, flags);
            let end = self.at.saturating_add(written);
            let out = self.window.get(self.at..end).unwrap_or_default();
            if self.encoding == Encoding::Gzip {
                self.crc = crc32(self.crc, out);
            }
            self.at = end % WINDOW;
            gone = gone.saturating_add(read);
            // What fits is shown first, so that what comes of it never depends on how the message was cut.
            let room = usize::try_from(self.most.saturating_sub(self.written)).unwrap_or(usize::MAX);
            self.written = self.written.saturating_add(written as u64);
            let shown = out.get(..room).unwrap_or(out);
            if !shown.is_empty() {
                show(shown)?;
            }
            if shown.len() < out.len() {
                return Err(Refused::TooLarge.into());
            }
            match status {
                TINFLStatus::HasMoreOutput => {}
                TINFLStatus::NeedsMoreInput => return Ok(gone),
                TINFLStatus::Done => {
                    self.stage = match self.encoding {
                        Encoding::Gzip => Stage::GzipTrailer { have: 0, trailer: 0 },
                        Encoding::Deflate => Stage::Done,
                    };
                    return Ok(gone);
                }
                _ => return Err(Refused::Corrupt.into()),
            }
        }
    }

    /// Reads a byte of what is around the data.
    #[inline(never)]
    fn take(&mut self, byte: u8) -> Result<(), Refused> {
        self.stage = match self.stage {
            Stage::GzipHeader(part) => match part.after(byte)? {
                Some(part) => Stage::GzipHeader(part),
                None => Stage::Data,
            },
            Stage::GzipTrailer { have, trailer } => {
                let trailer =
                    trailer | u64::from(byte).checked_shl(u32::from(have).saturating_mul(8)).unwrap_or(0);
                let have = have.saturating_add(1);
                if have < GZIP_TRAILER_BYTES {
                    Stage::GzipTrailer { have, trailer }
                } else if trailer == u64::from(self.crc) | (self.written & 0xffff_ffff) << 32 {
                    Stage::Done
                } else {
                    return Err(Refused::Corrupt);
                }
            }
            // gRPC's own decompression refuses what stands behind the end (zlib_inflate in C-core).
            Stage::Data | Stage::Done => return Err(Refused::Corrupt),
        };
        Ok(())
    }
}

impl Part {
    /// The part that follows `byte`, or none when the header is over.
    fn after(self, byte: u8) -> Result<Option<Self>, Refused> {
        /// Magic, method, flags, time of change (4), extra flags, operating system.
        const FIXED_BYTES: u8 = 10;
        Ok(match self {
            Self::Fixed { have, flags } => {
                let flags = match (have, byte) {
                    (0, 0x1f) | (1, 0x8b) | (2, 8) | (4..FIXED_BYTES, _) => flags,
                    (3, flags) if flags & flag::RESERVED == 0 => flags,
                    _ => return Err(Refused::Corrupt),
                };
                let have = have.saturating_add(1);
                if have < FIXED_BYTES { Some(Self::Fixed { have, flags }) } else { Self::next(flags) }
            }
            Self::ExtraLength { have: 0, flags, .. } => {
                Some(Self::ExtraLength { have: 1, length: u16::from(byte), flags })
            }
            Self::ExtraLength { length, flags, .. } => match length | u16::from(byte) << 8 {
                0 => Self::next(flags & !flag::EXTRA),
                left => Some(Self::Extra { left, flags }),
            },
            Self::Extra { left, flags } => match left.saturating_sub(1) {
                0 => Self::next(flags & !flag::EXTRA),
                left => Some(Self::Extra { left, flags }),
            },
            Self::Text { flags } if byte != 0 => Some(Self::Text { flags }),
            Self::Text { flags } if flags & flag::NAME != 0 => Self::next(flags & !flag::NAME),
            Self::Text { flags } => Self::next(flags & !flag::COMMENT),
            Self::Checksum { left: 1 } => None,
            Self::Checksum { left } => Some(Self::Checksum { left: left.saturating_sub(1) }),
        })
    }

    /// The first of the optional parts that are still to come.
    const fn next(flags: u8) -> Option<Self> {
        if flags & flag::EXTRA != 0 {
            Some(Self::ExtraLength { have: 0, length: 0, flags })
        } else if flags & (flag::NAME | flag::COMMENT) != 0 {
            Some(Self::Text { flags })
        } else if flags & flag::CHECKSUM != 0 {
            Some(Self::Checksum { left: 2 })
        } else {
            None
        }
    }
}

/// The checksum of gzip (RFC 1952 section 8), continued.
fn crc32(crc: u32, bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        let place = (crc ^ u32::from(*byte)) & 0xff;
        CRC_TABLE.get(place as usize).copied().unwrap_or(0) ^ (crc >> 8)
    };
    !bytes.iter().fold(!crc, step)
}

static CRC_TABLE: [u32; 256] = crc_table();

#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "it runs when the library is compiled"
)]
const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut place = 0;
    let mut value = 0_u32;
    while place < 256 {
        let mut crc = value;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 0 { crc >> 1 } else { (crc >> 1) ^ 0xedb8_8320 };
            bit += 1;
        }
        table[place] = crc;
        place += 1;
        value += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use std::io::Write;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::GzBuilder::new()
            .filename("name")
            .comment("comment")
            .extra([1, 2, 3])
            .write(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn plain_gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn inflate(
        encoding: Encoding,
        bytes: &[u8],
        chunk: usize,
        most: u64,
    ) -> Result<(Vec<u8>, bool), Refused> {
        let mut inflater = Inflater::new(encoding, u32::try_from(bytes.len()).unwrap(), most);
        let mut out = Vec::new();
        for piece in bytes.chunks(chunk) {
            inflater.feed(piece, |piece| {
                out.extend_from_slice(piece);
                Ok::<_, Refused>(())
            })?;
        }
        Ok((out, inflater.is_done()))
    }

    /// Text that compresses, with long matches across the window.
    fn text() -> Vec<u8> {
        (0..200_000_u32).flat_map(|place| (place % 977).wrapping_mul(place % 251).to_le_bytes()).collect()
    }

    #[test]
    fn what_was_compressed_comes_out_at_any_split() {
        let text = text();
        for chunk in [1, 7, 4096, usize::MAX] {
            for (encoding, bytes) in [
                (Encoding::Gzip, gzip(&text)),
                (Encoding::Gzip, plain_gzip(&text)),
                (Encoding::Deflate, zlib(&text)),
            ] {
                let (out, done) = inflate(encoding, &bytes, chunk, u64::MAX).unwrap();
                assert!(out == text && done, "{encoding:?} in pieces of {chunk}");
            }
        }
    }

    #[test]
    fn a_checksum_that_is_wrong_is_corrupt() {
        let mut bytes = plain_gzip(b"hello");
        *bytes.iter_mut().nth_back(7).unwrap() ^= 1;
        assert_eq!(inflate(Encoding::Gzip, &bytes, 3, 100), Err(Refused::Corrupt));
        let mut bytes = zlib(b"hello");
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(inflate(Encoding::Deflate, &bytes, 3, 100), Err(Refused::Corrupt));
    }

    #[test]
    fn what_stands_behind_the_end_is_corrupt() {
        for (encoding, mut bytes) in [(Encoding::Gzip, plain_gzip(b"a")), (Encoding::Deflate, zlib(b"a"))] {
            bytes.push(0);
            assert_eq!(inflate(encoding, &bytes, usize::MAX, 100), Err(Refused::Corrupt));
        }
    }

    #[test]
    fn what_is_cut_short_is_not_done() {
        let bytes = plain_gzip(b"hello");
        for end in 0..bytes.len() {
            assert!(!inflate(Encoding::Gzip, &bytes[..end], 2, 100).unwrap().1, "cut at {end}");
        }
    }

    #[test]
    fn growth_is_bounded() {
        assert_eq!(inflate(Encoding::Gzip, &plain_gzip(&[1; 101]), 5, 100), Err(Refused::TooLarge));
        assert!(inflate(Encoding::Gzip, &plain_gzip(&[1; 100]), 5, 100).is_ok());
        let bomb = plain_gzip(&vec![0; 16 << 20]);
        assert_eq!(inflate(Encoding::Gzip, &bomb, 4096, u64::MAX), Err(Refused::TooLarge));
    }

    #[test]
    fn the_checksum_is_that_of_gzip() {
        assert_eq!(crc32(0, b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(crc32(0, b"1234"), b"56789"), 0xcbf4_3926);
    }
}
