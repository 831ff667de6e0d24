//! Tables for people, JSON for programs, plots for both.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;
use serde_json::json;

use crate::budget::Bar;
use crate::results::{Figure, Results};
use crate::variant::Variant;
use crate::{Size, plot};

const HEAD: &str = "\
# What the filter costs

Written by `cargo xtask bench`.
One Envoy has a core to itself; callers and model servers share another, in one thread that needs a few microseconds for a request (`load, us`).
Rounds of all variants alternate, and a ratio is to no filter in the same round: the median, and in brackets the least and the most of all rounds.
`no-filter-again` is a second copy of `no-filter`; a run in which the two differ by more than 5 % is not published.
CPU time is that of the whole process, by the kernel's own account.

";

/// What Markdown wants of the rule under a head.
const LEAST_COLUMN: usize = 3;

/// Columns of equal width, so that the same table reads well on a terminal and as Markdown.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count(), LEAST_COLUMN]).max().unwrap_or(LEAST_COLUMN)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &[String]| {
        for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let _ = match column {
                0 => write!(text, "| {cell:width$} |"),
                _ => write!(text, " {cell:>width$} |"),
            };
        }
        text.push('\n');
    };
    line(&head.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>());
    let rule = |(column, width): (usize, &usize)| match column {
        0 => "-".repeat(*width),
        _ => format!("{}:", "-".repeat(width.saturating_sub(1))),
    };
    line(&widths.iter().enumerate().map(rule).collect::<Vec<_>>());
    for row in rows {
        line(row);
    }
    text
}

fn range(figure: Figure, decimals: usize) -> String {
    let Figure { median, least, most, .. } = figure;
    format!("{median:.decimals$} ({least:.decimals$} to {most:.decimals$})")
}

pub fn cpu(results: &Results, size: Size) -> String {
    let head = ["", "CPU, us", "to no filter", "requests/s", "core busy", "to canary", "load, us", "failed"];
    let rows = results.cpu.iter().filter(|row| row.size == size.name());
    let rows: Vec<_> = rows
        .map(|row| {
            vec![
                row.variant.clone(),
                range(row.micros, 1),
                range(row.ratio, 3),
                format!("{:.0}", row.requests_per_second.median),
                format!("{:.0} %", row.busy * 100.0),
                format!("{:.1} %", row.canary * 100.0),
                format!("{:.1}", row.load_micros),
                row.failed.to_string(),
            ]
        })
        .collect();
    let alone = results.load_alone.get(size.name()).copied().unwrap_or_default();
    format!(
        "CPU time of Envoy for a request of {} (callers and servers alone do {alone:.0} requests/s)\n\n{}",
        size.name(),
        table(&head, &rows)
    )
}

/// The table of all sizes: ratios only.
fn ratios(results: &Results) -> String {
    let sizes: Vec<Size> = [Size::K1, Size::K64, Size::M1, Size::M4]
        .into_iter()
        .filter(|&size| results.cpu(Variant::NoFilter, size).is_some())
        .collect();
    let mut head = vec!["CPU time, to no filter"];
    head.extend(sizes.iter().map(|size| size.name()));
    let mut names: Vec<&str> = Vec::new();
    for row in &results.cpu {
        if !names.contains(&&*row.variant) {
            names.push(&row.variant);
        }
    }
    let rows: Vec<_> = names
        .into_iter()
        .map(|name| {
            let of = |size: &Size| {
                let row = results.cpu.iter().find(|row| row.variant == name && row.size == size.name());
                row.map_or("-".to_owned(), |row| range(row.ratio, 2))
            };
            std::iter::once(name.to_owned()).chain(sizes.iter().map(of)).collect()
        })
        .collect();
    table(&head, &rows)
}

pub fn latency(results: &Results) -> String {
    let head = ["", "p50, us", "p99, us", "p99.9, us", "failed"];
    let tail =
        |figure: Figure, is_noise| format!("{:.0}{}", figure.median, if is_noise { " (noise)" } else { "" });
    let rows: Vec<_> = results
        .latency
        .iter()
        .map(|row| {
            vec![
                row.variant.clone(),
                range(row.p50, 0),
                tail(row.p99, row.p99_is_noise),
                tail(row.p999, row.p999_is_noise),
                row.failed.to_string(),
            ]
        })
        .collect();
    format!(
        "From when a request of 1 KB is due to the end of its answer, at 2,000 requests per second; a tail is noise \
         where no filter shows it, too\n\n{}",
        table(&head, &rows)
    )
}

pub fn memory(results: &Results) -> String {
    let head = ["", "at rest, MB", "each further worker, MB", "rise with 32 x 4 MB, MB", "failed"];
    let rows: Vec<_> = results
        .memory
        .iter()
        .map(|row| {
            vec![
                row.variant.clone(),
                range(row.rest, 1),
                range(row.per_worker, 1),
                range(row.rise, 1),
                row.failed.to_string(),
            ]
        })
        .collect();
    format!(
        "Memory of Envoy, with windows of 64 KiB for a stream and buffers of 32 KiB for a connection\n\n{}",
        table(&head, &rows)
    )
}

pub fn curves(results: &Results) -> String {
    let head = ["", "number", "value", "growth", "failed"];
    let rows: Vec<_> = results
        .curves
        .iter()
        .flat_map(|curve| {
            curve.points.iter().map(|point| {
                vec![
                    format!("{}: {}", curve.name, curve.what),
                    point.at.to_string(),
                    format!("{:.2}", point.value.median),
                    range(point.growth, 3),
                    point.failed.to_string(),
                ]
            })
        })
        .collect();
    format!("How costs grow, in microseconds where they are times\n\n{}", table(&head, &rows))
}

