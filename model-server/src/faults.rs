//! Faults on demand: what a version does instead of answering, and how often.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use tonic::Code;

/// What is wrong with one version of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Every request waits so long before anything else happens.
    pub delay: Duration,
    /// Up to so much is added to the delay, evenly.
    pub jitter: Duration,
    /// The share of requests, 0 to 1, that `action` befalls; the others are answered.
    pub rate: f64,
    pub action: Option<Action>,
}

/// What happens to a request instead of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It fails, and is not executed.
    Fail { code: Code, message: String, place: Place },
    /// It is executed, and its stream is reset after the response headers and a part of the body.
    Reset,
    /// It is not executed, and its stream is reset before any answer; a REST connection is closed.
    Abort,
    /// It is executed, and nothing follows the response headers and a part of the body. REST hangs.
    Stall,
    /// It is executed, and its answer ends without a gRPC status. REST has none, and answers.
    NoStatus,
    /// It is not executed, and answered as by a server that knows no gRPC, with this HTTP status.
    Http(u16),
    /// It is neither executed nor answered; it ends when the client goes away or the server shuts down.
    Hang,
}

/// Where a gRPC status is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the response headers, which end the stream: what a server does when nothing was sent yet.
    TrailersOnly,
    /// In trailers after response headers.
    AfterHeaders,
}

/// The message of a failure that was not given another.
pub const INJECTED: &str = "injected fault";

impl Fault {
    fn of(rate: f64, action: Option<Action>) -> Self {
        Self { delay: Duration::ZERO, jitter: Duration::ZERO, rate, action }
    }

    pub fn delay(delay: Duration) -> Self {
        Self { delay, ..Self::of(1.0, None) }
    }

    /// A share of the requests fails with a code.
    pub fn fail(rate: f64, code: Code, place: Place) -> Self {
        Self::of(rate, Some(Action::Fail { code, message: INJECTED.to_owned(), place }))
    }

    pub fn reset() -> Self {
        Self::of(1.0, Some(Action::Reset))
    }

    pub fn abort() -> Self {
        Self::of(1.0, Some(Action::Abort))
    }

    pub fn stall() -> Self {
        Self::of(1.0, Some(Action::Stall))
    }

    pub fn no_status() -> Self {
        Self::of(1.0, Some(Action::NoStatus))
    }

    pub fn http(status: u16) -> Self {
        Self::of(1.0, Some(Action::Http(status)))
    }

    pub fn hang() -> Self {
        Self::of(1.0, Some(Action::Hang))
    }

    #[must_use]
    pub fn with_delay(mut self, delay: Duration, jitter: Duration) -> Self {
        self.delay = delay;
        self.jitter = jitter;
        self
    }

    #[must_use]
    pub fn with_rate(mut self, rate: f64) -> Self {
        self.rate = rate;
        self
    }

    /// The text of the status that a failure answers; other actions have none.
    #[must_use]
    pub fn with_message(mut self, text: impl Into<String>) -> Self {
        if let Some(Action::Fail { message, .. }) = &mut self.action {
            *message = text.into();
        }
        self
    }
}

impl FromStr for Fault {
    type Err = anyhow::Error;

    /// Reads what `--fault` takes: `hang`, `reset`, `abort`, `stall`, `no-status`, `http=503`,
    /// `fail=0.5,code=INTERNAL,place=after-headers`, `delay=20ms,jitter=5ms,rate=0.1,reset`, joined by commas in any
    /// order.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut fault = Self::of(1.0, None);
        let (mut code, mut place, mut message) = (Code::Unavailable, Place::TrailersOnly, INJECTED);
        let mut fails = false;
        for part in text.split(',') {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            match key {
                "hang" => fault.action = Some(Action::Hang),
                "reset" => fault.action = Some(Action::Reset),
                "abort" => fault.action = Some(Action::Abort),
                "stall" => fault.action = Some(Action::Stall),
                "no-status" => fault.action = Some(Action::NoStatus),
                "http" => fault.action = Some(Action::Http(http_status(value)?)),
                "rate" => fault.rate = rate(value)?,
                "fail" => {
                    fails = true;
                    fault.rate = if value.is_empty() { 1.0 } else { rate(value)? };
                }
                "code" => code = read_code(value)?,
                "place" => {
                    place = match value {
                        "trailers-only" => Place::TrailersOnly,
                        "after-headers" => Place::AfterHeaders,
                        _ => bail!("place: found {value:?}, wanted trailers-only or after-headers"),
                    }
                }
                "message" => message = value,
                "delay" => fault.delay = duration(value)?,
                "jitter" => fault.jitter = duration(value)?,
                _ => bail!(
                    "found {key:?}, wanted fail, code, place, message, reset, abort, stall, no-status, http, hang, \
                     rate, delay or jitter"
                ),
            }
        }
        if fails {
            fault.action = Some(Action::Fail { code, message: message.to_owned(), place });
        }
        Ok(fault)
    }
}

