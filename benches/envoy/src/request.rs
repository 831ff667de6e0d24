//! A `Predict` that is made once; only what is drawn at random is put in anew for each call.

use crate::wire;

/// Headers of every call that HPACK keeps in its table, as a real client's does (RFC 7541, section 6.2.1).
const INDEXED: [(&str, &str); 5] = [
    (":path", "/tensorflow.serving.PredictionService/Predict"),
    (":authority", "models"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
    ("user-agent", "grpc-c++/1.80.0"),
];
/// `:method: POST` and `:scheme: http` of HPACK's static table.
const STATIC: [u8; 2] = [0x83, 0x86];
/// The place in HPACK's table of the entry that was added last.
const NEWEST: u8 = 62;

/// A number in decimal digits, different in each call.
#[derive(Clone, Copy, Debug)]
struct Draw {
    at: usize,
    digits: usize,
    among: u32,
}

#[derive(Clone, Debug)]
pub struct Request {
    /// Goes without HPACK's table, since values differ.
    own: Vec<u8>,
    body: Vec<u8>,
    header_draws: Vec<Draw>,
    body_draw: Option<Draw>,
}

/// What stands for a number that is drawn.
fn digits(among: u32) -> String {
    "0".repeat(among.saturating_sub(1).max(1).ilog10() as usize + 1)
}

/// A name that ends in a number, as requests have it.
pub fn numbered(prefix: &str, number: u32, among: u32) -> String {
    format!("{prefix}{number:0width$}", width = digits(among).len())
}

impl Request {
    /// A message of `size` bytes with its frame, whose model is `model`.
    pub fn predict(model: &str, size: usize) -> Self {
        let body = body(model, size);
        Self { own: Vec::new(), body, header_draws: Vec::new(), body_draw: None }
    }

    /// A message whose model is `prefix` and a number, drawn from so many.
    pub fn predict_any(prefix: &str, among: u32, size: usize) -> Self {
        let digits = digits(among).len();
        let model = numbered(prefix, 0, among);
        let body = body(&model, size);
        let at = body.windows(model.len()).position(|bytes| bytes == model.as_bytes()).unwrap_or(0);
        let body_draw = Some(Draw { at: at + prefix.len(), digits, among });
        Self { own: Vec::new(), body, header_draws: Vec::new(), body_draw }
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.own.push(0);
        literal(name, &mut self.own);
        literal(value, &mut self.own);
        self
    }

    /// A header whose value is `prefix` and a number, drawn from so many.
    #[must_use]
    pub fn header_any(mut self, name: &str, prefix: &str, among: u32) -> Self {
        self = self.header(name, &numbered(prefix, 0, among));
        let digits = digits(among).len();
        self.header_draws.push(Draw { at: self.own.len() - digits, digits, among });
        self
    }

    pub fn len(&self) -> usize {
        self.body.len()
    }

    /// Begins a call; `number` gives a number below another.
    pub fn begin(&self, stream: u32, number: &mut impl FnMut(u32) -> u32, into: &mut Vec<u8>) -> u32 {
        let start = into.len();
        wire::head(wire::HEADERS, wire::END_HEADERS, stream, 0, into);
        let head = into.len();
        into.extend(STATIC);
        if stream == 1 {
            for (name, value) in INDEXED {
                into.push(0x40);
                literal(name, into);
                literal(value, into);
            }
        } else {
            into.extend((0..INDEXED.len() as u8).rev().map(|age| 0x80 | (NEWEST + age)));
        }
        let own = into.len();
        into.extend_from_slice(&self.own);
        for draw in &self.header_draws {
            write(number(draw.among), &mut into[own + draw.at..][..draw.digits]);
        }
        let length = (into.len() - head) as u32;
        into[start..start + 3].copy_from_slice(&length.to_be_bytes()[1..]);
        self.body_draw.map_or(0, |draw| number(draw.among))
    }

    /// Sends `length` bytes of the body from `from` on; `drawn` is what [`Request::begin`] gave.
    pub fn send(&self, stream: u32, from: usize, length: usize, drawn: u32, into: &mut Vec<u8>) {
        let ends = if from + length == self.body.len() { wire::END_STREAM } else { 0 };
        wire::frame(wire::DATA, ends, stream, &self.body[from..from + length], into);
        if let Some(draw) = self.body_draw
            && from == 0
        {
            let body = into.len() - length;
            write(drawn, &mut into[body + draw.at..][..draw.digits]);
        }
    }
}

fn write(mut number: u32, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// A text as HPACK has it (RFC 7541, section 5.2), for fewer than 127 bytes.
fn literal(text: &str, into: &mut Vec<u8>) {
    assert!(text.len() < 127, "{text} is too long");
    into.push(text.len() as u8);
    into.extend_from_slice(text.as_bytes());
}

/// The gRPC frame and a `PredictRequest`, `size` bytes together: `model_spec` first, then a tensor.
fn body(model: &str, size: usize) -> Vec<u8> {
    let spec = field(1, &[field(1, model.as_bytes()), field(3, b"serving_default")].concat());
    let with = |content: usize| {
        let tensor: Vec<u8> = (0..content).map(|place| (place % 251) as u8).collect();
        let tensor = [vec![8, 1], field(4, &tensor)].concat();
        let message = [&*spec, &field(2, &[field(1, b"x"), field(2, &tensor)].concat())].concat();
        let mut framed = vec![0];
        framed.extend((message.len() as u32).to_be_bytes());
        framed.extend(message);
        framed
    };
    // The lengths of lengths depend on the size, so what is too much is taken off.
    let over = with(size).len() - size;
    with(size - over)
}

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut length = content.len();
    while 127 < length {
        bytes.push(length as u8 | 128);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(content);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_size_within_the_bytes_of_a_length() {
        for size in [1024, 65_536, 1 << 20, 4 << 20] {
            let length = Request::predict("resnet", size).len();
            assert!(size - 4 <= length && length <= size, "{length}");
        }
    }

    #[test]
    fn numbers_are_drawn_anew_for_each_call() {
        let request = Request::predict_any("m-", 100, 200).header_any("x-tenant", "t-", 1000);
        let mut numbers = [7, 42].into_iter();
        let mut out = Vec::new();
        let drawn = request.begin(3, &mut |_| numbers.next().unwrap(), &mut out);
        request.send(3, 0, request.len(), drawn, &mut out);
        let has = |text: &[u8]| out.windows(text.len()).any(|bytes| bytes == text);
        assert!(has(b"t-007") && has(b"m-42"));
    }
}
