//! What one request costs in calls to the host, which is most of what it costs at all.

use std::collections::BTreeMap;

use predictgate_abi::Worker;

use crate::request::{Asked, PREDICT, complete, grpc, predict};
use crate::setup::worker;

/// The calls that the second of two equal requests makes; the first one defines metrics.
fn calls(worker: &Worker, request: impl Fn()) -> BTreeMap<&'static str, u64> {
    request();
    let before = worker.process().all_calls();
    request();
    let mut calls = worker.process().all_calls();
    for (import, count) in before {
        calls.entry(import).and_modify(|all| *all -= count);
    }
    calls.retain(|_, count| *count > 0);
    calls
}

#[test]
fn a_predict_reads_its_headers_once_its_body_once_and_no_property() {
    let worker = worker();
    let calls = calls(&worker, || complete(&worker, Asked::Version(2), 0));
    let count = |import| calls.get(import).copied().unwrap_or(0);
    assert_eq!(count("proxy_get_header_map_pairs"), 1, "{calls:?}");
    assert_eq!(count("proxy_get_buffer_bytes"), 1, "{calls:?}");
    assert_eq!(count("proxy_get_property"), 0, "{calls:?}");
    assert_eq!(count("proxy_log"), 0, "{calls:?}");
    // The target and the cluster; what is not there to be removed is not removed.
    assert_eq!(count("proxy_replace_header_map_value"), 2, "{calls:?}");
    assert_eq!(count("proxy_remove_header_map_value"), 0, "{calls:?}");
}

#[test]
fn the_size_of_a_tensor_costs_no_work() {
    let worker = worker();
    let work = |tensor: usize| {
        let body = predict("resnet", Asked::Latest, tensor);
        let send = || {
            let stream = crate::request::send(&worker, &grpc(PREDICT), &[&body]);
            stream.grpc_response(0);
            stream.log();
        };
        send();
        let before = worker.fuel();
        send();
        worker.fuel() - before
    };
    // Both bodies are longer than what the filter peeks at; the rest of a tensor is skipped unread.
    let (small, large) = (work(100_000), work(10_000_000));
    assert!(large < small + small / 10, "{small} units for 0.1 MB, {large} for 10 MB");
}
