//! Ejection in a real Envoy with four workers: each way of being ill is found by its rule and in its time, and a target
//! that is well again gets its traffic back.

use std::time::{Duration, Instant};

use model_server::{Code, Fault, Place};
use predictgate_e2e::log::{Line, lines};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::traffic::Traffic;
use predictgate_e2e::users::{Call, Users};
use predictgate_e2e::wait::{until, within};
use serde_json::{Value, json};

use super::illness::{self, IMPATIENT, Illness, PATIENT, last_canary, metric, nth_failure};
use super::split::{CANARY, STABLE};
use super::stage::Stage;

/// Calls a second, half of them for each target.
const RATE: u32 = 200;
const USERS: usize = 400;

/// As configured here.
const ROW: usize = 5;
const INTERVAL: Duration = Duration::from_secs(1);
const BASE: Duration = Duration::from_secs(6);
const STEP: Duration = Duration::from_millis(300);
/// Steps in which a target does not have its whole weight yet.
const STEPS: u32 = 3;

/// From the failure that completes a row to the last request in any worker: each of two ticks is 100 ms, and the rest is
/// for four workers that share two cores with everybody else.
const ACTS: Duration = Duration::from_millis(500);

/// Workers learn within a tick that a probe may go, that it has succeeded, and each step; callers come at [`RATE`].
const TICKS: Duration = Duration::from_millis(500);

fn detection(latency_ratio: u32) -> Value {
    json!({
        "consecutive_failures": ROW,
        "interval": format!("{}s", INTERVAL.as_secs()),
        "latency_ratio": latency_ratio,
        "base_ejection_time": format!("{}s", BASE.as_secs()),
        // A probe that fails does not eject for longer.
        "max_ejection_time": format!("{}s", BASE.as_secs()),
        "recovery_step_time": format!("{}ms", STEP.as_millis()),
    })
}

async fn stage(latency_ratio: u32, timeout: Duration) -> Stage {
    illness::stage([50, 50], timeout, |model| model["outlier_detection"] = detection(latency_ratio)).await
}

fn said(stage: &Stage, words: &str) -> Option<Line> {
    lines(&stage.envoy.log()).into_iter().find(|line| line.text.starts_with(words))
}

async fn until_said(stage: &Stage, words: &str) -> Line {
    until(format!("the log to say {words:?}"), || async { Ok(said(stage, words)) }).await.unwrap()
}

async fn wait_for_weights(stage: &Stage, stable: f64, canary: f64) {
    for (target, weight) in [("stable", stable), ("canary", canary)] {
        let labels = [("model", MODEL), ("route", "rollout"), ("target", target)];
        stage.wait_for_metric("predictgate_weight", &labels, weight).await;
    }
}

/// What is to be found: the rule, and until when the last request may have gone to a target that fell ill at a moment
/// and whose failures, if it has any, came when they came.
struct Expected {
    cause: &'static str,
    /// 0 where the target's failures alone are to judge: what it answered before it began to hang is older than what the
    /// other has answered, and on a machine that was busy then it looks slow.
    latency_ratio: u32,
    /// Of a call, before an answer begins.
    timeout: Duration,
    deadline: fn(begun: Instant, row: Option<Instant>) -> Instant,
}

const A_ROW: Expected = Expected {
    cause: "consecutive_failures",
    latency_ratio: 0,
    timeout: PATIENT,
    deadline: |_, row| row.expect("a row of failures") + within(ACTS),
};

