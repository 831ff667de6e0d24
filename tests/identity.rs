//! Request bodies of real and hostile clients, read at every split.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test may stop where it stands"
)]

use flate2::write::GzEncoder;
use predictgate::call::{Call, Kind};
use predictgate::headers::Headers;
use predictgate::identity::{
    Compression, Encoding, Layout, Malformed, ModelSpec, Progress, Rpc, Scanner, Sizes, Unreadable, Until,
};
use predictgate::rng::Rng;
use predictgate::units::{Asked, Version};
use proptest::prelude::*;
use serde::Deserialize;
use std::io::Write;
use std::num::NonZeroU64;

#[derive(Deserialize)]
struct Cases {
    case: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    path: String,
    #[serde(default)]
    malformed: bool,
    #[serde(default)]
    model: String,
    version: Option<String>,
    label: Option<String>,
    #[serde(default)]
    signature: String,
    batch: Option<i64>,
    body: String,
}

const GZIP: Compression =
    Compression::Inflated { encoding: Encoding::Gzip, most: 1 << 20, until: Until::End };

#[derive(Debug, PartialEq)]
enum Reading {
    Malformed,
    Unreadable(Unreadable),
    /// The identity and the batch.
    Spec(ModelSpec, Option<i64>),
}

impl Case {
    fn expected(&self) -> Reading {
        if self.malformed {
            return Reading::Malformed;
        }
        let asked = match (&self.version, &self.label) {
            (Some(version), _) => Asked::Version(Version::parse(version)),
            (None, Some(label)) => Asked::Label(label.as_str().into()),
            (None, None) => Asked::Latest,
        };
        let spec = ModelSpec { name: self.model.clone(), asked, signature: self.signature.clone() };
        Reading::Spec(spec, self.batch)
    }

    fn scanner(&self) -> Scanner {
        let headers = [(":path", self.path.as_str()), ("content-type", "application/grpc")];
        match Call::read(&Headers::from_pairs(&headers)).kind {
            Kind::Grpc { method, layout, rpc } => {
                Scanner::new(layout, rpc, 65_536).with_compression(GZIP).with_sizes(Sizes::of(method))
            }
            other => panic!("{}: {other:?}", self.name),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        (0..self.body.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&self.body[at..at + 2], 16).unwrap())
            .collect()
    }
}

fn cases() -> Vec<Case> {
    toml::from_str::<Cases>(include_str!("cases/identity.toml")).unwrap().case
}

fn read<'a>(mut scanner: Scanner, pieces: impl IntoIterator<Item = &'a [u8]>) -> Reading {
    for piece in pieces {
        if scanner.feed(piece).is_err() {
            return Reading::Malformed;
        }
    }
    match (scanner.end(), scanner.progress()) {
        (Err(_), _) => Reading::Malformed,
        (_, Progress::Unreadable(why)) => Reading::Unreadable(why),
        _ => Reading::Spec(scanner.merged().clone(), scanner.batch()),
    }
}

#[test]
fn every_case_reads_the_same_whole_and_a_byte_at_a_time() {
    let cases = cases();
    assert!(cases.len() > 70);
    for case in cases {
        let bytes = case.bytes();
        assert_eq!(read(case.scanner(), [&bytes[..]]), case.expected(), "{} whole", case.name);
        assert_eq!(read(case.scanner(), bytes.chunks(1)), case.expected(), "{} by bytes", case.name);
        for at in 0..bytes.len() {
            let (head, tail) = bytes.split_at(at);
            assert_eq!(read(case.scanner(), [head, tail]), case.expected(), "{} cut at {at}", case.name);
        }
        let mut rng = Rng::seeded(1);
        for _ in 0..1000 {
            let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
            while let Some(most) = NonZeroU64::new(rest.len() as u64) {
                let (piece, after) = rest.split_at(1 + rng.below(most) as usize);
                pieces.push(piece);
                rest = after;
            }
            let lengths: Vec<_> = pieces.iter().map(|piece| piece.len()).collect();
            assert_eq!(read(case.scanner(), pieces), case.expected(), "{} cut to {lengths:?}", case.name);
        }
    }
}

#[test]
fn following_reads_what_feeding_reads() {
    for case in cases() {
        let bytes = case.bytes();
        for chunk in [1, 7, 64, 4096] {
            let mut scanner = case.scanner();
            let mut outcome = Ok(());
            for piece in bytes.chunks(chunk) {
                let window = |at: usize, most: usize| Some(&piece[at..piece.len().min(at + most)]);
                outcome = outcome.and_then(|()| scanner.follow(piece.len(), window));
            }
            let reading = match outcome.and_then(|()| scanner.end()) {
                Err(_) => Reading::Malformed,
                Ok(()) => Reading::Spec(scanner.merged().clone(), scanner.batch()),
            };
            assert_eq!(reading, case.expected(), "{} in pieces of {chunk}", case.name);
        }
    }
}

