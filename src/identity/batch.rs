//! How many examples a request carries: the leading dimension of its inputs, the largest where they differ.

use super::schema::Kind;

/// The sizes of a message's inputs, as far as they were read.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The leading dimensions of the inputs that are complete, by the name of the input: of two with one name, the
    /// last counts, as in any protobuf map.
    inputs: Vec<(String, Option<i64>)>,
    name: String,
    leading: Leading,
    examples: Option<(Kind, i64)>,
}

/// The leading dimension of the input that is read now.
#[derive(Clone, Copy, Debug, Default)]
enum Leading {
    /// No dimension has begun.
    #[default]
    None,
    /// The first one has begun, and its size is this so far.
    Open(i64),
    /// Another has begun.
    Known(i64),
}

/// The inputs whose names are kept apart; what comes after them counts whatever its name.
const MOST_INPUTS: usize = 64;

impl Batch {
    /// The largest leading dimension; none when no input has any. A client may write any number, negative ones too.
    // Asked for in many places, and there only where the sizes are read.
    #[inline(never)]
    pub fn size(&self) -> Option<i64> {
        let examples = self.examples.map(|(_, count)| count);
        self.inputs.iter().filter_map(|(_, size)| *size).chain(examples).max()
    }

    pub fn enter(&mut self, kind: Kind) {
        match kind {
            Kind::Input | Kind::InferInputTensor => {
                self.name.clear();
                self.leading = Leading::None;
            }
            Kind::Dim => {
                self.leading = match self.leading {
                    Leading::None => Leading::Open(0),
                    Leading::Open(size) | Leading::Known(size) => Leading::Known(size),
                }
            }
            // The lists are members of a oneof: the same one goes on, another one starts anew.
            Kind::ExampleList | Kind::ExampleListWithContext => match &self.examples {
                Some((list, _)) if *list == kind => {}
                _ => self.examples = Some((kind, 0)),
            },
            _ => {}
        }
    }

    pub fn leave(&mut self, kind: Kind) {
        let size = match self.leading {
            Leading::None => None,
            Leading::Open(size) | Leading::Known(size) => Some(size),
        };
        match kind {
            Kind::Dim => self.leading = size.map_or(Leading::None, Leading::Known),
            Kind::Input => {
                let same = self.inputs.iter_mut().find(|(name, _)| *name == self.name);
                match same {
                    Some((_, known)) => *known = size,
                    None => self.add(size),
                }
            }
            Kind::InferInputTensor => self.add(size),
            _ => {}
        }
    }

    pub fn name(&mut self, name: String) {
        self.name = name;
    }

    /// The size of a dimension, or a number of a shape.
    pub fn dimension(&mut self, kind: Kind, size: i64) {
        self.leading = match (self.leading, kind) {
            (Leading::Open(_), Kind::Dim) => Leading::Open(size),
            (Leading::None, Kind::InferInputTensor | Kind::PackedShape) => Leading::Known(size),
            (leading, _) => leading,
        };
    }

    pub fn example(&mut self) {
        if let Some((_, count)) = &mut self.examples {
            *count = count.saturating_add(1);
        }
    }

    fn add(&mut self, size: Option<i64>) {
        if self.inputs.len() < MOST_INPUTS {
            self.inputs.push((std::mem::take(&mut self.name), size));
        } else if let Some((_, last)) = self.inputs.last_mut() {
            *last = (*last).max(size);
        }
    }
}
