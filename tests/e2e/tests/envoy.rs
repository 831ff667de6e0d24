//! The quickstart in a real Envoy, with the built filter and native model servers behind it.
//!
//! What a request came to is read where it cannot be argued with: in what the servers counted and in the
//! numbers of the answers (version 1 computes 0.5x + 2, version 2 computes 0.5x + 3).

mod envoy {
    mod certificates;
    mod illness;
    mod native;
    mod relay;
    mod stage;
    mod tokens;
    mod wire;

    mod bodies;
    mod cancellation;
    mod choose_by;
    mod compose;
    mod compression;
    mod configuration;
    mod contradiction;
    mod crowd;
    mod ejection;
    mod ejection_wrong;
    mod golden;
    mod grpc;
    mod guard;
    mod hold;
    mod hostile;
    mod jwt;
    mod keys;
    mod late;
    mod limits;
    mod limits_replies;
    mod limits_tenants;
    mod listener;
    mod memory;
    mod metadata;
    mod mirror;
    mod observability;
    mod outcomes;
    mod pools;
    mod protocols;
    mod ramp;
    mod refusals;
    mod rest;
    mod rewrite;
    mod splice;
    mod split;
    mod spoofing;
    mod streams;
    mod subsets;
}
