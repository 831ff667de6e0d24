//! Manifests that change while calls come.
