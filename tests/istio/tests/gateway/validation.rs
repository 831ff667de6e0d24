//! What istiod's own validation says of the manifests.
