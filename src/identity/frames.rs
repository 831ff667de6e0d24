//! Where in a message the reading stands: the known messages around it, and the unknown groups inside them.

use super::Malformed;
use super::schema::Kind;

#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub kind: Kind,
    /// The position behind its last byte.
    pub end: u64,
}

/// At most five known messages are nested, as in root, input, tensor, shape and dimension; groups nest as deep as
/// libprotobuf lets them.
#[derive(Clone, Debug)]
pub struct Frames {
    pub innermost: Frame,
    around: [Frame; 4],
    depth: u8,
    /// The field numbers of the unknown groups inside the innermost frame.
    groups: Vec<u32>,
}

/// libprotobuf's default recursion limit, of messages and groups together.
const MAX_DEPTH: usize = 100;

impl Frames {
    pub const fn of_message(end: u64) -> Self {
        let root = Frame { kind: Kind::Root, end };
        Self { innermost: root, around: [root; 4], depth: 0, groups: Vec::new() }
    }

    pub const fn at_root(&self) -> bool {
        self.depth == 0
    }

    pub const fn in_group(&self) -> bool {
        !self.groups.is_empty()
    }

    pub fn enter(&mut self, frame: Frame) -> Result<(), Malformed> {
        *self.around.get_mut(usize::from(self.depth)).ok_or(Malformed::Wire)? = self.innermost;
        self.innermost = frame;
        self.depth = self.depth.saturating_add(1);
        Ok(())
    }

    pub fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        if let Some(&outer) = self.around.get(usize::from(self.depth)) {
            self.innermost = outer;
        }
    }

    pub fn enter_group(&mut self, number: u32) -> Result<(), Malformed> {
        self.groups.push(number);
        let depth = self.groups.len().saturating_add(usize::from(self.depth));
        if depth > MAX_DEPTH { Err(Malformed::Wire) } else { Ok(()) }
    }

    pub fn leave_group(&mut self, number: u32) -> Result<(), Malformed> {
        if self.groups.pop() == Some(number) { Ok(()) } else { Err(Malformed::Wire) }
    }
}
