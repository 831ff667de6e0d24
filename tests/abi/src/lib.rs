//! A proxy-wasm host that behaves as Envoy does, for tests of the built filter.
//!
//! It speaks ABI 0.2.1 with the statuses, the buffering and the order of callbacks that Envoy 1.40 shows,
//! and nothing in it waits: time is moved by the test, chance is seeded, and one thread runs everything.
//! Where Envoy lets something pass by accident, such as a change of headers that have already gone on,
//! this host refuses, because a trap here is cheaper than a surprise in production.
//!
//! [`Module`] is the compiled filter, [`Process`] what all workers of one Envoy share, [`Worker`] one VM
//! with its root contexts, and [`Stream`] one HTTP request in it.

mod call;
mod context;
mod flow;
mod imports;
mod map;
mod metrics;
mod module;
mod process;
mod shared_data;
mod stream;
mod vm;
mod worker;

pub use map::Map;
pub use metrics::{Kind, Metric};
pub use module::Module;
pub use process::{Process, Refused};
pub use stream::{Action, Reply, State, Stream};
pub use worker::Worker;
