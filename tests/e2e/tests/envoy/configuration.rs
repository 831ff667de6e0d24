//! What becomes of a configuration, good or bad, at a start and while Envoy serves.

use std::time::Duration;

use model_server::client::{Asked, predict_request};
use model_server::framing::frame;
use model_server::{Code, Rpc};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::wait::{until, within};
use predictgate_e2e::{Pools, Update};
use prost::Message;
use serde_json::json;

use super::stage::{BY_V1, BY_V2, Stage, X, header};

/// Two mistakes at once: a target that is not defined and a key that does not exist.
const BAD: &str = r#"{
    "models": [{
        "name": "resnet",
        "targets": { "canary": { "cluster": "tfs-v2" } },
        "routes": [{ "split": [{ "target": "canry" }] }]
    }],
    "unmached": "reject"
}"#;
/// What must be said of them.
const ERRORS: [&str; 3] = ["models[0].routes[0].split[0].target", "canry", "unmached"];

/// Everything to version 2.
const ALL_TO_V2: &str = r#"{
    "models": [{
        "name": "resnet",
        "targets": { "v2": { "cluster": "tfs-v2", "headers": { "x-model-pool": "v2" } } },
        "routes": [{ "split": [{ "target": "v2" }] }]
    }]
}"#;

#[tokio::test]
async fn the_shipped_files_pass_validation() {
    let pools = Pools::start().await.unwrap();
    for folder in ["quickstart", "canary", "subsets"] {
        let shipped = pools.shipped(folder).unwrap();
        for scenario in [shipped.clone(), shipped.inlined()] {
            let validation = scenario.validate().unwrap();
            assert!(validation.ok, "{folder}: {}", validation.text);
            for words in ["[warning]", "[error]", "eprecated"] {
                assert!(!validation.text.contains(words), "{folder}: {}", validation.text);
            }
        }
    }
}

#[tokio::test]
async fn validation_of_an_inlined_bad_configuration_fails_with_every_error_and_its_path() {
    let pools = Pools::start().await.unwrap();
    let validation = pools.quickstart().unwrap().configured(BAD).inlined().validate().unwrap();
    assert!(!validation.ok, "{}", validation.text);
    for words in ERRORS {
        assert!(validation.text.contains(words), "no {words} in {}", validation.text);
    }
}

#[tokio::test]
async fn a_bad_update_leaves_the_running_configuration_in_force_and_is_counted() {
    let mut stage = Stage::quickstart().await;
    assert_eq!(stage.envoy.judged().await.unwrap(), (1, 0));
    assert_eq!(stage.envoy.configure(BAD).await.unwrap(), Update::Rejected);
    assert_eq!(stage.envoy.judged().await.unwrap(), (1, 1));
    let log = stage.envoy.log();
    for words in ERRORS {
        assert!(log.contains(words), "no {words} in {log}");
    }
    let answer = stage.post("/v1/models/resnet/versions/1:predict").await;
    assert_eq!(answer.values(), BY_V1);
    assert_eq!(stage.post("/v1/models/bert:predict").await.status, 404);
}

