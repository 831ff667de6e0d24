//! The parts of the benchmark that compare variants.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::bootstrap::{Windows, bootstrap};
use crate::envoy::{Cores, Envoy};
use crate::load::{Load, Ran, Shape};
use crate::machine::{Cpu, forget_peak, resident};
use crate::request::Request;
use crate::results::{CpuRow, Figure, LatencyRow, MemoryRow, Results};
use crate::variant::{Modules, Setup, Variant};
use crate::{Plan, Size, report};

/// Callers are always ahead of Envoy.
pub const CLOSED: Shape = Shape { connections: 4, streams: 8 };
const RATE: f64 = 2_000.0;
const CONNECTIONS_AT_RATE: usize = 8;
/// Large messages at once.
const CROWD: Shape = Shape { connections: 32, streams: 1 };
const CROWD_REQUESTS: usize = 128;
const MB: f64 = 1_048_576.0;

pub struct Bench<'a> {
    pub envoy: &'a Path,
    pub modules: Modules<'a>,
    pub all: &'a [usize],
    pub cores: Cores,
    pub load: Load,
    pub plan: &'a Plan,
}

/// The request of all comparisons: users for the split, tenants for the limits.
pub fn predict(size: Size) -> Request {
    Request::predict("resnet", size.bytes())
        .header_any("x-user-id", "user-", 1_000)
        .header_any("x-tenant", "tenant-", 100)
}

/// What a run of requests cost Envoy.
pub struct Cost {
    pub ran: Ran,
    pub cpu: Duration,
}

impl Cost {
    pub fn micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.ran.requests as f64
    }
}

impl Bench<'_> {
    pub fn start(&self, setup: &Setup, workers: u32, windows: Windows) -> Result<Envoy> {
        let outlier_detection = setup.outlier_detection.as_ref();
        let servers = self.load.servers()?;
        let bootstrap = bootstrap(&setup.filters, &setup.routes, outlier_detection, servers, windows);
        Envoy::start(self.envoy, &bootstrap, workers, &self.cores)
    }

    pub fn closed(&mut self, envoy: &Envoy, request: &Request, shape: Shape, count: usize) -> Result<Cost> {
        let before = Cpu::of_process(envoy.pid())?;
        let ran = self.load.closed(envoy.addr, request, shape, count)?;
        Ok(Cost { cpu: Cpu::of_process(envoy.pid())? - before, ran })
    }

    /// Every variant, warm, and seen to do its work.
    fn start_all(&mut self) -> Result<Vec<(Variant, Envoy)>> {
        let mut all = Vec::new();
        for &variant in &self.plan.variants {
            let name = variant.name();
            let envoy = self.start(&variant.setup(&self.modules), 1, Windows::Default);
            let envoy = envoy.with_context(|| name.clone())?;
            let ran = self.closed(&envoy, &predict(Size::K1), CLOSED, 2_000)?.ran;
            ensure!(ran.whole == ran.requests, "{name}: {} answers of {}", ran.whole, ran.requests);
            if variant.configuration().is_some() {
                let name = "predictgate_requests";
                let mut envoy = envoy;
                // The filter tells the host on its ticks.
                envoy.until("the filter to have counted the requests", |envoy| {
                    (envoy.sum(name).ok()? == ran.requests as u64).then_some(())
                })?;
                all.push((variant, envoy));
            } else {
                all.push((variant, envoy));
            }
        }
        Ok(all)
    }

    pub fn cpu(&mut self, results: &mut Results) -> Result<()> {
        let envoys = self.start_all()?;
        for &size in &self.plan.sizes {
            let (request, count) = (predict(size), self.plan.requests(size));
            let [server, _] = self.load.servers()?;
            let alone = self.load.closed(server, &request, CLOSED, count)?;
            results.load_alone.insert(size.name(), alone.requests as f64 / alone.took.as_secs_f64());
            let mut rounds: Vec<Vec<Cost>> = envoys.iter().map(|_| Vec::new()).collect();
            for round in 0..=self.plan.rounds {
                eprintln!("cpu, {}: round {round} of {}", size.name(), self.plan.rounds);
                for place in in_turn(envoys.len(), round) {
                    let cost = self.closed(&envoys[place].1, &request, CLOSED, count)?;
                    // The first round warms.
                    if 0 < round {
                        rounds[place].push(cost);
                    }
                }
            }
            let plain: Vec<f64> = rounds[0].iter().map(Cost::micros).collect();
            for ((variant, _), costs) in envoys.iter().zip(&rounds) {
                results.cpu.push(row(*variant, size, costs, &plain));
            }
            println!("\n{}", report::cpu(results, size));
        }
        Ok(())
    }

    pub fn latency(&mut self, results: &mut Results) -> Result<()> {
        let envoys = self.start_all()?;
        let (count, time) = if self.plan.quick { (2, 1) } else { (5, 5) };
        let request = predict(Size::K1);
        let mut rounds: Vec<Vec<Ran>> = envoys.iter().map(|_| Vec::new()).collect();
        for round in 0..count {
            eprintln!("latency: round {} of {count}", round + 1);
            for place in in_turn(envoys.len(), round) {
                let (to, time) = (envoys[place].1.addr, Duration::from_secs(time));
                rounds[place].push(self.load.open(to, &request, CONNECTIONS_AT_RATE, RATE, time)?);
            }
        }
        let figure = |runs: &[Ran], share: f64| Figure::of(runs.iter().map(|ran| quantile(ran, share)));
        let worst = |share| {
            let runs = rounds.iter().take(2).flatten();
            runs.map(|ran| quantile(ran, share)).fold(0.0, f64::max)
        };
        let (noise99, noise999) = (worst(0.99), worst(0.999));
        for ((variant, _), runs) in envoys.iter().zip(&rounds) {
            let (p99, p999) = (figure(runs, 0.99), figure(runs, 0.999));
            results.latency.push(LatencyRow {
                variant: variant.name(),
                p50: figure(runs, 0.5),
                p99,
                p999,
                p99_is_noise: p99.median <= noise99,
                p999_is_noise: p999.median <= noise999,
                failed: runs.iter().map(|ran| ran.requests - ran.whole).sum(),
            });
        }
        println!("\n{}", report::latency(results));
        Ok(())
    }

    /// A fresh Envoy for every number, since memory that was taken once is not always given back.
    pub fn memory(&mut self, results: &mut Results) -> Result<()> {
        let count = if self.plan.quick { 1 } else { 3 };
        let budgeted =
            [Variant::NoFilter, Variant::WasmNoop, Variant::LuaBody, Variant::Everything].as_slice();
        for &variant in &self.plan.variants {
            if self.plan.quick && !budgeted.contains(&variant) {
                continue;
            }
            eprintln!("memory: {}", variant.name());
            let setup = variant.setup(&self.modules);
            let (mut rest, mut per_worker, mut rise, mut failed) = (vec![], vec![], vec![], 0);
            for _ in 0..count {
                let (envoy, one) = self.at_rest(&setup, 1)?;
                forget_peak(envoy.pid())?;
                let ran = self.load.closed(envoy.addr, &predict(Size::M4), CROWD, CROWD_REQUESTS)?;
                let peak = resident(envoy.pid())?.peak as f64 / MB;
                failed += ran.requests - ran.whole;
                rise.push(peak - one);
                rest.push(one);
                drop(envoy);
                for workers in if self.plan.quick { &[4][..] } else { &[2, 4] } {
                    let (_, more) = self.at_rest(&setup, *workers)?;
                    per_worker.push((more - one) / f64::from(workers - 1));
                }
            }
            results.memory.push(MemoryRow {
                variant: variant.name(),
                rest: Figure::of(rest),
                per_worker: Figure::of(per_worker),
                rise: Figure::of(rise),
                failed,
            });
        }
        println!("\n{}", report::memory(results));
        Ok(())
    }

    /// An Envoy that has served, and its megabytes.
    fn at_rest(&mut self, setup: &Setup, workers: u32) -> Result<(Envoy, f64)> {
        let envoy = self.start(setup, workers, Windows::Small)?;
        let shape = Shape { connections: 12, streams: 2 };
        self.load.closed(envoy.addr, &predict(Size::K1), shape, 2_000)?;
        let rest = resident(envoy.pid())?.now as f64 / MB;
        Ok((envoy, rest))
    }
}

