//! A crowd of callers that send headers and no body.

use std::time::{Duration, Instant};

use model_server::Rpc;
use model_server::client::raw::{Answer, Raw};
use model_server::client::{Asked, predict_request};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::wait::until;
use serde_json::json;
use tokio::task::JoinSet;

use super::memory::Memory;
use super::stage::{BY_V2, Stage, X};
use super::wire::GRPC;

const CONNECTIONS: usize = 100;
const CALLERS: usize = 10_000;
/// Long enough for all to come before the first hold ends, on a busy machine, too, and shorter than the 30 s after which
/// Envoy ends a stream that is idle.
const HOLD_TIMEOUT: Duration = Duration::from_secs(20);
/// The default of `max_held`.
const MAX_HELD: usize = 1024;
/// So many callers are served while the crowd is there.
const SERVED: u64 = 20;

struct Crowd {
    answers: JoinSet<(Answer, Instant)>,
    begun: Instant,
}

impl Crowd {
    async fn gather(stage: &Stage) -> Self {
        let begun = Instant::now();
        let mut answers = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let raw = Raw::connect(stage.envoy.addr).await.unwrap();
            for _ in 0..CALLERS / CONNECTIONS {
                let post = raw.post(Rpc::Predict.path(), &GRPC).unwrap();
                let mut stream = raw.open(post, false).await.unwrap();
                answers.spawn(async move { (stream.answer().await, Instant::now()) });
            }
        }
        Self { answers, begun }
    }

    async fn next(&mut self) -> (Answer, Instant) {
        self.answers.join_next().await.expect("another answer").unwrap()
    }
}

/// How many are held, and how many were refused because too many are.
async fn held_and_refused(stage: &Stage) -> (usize, usize) {
    let samples = stage.envoy.admin.prometheus().await.unwrap();
    let sum = |name: &str, labels: &[(&str, &str)]| {
        samples.iter().filter(|it| it.is(name, labels)).map(|it| it.value as usize).sum()
    };
    (sum("predictgate_held", &[]), sum("predictgate_rejected", &[("reason", "overloaded")]))
}

/// Lets a crowd come, and gives those who are held with the memory in use meanwhile.
async fn come(stage: &Stage) -> (Crowd, i64) {
    let (_, before) = held_and_refused(stage).await;
    let mut crowd = Crowd::gather(stage).await;
    // Whoever has no place, or has to make room, is told so at once, while the others have theirs.
    let (held, refused) = until("all callers to be held or refused", || async {
        let (held, refused) = held_and_refused(stage).await;
        // Those that have made room wait for the clock to tell them.
        assert!(held <= 2 * MAX_HELD, "{held} requests are held");
        let refused = refused - before;
        Ok((held <= MAX_HELD && held + refused == CALLERS).then_some((held, refused)))
    })
    .await
    .unwrap();
    assert!(MAX_HELD / 2 < held, "{held} are held, and {refused} were refused");
    for _ in 0..refused {
        let (answer, _) = crowd.next().await;
        assert_eq!(answer.header("x-predictgate-reason"), Some("overloaded"), "{answer:?}");
        assert_eq!(answer.header("grpc-status"), Some("14"));
    }
    let took = crowd.begun.elapsed();
    eprintln!("{refused} were told within {took:?}");
    assert!(took < HOLD_TIMEOUT, "it took {took:?} to tell {refused}");
    let height = Memory::of(&stage.envoy).await.used;

    // Callers that send a body are served meanwhile.
    let client = stage.client().await;
    for _ in 0..SERVED {
        let request = predict_request(MODEL, Asked::Version(2), &X);
        assert_eq!(client.predict(&request).await.unwrap().ok().unwrap().values(), BY_V2);
    }
    assert_eq!(stage.post("/v1/models/resnet/versions/2:predict").await.values(), BY_V2);
    assert!(MAX_HELD / 2 < held_and_refused(stage).await.0, "the holds last meanwhile");

    (crowd, height)
}

/// Waits for the holds to end: to make room for those who were served, or by their deadline.
async fn time_out(mut crowd: Crowd) {
    let (mut overloaded, mut timed_out) = (0, 0);
    while !crowd.answers.is_empty() {
        let (answer, at) = crowd.next().await;
        match answer.header("x-predictgate-reason") {
            Some("overloaded") => overloaded += 1,
            Some("hold_timeout") => {
                assert!(HOLD_TIMEOUT <= at - crowd.begun, "{:?}", at - crowd.begun);
                timed_out += 1;
            }
            _ => panic!("{answer:?}"),
        }
    }
    assert!(MAX_HELD / 2 < timed_out, "{overloaded} made room, and {timed_out} timed out");
}

/// The memory in use once all callers are gone.
async fn at_rest(stage: &Stage) -> i64 {
    stage.wait_for_metric("predictgate_held", &[], 0.0).await;
    until("all connections to end", || async {
        let active = stage.envoy.admin.stat("http.models.downstream_cx_active").await?;
        Ok((active == 0).then_some(()))
    })
    .await
    .unwrap();
    Memory::of(&stage.envoy).await.used
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_without_bodies_holds_no_more_than_may_be_held_and_leaves_nothing_behind() {
    let patient = |it: &mut serde_json::Value| {
        it["identity"] = json!({ "hold_timeout": format!("{}s", HOLD_TIMEOUT.as_secs()) });
    };
    let stage = Stage::configured(patient).await;
    stage.assert_alive().await;
    // One crowd goes of itself, and the next is told to.
    let (crowd, height) = come(&stage).await;
    drop(crowd);
    let first = at_rest(&stage).await;
    let (crowd, _) = come(&stage).await;
    time_out(crowd).await;
    let second = at_rest(&stage).await;
    eprintln!("in use: {} KiB among the crowd, {} and {} after it", height >> 10, first >> 10, second >> 10);
    // A kilobyte of each caller that was refused would be more than half of what those who are held take.
    assert!(second - first < (height - first) / 2, "in use: {height} bytes, then {first} and {second}");
    assert_eq!(stage.executed(), (0, 1 + 2 * (SERVED + 1)));
    stage.assert_alive().await;
}
