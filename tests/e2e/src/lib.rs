//! The harness of the end-to-end tests and of the demo.
//!
//! A [`Scenario`] is a shipped `envoy.yaml` with its filter configuration, in which only what belongs to
//! the machine is substituted: addresses, ports, the module's path. Started, it is a real [`Envoy`].

pub mod admin;
pub mod decisions;
pub mod envoy;
mod files;
pub mod load;
pub mod log;
pub mod plugin;
pub mod pools;
pub mod process;
pub mod refusal;
pub mod scenario;
pub mod share;
pub mod tensorflow;
pub mod tools;
pub mod traffic;
pub mod users;
pub mod wait;

pub use envoy::{Envoy, Update};
pub use pools::Pools;
pub use scenario::Scenario;