/// Lets the canary fall ill under traffic, be ejected, become well and come back.
async fn falls_ill_and_comes_back(illness: Illness, expected: &Expected) {
    let stage = stage(expected.latency_ratio, expected.timeout).await;
    let users = Users::connect(&stage.envoy, USERS).await.unwrap();
    let traffic = Traffic::start(&users, RATE);
    // The windows are full of what was well.
    let start = Instant::now();
    until("both to be well", || async { Ok((INTERVAL <= start.elapsed()).then_some(())) }).await.unwrap();
    let begun = Instant::now();
    illness.begin(&stage.pools).await;
    let ejected = until_said(&stage, "ejected: model=resnet target=canary").await;
    wait_for_weights(&stage, 1000.0, 0.0).await;
    illness.end(&stage.pools).await;
    let well = Instant::now();
    until_said(&stage, "returned: model=resnet target=canary").await;
    wait_for_weights(&stage, 500.0, 500.0).await;
    let whole = well.elapsed();
    // And the canary's users are with it again.
    until("the canary's users to be back", || async {
        let calls = traffic.ended();
        let last = &calls[calls.len().saturating_sub(USERS / 2)..];
        Ok((last.iter().filter(|call| call.answer == Ok(CANARY)).count() * 3 > last.len()).then_some(()))
    })
    .await
    .unwrap();
    let calls = traffic.stop().await.unwrap();

    assert!(ejected.text.ends_with(&format!("cause={}", expected.cause)), "{ejected:?}");
    let failures = calls.iter().filter(|call| call.answer.is_err()).count();
    let row = (ROW <= failures).then(|| nth_failure(&calls, ROW));
    // In the first half of the time for which it is out not even a probe goes to it.
    let last = last_canary(calls.iter().filter(|call| call.begun < ejected.at + BASE / 2)).unwrap();
    let deadline = (expected.deadline)(begun, row);
    assert!(ejected.at <= deadline, "ejected {:?} too late", ejected.at - deadline);
    let deadline = deadline.min(ejected.at + within(ACTS));
    eprintln!(
        "{illness:?}: ejected by {} after {:?}, {failures} of {} calls failed; the last request {:?} before its time; \
         whole again {whole:?} after it was well",
        expected.cause,
        ejected.at.saturating_duration_since(begun),
        calls.len(),
        deadline.saturating_duration_since(last),
    );
    assert!(last <= deadline, "{:?} too late", last.saturating_duration_since(deadline));
    assert!(whole <= BASE + STEPS * STEP + within(TICKS), "whole again only after {whole:?}");
    assert_eq!(metric(&stage, "predictgate_ejections", &[("target", "stable")]).await as u64, 0);
    stage.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_refuses_connections_is_ejected_by_its_row_and_comes_back() {
    falls_ill_and_comes_back(Illness::Refuses, &A_ROW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_resets_in_the_middle_of_answers_is_ejected_by_its_row_and_comes_back() {
    falls_ill_and_comes_back(Illness::Fault(Fault::reset()), &A_ROW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_has_not_loaded_the_version_is_ejected_by_its_row_and_comes_back() {
    falls_ill_and_comes_back(Illness::Unloaded, &A_ROW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_hangs_is_ejected_by_its_row_of_timeouts_and_comes_back() {
    let by_timeouts = Expected { timeout: IMPATIENT, ..A_ROW };
    falls_ill_and_comes_back(Illness::Fault(Fault::hang()), &by_timeouts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_only_slow_is_ejected_by_its_latency_and_comes_back() {
    // Four times slower than who is well on a busy machine.
    const SLOW: Duration = Duration::from_millis(500);
    let by_latency = Expected {
        cause: "latency",
        latency_ratio: 4,
        timeout: PATIENT,
        // When the first slow answer is a window old, all of the window are slow; it is judged when a sixth of it ends.
        deadline: |begun, _| begun + SLOW + INTERVAL + INTERVAL / 6 + within(ACTS),
    };
    falls_ill_and_comes_back(Illness::Fault(Fault::delay(SLOW)), &by_latency).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_more_than_half_of_the_weight_is_out_when_everybody_fails() {
    let stage = stage(0, PATIENT).await;
    let users = Users::connect(&stage.envoy, USERS).await.unwrap();
    let failing = || Some(Fault::fail(1.0, Code::Internal, Place::AfterHeaders));
    stage.pools.v1.set_fault(MODEL, STABLE, failing());
    stage.pools.v2.set_fault(MODEL, CANARY, failing());
    let traffic = Traffic::start(&users, RATE);
    until_said(&stage, "not ejected, too much would be out").await;
    until("a probe to fail", || async {
        let failed = metric(&stage, "predictgate_ejections", &[("cause", "failed_probe")]).await;
        // Half of the weight is out at most, and none between an ejection and what follows it.
        let out = metric(&stage, "predictgate_ejected", &[("model", MODEL)]).await;
        assert!(out < 1.5, "{out} targets are out");
        Ok((0.5 < failed).then_some(()))
    })
    .await
    .unwrap();
    let calls = traffic.stop().await.unwrap();
    let rows = metric(&stage, "predictgate_ejections", &[("cause", "consecutive_failures")]).await;
    assert_eq!(rows as u64, 1, "one of two");
    assert!(calls.iter().all(|call| call.answer.is_err()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_a_target_that_is_out_are_served_by_the_other_and_nobody_else_moves() {
    let stage = stage(0, PATIENT).await;
    let users = Users::connect(&stage.envoy, USERS).await.unwrap();
    let versions = |calls: Vec<Call>| -> Vec<_> { calls.into_iter().map(|call| call.answer).collect() };
    let before = versions(users.call(0).await.unwrap());
    Illness::Fault(Fault::reset()).begin(&stage.pools).await;
    let mut round = 1;
    while said(&stage, "ejected").is_none() {
        users.call(round).await.unwrap();
        round += 1;
        assert!(round < 10, "nothing came of so many failures");
    }
    wait_for_weights(&stage, 1000.0, 0.0).await;
    Illness::Fault(Fault::reset()).end(&stage.pools).await;
    until("everybody to be where they were", || async {
        let now = versions(users.call(0).await?);
        for (before, now) in before.iter().zip(&now) {
            assert!(now == before || *now == Ok(STABLE), "{before:?} and then {now:?}");
        }
        Ok((now == before).then_some(()))
    })
    .await
    .unwrap();
}
