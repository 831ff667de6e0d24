//! Workers that are asked for more than a limit gives: next to nothing of it is lost.

use std::time::Duration;

use predictgate::store::MemStore;
use predictgate::units::Instant;

use super::law::{Play, RUNS, Scenario, play};
use super::ledger::Ledger;
use super::{Setting, admit, pause, setting};
use crate::explore::explore_part;
use crate::scheduler::{Faults, Host};

/// What was admitted of what the limit gave between the first refusal and the last admission.
///
/// At the first refusal the bucket is empty, so this counts no burst.
fn share(ledger: &Ledger, setting: &Setting) -> f64 {
    let first = ledger.refused.iter().map(|refused| refused.0.at).min().expect("a refusal");
    let after: Vec<_> = ledger.admitted.iter().filter(|it| first <= it.at).collect();
    let last = after.iter().map(|it| it.at).max().expect("an admission");
    let rate = f64::from(setting.bucket.tokens_per_fill) / setting.bucket.fill_interval.as_secs_f64();
    after.len() as f64 / (rate * last.since(first).as_secs_f64())
}

fn worker(host: &Host<'_>, mut play: Play<'_>) {
    while host.now() < play.scenario.ends {
        host.wait(pause(&mut play.rng, play.scenario.pause));
        let request = vec![(0, 0, 1)];
        _ = admit(&mut play.limiter, host, host, host.now(), &request, play.ledger);
    }
}

/// `workers` that together ask for `times` as much as the limit gives, for `duration`, under conflicts and
/// delays.
#[track_caller]
fn check(workers: usize, setting: &Setting, times: u32, duration: Duration, least: f64) {
    let rate = setting.bucket.tokens_per_fill * times;
    explore_part(RUNS, 1000, |seed| {
        let scenario = Scenario {
            settings: vec![setting.clone()],
            workers,
            faults: Faults { death: None, update: None, ..Faults::ALL },
            pause: Duration::from_secs(1) * u32::try_from(workers).unwrap() / rate,
            ends: Instant::default().after(duration),
            keys: 1,
            costs: 1,
            entries: 64,
        };
        let ledger = play(seed, &scenario, Box::<MemStore>::default(), worker);
        let ledger = ledger.borrow();
        ledger.law(&scenario.settings)?;
        let share = share(&ledger, setting);
        if least <= share { Ok(()) } else { Err(format!("{share} of {setting:?} was admitted")) }
    });
}

#[test]
fn a_limit_that_is_not_leased_gives_all_it_has() {
    for workers in [1, 2, 4, 16] {
        check(workers, &setting(10, 100), 3, Duration::from_secs(4), 0.99);
    }
}

#[test]
fn a_leased_limit_loses_at_most_three_hundredths() {
    for workers in [1, 2, 4, 16] {
        for times in [2, 5] {
            check(workers, &setting(100, 2000), times, Duration::from_millis(1500), 0.97);
        }
    }
}
