//! Headers that only the filter may set.

use http::Method;
use model_server::Rpc;
use model_server::client::{Asked, Client, predict_request, rest};
use predictgate_e2e::pools::MODEL;
use serde_json::json;

use super::stage::{BY_V1, BY_V2, Stage, X, instances};

/// What a client might claim, and a header that is nobody's but has the prefix.
const SPOOFED: [(&str, &str); 5] = [
    ("x-predictgate-cluster", "tfs-v2"),
    ("x-predictgate-target", "v2"),
    ("x-predictgate-mirror-cluster", "tfs-v2"),
    ("x-predictgate-anything", "1"),
    ("x-model-pool", "v2"),
];

fn spoofing(client: Client) -> Client {
    SPOOFED.iter().fold(client, |client, (name, value)| client.with_metadata(name, value))
}

/// Sends both ways, for version 1 and for latest, and says what tfs-v1 received.
async fn received_by_v1(stage: &Stage) -> Vec<model_server::Received> {
    let client = spoofing(stage.client().await);
    for asked in [Asked::Version(1), Asked::Latest] {
        let reply = client.predict(&predict_request(MODEL, asked, &X)).await.unwrap();
        assert_eq!(reply.ok().unwrap().values(), BY_V1, "{asked:?}");
    }
    let headers = SPOOFED.map(|(name, value)| (name, value.as_bytes()));
    for path in ["/v1/models/resnet/versions/1:predict", "/v1/models/resnet:predict"] {
        let answer = rest::request(stage.envoy.addr, Method::POST, path, &headers, instances().into()).await;
        assert_eq!(answer.unwrap().values(), BY_V1, "{path}");
    }
    assert_eq!(stage.executed(), (4, 0));
    stage.pools.v1.received().into_iter().filter(|it| it.rpc == Some(Rpc::Predict)).collect()
}

#[tokio::test]
async fn a_client_chooses_no_pool_by_header() {
    let stage = Stage::quickstart().await;
    let received = received_by_v1(&stage).await;
    let header = |at: usize, name| received[at].header(name).map(String::from_utf8_lossy);
    for (at, target) in [(0, "v1"), (1, "latest"), (2, "v1"), (3, "latest")] {
        assert_eq!(header(at, "x-predictgate-target").unwrap(), target);
        // The target v1 sets its own value; the target latest sets none, and the client's is gone.
        let pool = header(at, "x-model-pool");
        assert_eq!(pool.as_deref(), (target == "v1").then_some("v1"));
        assert_eq!(header(at, "x-predictgate-mirror-cluster"), None);
        assert_eq!(header(at, "x-predictgate-anything"), None);
    }
}

#[tokio::test]
async fn the_filter_alone_removes_what_a_client_spoofs() {
    let stage = Stage::with(|scenario| {
        Ok(scenario.connection_manager(|manager| {
            let removed = manager.as_object_mut().unwrap().remove("early_header_mutation_extensions");
            assert!(removed.is_some());
        }))
    });
    let stage = stage.await;
    let received = received_by_v1(&stage).await;
    assert_eq!(received.len(), 4);
    for predict in received {
        assert_eq!(predict.header("x-predictgate-mirror-cluster"), None);
        assert_eq!(predict.header("x-predictgate-anything"), None);
        assert_ne!(predict.header("x-model-pool"), Some(&b"v2"[..]));
    }
}

#[tokio::test]
async fn with_the_filter_disabled_a_spoofed_header_reaches_no_pool() {
    let stage = Stage::with(|scenario| Ok(scenario.with_the_filter_disabled())).await;
    for predict in received_by_v1(&stage).await {
        for name in
            ["x-predictgate-cluster", "x-predictgate-target", "x-predictgate-mirror-cluster", "x-model-pool"]
        {
            assert_eq!(predict.header(name), None, "{name}");
        }
    }
    // The filter was really off: it is not what sends version 2 to its pool.
    let reply = stage.client().await.predict(&predict_request(MODEL, Asked::Version(2), &X)).await.unwrap();
    assert!(reply.ok().is_err());
    assert_eq!(stage.executed(), (4, 0));
}

#[tokio::test]
async fn a_repeated_spoofed_header_is_removed_whole() {
    let stage = Stage::quickstart().await;
    let client = spoofing(spoofing(stage.client().await));
    let reply = client.predict(&predict_request(MODEL, Asked::Version(2), &X)).await.unwrap();
    assert_eq!(reply.ok().unwrap().values(), BY_V2);
    let received = stage.pools.v2.received();
    let predict = received.iter().find(|it| it.rpc == Some(Rpc::Predict)).unwrap();
    let pools = predict.headers.iter().filter(|(name, _)| name == "x-model-pool");
    assert_eq!(pools.count(), 1);
}

#[tokio::test]
async fn a_request_that_passes_without_a_target_takes_no_spoofed_header_along() {
    let stage = Stage::with(|scenario| {
        scenario
            .connection_manager(|manager| {
                manager.as_object_mut().unwrap().remove("early_header_mutation_extensions");
            })
            .reconfigured(|it| it["unmatched"] = json!("pass"))
    });
    let stage = stage.await;
    let client = spoofing(stage.client().await);
    client.predict(&predict_request("bert", Asked::Latest, &X)).await.unwrap();
    client.call("/grpc.health.v1.Health/Check", b"").await.unwrap();
    let received = stage.pools.v1.received();
    let passed: Vec<_> = received.iter().filter(|it| it.http_method == "POST").collect();
    assert_eq!(passed.len(), 2);
    for request in passed {
        for (name, _) in SPOOFED {
            assert_eq!(request.header(name), None, "{name} of {}", request.path);
        }
    }
}
