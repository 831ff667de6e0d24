//! Whose fault an answer is, by gRPC and by REST: each way in which a request can end, in a real Envoy.
//!
//! The filter tells the class of every outcome at level debug.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use model_server::client::rest::{self, RestReply};
use model_server::client::{Asked, Client, predict_request};
use model_server::framing::frame;
use model_server::{Code, Fault, INJECTED, Place, Rpc, Server, VersionConfig};
use predictgate_e2e::Scenario;
use predictgate_e2e::log::lines;
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::wait::{DEADLINE, until};
use serde_json::{Value, json};

use super::stage::{Stage, X, instances};
use super::wire::{GRPC, input, spec};

/// After which Envoy gives up a server that has not begun to answer: longer than one that is well takes on a busy machine.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(4);
/// Of a caller in a hurry.
const SHORT: Duration = Duration::from_millis(125);

/// The ejection scenario, in which outcomes are looked at and nothing follows from them. A caller names its target.
async fn stage() -> Stage {
    Stage::shipped("ejection", |scenario| {
        let mut scenario = without_health_checks(scenario).connection_manager(|manager| {
            for route in routes(manager) {
                // gRPC has none: it is bound by the caller's deadline and by that of each try.
                if let Some(timeout) = route["route"].get_mut("timeout") {
                    *timeout = seconds(ROUTE_TIMEOUT);
                }
            }
            manager["route_config"]["virtual_hosts"][0]["retry_policy"]["per_try_timeout"] = seconds(ROUTE_TIMEOUT);
            manager["stream_idle_timeout"] = seconds(2 * ROUTE_TIMEOUT);
        });
        scenario.log = Some("wasm:debug".to_owned());
        scenario.reconfigured(|configuration| {
            configuration["models"] = json!([{
                "name": MODEL,
                "targets": {
                    "plain": { "cluster": "tfs-v2", "headers": { "x-model-pool": "v2" } },
                    "version": {
                        "cluster": "tfs-v2", "headers": { "x-model-pool": "v2" }, "rewrite": { "version": "2" },
                    },
                    "label": {
                        "cluster": "tfs-v2", "headers": { "x-model-pool": "v2" }, "rewrite": { "label": "gone" },
                    },
                    "nowhere": { "cluster": "tfs-v9" },
                },
                "routes": [{ "split": [{ "target": "plain" }], "choose_by": { "header": "x-use-target" } }],
                "outlier_detection": { "consecutive_failures": 0, "failure_percentage_threshold": 0 },
            }]);
        })
    })
    .await
}

fn seconds(time: Duration) -> Value {
    json!(format!("{}s", time.as_secs()))
}

/// Nothing but the filter sees that a server fails.
pub fn without_health_checks(scenario: Scenario) -> Scenario {
    scenario.bootstrap(|bootstrap| {
        for cluster in bootstrap["static_resources"]["clusters"].as_array_mut().unwrap() {
            cluster.as_object_mut().unwrap().remove("health_checks");
        }
    })
}

pub fn routes(manager: &mut Value) -> impl Iterator<Item = &mut Value> {
    manager["route_config"]["virtual_hosts"][0]["routes"].as_array_mut().unwrap().iter_mut()
}

/// Waits for the next outcome that the filter tells, and asserts that it is this one, and the only one.
async fn assert_next(stage: &Stage, seen: &mut usize, target: &str, class: &str, case: &str) {
    let outcomes = || {
        let all = lines(&stage.envoy.log()).into_iter().map(|line| line.text);
        all.filter(|text| text.starts_with("outcome=")).collect::<Vec<_>>()
    };
    let told = until(format!("the outcome of {case}"), || async {
        let told = outcomes();
        Ok((*seen < told.len()).then_some(told))
    });
    let told = told.await.unwrap();
    assert_eq!(told[*seen..], [format!("outcome={class};model={MODEL};target={target}")], "{case}");
    *seen = told.len();
}

