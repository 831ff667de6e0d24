//! Failures in a row, seen by several workers.
//!
//! Workers answer side by side, so there is no one order of all answers. A worker hands over what it saw in its own
//! order as a [`RowPart`]; a part that holds any success restarts the row at the failures behind it. For answers
//! that fail independently of each other this is a row in some order of the same answers, so it is as rare.

#![deny(clippy::arithmetic_side_effects)]

use super::{Reader, Writer};

/// Failures since the last success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub failures: u32,
    /// A bit for each of 64 groups of callers that saw one of the failures.
    callers: u64,
}

/// What one worker saw since it last handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowPart {
    row: Row,
    restarts: bool,
}

/// The bit of a caller by the hash of its address. Two callers can share one, which only makes the count of callers
/// smaller than it is.
pub const fn caller_bit(hash: u64) -> u64 {
    let [.., high] = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    1_u64.rotate_left((high >> 2) as u32)
}

impl Row {
    #[must_use]
    pub fn and(self, part: RowPart) -> Self {
        if part.restarts {
            return part.row;
        }
        Self {
            failures: self.failures.saturating_add(part.row.failures),
            callers: self.callers | part.row.callers,
        }
    }

    /// Whether `failures` in a row were seen by `clients` callers; 0 failures turn the rule off.
    pub fn reaches(self, failures: u32, clients: u32) -> bool {
        // One client is whoever saw the failure, also where nobody asked for its address.
        0 < failures && failures <= self.failures && (clients <= 1 || clients <= self.callers.count_ones())
    }

    pub fn write(self, to: &mut Writer) {
        to.number(u64::from(self.failures));
        to.number(self.callers);
    }

    pub fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self { failures: from.small()?, callers: from.number()? })
    }
}

impl RowPart {
    pub const NONE: Self = Self { row: Row { failures: 0, callers: 0 }, restarts: false };

    pub const fn success(&mut self) {
        *self = Self { restarts: true, ..Self::NONE };
    }

    /// `caller` is the hash of the caller's address, where that is known.
    pub const fn failure(&mut self, caller: Option<u64>) {
        self.row.failures = self.row.failures.saturating_add(1);
        if let Some(caller) = caller {
            self.row.callers |= caller_bit(caller);
        }
    }

    /// What is left to hand over of a part that was not needed so far: it came before whatever follows, so it
    /// restarts nothing.
    pub const fn grow_old(&mut self) {
        self.restarts = false;
    }

    pub const fn is_success(self) -> bool {
        self.row.failures == 0
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows stops")]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// Plays `s`, `f` and, at each `|`, a handing over.
    fn play(events: &str) -> Row {
        let (mut row, mut part) = (Row::default(), RowPart::NONE);
        for event in events.chars() {
            match event {
                's' => part.success(),
                'f' => part.failure(Some(1)),
                _ => row = row.and(std::mem::take(&mut part)),
            }
        }
        row
    }

    #[track_caller]
    fn check(events: &str, failures: u32) {
        assert_eq!(play(events).failures, failures, "{events}");
    }

    #[test]
    fn parts_without_a_success_add_up() {
        check("ff|f|ff|", 5);
    }

    #[test]
    fn a_part_with_a_success_restarts_the_row_at_the_failures_behind_it() {
        check("ffff|fsff|", 2);
        check("ffff|ffs|", 0);
    }

    #[test]
    fn an_empty_part_changes_nothing() {
        check("ff||", 2);
    }

    #[test]
    fn a_row_needs_as_many_callers_as_it_is_asked_for() {
        let mut part = RowPart::NONE;
        for _ in 0..10 {
            part.failure(Some(7));
        }
        let row = Row::default().and(part);
        assert!(row.reaches(10, 1));
        assert!(!row.reaches(10, 2));
        part.failure(Some(8));
        assert!(Row::default().and(part).reaches(10, 2));
        assert!(!row.reaches(0, 1), "0 turns the rule off");
    }

    #[test]
    fn a_failure_of_an_unknown_caller_is_one_callers() {
        let mut part = RowPart::NONE;
        part.failure(None);
        assert!(Row::default().and(part).reaches(1, 1));
        assert!(!Row::default().and(part).reaches(1, 2));
    }

    #[test]
    fn callers_are_spread_over_all_bits() {
        let bits = (0..1000).fold(0, |bits, caller| bits | caller_bit(caller));
        assert_eq!(bits, u64::MAX);
    }
}
