//! Wrong variants, which the laws must catch.

use std::time::Duration;

use predictgate::rate_limit::{Admission, LimitId, Spend};
use predictgate::store::MemStore;
use predictgate::units::Instant;

use super::law::{Play, Scenario, law, play, worker};
use super::ledger::Decision;
use super::{pause, setting};
use crate::broken_stores::{Blind, Overwriting};
use crate::explore::first_broken;
use crate::scheduler::{Faults, Host};

/// Some scenario in which the limits are busy.
fn busy(seed: u64) -> Scenario {
    Scenario { pause: Duration::from_micros(20), ..Scenario::drawn(seed, 4) }
}

#[track_caller]
fn check_caught(law: impl Fn(u64) -> Result<(), String>) {
    assert_ne!(first_broken(law), None);
}

#[test]
fn creating_without_a_guard_is_caught() {
    check_caught(|seed| {
        let scenario = busy(seed);
        let store = Box::<Overwriting>::default();
        law(&play(seed, &scenario, store, |host, play| worker(host, host, play)).borrow(), &scenario)
    });
}

#[test]
fn lost_updates_are_caught() {
    check_caught(|seed| {
        let scenario = busy(seed);
        let store = Box::<Blind>::default();
        law(&play(seed, &scenario, store, |host, play| worker(host, host, play)).borrow(), &scenario)
    });
}

#[test]
fn workers_that_share_nothing_are_caught() {
    check_caught(|seed| {
        let scenario = busy(seed);
        let each_its_own = |host: &Host<'_>, play: Play<'_>| worker(host, &MemStore::default(), play);
        law(&play(seed, &scenario, Box::<MemStore>::default(), each_its_own).borrow(), &scenario)
    });
}

#[test]
fn an_arena_without_room_is_caught() {
    check_caught(|seed| {
        let scenario = Scenario { entries: 1, ..busy(seed) };
        let store = Box::<MemStore>::default();
        law(&play(seed, &scenario, store, |host, play| worker(host, host, play)).borrow(), &scenario)
    });
}

/// Writes down decisions later than they were made, as if debited tokens were used then.
fn late(host: &Host<'_>, mut play: Play<'_>, by: Duration) {
    while host.now() < play.scenario.ends {
        host.wait(pause(&mut play.rng, play.scenario.pause));
        let (key, now) = ([0], host.now());
        let spend = Spend { limit: LimitId(0), key: &key, cost: 1 };
        let admission = play.limiter.admit(host, now, &|| host.now(), &[spend]);
        // A multiple of what it is late by, so that decisions of a while become one moment.
        let late = by.as_nanos() as u64;
        let at = Instant::from_nanos(now.as_nanos().div_ceil(late) * late);
        if admission == Admission::Admitted {
            play.ledger.borrow_mut().admitted.push(Decision { at, limit: 0, key: 0, cost: 1 });
        }
    }
}

#[test]
fn tokens_that_are_used_a_millisecond_after_their_time_are_caught() {
    for setting in [setting(7, 2000), setting(100, 2000)] {
        check_caught(|seed| {
            let scenario = Scenario {
                settings: vec![setting.clone()],
                faults: Faults::default(),
                ends: Instant::from_nanos(100_000_000),
                pause: Duration::from_micros(400),
                ..busy(seed)
            };
            let later = |host: &Host<'_>, play: Play<'_>| late(host, play, Duration::from_millis(25));
            law(&play(seed, &scenario, Box::<MemStore>::default(), later).borrow(), &scenario)
        });
    }
}
