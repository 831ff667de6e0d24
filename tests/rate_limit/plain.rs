//! One worker against buckets that are kept in the plainest way.

use std::collections::HashMap;
use std::time::Duration;

use predictgate::rate_limit::{Admission, RateLimit, Refusal, Spend, TokenBucket, Why};
use predictgate::store::MemStore;
use predictgate::units::Instant;
use proptest::prelude::*;

use super::{SECOND, START, admit, limiter, rate};

/// A bucket as a number of tokens, counted in parts of which `fill_interval` in nanoseconds make a token.
#[derive(Clone, Copy)]
struct Plain {
    bucket: TokenBucket,
    parts: u128,
    at: Instant,
}

impl Plain {
    fn gain(&mut self, now: Instant) {
        let gained = now.since(self.at).as_nanos() * u128::from(self.bucket.tokens_per_fill);
        let most = u128::from(self.bucket.max_tokens) * self.bucket.fill_interval.as_nanos();
        (self.parts, self.at) = ((self.parts + gained).min(most), now);
    }

    fn cost(&self, cost: u64) -> u128 {
        u128::from(cost) * self.bucket.fill_interval.as_nanos()
    }
}

#[derive(Clone, Debug)]
struct Step {
    after_micros: u64,
    spends: Vec<(u32, u8, u64)>,
}

fn step() -> impl Strategy<Value = Step> {
    let spend = (0..3_u32, 0..4_u8, 1..6_u64);
    let spends = prop::collection::vec(spend, 1..4).prop_map(|mut spends| {
        spends.sort_unstable();
        spends.dedup_by_key(|spend| spend.0);
        spends
    });
    (0..200_000_u64, spends).prop_map(|(after_micros, spends)| Step { after_micros, spends })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Two limits with one bucket and one with a bucket a key, none of which is leased. The time of a token
    /// is a whole number of nanoseconds, so that both count the same.
    #[test]
    fn one_worker_decides_as_plain_buckets_do(steps in prop::collection::vec(step(), 1..200)) {
        let store = MemStore::default();
        let mut limiter = limiter(8192);
        let buckets = [(5, 5), (4, 10), (3, 20)].map(|(max, tokens)| rate("", max, tokens, SECOND).bucket);
        let ids: Vec<_> = buckets
            .iter()
            .enumerate()
            .map(|(place, bucket)| {
                let rate = RateLimit { bucket: *bucket, ..rate(&place.to_string(), 1, 1, SECOND) };
                limiter.add(Some("model"), &rate, place == 1)
            })
            .collect();
        let mut plain: HashMap<(u32, u8), Plain> = HashMap::new();
        let mut now = START;
        for step in steps {
            now = now.after(Duration::from_micros(step.after_micros));
            let spends: Vec<_> = step
                .spends
                .iter()
                .map(|(limit, key, cost)| {
                    Spend { limit: ids[*limit as usize], key: std::slice::from_ref(key), cost: *cost }
                })
                .collect();
            let mut expected: Result<(), (u32, Option<Duration>)> = Ok(());
            let holder = |limit: u32, key: u8| (limit, if limit == 1 { key } else { 0 });
            // What can never pass is found before anything else is asked.
            for (limit, key, cost) in &step.spends {
                let bucket = buckets[*limit as usize];
                let full = u128::from(bucket.max_tokens) * bucket.fill_interval.as_nanos();
                let plain = plain
                    .entry(holder(*limit, *key))
                    .or_insert(Plain { bucket, parts: full, at: now });
                plain.gain(now);
                if full < plain.cost(*cost) {
                    expected = expected.and(Err((*limit, None)));
                } else if plain.parts < plain.cost(*cost) {
                    let missing = plain.cost(*cost) - plain.parts;
                    let wait = missing.div_ceil(u128::from(bucket.tokens_per_fill));
                    expected = expected.and(Err((*limit, Some(Duration::from_nanos(wait.try_into().unwrap())))));
                }
            }
            let found = match admit(&mut limiter, &store, now, &spends) {
                Admission::Admitted => Ok(()),
                Admission::Refused(Refusal { limit, why, .. }) => Err((limit.0, match why {
                    Why::Exhausted { retry_after } => Some(retry_after),
                    Why::NeverSatisfiable | Why::Unavailable => None,
                })),
            };
            // Which of several limits refuses depends on what this worker knew before; whether one does, does
            // not.
            prop_assert_eq!(found.is_ok(), expected.is_ok());
            if let Err((limit, retry_after)) = found {
                let at = step.spends.iter().find(|spend| spend.0 == limit).unwrap();
                let plain = plain[&holder(limit, at.1)];
                let missing = plain.cost(at.2).saturating_sub(plain.parts);
                let wait = missing.div_ceil(u128::from(plain.bucket.tokens_per_fill));
                prop_assert!(missing > 0);
                if let Some(retry_after) = retry_after {
                    prop_assert_eq!(retry_after.as_nanos(), wait);
                } else {
                    prop_assert!(u64::from(plain.bucket.max_tokens) < at.2);
                }
            } else {
                for (limit, key, cost) in &step.spends {
                    let plain = plain.get_mut(&holder(*limit, *key)).unwrap();
                    plain.parts -= plain.cost(*cost);
                }
            }
        }
    }
}
