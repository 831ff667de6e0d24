//! The manifests of `istio/` in a real istiod, and a real Envoy that it makes an ingress gateway of.
//!
//! There is no Kubernetes: istiod watches a folder instead ([`Istiod`]), Services and pods are entries in it
//! ([`Manifests`] says what is changed and what is added), and nobody plays Istio's agent, so the module comes from
//! a file and Envoy asks istiod itself ([`Gateway`]).
//! `istiod/` has the program; its `go.mod` says which commit of Istio it is built from.

mod gateway;
mod istiod;
mod log;
mod manifests;

pub use gateway::{Gateway, Port, configuration};
pub use istiod::{Istiod, verdict};
pub use manifests::{Manifests, Place};
