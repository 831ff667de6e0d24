//! Rate limits: how much of what may pass in a time.

#![deny(clippy::arithmetic_side_effects)]

mod account;
mod accounts;
pub mod gcra;
mod limit;
mod limiter;
mod secret;
mod shared;
mod slots;

use std::time::Duration;

use crate::units::Mode;

pub use limit::Counts;
pub use limiter::{Admission, LimitId, Limiter, Quota, Refusal, Spend, Why};

/// The operator's settings of one limit, named as Envoy's `token_bucket`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub name: Box<str>,
    pub bucket: TokenBucket,
    pub cost: Cost,
    /// Room for the keys of this limit; a power of two.
    pub slots: u32,
    /// What happens when shared data cannot be written.
    pub on_error: OnError,
    pub mode: Mode,
}

/// A bucket that holds `max_tokens` and gains `tokens_per_fill` every `fill_interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    pub max_tokens: u32,
    pub tokens_per_fill: u32,
    pub fill_interval: Duration,
}

/// What a request takes out of the bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cost {
    /// One token.
    #[default]
    Request,
    /// The leading dimension of the inputs, the largest.
    Batch,
    /// The bytes of the message.
    Bytes,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    #[default]
    Allow,
    Deny,
}
