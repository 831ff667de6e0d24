//! Users dealt out by weight, over four workers: who gets what, and what a change of weights does.

use std::time::{Duration, Instant};

use predictgate_e2e::plugin::PluginFile;
use predictgate_e2e::users::{Call, USER, Users};
use predictgate_e2e::wait::within;
use predictgate_e2e::{Scenario, Update, share};
use serde_json::{Value, json};

use super::native::{Caller, Native};
use super::stage::Stage;

const USERS: usize = 4_000;
/// Of all users together.
const REQUESTS: usize = 20_000;
/// Promised from a change of the weights until it acts.
const SOON: Duration = Duration::from_secs(1);

/// The versions that the two targets serve.
pub const STABLE: i64 = 1;
pub const CANARY: i64 = 2;

/// The canary scenario with four workers.
pub async fn stage() -> Stage {
    Stage::shipped("canary", |scenario| Ok(scenario.concurrency(4))).await
}

/// The file with this share of the canary, in percent, and no ramp.
pub fn with_canary_percent(plugin: &PluginFile, percent: u32) -> PluginFile {
    let mut configuration = plugin.configuration().unwrap();
    let rollout = rollout(&mut configuration);
    rollout["split"] = json!([
        { "target": "stable", "weight": 100 - percent },
        { "target": "canary", "weight": percent },
    ]);
    rollout.as_object_mut().unwrap().remove("ramp");
    let mut plugin = plugin.clone();
    plugin.configure(&configuration.to_string());
    plugin
}

/// The route that deals out.
pub fn rollout(configuration: &mut Value) -> &mut Value {
    let rollout = &mut configuration["models"][0]["routes"][4];
    assert_eq!(rollout["name"], "rollout");
    rollout
}

/// The version that the library, without an Envoy, gives to each user.
pub fn versions(plugin: &PluginFile, users: &Users) -> Vec<i64> {
    let native = Native::of(plugin);
    let version = |user: &String| match native.target(&Caller::with_header(USER, user)).as_str() {
        "stable" => STABLE,
        "canary" => CANARY,
        target => panic!("there is no target {target}"),
    };
    users.names().iter().map(version).collect()
}

/// Asserts that no call failed and each user was answered by this version.
#[track_caller]
pub fn assert_answers(calls: &[Call], versions: &[i64]) {
    assert_eq!(calls.len(), versions.len());
    let differ = |(call, version): &(&Call, &i64)| call.answer.as_ref() != Ok(*version);
    let different: Vec<_> = calls.iter().zip(versions).filter(differ).collect();
    assert!(different.is_empty(), "{} of {}: {:?}", different.len(), calls.len(), different.first());
}

