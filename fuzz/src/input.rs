//! Takes choices off the front of an input; what is left is content.

pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// The next byte; 0 where there is none.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((&byte, rest)) => {
                self.0 = rest;
                byte
            }
            None => 0,
        }
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()]
    }

    /// The next bytes, as many as the byte before them says.
    pub fn piece(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (piece, rest) = self.0.split_at(length);
        self.0 = rest;
        piece
    }

    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// The lengths of pieces into which content is cut, drawn from one byte.
pub struct Cuts(u8);

impl Cuts {
    pub const fn new(seed: u8) -> Self {
        Self(seed)
    }

    /// From 1 to `left`.
    pub fn next(&mut self, left: usize) -> usize {
        self.0 = self.0.wrapping_mul(5).wrapping_add(1);
        let most = if self.0 & 0x80 == 0 { 4 } else { 64 };
        usize::from(self.0 >> 2) % most.min(left).max(1) + 1
    }

    /// All of `content` in pieces.
    pub fn cut(mut self, mut content: &[u8]) -> Vec<&[u8]> {
        let mut pieces = Vec::new();
        while !content.is_empty() {
            let (piece, rest) = content.split_at(self.next(content.len()));
            pieces.push(piece);
            content = rest;
        }
        pieces
    }
}

/// A gRPC message that is not compressed.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), message].concat()
}
