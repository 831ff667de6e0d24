//! What Envoy does about pools that are slow, gone or not healthy, and about callers who would change that.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use model_server::client::raw::Step;
use model_server::client::{Asked, predict_request, rest};
use model_server::framing::frame;
use model_server::{Fault, Rpc};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::wait::until;
use prost::Message;
use serde_json::json;
use tokio::net::TcpSocket;

use super::stage::{BY_V1, BY_V2, Stage, X, instances};
use super::wire::GRPC;

/// Envoy's timers count whole milliseconds from when its event loop woke up, so they may end a little before their time
/// by the caller's clock.
const EARLY: Duration = Duration::from_millis(20);

#[tokio::test]
async fn the_backup_pool_takes_over_when_no_host_of_the_stable_pool_is_left() {
    let stage = Stage::quickstart().await;
    assert_eq!(stage.post("/v1/models/resnet:predict").await.values(), BY_V1);
    stage.pools.v1.refuse(true).await.unwrap();
    latest_is_answered_with(&stage, BY_V2).await;
    // Whoever asks for version 1 by name is not answered by another.
    let answer = stage.post("/v1/models/resnet/versions/1:predict").await;
    assert_eq!(answer.status, 503);
    stage.pools.v1.refuse(false).await.unwrap();
    latest_is_answered_with(&stage, BY_V1).await;
}