pub fn bars(bars: &[Bar]) -> String {
    let head = ["budget", "measured", "at most", ""];
    let rows: Vec<_> = bars
        .iter()
        .map(|bar| {
            let verdict = if bar.holds() { "holds" } else { "exceeded" };
            let number = |value: f64| match bar.unit {
                "x" => format!("{value:.3}"),
                _ => format!("{value:.1} {}", bar.unit),
            };
            vec![bar.what.clone(), number(bar.value), number(bar.most), verdict.to_owned()]
        })
        .collect();
    table(&head, &rows)
}

/// Writes `results.json`, the plots, and a page that shows all of it.
///
/// # Errors
///
/// When the folder cannot be written.
pub fn write(results: &Results, budget: &[Bar], folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let put = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    let whole = json!({ "results": results, "budget": budget });
    put("results.json", &format!("{}\n", serde_json::to_string_pretty(&whole)?))?;
    let mut page = HEAD.to_owned();
    for (name, value) in &results.machine {
        let _ = writeln!(page, "- {name}: {value}");
    }
    let _ = writeln!(page, "- module: {} bytes\n", results.module_bytes);
    if !results.cpu.is_empty() {
        put("cpu.svg", &plot::cpu(results))?;
        let _ = writeln!(page, "![CPU time of Envoy, to no filter](cpu.svg)\n\n{}", ratios(results));
        for size in [Size::K1, Size::K64, Size::M1, Size::M4] {
            if results.cpu(Variant::NoFilter, size).is_some() {
                let _ = writeln!(page, "{}", cpu(results, size));
            }
        }
    }
    if !results.latency.is_empty() {
        let _ = writeln!(page, "{}", latency(results));
    }
    if !results.memory.is_empty() {
        let _ = writeln!(page, "{}", memory(results));
    }
    if !results.curves.is_empty() {
        let _ = writeln!(page, "{}", curves(results));
    }
    let _ = write!(page, "{}", bars(budget));
    put("README.md", &page)
}

/// Between these lines of the project's README stands what a run has written.
const BEGINS: &str = "<!-- Written by `cargo xtask bench`. -->\n";
const ENDS: &str = "<!-- End of what it has written. -->";

/// Puts the ratios, latencies and memory into a README, between two lines that are there already.
///
/// # Errors
///
/// When the lines are not there, or the file cannot be written.
pub fn write_readme(results: &Results, path: &Path) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let (before, rest) = text.split_once(BEGINS).with_context(|| missing(path, BEGINS))?;
    let (_, after) = rest.split_once(ENDS).with_context(|| missing(path, ENDS))?;
    fs::write(path, format!("{before}{BEGINS}{}{ENDS}{after}", summary(results)))
        .with_context(|| path.display().to_string())
}

fn missing(path: &Path, line: &str) -> String {
    format!("{} has no line {:?}", path.display(), line.trim_end())
}

/// What the variants of a run are.
fn legend(results: &Results) -> String {
    let measured = |name: &str| results.cpu.iter().any(|row| row.variant == name);
    let lines = Variant::value_variants().iter().filter_map(|variant| {
        let value = variant.to_possible_value()?;
        let help = value.get_help().filter(|_| measured(value.get_name()))?;
        Some(format!("- `{}`: {help}\n", value.get_name()))
    });
    lines.collect()
}

fn summary(results: &Results) -> String {
    let machine: Vec<_> = results.machine.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let head = ["", "p50 at 2,000/s, us", "at rest, MB", "each further worker, MB"];
    let rows: Vec<_> = results
        .latency
        .iter()
        .filter_map(|row| {
            let memory = results.memory.iter().find(|memory| memory.variant == row.variant)?;
            Some(vec![
                row.variant.clone(),
                format!("{:.0}", row.p50.median),
                format!("{:.0}", memory.rest.median),
                format!("{:.1}", memory.per_worker.median),
            ])
        })
        .collect();
    format!(
        "Measured on {}.\n\
         CPU time is that of a whole Envoy for a request of the size named, divided by that of an Envoy without a \
         filter in the same round: the median, and in brackets the least and the most of all rounds.\n\
         [All figures](docs/benchmarks/README.md), with what they are to be at most, are there.\n\n{}\n{}\n{}\n",
        machine.join("; "),
        legend(results),
        ratios(results),
        table(&head, &rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_lines_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("README.md");
        let results = Results::new([("cpu".to_owned(), "one".to_owned())].into());
        fs::write(&path, "before\n").unwrap();
        assert!(write_readme(&results, &path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "before\n");
        fs::write(&path, format!("before\n{BEGINS}old\n{ENDS}\nafter\n")).unwrap();
        write_readme(&results, &path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(&format!("before\n{BEGINS}Measured on cpu: one.\n")), "{text}");
        assert!(text.ends_with(&format!("{ENDS}\nafter\n")) && !text.contains("old"), "{text}");
    }

    #[test]
    fn a_table_is_aligned_and_markdown() {
        let rows =
            [vec!["no-filter".to_owned(), "1.00".to_owned()], vec!["x".to_owned(), "12.34".to_owned()]];
        let expected = "\
|           |     b |
| --------- | ----: |
| no-filter |  1.00 |
| x         | 12.34 |
";
        assert_eq!(table(&["", "b"], &rows), expected);
    }
}
