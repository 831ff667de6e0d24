//! A weight that grows by the clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use predictgate::config;
use predictgate::policy::Policy;
use predictgate::units::WallTime;
use predictgate_e2e::users::Users;
use predictgate_e2e::wait::until;
use predictgate_e2e::{Envoy, Update};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::split::{assert_answers, rollout, stage, versions, with_canary_percent};

/// How much faster or slower than the other the kernel lets a clock go to set it right: 500 of a million.
const SLEW: f64 = 0.0005;

/// A ramp from 10 to 40 % of the users, of which the second step begins at this moment.
pub fn ramp(second_step: SystemTime) -> impl FnOnce(&mut Value) {
    let step = Duration::from_secs(60 * 60);
    let start = OffsetDateTime::from(second_step - step).format(&Rfc3339).unwrap();
    move |configuration| {
        rollout(configuration)["ramp"] = json!({
            "target": "canary",
            "start": start,
            "steps": [{ "percent": 10, "for": "1h" }, { "percent": 40, "for": "1h" }, { "percent": 100 }],
        });
    }
}

/// The canary's weight in thousandths at a moment, by the library.
fn weight_at(policy: &Policy, moment: SystemTime) -> u32 {
    let ramp = policy.models[0].routes[4].ramp.as_ref().unwrap();
    let nanos = moment.duration_since(UNIX_EPOCH).unwrap().as_nanos();
    ramp.share(WallTime::from_nanos(nanos.try_into().unwrap())).millionths() / 1_000
}

/// The canary's weight as Envoy shows it.
async fn shown(envoy: &Envoy) -> Option<u32> {
    let samples = envoy.admin.prometheus().await.unwrap();
    let labels = [("model", "resnet"), ("route", "rollout"), ("target", "canary")];
    samples.iter().find(|it| it.is("predictgate_weight", &labels)).map(|it| it.value as u32)
}

/// Waits until Envoy shows a weight, and gives the moment.
pub async fn wait_for_weight(envoy: &Envoy, weight: u32) -> SystemTime {
    until(format!("the weight {weight}"), || async {
        let shown = shown(envoy).await;
        Ok((shown == Some(weight)).then(SystemTime::now))
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ramp_goes_on_by_the_clock_and_a_restart_changes_nothing() {
    const USERS: usize = 1_000;
    let mut stage = stage().await;
    let users = Users::connect(&stage.envoy, USERS).await.unwrap();
    let [ten, forty] =
        [10, 40].map(|percent| versions(&with_canary_percent(stage.envoy.plugin(), percent), &users));

    // Time enough for the file to be read, the weight to be shown and a round of calls before the step, on a busy machine,
    // too.
    let until_step = Duration::from_secs(8);
    let earliest = Instant::now() + until_step.mul_f64(1.0 - SLEW);
    let step = SystemTime::now() + until_step;
    let latest = Instant::now() + until_step.mul_f64(1.0 + SLEW);
    let mut configuration = stage.envoy.plugin().configuration().unwrap();
    ramp(step)(&mut configuration);
    let policy = config::parse(&configuration.to_string()).unwrap();
    assert_eq!([step - until_step, step + until_step].map(|at| weight_at(&policy, at)), [100, 400]);
    assert_eq!(stage.envoy.configure(&configuration.to_string()).await.unwrap(), Update::Accepted);
    assert!(wait_for_weight(&stage.envoy, 100).await < step);

    let mut rounds = 0;
    while {
        rounds += 1;
        Instant::now() < latest
    } || rounds < 2
    {
        for (user, call) in users.call(rounds).await.unwrap().into_iter().enumerate() {
            let version = call.answer.unwrap();
            if call.begun + call.took < earliest {
                assert_eq!(version, ten[user]);
            }
            if latest < call.begun {
                assert_eq!(version, forty[user]);
            }
        }
    }
    assert_answers(&users.call(0).await.unwrap(), &forty);
    let shown = wait_for_weight(&stage.envoy, 400).await;
    eprintln!("{rounds} rounds; the second step is shown after {:?}", shown.duration_since(step).unwrap());

    // The same file, read by an Envoy that knows nothing of the first.
    let again = stage.pools.shipped("canary").unwrap().configured(&configuration.to_string());
    drop(stage.envoy);
    let envoy = again.start().await.unwrap();
    envoy.wait_until_healthy().await.unwrap();
    wait_for_weight(&envoy, 400).await;
    let users = Users::connect(&envoy, USERS).await.unwrap();
    assert_answers(&users.call(0).await.unwrap(), &forty);
}
