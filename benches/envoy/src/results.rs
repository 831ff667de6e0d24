//! What was measured.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::Size;
use crate::variant::Variant;

/// How far two equal variants may differ in the median before nothing else is believed.
const MOST_NOISE: f64 = 0.05;
/// Callers are ahead of Envoy when its core is busy for so much of the time.
const LEAST_BUSY: f64 = 0.9;

/// One figure over all rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figure {
    pub median: f64,
    pub least: f64,
    pub most: f64,
    /// A quarter of the rounds is below, and a quarter above.
    pub quartiles: [f64; 2],
}

impl Figure {
    /// None of no rounds.
    pub fn of(rounds: impl IntoIterator<Item = f64>) -> Self {
        let mut rounds: Vec<f64> = rounds.into_iter().collect();
        rounds.sort_by(f64::total_cmp);
        let (Some(&least), Some(&most)) = (rounds.first(), rounds.last()) else { return Self::default() };
        let middle = rounds.len() / 2;
        let median = if rounds.len().is_multiple_of(2) {
            f64::midpoint(rounds[middle - 1], rounds[middle])
        } else {
            rounds[middle]
        };
        let place = |share: f64| rounds[((rounds.len() - 1) as f64 * share).round() as usize];
        Self { median, least, most, quartiles: [place(0.25), place(0.75)] }
    }
}

#[derive(Debug, Serialize)]
pub struct Results {
    pub machine: BTreeMap<String, String>,
    pub module_bytes: u64,
    /// What callers and servers do without an Envoy between them, in requests per second, by size.
    pub load_alone: BTreeMap<&'static str, f64>,
    pub cpu: Vec<CpuRow>,
    pub latency: Vec<LatencyRow>,
    pub memory: Vec<MemoryRow>,
    pub curves: Vec<Curve>,
}

/// A variant at one size, callers always waiting for Envoy.
#[derive(Debug, Serialize)]
pub struct CpuRow {
    pub variant: String,
    pub size: &'static str,
    pub micros: Figure,
    /// To no filter, in the same round.
    pub ratio: Figure,
    pub requests_per_second: Figure,
    /// CPU time of callers and servers for a request.
    pub load_micros: f64,
    /// How much of its time Envoy's core worked: far below 1 the load was too slow.
    pub busy: f64,
    /// Of all requests, how many went to the canary's cluster.
    pub canary: f64,
    pub failed: usize,
}

/// A variant at a constant rate. Microseconds.
#[derive(Debug, Serialize)]
pub struct LatencyRow {
    pub variant: String,
    pub p50: Figure,
    pub p99: Figure,
    pub p999: Figure,
    /// The tails are within what the two variants without a filter show.
    pub p99_is_noise: bool,
    pub p999_is_noise: bool,
    pub failed: usize,
}

/// Megabytes (of 2^20 bytes).
#[derive(Debug, Serialize)]
pub struct MemoryRow {
    pub variant: String,
    pub rest: Figure,
    pub per_worker: Figure,
    /// From rest to the most with 32 messages of 4 MB at once.
    pub rise: Figure,
    pub failed: usize,
}

/// How a cost grows, against the first point.
#[derive(Debug, Serialize)]
pub struct Curve {
    pub name: &'static str,
    pub what: &'static str,
    /// What it may grow by; nothing where others than the filter have a part in it.
    pub most: Option<f64>,
    pub points: Vec<Point>,
}

#[derive(Debug, Serialize)]
pub struct Point {
    pub at: u32,
    pub value: Figure,
    /// Against the first point, in the same round.
    pub growth: Figure,
    pub failed: usize,
}

impl Results {
    pub fn new(machine: BTreeMap<String, String>) -> Self {
        Self {
            machine,
            module_bytes: 0,
            load_alone: BTreeMap::new(),
            cpu: vec![],
            latency: vec![],
            memory: vec![],
            curves: vec![],
        }
    }

    pub fn cpu(&self, variant: Variant, size: Size) -> Option<&CpuRow> {
        self.cpu.iter().find(|row| row.variant == variant.name() && row.size == size.name())
    }

    pub fn latency(&self, variant: Variant) -> Option<&LatencyRow> {
        self.latency.iter().find(|row| row.variant == variant.name())
    }

    pub fn memory(&self, variant: Variant) -> Option<&MemoryRow> {
        self.memory.iter().find(|row| row.variant == variant.name())
    }

    /// How many rows there are of which not Envoy but the load, or somebody else on its core, set the pace: CPU times
    /// stand, requests per second say nothing.
    pub fn slowed(&self) -> usize {
        self.cpu.iter().filter(|row| row.busy < LEAST_BUSY).count()
    }

    /// Why nothing of this run is to be believed, if so.
    pub fn rejected(&self) -> Vec<String> {
        let again = Variant::NoFilterAgain.name();
        let noisy = self.cpu.iter().filter(|row| row.variant == again);
        let noisy = noisy.filter(|row| MOST_NOISE < (row.ratio.median - 1.0).abs());
        noisy
            .map(|row| {
                let off = (row.ratio.median - 1.0).abs() * 100.0;
                format!("two equal variants differ by {off:.1} % at {}, expected at most 5 %", row.size)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        let of_five = Figure::of([5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!(of_five, Figure { median: 3.0, least: 1.0, most: 5.0, quartiles: [2.0, 4.0] });
        assert_eq!(Figure::of([4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Figure::of([]), Figure::default());
    }

    #[test]
    fn a_run_in_which_equal_variants_differ_rejects_itself() {
        let row = |median| CpuRow {
            variant: Variant::NoFilterAgain.name(),
            size: Size::K1.name(),
            micros: Figure::default(),
            ratio: Figure::of([median]),
            requests_per_second: Figure::default(),
            load_micros: 0.0,
            busy: 1.0,
            canary: 0.0,
            failed: 0,
        };
        let rejected = |median| {
            let mut results = Results::new(BTreeMap::new());
            results.cpu.push(row(median));
            results.rejected()
        };
        assert!(rejected(1.04).is_empty() && rejected(0.96).is_empty());
        assert_eq!(rejected(1.06), ["two equal variants differ by 6.0 % at 1 KB, expected at most 5 %"]);
        assert_eq!(rejected(0.9).len(), 1);
    }
}