/// Waits until it is so, since the workers learn of a host's health a little later than anybody can see.
async fn latest_is_answered_with(stage: &Stage, numbers: [f32; 3]) {
    until("the other pool to answer", || async {
        Ok((stage.post("/v1/models/resnet:predict").await.values() == numbers).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_server_that_has_unloaded_the_model_is_not_healthy() {
    let stage = Stage::quickstart().await;
    assert!(stage.pools.v1.unload(MODEL, 1));
    for cluster in ["tfs-v1", "tfs-v1-rest"] {
        stage.envoy.wait_for_none_healthy(cluster).await.unwrap();
    }
    latest_is_answered_with(&stage, BY_V2).await;
}

#[tokio::test]
async fn a_request_that_may_have_been_executed_is_not_sent_again() {
    let stage = Stage::quickstart().await;
    stage.pools.v1.set_fault(MODEL, 1, Some(Fault::reset()));
    // The answer is cut in its middle, so there may be none.
    let _ = rest::post(stage.envoy.addr, "/v1/models/resnet/versions/1:predict", instances()).await;
    let entry = stage.envoy.wait_for_access(|entry| entry["target"] == "v1").await.unwrap();
    assert_eq!(entry["attempts"], 1, "{entry}");
    assert_eq!(stage.executed(), (1, 0));
}

#[tokio::test]
async fn a_server_that_does_not_answer_costs_the_caller_no_more_than_the_timeout_of_a_try() {
    let stage = Stage::quickstart().await;
    stage.pools.v1.set_fault(MODEL, 1, Some(Fault::hang()));
    let start = Instant::now();
    let answer = stage.post("/v1/models/resnet/versions/1:predict").await;
    assert_eq!(answer.status, 504);
    assert!(Duration::from_secs(5) <= start.elapsed() + EARLY, "{:?}", start.elapsed());
    let entry = stage.envoy.wait_for_access(|entry| entry["target"] == "v1").await.unwrap();
    assert_eq!(entry["details"], "upstream_per_try_timeout");
    assert_eq!(entry["attempts"], 1);
}

#[tokio::test]
async fn the_callers_own_deadline_holds_if_it_is_shorter_than_the_timeout_of_a_try() {
    let stage = Stage::quickstart().await;
    stage.pools.v1.set_fault(MODEL, 1, Some(Fault::hang()));
    let raw = stage.raw().await;
    let predict = async |headers: &[(&str, &[u8])], version| {
        let body = frame(&predict_request(MODEL, Asked::Version(version), &X).encode_to_vec());
        raw.request(Rpc::Predict.path(), headers, vec![Step::LastData(body)]).await.unwrap()
    };
    // On a connection where nothing else happens any more, it is the request that wakes Envoy up.
    assert_eq!(predict(&GRPC, 2).await.header("grpc-status"), Some("0"));
    for (timeout, at_least, status) in
        [(Some("300m"), 300, "4"), (Some("60S"), 5000, "14"), (None, 5000, "14")]
    {
        let start = Instant::now();
        let deadline = timeout.map(|timeout| ("grpc-timeout", timeout.as_bytes()));
        // The client sends its deadline and waits on.
        let headers: Vec<_> = GRPC.into_iter().chain(deadline).collect();
        let answer = predict(&headers, 1).await;
        assert_eq!(answer.header("grpc-status"), Some(status), "{timeout:?}: {answer:?}");
        let elapsed = start.elapsed();
        assert!(Duration::from_millis(at_least) <= elapsed + EARLY, "{timeout:?}: {elapsed:?}");
        // Nothing else ends it before `stream_idle_timeout`.
        assert!(elapsed < Duration::from_secs(25), "{timeout:?}: {elapsed:?}");
    }
    let hung = |it: &model_server::Received| it.rpc == Some(Rpc::Predict);
    assert_eq!(stage.pools.v1.received().iter().filter(|it| hung(it)).count(), 3);
}

#[tokio::test]
async fn a_connection_that_fails_costs_one_more_attempt_on_another_host() {
    // Nobody listens here, nor can anybody else.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let dead = socket.local_addr().unwrap();
    let stage = Stage::with(|scenario| {
        Ok(scenario.endpoint("dead", 8500, dead).bootstrap(|bootstrap| {
            let cluster = &mut bootstrap["static_resources"]["clusters"][0];
            assert_eq!(cluster["name"], "tfs-v1");
            cluster.as_object_mut().unwrap().remove("health_checks");
            let hosts = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"].as_array_mut().unwrap();
            let address = json!({ "socket_address": { "address": "dead", "port_value": 8500 } });
            hosts.push(json!({ "endpoint": { "address": address } }));
        }))
    });
    let stage = stage.await;
    let client = stage.client().await;
    for _ in 0..20 {
        let reply = client.predict(&predict_request(MODEL, Asked::Version(1), &X)).await.unwrap();
        assert_eq!(reply.ok().unwrap().values(), BY_V1);
    }
    assert_eq!(stage.executed(), (20, 0));
    let entry = stage.envoy.wait_for_access(|entry| entry["attempts"] == 2).await.unwrap();
    assert_eq!(entry["upstream_host"], stage.pools.v1.grpc_addr().to_string(), "{entry}");
    drop(socket);
}

#[tokio::test]
async fn a_caller_cannot_change_timeouts_and_retries_by_header() {
    let stage = Stage::quickstart().await;
    stage.pools.v1.set_fault(MODEL, 1, Some(Fault::delay(Duration::from_millis(200))));
    let headers: [(&str, &[u8]); 4] = [
        ("content-type", b"application/json"),
        ("x-envoy-upstream-rq-timeout-ms", b"1"),
        ("x-envoy-retry-on", b"5xx"),
        ("x-envoy-max-retries", b"9"),
    ];
    let path = "/v1/models/resnet/versions/1:predict";
    let request = rest::request(stage.envoy.addr, Method::POST, path, &headers, instances().into());
    let answer = request.await.unwrap();
    assert_eq!(answer.values(), BY_V1, "{answer:?}");
    for name in answer.headers.keys() {
        assert!(!name.as_str().starts_with("x-envoy-"), "{name} is told to the caller");
    }
    let received = stage.pools.v1.received();
    let predict = received.iter().find(|it| it.path.ends_with(":predict")).unwrap();
    for (name, _) in headers.iter().filter(|(name, _)| name.starts_with("x-envoy-")) {
        assert_eq!(predict.header(name), None, "{name} reaches the server");
    }
}

#[tokio::test]
async fn scrapers_reach_the_metrics_and_nothing_else_of_the_administration_interface() {
    let stage = Stage::quickstart().await;
    let metrics = stage.envoy.listener("metrics").await.unwrap();
    assert_eq!(rest::get(metrics, "/ready").await.unwrap().status, 200);
    let answer = rest::get(metrics, "/stats/prometheus").await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(String::from_utf8_lossy(&answer.body).contains("envoy_cluster_membership_healthy"));
    for path in ["/", "/stats", "/config_dump", "/clusters", "/stats/prometheus/../../config_dump"] {
        assert_eq!(rest::get(metrics, path).await.unwrap().status, 404, "{path}");
    }
    let quit = rest::request(metrics, Method::POST, "/quitquitquit", &[], Bytes::new());
    assert_eq!(quit.await.unwrap().status, 404);
}
