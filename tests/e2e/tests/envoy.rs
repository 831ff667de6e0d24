//! The quickstart in a real Envoy, with the built filter and native model servers behind it.
//!
//! What a request came to is read where it cannot be argued with: in what the servers counted and in the
//! numbers of the answers (version 1 computes 0.5x + 2, version 2 computes 0.5x + 3).

mod envoy {
    mod stage;

    mod configuration;
    mod pools;
    mod rest;
}
