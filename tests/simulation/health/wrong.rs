//! Wrong variants, which the laws must catch.

use std::sync::Arc;

use predictgate::policy::Policy;
use predictgate::store::MemStore;
use predictgate::units::{Instant, Share};

use super::ROLLOUT;
use super::law::{FAULTS, law, play};
use super::life::{Right, Scenario, Worker};
use crate::broken_stores::Blind;
use crate::explore::first_broken;
use crate::scheduler::Faults;

#[track_caller]
fn check_caught(wanted: &str, law: impl Fn(u64) -> Result<(), String>) {
    let broken = first_broken(|seed| match law(seed) {
        Err(broken) if broken.contains(wanted) => Err(broken),
        _ => Ok(()),
    });
    assert_ne!(broken, None, "no run broke the law that says {wanted:?}");
}

#[test]
fn two_probes_and_lost_latches_are_caught_when_the_last_writer_wins() {
    for wanted in ["two probes", "is lost", "ejected at"] {
        check_caught(wanted, |seed| {
            law(&play(seed, 4, FAULTS, &Scenario::drawn(seed), Blind::default(), Right))
        });
    }
}

/// Ejects as much as it likes.
struct Unbounded;

impl Worker for Unbounded {
    fn judged_by(&self, policy: &Policy) -> Policy {
        let mut policy = policy.clone();
        let detection = policy.models[0].outlier_detection.as_mut().unwrap();
        detection.max_ejection_percent = Share::WHOLE;
        policy
    }
}

#[test]
fn more_than_the_percent_is_caught() {
    check_caught("are out, more than", |seed| {
        law(&play(seed, 2, FAULTS, &Scenario::drawn(seed), MemStore::default(), Unbounded))
    });
}

/// Has a store of its own.
struct Deaf;

impl Worker for Deaf {
    fn shares(&self) -> bool {
        false
    }
}

#[test]
fn workers_that_do_not_hear_of_each_other_are_caught() {
    check_caught("ejected at", |seed| {
        law(&play(seed, 2, FAULTS, &Scenario::drawn(seed), MemStore::default(), Deaf))
    });
}

/// Takes the older configuration for the newer.
struct Backwards;

impl Worker for Backwards {
    fn created(&self, now: Instant) -> Instant {
        Instant::from_nanos(u64::MAX - now.as_nanos())
    }
}

#[test]
fn an_older_configuration_that_clears_the_latch_of_a_newer_one_is_caught() {
    check_caught("is lost", |seed| {
        law(&play(seed, 2, Faults::default(), &Scenario::apart(seed), MemStore::default(), Backwards))
    });
}

/// Does not see that the guard has changed.
struct Unaware;

impl Worker for Unaware {
    fn judged_by(&self, policy: &Policy) -> Policy {
        let mut policy = policy.clone();
        let routes = Arc::make_mut(&mut policy.models[0].routes);
        routes[usize::from(ROLLOUT.0)].guard.as_mut().unwrap().epoch = 1;
        policy
    }
}

#[test]
fn a_latch_that_outlives_its_guard_is_caught() {
    check_caught("came back", |seed| {
        law(&play(seed, 3, FAULTS, &Scenario::alternating(seed), MemStore::default(), Unaware))
    });
}
