//! How the cost of a request grows with what is configured and who calls, drawn at random from all.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::bootstrap::Windows;
use crate::envoy::{Cores, Envoy};
use crate::load::Shape;
use crate::machine::Cpu;
use crate::measure::{Bench, CLOSED, in_turn, predict};
use crate::request::{Request, numbered};
use crate::results::{Curve, Figure, Point, Results};
use crate::variant::{Variant, predictgate};
use crate::{Size, report};

/// What CPU time for a request may grow by.
const MOST_GROWTH: f64 = 1.1;
/// What CPU time at rest may grow by from the fewest models to the most.
const MOST_IDLE_GROWTH: f64 = 1.2;
/// Two intervals of ejection and the tick after them: then nothing of the requests is left to be judged.
const SETTLED: Duration = Duration::from_secs(21);
/// After which an Envoy that goes on has done what was due while it was halted.
const RESUMED: Duration = Duration::from_secs(1);
/// How the names of workers' threads begin.
const WORKERS: &str = "wrk:";
/// Over several workers' connections, however the kernel deals them out.
const MANY: Shape = Shape { connections: 16, streams: 2 };

struct At {
    at: u32,
    envoy: Envoy,
    request: Request,
}

impl Bench<'_> {
    pub fn curves(&mut self, results: &mut Results) -> Result<()> {
        let models = self.models(&self.points(&[10, 100, 1_000, 10_000]))?;
        self.grow("models", "CPU time for a request", &models, results)?;
        drop(models);
        self.tenants(results)?;
        self.routes(results)?;
        self.workers(results)?;
        println!("\n{}", report::curves(results));
        Ok(())
    }

    /// A quick look is at the ends.
    fn points(&self, all: &[u32]) -> Vec<u32> {
        match all {
            [first, .., last] if self.plan.quick => vec![*first, *last],
            _ => all.to_vec(),
        }
    }

    /// Envoys with so many models, each of which has answered.
    fn models(&mut self, counts: &[u32]) -> Result<Vec<At>> {
        let mut points = Vec::new();
        for &among in counts {
            let setup = predictgate(self.modules.predictgate, &models(among).to_string());
            let envoy = self.start(&setup, 1, Windows::Default)?;
            let request = Request::predict_any("model-", among, Size::K1.bytes());
            // A metric is defined by its first event, which is to be over: of 10 x n draws from n none is left out
            // but one in 22,000.
            for target in ["stable", "canary"] {
                let warm = request.clone().header("x-use-target", target);
                self.closed(&envoy, &warm, CLOSED, 10 * among as usize)?;
            }
            let request = request.header_any("x-user-id", "user-", 1_000);
            points.push(At { at: among, envoy, request });
        }
        Ok(points)
    }

    /// Envoys that have served and do so no more, each in turn while the others are halted: ticks of Envoys that rest
    /// side by side keep their distance, and who always comes second finds the core awake and the caches warm.
    pub fn idle(&mut self, results: &mut Results) -> Result<()> {
        let mut points = self.models(&[10, 10_000])?;
        for point in &mut points {
            let expected = 2 * point.at as usize;
            point.envoy.until("all weights to be shown", |envoy| {
                (envoy.count("predictgate_weight").ok()? == expected).then_some(())
            })?;
        }
        eprintln!("idle: until the last requests are judged");
        std::thread::sleep(SETTLED);
        // From one flush of Envoy's statistics to the next.
        let (count, time) = if self.plan.quick { (3, 5) } else { (12, 5) };
        let mut workers: Vec<Vec<f64>> = points.iter().map(|_| Vec::new()).collect();
        let mut all = workers.clone();
        let read = |pid| Ok::<_, anyhow::Error>((Cpu::of_threads(pid, WORKERS)?, Cpu::of_process(pid)?));
        for point in &points {
            point.envoy.halt(true)?;
        }
        for _ in 0..count {
            for (place, point) in points.iter().enumerate() {
                point.envoy.halt(false)?;
                std::thread::sleep(RESUMED);
                let before = read(point.envoy.pid())?;
                std::thread::sleep(Duration::from_secs(time));
                let after = read(point.envoy.pid())?;
                point.envoy.halt(true)?;
                let micros = |used: Duration| used.as_secs_f64() * 1e6 / time as f64;
                workers[place].push(micros(after.0 - before.0));
                all[place].push(micros(after.1 - before.1));
            }
        }
        let rows = || points.iter().map(|point| (point.at, 0)).collect();
        let what = "CPU time of a worker, for a second";
        results.curves.push(curve("models, at rest", what, Some(MOST_IDLE_GROWTH), rows(), &workers));
        // Envoy's main thread goes through all statistics every 5 s.
        let what = "CPU time of all of Envoy, for a second";
        results.curves.push(curve("models, at rest, all threads", what, None, rows(), &all));
        println!("\n{}", report::curves(results));
        Ok(())
    }

    fn tenants(&mut self, results: &mut Results) -> Result<()> {
        let mut points = Vec::new();
        for among in self.points(&[1, 1_000, 1_000_000]) {
            let envoy = self.start(&Variant::Limits.setup(&self.modules), 1, Windows::Default)?;
            let request = Request::predict("resnet", Size::K1.bytes());
            points.push(At { at: among, envoy, request: request.header_any("x-tenant", "tenant-", among) });
        }
        self.grow("tenants", "CPU time for a request", &points, results)
    }

    fn routes(&mut self, results: &mut Results) -> Result<()> {
        let mut points = Vec::new();
        for among in self.points(&[1, 10, 100]) {
            let setup = predictgate(self.modules.predictgate, &routes(among).to_string());
            let envoy = self.start(&setup, 1, Windows::Default)?;
            let request = Request::predict("resnet", Size::K1.bytes());
            points.push(At { at: among, envoy, request: request.header_any("x-route", "route-", among) });
        }
        self.grow("routes of a model", "CPU time for a request", &points, results)
    }

    fn grow(
        &mut self,
        name: &'static str,
        what: &'static str,
        points: &[At],
        results: &mut Results,
    ) -> Result<()> {
        let count = self.plan.requests(Size::K1);
        let mut rounds: Vec<Vec<f64>> = points.iter().map(|_| Vec::new()).collect();
        let mut failed = vec![0; points.len()];
        for round in 0..=self.plan.rounds {
            eprintln!("{name}: round {round} of {}", self.plan.rounds);
            for place in in_turn(points.len(), round) {
                let At { envoy, request, .. } = &points[place];
                let cost = self.closed(envoy, request, CLOSED, count)?;
                failed[place] += cost.ran.requests - cost.ran.whole;
                if 0 < round {
                    rounds[place].push(cost.micros());
                }
            }
        }
        let rows = points.iter().zip(failed).map(|(point, failed)| (point.at, failed)).collect();
        results.curves.push(curve(name, what, Some(MOST_GROWTH), rows, &rounds));
        Ok(())
    }

    /// Workers share state only where they run at once, so here Envoy has all cores. Threads cost an Envoy without
    /// a filter more, too, so what grows is the ratio to it.
    fn workers(&mut self, results: &mut Results) -> Result<()> {
        let count = self.plan.requests(Size::K1);
        let cores = Cores { envoy: self.all.to_vec(), load: self.cores.load.clone() };
        let own = std::mem::replace(&mut self.cores, cores);
        let mut envoys = Vec::new();
        for workers in self.points(&[1, 2, 4]) {
            let start =
                |variant: Variant| self.start(&variant.setup(&self.modules), workers, Windows::Default);
            envoys.push((workers, start(Variant::NoFilter)?, start(Variant::Everything)?));
        }
        self.cores = own;
        let request = predict(Size::K1);
        let mut rounds: Vec<Vec<f64>> = envoys.iter().map(|_| Vec::new()).collect();
        let mut failed = vec![0; envoys.len()];
        for round in 0..=self.plan.rounds {
            eprintln!("workers: round {round} of {}", self.plan.rounds);
            for place in in_turn(envoys.len(), round) {
                let (_, plain, everything) = &envoys[place];
                let plain = self.closed(plain, &request, MANY, count)?;
                let cost = self.closed(everything, &request, MANY, count)?;
                ensure!(
                    plain.ran.whole == plain.ran.requests,
                    "an Envoy without a filter has failed requests"
                );
                failed[place] += cost.ran.requests - cost.ran.whole;
                if 0 < round {
                    rounds[place].push(cost.micros() / plain.micros());
                }
            }
        }
        let rows = envoys.iter().zip(failed).map(|(it, failed)| (it.0, failed)).collect();
        results.curves.push(curve("workers", "ratio to no filter", Some(MOST_GROWTH), rows, &rounds));
        Ok(())
    }
}

