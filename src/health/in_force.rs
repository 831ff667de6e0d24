//! The weights in force: those of a route after ramp, guard, ejection and recovery.

#![deny(clippy::arithmetic_side_effects)]

use crate::policy::{Model, Route};
use crate::split::{Arm, Weights};
use crate::units::{RouteId, Share, TargetId, WallTime};

/// What of a model is not as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The targets that have less than their whole weight.
    pub shares: Vec<(TargetId, Share)>,
    /// The routes whose guard has tripped.
    pub tripped: Vec<RouteId>,
}

impl Standing {
    pub const QUIET: Self = Self { shares: Vec::new(), tripped: Vec::new() };

    pub const fn is_quiet(&self) -> bool {
        self.shares.is_empty() && self.tripped.is_empty()
    }

    pub fn share_of(&self, target: TargetId) -> Share {
        self.shares.iter().find(|(it, _)| *it == target).map_or(Share::WHOLE, |(_, share)| *share)
    }

    pub fn is_tripped(&self, route: RouteId) -> bool {
        self.tripped.contains(&route)
    }

    /// The weights of a route at a moment of wall time.
    pub fn in_force<'a>(&'a self, id: RouteId, route: &'a Route, now: WallTime) -> InForce<'a> {
        let guard = route.guard.as_ref().filter(|_| self.is_tripped(id));
        let without = guard.map(|guard| guard.target);
        // What the ramp of a target that is out leaves to the others is all, in their configured proportions.
        let ramp = route.ramp.as_deref().filter(|ramp| without != Some(ramp.target));
        let weights = route.split.weights(ramp, now);
        let mut others = weights.iter().filter(|(arm, _)| Some(arm.target) != without);
        let instead =
            if others.any(|(_, weight)| 0 < weight) { None } else { guard.map(|guard| guard.baseline) };
        let basis = Basis { weights, without, instead };
        let mut usable = basis.iter().filter(|(_, weight)| 0 < *weight);
        let answers = |(arm, _): (Arm, u64)| Share::NONE < self.share_of(arm.target);
        let someone_answers = usable.clone().any(answers);
        let is_choice = usable.nth(1).is_some();
        InForce { basis, standing: (is_choice && someone_answers).then_some(self), diverts: !someone_answers }
    }

    /// Whether `target` may be taken out of traffic: every route that has a choice must keep another target, and have
    /// not more than `most` of its weight out.
    pub fn room(&self, model: &Model, target: TargetId, most: Share, now: WallTime) -> Room {
        let mut room = Room::Pointless;
        for (id, route) in (0..).map(RouteId).zip(model.routes.iter()) {
            let basis = self.in_force(id, route, now).basis;
            let mut usable = basis.iter().filter(|(_, weight)| 0 < *weight);
            if !usable.clone().any(|(arm, _)| arm.target == target) {
                continue;
            }
            let answers = |it: TargetId| it != target && Share::NONE < self.share_of(it);
            if usable.clone().nth(1).is_none() {
                if route.fallback.iter().any(|it| answers(*it)) {
                    room = Room::Enough;
                }
                continue;
            }
            if !usable.any(|(arm, _)| answers(arm.target)) {
                return Room::TooLittle;
            }
            let (mut all, mut out) = (0_u128, 0_u128);
            for (arm, weight) in basis.iter() {
                let share = if arm.target == target { Share::NONE } else { self.share_of(arm.target) };
                let lacks = Share::WHOLE.millionths().saturating_sub(share.millionths());
                all = all.saturating_add(u128::from(weight));
                out = out.saturating_add(u128::from(weight).saturating_mul(u128::from(lacks)));
            }
            if all.saturating_mul(u128::from(most.millionths())) < out {
                return Room::TooLittle;
            }
            room = Room::Enough;
        }
        room
    }
}

/// Whether a target may be taken out of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    Enough,
    /// Too much would be out.
    TooLittle,
    /// No route would send its requests elsewhere.
    Pointless,
}

/// The weights after ramp and guard.
#[derive(Clone, Copy, Debug)]
struct Basis<'a> {
    weights: Weights<'a>,
    without: Option<TargetId>,
    /// Who gets everything when nobody else has a weight.
    instead: Option<TargetId>,
}

