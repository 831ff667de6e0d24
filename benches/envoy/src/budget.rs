//! What the figures may be at most.

use serde::Serialize;

use crate::Size;
use crate::results::Results;
use crate::variant::Variant;

/// A figure and its bound.
#[derive(Clone, Debug, Serialize)]
pub struct Bar {
    pub what: String,
    pub value: f64,
    pub most: f64,
    pub unit: &'static str,
}

impl Bar {
    pub fn holds(&self) -> bool {
        self.value <= self.most
    }
}

const TIMES: &str = "x";
const MICROS: &str = "us";
const MB: &str = "MB";
const REQUESTS: &str = "requests";

/// The bounds of all that was measured.
pub fn bars(results: &Results) -> Vec<Bar> {
    let mut bars = Vec::new();
    let mut bar = |what: String, value: f64, most: f64, unit| bars.push(Bar { what, value, most, unit });
    let lua = results.cpu(Variant::LuaBody, Size::K1).map(|row| row.ratio.median);
    for (variant, size, most) in [
        (Variant::Everything, Size::K1, 1.30),
        (Variant::Identity, Size::K1, 1.22),
        (Variant::Split, Size::K1, 1.22),
        (Variant::Everything, Size::K64, 1.12),
        (Variant::Everything, Size::M1, 1.03),
        (Variant::Everything, Size::M4, 1.06),
    ] {
        let Some(row) = results.cpu(variant, size) else { continue };
        let what = format!("CPU, {}, {}, to no filter", row.variant, row.size);
        bar(what, row.ratio.median, most, TIMES);
        if let (Variant::Identity | Variant::Split, Some(lua)) = (variant, lua) {
            bar(format!("the same, to {}", Variant::LuaBody.name()), row.ratio.median / lua, 1.0, TIMES);
        }
    }
    for row in &results.cpu {
        if 0 < row.failed {
            bar(format!("failed, {}, {}", row.variant, row.size), row.failed as f64, 0.0, REQUESTS);
        }
    }
    if let (Some(plain), Some(row)) =
        (results.latency(Variant::NoFilter), results.latency(Variant::Everything))
    {
        let more = row.p50.median - plain.p50.median;
        bar("p50 at 2,000/s, everything, above no filter".to_owned(), more, 60.0, MICROS);
        bar("failed at 2,000/s, everything".to_owned(), row.failed as f64, 0.0, REQUESTS);
    }
    if let (Some(plain), Some(row)) = (results.memory(Variant::NoFilter), results.memory(Variant::Everything))
    {
        let (rest, rise) = (row.rest.median - plain.rest.median, row.rise.median - plain.rise.median);
        bar("memory at rest, everything, above no filter".to_owned(), rest, 40.0, MB);
        bar("rise with 32 x 4 MB, everything, above no filter's".to_owned(), rise, 3.0, MB);
        bar("failed of 32 x 4 MB, everything".to_owned(), row.failed as f64, 0.0, REQUESTS);
        if let Some(noop) = results.memory(Variant::WasmNoop) {
            let more = row.per_worker.median - noop.per_worker.median;
            bar("memory of a further worker, everything, above wasm-noop".to_owned(), more, 2.0, MB);
        }
    }
    for curve in &results.curves {
        let worst = curve.points.iter().map(|point| point.growth.median).fold(0.0, f64::max);
        let (first, last) = (curve.points.first(), curve.points.last());
        let range =
            first.zip(last).map_or(String::new(), |(first, last)| format!("{} to {}", first.at, last.at));
        if let Some(most) = curve.most {
            bar(format!("growth with {range} {}", curve.name), worst, most, TIMES);
        }
        let failed: usize = curve.points.iter().map(|point| point.failed).sum();
        if 0 < failed {
            bar(format!("failed with {}", curve.name), failed as f64, 0.0, REQUESTS);
        }
    }
    bars
}
