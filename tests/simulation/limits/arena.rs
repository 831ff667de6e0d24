//! Entries of the arena under claims, losses and reclaims at once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use predictgate::arena::{Arena, Failed, Owner, Then, Unclaimed};
use predictgate::store::{Conflict, MemStore, SharedStore, Version};

use crate::explore::{explore_part, first_broken};
use crate::scheduler::{Faults, Host, Life, simulate};

use super::law::RUNS;

const ENTRIES: u32 = 8;

/// More than entries, so that they are taken from each other.
const OWNERS: u64 = 12;

/// So short that entries are reclaimed all the time.
const DRAIN: Duration = Duration::from_micros(20);

type Broken = Rc<RefCell<Option<String>>>;

/// Looks after every write whether some owner has two entries.
struct Watching {
    store: MemStore,
    broken: Broken,
    /// Whether a claim counts as owning at once.
    hurries: bool,
}

impl SharedStore for Watching {
    fn load(&self, key: &str) -> (Option<Vec<u8>>, Version) {
        self.store.load(key)
    }

    fn store(&self, key: &str, value: &[u8], version: Version) -> Result<(), Conflict> {
        let mut value = value.to_vec();
        let state = value.len() - 17;
        if self.hurries && value[state] == 1 {
            value[state] = 2;
        }
        self.store.store(key, &value, version)?;
        let mut owners = BTreeMap::new();
        for entry in 0..ENTRIES {
            let Some(value) = self.store.load(&format!("pg1/watched/{entry}")).0 else { continue };
            // An entry ends with its state, of which 2 is "owned", and its owner and time.
            let (state, owner) = value[value.len() - 17..].split_first().expect("seventeen bytes");
            if *state == 2
                && let Some(other) = owners.insert(owner[..8].to_vec(), entry)
            {
                *self.broken.borrow_mut() = Some(format!("{other} and {entry} have the same owner"));
            }
        }
        Ok(())
    }
}

fn worker(host: &Host<'_>) {
    let arena = Arena::new("watched", ENTRIES, DRAIN);
    let mut places: BTreeMap<u64, _> = BTreeMap::new();
    for _ in 0..24 {
        if !host.is_newest() {
            break;
        }
        let number = (0..OWNERS).find(|_| host.one_in(4)).unwrap_or(0);
        let owner = Owner::of("watched", &[&number.to_le_bytes()]);
        if let Some(place) = places.get_mut(&number) {
            let update = arena.update(host, place, host.now(), |body| (Then::Write, assert_eq!(*body, [7])));
            if update == Err(Failed::Lost) {
                places.remove(&number);
            }
        } else {
            match arena.claim(host, host.now(), owner, &[7]) {
                Ok(place) => _ = places.insert(number, place),
                Err(Unclaimed::Full | Unclaimed::Contended) => host.pause(),
            }
        }
    }
}

fn law(seed: u64, hurries: bool) -> Result<(), String> {
    let broken = Broken::default();
    let store = Watching { store: MemStore::default(), broken: Rc::clone(&broken), hurries };
    let life: Life = Rc::new(worker);
    simulate(seed, [2, 4, 16][seed as usize % 3], Faults::ALL, Box::new(store), &life);
    let broken = broken.take();
    broken.map_or(Ok(()), Err)
}

#[test]
fn no_owner_ever_has_two_entries() {
    explore_part(RUNS, 5, |seed| law(seed, false));
}

#[test]
fn claims_in_one_step_are_caught() {
    assert_ne!(first_broken(|seed| law(seed, true)), None);
}
