//! The Envoy HTTP filter: reads the host, asks the library, and does what the verdict says.

#[cfg(feature = "decision-log")]
mod decision_log;
mod host;
mod http;
mod metrics;
mod report;
mod root;

#[cfg(target_arch = "wasm32")]
use std::alloc::System;

#[cfg(target_arch = "wasm32")]
use predictgate::recycle::Recycling;
use proxy_wasm::types::LogLevel;

// It is for one thread, which is what a VM has.
#[cfg(target_arch = "wasm32")]
#[global_allocator]
static ALLOCATOR: Recycling<System> = Recycling::new(System);

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(root::Root::default()));
}}
