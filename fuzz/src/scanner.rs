//! The identity scanner: the same at every split, and as prost reads it where prost reads as libprotobuf does.

use predictgate::identity::{
    Compression, Encoding, Layout, Malformed, ModelSpec, Progress, Rpc, Scanner, Unreadable, Until,
};

use crate::input::{Cuts, Input, framed};
use crate::prost_reading;

/// What a scanner shows when a body has ended.
#[derive(Debug, PartialEq)]
struct Reading {
    progress: Progress,
    merged: ModelSpec,
    decided: ModelSpec,
    contradicted: bool,
    splice_point: Option<(Layout, usize)>,
    ended: Result<(), Malformed>,
}

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let layout = input.pick(&[Layout::ModelSpec, Layout::FirstTask, Layout::NameAndVersion]);
    let options = input.byte();
    let rpc = if options & 1 == 0 { Rpc::Unary } else { Rpc::Streaming };
    let max_text = if options & 2 == 0 { u32::MAX } else { 4 };
    let compression = match options >> 2 & 3 {
        0 => Compression::Unread(Unreadable::Compressed),
        kind => Compression::Inflated {
            encoding: if kind == 2 { Encoding::Deflate } else { Encoding::Gzip },
            most: 4096,
            until: if kind == 3 { Until::Identity } else { Until::End },
        },
    };
    let plain = options & 0x10 == 0;
    let seed = input.byte();
    let content = input.rest();
    let body = if plain { framed(content) } else { content.to_vec() };

    let scanner = || Scanner::new(layout, rpc, max_text).with_compression(compression);
    let whole = whole(scanner(), &body);
    assert_eq!(pieces(scanner(), &body, seed), whole, "fed in pieces");
    assert_eq!(followed(scanner(), &body, seed), whole, "followed in pieces");
    if plain && max_text == u32::MAX {
        agrees_with_prost(layout, content, whole);
    }
}

fn whole(mut scanner: Scanner, body: &[u8]) -> Result<Reading, Malformed> {
    scanner.feed(body)?;
    Ok(reading(&scanner))
}

fn pieces(mut scanner: Scanner, body: &[u8], seed: u8) -> Result<Reading, Malformed> {
    for piece in Cuts::new(seed).cut(body) {
        scanner.feed(piece)?;
    }
    Ok(reading(&scanner))
}

fn followed(mut scanner: Scanner, body: &[u8], seed: u8) -> Result<Reading, Malformed> {
    let mut windows = Cuts::new(seed ^ 0x55);
    for piece in Cuts::new(seed).cut(body) {
        scanner
            .follow(piece.len(), |at, most| piece.get(at..at + windows.next(most.min(piece.len() - at))))?;
    }
    Ok(reading(&scanner))
}

fn reading(scanner: &Scanner) -> Reading {
    Reading {
        progress: scanner.progress(),
        merged: scanner.merged().clone(),
        decided: scanner.spec().clone(),
        contradicted: scanner.contradicted(),
        splice_point: scanner.splice_point(),
        ended: scanner.end(),
    }
}

fn agrees_with_prost(layout: Layout, message: &[u8], found: Result<Reading, Malformed>) {
    if prost_reading::differs_from_libprotobuf(layout, message) {
        return;
    }
    let expected = prost_reading::read(layout, message);
    let found = found.and_then(|reading| reading.ended.map(|()| reading.merged)).ok();
    assert_eq!(found, expected, "prost reads {expected:?}");
}
