//! When requests were admitted and refused, and whether that is what a limit promises.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

const SECOND: u64 = 1_000_000_000;

/// One request, at a moment in nanoseconds on a clock that all workers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decision {
    pub at: u64,
    pub admitted: bool,
}

/// A limit whose requests cost one token each.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Tokens a second.
    pub rate: u64,
    /// Tokens at once.
    pub burst: u64,
}

/// What became of the requests under one limit.
#[derive(Clone, Copy, Debug)]
pub struct Findings {
    pub offered: usize,
    pub admitted: usize,
    /// Admissions at which some interval that ends there has more than rate x its length + burst.
    pub violations: usize,
    /// By how many tokens the worst interval is above that; below zero, how many were left.
    pub above: f64,
    /// The time in which at least twice the rate was offered.
    pub saturated: Duration,
    /// What was admitted in that time, of rate x the time.
    pub share: f64,
}

impl Limit {
    /// Judges all decisions under this limit.
    pub fn judge(self, mut decisions: Vec<Decision>) -> Findings {
        decisions.sort_unstable();
        let (violations, above) = self.excess(&decisions);
        let (saturated, share) = self.saturation(&decisions);
        let admitted = decisions.iter().filter(|it| it.admitted).count();
        Findings { offered: decisions.len(), admitted, violations, above, saturated, share }
    }

    /// The law for every interval at once.
    ///
    /// Of all intervals that end at an admission the one matters that begins where the admissions before it, less
    /// rate x time, are fewest; so one pass is enough, and whole numbers make it exact.
    fn excess(self, decisions: &[Decision]) -> (usize, f64) {
        let (mut before, mut fewest, mut most, mut violations) = (0_i128, i128::MAX, i128::MIN, 0);
        for decision in decisions.iter().filter(|it| it.admitted) {
            let filled = i128::from(self.rate) * i128::from(decision.at);
            fewest = fewest.min(before - filled);
            before += i128::from(SECOND);
            let above = before - filled - fewest - i128::from(self.burst) * i128::from(SECOND);
            most = most.max(above);
            violations += usize::from(0 < above);
        }
        (violations, most as f64 / SECOND as f64)
    }

    /// Looks at the seconds after the first refusal in which twice the rate was offered, each row of them from its
    /// first admission to its last.
    fn saturation(self, decisions: &[Decision]) -> (Duration, f64) {
        let Some(first) = decisions.iter().position(|it| !it.admitted) else { return (Duration::ZERO, 0.0) };
        let rest = &decisions[first..];
        let begin = rest[0].at;
        let second = |it: &Decision| (it.at - begin) / SECOND;
        // The last second is not whole.
        let last = rest.last().map_or(0, second);
        let mut rows: Vec<Vec<u64>> = vec![Vec::new()];
        for chunk in rest.chunk_by(|a, b| second(a) == second(b)) {
            let is_saturated = 2 * self.rate <= chunk.len() as u64 && second(&chunk[0]) < last;
            match rows.last_mut() {
                Some(row) if is_saturated => {
                    row.extend(chunk.iter().filter(|it| it.admitted).map(|it| it.at))
                }
                _ => rows.push(Vec::new()),
            }
        }
        let (mut admitted, mut time) = (0, 0);
        for row in rows {
            if let [first, .., last] = row[..] {
                admitted += row.len() - 1;
                time += last - first;
            }
        }
        let wanted = self.rate as f64 * time as f64 / SECOND as f64;
        (Duration::from_nanos(time), if 0.0 < wanted { admitted as f64 / wanted } else { 0.0 })
    }
}

/// What the filter has logged of its decisions, by the places of the models in the configuration.
///
/// # Errors
///
/// When a line is not of the form that the filter writes.
pub fn of_log(log: &str) -> Result<BTreeMap<usize, Vec<Decision>>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (_, line) in log.lines().filter_map(|line| line.split_once("decisions: ")) {
        for word in line.split_whitespace() {
            let (model, decision) = read(word).with_context(|| format!("{word} is no decision"))?;
            all.entry(model).or_default().push(decision);
        }
    }
    Ok(all)
}

/// How often workers found that another had written first.
pub fn conflicts(log: &str) -> u64 {
    log.lines().filter_map(|line| line.split_once("conflicts: ")?.1.parse::<u64>().ok()).sum()
}

fn read(word: &str) -> Option<(usize, Decision)> {
    let (model, decision) = word.split_once(':')?;
    let (at, admitted) = match decision.strip_suffix('+') {
        Some(at) => (at, true),
        None => (decision.strip_suffix('-')?, false),
    };
    Some((model.parse().ok()?, Decision { at: at.parse().ok()?, admitted }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { rate: 10, burst: 2 };

    /// One row of admissions, in milliseconds.
    fn judge(admitted: &[u64]) -> Findings {
        LIMIT.judge(admitted.iter().map(|at| Decision { at: at * 1_000_000, admitted: true }).collect())
    }

    #[test]
    fn a_burst_and_what_fills_are_within_the_law() {
        let found = judge(&[1000, 1000, 1100, 1200, 1300]);
        assert_eq!((found.violations, found.admitted), (0, 5));
        assert!(found.above.abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn one_more_than_that_is_found_in_the_interval_that_has_it() {
        // By its average the whole is far below the rate.
        let found = judge(&[1000, 9000, 9000, 9099, 20_000]);
        assert_eq!(found.violations, 1);
        assert!((found.above - 0.01).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn only_seconds_of_twice_the_rate_count_as_saturated() {
        // 40 a second are offered for three seconds and 10 for two; every fourth and every second is admitted.
        let crowded = (0..120).map(|at| Decision { at: at * 25_000_000, admitted: at % 4 == 1 });
        let quiet = (0..20).map(|at| Decision { at: 3 * SECOND + at * 100_000_000, admitted: at % 2 == 1 });
        let found = LIMIT.judge(crowded.chain(quiet).collect());
        assert_eq!(found.saturated, Duration::from_millis(2900));
        assert!((found.share - 1.0).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn decisions_are_read_from_the_log_among_other_words() {
        let log = "[info] wasm log: decisions: 0:17+ 1:18-\n[info] other\nwasm log: decisions: 0:19-\n";
        let all = of_log(log).unwrap();
        assert_eq!(all[&0], [Decision { at: 17, admitted: true }, Decision { at: 19, admitted: false }]);
        assert_eq!(all[&1], [Decision { at: 18, admitted: false }]);
        assert!(of_log("decisions: 0:17\n").is_err());
    }
}
