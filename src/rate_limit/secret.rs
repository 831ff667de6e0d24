//! The key of the hash that assigns keys to slots: one for all workers of a process, and unknown to callers.

use std::time::Duration;

use crate::arena::{Arena, Failed, Owner, Place, Unclaimed};
use crate::siphash::siphash;
use crate::store::SharedStore;
use crate::units::Instant;

/// How long a worker goes on alone before it asks again.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Who has the same fingerprints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    AllWorkers,
    /// The arena is full.
    ThisWorker,
    /// Others were faster too often. The next try may succeed.
    Unsettled,
}

#[derive(Clone, Debug)]
pub struct Secret {
    /// What this worker proposes, and uses when it is alone.
    own: u128,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Unknown,
    Known { place: Place, key: u128 },
    Alone { retry_at: Instant },
}

impl Secret {
    pub fn new(random: u128) -> Self {
        Self { own: random, state: State::Unknown }
    }

    /// The fingerprint of `key`, which is not zero.
    pub fn fingerprint(
        &mut self,
        arena: &Arena,
        store: &dyn SharedStore,
        now: Instant,
        key: &[u8],
    ) -> (u64, Reach) {
        self.learn(arena, store, now);
        let (secret, reach) = match self.state {
            State::Known { key, .. } => (key, Reach::AllWorkers),
            State::Alone { .. } => (self.own, Reach::ThisWorker),
            State::Unknown => (self.own, Reach::Unsettled),
        };
        (siphash(secret, key).max(1), reach)
    }

    fn learn(&mut self, arena: &Arena, store: &dyn SharedStore, now: Instant) {
        match self.state {
            State::Known { .. } => return,
            State::Alone { retry_at } if now < retry_at => return,
            State::Unknown | State::Alone { .. } => (),
        }
        let owner = Owner::of("limit secret", &[]);
        self.state = match arena.claim(store, now, owner, &self.own.to_le_bytes()) {
            Err(Unclaimed::Full) => State::Alone { retry_at: now.after(RETRY_AFTER) },
            Err(Unclaimed::Contended) => State::Unknown,
            Ok(mut place) => {
                let key = arena
                    .read(store, &mut place, |body| body.first_chunk().map(|key| u128::from_le_bytes(*key)));
                match key {
                    Ok(Some(key)) => State::Known { place, key },
                    Ok(None) | Err(_) => State::Unknown,
                }
            }
        };
    }

    /// Keeps the entry from being taken by others.
    pub fn touch(&mut self, arena: &Arena, store: &dyn SharedStore, now: Instant) {
        if let State::Known { place, .. } = &mut self.state
            && arena.touch(store, place, now) == Err(Failed::Lost)
        {
            self.state = State::Unknown;
        }
    }
}
