use super::*;
use crate::rng::Rng;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn bucket(max_tokens: u32, tokens_per_fill: u32, fill_interval: Duration) -> TokenBucket {
    TokenBucket { max_tokens, tokens_per_fill, fill_interval }
}

fn gcra(max_tokens: u32, tokens_per_fill: u32, fill_interval: Duration) -> Gcra {
    Gcra::new(bucket(max_tokens, tokens_per_fill, fill_interval))
}

const SECOND: Duration = Duration::from_secs(1);
const START: Instant = Instant::from_nanos(1_000_000_000_000);

/// How many requests of one token pass at once.
fn at_once(gcra: &Gcra, mut tat: Tat, now: Instant) -> (u64, Tat) {
    let mut admitted = 0;
    while let Ok(next) = gcra.step(tat, now, 1) {
        (tat, admitted) = (next, admitted + 1);
    }
    (admitted, tat)
}

#[test]
fn a_full_bucket_admits_exactly_its_burst_whatever_the_rate() {
    for tokens in [1, 2, 3, 5, 7, 10, 97] {
        for burst in [1, 2, 3, 100] {
            let gcra = gcra(burst, tokens, SECOND);
            assert_eq!(at_once(&gcra, Tat::default(), START).0, u64::from(burst), "{tokens} a second");
        }
    }
}

#[test]
fn a_refused_request_is_admitted_at_the_promised_moment_and_not_before() {
    let mut rng = Rng::seeded(1);
    let mut draw = |below: u64| rng.below(below.try_into().unwrap());
    for _ in 0..2000 {
        let burst = 1 + u32::try_from(draw(5000)).unwrap();
        let gcra = gcra(burst, 1 + u32::try_from(draw(5000)).unwrap(), Duration::from_millis(1 + draw(5000)));
        let (_, tat) = at_once(&gcra, Tat::default(), START);
        let now = START.after(Duration::from_nanos(draw(1_000_000)));
        let cost = 1 + draw(gcra.burst());
        let Err(Refused::Exhausted { retry_after }) = gcra.step(tat, now, cost) else { continue };
        let then = now.after(retry_after);
        let before = Instant::from_nanos(then.as_nanos() - 1);
        assert!(gcra.step(tat, then, cost).is_ok(), "{gcra:?} {cost}");
        assert!(gcra.step(tat, before, cost).is_err(), "{gcra:?} {cost}");
    }
}

#[test]
fn a_cost_up_to_the_burst_passes_some_time_and_a_larger_one_never() {
    for gcra in [gcra(100, 100, SECOND), gcra(2000, 2000, SECOND), gcra(40, 1000, SECOND)] {
        let burst = gcra.burst();
        assert!(gcra.step(Tat::default(), START, burst).is_ok());
        assert_eq!(gcra.step(Tat::default(), START, burst + 1), Err(Refused::NeverSatisfiable));
        let (_, empty) = at_once(&gcra, Tat::default(), START);
        let Err(Refused::Exhausted { retry_after }) = gcra.step(empty, START, burst) else { panic!() };
        assert!(gcra.step(empty, START.after(retry_after), burst).is_ok());
    }
}

#[test]
fn what_is_available_is_what_can_be_debited() {
    let gcra = gcra(1000, 2000, SECOND);
    let mut tat = gcra.step(Tat::default(), START, 1).unwrap();
    for step in 0..100 {
        let now = START.after(Duration::from_millis(step * 7));
        let available = gcra.available(tat, now);
        assert!(gcra.step(tat, now, available).is_ok());
        assert!(gcra.step(tat, now, available + 1).is_err());
        tat = gcra.debit(tat, now, available.min(1), available / 2).unwrap().tat;
    }
}

#[test]
fn a_debit_takes_what_is_there_up_to_what_is_wanted() {
    let gcra = gcra(5, 1, SECOND);
    let debit = gcra.debit(Tat::default(), START, 2, 4).unwrap();
    assert_eq!(debit.tokens, 4);
    assert_eq!(gcra.debit(debit.tat, START, 1, 4).unwrap().tokens, 1);
    assert!(gcra.debit(debit.tat, START, 2, 4).is_err());
}