fn http_status(text: &str) -> anyhow::Result<u16> {
    let status = text.parse().ok().filter(|status| (200..600).contains(status));
    status.with_context(|| format!("http: found {text:?}, wanted a status from 200 to 599"))
}

fn rate(text: &str) -> anyhow::Result<f64> {
    let rate = text.parse().ok().filter(|rate| (0.0..=1.0).contains(rate));
    rate.with_context(|| format!("rate: found {text:?}, wanted a number from 0 to 1"))
}

fn duration(text: &str) -> anyhow::Result<Duration> {
    let units = [("ms", 0.001), ("us", 0.000_001), ("s", 1.0)];
    let read = units.into_iter().find_map(|(unit, seconds)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        Duration::try_from_secs_f64(number * seconds).ok()
    });
    read.with_context(|| format!("found {text:?}, wanted a duration such as 20ms or 1.5s"))
}

/// Reads gRPC's own name of a code, or its number.
fn read_code(text: &str) -> anyhow::Result<Code> {
    let names = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let by_name = names.iter().position(|it| *it == text).and_then(|index| i32::try_from(index).ok());
    let number = by_name.or_else(|| text.parse().ok().filter(|number| (0..=16).contains(number)));
    let number =
        number.with_context(|| format!("code: found {text:?}, wanted a name such as UNAVAILABLE"))?;
    Ok(Code::from_i32(number))
}

/// What befalls one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Draw {
    pub(crate) delay: Duration,
    pub(crate) action: Option<Action>,
}

/// The faults of all versions.
#[derive(Debug)]
pub(crate) struct Faults {
    seed: u64,
    /// False while there is no fault at all, which is what a server mostly has.
    any: AtomicBool,
    active: Mutex<BTreeMap<String, BTreeMap<i64, Active>>>,
}

#[derive(Debug)]
struct Active {
    fault: Fault,
    chance: Chance,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, any: AtomicBool::new(false), active: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<i64, Active>>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets or clears a fault. Its chance starts anew, and depends on no other version's requests.
    pub(crate) fn set(&self, model: &str, version: i64, fault: Option<Fault>) {
        let mut active = self.lock();
        let versions = active.entry(model.to_owned()).or_default();
        match fault {
            Some(fault) => {
                let chance = Chance::new(self.seed, model, version);
                versions.insert(version, Active { fault, chance });
            }
            None => {
                versions.remove(&version);
            }
        }
        let any = active.values().any(|versions| !versions.is_empty());
        self.any.store(any, Ordering::Release);
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
        self.any.store(false, Ordering::Release);
    }

    pub(crate) fn draw(&self, model: &str, version: i64) -> Draw {
        if !self.any.load(Ordering::Acquire) {
            return Draw::default();
        }
        let mut active = self.lock();
        let active = active.get_mut(model).and_then(|versions| versions.get_mut(&version));
        active.map(Active::draw).unwrap_or_default()
    }
}

