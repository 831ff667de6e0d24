//! `rate_limits`: those of a model and those across models.

use std::time::Duration;

use super::at::{At, Once};
use super::{MODE, key, matching, time};
use crate::policy::Limit;
use crate::rate_limit::{Cost, LimitId, OnError, RateLimit, TokenBucket};

const MAX_LIMITS: usize = 256;

#[inline(never)]
pub fn limits(at: At<'_>) -> Vec<Limit> {
    let mut names = Once::new();
    let items = at.items(MAX_LIMITS).into_iter().flatten();
    items.filter_map(|item| limit(item, &mut names)).collect()
}

#[inline(never)]
fn limit(at: At<'_>, names: &mut Once<Box<str>>) -> Option<Limit> {
    let object = at.object(&["name", "by", "match", "token_bucket", "cost", "slots", "on_error", "mode"])?;
    let name = object.need("name").and_then(|at| at.name().inspect(|name| names.take(at, name.clone())));
    let rate = RateLimit {
        name: name.unwrap_or_default(),
        bucket: object.need("token_bucket").and_then(token_bucket).unwrap_or(NO_BUCKET),
        cost: object.get("cost").and_then(|it| it.choice(&COST)).unwrap_or_default(),
        slots: object.get("slots").and_then(|it| it.power_of_two(4..=1 << 20)).unwrap_or(4096),
        on_error: object.get("on_error").and_then(|it| it.choice(&ON_ERROR)).unwrap_or_default(),
        mode: object.get("mode").and_then(|it| it.choice(&MODE)).unwrap_or_default(),
    };
    Some(Limit {
        // The whole configuration tells its place.
        id: LimitId(0),
        by: object.get("by").and_then(key::sources).unwrap_or_default(),
        matcher: object.get("match").and_then(matching::matcher).unwrap_or_default(),
        rate,
    })
}

const COST: [(&str, Cost); 3] = [("request", Cost::Request), ("batch", Cost::Batch), ("bytes", Cost::Bytes)];

const ON_ERROR: [(&str, OnError); 2] = [("allow", OnError::Allow), ("deny", OnError::Deny)];

/// Stands where the operator's could not be read.
const NO_BUCKET: TokenBucket =
    TokenBucket { max_tokens: 1, tokens_per_fill: 1, fill_interval: Duration::from_secs(1) };

#[inline(never)]
fn token_bucket(at: At<'_>) -> Option<TokenBucket> {
    let object = at.object(&["max_tokens", "tokens_per_fill", "fill_interval"])?;
    let tokens = |key| object.need(key).and_then(|it| it.whole(1..=u32::MAX));
    let (max_tokens, tokens_per_fill) = (tokens("max_tokens"), tokens("tokens_per_fill"));
    let interval = object.need("fill_interval");
    let fill_interval = interval.and_then(|it| it.duration(time::SHORTEST..=time::LONGEST))?;
    Some(TokenBucket { max_tokens: max_tokens?, tokens_per_fill: tokens_per_fill?, fill_interval })
}
