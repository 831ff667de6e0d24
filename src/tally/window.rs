//! A sliding window of six closed buckets, and the one that is open.
//!
//! Buckets lie at multiples of their width on a clock that all workers share. What a worker hands over goes into
//! the bucket that is open then, so every request is in exactly six windows. Who closes a bucket judges the window.

#![deny(clippy::arithmetic_side_effects)]

use std::time::Duration;

use super::{Latencies, Proportion, Reader, Writer};
use crate::units::{Instant, nanos};

/// How many closed buckets a window has.
pub const BUCKETS: usize = 6;

/// What became of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub requests: u32,
    /// Those that speak against the target.
    pub bad: u32,
    /// A bit for each of 64 groups of callers that saw a bad one, where callers are asked for.
    pub callers: u64,
    /// Of those that succeeded: an error must not look fast.
    pub latencies: Latencies,
}

impl Counts {
    pub const NONE: Self = Self { requests: 0, bad: 0, callers: 0, latencies: Latencies::NONE };

    /// So many bad ones of so many requests, of which the good ones took so many milliseconds.
    #[cfg(test)]
    pub fn of(bad: u32, requests: u32, millis: u64) -> Self {
        let mut counts = Self { requests, bad, ..Self::NONE };
        for _ in bad..requests {
            counts.latencies.add(Duration::from_millis(millis));
        }
        counts
    }

    pub const fn is_empty(&self) -> bool {
        self.requests == 0
    }

    /// Whether so many callers saw what is bad.
    pub const fn seen_by(&self, clients: u32) -> bool {
        // One client is whoever saw it, also where nobody asked for its address.
        clients <= 1 || clients <= self.callers.count_ones()
    }

    pub const fn proportion(&self) -> Proportion {
        Proportion { bad: self.bad, of: self.requests }
    }

    // A copy at each of its uses makes the module a kilobyte larger.
    #[inline(never)]
    pub fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.bad = self.bad.saturating_add(other.bad);
        self.callers |= other.callers;
        self.latencies.add_all(&other.latencies);
    }

    /// Keeps the memory for the next counts.
    pub fn clear(&mut self) {
        (self.requests, self.bad, self.callers) = (0, 0, 0);
        self.latencies.clear();
    }

    /// Whether there is more to say than how many requests there were.
    const fn has_more(&self) -> bool {
        self.bad != 0 || self.callers != 0 || self.latencies.total() != 0
    }

    /// Most counts are one number: what nobody failed and nobody timed.
    fn write(&self, to: &mut Writer) {
        to.number(u64::from(self.requests) << 1 | u64::from(self.has_more()));
        if self.has_more() {
            to.number(u64::from(self.bad));
            to.number(self.callers);
            self.latencies.write(to);
        }
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let number = from.number()?;
        let requests = u32::try_from(number >> 1).ok()?;
        if number & 1 == 0 {
            return Some(Self { requests, ..Self::NONE });
        }
        // No more can be bad than there are.
        let bad = from.small()?.min(requests);
        Some(Self { requests, bad, callers: from.number()?, latencies: Latencies::read(from)? })
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The number of the open bucket on the clock; 0 before the first.
    number: u64,
    open: Counts,
    /// The newest first.
    closed: [Counts; BUCKETS],
}

/// How long a bucket of a window lasts.
pub fn width(window: Duration) -> u64 {
    match nanos(window).checked_div(BUCKETS as u64) {
        Some(0) | None => 1,
        Some(width) => width,
    }
}

impl Window {
    /// Closes what has ended by `now`, and says whether the window then holds something to judge.
    pub fn close(&mut self, window: Duration, now: Instant) -> bool {
        let number = number(window, now);
        if number.saturating_add(1) < self.number {
            // No worker's clock is a bucket ahead: the window had another length, or the memory is not to be trusted.
            *self = Self::default();
        }
        if self.number == 0 {
            // What was counted before anybody looked at the clock is in the bucket that is open now.
            self.number = number;
        }
        let passed = usize::try_from(number.saturating_sub(self.number)).unwrap_or(usize::MAX);
        self.number = self.number.max(number);
        // What ended longer ago than the window lasts is forgotten, however late somebody comes by.
        for _ in 0..passed.min(BUCKETS.saturating_add(1)) {
            self.closed.rotate_right(1);
            if let Some(newest) = self.closed.first_mut() {
                *newest = std::mem::take(&mut self.open);
            }
        }
        0 < passed && self.closed.iter().any(|counts| !counts.is_empty())
    }

    pub fn add(&mut self, counts: &Counts) {
        self.open.add(counts);
    }

    /// When the open bucket ends, if there is something in it that is not judged before.
    pub fn ends(&self, window: Duration) -> Option<Instant> {
        let end = self.number.saturating_add(1).saturating_mul(width(window));
        (!self.open.is_empty()).then_some(Instant::from_nanos(end))
    }

