//! Workers that share state, interleaved at every load and store by a seeded scheduler.
//!
//! A law is checked for many seeds. A seed that breaks it is printed, and `PREDICTGATE_SIMULATION_SEED`
//! runs it alone; `PREDICTGATE_SIMULATION_RUNS` says how many seeds each test tries.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop where it stands"
)]

mod broken_stores;
mod counters;
mod explore;
mod health;
mod limits;
mod scheduler;
