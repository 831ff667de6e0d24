//! Workers with all faults, on limits of every kind at once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use predictgate::rate_limit::Limiter;
use predictgate::rng::Rng;
use predictgate::store::{MemStore, SharedStore};
use predictgate::units::{Instant, Mode};

use super::ledger::{Decision, Ledger};
use super::{Request, Setting, Shared, admit, keyed, limiter, pause, setting};
use crate::explore::explore_part;
use crate::scheduler::{Faults, Host, Life, simulate};

/// Enough for every law of limits on every push.
pub const RUNS: u64 = 10_000;

/// How the workers of one run ask.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub settings: Vec<Setting>,
    pub workers: usize,
    pub faults: Faults,
    /// Between two requests of a worker, on average.
    pub pause: Duration,
    pub ends: Instant,
    pub keys: u64,
    /// The largest cost.
    pub costs: u64,
    /// Entries of the arena.
    pub entries: u32,
}

impl Scenario {
    /// One that `seed` decides.
    pub fn drawn(seed: u64, workers: usize) -> Self {
        let mut rng = Rng::seeded(seed ^ 0x5eed);
        let mut draw = |below: u64| rng.below(below.try_into().unwrap());
        let drawn = |draw: &mut dyn FnMut(u64) -> u64| {
            let rates = [(1, 3), (5, 5), (7, 97), (100, 100), (40, 1000), (2000, 2000), (400, 10_000)];
            let (max, rate) = rates[draw(rates.len() as u64) as usize];
            setting(max, rate)
        };
        let settings = vec![
            drawn(&mut draw),
            keyed(4 << draw(3), &drawn(&mut draw)),
            Setting { mode: Mode::Shadow, ..drawn(&mut draw) },
            drawn(&mut draw),
        ];
        let pauses = [20, 200, 2000, 20_000];
        let pause = Duration::from_micros(pauses[draw(4) as usize]);
        Self {
            settings,
            workers,
            faults: Faults::ALL,
            pause,
            ends: Instant::default().after(pause * 12),
            keys: 1 + draw(9),
            costs: 1 + draw(3),
            entries: 64,
        }
    }
}

/// What each worker has in its hands in one run.
pub struct Play<'a> {
    pub scenario: &'a Scenario,
    pub ledger: &'a RefCell<Ledger>,
    pub limiter: Limiter,
    pub rng: Rng,
}

impl Play<'_> {
    /// A request on some of the limits.
    pub fn request(&mut self) -> Request {
        let mut request = Vec::new();
        for limit in 0..self.scenario.settings.len() {
            if self.draw(2) == 0 {
                let key = u8::try_from(self.draw(self.scenario.keys)).unwrap();
                request.push((u32::try_from(limit).unwrap(), key, 1 + self.draw(self.scenario.costs)));
            }
        }
        request
    }

    pub fn draw(&mut self, below: u64) -> u64 {
        self.rng.below(below.try_into().unwrap())
    }
}

pub fn worker(host: &Host<'_>, store: &dyn SharedStore, mut play: Play<'_>) {
    while host.now() < play.scenario.ends {
        host.wait(pause(&mut play.rng, play.scenario.pause));
        if host.one_in(8) {
            play.limiter.tick(store, host.now());
        }
        let request = play.request();
        // Refusals are written down too.
        _ = admit(&mut play.limiter, host, store, host.now(), &request, play.ledger);
    }
}

pub type Store = Box<dyn SharedStore>;

/// Runs `worker` in each of the scenario's workers.
pub fn play(
    seed: u64,
    scenario: &Scenario,
    store: Store,
    worker: impl Fn(&Host<'_>, Play<'_>) + 'static,
) -> Shared<Ledger> {
    let ledger: Shared<Ledger> = Rc::default();
    let life: Life = {
        let (ledger, scenario, lives) =
            (Rc::clone(&ledger), scenario.clone(), RefCell::new(Rng::seeded(!seed)));
        Rc::new(move |host| {
            let mut rng = Rng::seeded(lives.borrow_mut().next_u64());
            let limiter = limiter(&scenario.settings, scenario.entries, rng.next_u64().into());
            worker(host, Play { scenario: &scenario, ledger: &ledger, limiter, rng });
        })
    };
    simulate(seed, scenario.workers, scenario.faults, store, &life);
    ledger
}

