//! What a program has said, in a file.

use std::fs;
use std::path::Path;

const LINES: usize = 25;

pub fn read(log: &Path) -> String {
    String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned()
}

/// The last lines, for whom it may tell why something failed.
pub fn end_of(program: &str, log: &Path) -> String {
    let text = read(log);
    let lines: Vec<_> = text.lines().collect();
    let start = lines.len().saturating_sub(LINES);
    format!("the end of {program}'s log:\n{}\n", lines.get(start..).unwrap_or_default().join("\n"))
}
