//! Latencies in buckets whose width grows with the latency.
//!
//! Each doubling has four buckets of the same width, so a bucket's ends are at most a quarter apart. They reach
//! from 66 µs to 275 s; what is faster or slower goes into the first or the last. The layout is that of
//! HdrHistogram with two significant bits.

#![deny(clippy::arithmetic_side_effects)]

use std::time::Duration;

use super::{Reader, Writer};
use crate::units::{Factor, Share, nanos};

/// Below 2^16 ns nothing is told apart.
const SHIFT: u32 = 16;
const PER_DOUBLING: usize = 4;
const DOUBLINGS: usize = 22;
const PLACES: usize = 1 + PER_DOUBLING * DOUBLINGS;

/// How many requests took how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latencies {
    /// None before the first latency: most counts have none, and a window holds many counts.
    buckets: Option<Box<[u32; PLACES]>>,
    total: u32,
}

impl Default for Latencies {
    fn default() -> Self {
        Self::NONE
    }
}

/// The bucket of a latency in nanoseconds.
fn place(nanos: u64) -> usize {
    let log = nanos.checked_ilog2().unwrap_or(0);
    let Some(doubling) = log.checked_sub(SHIFT) else { return 0 };
    let quarter = nanos.unbounded_shr(log.saturating_sub(2)) & 3;
    let place =
        u64::from(doubling).saturating_mul(PER_DOUBLING as u64).saturating_add(quarter).saturating_add(1);
    usize::try_from(place).unwrap_or(PLACES).min(PLACES.saturating_sub(1))
}

/// Where a bucket begins, in nanoseconds.
fn lower(place: usize) -> u64 {
    let Some(place) = place.checked_sub(1) else { return 0 };
    let doubling = u32::try_from(place / PER_DOUBLING).unwrap_or(0);
    let quarters = (place % PER_DOUBLING).saturating_add(PER_DOUBLING) as u64;
    quarters.unbounded_shl(doubling.saturating_add(SHIFT)).unbounded_shr(2)
}

impl Latencies {
    pub const NONE: Self = Self { buckets: None, total: 0 };

    pub fn add(&mut self, latency: Duration) {
        self.add_many(place(nanos(latency)), 1);
    }

    fn add_many(&mut self, place: usize, count: u32) {
        let buckets = self.buckets.get_or_insert_with(|| Box::new([0; PLACES]));
        if let Some(bucket) = buckets.get_mut(place) {
            *bucket = bucket.saturating_add(count);
            self.total = self.total.saturating_add(count);
        }
    }

    pub fn add_all(&mut self, other: &Self) {
        for (place, count) in other.filled() {
            self.add_many(place, count);
        }
    }

    /// Keeps the memory for the next latencies.
    pub fn clear(&mut self) {
        self.total = 0;
        if let Some(buckets) = &mut self.buckets {
            buckets.fill(0);
        }
    }

    pub const fn total(&self) -> u32 {
        self.total
    }

    fn filled(&self) -> impl Iterator<Item = (usize, u32)> {
        let buckets = if self.total == 0 { None } else { self.buckets.as_deref() };
        buckets.into_iter().flatten().copied().enumerate().filter(|(_, count)| 0 < *count)
    }

    /// The latency that at least `share` of the requests stayed below: the upper end of its bucket.
    /// None without requests, and where it is beyond the last bucket.
    pub fn quantile(&self, share: Share) -> Option<Duration> {
        let rank = self.rank(share);
        let mut seen = 0_u32;
        let found = self.filled().find(|(_, count)| {
            seen = seen.saturating_add(*count);
            rank <= seen
        });
        let end = found?.0.saturating_add(1);
        (end < PLACES).then(|| Duration::from_nanos(lower(end)))
    }

    /// How many of the requests, rounded up, are `share` of them.
    pub fn rank(&self, share: Share) -> u32 {
        let part = u64::from(self.total).saturating_mul(u64::from(share.millionths()));
        u32::try_from(part.div_ceil(u64::from(Share::WHOLE.millionths()))).unwrap_or(u32::MAX)
    }

