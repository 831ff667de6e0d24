//! The guard of a canary in a real Envoy with four workers, beside Envoy's own outlier detection.

use std::time::{Duration, Instant};

use model_server::{Code, Fault, INJECTED, Place};
use predictgate_e2e::Update;
use predictgate_e2e::log::lines;
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::traffic::Traffic;
use predictgate_e2e::users::{Call, Users};
use predictgate_e2e::wait::{is_idle, until, within};
use serde_json::json;

use super::illness::{self, PATIENT, is_canarys, last_canary, metric, nth_failure, rollout};
use super::split::CANARY;
use super::stage::Stage;

const USERS: usize = 1_000;
/// Failures in a row that both are told to act on.
const ROW: usize = 20;
/// How long calls go on after the canary began to fail, for those who do nothing about it.
const OBSERVED: Duration = Duration::from_secs(4);

/// Promised from the failure that completes a row to the last request of the canary in any worker.
const ACTS: Duration = Duration::from_millis(500);
/// Promised from the line in the log to the last request of the canary.
const OBEYED: Duration = Duration::from_millis(250);

/// Calls a second: those for which the times are promised, or what a busy machine can serve.
fn rate() -> u32 {
    if is_idle() { 500 } else { 200 }
}

/// Who looks after the canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Guard,
    Envoy,
}

async fn stage(who: Who) -> Stage {
    Stage::shipped("ejection", |scenario| {
        let scenario = match who {
            Who::Guard => scenario,
            Who::Envoy => scenario.bootstrap(|bootstrap| {
                let clusters = bootstrap["static_resources"]["clusters"].as_array_mut().unwrap();
                let canary = clusters.iter_mut().find(|cluster| cluster["name"] == "tfs-v2").unwrap();
                canary["outlier_detection"] = json!({
                    "consecutive_5xx": ROW, "max_ejection_percent": 100, "base_ejection_time": "30s",
                });
            }),
        };
        illness::of(scenario, [90, 10], PATIENT, |model| {
            if who == Who::Guard {
                rollout(model)["guard"] = json!({
                    "target": "canary", "baseline": "stable", "consecutive_failures": ROW,
                    // The row alone is to judge, so that it is known which failure decides.
                    "min_requests": 1_000_000,
                });
            }
        })
    })
    .await
}

/// Lets the canary fail under traffic, and gives the calls from then on: in the second half of the time as many as the
/// rate says, also where a busy machine has begun them late.
async fn let_the_canary_fail(stage: &Stage, place: Place) -> Vec<Call> {
    let half = OBSERVED / 2;
    let expected = f64::from(rate()) * half.as_secs_f64();
    let users = Users::connect(&stage.envoy, USERS).await.unwrap();
    let traffic = Traffic::start(&users, rate());
    until("the canary to answer", || async {
        Ok((ROW <= traffic.ended().iter().filter(|call| call.answer == Ok(CANARY)).count()).then_some(()))
    })
    .await
    .unwrap();
    let begun = Instant::now();
    stage.pools.v2.set_fault(MODEL, CANARY, Some(Fault::fail(1.0, Code::Internal, place)));
    until("the time to be over, and the calls of its second half to end", || async {
        let ended = || traffic.ended().iter().filter(|call| begun + half < call.begun).count();
        Ok((OBSERVED <= begun.elapsed() && expected <= ended() as f64).then_some(()))
    })
    .await
    .unwrap();
    let mut calls = traffic.stop().await.unwrap();
    calls.retain(|call| begun <= call.begun || call.answer.is_err());
    calls
}

/// What callers saw of a canary that failed.
fn print(who: Who, place: Place, calls: &[Call]) {
    let row = nth_failure(calls, ROW);
    let injected = |call: &&Call| call.answer.as_ref().is_err_and(|error| error.contains(INJECTED));
    let last = calls.iter().filter(injected).map(|call| call.begun).max().unwrap();
    let failed = calls.iter().filter(|call| call.answer.is_err()).count();
    eprintln!(
        "{who:?}, {place:?}: the last request reached the canary {} ms after failure {ROW}; \
         {failed} of {} calls failed in {OBSERVED:?}",
        last.saturating_duration_since(row).as_millis(),
        calls.len(),
    );
}

