//! Decides, for each call to a model server, which model version answers it and whether it may pass.
//!
//! The library turns plain values into a verdict and does nothing else: it does no I/O, reads no clock and
//! calls no host, so the same code runs in the filter, in tests, in simulations and under fuzzers.

pub mod arena;
pub mod call;
pub mod config;
pub mod exchange;
pub mod guard;
pub mod headers;
pub mod health;
pub mod hold;
pub mod host;
pub mod identity;
pub mod key;
pub mod matching;
pub mod method;
pub mod outcome;
pub mod outlier;
pub mod policy;
pub mod rate_limit;
pub mod recycle;
pub mod rng;
pub mod route;
pub mod siphash;
pub mod split;
pub mod store;
pub mod tally;
pub mod units;
pub mod verdict;
