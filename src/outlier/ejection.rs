//! One target's way out of traffic and back.
//!
//! An ejected target gets nothing until its time is over, and then single requests as probes. A probe that succeeds
//! opens the way back in steps; one that fails ejects for longer. What was sent before the end of an ejection
//! proves nothing about the time after it.

#![deny(clippy::arithmetic_side_effects)]

use std::num::NonZeroU64;
use std::time::Duration;

use super::OutlierDetection;
use crate::tally::{Reader, Writer};
use crate::units::{Instant, Share, nanos};

/// How long a probe may take before another may begin. A worker that dies takes its probe along, and a request
/// that is never answered must not keep a target out for good.
pub const PROBE_EXPIRES: Duration = Duration::from_secs(60);

/// What is known of one target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ejection {
    /// When the last ejection ended or will end; the beginning of time when there was none.
    pub until: Instant,
    /// Ejections that count for the length of the next one.
    count: u32,
    phase: Phase,
    /// When the probe began that is on its way. It may outlast the ejection that it was for.
    probe: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Back in traffic, in steps from this moment on; the beginning of time for a target that was never out.
    Back { since: Instant },
    /// Out of traffic, but for probes from `until` on.
    Out,
}

impl Default for Phase {
    fn default() -> Self {
        Self::Back { since: Instant::default() }
    }
}

impl Ejection {
    /// The share of its weight that the target has.
    pub fn share(self, policy: &OutlierDetection, now: Instant) -> Share {
        let Phase::Back { since } = self.phase else { return Share::NONE };
        if since == Instant::default() {
            return Share::WHOLE;
        }
        let step = nanos(now.since(since)).checked_div(nanos(policy.recovery_step_time)).unwrap_or(u64::MAX);
        let step = usize::try_from(step).unwrap_or(usize::MAX);
        policy.recovery_steps.get(step).copied().unwrap_or(Share::WHOLE)
    }

    pub const fn is_out(self) -> bool {
        matches!(self.phase, Phase::Out)
    }

    /// Whether what requests from now on show decides about the target's return.
    pub fn is_on_probation(self, now: Instant) -> bool {
        self.is_out() && self.until <= now
    }

    /// Whether a probe may begin: the ejection is over and no other probe is on its way.
    pub fn awaits_probe(self, now: Instant) -> bool {
        self.is_on_probation(now) && self.probe.is_none_or(|began| PROBE_EXPIRES <= now.since(began))
    }

    /// Begins a probe, which [`Self::awaits_probe`].
    #[must_use]
    pub const fn begin_probe(self, now: Instant) -> Self {
        Self { probe: Some(now), ..self }
    }

    /// The probe that began then is over. One that has expired ends no other.
    #[must_use]
    pub fn end_probe(self, began: Instant) -> Self {
        Self { probe: self.probe.filter(|probe| *probe != began), ..self }
    }

    /// A request that began after the ejection succeeded.
    #[must_use]
    pub fn come_back(self, now: Instant) -> Self {
        // The beginning of time has a meaning of its own.
        let since = now.max(Instant::from_nanos(1));
        if self.is_out() { Self { phase: Phase::Back { since }, ..self } } else { self }
    }

    /// Takes the target out, the longer the more often that happened. `chance` is uniform and decides the jitter.
    #[must_use]
    pub fn eject(self, policy: &OutlierDetection, now: Instant, chance: u64) -> Self {
        let count = self.count(policy, now).saturating_add(1);
        let time = policy.base_ejection_time.saturating_mul(count).min(policy.max_ejection_time);
        let until = now.after(time).after(jitter(policy.max_ejection_time_jitter, chance));
        Self { until, count, phase: Phase::Out, ..self }
    }

    /// How many ejections count: one less for each interval in which the target had its whole weight.
    fn count(self, policy: &OutlierDetection, now: Instant) -> u32 {
        let Phase::Back { since } = self.phase else { return self.count };
        let steps = policy.recovery_steps.iter().filter(|step| **step < Share::WHOLE).count();
        let opening = policy.recovery_step_time.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX));
        let healthy = nanos(now.since(since.after(opening))).checked_div(nanos(policy.interval));
        self.count.saturating_sub(healthy.and_then(|it| u32::try_from(it).ok()).unwrap_or(u32::MAX))
    }

    pub fn write(self, to: &mut Writer) {
        to.number(self.until.as_nanos());
        to.number(u64::from(self.count));
        match self.phase {
            Phase::Out => to.number(0),
            Phase::Back { since } => {
                to.number(1);
                to.number(since.as_nanos());
            }
        }
        match self.probe {
            None => to.number(0),
            Some(began) => {
                to.number(1);
                to.number(began.as_nanos());
            }
        }
    }

    pub fn read(from: &mut Reader<'_>) -> Option<Self> {
        let until = Instant::from_nanos(from.number()?);
        let count = from.small()?;
        let phase = match from.number()? {
            0 => Phase::Out,
            1 => Phase::Back { since: Instant::from_nanos(from.number()?) },
            _ => return None,
        };
        let probe = match from.number()? {
            0 => None,
            1 => Some(Instant::from_nanos(from.number()?)),
            _ => return None,
        };
        Some(Self { until, count, phase, probe })
    }
}