    /// How many requests certainly took longer than `factor` times `latency`.
    pub fn above(&self, latency: Duration, factor: Factor) -> u32 {
        let pivot =
            u128::from(nanos(latency)).saturating_mul(u128::from(factor.thousandths())).div_ceil(1000);
        let slow = self.filled().filter(|(place, _)| pivot <= u128::from(lower(*place)));
        slow.fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// Only what is between the first and the last filled bucket.
    pub fn write(&self, to: &mut Writer) {
        let (mut first, mut end) = (0, 0);
        for (place, _) in self.filled() {
            if end == 0 {
                first = place;
            }
            end = place.saturating_add(1);
        }
        to.number(first as u64);
        to.number(end.saturating_sub(first) as u64);
        let filled = self.buckets.as_deref().and_then(|buckets| buckets.get(first..end));
        for count in filled.into_iter().flatten() {
            to.number(u64::from(*count));
        }
    }

    pub fn read(from: &mut Reader<'_>) -> Option<Self> {
        let first = usize::try_from(from.number()?).ok()?;
        let length = from.count()?;
        let end = first.checked_add(length).filter(|end| *end <= PLACES)?;
        let mut latencies = Self::NONE;
        for place in first..end {
            let count = from.small()?;
            if 0 < count {
                latencies.add_many(place, count);
            }
        }
        Some(latencies)
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows stops")]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn of(millis: impl IntoIterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::NONE;
        for it in millis {
            latencies.add(Duration::from_millis(it));
        }
        latencies
    }

    #[test]
    fn every_latency_is_within_the_ends_of_its_bucket() {
        for bits in 0..64 {
            for nanos in [1_u64 << bits, (1 << bits) + 1, (1 << bits) + (1 << bits) / 3, (1 << bits) - 1] {
                let place = place(nanos);
                assert!(lower(place) <= nanos, "{nanos} is in bucket {place} from {}", lower(place));
                assert!(place + 1 == PLACES || nanos < lower(place + 1), "{nanos} is above bucket {place}");
            }
        }
    }

    #[test]
    fn the_ends_of_a_bucket_are_at_most_a_quarter_apart() {
        for place in 1..PLACES - 1 {
            assert!(lower(place) < lower(place + 1));
            assert!(lower(place + 1) * 4 <= lower(place) * 5, "bucket {place}");
        }
        assert_eq!(lower(1), 65_536);
        assert!(Duration::from_secs(240) < Duration::from_nanos(lower(PLACES - 1)));
    }

    #[test]
    fn a_quantile_is_at_most_a_quarter_above_the_latency() {
        let latencies = of(1..=100);
        for percent in [1, 50, 95, 100] {
            let quantile = latencies.quantile(Share::from_percent(percent)).unwrap();
            let exact = Duration::from_millis(u64::from(percent));
            assert!(exact < quantile && quantile * 4 <= exact * 5, "{percent}: {quantile:?}");
        }
        assert_eq!(of([]).quantile(Share::WHOLE), None);
        assert_eq!(of([1_000_000]).quantile(Share::WHOLE), None, "it has no upper end");
    }

    #[test]
    fn only_what_is_certainly_slower_counts() {
        let twice = Factor::from_thousandths(2000);
        assert_eq!(
            of([10, 19, 20, 22, 30, 40]).above(Duration::from_millis(10), twice),
            3,
            "20 shares a bucket with 19"
        );
        assert_eq!(of([1; 9]).above(Duration::MAX, twice), 0);
    }

    #[test]
    fn what_is_written_is_read_again() {
        for latencies in [of([]), of([5]), of([0, 1_000_000]), of((0..50).map(|it| it * it))] {
            let mut writer = Writer::default();
            latencies.write(&mut writer);
            let bytes = writer.bytes();
            let read = Latencies::read(&mut Reader::new(&bytes)).unwrap();
            assert_eq!(read.filled().collect::<Vec<_>>(), latencies.filled().collect::<Vec<_>>());
            assert_eq!(read.total(), latencies.total());
        }
        assert_eq!(Latencies::read(&mut Reader::new(&[88, 2, 1, 1])), None);
    }
}
