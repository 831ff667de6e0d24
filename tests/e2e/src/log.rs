//! What the filter has written into Envoy's log, and when.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One line of the filter.
#[derive(Clone, Debug)]
pub struct Line {
    pub at: Instant,
    pub text: String,
}

const DAY: u64 = 24 * 60 * 60 * 1000;

/// The filter's lines of a log that is less than a day old and whose times are in UTC.
pub fn lines(log: &str) -> Vec<Line> {
    let (now, wall) = clocks();
    let today = wall.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_millis() as u64 % DAY);
    let line = |line: &str| {
        let (head, text) = line.split_once(" predictgate: ")?;
        let ago = (today + DAY - time_of_day(head)?) % DAY;
        Some(Line { at: now.checked_sub(Duration::from_millis(ago))?, text: text.to_owned() })
    };
    log.lines().filter_map(line).collect()
}

/// The same moment by both clocks, to a millisecond: between two readings another process may have had its turn.
fn clocks() -> (Instant, SystemTime) {
    loop {
        let (now, wall) = (Instant::now(), SystemTime::now());
        if now.elapsed() < Duration::from_millis(1) {
            return (now, wall);
        }
    }
}

/// The milliseconds since midnight of `[2026-11-21 10:11:12.345]...`.
fn time_of_day(head: &str) -> Option<u64> {
    let (_, time) = head.strip_prefix('[')?.split_once(']')?.0.split_once(' ')?;
    let mut parts = time.split([':', '.']).map(|part| part.parse::<u64>().ok());
    let mut next = || parts.next().flatten();
    Some(((next()? * 60 + next()?) * 60 + next()?) * 1000 + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_line_is_read_to_the_millisecond() {
        assert_eq!(time_of_day("[2026-11-21 10:11:12.345][7][warning][wasm] x"), Some(36_672_345));
        assert_eq!(time_of_day("no time"), None);
    }

    #[test]
    fn only_the_filters_lines_are_read() {
        let log = "[2026-11-21 10:11:12.345][7][info] else\n\
                   [2026-11-21 10:11:12.345][7][info][wasm] wasm log predictgate: ejected: model=m\n";
        let lines = lines(log);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].text, "ejected: model=m");
    }
}
