//! Limits that workers share: their law over every interval, all or none, saturation, and wrong variants that
//! the law must catch.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "the numbers of a test are small"
)]

mod arena;
mod chance;
mod law;
mod leaks;
mod ledger;
mod saturation;
mod wrong;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use predictgate::arena::{Arena, DRAIN};
use predictgate::rate_limit::{
    Admission, Cost, LimitId, Limiter, OnError, RateLimit, Refusal, Spend, TokenBucket,
};
use predictgate::rng::Rng;
use predictgate::store::SharedStore;
use predictgate::units::{Instant, Mode};

use crate::scheduler::Host;
use ledger::{Decision, Ledger};

/// A limit of the simulated configuration.
#[derive(Clone, Debug)]
pub struct Setting {
    pub bucket: TokenBucket,
    pub is_keyed: bool,
    pub slots: u32,
    pub mode: Mode,
}

pub fn setting(max_tokens: u32, tokens_per_second: u32) -> Setting {
    let bucket =
        TokenBucket { max_tokens, tokens_per_fill: tokens_per_second, fill_interval: Duration::from_secs(1) };
    Setting { bucket, is_keyed: false, slots: 4, mode: Mode::Enforce }
}

pub fn keyed(slots: u32, setting: &Setting) -> Setting {
    Setting { is_keyed: true, slots, ..setting.clone() }
}

/// A worker's limiter for `settings`; what cannot be written is refused, so that the law has no exception.
pub fn limiter(settings: &[Setting], entries: u32, random: u128) -> Limiter {
    let mut limiter = Limiter::new(Arena::new("simulation", entries, DRAIN), random);
    for (place, setting) in settings.iter().enumerate() {
        let rate = RateLimit {
            name: format!("limit {place}").into(),
            bucket: setting.bucket,
            cost: Cost::Request,
            slots: setting.slots,
            on_error: OnError::Deny,
            mode: setting.mode,
        };
        limiter.add(Some("model"), &rate, setting.is_keyed);
    }
    limiter
}

/// A request: limit, key and cost of each spend.
pub type Request = Vec<(u32, u8, u64)>;

/// Asks `limiter` and writes down what it says.
pub fn admit(
    limiter: &mut Limiter,
    host: &Host<'_>,
    store: &dyn SharedStore,
    now: Instant,
    request: &Request,
    ledger: &RefCell<Ledger>,
) -> Result<(), Refusal> {
    let spends: Vec<_> = request
        .iter()
        .map(|(limit, key, cost)| Spend {
            limit: LimitId(*limit),
            key: std::slice::from_ref(key),
            cost: *cost,
        })
        .collect();
    let flight = ledger.borrow_mut().start(host.now(), request);
    let admission = limiter.admit(store, now, &|| host.now(), &spends);
    let mut ledger = ledger.borrow_mut();
    ledger.end(flight, host.now());
    match admission {
        Admission::Admitted => {
            for &(limit, key, cost) in request {
                ledger.admitted.push(Decision { at: now, limit, key, cost });
            }
            Ok(())
        }
        Admission::Refused(refusal) => {
            ledger.refuse(now, host.now(), request, refusal);
            Err(refusal)
        }
    }
}

/// A moment after now that is as likely to come any time, on average after `mean`.
pub fn pause(rng: &mut Rng, mean: Duration) -> Duration {
    let twice = u64::try_from(mean.as_nanos()).unwrap() * 2;
    Duration::from_nanos(rng.below(twice.max(1).try_into().unwrap()))
}

pub type Shared<T> = Rc<RefCell<T>>;