fn curve(
    name: &'static str,
    what: &'static str,
    most: Option<f64>,
    rows: Vec<(u32, usize)>,
    rounds: &[Vec<f64>],
) -> Curve {
    let points = rows.into_iter().zip(rounds).map(|((at, failed), values)| {
        let growth = values.iter().zip(&rounds[0]).map(|(value, first)| value / first);
        Point { at, value: Figure::of(values.iter().copied()), growth: Figure::of(growth), failed }
    });
    Curve { name, what, most, points: points.collect() }
}

fn models(count: u32) -> Value {
    let models: Vec<_> = (0..count)
        .map(|number| {
            json!({
                "name": numbered("model-", number, count),
                "targets": { "stable": { "cluster": "tfs-v1" }, "canary": { "cluster": "tfs-v2" } },
                "routes": [
                    { "match": { "version": "1" }, "split": [{ "target": "stable" }] },
                    { "match": { "label": "canary" }, "split": [{ "target": "canary" }] },
                    {
                        "name": "rollout",
                        "split": [{ "target": "stable", "weight": 90 }, { "target": "canary", "weight": 10 }],
                        "sticky": { "by": [{ "header": "x-user-id" }], "salt": "2026-11" },
                        "choose_by": { "header": "x-use-target" },
                    },
                ],
                "outlier_detection": { "consecutive_failures": 5 },
            })
        })
        .collect();
    json!({ "models": models })
}

/// One model with so many routes, by the value of a header.
fn routes(count: u32) -> Value {
    let routes: Vec<_> = (0..count)
        .map(|number| {
            let header = json!({ "name": "x-route", "exact": numbered("route-", number, count) });
            json!({ "match": { "headers": [header] }, "split": [{ "target": "stable" }] })
        })
        .collect();
    json!({
        "models": [{
            "name": "resnet",
            "targets": { "stable": { "cluster": "tfs-v1" } },
            "routes": routes,
            "otherwise": "reject",
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_against_the_first_point_of_the_same_round() {
        let rounds = [vec![10.0, 20.0], vec![11.0, 24.0]];
        let curve = curve("x", "y", None, vec![(1, 0), (2, 3)], &rounds);
        assert!((curve.points[1].growth.least - 1.1).abs() < 1e-9);
        assert!((curve.points[1].growth.most - 1.2).abs() < 1e-9);
        assert_eq!(curve.points[1].failed, 3);
    }
}