/// The law of the limits that are enforced; the others only count.
pub fn law(ledger: &Ledger, scenario: &Scenario) -> Result<(), String> {
    let mut enforced = Ledger::default();
    let is_enforced = |limit: u32| scenario.settings[limit as usize].mode == Mode::Enforce;
    enforced.admitted = ledger.admitted.iter().filter(|it| is_enforced(it.limit)).copied().collect();
    enforced.law(&scenario.settings)?;
    match ledger.refused.iter().find(|refused| !is_enforced(refused.0.limit)) {
        Some(refused) => Err(format!("a limit in shadow mode refused {refused:?}")),
        None => Ok(()),
    }
}

#[track_caller]
fn check(workers: usize) {
    // A quarter of the runs each for 1, 2, 4 and 16 workers.
    explore_part(RUNS, 4, |seed| {
        let scenario = Scenario::drawn(seed, workers);
        let ledger = play(seed, &scenario, Box::<MemStore>::default(), |host, play| worker(host, host, play));
        law(&ledger.borrow(), &scenario).map_err(|broken| format!("{broken}\n{scenario:?}"))
    });
}

#[test]
fn one_worker_admits_no_more_than_the_limits_in_any_interval() {
    check(1);
}

#[test]
fn two_workers_admit_no_more_than_the_limits_in_any_interval() {
    check(2);
}

#[test]
fn four_workers_admit_no_more_than_the_limits_in_any_interval() {
    check(4);
}

#[test]
fn sixteen_workers_admit_no_more_than_the_limits_in_any_interval() {
    check(16);
}

/// Brings tokens of three times together: two workers lease when the bucket is full, two when it is full again, and
/// after `LEASE`, or a little before or later, all ask for all there is.
///
/// A lease is large where demand is, and a cost that the bucket does not have is demand that takes nothing.
fn pile_up(host: &Host<'_>, mut play: Play<'_>, role: u64, seed: u64) {
    let until = |micros: u64| host.wait(Instant::from_nanos(micros * 1000).since(host.now()));
    let mut ask =
        |cost| _ = admit(&mut play.limiter, host, host, host.now(), &vec![(0, 0, cost)], play.ledger);
    // So that a whole burst is refused.
    ask(1);
    until([1000, 1000, 20_500, 20_500][role as usize % 4]);
    for _ in 0..3 {
        ask(PILE);
    }
    ask(1);
    until(19_000 + seed % 12 * 500);
    for _ in 0..PILE {
        ask(1);
    }
}

const PILE: u64 = 400;

#[test]
fn leases_that_grow_old_add_nothing_to_a_limit() {
    let most = Cell::new(0);
    explore_part(RUNS, 50, |seed| {
        let scenario = Scenario {
            settings: vec![setting(PILE as u32, 10_000)],
            faults: Faults { death: None, update: None, ..Faults::ALL },
            ..Scenario::drawn(seed, 4)
        };
        let roles = Cell::new(0);
        let ledger = play(seed, &scenario, Box::<MemStore>::default(), move |host, play| {
            let role = roles.replace(roles.get() + 1);
            pile_up(host, play, role, seed);
        });
        let ledger = ledger.borrow();
        let last = |it: &&Decision| Instant::from_nanos(18_900_000) < it.at;
        most.set(most.get().max(ledger.admitted.iter().filter(last).count()));
        law(&ledger, &scenario)
    });
    // Otherwise the order that this is about was never played.
    assert!(300 < most.get(), "at most {} tokens came together", most.get());
}
