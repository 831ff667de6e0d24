//! Numbers: counts, percentages, fractions and factors, without floating point once they are read.

use std::ops::RangeInclusive;

use super::at::At;
use super::json::Value;
use crate::units::{Factor, Share};

/// Beyond this, not every whole number has a floating point form.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

impl At<'_> {
    /// A whole number; Istio's numbers are floating point, so `2.0` is one.
    #[allow(clippy::cast_possible_truncation, reason = "the number is whole and small enough")]
    pub fn integer(self) -> Option<i64> {
        match self.value() {
            Value::Whole(number) => Some(*number),
            Value::Decimal(number) if number.fract() == 0.0 && number.abs() <= MAX_EXACT => {
                Some(*number as i64)
            }
            _ => None,
        }
    }

    pub fn whole(self, range: RangeInclusive<u32>) -> Option<u32> {
        let number = self.integer().and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| range.contains(number));
        number.or_else(|| {
            self.expected(format_args!("a whole number from {} to {}", range.start(), range.end()))
        })
    }

    pub fn power_of_two(self, range: RangeInclusive<u32>) -> Option<u32> {
        let number = self.whole(range)?;
        if number.is_power_of_two() {
            return Some(number);
        }
        let below = number.checked_ilog2().and_then(|log| 1_u32.checked_shl(log)).unwrap_or(1);
        self.expected(format_args!("a power of two such as {below} or {}", below.saturating_mul(2)))
    }

    pub fn percent(self) -> Option<Share> {
        let share = self.scaled(10_000.0).filter(|millionths| *millionths <= Share::WHOLE.millionths());
        share
            .map(Share::from_millionths)
            .or_else(|| self.expected("a percentage from 0 to 100 with at most 4 decimals"))
    }

    /// A part of one that is neither nothing nor the whole.
    pub fn fraction(self) -> Option<Share> {
        let range = 1..Share::WHOLE.millionths();
        let share = self.scaled(1_000_000.0).filter(|millionths| range.contains(millionths));
        share
            .map(Share::from_millionths)
            .or_else(|| self.expected("a number above 0 and below 1 with at most 6 decimals"))
    }

    /// How many times as much; 0 turns the rule off.
    pub fn ratio(self) -> Option<Factor> {
        let factor = self.scaled(1000.0).filter(|it| *it == 0 || (1000..=MAX_FACTOR).contains(it));
        factor
            .map(Factor::from_thousandths)
            .or_else(|| self.expected("0 (off), or a number from 1 to 1000 with at most 3 decimals"))
    }

    pub fn factor(self) -> Option<Factor> {
        let factor = self.scaled(1000.0).filter(|it| *it <= MAX_FACTOR);
        factor
            .map(Factor::from_thousandths)
            .or_else(|| self.expected("a number from 0 to 1000 with at most 3 decimals"))
    }

    /// The number in units of one `scale`-th, if it is a whole number of them.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "the result is checked to be whole and to fit; numbers that lose precision are refused"
    )]
    fn scaled(self, scale: f64) -> Option<u32> {
        let number = match self.value() {
            Value::Whole(number) => *number as f64,
            Value::Decimal(number) => *number,
            _ => return None,
        };
        let scaled = number * scale;
        let nearest = scaled.round();
        let is_whole = (scaled - nearest).abs() < 1e-6;
        (is_whole && 0.0 <= nearest && nearest <= f64::from(u32::MAX)).then_some(nearest as u32)
    }
}

const MAX_FACTOR: u32 = 1_000_000;

#[cfg(test)]
#[allow(clippy::redundant_closure_for_method_calls, reason = "a method alone is of one lifetime only")]
mod tests {
    use super::super::at::Reading;
    use super::super::json;
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[track_caller]
    fn check<T: PartialEq + std::fmt::Debug>(
        read: impl FnOnce(At<'_>) -> Option<T>,
        text: &str,
        expected: impl Into<Option<T>>,
    ) {
        let expected = expected.into();
        let (tree, reading) = (json::parse(text).unwrap(), Reading::default());
        let found = read(At { json: &tree, reading: &reading });
        assert_eq!(found, expected, "{text}");
        assert_eq!(reading.into_problems().is_empty(), expected.is_some(), "{text}");
    }

    #[track_caller]
    fn check_percent(text: &str, millionths: Option<u32>) {
        check(|at| at.percent(), text, millionths.map(Share::from_millionths));
    }

    #[track_caller]
    fn check_fraction(text: &str, millionths: Option<u32>) {
        check(|at| at.fraction(), text, millionths.map(Share::from_millionths));
    }

    #[track_caller]
    fn check_ratio(text: &str, thousandths: Option<u32>) {
        check(|at| at.ratio(), text, thousandths.map(Factor::from_thousandths));
    }

    #[test]
    fn a_percentage_has_four_decimals() {
        check_percent("0", Some(0));
        check_percent("100", Some(1_000_000));
        check_percent("0.0001", Some(1));
        check_percent("33.3333", Some(333_333));
        check_percent("99.9999", Some(999_999));
        check_percent("5e1", Some(500_000));
        check_percent("-0.0", Some(0));
        check_percent("0.00001", None);
        check_percent("100.0001", None);
        check_percent("-1", None);
        check_percent("1e300", None);
        check_percent("9223372036854775807", None);
        check_percent("\"5\"", None);
    }

    #[test]
    fn a_fraction_is_neither_nothing_nor_the_whole() {
        check_fraction("0.999", Some(999_000));
        check_fraction("0.999999", Some(999_999));
        check_fraction("0", None);
        check_fraction("1", None);
        check_fraction("0.9999999", None);
    }

    #[test]
    fn a_ratio_is_off_or_at_least_one() {
        check_ratio("0", Some(0));
        check_ratio("1", Some(1000));
        check_ratio("2.5", Some(2500));
        check_ratio("0.5", None);
        check_ratio("1000.001", None);
        check(|at| at.factor(), "0.5", Some(Factor::from_thousandths(500)));
    }

    #[test]
    fn a_whole_number_may_be_written_as_floating_point() {
        check(|at| at.whole(1..=10), "2.0", Some(2));
        check(|at| at.whole(1..=10), "2.5", None);
        check(|at| at.whole(1..=10), "11", None);
        check(|at| at.whole(0..=u32::MAX), "4294967296", None);
        check(|at| at.whole(0..=u32::MAX), "-1", None);
        check(|at| at.power_of_two(4..=64), "32", Some(32));
        check(|at| at.power_of_two(4..=64), "33", None);
    }
}
