//! The shipped manifests in a real istiod and a real Envoy: what the model servers count is what counts.

mod body;
mod live;
mod metadata;
mod security;
mod stage;
mod validation;
