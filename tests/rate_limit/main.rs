//! What one worker's limiter says, against buckets that are kept in the plainest way; and what it asks the
//! host for.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a test may stop where it stands"
)]

mod host;
mod plain;
mod told;

use std::collections::HashMap;
use std::time::Duration;

use predictgate::arena::{Arena, DRAIN};
use predictgate::rate_limit::{
    Admission, Cost, Counts, LimitId, Limiter, OnError, RateLimit, Spend, TokenBucket,
};
use predictgate::store::SharedStore;
use predictgate::units::{Instant, Mode};

const START: Instant = Instant::from_nanos(1_000_000_000_000);
const SECOND: Duration = Duration::from_secs(1);

fn rate(name: &str, max_tokens: u32, tokens_per_fill: u32, fill_interval: Duration) -> RateLimit {
    RateLimit {
        name: name.into(),
        bucket: TokenBucket { max_tokens, tokens_per_fill, fill_interval },
        cost: Cost::Request,
        slots: 4096,
        on_error: OnError::Deny,
        mode: Mode::Enforce,
    }
}

fn limiter(entries: u32) -> Limiter {
    Limiter::new(Arena::new("laws", entries, DRAIN), 7)
}

fn admit(limiter: &mut Limiter, store: &dyn SharedStore, now: Instant, spends: &[Spend<'_>]) -> Admission {
    limiter.admit(store, now, &|| now, spends)
}

fn spend(limit: LimitId, key: &[u8]) -> Spend<'_> {
    Spend { limit, key, cost: 1 }
}

/// How many of `asked` requests at `now` pass.
fn admitted(limiter: &mut Limiter, store: &dyn SharedStore, now: Instant, limit: LimitId, asked: u32) -> u32 {
    let passes = |_: &u32| admit(limiter, store, now, &[spend(limit, b"")]) == Admission::Admitted;
    u32::try_from((0..asked).filter(passes).count()).unwrap()
}

fn counts(limiter: &mut Limiter) -> HashMap<LimitId, Counts> {
    let mut all = HashMap::new();
    limiter.take_counts(|limit, counts| _ = all.insert(limit, counts));
    all
}
