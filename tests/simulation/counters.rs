//! Counters that each worker keeps for itself and merges by compare-and-swap.

use std::cell::Cell;
use std::rc::Rc;

use predictgate::store::{Conflict, MemStore, Next, SharedStore, Version, update};

use crate::broken_stores::Overwriting;
use crate::explore::{explore, first_broken};
use crate::scheduler::{Faults, Host, Life, simulate};

const KEY: &str = "counter";
const EVENTS: usize = 12;

/// What really happened, kept outside the simulated process.
#[derive(Debug, Default)]
struct Ledger {
    counted: Cell<u64>,
    acknowledged: Cell<u64>,
    /// Counted by workers that died before they knew it merged.
    unmerged_at_death: Cell<u64>,
}

fn add(cell: &Cell<u64>, more: u64) {
    cell.set(cell.get() + more);
}

/// A worker's own part. It goes with the worker, and the ledger learns how much that was.
struct Unmerged {
    count: u64,
    ledger: Rc<Ledger>,
}

impl Drop for Unmerged {
    fn drop(&mut self) {
        add(&self.ledger.unmerged_at_death, self.count);
    }
}

impl Unmerged {
    fn count(&mut self) {
        self.count += 1;
        add(&self.ledger.counted, 1);
    }

    fn merge(&mut self, store: &impl SharedStore) {
        let part = self.count;
        let merged = update(store, KEY, |old| (Next::Write((read(old) + part).to_le_bytes().to_vec()), ()));
        // After too many conflicts it stays, and the next merge takes it along.
        if merged.is_ok() {
            self.count -= part;
            add(&self.ledger.acknowledged, part);
        }
    }
}

fn read(value: Option<&[u8]>) -> u64 {
    value.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}

/// Counts, merges now and then, and merges the rest in the end; a root that is no longer the newest gets
/// no more events.
fn worker(host: &Host<'_>, ledger: &Rc<Ledger>) {
    let mut unmerged = Unmerged { count: 0, ledger: Rc::clone(ledger) };
    for _ in 0..EVENTS {
        if !host.is_newest() {
            break;
        }
        unmerged.count();
        if host.one_in(3) {
            unmerged.merge(host);
        } else {
            host.pause();
        }
    }
    while unmerged.count > 0 {
        unmerged.merge(host);
    }
}

/// Runs the workers on `store` and returns the ledger with what the store has in the end.
fn play(seed: u64, workers: usize, faults: Faults, store: impl SharedStore + 'static) -> (Rc<Ledger>, u64) {
    let (ledger, store) = (Rc::new(Ledger::default()), Rc::new(store));
    let life: Life = {
        let ledger = Rc::clone(&ledger);
        Rc::new(move |host| worker(host, &ledger))
    };
    simulate(seed, workers, faults, Box::new(Shared(Rc::clone(&store))), &life);
    let total = read(store.load(KEY).0.as_deref());
    (ledger, total)
}

struct Shared<S>(Rc<S>);

impl<S: SharedStore> SharedStore for Shared<S> {
    fn load(&self, key: &str) -> (Option<Vec<u8>>, Version) {
        self.0.load(key)
    }

    fn store(&self, key: &str, value: &[u8], version: Version) -> Result<(), Conflict> {
        self.0.store(key, value, version)
    }
}

/// What was acknowledged is there, what died unmerged is all that may be missing, and nothing counts twice.
fn law(ledger: &Ledger, total: u64) -> Result<(), String> {
    let (counted, acknowledged) = (ledger.counted.get(), ledger.acknowledged.get());
    let at_most_missing = ledger.unmerged_at_death.get();
    if total < acknowledged || total + at_most_missing < counted || counted < total {
        return Err(format!("the store has {total}, and the workers say {ledger:?}"));
    }
    Ok(())
}

#[track_caller]
fn check(workers: usize) {
    explore(|seed| {
        let (ledger, total) = play(seed, workers, Faults::ALL, MemStore::default());
        law(&ledger, total)
    });
}

#[test]
fn one_worker_loses_only_what_it_had_not_merged_when_it_died() {
    check(1);
}

#[test]
fn two_workers_lose_nothing_that_was_acknowledged() {
    check(2);
}

#[test]
fn four_workers_lose_nothing_that_was_acknowledged() {
    check(4);
}

#[test]
fn sixteen_workers_lose_nothing_that_was_acknowledged() {
    check(16);
}

#[test]
fn without_deaths_every_event_is_in_the_store_in_the_end() {
    explore(|seed| {
        let faults = Faults { death: None, ..Faults::ALL };
        let (ledger, total) = play(seed, 4, faults, MemStore::default());
        let counted = ledger.counted.get();
        if total == counted { Ok(()) } else { Err(format!("the store has {total} of {counted}")) }
    });
}

#[test]
fn a_seed_plays_the_same_run_again() {
    explore(|seed| {
        let [one, other] = [(); 2].map(|()| {
            let (ledger, total) = play(seed, 4, Faults::ALL, MemStore::default());
            format!("{ledger:?}, {total}")
        });
        if one == other { Ok(()) } else { Err(format!("{one} is not {other}")) }
    });
}

#[test]
fn the_law_catches_a_store_that_overwrites_where_it_should_create() {
    let broken = first_broken(|seed| {
        let (ledger, total) = play(seed, 2, Faults::ALL, Overwriting::default());
        law(&ledger, total)
    });
    assert_ne!(broken, None);
}

#[test]
fn the_faults_that_the_law_is_checked_under_do_happen() {
    let (mut lost, mut unaware) = (0, 0);
    for seed in 0..100 {
        let (ledger, total) = play(seed, 4, Faults::ALL, MemStore::default());
        lost += u64::from(total < ledger.counted.get());
        unaware += u64::from(ledger.acknowledged.get() < total);
    }
    assert!(0 < lost, "no worker died with an unmerged part");
    assert!(0 < unaware, "no worker died between its write and the knowledge of it");
}