/// One request by gRPC, to a target and with a deadline that it may name. How it ends does not matter here.
async fn grpc(stage: &Stage, asked: Asked<'_>, target: Option<&str>, deadline: Option<Duration>) {
    let mut client = stage.client().await;
    if let Some(target) = target {
        client = client.with_metadata("x-use-target", target);
    }
    if let Some(deadline) = deadline {
        client = client.with_metadata("grpc-timeout", format!("{}m", deadline.as_millis()));
    }
    let _ = client.predict(&predict_request(MODEL, asked, &X)).await;
}

/// Lets a caller leave whose request is with the server, and what the server sends at once with Envoy.
async fn leave<T>(stage: &Stage, call: impl Future<Output = T>) {
    let faults = |server: &Server| server.counts().faults(MODEL, 2);
    let before = faults(&stage.pools.v2);
    tokio::select! {
        _ = call => panic!("it was answered"),
        () = async {
            stage.pools.v2.until(DEADLINE, |it| before < faults(it)).await.unwrap();
            tokio::time::sleep(SHORT).await;
        } => (),
    }
}

fn fails(code: Code, message: &str) -> Option<Fault> {
    Some(Fault::fail(1.0, code, Place::TrailersOnly).with_message(message))
}

const FULL: &str = "The batch scheduling queue to which this task was submitted is full; task size is 1";

