//! Worker threads without threads: each worker is a coroutine that stops before and after every access to
//! the shared store, and a seeded scheduler decides who goes on.
//!
//! The code under simulation is the library's own, straight as it runs in a VM. What its worker remembers
//! lives on the coroutine's stack and is gone when the scheduler lets the worker die.

use std::cell::{Cell, RefCell};
use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::Duration;

use corosensei::{Coroutine, CoroutineResult, Yielder};
use predictgate::rng::Rng;
use predictgate::store::{Conflict, SharedStore, Version};
use predictgate::units::Instant;

/// How often something goes wrong: once in so many opportunities, or never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A rival writes the key just before a store.
    pub conflict: Option<NonZeroU64>,
    /// A worker is not scheduled for a while.
    pub delay: Option<NonZeroU64>,
    /// A VM dies and another takes its place.
    pub death: Option<NonZeroU64>,
    /// A worker gets a new root context beside the old one, which drains.
    pub update: Option<NonZeroU64>,
}

impl Faults {
    pub const ALL: Self = Self {
        conflict: NonZeroU64::new(8),
        delay: NonZeroU64::new(16),
        death: NonZeroU64::new(48),
        update: NonZeroU64::new(64),
    };
}

/// What every worker of one simulated process sees.
struct World {
    store: Box<dyn SharedStore>,
    rng: RefCell<Rng>,
    now: Cell<Instant>,
    faults: Faults,
    /// The newest root of each worker.
    newest: RefCell<Vec<u32>>,
}

impl World {
    fn below(&self, bound: usize) -> usize {
        let bound = NonZeroU64::new(bound.try_into().unwrap()).expect("a choice of at least one");
        self.rng.borrow_mut().below(bound).try_into().unwrap()
    }

    fn happens(&self, odds: Option<NonZeroU64>) -> bool {
        odds.is_some_and(|odds| self.rng.borrow_mut().below(odds) == 0)
    }
}

/// What the code of a worker has in its hands: the shared store, the clock, chance, and its own place.
pub struct Host<'a> {
    world: &'a World,
    yielder: &'a Yielder<(), Instant>,
    worker: usize,
    root: u32,
}

impl Host<'_> {
    /// Lets others go on; the worker may die here.
    pub fn pause(&self) {
        self.yielder.suspend(self.now());
    }

    /// Lets others go on for so long at least; the worker may die here.
    pub fn wait(&self, duration: Duration) {
        self.yielder.suspend(self.now().after(duration));
    }

    pub fn now(&self) -> Instant {
        self.world.now.get()
    }

    pub fn one_in(&self, odds: u64) -> bool {
        self.world.happens(NonZeroU64::new(odds))
    }

    pub fn worker(&self) -> usize {
        self.worker
    }

    /// How many configuration updates came before this root.
    pub fn root(&self) -> u32 {
        self.root
    }

    /// Whether no configuration update has given this worker another root.
    pub fn is_newest(&self) -> bool {
        self.world.newest.borrow().get(self.worker) == Some(&self.root)
    }
}

impl SharedStore for Host<'_> {
    fn load(&self, key: &str) -> (Option<Vec<u8>>, Version) {
        self.pause();
        self.world.store.load(key)
    }

    fn store(&self, key: &str, value: &[u8], version: Version) -> Result<(), Conflict> {
        self.pause();
        if self.world.happens(self.world.faults.conflict) {
            let (current, at) = self.world.store.load(key);
            let Some(current) = current else { return Err(Conflict) };
            self.world.store.store(key, &current, at).expect("nobody runs between these two");
        }
        let outcome = self.world.store.store(key, value, version);
        // A worker may die after its write and before it knows of it.
        self.pause();
        outcome
    }
}

/// What a worker does from its start to its orderly end.
pub type Life = Rc<dyn Fn(&Host<'_>)>;

struct Root {
    worker: usize,
    coroutine: Coroutine<(), Instant, ()>,
    asleep: usize,
    waits_until: Instant,
}

const LONGEST_DELAY: usize = 64;

/// What a call of the host takes, about.
const STEP: Duration = Duration::from_micros(1);

/// Runs `workers` lives to their ends on one store.
pub fn simulate(seed: u64, workers: usize, faults: Faults, store: Box<dyn SharedStore>, life: &Life) {
    let world = Rc::new(World {
        store,
        rng: RefCell::new(Rng::seeded(seed)),
        now: Cell::default(),
        faults,
        newest: RefCell::new(vec![0; workers]),
    });
    let start = |worker: usize| {
        let root = world.newest.borrow()[worker];
        let (world, life) = (Rc::clone(&world), Rc::clone(life));
        let coroutine = Coroutine::new(move |yielder: &Yielder<(), Instant>, ()| {
            life(&Host { world: &world, yielder, worker, root });
        });
        Root { worker, coroutine, asleep: 0, waits_until: Instant::default() }
    };
    let mut roots: Vec<_> = (0..workers).map(&start).collect();
    // Each death and each update starts a life anew, so their number decides when the run ends.
    let (mut deaths, mut updates) = (2 * workers, 2 * workers);
    while !roots.is_empty() {
        // Time goes on by itself, and at once to the first that has something to do when all wait.
        let earliest = roots.iter().map(|root| root.waits_until).min().expect("a root is left");
        world.now.set(world.now.get().after(STEP).max(earliest));
        let is_ready = |root: &Root| root.waits_until <= world.now.get();
        let ready = world.below(roots.iter().filter(|root| is_ready(root)).count());
        let chosen =
            (0..roots.len()).filter(|at| is_ready(&roots[*at])).nth(ready).expect("as many are ready");
        let worker = roots[chosen].worker;
        if roots[chosen].asleep > 0 {
            roots[chosen].asleep -= 1;
        } else if world.happens(faults.delay) {
            roots[chosen].asleep = world.below(LONGEST_DELAY);
        } else if deaths > 0 && world.happens(faults.death) {
            deaths -= 1;
            // All roots of a VM die with it. Dropping a coroutine unwinds its stack.
            roots.retain(|root| root.worker != worker);
            roots.push(start(worker));
        } else if updates > 0 && world.happens(faults.update) {
            updates -= 1;
            world.newest.borrow_mut()[worker] += 1;
            roots.push(start(worker));
        } else {
            match roots[chosen].coroutine.resume(()) {
                CoroutineResult::Yield(waits_until) => roots[chosen].waits_until = waits_until,
                CoroutineResult::Return(()) => _ = roots.swap_remove(chosen),
            }
        }
    }
}
