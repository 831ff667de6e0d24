//! The shipped manifests in a real istiod and a real Envoy: what the model servers count is what counts.

mod access_log;
mod body;
mod live;
mod metadata;
mod security;
mod split;
mod stage;
mod validation;
