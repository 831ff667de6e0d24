//! Refusals, in the language of the caller.

use model_server::client::raw::Step;
use model_server::client::{Asked, predict_request};
use model_server::messages::ReloadConfigRequest;
use model_server::{Code, Rpc};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::refusal::Details;
use serde_json::json;

use super::stage::{BY_V1, Stage, X, header};

#[tokio::test]
async fn a_grpc_refusal_carries_its_reason_as_error_info() {
    let stage = Stage::quickstart().await;
    let reply = stage.client().await.predict(&predict_request("bert", Asked::Latest, &X)).await.unwrap();
    assert_eq!(reply.code(), Code::NotFound);
    assert!(reply.trailers_only);
    assert!(reply.text.contains("bert"), "{}", reply.text);
    assert_eq!(reply.header("x-predictgate-reason"), Some("model_not_configured"));
    let details = Details::read(&reply.details).unwrap();
    assert_eq!((details.code, &details.message), (5, &reply.text));
    assert_eq!(
        (details.info.reason.as_str(), details.info.domain.as_str()),
        ("model_not_configured", "predictgate")
    );
    assert_eq!(stage.executed(), (0, 0));
}

#[tokio::test]
async fn administrative_methods_are_refused_unless_the_operator_lets_them_pass() {
    let stage = Stage::quickstart().await;
    let reply = stage.client().await.reload_config(&ReloadConfigRequest::default()).await.unwrap();
    assert_eq!(reply.code(), Code::PermissionDenied);
    assert_eq!(reply.header("x-predictgate-reason"), Some("admin_method_refused"));
    for path in ["/v2/repository/index", "/v2/repository/models/resnet/unload", "/V2/Repository/index"] {
        let answer = stage.post(path).await;
        assert_eq!(answer.status, 403, "{path}");
        assert_eq!(header(&answer, "x-predictgate-reason"), Some("admin_method_refused"), "{path}");
        assert!(answer.error().is_some(), "{answer:?}");
    }
    for pool in [&stage.pools.v1, &stage.pools.v2] {
        assert_eq!(pool.counts().begun.of(Rpc::HandleReloadConfigRequest), 0);
        assert_eq!(pool.counts().unknown, 0);
    }

    let stage = Stage::configured(|it| it["admin_methods"] = json!("pass")).await;
    let reply = stage.client().await.reload_config(&ReloadConfigRequest::default()).await.unwrap();
    assert_eq!(reply.header("x-predictgate-reason"), None);
    assert_eq!(stage.pools.v1.counts().begun.of(Rpc::HandleReloadConfigRequest), 1);
}

#[tokio::test]
async fn an_unmatched_model_passes_to_the_default_pool_when_the_operator_says_so() {
    let stage = Stage::configured(|it| it["unmatched"] = json!("pass")).await;
    let reply = stage.client().await.predict(&predict_request("bert", Asked::Latest, &X)).await.unwrap();
    assert_eq!(reply.code(), Code::NotFound);
    assert_eq!(reply.text, "Servable not found for request: Latest(bert)");
    assert_eq!(reply.header("x-predictgate-reason"), None);
    assert_eq!(stage.pools.v1.counts().arrived.of(Rpc::Predict), 1);
    let answer = stage.post("/v1/models/bert:predict").await;
    assert_eq!(answer.error().as_deref(), Some("Servable not found for request: Latest(bert)"));
    let received = stage.pools.v1.received();
    let predict = received.iter().find(|it| it.rpc == Some(Rpc::Predict)).unwrap();
    assert_eq!(predict.header("x-predictgate-cluster"), None);
}

#[tokio::test]
async fn what_no_route_takes_is_refused_or_passes_as_the_operator_says() {
    for (otherwise, refused) in [("reject", true), ("pass", false)] {
        let stage = Stage::configured(|it| {
            it["models"][0]["routes"].as_array_mut().unwrap().pop();
            it["models"][0]["otherwise"] = json!(otherwise);
        })
        .await;
        let reply = stage.client().await.predict(&predict_request(MODEL, Asked::Latest, &X)).await.unwrap();
        if refused {
            assert!(reply.header("x-predictgate-reason").is_some(), "{reply:?}");
            assert_eq!(stage.executed(), (0, 0));
        } else {
            assert_eq!(reply.ok().unwrap().values(), BY_V1);
        }
    }
}

#[tokio::test]
async fn a_request_that_is_refused_at_its_headers_does_not_wait_for_its_body() {
    let stage = Stage::quickstart().await;
    let headers: [(&str, &[u8]); 1] = [("content-type", b"application/json")];
    // No step ends the request.
    let raw = stage.raw().await;
    let answer = raw.request(Rpc::Predict.path(), &headers, vec![Step::Data("{".into())]).await.unwrap();
    assert_eq!(answer.status.unwrap().as_u16(), 415, "{answer:?}");
}
