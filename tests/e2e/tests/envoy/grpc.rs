//! Requests by gRPC.

use model_server::Rpc;
use model_server::client::{
    Asked, classify_request, metadata_request, multi_inference_request, predict_request, regress_request,
    status_request,
};
use predictgate_e2e::pools::MODEL;

use super::stage::{BY_V1, BY_V2, Stage, X};

#[tokio::test]
async fn a_version_or_label_in_the_message_chooses_the_pool() {
    let stage = Stage::quickstart().await;
    let client = stage.client().await;
    let cases = [
        (Asked::Version(1), BY_V1, (1, 0)),
        (Asked::Version(2), BY_V2, (0, 1)),
        (Asked::Label("stable"), BY_V1, (1, 0)),
        (Asked::Label("canary"), BY_V2, (0, 1)),
        (Asked::Latest, BY_V1, (1, 0)),
    ];
    for (asked, numbers, executed) in cases {
        let before = stage.executed();
        let reply = client.predict(&predict_request(MODEL, asked, &X)).await.unwrap();
        assert_eq!(reply.ok().unwrap().values(), numbers, "{asked:?}");
        let after = stage.executed();
        assert_eq!((after.0 - before.0, after.1 - before.1), executed, "{asked:?}");
    }
}

#[tokio::test]
async fn every_method_that_names_a_model_goes_where_predict_goes() {
    let stage = Stage::quickstart().await;
    let client = stage.client().await;
    for (asked, version) in [(Asked::Version(1), 1), (Asked::Version(2), 2), (Asked::Label("canary"), 2)] {
        let classified = client.classify(&classify_request(MODEL, asked, &X)).await.unwrap().ok().unwrap();
        assert_eq!(classified.model_spec.unwrap().version(), Some(version), "{asked:?}");
        let regressed = client.regress(&regress_request(MODEL, asked, &X)).await.unwrap().ok().unwrap();
        assert_eq!(regressed.model_spec.unwrap().version(), Some(version), "{asked:?}");
        let both = multi_inference_request(MODEL, asked, &X);
        let both = client.multi_inference(&both).await.unwrap().ok().unwrap();
        assert_eq!(both.results[0].model_spec.as_ref().unwrap().version(), Some(version), "{asked:?}");
        let metadata = client.get_model_metadata(&metadata_request(MODEL, asked)).await.unwrap();
        assert_eq!(metadata.ok().unwrap().model_spec.unwrap().version(), Some(version), "{asked:?}");
        let status = client.get_model_status(&status_request(MODEL, asked)).await.unwrap().ok().unwrap();
        assert_eq!(status.model_version_status[0].version, version, "{asked:?}");
    }
    for rpc in [Rpc::Classify, Rpc::Regress, Rpc::MultiInference] {
        assert_eq!(stage.pools.v1.counts().executed_by(MODEL, 1, rpc), 1, "{rpc:?}");
        assert_eq!(stage.pools.v2.counts().executed_by(MODEL, 2, rpc), 2, "{rpc:?}");
    }
}

#[tokio::test]
async fn concurrent_requests_on_one_connection_and_on_many_are_executed_once_each_where_they_belong() {
    let stage = Stage::with(|scenario| Ok(scenario.concurrency(2))).await;
    let shared = stage.client().await;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..200 {
        let client = if n % 2 == 0 { shared.clone() } else { stage.client().await };
        calls.spawn(async move {
            let (version, numbers) = if n % 4 < 2 { (1, BY_V1) } else { (2, BY_V2) };
            let reply = client.predict(&predict_request(MODEL, Asked::Version(version), &X)).await.unwrap();
            assert_eq!(reply.ok().unwrap().values(), numbers);
        });
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
    assert_eq!(stage.executed(), (100, 100));
}

#[tokio::test]
async fn an_error_of_the_server_reaches_the_caller_as_it_is() {
    let stage = Stage::quickstart().await;
    let reply = stage.client().await.predict(&predict_request(MODEL, Asked::Version(7), &X)).await.unwrap();
    assert_eq!(reply.code(), model_server::Code::NotFound);
    assert_eq!(reply.text, "Servable not found for request: Specific(resnet, 7)");
    assert_eq!(reply.header("x-predictgate-reason"), None);
}

#[tokio::test]
async fn a_method_without_a_model_passes_to_the_default_pool() {
    let stage = Stage::quickstart().await;
    let reply = stage.client().await.call("/grpc.health.v1.Health/Check", b"").await.unwrap();
    assert_eq!(reply.code(), model_server::Code::Unimplemented);
    assert_eq!(stage.pools.v1.counts().unknown, 1);
}
