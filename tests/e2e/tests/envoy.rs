//! The quickstart in a real Envoy, with the built filter and native model servers behind it.
//!
//! What a request came to is read where it cannot be argued with: in what the servers counted and in the
//! numbers of the answers (version 1 computes 0.5x + 2, version 2 computes 0.5x + 3).

mod envoy {
    mod certificates;
    mod native;
    mod relay;
    mod stage;
    mod wire;

    mod bodies;
    mod cancellation;
    mod choose_by;
    mod compose;
    mod compression;
    mod configuration;
    mod contradiction;
    mod crowd;
    mod grpc;
    mod hold;
    mod hostile;
    mod keys;
    mod late;
    mod memory;
    mod metadata;
    mod observability;
    mod pools;
    mod protocols;
    mod refusals;
    mod rest;
    mod rewrite;
    mod splice;
    mod spoofing;
    mod streams;
}
