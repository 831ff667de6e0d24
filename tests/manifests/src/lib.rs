//! Checks the manifests of `istio/`.
