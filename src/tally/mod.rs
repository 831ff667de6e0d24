//! Counts of what became of requests, and what may be concluded from them.
//!
//! Outlier detection and the guard count in the same ways: failures in a row ([`Row`]), and requests, bad answers
//! and latencies in a window of fixed buckets ([`Window`]). [`increased`] and [`slower`] compare two targets.
//! All of it is plain values: a worker counts on its own, and the parts of all workers are added up.

mod compare;
mod latency;
mod row;
mod window;
mod wire;

pub use compare::{Proportion, increased, slower};
pub use latency::Latencies;
pub use row::{Row, RowPart, caller_bit};
pub use window::{BUCKETS, Counts, Window, bucket_ends};
pub use wire::{Reader, Writer};