/// A `PredictRequest` in a gRPC frame: the given fields, each with its tag and length.
fn message(fields: &[(u8, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (number, content) in fields {
        body.push(number << 3 | 2);
        let mut length = content.len();
        while length > 127 {
            body.push((length & 127) as u8 | 128);
            length >>= 7;
        }
        body.push(length as u8);
        body.extend_from_slice(content);
    }
    let mut framed = vec![0];
    framed.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    framed.extend(body);
    framed
}

const RESNET: &[u8] = b"\x0a\x06resnet";
const BERT: &[u8] = b"\x0a\x04bert";

#[test]
fn a_stream_stays_settled_while_later_messages_are_read() {
    let message = message(&[(1, b"a"), (3, b"id")]);
    let mut scanner = Scanner::new(Layout::NameAndVersion, Rpc::Streaming, 64);
    scanner.feed(&message).unwrap();
    for (place, byte) in message.iter().enumerate() {
        scanner.feed(&[*byte]).unwrap();
        assert_eq!(scanner.progress(), Progress::Settled, "after byte {place} of the second message");
    }
}

#[test]
fn a_tensor_is_never_asked_for() {
    let tensor = vec![7; 4 << 20];
    let bytes = message(&[(1, RESNET), (2, &tensor), (3, b"y")]);
    let mut scanner = Scanner::new(Layout::ModelSpec, Rpc::Unary, 64);
    let mut asked = 0;
    for chunk in bytes.chunks(16_384) {
        scanner
            .follow(chunk.len(), |at, most| {
                let window = &chunk[at..chunk.len().min(at + most)];
                asked += window.len();
                Some(window)
            })
            .unwrap();
    }
    assert_eq!(scanner.spec().name, "resnet");
    assert_eq!(scanner.end(), Ok(()));
    assert!(asked <= 2 * 256, "{asked} bytes were read of {}", bytes.len());
}

fn contradicted(bytes: &[u8], chunk: usize, layout: Layout, rpc: Rpc) -> bool {
    let mut scanner = Scanner::new(layout, rpc, 64);
    for piece in bytes.chunks(chunk) {
        scanner.feed(piece).unwrap();
    }
    scanner.contradicted()
}

#[test]
fn a_later_model_spec_that_changes_the_identity_contradicts() {
    let tensor = [0; 300];
    let check = |fields: &[(u8, &[u8])], expected| {
        let bytes = message(fields);
        for chunk in [1, 3, 16, 4096] {
            assert_eq!(
                contradicted(&bytes, chunk, Layout::ModelSpec, Rpc::Unary),
                expected,
                "in pieces of {chunk}"
            );
        }
    };
    check(&[(1, RESNET), (2, &tensor)], false);
    check(&[(1, RESNET), (2, &tensor), (1, RESNET)], false);
    check(&[(1, RESNET), (2, &tensor), (1, BERT)], true);
    check(&[(1, RESNET), (2, &tensor), (1, BERT), (1, RESNET)], false);
    check(&[(1, RESNET), (2, &tensor), (1, b"\x12\x00")], true);
    check(&[(1, RESNET), (2, &tensor), (1, b"\x1a\x01s")], true);
}

/// The message of a frame, compressed by gzip.
fn gzip(frame: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&frame[5..]).unwrap();
    let message = encoder.finish().unwrap();
    [&[1][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat()
}

fn compressed(until: Until) -> Scanner {
    let compression = Compression::Inflated { encoding: Encoding::Gzip, most: 1 << 23, until };
    Scanner::new(Layout::ModelSpec, Rpc::Unary, 64).with_compression(compression)
}

#[test]
fn a_contradiction_inside_a_compressed_message_is_seen_unless_reading_stops_at_the_identity() {
    let tensor: Vec<u8> =
        (0..30_000_u32).flat_map(|place| place.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let frame = gzip(&message(&[(1, RESNET), (2, &tensor), (1, BERT)]));
    for (until, expected) in [(Until::End, true), (Until::Identity, false)] {
        for chunk in [1, 1000, usize::MAX] {
            let mut scanner = compressed(until);
            frame.chunks(chunk).for_each(|piece| scanner.feed(piece).unwrap());
            assert_eq!(scanner.end(), Ok(()));
            assert_eq!(scanner.spec().name, "resnet");
            assert_eq!(scanner.contradicted(), expected, "{until:?}, in pieces of {chunk}");
        }
    }
}

#[test]
fn a_compressed_message_has_no_place_for_a_splice() {
    let whole = message(&[(1, RESNET), (2, &[7; 100])]);
    let mut plain = compressed(Until::End);
    plain.feed(&whole).unwrap();
    assert!(plain.splice_point().is_some());
    for until in [Until::End, Until::Identity] {
        for chunk in [1, 20, usize::MAX] {
            let mut scanner = compressed(until);
            for piece in gzip(&whole).chunks(chunk) {
                scanner.feed(piece).unwrap();
                assert_eq!(scanner.splice_point(), None, "in pieces of {chunk}");
            }
            assert_eq!(scanner.progress(), Progress::Settled);
        }
    }
}

#[test]
fn a_compressed_message_that_ends_inside_a_field_is_malformed() {
    let whole = message(&[(1, RESNET), (2, &[7; 100])]);
    for end in 6..whole.len() {
        let mut scanner = compressed(Until::End);
        let complete = end == 15;
        assert_eq!(scanner.feed(&gzip(&whole[..end])).is_ok(), complete, "cut at {end}");
    }
}

#[test]
fn what_is_not_what_its_encoding_says_is_unreadable() {
    let mut scanner = compressed(Until::End);
    scanner.feed(&[1, 0, 0, 0, 3, 0x1f, 0x8b, 9]).unwrap();
    assert_eq!(scanner.progress(), Progress::Unreadable(Unreadable::Corrupt));
    let mut scanner = compressed(Until::End);
    scanner.feed(&gzip(&message(&[(1, RESNET)]))[..20]).unwrap();
    assert_eq!(scanner.end(), Err(Malformed::Truncated));
}

#[test]
fn a_model_spec_behind_40_kb_of_tensors_is_read_with_its_batch() {
    let tensor = [&[8, 1, 18, 5, 18, 3, 8, 0x90, 0x4e, 34, 0xc0, 0xb8, 2][..], &vec![7; 40_000]].concat();
    let input = message(&[(1, b"x"), (2, &tensor)]).split_off(5);
    let bytes = message(&[(2, &input), (1, RESNET)]);
    for chunk in [1, 1000, usize::MAX] {
        let mut scanner = Scanner::new(Layout::ModelSpec, Rpc::Unary, 64).with_sizes(Sizes::OfTensors);
        bytes.chunks(chunk).for_each(|piece| scanner.feed(piece).unwrap());
        assert_eq!(scanner.end(), Ok(()));
        assert_eq!((scanner.spec().name.as_str(), scanner.batch()), ("resnet", Some(10_000)));
    }
}

#[test]
fn every_message_of_a_stream_must_name_the_same_model() {
    let stream =
        |names: &[&[u8]]| names.iter().flat_map(|name| message(&[(1, name), (3, b"id")])).collect::<Vec<_>>();
    assert!(!contradicted(&stream(&[b"a", b"a", b"a"]), 5, Layout::NameAndVersion, Rpc::Streaming));
    assert!(contradicted(&stream(&[b"a", b"a", b"b"]), 5, Layout::NameAndVersion, Rpc::Streaming));
    assert!(contradicted(&stream(&[b"a", b""]), 5, Layout::NameAndVersion, Rpc::Streaming));
}

#[test]
fn the_headers_identity_is_held_against_the_body_without_the_signature() {
    let bytes = message(&[(1, b"\x0a\x06resnet\x1a\x01s")]);
    for (name, expected) in [("resnet", false), ("bert", true)] {
        let mut scanner = Scanner::new(Layout::ModelSpec, Rpc::Unary, 64);
        scanner.pin_to(ModelSpec { name: name.to_owned(), ..ModelSpec::default() });
        scanner.feed(&bytes).unwrap();
        assert_eq!(scanner.contradicted(), expected, "{name}");
    }
}

#[test]
fn a_name_above_the_limit_is_not_held() {
    let mut scanner = Scanner::new(Layout::ModelSpec, Rpc::Unary, 5);
    scanner.feed(&message(&[(1, RESNET)])).unwrap();
    assert_eq!(scanner.progress(), Progress::Unreadable(Unreadable::TooLong));
}

proptest! {
    #[test]
    fn any_bytes_read_the_same_at_any_split(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..80),
            prop::collection::vec(prop::sample::select(vec![0, 1, 2, 8, 10, 11, 12, 18, 26, 34, 0x80]), 0..60)
                .prop_map(|body| [&[0, 0, 0, 0, body.len() as u8], &body[..]].concat()),
        ],
        chunk in 1_usize..9,
        layout in prop::sample::select(vec![Layout::ModelSpec, Layout::FirstTask, Layout::NameAndVersion]),
        rpc in prop::sample::select(vec![Rpc::Unary, Rpc::Streaming]),
    ) {
        let scanner = || Scanner::new(layout, rpc, 32);
        prop_assert_eq!(read(scanner(), bytes.chunks(chunk)), read(scanner(), [&bytes[..]]));
    }
}
