//! The built filter in a host that plays Envoy: `PREDICTGATE_WASM` names the module.

mod accounting;
mod budget;
mod configuration;
mod exports;
mod gate;
mod health;
mod health_cost;
mod health_guard;
mod holds;
mod hostile;
mod identity;
mod knob;
mod limits;
mod limits_cost;
mod refusals;
mod request;
mod roots;
mod routing;
mod scale;
mod setup;
mod split;
