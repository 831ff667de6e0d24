//! The host itself, shown on modules of a few lines: it pauses, buffers and refuses as Envoy does.

mod body;
mod module;
mod phases;
mod shared;
mod worker;
