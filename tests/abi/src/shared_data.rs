//! Shared data of one `vm_id`, with the compare-and-swap of proxy-wasm-cpp-host's `shared_data.cc`.

use std::collections::{BTreeMap, VecDeque};

use crate::call::Status;

#[derive(Debug, Default)]
pub(crate) struct SharedData {
    entries: BTreeMap<Vec<u8>, (Vec<u8>, u32)>,
    last_token: u32,
    /// Writes that a rival is still to win.
    pub conflicts: u32,
}

impl SharedData {
    pub fn get(&self, key: &[u8]) -> Result<(&[u8], u32), Status> {
        self.entries.get(key).map(|(value, token)| (value.as_slice(), *token)).ok_or(Status::NotFound)
    }

    /// Token 0 overwrites whatever is there. Another one must be that of the entry, and is not looked at
    /// when there is no entry, so that one which was never issued creates and never overwrites.
    pub fn set(&mut self, key: &[u8], value: &[u8], token: u32) -> Result<(), Status> {
        if token != 0 && self.conflicts > 0 {
            self.conflicts -= 1;
            self.touch(key);
            return Err(Status::CasMismatch);
        }
        if let Some((_, current)) = self.entries.get(key)
            && token != 0
            && token != *current
        {
            return Err(Status::CasMismatch);
        }
        let token = self.next_token();
        self.entries.insert(key.to_vec(), (value.to_vec(), token));
        Ok(())
    }

    /// Writes as another worker would, so that a token read before no longer holds.
    fn touch(&mut self, key: &[u8]) {
        let token = self.next_token();
        if let Some(entry) = self.entries.get_mut(key) {
            entry.1 = token;
        }
    }

    fn next_token(&mut self) -> u32 {
        self.last_token = self.last_token.wrapping_add(1).max(1);
        self.last_token
    }

    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.keys().map(Vec::as_slice)
    }
}

/// Shared queues; a wake-up is due for the root that registered last.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    tokens: BTreeMap<Vec<u8>, u32>,
    items: BTreeMap<u32, VecDeque<Vec<u8>>>,
}

impl Queues {
    pub fn register(&mut self, name: &[u8]) -> u32 {
        let next = u32::try_from(self.tokens.len()).expect("fewer than 4 billion queues") + 1;
        let token = *self.tokens.entry(name.to_vec()).or_insert(next);
        self.items.entry(token).or_default();
        token
    }

    pub fn resolve(&self, name: &[u8]) -> Result<u32, Status> {
        self.tokens.get(name).copied().ok_or(Status::NotFound)
    }

    pub fn enqueue(&mut self, token: u32, value: &[u8]) -> Result<(), Status> {
        self.items.get_mut(&token).ok_or(Status::NotFound)?.push_back(value.to_vec());
        Ok(())
    }

    pub fn dequeue(&mut self, token: u32) -> Result<Vec<u8>, Status> {
        self.items.get_mut(&token).ok_or(Status::NotFound)?.pop_front().ok_or(Status::Empty)
    }
}