    /// What the closed buckets hold together.
    // A copy at each of its uses makes the module a kilobyte larger.
    #[inline(never)]
    pub fn total(&self) -> Counts {
        let mut total = Counts::NONE;
        for counts in &self.closed {
            total.add(counts);
        }
        total
    }

    /// What all buckets hold together, also the one that is open.
    pub fn so_far(&self) -> Counts {
        let mut total = self.total();
        total.add(&self.open);
        total
    }

    /// Whether any bucket holds something that speaks against the target.
    pub fn has_bad(&self) -> bool {
        self.closed.iter().chain([&self.open]).any(|counts| 0 < counts.bad)
    }

    /// Forgets what it holds, but not where on the clock it is.
    pub fn clear(&mut self) {
        *self = Self { number: self.number, ..Self::default() };
    }

    pub fn write(&self, to: &mut Writer) {
        to.number(self.number);
        self.open.write(to);
        let filled =
            self.closed.iter().rposition(|counts| !counts.is_empty()).map_or(0, |it| it.saturating_add(1));
        to.number(filled as u64);
        for counts in self.closed.iter().take(filled) {
            counts.write(to);
        }
    }

    pub fn read(from: &mut Reader<'_>) -> Option<Self> {
        let mut window = Self { number: from.number()?, open: Counts::read(from)?, ..Self::default() };
        let filled = from.number()?;
        if filled > BUCKETS as u64 {
            return None;
        }
        for (counts, _) in window.closed.iter_mut().zip(0..filled) {
            *counts = Counts::read(from)?;
        }
        Some(window)
    }
}

/// When the bucket ends that is open at `now`.
pub fn bucket_ends(window: Duration, now: Instant) -> Instant {
    Instant::from_nanos(number(window, now).saturating_add(1).saturating_mul(width(window)))
}

/// The bucket of a moment. The first has number 1, so that 0 is before all.
fn number(window: Duration, now: Instant) -> u64 {
    now.as_nanos().checked_div(width(window)).unwrap_or(0).max(1)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows stops")]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const WINDOW: Duration = Duration::from_secs(60);

    fn at(secs: u64) -> Instant {
        Instant::from_nanos(1_000_000_000 * secs)
    }

    fn one() -> Counts {
        let mut counts = Counts { requests: 2, bad: 1, callers: 5, ..Counts::NONE };
        counts.latencies.add(Duration::from_millis(3));
        counts
    }

    fn started() -> Window {
        let mut window = Window::default();
        assert!(!window.close(WINDOW, at(1000)), "nothing is in it");
        window.add(&one());
        window
    }

    #[test]
    fn a_bucket_closes_at_a_multiple_of_its_width_and_once() {
        let mut window = started();
        assert_eq!(window.ends(WINDOW), Some(at(1010)));
        assert!(!window.close(WINDOW, at(1009)));
        assert_eq!(window.total(), Counts::NONE, "what is open is not judged");
        assert!(window.close(WINDOW, at(1010)));
        assert_eq!(window.total(), one());
        assert!(!window.close(WINDOW, at(1010)));
        assert_eq!(window.ends(WINDOW), None);
    }

    #[test]
    fn what_is_handed_over_is_in_six_windows() {
        let mut window = started();
        let judged = (101..200).filter(|it| window.close(WINDOW, at(it * 10)) && window.total() == one());
        assert_eq!(judged.count(), BUCKETS);
    }

    #[test]
    fn what_is_older_than_the_window_is_not_judged() {
        let mut window = started();
        assert!(!window.close(WINDOW, at(1070)));
        assert_eq!(window.total(), Counts::NONE);
        let mut window = started();
        assert!(window.close(WINDOW, at(1069)));
        let mut window = started();
        assert!(!window.close(WINDOW, at(1_000_000)));
    }

    #[test]
    fn a_window_of_another_length_starts_anew() {
        let mut window = started();
        let longer = WINDOW * 10;
        assert!(!window.close(longer, at(1001)));
        window.add(&one());
        assert!(window.close(longer, at(1101)));
        assert_eq!(window.total(), one());
    }

    #[test]
    fn what_was_added_before_the_first_look_at_the_clock_is_judged() {
        let mut window = Window::default();
        window.add(&one());
        assert!(!window.close(WINDOW, at(1000)));
        assert!(window.close(WINDOW, at(1010)));
        assert_eq!(window.total(), one());
    }

    #[test]
    fn a_window_shorter_than_six_nanoseconds_has_buckets_of_one() {
        assert_eq!(width(Duration::from_nanos(5)), 1);
        assert_eq!(width(Duration::ZERO), 1);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut window = started();
        for secs in [1000, 1015, 1030] {
            let mut writer = Writer::default();
            window.write(&mut writer);
            let bytes = writer.bytes();
            let mut reader = Reader::new(&bytes);
            let read = Window::read(&mut reader).unwrap();
            assert_eq!(read.total(), window.total());
            assert_eq!(read.ends(WINDOW), window.ends(WINDOW));
            assert!(reader.is_at_end());
            window.close(WINDOW, at(secs + 15));
            window.add(&one());
        }
    }
}