/// Forth and back, so that nobody always comes after the same one.
pub fn in_turn(count: usize, round: usize) -> Vec<usize> {
    let forth = 0..count;
    if round.is_multiple_of(2) { forth.collect() } else { forth.rev().collect() }
}

fn row(variant: Variant, size: Size, costs: &[Cost], plain: &[f64]) -> CpuRow {
    let ran = || costs.iter().map(|cost| &cost.ran);
    let requests: usize = ran().map(|ran| ran.requests).sum();
    let seconds: f64 = ran().map(|ran| ran.took.as_secs_f64()).sum();
    let load: f64 = ran().map(|ran| ran.load.as_secs_f64()).sum();
    let cpu: f64 = costs.iter().map(|cost| cost.cpu.as_secs_f64()).sum();
    let clusters = [0, 1].map(|cluster| ran().map(|ran| ran.clusters[cluster]).sum::<u64>());
    CpuRow {
        variant: variant.name(),
        size: size.name(),
        micros: Figure::of(costs.iter().map(Cost::micros)),
        ratio: Figure::of(costs.iter().zip(plain).map(|(cost, plain)| cost.micros() / plain)),
        requests_per_second: Figure::of(ran().map(|ran| ran.whole as f64 / ran.took.as_secs_f64())),
        load_micros: load * 1e6 / requests as f64,
        busy: cpu / seconds,
        canary: clusters[1] as f64 / (clusters[0] + clusters[1]).max(1) as f64,
        failed: ran().map(|ran| ran.requests - ran.whole).sum(),
    }
}

/// Microseconds within which this share of requests was answered.
fn quantile(ran: &Ran, share: f64) -> f64 {
    let place = (ran.latencies.len() as f64 * share).ceil() as usize;
    ran.latencies.get(place.saturating_sub(1)).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e6)
}
