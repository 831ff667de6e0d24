//! Durations such as `250ms` and moments such as `2026-11-21T10:00:00Z`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::at::At;
use super::json::Value;
use crate::units::WallTime;

/// The longest time that any setting takes.
pub const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The shortest that makes a difference: clocks and ticks of the host are no finer.
pub const SHORTEST: Duration = Duration::from_millis(1);

/// From the longest to the shortest, each with its nanoseconds.
const UNITS: [(&str, u64); 4] =
    [("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000)];

impl At<'_> {
    pub fn duration(self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let Value::Text(text) = self.value() else { return self.expected(EXAMPLES) };
        let Some(duration) = duration(text) else { return self.expected(EXAMPLES) };
        if range.contains(&duration) {
            return Some(duration);
        }
        let (least, most) = (spell(*range.start()), spell(*range.end()));
        self.expected(format_args!("a duration from {least} to {most}"))
    }

    pub fn moment(self) -> Option<WallTime> {
        let found = self.text()?;
        moment(found)
            .or_else(|| self.expected("a time in UTC such as \"2026-11-21T10:00:00Z\", from 1970 to 2553"))
    }
}

const EXAMPLES: &str = r#"a duration such as "250ms", "0.25s", "10s", "5m" or "24h""#;

/// Digits, perhaps with a fraction, and one unit.
fn duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|character: char| character.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at_checked(unit_at)?;
    let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) => (digits(whole)?, billionths(fraction)?),
        None => (digits(number)?, 0),
    };
    let whole = whole.checked_mul(*nanos)?;
    let fraction = u128::from(fraction).checked_mul(u128::from(*nanos))?;
    if fraction.checked_rem(BILLION)? != 0 {
        return None;
    }
    let fraction = u64::try_from(fraction.checked_div(BILLION)?).ok()?;
    Some(Duration::from_nanos(whole.checked_add(fraction)?))
}

const BILLION: u128 = 1_000_000_000;

/// The largest unit in which the duration is a whole number.
fn spell(duration: Duration) -> String {
    let nanos = crate::units::nanos(duration);
    let unit = UNITS.iter().find(|(_, unit)| nanos != 0 && nanos.checked_rem(*unit) == Some(0));
    let (name, unit) = unit.unwrap_or(&("s", 1_000_000_000));
    format!("{}{name}", nanos.checked_div(*unit).unwrap_or(0))
}

/// RFC 3339 in UTC.
fn moment(text: &str) -> Option<WallTime> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let (time, fraction) = match time.split_once('.') {
        Some((time, fraction)) => (time, billionths(fraction)?),
        None => (time, 0),
    };
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let is_of_day = hour < 24 && minute < 60 && second < 60;
    if !is_of_day || !(1970..2554).contains(&year) || !(1..=days_in(year, month)?).contains(&day) {
        return None;
    }
    let years: u64 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    let months: u64 = (1..month).filter_map(|month| days_in(year, month)).sum();
    let days = years.checked_add(months)?.checked_add(day)?.checked_sub(1)?;
    let hours = days.checked_mul(24)?.checked_add(hour)?;
    let minutes = hours.checked_mul(60)?.checked_add(minute)?;
    let seconds = minutes.checked_mul(60)?.checked_add(second)?;
    let nanos = seconds.checked_mul(1_000_000_000)?.checked_add(fraction)?;
    Some(WallTime::from_nanos(nanos))
}

fn days_in(year: u64, month: u64) -> Option<u64> {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        4 | 6 | 9 | 11 => Some(30),
        2 => Some(if is_leap(year) { 29 } else { 28 }),
        _ => None,
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// Three numbers of so many digits each.
fn numbers(text: &str, separator: char, lengths: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; 3];
    for (number, length) in numbers.iter_mut().zip(lengths) {
        *number = parts.next().filter(|part| part.len() == length).and_then(digits)?;
    }
    parts.next().is_none().then_some(numbers)
}

fn digits(text: &str) -> Option<u64> {
    // `parse` alone would take a sign.
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// One to nine digits behind the point.
fn billionths(text: &str) -> Option<u64> {
    let missing = 9_usize.checked_sub(text.len())?;
    let scale = 10_u64.checked_pow(u32::try_from(missing).ok()?)?;
    digits(text)?.checked_mul(scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[track_caller]
    fn check_duration(text: &str, expected: Option<u64>) {
        assert_eq!(duration(text), expected.map(Duration::from_nanos), "{text}");
    }

    #[track_caller]
    fn check_moment(text: &str, expected: Option<u64>) {
        let found = moment(text).map(WallTime::as_nanos);
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        check_duration("250ms", Some(250_000_000));
        check_duration("0.25s", Some(250_000_000));
        check_duration("10s", Some(10_000_000_000));
        check_duration("5m", Some(300_000_000_000));
        check_duration("1h", Some(3_600_000_000_000));
        check_duration("24h", Some(86_400_000_000_000));
        check_duration("1.5h", Some(5_400_000_000_000));
        check_duration("0s", Some(0));
        check_duration("0.000001ms", Some(1));
        check_duration("5124095h", Some(18_446_742_000_000_000_000));
    }

    #[test]
    fn anything_else_is_no_duration() {
        let wrong = ["", "s", "10", "10 s", " 10s", "-1s", "+1s", "1.s", ".5s", "1e3s", "1h30m", "10S", "1d"];
        let beyond = ["1.0000000001s", "0.0000001ms", "5124096h", "99999999999999999999s", "١s", "1us"];
        for text in wrong.into_iter().chain(beyond) {
            check_duration(text, None);
        }
    }

    #[test]
    fn a_bound_is_spelled_as_an_operator_would() {
        let spelled = [1, 1500, 60_000, 90_000, 86_400_000].map(|it| spell(Duration::from_millis(it)));
        assert_eq!(spelled, ["1ms", "1500ms", "1m", "90s", "24h"]);
        assert_eq!(spell(Duration::ZERO), "0s");
    }

    #[test]
    fn a_moment_is_counted_from_1970() {
        check_moment("1970-01-01T00:00:00Z", Some(0));
        check_moment("2000-02-29T23:59:59Z", Some(951_868_799_000_000_000));
        check_moment("2001-09-09T01:46:40.000000001Z", Some(1_000_000_000_000_000_001));
        check_moment("2026-11-21T10:00:00Z", Some(1_795_255_200_000_000_000));
        check_moment("2026-11-21T10:00:00.5Z", Some(1_795_255_200_500_000_000));
        check_moment("2553-12-31T23:59:59Z", Some(18_429_292_799_000_000_000));
    }

    #[test]
    fn anything_else_is_no_moment() {
        let wrong = [
            "",
            "Z",
            "2026-11-21",
            "2026-11-21T10:00:00",
            "2026-11-21T10:00:00+00:00",
            "2026-11-21 10:00:00Z",
            "2026-11-21T10:00Z",
            "2026-11-21T10:00:00.Z",
            "2026-11-21T10:00:00.0000000001Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T10:60:00Z",
            "2026-11-21T10:00:60Z",
            "2026-02-29T10:00:00Z",
            "2100-02-29T10:00:00Z",
            "2026-13-01T10:00:00Z",
            "2026-00-01T10:00:00Z",
            "2026-01-00T10:00:00Z",
            "1969-12-31T23:59:59Z",
            "2554-01-01T00:00:00Z",
            "+026-01-01T00:00:00Z",
            "2026-1-001T00:00:00Z",
            "2026-01-01-01T00:00:00Z",
        ];
        for text in wrong {
            check_moment(text, None);
        }
    }
}
