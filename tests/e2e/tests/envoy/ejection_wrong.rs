//! What must eject nothing and trip no guard: one caller's own faults, and errors that befall everybody at random.

use std::env;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model_server::client::{Asked, Client, predict_request};
use model_server::framing::frame;
use model_server::{Code, Fault, INJECTED, Place, Rpc};
use predictgate_e2e::Envoy;
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::traffic::Traffic;
use predictgate_e2e::users::{USER, Users};
use predictgate_e2e::wait::{is_idle, until};
use serde_json::json;
use tokio::task::JoinSet;

use super::illness::{self, PATIENT, metric, rollout};
use super::split::{CANARY, STABLE};
use super::stage::{Stage, X};
use super::wire::{field, spec};

/// How long callers call. `cargo xtask soak` gives them ten minutes.
fn duration() -> Duration {
    let seconds = env::var("PREDICTGATE_HEALTHY_SECONDS").map_or(15, |it| it.parse().unwrap());
    Duration::from_secs(seconds)
}

/// Asserts that nothing was ejected and no guard has tripped, nor would have been.
async fn assert_nothing_happened(stage: &Stage) {
    for name in ["predictgate_ejections", "predictgate_rollbacks"] {
        assert_eq!(
            metric(stage, name, &[("model", MODEL)]).await as u64,
            0,
            "{name}:\n{}",
            stage.envoy.log()
        );
    }
    stage.assert_alive().await;
}

async fn pass(time: Duration) {
    let start = Instant::now();
    // It may be longer than anything else is waited for.
    while start.elapsed() < time {
        let rest = (time - start.elapsed()).min(Duration::from_secs(10));
        let begun = Instant::now();
        until("time to pass", || async { Ok((rest <= begun.elapsed()).then_some(())) }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_at_random_eject_nobody_and_roll_nothing_back_with_the_default_settings() {
    let stage = illness::stage([90, 10], PATIENT, |model| {
        model["outlier_detection"] = json!({});
        rollout(model)["guard"] = json!({ "target": "canary", "baseline": "stable" });
    })
    .await;
    for (server, version) in [(&stage.pools.v1, STABLE), (&stage.pools.v2, CANARY)] {
        server.set_fault(MODEL, version, Some(Fault::fail(0.01, Code::Internal, Place::AfterHeaders)));
    }
    let users = Users::connect(&stage.envoy, 1_000).await.unwrap();
    // On a busy machine, no more than it can serve: what waits too long is no error at random.
    let traffic = Traffic::start(&users, if is_idle() { 500 } else { 200 });
    pass(duration()).await;
    let calls = traffic.stop().await.unwrap();
    let failed = calls.iter().filter(|call| call.answer.is_err()).count();
    eprintln!("{failed} of {} calls failed in {:?}, and nothing came of it", calls.len(), duration());
    assert!(0 < failed, "nothing has failed");
    let other = calls.iter().find(|call| call.answer.as_ref().is_err_and(|error| !error.contains(INJECTED)));
    assert!(other.is_none(), "not at random: {other:?}");
    assert_nothing_happened(&stage).await;
}

/// Another caller than all others.
const STRANGER: [u8; 4] = [127, 0, 0, 9];

/// One client that makes every mistake that a client can make, over and over.
struct Stranger {
    client: Client,
    calls: usize,
}

impl Stranger {
    async fn connect(envoy: &Envoy) -> Self {
        Self { client: Client::connect_from(STRANGER.into(), envoy.addr).await.unwrap(), calls: 0 }
    }

    /// A message whose input is no tensor, which a server cannot decode.
    fn malformed() -> Bytes {
        frame(&[spec(MODEL, None), field(2, &[0xff; 16])].concat())
    }

    async fn call(&mut self) {
        let client = self.client.clone().with_metadata(USER, format!("stranger-{}", self.calls));
        let mut unknown = predict_request(MODEL, Asked::Latest, &X);
        if let Some(spec) = &mut unknown.model_spec {
            spec.signature_name = "nobody".to_owned();
        }
        // How each of them ends does not matter here.
        match self.calls % 4 {
            0 => drop(client.send(Rpc::Predict.path(), Some("application/grpc"), Self::malformed()).await),
            1 => drop(client.predict(&predict_request(MODEL, Asked::Version(999), &X)).await),
            2 => drop(client.predict(&unknown).await),
            _ => {
                let hasty = client.with_deadline(Duration::from_millis(1));
                drop(hasty.predict(&predict_request(MODEL, Asked::Latest, &X)).await);
            }
        }
        self.calls += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_caller_that_makes_every_mistake_ejects_nobody_and_rolls_nothing_back() {
    let stage = illness::stage([50, 50], PATIENT, |model| {
        model["outlier_detection"] = json!({ "min_clients": 2 });
        rollout(model)["guard"] = json!({ "target": "canary", "baseline": "stable" });
    })
    .await;
    // Answers take longer than the stranger waits.
    for (server, version) in [(&stage.pools.v1, STABLE), (&stage.pools.v2, CANARY)] {
        server.set_fault(MODEL, version, Some(Fault::delay(Duration::from_millis(3))));
    }
    let users = Users::connect(&stage.envoy, 1_000).await.unwrap();
    let traffic = Traffic::start(&users, 20);
    // Over several connections and as fast as it can, so that most of what the servers answer is its.
    let mut strangers = JoinSet::new();
    for _ in 0..4 {
        let (mut stranger, end) = (Stranger::connect(&stage.envoy).await, Instant::now() + duration() / 3);
        strangers.spawn(async move {
            while Instant::now() < end {
                stranger.call().await;
            }
            stranger.calls
        });
    }
    let mistakes: usize = strangers.join_all().await.into_iter().sum();
    let calls = traffic.stop().await.unwrap();
    let labels = [("model", MODEL), ("code", "INTERNAL")];
    let malformed = metric(&stage, "predictgate_requests", &labels).await;
    eprintln!("{mistakes} mistakes, {malformed} of them INTERNAL, beside {} calls of others", calls.len());
    assert!(calls.len() as f64 <= malformed, "its failures are not even half of what counts");
    assert!(
        calls.iter().all(|call| call.answer.is_ok()),
        "{:?}",
        calls.iter().find(|call| call.answer.is_err())
    );
    assert_nothing_happened(&stage).await;
}
