//! How prost reads the identity of a message, and where it differs from libprotobuf.

use predictgate::identity::{Layout, ModelSpec};
use predictgate::units::{Asked, Version};
use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
struct Spec {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(oneof = "VersionChoice", tags = "2, 4")]
    version_choice: Option<VersionChoice>,
    #[prost(string, tag = "3")]
    signature_name: String,
}

#[derive(Clone, PartialEq, Oneof)]
enum VersionChoice {
    #[prost(message, tag = "2")]
    Version(Int64Value),
    #[prost(string, tag = "4")]
    VersionLabel(String),
}

#[derive(Clone, PartialEq, Message)]
struct Int64Value {
    #[prost(int64, tag = "1")]
    value: i64,
}

#[derive(Clone, PartialEq, Message)]
struct WithModelSpec {
    #[prost(message, optional, tag = "1")]
    model_spec: Option<Spec>,
}

#[derive(Clone, PartialEq, Message)]
struct WithTasks {
    #[prost(message, repeated, tag = "1")]
    tasks: Vec<WithModelSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct WithNameAndVersion {
    #[prost(string, tag = "1")]
    model_name: String,
    #[prost(string, tag = "2")]
    model_version: String,
}

/// Prost's reading; none where it rejects the message.
pub fn read(layout: Layout, bytes: &[u8]) -> Option<ModelSpec> {
    match layout {
        Layout::ModelSpec => WithModelSpec::decode(bytes).ok().map(|message| spec(message.model_spec)),
        Layout::FirstTask => {
            let tasks = WithTasks::decode(bytes).ok()?.tasks;
            Some(spec(tasks.into_iter().next().and_then(|task| task.model_spec)))
        }
        Layout::NameAndVersion => WithNameAndVersion::decode(bytes).ok().map(|message| {
            let asked = match message.model_version.as_str() {
                "" => Asked::Latest,
                version => Asked::Version(Version::parse(version)),
            };
            ModelSpec { name: message.model_name, asked, signature: String::new() }
        }),
    }
}

fn spec(spec: Option<Spec>) -> ModelSpec {
    let Spec { name, version_choice, signature_name } = spec.unwrap_or_default();
    let asked = match version_choice {
        None => Asked::Latest,
        Some(VersionChoice::Version(Int64Value { value })) => Asked::Version(Version::Number(value)),
        Some(VersionChoice::VersionLabel(label)) => Asked::Label(label.into()),
    };
    ModelSpec { name, asked, signature: signature_name }
}

/// Whether prost comes, before anything that both reject, to something that it reads differently:
///
/// * a tag or a length of more than 5 bytes, or a tag of more than 32 bits, and a varint of more than 64 bits;
/// * a known field of another wire type, which is an unknown field to libprotobuf;
/// * the hundredth level, at which prost skips no field any more.
pub fn differs_from_libprotobuf(layout: Layout, bytes: &[u8]) -> bool {
    let kind = match layout {
        Layout::ModelSpec => Kind::Task,
        Layout::FirstTask => Kind::Tasks,
        Layout::NameAndVersion => Kind::NameAndVersion,
    };
    matches!(message(kind, bytes, 0), Err(Stop::Differs))
}

enum Stop {
    Differs,
    BothReject,
}

#[derive(Clone, Copy)]
enum Kind {
    Tasks,
    Task,
    Spec,
    Int64Value,
    NameAndVersion,
    /// Inside of a group.
    Unknown,
}

#[derive(Clone, Copy, PartialEq)]
enum Known {
    Varint,
    Text,
    Message,
}

const DEEPEST: usize = 100;

fn message(kind: Kind, mut bytes: &[u8], depth: usize) -> Result<(), Stop> {
    while !bytes.is_empty() {
        let (number, wire_type) = tag(&mut bytes)?;
        if wire_type == 4 {
            // A known number is the wrong wire type to prost and a stray end to libprotobuf: both reject it.
            return Err(Stop::BothReject);
        }
        field(kind, number, wire_type, &mut bytes, depth)?;
    }
    Ok(())
}

/// Reads on to the end of the group `number`.
fn group(number: u64, bytes: &mut &[u8], depth: usize) -> Result<(), Stop> {
    loop {
        let (inner, wire_type) = tag(bytes)?;
        if wire_type == 4 {
            return if inner == number { Ok(()) } else { Err(Stop::BothReject) };
        }
        field(Kind::Unknown, inner, wire_type, bytes, depth)?;
    }
}

fn field(kind: Kind, number: u64, wire_type: u64, bytes: &mut &[u8], depth: usize) -> Result<(), Stop> {
    if depth >= DEEPEST {
        return Err(Stop::Differs);
    }
    let known = match (kind, number) {
        (Kind::Tasks | Kind::Task, 1) | (Kind::Spec, 2) => Some((Known::Message, 2)),
        (Kind::Spec, 1 | 3 | 4) | (Kind::NameAndVersion, 1 | 2) => Some((Known::Text, 2)),
        (Kind::Int64Value, 1) => Some((Known::Varint, 0)),
        _ => None,
    };
    if known.is_some_and(|(_, right)| right != wire_type) {
        return Err(Stop::Differs);
    }
    match wire_type {
        0 => match varint(bytes)? {
            // Ten bytes have room for six bits more than 64.
            (_, 10, last) if last > 1 => Err(Stop::Differs),
            _ => Ok(()),
        },
        1 => take(bytes, 8).map(drop),
        2 => {
            let (length, size, _) = varint(bytes)?;
            if size > 5 {
                return Err(Stop::Differs);
            }
            let content = take(bytes, usize::try_from(length).unwrap_or(usize::MAX))?;
            match (known, kind) {
                (Some((Known::Text, _)), _) if str::from_utf8(content).is_err() => Err(Stop::BothReject),
                (Some((Known::Message, _)), Kind::Tasks) => message(Kind::Task, content, depth + 1),
                (Some((Known::Message, _)), Kind::Task) => message(Kind::Spec, content, depth + 1),
                (Some((Known::Message, _)), _) => message(Kind::Int64Value, content, depth + 1),
                _ => Ok(()),
            }
        }
        3 => group(number, bytes, depth + 1),
        5 => take(bytes, 4).map(drop),
        _ => Err(Stop::BothReject),
    }
}

fn tag(bytes: &mut &[u8]) -> Result<(u64, u64), Stop> {
    let (tag, size, _) = varint(bytes)?;
    if size > 5 || tag > u64::from(u32::MAX) {
        return Err(Stop::Differs);
    }
    if tag >> 3 == 0 { Err(Stop::BothReject) } else { Ok((tag >> 3, tag & 7)) }
}

/// The value, how many bytes it took, and the last of them.
fn varint(bytes: &mut &[u8]) -> Result<(u64, usize, u8), Stop> {
    let mut value = 0_u64;
    for (place, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            *bytes = &bytes[place + 1..];
            return Ok((value, place + 1, byte));
        }
    }
    Err(Stop::BothReject)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Stop> {
    let (piece, rest) = bytes.split_at_checked(length).ok_or(Stop::BothReject)?;
    *bytes = rest;
    Ok(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_prost_reads_differently_is_left_out() {
        let differs = |bytes: &[u8]| differs_from_libprotobuf(Layout::ModelSpec, bytes);
        assert!(!differs(b"\x0a\x03\x0a\x01a\x12\x01b"));
        assert!(!differs(b"\x0a\x03\x0a\x01\xff"));
        assert!(!differs(b"\x13\x0b\x08\x01\x0c\x14"));
        assert!(differs(b"\x08\x01"));
        assert!(differs(b"\x8a\x80\x80\x80\x80\x00\x00"));
        assert!(differs(b"\x8a\x80\x80\x80\x10\x00"));
        assert!(differs(b"\x0a\x80\x80\x80\x80\x80\x00"));
        assert!(differs(b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"));
        assert!(!differs(b"\x07\x08\x01"), "both have rejected it before");
    }
}
