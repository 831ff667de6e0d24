//! How far the users that a target has may be from its share.

/// Standard deviations that a count may be off: by chance, 7 of 1,000,000 counts are further off.
const DEVIATIONS: f64 = 4.5;

/// By how much the count of `users` who are at a target with this share may miss `users * share`.
///
/// Users are dealt out one independently of the other, so the count is binomial, with a standard deviation of
/// sqrt(users * share * (1 - share)). Half a user more allows for counts being whole.
pub fn tolerance(users: usize, share: f64) -> f64 {
    DEVIATIONS * (users as f64 * share * (1.0 - share)).sqrt() + if is_chance(share) { 0.5 } else { 0.0 }
}

/// Whether so many of `users` are what the share makes of them.
pub fn holds(count: usize, users: usize, share: f64) -> bool {
    (count as f64 - users as f64 * share).abs() <= tolerance(users, share)
}

/// All and nothing leave nothing to chance.
fn is_chance(share: f64) -> bool {
    0.0 < share && share < 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_may_miss_its_share_by_four_and_a_half_deviations() {
        // The deviation of 10,000 * 0.5 is 50.
        assert!(holds(5_225, 10_000, 0.5) && holds(4_775, 10_000, 0.5));
        assert!(!holds(5_226, 10_000, 0.5) && !holds(4_774, 10_000, 0.5));
    }

    #[test]
    fn nothing_and_all_are_exact() {
        assert!(holds(0, 100, 0.0) && !holds(1, 100, 0.0));
        assert!(holds(100, 100, 1.0) && !holds(99, 100, 1.0));
    }
}