async fn assert_rolled_back_in_time(place: Place) {
    let stage = stage(Who::Guard).await;
    let mut calls = let_the_canary_fail(&stage, place).await;
    // What a busy machine has not answered in time tells nothing of the canary.
    calls.retain(|call| call.answer.as_ref().err().is_none_or(|error| error.contains(INJECTED)));
    print(Who::Guard, place, &calls);
    let said = lines(&stage.envoy.log());
    let said: Vec<_> = said.iter().filter(|line| line.text.starts_with("rolled back")).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    let expected = "rolled back: model=resnet route=rollout target=canary cause=consecutive_failures: ";
    assert!(said[0].text.starts_with(expected), "{said:?}");
    let row = nth_failure(&calls, ROW);
    let last = last_canary(&calls).unwrap();
    eprintln!(
        "said {:?} after failure {ROW}; obeyed {:?} after that: {}",
        said[0].at.saturating_duration_since(row),
        last.saturating_duration_since(said[0].at),
        said[0].text
    );
    assert!(last.saturating_duration_since(row) <= within(ACTS), "{:?}", last - row);
    let obeyed = within(OBEYED);
    let late = calls.iter().filter(|call| is_canarys(call) && said[0].at + obeyed < call.begun).count();
    assert_eq!(late, 0, "canary requests later than {obeyed:?} after the log's line");
    let labels = [("model", MODEL), ("route", "rollout"), ("target", "canary")];
    stage.wait_for_metric("predictgate_weight", &labels, 0.0).await;
    stage.wait_for_metric("predictgate_rollbacks", &labels, 1.0).await;
    stage.pools.v2.set_fault(MODEL, CANARY, None);
    stage.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_fails_in_trailers_is_rolled_back_in_all_workers_within_half_a_second() {
    assert_rolled_back_in_time(Place::AfterHeaders).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_fails_by_headers_alone_is_rolled_back_in_all_workers_within_half_a_second() {
    assert_rolled_back_in_time(Place::TrailersOnly).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoys_own_detection_sees_trailers_only_and_leaves_callers_without_an_answer() {
    const EJECTIONS: &str = "cluster.tfs-v2.outlier_detection.ejections_enforced_total";
    for (place, ejections) in [(Place::AfterHeaders, 0), (Place::TrailersOnly, 1)] {
        let stage = stage(Who::Envoy).await;
        let calls = let_the_canary_fail(&stage, place).await;
        print(Who::Envoy, place, &calls);
        assert_eq!(stage.envoy.admin.stat(EJECTIONS).await.unwrap(), ejections, "{place:?}");
        // Seen or not, the canary's callers are refused to the end: a host is ejected, and no version.
        let second_half = calls.iter().filter(|call| calls[0].begun + OBSERVED / 2 < call.begun);
        let failed = second_half.filter(|call| call.answer.is_err()).count();
        assert!(ROW < failed, "{failed} calls");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_latch_outlives_healing_and_updates_and_ends_with_another_epoch() {
    let mut stage = stage(Who::Guard).await;
    let users = Users::connect(&stage.envoy, 200).await.unwrap();
    let share = |calls: &[Call]| calls.iter().filter(|call| call.answer == Ok(CANARY)).count();
    let before = share(&users.call(0).await.unwrap());
    assert!(0 < before);
    stage.pools.v2.set_fault(MODEL, CANARY, Some(Fault::fail(1.0, Code::Internal, Place::AfterHeaders)));
    let labels = [("model", MODEL), ("route", "rollout"), ("target", "canary")];
    let mut round = 1;
    while metric(&stage, "predictgate_rollbacks", &labels).await < 1.0 {
        users.call(round).await.unwrap();
        round += 1;
        assert!(round < 20, "{before} canary users have failed {round} times and nothing came of it");
    }
    stage.pools.v2.set_fault(MODEL, CANARY, None);
    stage.wait_for_metric("predictgate_weight", &labels, 0.0).await;
    // One worker has told; the others obey within a tick.
    until("nobody to be with the canary", || async { Ok((share(&users.call(0).await?) == 0).then_some(())) })
        .await
        .unwrap();

    // An update of something else: new roots in every worker, and nobody is sent back.
    let mut configuration = stage.envoy.plugin().configuration().unwrap();
    configuration["unmatched"] = json!("pass");
    assert_eq!(stage.envoy.configure(&configuration.to_string()).await.unwrap(), Update::Accepted);
    for round in 0..3 {
        assert_eq!(share(&users.call(round).await.unwrap()), 0);
    }
    let mut configuration = stage.envoy.plugin().configuration().unwrap();
    rollout(&mut configuration["models"][0])["guard"]["epoch"] = json!(2);
    assert_eq!(stage.envoy.configure(&configuration.to_string()).await.unwrap(), Update::Accepted);
    stage.wait_for_metric("predictgate_weight", &labels, 100.0).await;
    until("every user to be back", || async { Ok((share(&users.call(0).await?) == before).then_some(())) })
        .await
        .unwrap();
    assert_eq!(metric(&stage, "predictgate_rollbacks", &labels).await as u64, 1);
    stage.assert_alive().await;
}
