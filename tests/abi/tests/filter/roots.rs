//! Two configurations in one VM, as after an update, and several VMs in one process.

use predictgate_abi::Worker;
use serde_json::json;

use crate::request::{Asked, PREDICT, complete, grpc, predict};
use crate::setup::{HOLD_TIMEOUT, configuration, held, process, worker};

/// The usual configuration with everything of `resnet` on another cluster.
fn other() -> String {
    let mut other = configuration();
    other["models"][0]["targets"] = json!({ "stable": { "cluster": "new" }, "canary": { "cluster": "new" } });
    other.to_string()
}

#[test]
fn a_held_request_is_decided_by_the_configuration_it_began_with() {
    let mut worker = worker();
    let old = worker.stream();
    old.request_headers(&grpc(PREDICT), false);
    worker.reconfigure(other()).unwrap();
    let new = worker.stream();
    new.request_headers(&grpc(PREDICT), false);
    assert_eq!(held(&worker), 2);
    let body = predict("resnet", Asked::Version(2), 10);
    for (stream, cluster) in [(&new, "new"), (&old, "tfs-v2")] {
        stream.request_body(&body, true);
        assert_eq!(stream.state().header("x-predictgate-cluster").as_deref(), Some(cluster));
        stream.grpc_response(0);
        stream.log();
    }
    assert_eq!(held(&worker), 0);
    assert_eq!(worker.metric("predictgate_requests", &[("target", "canary")]), 2);
}

#[test]
fn the_old_configuration_still_ends_its_holds() {
    let mut worker = worker();
    complete(&worker, Asked::Latest, 0);
    let old = worker.stream();
    old.request_headers(&grpc(PREDICT), false);
    worker.reconfigure(other()).unwrap();
    worker.process().advance(HOLD_TIMEOUT);
    worker.tick_newest();
    assert!(old.state().paused, "it is not the new one's to end");
    worker.tick();
    assert_eq!(old.state().response_header("grpc-status").as_deref(), Some("4"));
    assert_eq!(held(&worker), 0);
}

#[test]
fn what_is_known_of_the_host_outlives_an_update() {
    let mut worker = worker();
    complete(&worker, Asked::Latest, 0);
    worker.reconfigure(other()).unwrap();
    let streams: Vec<_> = (0..20).map(|_| worker.stream()).collect();
    for stream in &streams {
        stream.request_headers(&grpc(PREDICT), false);
    }
    assert_eq!(held(&worker), 20, "an unproven host would hold 16");
}

#[test]
fn draining_cuts_what_is_held_and_leaves_the_gauge_at_zero() {
    let mut worker = worker();
    let old: Vec<_> = (0..3).map(|_| worker.stream()).collect();
    for stream in &old {
        stream.request_headers(&grpc(PREDICT), false);
    }
    worker.reconfigure(other()).unwrap();
    assert_eq!(held(&worker), 3);
    worker.drain();
    assert_eq!(held(&worker), 0);
    complete(&worker, Asked::Latest, 0);
    worker.process().advance(HOLD_TIMEOUT);
    worker.tick();
}

#[test]
fn workers_share_counters_and_nothing_else() {
    let process = process();
    let text = configuration().to_string();
    let workers: Vec<_> = (0..4).map(|_| process.worker(&text).unwrap()).collect();
    for worker in &workers {
        complete(worker, Asked::Version(2), 0);
        let stream = worker.stream();
        stream.request_headers(&grpc(PREDICT), false);
    }
    workers.iter().for_each(Worker::tick);
    let tags = [("model", "resnet"), ("target", "canary"), ("code", "OK")];
    assert_eq!(process.metric("predictgate_requests", &tags), 4);
    assert_eq!(process.metric("predictgate_held", &[]), 4);
}

#[test]
fn one_dead_vm_leaves_the_others_serving() {
    let process = process();
    let text = configuration().to_string();
    let (victim, other) = (process.worker(&text).unwrap(), process.worker(&text).unwrap());
    process.die_at("proxy_replace_header_map_value", 1);
    let stream = victim.stream();
    stream.request_headers(&grpc(PREDICT), false);
    stream.request_body(&predict("resnet", Asked::Latest, 1), true);
    assert!(victim.trap().is_some());
    complete(&other, Asked::Latest, 0);
    assert_eq!(other.metric("predictgate_requests", &[("code", "OK")]), 1);
}
