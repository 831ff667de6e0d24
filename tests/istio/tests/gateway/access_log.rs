//! The access log of `overlays/monitoring`, in the form of `istiod-values.yaml`.

use model_server::Code;
use model_server::client::{Asked, predict_request};
use predictgate_e2e::pools::MODEL;
use predictgate_istio::Manifests;

use crate::stage::{Stage, X, named};

#[tokio::test]
async fn what_the_filter_refuses_is_logged_with_its_reason_and_what_goes_well_is_not() {
    let manifests = Manifests::shipped(&["base", "tf-serving", "overlays/monitoring"]).unwrap();
    let stage = Stage::with(manifests).await;
    let client = stage.client().await;
    let good = named(&client, &[("x-model-version", "1")]);
    good.predict(&predict_request(MODEL, Asked::Version(1), &X)).await.unwrap().ok().unwrap();
    let contradicting = good.predict(&predict_request(MODEL, Asked::Version(2), &X)).await.unwrap();
    assert_eq!(contradicting.code(), Code::InvalidArgument, "{contradicting:?}");
    assert_eq!(stage.rest("/v1/models/resnet/versions/1:predict", &[]).await.status, 200);
    assert_eq!(stage.rest("/v1/models/bert:predict", &[]).await.status, 404);
    // In the order in which they ended, so what went well before the last would stand here.
    let entries = stage.gateway.wait_for_access(2).await.unwrap();
    let reasons: Vec<_> = entries.iter().map(|entry| &entry["reason"]).collect();
    assert_eq!(reasons, ["contradicting_model_spec", "model_not_configured"], "{entries:#?}");
    let first = &entries[0];
    assert_eq!(first["path"], "/tensorflow.serving.PredictionService/Predict");
    assert_eq!(first["target"], "stable");
    assert_eq!(first["grpc_status"], "InvalidArgument");
    assert_eq!(first["route"], "grpc-stable");
    assert_eq!(first["upstream_cluster"], "outbound|8500|v1|tf-serving.ml-serving.svc.cluster.local;");
    assert_eq!(entries[1]["status"], 404);
}
