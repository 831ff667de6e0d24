//! Values that every module shares: time, shares, versions and places in the tables of a policy.

use std::fmt;
use std::time::Duration;

/// A moment on the monotonic clock that all workers of one process share, in nanoseconds.
///
/// Limits, holds, windows and ejections use it; it says nothing about the date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The moment `duration` later; the end of time when there is none.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }

    /// How long ago `earlier` was; zero when it has not come yet.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos_since(earlier))
    }

    /// The same in nanoseconds, for what is compared with so many on every request: to make a [`Duration`] takes
    /// divisions.
    pub const fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A moment of wall time, in nanoseconds since the Unix epoch.
///
/// Only a ramp and the rotation of sticky users read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(u64);

impl WallTime {
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub const fn as_nanos(self) -> u64 {
        self.0
    }
}

/// The nanoseconds of `duration`, at most 584 years.
pub fn nanos(duration: Duration) -> u64 {
    const SECOND: u64 = 1_000_000_000;
    let seconds = duration.as_secs();
    // Without the wider numbers of `as_nanos`, which take a call.
    if seconds > u64::MAX.wrapping_div(SECOND) {
        return u64::MAX;
    }
    seconds.wrapping_mul(SECOND).saturating_add(u64::from(duration.subsec_nanos()))
}

/// A part of a whole in millionths, so that configuration has no floating point numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u32);

impl Share {
    pub const NONE: Self = Self(0);
    pub const WHOLE: Self = Self(1_000_000);

    /// At most the whole.
    pub const fn from_millionths(millionths: u32) -> Self {
        if millionths < Self::WHOLE.0 { Self(millionths) } else { Self::WHOLE }
    }

    pub const fn from_percent(percent: u8) -> Self {
        let percent = if percent > 100 { 100 } else { percent };
        Self(percent as u32 * 10_000)
    }

    pub const fn millionths(self) -> u32 {
        self.0
    }
}

/// A factor in thousandths: `2000` is twice as much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Factor(u32);

impl Factor {
    pub const fn from_thousandths(thousandths: u32) -> Self {
        Self(thousandths)
    }

    pub const fn thousandths(self) -> u32 {
        self.0
    }
}

/// The version of a model, as a caller or an operator writes it.
///
/// TensorFlow Serving's versions are signed 64-bit integers; the Open Inference Protocol's are text.
/// Text that is such an integer is that integer, so that `"2"` of one is `2` of the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    Number(i64),
    Text(Box<str>),
}

impl Version {
    pub fn parse(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Text(text.into()), Self::Number)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Which of a model's versions a caller asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Asked {
    /// Nothing was asked: the server takes the newest that it serves.
    #[default]
    Latest,
    Version(Version),
    Label(Box<str>),
}

/// The place of a model in a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelId(pub u32);

/// The place of a target among its model's targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId(pub u16);

/// The place of a route among its model's routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub u16);

/// Whether a policy acts or only counts what it would have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    #[default]
    Enforce,
    Shadow,
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn text_that_is_an_integer_is_that_version() {
        assert_eq!(Version::parse("2"), Version::Number(2));
        assert_eq!(Version::parse("007"), Version::Number(7));
        assert_eq!(Version::parse("-1"), Version::Number(-1));
        assert_eq!(Version::parse("v2"), Version::Text("v2".into()));
        assert_eq!(Version::parse("9223372036854775808"), Version::Text("9223372036854775808".into()));
    }

    #[test]
    fn a_duration_has_its_nanoseconds_up_to_the_most() {
        for (seconds, more) in [(0, 0), (1, 1), (18_446_744_073, 709_551_614), (18_446_744_073, 709_551_615)]
        {
            let duration = Duration::new(seconds, more);
            assert_eq!(u128::from(nanos(duration)), duration.as_nanos());
        }
        for longer in
            [Duration::new(18_446_744_073, 709_551_616), Duration::from_secs(18_446_744_074), Duration::MAX]
        {
            assert_eq!(nanos(longer), u64::MAX);
        }
    }

    #[test]
    fn time_saturates_instead_of_wrapping() {
        let end = Instant::from_nanos(u64::MAX);
        assert_eq!(end.after(Duration::MAX), end);
        assert_eq!(Instant::from_nanos(1).since(end), Duration::ZERO);
    }
}