#[test]
fn a_limit_is_leased_when_its_burst_is_twice_what_a_lease_time_gains() {
    // 20 ms at 1,000 a second are 20 tokens.
    for (burst, rate, depth) in [(40, 1000, 20), (39, 1000, 39), (2000, 2000, 1960), (100, 100, 100)] {
        let gcra = gcra(burst, rate, SECOND);
        assert_eq!(gcra.available(Tat::default(), START), depth, "{burst} at {rate} a second");
        assert_eq!(gcra.is_leased(), depth < u64::from(burst));
    }
}

#[test]
fn a_whole_burst_waits_until_no_lease_can_be_in_use() {
    let gcra = gcra(100, 1000, SECOND);
    let tat = gcra.step(Tat::default(), START, 1).unwrap();
    let passed = START.after(Duration::from_millis(1));
    assert!(tat.has_passed(passed));
    let refused = Refused::Exhausted { retry_after: LEASE };
    assert_eq!(gcra.step(tat, passed, 100), Err(refused));
    assert!(gcra.step(tat, passed.after(LEASE), 100).is_ok());
}

#[test]
fn the_rate_is_never_above_the_configured_one_and_at_most_four_thousandths_below() {
    for (tokens, fill) in [
        (1, SECOND),
        (3, SECOND),
        (7, Duration::from_millis(1)),
        (999_999_937, SECOND),
        (1_500_000_000, SECOND),
        (u32::MAX, Duration::from_millis(1)),
        (1, Duration::from_secs(315_360_000)),
    ] {
        let gcra = gcra(u32::MAX, tokens, fill);
        let group = u128::from(1_u64 << gcra.shift);
        // The time of a group, once exact and once as it is counted, both times tokens_per_fill.
        let exact = u128::from(span(fill)) * group;
        let counted = u128::from(gcra.interval) * u128::from(tokens);
        assert!(exact <= counted, "{tokens} in {fill:?}");
        assert!((counted - exact) * 250 <= exact, "{tokens} in {fill:?}");
    }
}

#[test]
fn a_refund_undoes_a_debit_that_nobody_followed() {
    let gcra = gcra(10, 1, SECOND);
    let some = gcra.step(Tat::default(), START, 4).unwrap();
    let debit = gcra.debit(some, START, 3, 3).unwrap();
    assert_eq!(gcra.refund(debit.tat, debit, START), some);
}

#[test]
fn a_refund_never_leaves_more_than_if_the_debit_had_not_been() {
    let mut rng = Rng::seeded(2);
    let mut draw = |below: u64| rng.below(below.try_into().unwrap());
    let mut refunded_less = 0;
    for _ in 0..5000 {
        let gcra = gcra(10, 1, SECOND);
        let mut now = START;
        let mut without = Tat(units(START) - span(SECOND) + draw(4 * span(SECOND)));
        let Ok(debit) = gcra.debit(without, now, 1 + draw(3), 0) else { continue };
        let mut with = debit.tat;
        for _ in 0..draw(4) {
            now = now.after(Duration::from_millis(draw(2000)));
            let cost = 1 + draw(3);
            if let Ok(next) = gcra.step(with, now, cost) {
                with = next;
                without = gcra.step(without, now, cost).expect("a fuller bucket admits it too");
            }
        }
        let refunded = gcra.refund(with, debit, now);
        let least = without.0.max(units(now));
        assert!(least <= refunded.0.max(units(now)), "{debit:?} {refunded:?} {without:?}");
        refunded_less += u64::from(with.0 - refunded.0 < debit.charge);
    }
    assert!(refunded_less > 1000, "{refunded_less}");
}

#[test]
fn other_numbers_find_the_bucket_no_emptier_than_empty() {
    let (wide, narrow) = (gcra(1000, 1, SECOND), gcra(5, 1, SECOND));
    let (_, tat) = at_once(&wide, Tat::default(), START);
    let clamped = narrow.clamp(tat, START);
    let refused = Refused::Exhausted { retry_after: SECOND };
    assert_eq!(narrow.step(clamped, START, 1), Err(refused));
    assert_eq!(clamped.full_in(START), Duration::from_secs(5));
}