pub fn count(versions: &[i64], version: i64) -> usize {
    versions.iter().filter(|it| **it == version).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_user_sees_one_target_whichever_worker_is_asked_and_the_shares_hold() {
    const ROUNDS: usize = REQUESTS / USERS;
    let stage = stage().await;
    let users = Users::connect(&stage.envoy, USERS).await.unwrap();
    let versions = versions(stage.envoy.plugin(), &users);
    for round in 0..ROUNDS {
        assert_answers(&users.call(round).await.unwrap(), &versions);
    }
    // The servers themselves have counted the same.
    let canary = count(&versions, CANARY);
    assert_eq!(stage.executed(), ((ROUNDS * (USERS - canary)) as u64, (ROUNDS * canary) as u64));
    assert!(share::holds(canary, USERS, 0.05), "{canary} of {USERS} users have the canary");
    let workers = stage.envoy.connections_by_worker().await.unwrap();
    eprintln!("{canary} of {USERS} users have the canary; connections of the workers: {workers:?}");
    assert!(workers.len() == 4 && !workers.contains(&0), "{workers:?}");
    stage.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_gateway_agrees_on_every_user() {
    let half = |mut scenario: Scenario| {
        scenario.plugin = with_canary_percent(&scenario.plugin, 50);
        Ok(scenario)
    };
    let one = Stage::shipped("canary", half).await;
    let replica = half(one.pools.shipped("canary").unwrap()).unwrap().start().await.unwrap();
    replica.wait_until_healthy().await.unwrap();
    let users = Users::connect(&one.envoy, USERS / 2).await.unwrap();
    let others = Users::connect(&replica, USERS / 2).await.unwrap();
    let (one, other) = tokio::join!(users.call(0), others.call(0));
    let answers: Vec<_> = one.unwrap().into_iter().map(|call| call.answer.unwrap()).collect();
    assert_answers(&other.unwrap(), &answers);
    let canary = count(&answers, CANARY);
    assert!(share::holds(canary, USERS / 2, 0.5), "{canary} of {} users have the canary", USERS / 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_weight_acts_within_a_second_on_open_connections_moves_whom_it_must_and_fails_nobody() {
    let mut stage = stage().await;
    let users = Users::connect(&stage.envoy, USERS).await.unwrap();
    let before = versions(stage.envoy.plugin(), &users);
    let connections: u64 = stage.envoy.connections_by_worker().await.unwrap().iter().sum();

    let next = with_canary_percent(stage.envoy.plugin(), 25);
    let change = async {
        let at = Instant::now();
        assert_eq!(stage.envoy.publish(next).await?, Update::Accepted);
        Ok(at)
    };
    let (at, mut rounds) = users.call_during(change, within(SOON)).await.unwrap();
    while rounds.len() * USERS < REQUESTS {
        rounds.push(users.call(rounds.len()).await.unwrap());
    }

    let after = versions(stage.envoy.plugin(), &users);
    assert_answers(&rounds[0], &before);
    assert_answers(rounds.last().unwrap(), &after);
    let mut last_old = Duration::ZERO;
    for round in &rounds {
        for (user, call) in round.iter().enumerate() {
            let name = &users.names()[user];
            let version = *call.answer.as_ref().unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!([before[user], after[user]].contains(&version), "{name} is at {version}");
            if version != after[user] {
                last_old = last_old.max(call.begun.saturating_duration_since(at));
            }
            if version != before[user] {
                assert!(at < call.begun + call.took, "{name} moved before the change");
            }
        }
    }
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    let back = before.iter().zip(&after).filter(|it| *it == (&CANARY, &STABLE)).count();
    let calls: usize = rounds.iter().map(Vec::len).sum();
    eprintln!(
        "{calls} calls, 0 failed; {moved} of {USERS} users moved, {back} back; in force after {last_old:?}"
    );
    assert!(last_old < within(SOON), "the old weights held for {last_old:?}");
    assert_eq!(back, 0);
    assert!(share::holds(count(&before, CANARY), USERS, 0.05));
    assert!(share::holds(count(&after, CANARY), USERS, 0.25));
    // Nobody has connected anew.
    assert_eq!(stage.envoy.connections_by_worker().await.unwrap().iter().sum::<u64>(), connections);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_leaves_the_weights_in_force() {
    let mut stage = stage().await;
    let users = Users::connect(&stage.envoy, USERS / 2).await.unwrap();
    let versions = versions(stage.envoy.plugin(), &users);
    let mut bad: Value = stage.envoy.plugin().configuration().unwrap();
    rollout(&mut bad)["split"][1] = json!({ "target": "canry", "weight": 25 });
    assert_eq!(stage.envoy.configure(&bad.to_string()).await.unwrap(), Update::Rejected);
    assert_eq!(stage.envoy.judged().await.unwrap(), (1, 1));
    assert_answers(&users.call(0).await.unwrap(), &versions);
    let wanted = r#"models[0].routes[4].split[1].target: "canry" is not defined (did you mean "canary"?)"#;
    assert!(stage.envoy.log().contains(wanted), "{}", stage.envoy.log());
    assert_weights(&stage, 950.0, 50.0).await;
}

#[tokio::test]
async fn configured_weights_are_shown_in_thousandths() {
    let mut stage = stage().await;
    assert_weights(&stage, 950.0, 50.0).await;
    let next = with_canary_percent(stage.envoy.plugin(), 25);
    assert_eq!(stage.envoy.publish(next).await.unwrap(), Update::Accepted);
    assert_weights(&stage, 750.0, 250.0).await;
    let samples = stage.envoy.admin.prometheus().await.unwrap();
    let weights = samples.iter().filter(|it| it.name == "predictgate_weight").count();
    assert_eq!(weights, 2, "a route with one target has no weights to show");
}

async fn assert_weights(stage: &Stage, stable: f64, canary: f64) {
    for (target, weight) in [("stable", stable), ("canary", canary)] {
        let labels = [("model", "resnet"), ("route", "rollout"), ("target", target)];
        stage.wait_for_metric("predictgate_weight", &labels, weight).await;
    }
}
