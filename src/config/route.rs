//! `routes`: what they take, and where they send it.

use std::time::Duration;

use super::at::{At, Object, Once};
use super::model::Targets;
use super::{health, key, matching, name, time};
use crate::matching::Match;
use crate::policy::{Mirror, Route, Sticky};
use crate::split::{Arm, KeyHash, MAX_WEIGHT_SUM, Ramp, RampStep, Split};
use crate::units::{Share, TargetId};

/// The route, and whether it takes every request.
#[inline(never)]
pub fn route(at: At<'_>, targets: &Targets<'_>, names: &mut Once<Box<str>>) -> Option<(Route, bool)> {
    let object =
        at.object(&["name", "match", "split", "sticky", "choose_by", "fallback", "mirror", "ramp", "guard"])?;
    let name = object.get("name").and_then(|at| at.name().inspect(|name| names.take(at, name.clone())));
    // What a faulty match would have taken is not known, but it was not meant to be everything.
    let matcher = object.get("match").map_or(Some(Match::default()), |at| at.sound(matching::matcher));
    let takes_all = matcher.as_ref().is_some_and(Match::is_catch_all);
    let arms = object.need("split").and_then(|at| at.sound(|at| split(at, targets)));
    let route = Route {
        name,
        matcher: matcher.unwrap_or_default(),
        sticky: object.get("sticky").and_then(sticky).map(Box::new),
        choose_by: object.get("choose_by").and_then(choose_by),
        fallback: object.get("fallback").map(|at| fallback(at, targets)).unwrap_or_default().into(),
        mirror: object.get("mirror").and_then(mirror).map(Box::new),
        ramp: object.get("ramp").and_then(|at| ramp(at, targets, arms.as_ref())).map(Box::new),
        guard: object.get("guard").and_then(|at| health::guard(at, targets, arms.as_ref())).map(Box::new),
        split: arms.unwrap_or(Split { arms: vec![] }),
    };
    Some((route, takes_all))
}

const MAX_ARMS: usize = 65_535;

#[inline(never)]
fn split(at: At<'_>, targets: &Targets<'_>) -> Option<Split> {
    let items = at.items(MAX_ARMS)?;
    if items.len() == 0 {
        return at.expected("at least one target");
    }
    let mut once = Once::new();
    let count = items.len();
    let mut arms = Vec::with_capacity(count);
    arms.extend(items.filter_map(|item| arm(item, targets, &mut once)));
    let sum: u64 = arms.iter().map(|arm: &Arm| u64::from(arm.weight)).sum();
    // Where an arm could not be read, nothing can be said about the sum.
    if count == arms.len() && !(1..=u64::from(MAX_WEIGHT_SUM)).contains(&sum) {
        at.report(format!("weights sum to {sum}, expected 1 to {MAX_WEIGHT_SUM}"));
    }
    Some(Split { arms })
}

#[inline(never)]
fn arm(at: At<'_>, targets: &Targets<'_>, once: &mut Once<TargetId>) -> Option<Arm> {
    let object = at.object(&["target", "weight"])?;
    let target = object.need("target").and_then(|at| {
        let target = targets.find(at)?;
        once.take(at, target);
        Some(target)
    });
    let weight = match object.get("weight") {
        None => Some(1),
        Some(at) => at.whole(0..=MAX_WEIGHT_SUM),
    };
    let name = KeyHash::EMPTY.text(object.get("target").and_then(At::text).unwrap_or_default());
    Some(Arm { target: target?, name, weight: weight? })
}

/// A target of the split, which `key` names.
#[inline(never)]
pub fn split_target(
    object: Object<'_>,
    key: &str,
    targets: &Targets<'_>,
    split: Option<&Split>,
) -> Option<TargetId> {
    let at = object.need(key)?;
    let target = targets.find(at)?;
    if split.is_some_and(|split| split.arms.iter().all(|arm| arm.target != target)) {
        at.report(format!("{} is not in the split", at.found()));
    }
    Some(target)
}

#[inline(never)]
fn sticky(at: At<'_>) -> Option<Sticky> {
    let object = at.object(&["by", "salt", "rotate_every"])?;
    let by = object.need("by").and_then(|at| {
        let by = key::sources(at)?;
        // A source that could not be read is reported already.
        if at.children().next().is_none() { at.expected("at least one key source") } else { Some(by) }
    });
    let salt = object.get("salt").and_then(|it| it.plain_text(0..=name::MAX_NAME)).unwrap_or_default();
    Some(Sticky {
        by: by.unwrap_or_default(),
        salt: KeyHash::EMPTY.text(&salt),
        rotate_every: object
            .get("rotate_every")
            .and_then(|it| it.duration(Duration::from_secs(1)..=time::LONGEST)),
    })
}

fn choose_by(at: At<'_>) -> Option<Box<str>> {
    at.object(&["header"])?.need("header").and_then(At::header_name)
}

#[inline(never)]
fn fallback(at: At<'_>, targets: &Targets<'_>) -> Vec<TargetId> {
    let mut once = Once::new();
    let find = |item| targets.find(item).inspect(|target| once.take(item, *target));
    at.items(MAX_ARMS).into_iter().flatten().filter_map(find).collect()
}

#[inline(never)]
fn mirror(at: At<'_>) -> Option<Mirror> {
    let object = at.object(&["cluster", "percent"])?;
    let share = object.get("percent").and_then(At::percent).unwrap_or(Share::from_percent(10));
    Some(Mirror { cluster: object.need("cluster").and_then(At::cluster).unwrap_or_default(), share })
}

const MAX_STEPS: usize = 1000;

#[inline(never)]
fn ramp(at: At<'_>, targets: &Targets<'_>, split: Option<&Split>) -> Option<Ramp> {
    let object = at.object(&["target", "start", "steps"])?;
    let target = split_target(object, "target", targets, split);
    let start = object.need("start").and_then(At::moment);
    let steps = object.need("steps").and_then(steps);
    let target = target?;
    let mut others = split.into_iter().flat_map(|split| &split.arms).filter(|arm| arm.target != target);
    if split.is_some() && !others.any(|arm| 0 < arm.weight) {
        at.report("weights of the other targets sum to 0, expected at least 1");
    }
    Some(Ramp { target, start: start?, steps: steps? })
}

#[inline(never)]
fn steps(at: At<'_>) -> Option<Vec<RampStep>> {
    let items = at.items(MAX_STEPS)?;
    let Some(last) = items.len().checked_sub(1) else { return at.expected("at least one step") };
    Some(items.enumerate().filter_map(|(place, item)| step(item, place == last)).collect())
}

#[inline(never)]
fn step(at: At<'_>, is_last: bool) -> Option<RampStep> {
    let object = at.object(&["percent", "for"])?;
    let share = object.need("percent").and_then(At::percent);
    let lasts = match (object.get("for"), is_last) {
        (Some(at), true) => {
            at.report("the last step lasts for good, expected no \"for\"");
            None
        }
        (None, true) => None,
        (_, false) => object.need("for").and_then(|it| it.duration(time::SHORTEST..=time::LONGEST)),
    };
    Some(RampStep { share: share?, lasts })
}
