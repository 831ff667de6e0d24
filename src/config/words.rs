//! The words of an error: names in quotes, lists of them, and the near name that was perhaps meant.

use std::fmt::Write;

/// Longer texts are cut in errors.
pub const LONGEST: usize = 64;

/// The text in quotes, in one line and not too long.
pub fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for (place, character) in text.chars().enumerate() {
        if place == LONGEST {
            quoted.push_str("...");
            break;
        }
        if character.is_control() || matches!(character, '"' | '\\') {
            quoted.extend(character.escape_default());
        } else {
            quoted.push(character);
        }
    }
    quoted.push('"');
    quoted
}

/// A number to six decimals. The standard library's way to write one to the last bit is a thirtieth of the module.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is cast is whole, not negative and small enough"
)]
pub fn decimal(number: f64) -> String {
    const PARTS: u32 = 1_000_000;
    let sign = if number < 0.0 { "-" } else { "" };
    let parts = (number.abs() * f64::from(PARTS)).round();
    if parts == 0.0 && number != 0.0 {
        return format!("{sign}0.000000...");
    }
    // All whole numbers below are exact.
    if parts > 9e15 {
        return if sign.is_empty() { "more than 9000000000" } else { "less than -9000000000" }.to_owned();
    }
    let (parts, of) = (parts as u64, u64::from(PARTS));
    let (whole, rest) = (parts.div_euclid(of), parts.rem_euclid(of));
    let text = format!("{sign}{whole}.{rest:06}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// More names than this are not listed.
const LISTED: usize = 16;

/// `"a", "b" or "c"`.
pub fn one_of<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names = names.into_iter().peekable();
    let mut listed = String::new();
    for place in 0_usize.. {
        let Some(name) = names.next() else { break };
        if place == LISTED {
            listed.push_str(" or another");
            break;
        }
        match (place, names.peek()) {
            (0, _) => (),
            (_, Some(_)) => listed.push_str(", "),
            (_, None) => listed.push_str(" or "),
        }
        // Writing to a string cannot fail.
        let _ = write!(listed, "{}", quote(name));
    }
    listed
}

/// Names are searched no further than this, so that a wrong name costs little in a large configuration.
const SEARCHED: usize = 512;

/// The name that is the fewest edits away, if they are few for its length.
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let candidates: Vec<&str> =
        names.into_iter().take(SEARCHED).filter(|name| !name.is_empty() && name.len() <= LONGEST).collect();
    (0..=MAX_EDITS).find_map(|edits| {
        let is_near = |name: &str| {
            let allowed = name.len().max(wrong.len()).checked_div(3).unwrap_or(0);
            usize::from(edits) <= allowed && is_within(edits, wrong.as_bytes(), name.as_bytes())
        };
        candidates.iter().copied().find(|name| is_near(name))
    })
}

const MAX_EDITS: u8 = 3;

/// Whether so many edits make one text of the other: a byte added, left out or changed, or two swapped.
///
/// Letters differ by case for nothing. The recursion is as deep as there are edits.
fn is_within(edits: u8, mut left: &[u8], mut right: &[u8]) -> bool {
    if left.len().abs_diff(right.len()) > usize::from(edits) {
        return false;
    }
    while let ([a, left_rest @ ..], [b, right_rest @ ..]) = (left, right) {
        if !a.eq_ignore_ascii_case(b) {
            let Some(edits) = edits.checked_sub(1) else { return false };
            let is_swapped = match (left, right) {
                ([a, b, left_rest @ ..], [c, d, right_rest @ ..]) => {
                    a.eq_ignore_ascii_case(d)
                        && b.eq_ignore_ascii_case(c)
                        && is_within(edits, left_rest, right_rest)
                }
                _ => false,
            };
            return is_swapped
                || is_within(edits, left_rest, right_rest)
                || is_within(edits, left_rest, right)
                || is_within(edits, left, right_rest);
        }
        (left, right) = (left_rest, right_rest);
    }
    left.len().max(right.len()) <= usize::from(edits)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[track_caller]
    fn check(wrong: &str, names: &[&str], expected: Option<&str>) {
        assert_eq!(nearest(wrong, names.iter().copied()), expected, "{wrong} among {names:?}");
    }

    #[test]
    fn a_number_is_written_to_six_decimals() {
        let check = |number: f64, text: &str| assert_eq!(decimal(number), text);
        check(100.5, "100.5");
        check(-0.25, "-0.25");
        check(3.0, "3");
        check(0.0, "0");
        check(0.123_456_78, "0.123457");
        check(1e-9, "0.000000...");
        check(8_999_999_999.5, "8999999999.5");
        check(9_007_199_254.5, "more than 9000000000");
        check(f64::MIN, "less than -9000000000");
    }

    #[test]
    fn a_slip_of_the_fingers_is_near() {
        let names = ["stable", "canary", "shadow"];
        check("canry", &names, Some("canary"));
        check("canaray", &names, Some("canary"));
        check("cnaary", &names, Some("canary"));
        check("CANARY", &names, Some("canary"));
        check("xanarx", &names, Some("canary"));
        check("shade", &names, Some("shadow"));
    }

    #[test]
    fn the_nearest_comes_before_the_first() {
        check("canari", &["canada", "canary"], Some("canary"));
    }

    #[test]
    fn another_name_is_not_near() {
        check("v1", &["v2", "v3"], None);
        check("x", &["", "y"], None);
        check("baseline", &["stable", "canary"], None);
        check("", &["stable"], None);
        check(&"x".repeat(1_000_000), &["stable"], None);
    }

    #[test]
    fn names_are_listed_as_a_sentence_has_them() {
        assert_eq!(one_of([]), "");
        assert_eq!(one_of(["a"]), r#""a""#);
        assert_eq!(one_of(["a", "b"]), r#""a" or "b""#);
        assert_eq!(one_of(["a", "b", "c"]), r#""a", "b" or "c""#);
        assert!(one_of(["a"; 100]).ends_with(r#""a" or another"#));
    }

    #[test]
    fn quoted_text_stays_in_one_short_line() {
        assert_eq!(quote("a\"b\n\u{7}é"), r#""a\"b\n\u{7}é""#);
        assert_eq!(quote(&"a".repeat(1000)).len(), 64 + "\"...\"".len());
    }
}
