//! The ratios as a picture: a panel for each size, a bar for each variant, and a line over the middle half of the rounds.

use std::fmt::Write as _;

use crate::Size;
use crate::results::{CpuRow, Results};
use crate::variant::Variant;

const PANEL: f64 = 210.0;
const GAP: f64 = 30.0;
const NAMES: f64 = 130.0;
/// What the title needs.
const LEAST_WIDTH: f64 = 560.0;
const ROW: f64 = 22.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 44.0;

/// CPU time of Envoy for a request, to no filter.
pub fn cpu(results: &Results) -> String {
    let sizes: Vec<Size> = [Size::K1, Size::K64, Size::M1, Size::M4]
        .into_iter()
        .filter(|&size| results.cpu(Variant::NoFilter, size).is_some())
        .collect();
    let of = |size: Size| results.cpu.iter().filter(move |row| row.size == size.name());
    let rows = sizes.first().map_or(0, |&size| of(size).count());
    let most = results.cpu.iter().map(|row| row.ratio.quartiles[1]).fold(1.3, f64::max);
    // The axis begins at 0.8: what is to be seen is the difference to 1.
    let scale = Scale { from: 0.8, to: (most * 10.0).ceil() / 10.0 };
    let height = TOP + rows as f64 * ROW + BOTTOM;
    let width = (NAMES + sizes.len() as f64 * (PANEL + GAP)).max(LEAST_WIDTH);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    text(
        &mut svg,
        8.0,
        20.0,
        "start",
        "#111111",
        "CPU time of Envoy for a request, to an Envoy without a filter",
    );
    for (panel, &size) in sizes.iter().enumerate() {
        let left = NAMES + panel as f64 * (PANEL + GAP);
        text(&mut svg, left, TOP - 14.0, "start", "#111111", size.name());
        for step in 0.. {
            let value = scale.from + 0.2 * f64::from(step);
            if scale.to + 1e-9 < value {
                break;
            }
            let x = left + scale.place(value);
            let (y1, y2) = (TOP, height - BOTTOM);
            let colour = if (value - 1.0).abs() < 1e-9 { "#333333" } else { "#dddddd" };
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" y1=\"{y1}\" x2=\"{x:.1}\" y2=\"{y2}\" stroke=\"{colour}\"/>"
            );
            text(&mut svg, x, height - BOTTOM + 16.0, "middle", "#555555", &format!("{value:.1}"));
        }
        for (row, it) in of(size).enumerate() {
            let y = TOP + row as f64 * ROW;
            if panel == 0 {
                text(&mut svg, NAMES - 8.0, y + ROW * 0.68, "end", "#111111", &it.variant);
            }
            bar(&mut svg, it, left, y, scale);
        }
    }
    text(&mut svg, 8.0, height - 8.0, "start", "#555555", &source(results));
    svg.push_str("</svg>\n");
    svg
}

#[derive(Clone, Copy)]
struct Scale {
    from: f64,
    to: f64,
}

impl Scale {
    fn place(self, value: f64) -> f64 {
        ((value - self.from) / (self.to - self.from)).clamp(0.0, 1.0) * PANEL
    }
}

fn bar(svg: &mut String, row: &CpuRow, left: f64, y: f64, scale: Scale) {
    let own = [Variant::Identity, Variant::Split, Variant::Limits, Variant::Everything];
    let colour = if own.iter().any(|it| it.name() == row.variant) { "#2a7fba" } else { "#b0b8c0" };
    let (one, at) = (scale.place(1.0), scale.place(row.ratio.median));
    let (x, width) = (left + one.min(at), (at - one).abs().max(1.0));
    let _ = writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
        y + 4.0,
        ROW - 8.0
    );
    let [lower, upper] = row.ratio.quartiles;
    let (least, most, middle) = (left + scale.place(lower), left + scale.place(upper), y + ROW / 2.0);
    let _ = writeln!(
        svg,
        "<line x1=\"{least:.1}\" y1=\"{middle}\" x2=\"{most:.1}\" y2=\"{middle}\" stroke=\"#111111\"/>"
    );
    text(
        svg,
        most.max(x + width) + 4.0,
        middle + 4.0,
        "start",
        "#111111",
        &format!("{:.2}", row.ratio.median),
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, colour: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{words}</text>"
    );
}

fn source(results: &Results) -> String {
    let of = |name: &str| results.machine.get(name).map_or("", |value| value);
    let envoy = of("envoy").split('/').nth(1).unwrap_or_default();
    format!("median and middle half of rounds; {}, {} cores, Envoy {envoy}", of("cpu"), of("cores"))
}
