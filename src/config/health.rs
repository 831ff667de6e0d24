//! `outlier_detection` and `guard`: when a target is bad.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::MODE;
use super::at::At;
use super::model::Targets;
use super::route::split_target;
use crate::guard::{Guard, OnEjection};
use crate::outlier::OutlierDetection;
use crate::split::Split;
use crate::units::{Factor, Share};

const COUNT: RangeInclusive<u32> = 0..=1_000_000;
const VOLUME: RangeInclusive<u32> = 1..=1_000_000_000;

/// Windows and times out of rotation: from a tick, on which workers merge what they saw, to a day.
const PERIOD: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(86_400);
const JITTER: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(86_400);

/// A window has six parts, and none is shorter than a tick.
const WINDOW: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

/// Callers are counted in a bitmap of 64.
const CLIENTS: RangeInclusive<u32> = 1..=64;

#[inline(never)]
pub fn outlier_detection(at: At<'_>) -> Option<OutlierDetection> {
    let object = at.object(&[
        "consecutive_failures",
        "failure_percentage_threshold",
        "request_volume",
        "interval",
        "success_rate_stdev_factor",
        "latency_ratio",
        "min_clients",
        "base_ejection_time",
        "max_ejection_time",
        "max_ejection_time_jitter",
        "max_ejection_percent",
        "recovery_steps",
        "recovery_step_time",
        "mode",
    ])?;
    let get = |key| object.get(key);
    let percent = |key, or| get(key).and_then(At::percent).unwrap_or(Share::from_percent(or));
    let whole = |key, range, or| get(key).and_then(|it: At<'_>| it.whole(range)).unwrap_or(or);
    let time = |key, range, or| {
        get(key).and_then(|it: At<'_>| it.duration(range)).unwrap_or(Duration::from_secs(or))
    };
    let policy = OutlierDetection {
        consecutive_failures: whole("consecutive_failures", COUNT, 5),
        failure_percentage_threshold: percent("failure_percentage_threshold", 50),
        request_volume: whole("request_volume", VOLUME, 20),
        interval: time("interval", PERIOD, 10),
        success_rate_stdev_factor: get("success_rate_stdev_factor").and_then(At::factor).unwrap_or_default(),
        latency_ratio: get("latency_ratio").and_then(At::ratio).unwrap_or_default(),
        min_clients: whole("min_clients", CLIENTS, 1),
        base_ejection_time: time("base_ejection_time", PERIOD, 30),
        max_ejection_time: time("max_ejection_time", PERIOD, 300),
        max_ejection_time_jitter: time("max_ejection_time_jitter", JITTER, 0),
        max_ejection_percent: percent("max_ejection_percent", 50),
        recovery_steps: get("recovery_steps")
            .and_then(recovery_steps)
            .unwrap_or_else(|| [10, 25, 50, 100].map(Share::from_percent).to_vec()),
        recovery_step_time: time("recovery_step_time", PERIOD, 5),
        mode: get("mode").and_then(|it| it.choice(&MODE)).unwrap_or_default(),
    };
    if policy.max_ejection_time < policy.base_ejection_time {
        at.report("\"max_ejection_time\" is shorter than \"base_ejection_time\", expected at least as long");
    }
    Some(policy)
}

#[inline(never)]
fn recovery_steps(at: At<'_>) -> Option<Vec<Share>> {
    let mut last = Share::NONE;
    let mut steps = vec![];
    for item in at.items(100)? {
        let Some(step) = item.percent() else { continue };
        if step <= last {
            item.report(format!("found {}, expected more than the step before", item.found()));
        }
        steps.push(step);
        last = step;
    }
    Some(steps)
}

#[inline(never)]
pub fn guard(at: At<'_>, targets: &Targets<'_>, split: Option<&Split>) -> Option<Guard> {
    let object = at.object(&[
        "target",
        "baseline",
        "window",
        "min_requests",
        "consecutive_failures",
        "max_failure_increase_percent",
        "confidence",
        "max_latency_ratio",
        "latency_quantile",
        "on_ejection",
        "epoch",
        "mode",
    ])?;
    let get = |key| object.get(key);
    let target = split_target(object, "target", targets, split);
    let baseline = split_target(object, "baseline", targets, split);
    if target.is_some() && target == baseline {
        at.report("\"target\" and \"baseline\" are the same target");
    }
    let window = get("window").and_then(|it| it.duration(WINDOW));
    let min_requests = get("min_requests").and_then(|it| it.whole(VOLUME));
    let consecutive_failures = get("consecutive_failures").and_then(|it| it.whole(COUNT));
    let max_failure_increase = get("max_failure_increase_percent").and_then(At::percent);
    let confidence = get("confidence").and_then(At::fraction);
    let max_latency_ratio = get("max_latency_ratio").and_then(At::ratio);
    let latency_quantile = get("latency_quantile").and_then(At::fraction);
    let on_ejection = get("on_ejection").and_then(|it| it.choice(&ON_EJECTION));
    let epoch = get("epoch").and_then(epoch);
    let mode = get("mode").and_then(|it| it.choice(&MODE));
    Some(Guard {
        target: target?,
        baseline: baseline?,
        window: window.unwrap_or(Duration::from_secs(60)),
        min_requests: min_requests.unwrap_or(50),
        consecutive_failures: consecutive_failures.unwrap_or(20),
        max_failure_increase: max_failure_increase.unwrap_or(Share::from_percent(2)),
        confidence: confidence.unwrap_or(Share::from_millionths(999_000)),
        max_latency_ratio: max_latency_ratio.unwrap_or(Factor::from_thousandths(2000)),
        latency_quantile: latency_quantile.unwrap_or(Share::from_millionths(950_000)),
        on_ejection: on_ejection.unwrap_or_default(),
        epoch: epoch.unwrap_or(1),
        mode: mode.unwrap_or_default(),
    })
}

const ON_EJECTION: [(&str, OnEjection); 2] = [("trip", OnEjection::Trip), ("ignore", OnEjection::Ignore)];

fn epoch(at: At<'_>) -> Option<u64> {
    let epoch = at.integer().and_then(|epoch| u64::try_from(epoch).ok());
    epoch.or_else(|| at.expected("a whole number that is not negative"))
}
