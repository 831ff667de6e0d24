//! A listener that is replaced while Envoy serves: its connections keep its configuration until they have drained,
//! and nobody is lost or sent elsewhere meanwhile.

use std::time::{Duration, Instant, SystemTime};

use model_server::Rpc;
use model_server::client::raw::{Raw, RawStream};
use model_server::framing::frame;
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::users::{Call, USER, Users};
use predictgate_e2e::wait::{DEADLINE, until};
use serde_json::{Value, json};

use super::ramp::{ramp, wait_for_weight};
use super::split::{STABLE, assert_answers, rollout, versions, with_canary_percent};
use super::stage::Stage;
use super::wire::{GRPC, input, numbers, spec, values};

const USERS: usize = 1_000;
/// Time enough for what is to be seen of the old listener.
const DRAIN_SECONDS: u32 = 5;

/// Asks for no version of resnet.
fn message() -> Vec<u8> {
    [spec(MODEL, None), input(&numbers(1_000))].concat()
}

/// The headers of a Predict of this user, on a connection of its own.
async fn open(stage: &Stage, user: &str) -> (Raw, RawStream) {
    let raw = stage.raw().await;
    let headers = [&GRPC[..], &[(USER, user.as_bytes())]].concat();
    let stream = raw.open(raw.post(Rpc::Predict.path(), &headers).unwrap(), false).await.unwrap();
    (raw, stream)
}

/// Makes the ramp's present step another one.
fn raise_the_step(listener: &mut Value, percent: u32) {
    let filters = &mut listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
    let text = &mut filters[0]["typed_config"]["config"]["configuration"]["value"];
    let mut configuration: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
    rollout(&mut configuration)["ramp"]["steps"][0]["percent"] = json!(percent);
    *text = configuration.to_string().into();
}

/// How many calls a connection served before it ended, as of old; the others found it ended.
#[track_caller]
fn served(calls: &[Call], versions: &[i64]) -> u64 {
    let mut served = 0;
    for (call, wanted) in calls.iter().zip(versions) {
        if let Ok(version) = &call.answer {
            assert_eq!(version, wanted);
            served += 1;
        }
    }
    served
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_a_replaced_listener_keep_their_configuration_until_they_have_drained() {
    let in_half_an_hour = SystemTime::now() + Duration::from_secs(30 * 60);
    let stage = Stage::shipped("canary", |scenario| {
        let scenario = scenario.concurrency(2).reconfigured(|it| {
            ramp(in_half_an_hour)(it);
            it["identity"] = json!({ "hold_timeout": "30s" });
        })?;
        Ok(scenario.inlined().discovered_listener(DRAIN_SECONDS))
    });
    let mut stage = stage.await;
    let users = Users::connect(&stage.envoy, USERS).await.unwrap();
    let plugin = stage.pools.shipped("canary").unwrap().plugin;
    let [old, new] = [10, 25].map(|percent| versions(&with_canary_percent(&plugin, percent), &users));
    assert_answers(&users.call(0).await.unwrap(), &old);
    let mut answered = USERS as u64;

    // Of one who is to move, one request waits for its body, and the body of another is on its way.
    let mover = old.iter().zip(&new).position(|(old, new)| old != new).unwrap();
    assert_eq!(old[mover], STABLE);
    let body = frame(&message());
    let (_held, mut held) = open(&stage, &users.names()[mover]).await;
    stage.wait_for_metric("predictgate_held", &[], 1.0).await;
    let begun = stage.pools.v1.counts().begun.of(Rpc::Predict);
    let (_flowing, mut flowing) = open(&stage, &users.names()[mover]).await;
    flowing.send(body.slice(..body.len() / 2)).await.unwrap();
    stage.pools.v1.until(DEADLINE, |pool| begun < pool.counts().begun.of(Rpc::Predict)).await.unwrap();

    stage.envoy.replace_listener(|listener| raise_the_step(listener, 25)).await.unwrap();
    let replaced = Instant::now();
    held.send_last(body.clone()).unwrap();
    flowing.send_last(body.slice(body.len() / 2..)).unwrap();
    for stream in [&mut held, &mut flowing] {
        let expected: Vec<_> = numbers(1_000).iter().map(|x| 0.5 * x + 2.0).collect();
        assert_eq!(values(&stream.answer().await), expected);
        answered += 1;
    }

    let mut by_the_old = served(&users.call(1).await.unwrap(), &old);
    let fresh = Users::connect(&stage.envoy, USERS).await.unwrap();
    assert_answers(&fresh.call(0).await.unwrap(), &new);
    answered += USERS as u64;

    // An old connection serves until Envoy tells it to end; then its caller asks nothing more of it.
    for round in 2.. {
        let served = served(&users.call(round).await.unwrap(), &old);
        by_the_old += served;
        if served == 0 {
            break;
        }
    }
    answered += by_the_old;
    let drained = replaced.elapsed();
    until("the old connections to end", || async {
        Ok((stage.envoy.admin.stat("listener_manager.total_filter_chains_draining").await? == 0)
            .then_some(()))
    })
    .await
    .unwrap();
    eprintln!("{by_the_old} calls over old connections, which ended within {drained:?}");
    assert!(0 < by_the_old);
    // What was not answered was not sent, and nothing was cut off.
    assert_eq!(stage.executed().0 + stage.executed().1, answered);
    assert_eq!(stage.envoy.admin.stat("http.models.downstream_cx_destroy_local_active_rq").await.unwrap(), 0);
    // The new listener has learnt nothing of the old one's step.
    wait_for_weight(&stage.envoy, 250).await;
    assert_answers(&fresh.call(1).await.unwrap(), &new);
    stage.assert_alive().await;
}
