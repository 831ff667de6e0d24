//! What must hold for any bytes.
//!
//! Each target is a plain function of bytes that panics where something does not hold. libFuzzer calls it with
//! what it makes up, the replay test with what such runs have found and kept in `corpus/`.

pub mod config;
pub mod exchange;
pub mod headers;
mod input;
mod prost_reading;
pub mod scanner;

/// Panics where something does not hold for these bytes.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also its folder in `corpus/`.
pub const TARGETS: [(&str, Target); 4] = [
    ("scanner", scanner::run),
    ("config", config::run),
    ("headers", headers::run),
    ("exchange", exchange::run),
];