/// A part of `most`, as large as `chance` is of all that it can be.
fn jitter(most: Duration, chance: u64) -> Duration {
    let Some(bound) = NonZeroU64::new(nanos(most)) else { return Duration::ZERO };
    let part = u128::from(chance).saturating_mul(u128::from(bound.get())) >> u64::BITS;
    Duration::from_nanos(u64::try_from(part).unwrap_or(0))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows stops")]
mod tests {
    use super::*;
    use crate::outlier::tests::policy;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn at(secs: u64) -> Instant {
        Instant::from_nanos(1_000_000_000 * secs)
    }

    fn ejected(secs: u64) -> Ejection {
        Ejection::default().eject(&policy(), at(secs), 0)
    }

    /// Ejected at 100 s, tried at 130 s, and back at 131 s.
    fn back() -> Ejection {
        ejected(100).begin_probe(at(130)).end_probe(at(130)).come_back(at(131))
    }

    #[track_caller]
    fn check_share(ejection: Ejection, secs: u64, percent: u8) {
        assert_eq!(ejection.share(&policy(), at(secs)), Share::from_percent(percent), "at {secs} s");
    }

    #[test]
    fn a_target_that_was_never_out_has_its_whole_weight() {
        check_share(Ejection::default(), 0, 100);
        check_share(Ejection::default(), 1, 100);
    }

    #[test]
    fn an_ejected_target_has_no_share_however_long_it_awaits_a_probe() {
        check_share(ejected(100), 100, 0);
        check_share(ejected(100), 129, 0);
        check_share(ejected(100), 100_000, 0);
    }

    #[test]
    fn a_probe_begins_exactly_when_the_ejection_ends() {
        assert!(!ejected(100).awaits_probe(at(129)));
        assert!(ejected(100).awaits_probe(at(130)));
        assert!(!Ejection::default().awaits_probe(at(130)));
    }

    #[test]
    fn one_probe_runs_at_a_time() {
        let trying = ejected(100).begin_probe(at(130));
        assert!(!trying.awaits_probe(at(131)));
        assert!(trying.end_probe(at(130)).awaits_probe(at(131)));
    }

    #[test]
    fn a_probe_that_outlasts_its_ejection_is_the_only_one_still() {
        // Ejected again until 189 s.
        let again = ejected(100).begin_probe(at(130)).come_back(at(131)).eject(&policy(), at(129), 0);
        assert!(!again.awaits_probe(at(189)));
        assert!(again.awaits_probe(at(190)));
        assert!(again.end_probe(at(130)).awaits_probe(at(189)));
    }

    #[test]
    fn a_probe_that_never_ends_makes_room_for_another_and_does_not_end_it() {
        let trying = ejected(100).begin_probe(at(130));
        assert!(!trying.awaits_probe(at(189)));
        assert!(trying.awaits_probe(at(190)));
        let second = trying.begin_probe(at(190));
        assert_eq!(second.end_probe(at(130)), second);
    }

    #[test]
    fn a_good_probe_opens_in_steps() {
        for (secs, percent) in [(131, 10), (135, 10), (136, 25), (141, 50), (146, 100), (1000, 100)] {
            check_share(back(), secs, percent);
        }
    }

    #[test]
    fn a_failed_probe_ejects_longer_up_to_the_maximum() {
        let mut ejection = Ejection::default();
        let mut now = at(0);
        let lengths = [30, 60, 90, 120, 120].map(|_| {
            ejection = ejection.eject(&policy(), now, 0);
            let length = ejection.until.since(now).as_secs();
            now = ejection.until;
            length
        });
        assert_eq!(lengths, [30, 60, 90, 120, 120]);
    }

    #[test]
    fn the_count_falls_with_each_healthy_interval() {
        let twice = back().eject(&policy(), at(132), 0);
        assert_eq!(twice.until, at(192), "it had not come back whole");
        let back = twice.come_back(at(200));
        // Whole from 215 s on, and an interval is 10 s.
        for (secs, length) in [(224, 90), (225, 60), (234, 60), (235, 30), (1000, 30)] {
            let length = Duration::from_secs(length);
            assert_eq!(back.eject(&policy(), at(secs), 0).until, at(secs).after(length), "at {secs} s");
        }
    }

    #[test]
    fn jitter_makes_it_longer_by_less_than_its_maximum() {
        let policy = OutlierDetection { max_ejection_time_jitter: Duration::from_secs(8), ..policy() };
        let until = |chance| Ejection::default().eject(&policy, at(0), chance).until;
        assert_eq!(until(0), at(30));
        assert_eq!(until(1 << 63), at(34));
        assert!(until(u64::MAX) < at(38) && at(37) < until(u64::MAX));
    }

    #[test]
    fn what_is_written_is_read_again() {
        for ejection in [Ejection::default(), ejected(100), ejected(100).begin_probe(at(130)), back()] {
            let mut writer = Writer::default();
            ejection.write(&mut writer);
            let bytes = writer.bytes();
            assert_eq!(Ejection::read(&mut Reader::new(&bytes)), Some(ejection));
        }
    }
}
