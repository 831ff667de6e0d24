//! Requests by REST.

use super::stage::{BY_V1, BY_V2, Stage, header, instances};

/// Which pool executed a request, by its own count, as (tfs-v1, tfs-v2).
const V1: (u64, u64) = (1, 0);
const V2: (u64, u64) = (0, 1);

async fn check(stage: &Stage, path: &str, numbers: [f32; 3], executed: (u64, u64)) {
    let before = stage.executed();
    let answer = stage.post(path).await;
    assert_eq!(answer.values(), numbers, "{path}");
    let after = stage.executed();
    assert_eq!((after.0 - before.0, after.1 - before.1), executed, "{path}");
}

#[tokio::test]
async fn a_version_or_label_in_the_path_chooses_the_pool() {
    let stage = Stage::quickstart().await;
    check(&stage, "/v1/models/resnet/versions/1:predict", BY_V1, V1).await;
    check(&stage, "/v1/models/resnet/versions/2:predict", BY_V2, V2).await;
    check(&stage, "/v1/models/resnet/labels/stable:predict", BY_V1, V1).await;
    check(&stage, "/v1/models/resnet/labels/canary:predict", BY_V2, V2).await;
    check(&stage, "/v1/models/resnet:predict", BY_V1, V1).await;
}

#[tokio::test]
async fn a_path_is_read_as_the_server_reads_it() {
    let stage = Stage::quickstart().await;
    check(&stage, "/V1/Models/res%6eet/Versions/2:predict", BY_V2, V2).await;
    check(&stage, "/V1/Models/res%6eet:predict", BY_V1, V1).await;
    check(&stage, "/v1/models/resnet/labels/c%61nary:predict", BY_V2, V2).await;
}

#[tokio::test]
async fn status_and_metadata_come_from_the_version_that_is_asked_for() {
    let stage = Stage::quickstart().await;
    for version in ["1", "2"] {
        let answer = stage.get(&format!("/v1/models/resnet/versions/{version}")).await;
        assert_eq!(answer.json()["model_version_status"][0]["version"], version, "{}", answer.json());
        let answer = stage.get(&format!("/v1/models/resnet/versions/{version}/metadata")).await;
        assert_eq!(answer.json()["model_spec"]["version"], version, "{}", answer.json());
    }
}

#[tokio::test]
async fn a_refusal_is_json_and_names_its_reason() {
    let stage = Stage::quickstart().await;
    let answer = stage.post("/v1/models/bert:predict").await;
    assert_eq!(answer.status, 404);
    assert_eq!(header(&answer, "x-predictgate-reason"), Some("model_not_configured"));
    assert_eq!(header(&answer, "content-type"), Some("application/json"));
    assert!(answer.error().unwrap().contains("bert"), "{answer:?}");
    assert_eq!(stage.executed(), (0, 0));
}

#[tokio::test]
async fn an_error_of_the_server_reaches_the_caller_as_it_is() {
    let stage = Stage::quickstart().await;
    let answer = stage.post("/v1/models/resnet/versions/7:predict").await;
    assert_eq!(answer.status, 404);
    assert_eq!(header(&answer, "x-predictgate-reason"), None);
    assert_eq!(answer.error().as_deref(), Some("Servable not found for request: Specific(resnet, 7)"));
}

#[tokio::test]
async fn rest_comes_by_http2_as_well() {
    let stage = Stage::quickstart().await;
    let client = stage.client().await;
    let path = "/v1/models/resnet/versions/2:predict";
    let reply = client.send(path, Some("application/json"), instances()).await.unwrap();
    assert_eq!(reply.http, 200, "{reply:?}");
    assert_eq!(stage.executed(), V2);
}
