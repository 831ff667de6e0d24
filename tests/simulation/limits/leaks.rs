//! All or none: what a refusal by one limit took from another comes back, and a full bucket refuses nobody.

use std::cell::Cell;
use std::time::Duration;

use predictgate::store::MemStore;
use predictgate::units::Instant;

use super::law::{Play, RUNS, Scenario, play, worker};
use super::{admit, keyed, pause, setting};
use crate::explore::{explore_part, first_broken};
use crate::scheduler::{Faults, Host};

/// Limits of which the last is nearly always empty, and never leased; as many keys as a set has slots.
fn scenario(workers: usize) -> Scenario {
    Scenario {
        settings: vec![setting(2, 100), keyed(4, &setting(1, 50)), setting(1, 1)],
        workers,
        // What a worker takes to its grave is lost, as it must be.
        faults: Faults { death: None, ..Faults::ALL },
        pause: Duration::from_millis(40),
        ends: Instant::from_nanos(600_000_000),
        keys: 4,
        costs: 1,
        entries: 64,
    }
}

#[test]
fn a_full_bucket_refuses_nobody_whatever_other_limits_refused() {
    let looked_at = Cell::new(0);
    explore_part(RUNS, 10, |seed| {
        let scenario = scenario([1, 2, 4][seed as usize % 3]);
        let ledger = play(seed, &scenario, Box::<MemStore>::default(), |host, play| worker(host, host, play));
        let ledger = ledger.borrow();
        ledger.law(&scenario.settings)?;
        looked_at.set(looked_at.get() + ledger.nothing_leaks(&scenario.settings)?);
        Ok(())
    });
    assert!(0 < looked_at.get(), "no refusal could be judged");
}

/// Asks each limit for itself, so that what one refuses another has spent.
fn one_by_one(host: &Host<'_>, mut play: Play<'_>) {
    while host.now() < play.scenario.ends {
        host.wait(pause(&mut play.rng, play.scenario.pause));
        for spend in play.request() {
            let admitted = play.ledger.borrow().admitted.len();
            if admit(&mut play.limiter, host, host, host.now(), &vec![spend], play.ledger).is_err() {
                break;
            }
            // Nothing passes before all limits have admitted it.
            play.ledger.borrow_mut().admitted.truncate(admitted);
        }
    }
}

#[test]
fn spending_where_another_limit_refuses_is_caught() {
    let broken = first_broken(|seed| {
        let scenario = scenario(2);
        let ledger = play(seed, &scenario, Box::<MemStore>::default(), one_by_one);
        ledger.borrow().nothing_leaks(&scenario.settings).map(|_| ())
    });
    assert_ne!(broken, None);
}