impl Basis<'_> {
    fn iter(&self) -> impl Iterator<Item = (Arm, u64)> + Clone {
        self.weights.iter().map(|(arm, weight)| {
            let target = Some(arm.target);
            (
                arm,
                if target == self.instead {
                    1
                } else if target == self.without {
                    0
                } else {
                    weight
                },
            )
        })
    }
}

/// The weights of a route as they are in force.
#[derive(Clone, Copy, Debug)]
pub struct InForce<'a> {
    basis: Basis<'a>,
    /// None where the route has no choice and ignores ejections.
    standing: Option<&'a Standing>,
    diverts: bool,
}

impl InForce<'_> {
    /// Every target of the split with its weight, which is below 2^60. At least one weight is not zero.
    pub fn iter(&self) -> impl Iterator<Item = (Arm, u64)> + Clone {
        self.basis.iter().map(|(arm, weight)| {
            let share = self.standing.map_or(Share::WHOLE, |standing| standing.share_of(arm.target));
            (arm, weight.saturating_mul(u64::from(share.millionths())))
        })
    }

    /// Every target with its weight as if none were ejected: a probe is a request that would go to an ejected
    /// target by these.
    pub fn without_ejections(&self) -> impl Iterator<Item = (Arm, u64)> + Clone {
        self.basis.iter()
    }

    /// Whether nobody whom the route could choose takes traffic: the first target of its `fallback` that does is to
    /// answer, and without one the weights hold as if nobody were ejected.
    pub const fn diverts(&self) -> bool {
        self.diverts
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test that overflows stops")]
mod tests {
    use super::*;
    use crate::config;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const NOW: WallTime = WallTime::from_nanos(0);

    /// A model of three targets with the routes given.
    fn model(routes: &str) -> Model {
        let text = format!(
            r#"{{ "models": [ {{ "name": "m", "targets": {{ "a": {{ "cluster": "a" }}, "b": {{ "cluster": "b" }}, "c": {{ "cluster": "c" }} }},
                 "routes": [ {routes} ] }} ] }}"#
        );
        config::parse_all(&text).unwrap().models.remove(0)
    }

    fn id(model: &Model, name: &str) -> TargetId {
        let place = model.targets.iter().position(|target| &*target.name == name);
        TargetId(u16::try_from(place.unwrap()).unwrap())
    }

    /// The weights of the last route as `a=50 b=50`, each rounded to a hundredth of all, and where it diverts.
    #[track_caller]
    fn check(model: &Model, shares: &[(&str, u8)], tripped: bool, expected: &str) {
        let last = model.routes.len() - 1;
        let id_of_last = RouteId(u16::try_from(last).unwrap());
        let standing = Standing {
            shares: shares
                .iter()
                .map(|(name, percent)| (id(model, name), Share::from_percent(*percent)))
                .collect(),
            tripped: if tripped { vec![id_of_last] } else { vec![] },
        };
        let in_force = standing.in_force(id_of_last, &model.routes[last], NOW);
        let all: u64 = in_force.iter().map(|(_, weight)| weight).sum();
        let mut found: Vec<_> = in_force
            .iter()
            .map(|(arm, weight)| {
                let name = &model.targets[usize::from(arm.target.0)].name;
                format!("{name}={}", weight * 100 / all)
            })
            .collect();
        found.sort();
        if in_force.diverts() {
            found.push("diverts".to_owned());
        }
        assert_eq!(found.join(" "), expected);
    }

    const EVEN: &str = r#"{ "split": [ { "target": "a", "weight": 50 }, { "target": "b", "weight": 50 } ] }"#;
    const ONE: &str = r#"{ "split": [ { "target": "a" } ], "fallback": [ "b" ] }"#;
    const THREE: &str = r#"{ "split": [ { "target": "a", "weight": 60 }, { "target": "b", "weight": 20 },
        { "target": "c", "weight": 20 } ], "guard": { "target": "c", "baseline": "a" } }"#;
    const ALL_TO_CANARY: &str = r#"{ "split": [ { "target": "a", "weight": 0 }, { "target": "c", "weight": 1 } ],
        "guard": { "target": "c", "baseline": "a" } }"#;
    const RAMPED: &str = r#"{ "split": [ { "target": "a", "weight": 3 }, { "target": "b", "weight": 1 },
        { "target": "c", "weight": 1 } ], "guard": { "target": "c", "baseline": "a" },
        "ramp": { "target": "c", "start": "1970-01-01T00:00:00Z", "steps": [ { "percent": 100 } ] } }"#;

    #[test]
    fn an_ejected_target_leaves_its_share_to_the_others() {
        check(&model(EVEN), &[], false, "a=50 b=50");
        check(&model(EVEN), &[("a", 0)], false, "a=0 b=100");
        check(&model(THREE), &[("a", 0)], false, "a=0 b=50 c=50");
    }

    #[test]
    fn a_recovering_target_has_a_part_of_its_weight() {
        check(&model(EVEN), &[("a", 25)], false, "a=20 b=80");
    }

    #[test]
    fn a_route_with_one_usable_target_ignores_ejections_and_diverts() {
        check(&model(ONE), &[("a", 0)], false, "a=100 diverts");
        check(&model(ONE), &[("a", 10)], false, "a=100");
        check(&model(ALL_TO_CANARY), &[("c", 0)], false, "a=0 c=100 diverts");
    }

    #[test]
    fn when_everybody_is_out_nobody_is() {
        check(&model(EVEN), &[("a", 0), ("b", 0)], false, "a=50 b=50 diverts");
    }

    #[test]
    fn a_tripped_guard_leaves_the_weight_to_the_others_in_their_configured_proportions() {
        check(&model(THREE), &[], true, "a=75 b=25 c=0");
        check(&model(RAMPED), &[], false, "a=0 b=0 c=100");
        check(&model(RAMPED), &[], true, "a=75 b=25 c=0");
    }

    #[test]
    fn a_tripped_guard_leaves_everything_to_the_baseline_when_the_others_weigh_nothing() {
        check(&model(ALL_TO_CANARY), &[], false, "a=0 c=100");
        check(&model(ALL_TO_CANARY), &[], true, "a=100 c=0");
    }

    #[test]
    fn an_ejection_beside_a_tripped_guard_leaves_who_is_left() {
        check(&model(THREE), &[("a", 0)], true, "a=0 b=100 c=0");
        check(&model(ALL_TO_CANARY), &[("a", 0)], true, "a=100 c=0 diverts");
    }

    #[track_caller]
    fn check_eject(routes: &str, out: &[&str], target: &str, percent: u8, expected: Room) {
        let model = model(routes);
        let shares = out.iter().map(|name| (id(&model, name), Share::NONE)).collect();
        let standing = Standing { shares, ..Standing::QUIET };
        let found = standing.room(&model, id(&model, target), Share::from_percent(percent), NOW);
        assert_eq!(found, expected, "{target} of {routes}");
    }

    #[test]
    fn no_more_than_the_percent_of_the_weight_may_be_out() {
        const CANARY: &str =
            r#"{ "split": [ { "target": "a", "weight": 95 }, { "target": "b", "weight": 5 } ] }"#;
        check_eject(CANARY, &[], "b", 50, Room::Enough);
        check_eject(CANARY, &[], "a", 50, Room::TooLittle);
        check_eject(CANARY, &[], "a", 95, Room::Enough);
        check_eject(CANARY, &[], "b", 4, Room::TooLittle);
        check_eject(THREE, &["b"], "c", 50, Room::Enough);
        check_eject(THREE, &["b"], "c", 39, Room::TooLittle);
    }

    #[test]
    fn the_last_target_of_a_choice_stays() {
        check_eject(EVEN, &["a"], "b", 100, Room::TooLittle);
        check_eject(THREE, &["a", "c"], "b", 100, Room::TooLittle);
    }

    #[test]
    fn every_route_has_a_say() {
        let routes = format!(
            r#"{{ "match": {{ "version": "1" }}, "split": [ {{ "target": "a", "weight": 9 }}, {{ "target": "c", "weight": 1 }} ] }}, {EVEN}"#
        );
        check_eject(&routes, &[], "a", 50, Room::TooLittle);
        check_eject(&routes, &[], "b", 50, Room::Enough);
    }

    #[test]
    fn a_target_without_which_nothing_changes_is_not_ejected() {
        check_eject(r#"{ "split": [ { "target": "a" } ] }"#, &[], "a", 100, Room::Pointless);
        check_eject(EVEN, &[], "c", 100, Room::Pointless);
        check_eject(ONE, &[], "a", 0, Room::Enough);
        check_eject(ONE, &["b"], "a", 100, Room::Pointless);
    }
}