impl Active {
    fn draw(&mut self) -> Draw {
        // Both numbers are always drawn, so that what befalls the n-th request depends on n alone.
        let (late, hit) = (self.chance.unit(), self.chance.unit());
        let delay = self.fault.delay.saturating_add(self.fault.jitter.mul_f64(late));
        let action = self.fault.action.clone().filter(|_| hit < self.fault.rate);
        Draw { delay, action }
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    fn new(seed: u64, model: &str, version: i64) -> Self {
        let mut chance = Self(seed);
        for byte in model.bytes().chain(version.to_le_bytes()) {
            chance.0 = chance.next() ^ u64::from(byte);
        }
        chance
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of [0, 1).
    fn unit(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64 exactly")]
        let (bits, whole) = ((self.next() >> 11) as f64, (1_u64 << 53) as f64);
        bits / whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(seed: u64, rate: f64, requests: usize) -> Vec<bool> {
        let faults = Faults::new(seed);
        faults.set("m", 1, Some(Fault::fail(rate, Code::Unavailable, Place::TrailersOnly)));
        (0..requests).map(|_| faults.draw("m", 1).action.is_some()).collect()
    }

    #[test]
    fn the_same_seed_fails_the_same_requests() {
        assert_eq!(failures(7, 0.3, 200), failures(7, 0.3, 200));
        assert_ne!(failures(7, 0.3, 200), failures(8, 0.3, 200));
    }

    #[test]
    fn a_rate_is_a_share_of_the_requests() {
        let hits = |rate| failures(7, rate, 10_000).into_iter().filter(|&hit| hit).count();
        assert_eq!(hits(0.0), 0);
        assert_eq!(hits(1.0), 10_000);
        // Five standard deviations of a binomial with n = 10,000 and p = 0.3 are 229.
        assert!(hits(0.3).abs_diff(3_000) < 229, "{}", hits(0.3));
    }

    #[test]
    fn other_versions_are_untouched_and_a_fault_can_be_cleared() {
        let faults = Faults::new(1);
        faults.set("m", 1, Some(Fault::hang()));
        assert_eq!(faults.draw("m", 2), Draw::default());
        assert_eq!(faults.draw("n", 1), Draw::default());
        assert_eq!(faults.draw("m", 1).action, Some(Action::Hang));
        faults.set("m", 1, None);
        assert_eq!(faults.draw("m", 1), Draw::default());
    }

    #[test]
    fn faults_are_read_from_text() {
        let read = |text: &str| text.parse::<Fault>().unwrap();
        let ms = Duration::from_millis;
        assert_eq!(read("hang"), Fault::hang());
        assert_eq!(read("reset,rate=0.25"), Fault::reset().with_rate(0.25));
        assert_eq!(read("abort"), Fault::abort());
        assert_eq!(read("stall"), Fault::stall());
        assert_eq!(read("no-status"), Fault::no_status());
        assert_eq!(read("http=503"), Fault::http(503));
        assert_eq!(read("delay=20ms,jitter=0.5s"), Fault::delay(ms(20)).with_delay(ms(20), ms(500)));
        assert_eq!(read("fail"), Fault::fail(1.0, Code::Unavailable, Place::TrailersOnly));
        assert_eq!(
            read("fail=0.5,code=INTERNAL,place=after-headers,message=no luck,delay=1ms"),
            Fault::fail(0.5, Code::Internal, Place::AfterHeaders)
                .with_message("no luck")
                .with_delay(ms(1), Duration::ZERO)
        );
        assert_eq!(read("fail,code=5"), Fault::fail(1.0, Code::NotFound, Place::TrailersOnly));
    }

    #[test]
    fn text_that_is_no_fault_says_what_was_wanted() {
        for (text, wanted) in [
            ("", "wanted fail, code, place"),
            ("explode", "found \"explode\", wanted fail"),
            ("fail=2", "rate: found \"2\", wanted a number from 0 to 1"),
            ("fail,code=SAD", "code: found \"SAD\", wanted a name such as UNAVAILABLE"),
            ("http=20", "http: found \"20\", wanted a status from 200 to 599"),
            ("fail,place=body", "place: found \"body\", wanted trailers-only or after-headers"),
            ("delay=20", "found \"20\", wanted a duration such as 20ms"),
            ("delay=-1s", "found \"-1s\", wanted a duration such as 20ms"),
        ] {
            let error = format!("{:#}", text.parse::<Fault>().unwrap_err());
            assert!(error.contains(wanted), "{text:?}: {error}");
        }
    }

    #[test]
    fn jitter_only_adds_to_the_delay() {
        let faults = Faults::new(1);
        let (delay, jitter) = (Duration::from_millis(10), Duration::from_millis(5));
        faults.set("m", 1, Some(Fault::delay(delay).with_delay(delay, jitter)));
        let delays: Vec<_> = (0..100).map(|_| faults.draw("m", 1).delay).collect();
        assert!(delays.iter().all(|&it| delay <= it && it < delay + jitter));
        assert!(delays.iter().any(|it| *it != delays[0]));
    }
}