#[tokio::test]
async fn every_way_in_which_a_grpc_call_can_end_has_its_class() {
    let (stage, mut seen) = (stage().await, 0);
    let after_headers = |code| Some(Fault::fail(1.0, code, Place::AfterHeaders));
    let latest = Asked::Latest;
    for (case, fault, class) in [
        ("an answer", None, "success"),
        ("a failure in trailers", after_headers(Code::Internal), "failure"),
        ("a failure that is trailers-only", fails(Code::Internal, INJECTED), "failure"),
        ("unavailable", fails(Code::Unavailable, INJECTED), "failure"),
        ("unknown", after_headers(Code::Unknown), "failure"),
        ("data loss", after_headers(Code::DataLoss), "failure"),
        ("a reset before the headers, also of the retry", Some(Fault::abort()), "failure"),
        ("a reset after the headers", Some(Fault::reset()), "failure"),
        ("no status", Some(Fault::no_status()), "failure"),
        ("503 without gRPC", Some(Fault::http(503)), "failure"),
        ("429 without gRPC", Some(Fault::http(429)), "overload"),
        ("404 without gRPC", Some(Fault::http(404)), "neutral"),
        ("the route's timeout", Some(Fault::hang()), "failure"),
        // It may be the caller who does not read.
        ("silence after the headers", Some(Fault::stall()), "neutral"),
        ("deadline exceeded, by the server", fails(Code::DeadlineExceeded, ""), "failure"),
        ("a full batching queue", fails(Code::Unavailable, FULL), "overload"),
        ("resource exhausted", fails(Code::ResourceExhausted, "Run() timeout exceeded"), "overload"),
        (
            "a message too large",
            fails(Code::ResourceExhausted, "Received message larger than max (5 vs. 4)"),
            "neutral",
        ),
        (
            "an unknown signature",
            fails(Code::FailedPrecondition, "Serving signature key \"x\" not found."),
            "neutral",
        ),
        ("bad inputs", fails(Code::InvalidArgument, "input size does not match signature"), "neutral"),
        ("another thing not found", fails(Code::NotFound, "no such row"), "neutral"),
        ("aborted", after_headers(Code::Aborted), "neutral"),
        ("unimplemented", fails(Code::Unimplemented, ""), "neutral"),
    ] {
        stage.pools.v2.set_fault(MODEL, 2, fault);
        grpc(&stage, latest, None, None).await;
        assert_next(&stage, &mut seen, "plain", class, case).await;
    }

    // A caller's own short deadline speaks for nothing, whoever notices that it has passed.
    for (case, fault) in [
        ("a short deadline that Envoy ends", Some(Fault::hang())),
        ("a short deadline that the server ends", fails(Code::DeadlineExceeded, "")),
    ] {
        stage.pools.v2.set_fault(MODEL, 2, fault);
        grpc(&stage, latest, None, Some(SHORT)).await;
        assert_next(&stage, &mut seen, "plain", "neutral", case).await;
    }

    // Callers that leave.
    for (case, fault) in
        [("left before the headers", Fault::hang()), ("left after the headers", Fault::stall())]
    {
        stage.pools.v2.set_fault(MODEL, 2, Some(fault));
        leave(&stage, grpc(&stage, latest, None, None)).await;
        assert_next(&stage, &mut seen, "plain", "neutral", case).await;
    }
    stage.pools.v2.set_fault(MODEL, 2, None);

    // No such cluster is the configuration's fault.
    grpc(&stage, latest, Some("nowhere"), None).await;
    assert_next(&stage, &mut seen, "nowhere", "neutral", "no cluster").await;

    // The filter's own replies belong to no target.
    let _ = stage.client().await.predict(&predict_request("other", latest, &X)).await;
    grpc(&stage, latest, Some("plain"), None).await;
    assert_next(&stage, &mut seen, "plain", "success", "an answer after a refusal").await;
    stage.assert_alive().await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_within_a_fair_deadline_has_failed() {
    let stage = Stage::shipped("ejection", |mut scenario| {
        scenario.log = Some("wasm:debug".to_owned());
        Ok(scenario)
    });
    let (stage, mut seen) = (stage.await, 0);
    stage.pools.v2.set_fault(MODEL, 2, Some(Fault::hang()));
    for (deadline, class) in [(1000, "failure"), (990, "neutral")] {
        // The caller does not give up by itself, so it is Envoy that ends the call.
        grpc(&stage, Asked::Version(2), None, Some(Duration::from_millis(deadline))).await;
        assert_next(&stage, &mut seen, "canary", class, &format!("a deadline of {deadline} ms")).await;
    }
    // A caller that does not end its message keeps the server waiting, not the other way round.
    let raw = stage.raw().await;
    let headers = [GRPC[0], GRPC[1], ("grpc-timeout", b"1S".as_slice())];
    let mut stream = raw.open(raw.post(Rpc::Predict.path(), &headers).unwrap(), false).await.unwrap();
    let body = frame(&[spec(MODEL, Some(2)), input(&X)].concat());
    stream.send(body.slice(..body.len() - 1)).await.unwrap();
    let answer = stream.answer().await;
    assert_eq!(answer.header("grpc-status"), Some("4"), "{answer:?}");
    assert_next(&stage, &mut seen, "canary", "neutral", "a message that does not end").await;
}

#[tokio::test]
async fn a_version_that_is_not_loaded_counts_where_the_configuration_has_chosen_it() {
    let (stage, mut seen) = (stage().await, 0);
    let cases = [
        (Asked::Latest, "plain", "not_served"),
        (Asked::Latest, "version", "not_served"),
        (Asked::Latest, "label", "not_served"),
        (Asked::Version(999), "version", "not_served"),
        (Asked::Version(999), "plain", "neutral"),
        (Asked::Version(2), "plain", "neutral"),
        (Asked::Label("nobody"), "plain", "neutral"),
    ];
    assert!(stage.pools.v2.unload(MODEL, 2));
    for (asked, target, class) in cases {
        grpc(&stage, asked, Some(target), None).await;
        assert_next(&stage, &mut seen, target, class, &format!("{asked:?} of {target}")).await;
    }
    stage.pools.v2.load(MODEL, VersionConfig::half_plus(2));
}

async fn post(addr: SocketAddr, target: &str, path: &str) -> Result<RestReply> {
    let headers: [(&str, &[u8]); 2] =
        [("content-type", b"application/json"), ("x-use-target", target.as_bytes())];
    rest::request(addr, http::Method::POST, path, &headers, Bytes::from(instances())).await
}

#[tokio::test]
async fn every_way_in_which_a_rest_call_can_end_has_its_class() {
    let (stage, mut seen) = (stage().await, 0);
    for (case, fault, class) in [
        ("an answer", None, "success"),
        ("500", fails(Code::Internal, INJECTED), "failure"),
        ("503", fails(Code::Unavailable, INJECTED), "failure"),
        ("502", Some(Fault::http(502)), "failure"),
        ("504", fails(Code::DeadlineExceeded, ""), "failure"),
        ("429", fails(Code::ResourceExhausted, ""), "overload"),
        ("400", fails(Code::InvalidArgument, ""), "neutral"),
        ("404", fails(Code::NotFound, "no such row"), "neutral"),
        ("501", fails(Code::Unimplemented, ""), "neutral"),
        ("a connection that is closed, also the retry's", Some(Fault::abort()), "failure"),
        ("the route's timeout", Some(Fault::hang()), "failure"),
    ] {
        stage.pools.v2.set_fault(MODEL, 2, fault);
        let _ = post(stage.envoy.addr, "plain", "/v1/models/resnet:predict").await;
        assert_next(&stage, &mut seen, "plain", class, case).await;
    }
    // The status line has gone on before the body is cut.
    stage.pools.v2.set_fault(MODEL, 2, Some(Fault::reset()));
    assert!(post(stage.envoy.addr, "plain", "/v1/models/resnet:predict").await.is_err());
    assert_next(&stage, &mut seen, "plain", "failure", "a body that is cut").await;
    stage.pools.v2.set_fault(MODEL, 2, Some(Fault::hang()));
    leave(&stage, post(stage.envoy.addr, "plain", "/v1/models/resnet:predict")).await;
    assert_next(&stage, &mut seen, "plain", "neutral", "a caller that leaves").await;
}

#[tokio::test]
async fn a_server_that_is_gone_and_a_retry_that_succeeds_have_their_classes() {
    let (stage, mut seen) = (stage().await, 0);
    grpc(&stage, Asked::Latest, None, None).await;
    assert_next(&stage, &mut seen, "plain", "success", "an answer").await;
    // Cut under the call, before any header: the retry finds nobody.
    let v2 = &stage.pools.v2;
    v2.set_fault(MODEL, 2, Some(Fault::hang()));
    let client: Client = stage.client().await;
    let request = predict_request(MODEL, Asked::Latest, &X);
    let (call, cut) = tokio::join!(client.predict(&request), async {
        v2.until(DEADLINE, |it| it.counts().faults(MODEL, 2) == 1).await?;
        v2.refuse(true).await
    });
    cut.unwrap();
    drop(call);
    assert_next(&stage, &mut seen, "plain", "failure", "a connection that ends").await;
    grpc(&stage, Asked::Latest, None, None).await;
    assert_next(&stage, &mut seen, "plain", "failure", "a connection that is refused").await;
    v2.refuse(false).await.unwrap();
    // One in two is reset before its headers; a call fails only if its retry is, too.
    v2.set_fault(MODEL, 2, Some(Fault::abort().with_rate(0.5)));
    let mut answered = 0;
    for _ in 0..10 {
        let reply = client.predict(&request).await.unwrap();
        let class = if reply.ok().is_ok() { "success" } else { "failure" };
        answered += usize::from(class == "success");
        assert_next(&stage, &mut seen, "plain", class, "a call that may be retried").await;
    }
    let faults = v2.counts().faults(MODEL, 2);
    eprintln!("{answered} of 10 calls answered over {faults} resets");
    assert!(10 - answered < faults as usize, "no retry has succeeded");
}

#[tokio::test]
async fn no_healthy_host_is_the_targets_failure() {
    let stage = Stage::shipped("ejection", |mut scenario| {
        scenario.log = Some("wasm:debug".to_owned());
        Ok(scenario)
    });
    let (stage, mut seen) = (stage.await, 0);
    stage.pools.v2.refuse(true).await.unwrap();
    stage.envoy.wait_for_none_healthy("tfs-v2").await.unwrap();
    grpc(&stage, Asked::Version(2), None, None).await;
    assert_next(&stage, &mut seen, "canary", "failure", "no healthy host").await;
}
