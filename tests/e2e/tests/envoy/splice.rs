//! Rewritten messages, which arrive byte by byte as they were but for the field that names the model.

use model_server::client::raw::Step;
use model_server::framing::frame;
use model_server::{Rpc, Server};
use predictgate_e2e::Scenario;
use predictgate_e2e::pools::MODEL;
use serde_json::json;

use super::stage::Stage;
use super::wire::{ALIAS, GRPC, MIB, alias, assert_arrived, by_v2, input, numbers, rewritten, spec, values};

/// Sends a message in DATA frames of a size, and asserts what arrived in its place and what came back.
async fn check(stage: &Stage, x: &[f32], sent: &[u8], size: usize, arrives: &[u8]) {
    let before = stage.executed();
    let raw = stage.raw().await;
    let steps = Step::chunks(&frame(sent), size);
    let answer = raw.request(Rpc::Predict.path(), &GRPC, steps).await.unwrap();
    assert!(values(&answer) == by_v2(x), "other numbers than version 2 makes of these");
    assert_eq!(stage.executed(), (before.0, before.1 + 1));
    assert_arrived(&stage.pools.v2, arrives);
}

/// A whole message with its identity first, and what is to arrive of it.
async fn check_first(stage: &Stage, x: &[f32], size: usize) {
    let input = input(x);
    let sent = [spec(ALIAS, None), input.clone()].concat();
    let arrives = [spec(ALIAS, None), rewritten(), input].concat();
    check(stage, x, &sent, size, &arrives).await;
}

#[tokio::test]
async fn a_message_of_4_mib_arrives_as_it_was_but_for_its_identity() {
    let stage = Stage::configured(alias).await;
    for size in [4 * MIB, 10_000] {
        check_first(&stage, &numbers(MIB), size).await;
    }
    stage.assert_alive().await;
}

#[tokio::test]
async fn a_message_of_40_mib_arrives_as_it_was_but_for_its_identity() {
    // An unoptimised model server computes so many numbers for longer than the shipped routes wait.
    let patient = |scenario: Scenario| {
        let scenario = scenario.connection_manager(|manager| {
            manager["route_config"]["virtual_hosts"][0]["retry_policy"]["per_try_timeout"] = json!("120s");
        });
        scenario.reconfigured(alias)
    };
    let stage = Stage::with(patient).await;
    check_first(&stage, &numbers(10 * MIB), MIB).await;
    stage.assert_alive().await;
}

#[tokio::test]
async fn a_message_arrives_spliced_through_windows_and_buffers_of_64_kib() {
    let small = |scenario: Scenario| {
        let scenario = scenario.connection_manager(|manager| {
            manager["http2_protocol_options"]["initial_stream_window_size"] = json!(65_535);
            manager["http2_protocol_options"]["initial_connection_window_size"] = json!(65_535);
        });
        let scenario = scenario.bootstrap(|bootstrap| {
            let listener = &mut bootstrap["static_resources"]["listeners"][0];
            listener["per_connection_buffer_limit_bytes"] = json!(65_536);
        });
        scenario.reconfigured(alias)
    };
    check_first(&Stage::with(small).await, &numbers(MIB), MIB).await;
}

#[tokio::test]
async fn a_message_in_frames_of_one_byte_arrives_spliced() {
    let stage = Stage::configured(alias).await;
    check_first(&stage, &numbers(300), 1).await;
    stage.assert_alive().await;
}

#[tokio::test]
async fn a_model_behind_40_kb_of_tensors_is_read_and_rewritten_there() {
    let stage = Stage::configured(alias).await;
    // Of two inputs of one name the last one counts.
    let (ignored, x) = (input(&numbers(10_240)), numbers(100_000));
    assert!(40_960 < ignored.len());
    for size in [MIB, 1000] {
        let asked = [ignored.clone(), spec(MODEL, Some(2)), input(&x)].concat();
        check(&stage, &x, &asked, size, &asked).await;
        let sent = [ignored.clone(), spec(ALIAS, Some(1)), input(&x)].concat();
        let arrives = [ignored.clone(), spec(ALIAS, Some(1)), rewritten(), input(&x)].concat();
        check(&stage, &x, &sent, size, &arrives).await;
    }
    // So it is when nothing follows it.
    let x = numbers(10_240);
    let asked = [input(&x), spec(MODEL, Some(2))].concat();
    check(&stage, &x, &asked, MIB, &asked).await;
    let sent = [input(&x), spec(ALIAS, None)].concat();
    check(&stage, &x, &sent, MIB, &[sent.clone(), rewritten()].concat()).await;
    assert_eq!(executed(&stage.pools.v1), 0);
    stage.assert_alive().await;
}

fn executed(server: &Server) -> u64 {
    server.counts().total()
}