#[tokio::test]
async fn a_good_update_takes_the_next_requests_on_connections_old_and_new() {
    let mut stage = Stage::with(|scenario| Ok(scenario.concurrency(2))).await;
    let latest = predict_request(MODEL, Asked::Latest, &X);
    let mut clients = Vec::new();
    for _ in 0..8 {
        let client = stage.client().await;
        assert_eq!(client.predict(&latest).await.unwrap().ok().unwrap().values(), BY_V1);
        clients.push(client);
    }
    assert_eq!(stage.envoy.configure(ALL_TO_V2).await.unwrap(), Update::Accepted);
    clients.push(stage.client().await);
    // Envoy tells the workers after it has counted, so a request may still meet the old configuration.
    for client in &clients {
        until("an answer of version 2", || async {
            Ok((client.predict(&latest).await?.ok()?.values() == BY_V2).then_some(()))
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn a_request_that_is_held_during_an_update_keeps_the_configuration_that_it_began_with() {
    let mut stage = Stage::configured(|it| it["identity"] = json!({ "hold_timeout": "30s" })).await;
    let raw = stage.raw().await;
    let headers: [(&str, &[u8]); 2] = [("content-type", b"application/grpc"), ("te", b"trailers")];
    let mut stream = raw.open(raw.post(Rpc::Predict.path(), &headers).unwrap(), false).await.unwrap();
    stage.wait_for_metric("predictgate_held", &[], 1.0).await;
    assert_eq!(stage.envoy.configure(ALL_TO_V2).await.unwrap(), Update::Accepted);
    until("the new configuration", || async {
        Ok((stage.post("/v1/models/resnet:predict").await.values() == BY_V2).then_some(()))
    })
    .await
    .unwrap();
    let executed = || stage.pools.v1.counts().executed_by(MODEL, 1, Rpc::Predict);
    let before = executed();
    let body = frame(&predict_request(MODEL, Asked::Version(1), &X).encode_to_vec());
    stream.send_last(body).unwrap();
    let answer = stream.answer().await;
    assert_eq!(answer.header("grpc-status"), Some("0"), "{answer:?}");
    assert_eq!(executed() - before, 1);
    stage.wait_for_metric("predictgate_held", &[], 0.0).await;
}

#[tokio::test]
async fn a_cold_start_with_a_bad_configuration_refuses_everything_until_a_good_one_comes() {
    let pools = Pools::start().await.unwrap();
    let good = pools.quickstart().unwrap().plugin;
    let envoy = pools.quickstart().unwrap().configured(BAD).start().await.unwrap();
    envoy.wait_until_healthy().await.unwrap();
    let mut stage = Stage { pools, envoy };
    assert_eq!(stage.envoy.judged().await.unwrap(), (0, 1));

    for path in ["/v1/models/resnet:predict", "/v1/models/bert:predict", "/anything"] {
        let answer = stage.post(path).await;
        assert_eq!(answer.status, 503, "{path}");
        assert_eq!(header(&answer, "x-predictgate-reason"), Some("not_configured"));
        assert_eq!(answer.error().as_deref(), Some("predictgate has no accepted configuration"));
    }
    let reply = stage.client().await.predict(&predict_request(MODEL, Asked::Version(1), &X)).await.unwrap();
    assert_eq!(reply.code(), Code::Unavailable);
    assert_eq!(reply.text, "predictgate has no accepted configuration");
    assert_eq!(stage.executed(), (0, 0));

    assert_eq!(stage.envoy.publish(good).await.unwrap(), Update::Accepted);
    until("an answer of version 1", || async {
        let answer = stage.post("/v1/models/resnet:predict").await;
        Ok((answer.status == 200).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(stage.executed(), (1, 0));
}

/// A split by user and a target for each of two versions, for so many models.
fn many_models(count: usize) -> String {
    let model = |place: usize| {
        json!({
            "name": format!("model-{place:05}"),
            "targets": {
                "stable": { "cluster": "tfs-v1", "headers": { "x-model-pool": "v1" } },
                "canary": { "cluster": "tfs-v2", "headers": { "x-model-pool": "v2" }, "rewrite": { "model": MODEL } },
            },
            "routes": [
                { "match": { "version": "2" }, "split": [{ "target": "canary" }] },
                {
                    "split": [{ "target": "stable", "weight": 95 }, { "target": "canary", "weight": 5 }],
                    "sticky": { "by": [{ "header": "x-user-id" }] },
                },
            ],
        })
    };
    json!({ "models": (0..count).map(model).collect::<Vec<_>>() }).to_string()
}

#[tokio::test]
async fn ten_thousand_models_are_read_in_less_than_half_a_second() {
    const PROMISED: Duration = Duration::from_millis(500);
    let mut stage = Stage::quickstart().await;
    stage.envoy.configure(&many_models(10_000)).await.unwrap();
    let client = stage.client().await;
    until("an answer by the last of the models".to_owned(), || async {
        let client = stage.client().await;
        let reply = client.predict(&predict_request("model-09999", Asked::Version(2), &X)).await?;
        Ok(reply.ok().ok().filter(|answer| answer.values() == BY_V2).map(|_| ()))
    })
    .await
    .unwrap();
    client.predict(&predict_request("model-00000", Asked::Version(2), &X)).await.unwrap().ok().unwrap();
    // It is read once to be checked, and once each for the main thread and for the worker, which do not wait for each other.
    let took = until("it to be read three times", || async {
        let log = stage.envoy.log();
        let told = log.split("accepted, models: 10000, read in ").skip(1);
        let took = told.map(|rest| Duration::from_millis(rest.split(' ').next().unwrap().parse().unwrap()));
        let took: Vec<_> = took.collect();
        Ok((3 <= took.len()).then_some(took))
    });
    let took = took.await.unwrap();
    println!("10,000 models: read in {took:?}");
    // The clock counts what others took of the processor, too; the fastest reading has the least of that.
    assert_eq!(took.len(), 3);
    assert!(*took.iter().min().unwrap() < within(PROMISED), "{took:?}");
}
