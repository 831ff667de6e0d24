//! What is said and kept: shadow mode, updates, refusals, and where the arena has no room.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use predictgate::rate_limit::{Admission, Quota, RateLimit, Refusal, Spend, Why};
use predictgate::store::MemStore;
use predictgate::units::Mode;

use super::{SECOND, START, admit, admitted, counts, limiter, rate, spend};

#[test]
fn a_limit_in_shadow_mode_only_counts() {
    let (store, mut limiter) = (MemStore::default(), limiter(64));
    let shadow = limiter.add(None, &RateLimit { mode: Mode::Shadow, ..rate("shadow", 2, 1, SECOND) }, false);
    let enforced = limiter.add(None, &rate("enforced", 5, 1, SECOND), false);
    let spends = [spend(shadow, b""), spend(enforced, b"")];
    let passed =
        (0..9).filter(|_| admit(&mut limiter, &store, START, &spends) == Admission::Admitted).count();
    assert_eq!(passed, 5);
    // Only what would have been forwarded is held against it.
    assert_eq!(counts(&mut limiter)[&shadow].shadow_refused, 3);
    assert_eq!(counts(&mut limiter), HashMap::new());
}

#[test]
fn a_changed_limit_acts_at_once_and_an_unchanged_one_goes_on() {
    let store = MemStore::default();
    let start = |burst, tokens| {
        let mut limiter = limiter(64);
        let changed = limiter.add(Some("model"), &rate("changed", burst, tokens, SECOND), false);
        let same = limiter.add(Some("model"), &rate("same", 10, 10, SECOND), false);
        (limiter, changed, same)
    };
    let (mut old, changed, same) = start(100, 1);
    assert_eq!(admitted(&mut old, &store, START, changed, 200), 100);
    assert_eq!(admitted(&mut old, &store, START, same, 4), 4);
    let (mut new, changed, same) = start(5, 10);
    assert_eq!(admitted(&mut new, &store, START, changed, 200), 0, "an empty bucket stays empty");
    let later = START.after(Duration::from_millis(200));
    assert_eq!(admitted(&mut new, &store, later, changed, 200), 2, "and fills at the new rate");
    assert_eq!(admitted(&mut new, &store, START, same, 20), 6);
}

#[test]
fn an_old_root_that_drains_does_not_take_turns_with_a_new_one() {
    let store = MemStore::default();
    let add = |burst| {
        let mut limiter = limiter(64);
        let limit = limiter.add(None, &rate("limit", burst, 1, SECOND), false);
        (limiter, limit)
    };
    let ((mut old, limit), (mut new, _)) = (add(100), add(5));
    assert_eq!(admitted(&mut old, &store, START, limit, 200), 100);
    let mut total = 0;
    for second in 0..60 {
        let now = START.after(Duration::from_secs(second));
        total += admitted(&mut new, &store, now, limit, 10);
        total += admitted(&mut old, &store, now, limit, 200);
    }
    // 95 tokens were forgiven once, when the new numbers came, and 59 came since.
    assert!(total <= 95 + 59, "{total}");
}

#[test]
fn limits_of_the_same_name_in_other_scopes_are_others() {
    let (store, mut limiter) = (MemStore::default(), limiter(64));
    for scope in [None, Some(""), Some("a"), Some("b")] {
        let limit = limiter.add(scope, &rate("limit", 3, 1, SECOND), false);
        assert_eq!(admitted(&mut limiter, &store, START, limit, 9), 3, "{scope:?}");
    }
}

#[test]
fn a_cost_above_the_burst_is_refused_as_such_and_spends_nothing() {
    let (store, mut limiter) = (MemStore::default(), limiter(64));
    let limit = limiter.add(None, &rate("limit", 5, 1, SECOND), false);
    let refused = admit(&mut limiter, &store, START, &[Spend { limit, key: b"", cost: 6 }]);
    let Admission::Refused(refusal) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.why, Why::NeverSatisfiable);
    assert_eq!(
        admit(&mut limiter, &store, START, &[Spend { limit, key: b"", cost: 5 }]),
        Admission::Admitted
    );
    assert_eq!(limiter.quota(limit), Some(Quota { tokens: 5, window: Duration::from_secs(5) }));
}

#[test]
fn a_refusal_tells_what_is_left_and_when_there_is_more() {
    let (store, mut limiter) = (MemStore::default(), limiter(64));
    let limit = limiter.add(None, &rate("limit", 5, 1, SECOND), false);
    assert_eq!(admitted(&mut limiter, &store, START, limit, 3), 3);
    let refused = admit(&mut limiter, &store, START, &[Spend { limit, key: b"", cost: 4 }]);
    let expected = Refusal {
        limit,
        why: Why::Exhausted { retry_after: Duration::from_secs(2) },
        remaining: 2,
        full_in: Duration::from_secs(3),
    };
    assert_eq!(refused, Admission::Refused(expected));
}

#[test]
fn a_full_arena_is_counted_and_leaves_a_worker_its_own_buckets() {
    let (store, mut limiter) = (MemStore::default(), limiter(1));
    let first = limiter.add(None, &rate("first", 3, 1, SECOND), false);
    let second = limiter.add(None, &rate("second", 3, 1, SECOND), false);
    let keyed = limiter.add(None, &rate("keyed", 3, 1, SECOND), true);
    for limit in [first, second, keyed] {
        assert_eq!(admitted(&mut limiter, &store, START, limit, 9), 3);
    }
    let counts = counts(&mut limiter);
    assert!(!counts.contains_key(&first));
    assert!(0 < counts[&second].alone && 0 < counts[&keyed].alone, "{counts:?}");
    assert_eq!(store.len(), 1);
}

#[test]
fn a_bucket_that_was_seen_empty_before_a_debit_was_given_back_is_looked_at_again() {
    let store = MemStore::default();
    let add = || {
        let mut limiter = limiter(64);
        let full = limiter.add(None, &rate("full", 1, 1, SECOND), false);
        let empty = limiter.add(None, &rate("empty", 1, 1, SECOND), false);
        (limiter, full, empty)
    };
    let ((mut one, full, empty), (other, ..), (mut third, ..)) = (add(), add(), add());
    assert_eq!(admitted(&mut third, &store, START, empty, 1), 1);
    let other = RefCell::new(other);
    // The clock is read between a debit and its return.
    let clock = || {
        assert_eq!(admitted(&mut other.borrow_mut(), &store, START, full, 1), 0);
        START
    };
    let refused = one.admit(&store, START, &clock, &[spend(full, b""), spend(empty, b"")]);
    assert!(matches!(refused, Admission::Refused(Refusal { limit, .. }) if limit == empty));
    let at = |millis| {
        let now = START.after(Duration::from_millis(millis));
        admitted(&mut other.borrow_mut(), &store, now, full, 1)
    };
    assert_eq!((at(19), at(20)), (0, 1));
}
