//! What all workers of one Envoy process share: shared data, queues, metrics, the clock and the log.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::metrics::{Metric, Metrics};
use crate::module::Module;
use crate::shared_data::{Queues, SharedData};
use crate::worker::Worker;

/// 2026-11-21T10:00:00Z, when every process of these tests starts.
const START: u64 = 1_795_255_200_000_000_000;
/// Monotonic time does not start at zero: a module that takes zero for "never" would be lucky otherwise.
const UPTIME: u64 = 3_600_000_000_000;

#[derive(Debug)]
pub(crate) struct Shared {
    pub data: SharedData,
    pub queues: Queues,
    pub metrics: Metrics,
    pub wall: u64,
    pub monotonic: u64,
    pub log: Vec<(u32, String)>,
    pub log_level: u32,
    pub chance: u64,
    calls: BTreeMap<&'static str, u64>,
    deaths: BTreeMap<String, u64>,
}

impl Shared {
    /// Counts a host call and says whether the calling VM dies at it.
    pub fn count(&mut self, import: &'static str) -> bool {
        *self.calls.entry(import).or_default() += 1;
        let Some(left) = self.deaths.get_mut(import) else { return false };
        *left -= 1;
        if *left == 0 {
            self.deaths.remove(import);
            return true;
        }
        false
    }

    /// SplitMix64, so that what the module draws is the same in every run.
    pub fn draw(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Why a configuration was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What the module logged while it was configured.
    pub log: Vec<String>,
    /// Set when the module did not say no but trapped.
    pub trap: Option<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.trap {
            Some(trap) => write!(f, "the module trapped: {trap}; it logged: {}", self.log.join("\n")),
            None => write!(f, "the module refused its configuration and logged: {}", self.log.join("\n")),
        }
    }
}

/// One Envoy process.
#[derive(Clone)]
pub struct Process {
    module: Module,
    pub(crate) shared: Rc<RefCell<Shared>>,
}

impl Process {
    pub fn new(module: &Module) -> Self {
        let shared = Shared {
            data: SharedData::default(),
            queues: Queues::default(),
            metrics: Metrics::default(),
            wall: START,
            monotonic: UPTIME,
            log: Vec::new(),
            log_level: 2,
            chance: 1,
            calls: BTreeMap::new(),
            deaths: BTreeMap::new(),
        };
        Self { module: module.clone(), shared: Rc::new(RefCell::new(shared)) }
    }

    /// Starts a worker: a VM of its own with one root context of this configuration.
    ///
    /// # Errors
    ///
    /// When the module does not accept the configuration.
    pub fn worker(&self, configuration: impl AsRef<[u8]>) -> Result<Worker, Refused> {
        Worker::start(&self.module, self, configuration.as_ref())
    }

    /// Moves both clocks on. No tick runs by itself.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).expect("less than 584 years");
        let mut shared = self.shared.borrow_mut();
        shared.monotonic += nanos;
        shared.wall += nanos;
    }

    /// Sets the date, as NTP may at any moment, without moving monotonic time.
    pub fn set_wall_clock(&self, since_epoch: Duration) {
        self.shared.borrow_mut().wall = u64::try_from(since_epoch.as_nanos()).expect("less than 584 years");
    }

    /// Sets the level of Envoy's log, as the ABI numbers it: 0 is trace, 2 info, 5 critical.
    pub fn set_log_level(&self, level: u32) {
        self.shared.borrow_mut().log_level = level;
    }

    pub fn seed(&self, seed: u64) {
        self.shared.borrow_mut().chance = seed;
    }

    /// The next `count` writes of shared data that carry a token lose to a rival.
    pub fn conflict(&self, count: u32) {
        self.shared.borrow_mut().data.conflicts = count;
    }

    /// The VM that makes the `nth` call from now of `import` (from 1) dies at it.
    pub fn die_at(&self, import: &str, nth: u64) {
        assert!(nth > 0, "the first call is number 1");
        self.shared.borrow_mut().deaths.insert(import.to_owned(), nth);
    }

    /// How often the module called `import`.
    pub fn calls(&self, import: &str) -> u64 {
        self.shared.borrow().calls.get(import).copied().unwrap_or(0)
    }

    /// Every import that was called, with how often.
    pub fn all_calls(&self) -> BTreeMap<&'static str, u64> {
        self.shared.borrow().calls.clone()
    }

    pub fn log(&self) -> Vec<String> {
        self.shared.borrow().log.iter().map(|(_, line)| line.clone()).collect()
    }

    /// Every metric by its full name.
    pub fn metrics(&self) -> BTreeMap<String, Metric> {
        self.shared.borrow().metrics.all().clone()
    }

    /// The sum over all metrics of this bare name that have at least these tags.
    pub fn metric(&self, name: &str, tags: &[(&str, &str)]) -> i64 {
        self.shared.borrow().metrics.matching(name, tags).map(|metric| metric.value).sum()
    }

    /// What was recorded in all histograms of this bare name that have at least these tags.
    pub fn recorded(&self, name: &str, tags: &[(&str, &str)]) -> Vec<u64> {
        let shared = self.shared.borrow();
        shared.metrics.matching(name, tags).flat_map(|metric| metric.samples.clone()).collect()
    }

    pub fn shared_keys(&self) -> Vec<Vec<u8>> {
        self.shared.borrow().data.keys().map(<[u8]>::to_vec).collect()
    }

    pub fn shared_value(&self, key: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        self.shared.borrow().data.get(key.as_ref()).ok().map(|(value, _)| value.to_vec())
    }
}
