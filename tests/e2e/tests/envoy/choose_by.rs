//! Callers that name their target.

use model_server::client::{Asked, predict_request};
use predictgate_e2e::pools::MODEL;
use serde_json::{Value, json};

use super::keys::call;
use super::stage::{BY_V2, Stage, X};

/// Everybody goes to v1 except who names another target.
fn choosing(configuration: &mut Value) {
    let route = &mut configuration["models"][0]["routes"][4];
    assert_eq!(route["name"], "latest");
    route["split"] = json!([{ "target": "v1" }, { "target": "v2", "weight": 0 }]);
    route["choose_by"] = json!({ "header": "X-Use-Target" });
}

#[tokio::test]
async fn a_caller_names_its_target_and_any_other_name_is_as_good_as_none() {
    let stage = Stage::configured(choosing).await;
    let client = stage.client().await.with_metadata("x-predictgate-explain", "1");
    let naming = |names: &[&[u8]]| {
        names.iter().fold(client.clone(), |it, name| it.with_metadata("x-use-target", name))
    };
    let cases: [(&[&[u8]], &str, &str); 10] = [
        (&[b"v2"], "v2", "choose_by"),
        (&[b"v1"], "v1", "choose_by"),
        (&[], "v1", "split"),
        (&[b""], "v1", "split"),
        (&[b"v3"], "v1", "split"),
        (&[b"V2"], "v1", "split"),
        // The name of a cluster is none of a target.
        (&[b"tfs-v2"], "v1", "split"),
        (&[b"v2\xff"], "v1", "split"),
        // Who names two targets names none, even if they are the same.
        (&[b"v2", b"v2"], "v1", "split"),
        (&[b"v2", b"v1"], "v1", "split"),
    ];
    for (names, target, reason) in cases {
        let what = format!("{:?}", names.iter().map(|it| it.escape_ascii().to_string()).collect::<Vec<_>>());
        assert_eq!(call(&naming(names)).await, target, "{what}");
        let reply = naming(names).predict(&predict_request(MODEL, Asked::Latest, &X)).await.unwrap();
        let decision = format!("model=resnet;asked=latest;route=latest;target={target};reason={reason}");
        assert_eq!(reply.header("x-predictgate-decision"), Some(&*decision), "{what}");
    }
}

#[tokio::test]
async fn a_name_counts_only_on_a_route_that_lets_callers_choose() {
    let stage = Stage::configured(choosing).await;
    let client = stage.client().await.with_metadata("x-use-target", "v1");
    let reply = client.predict(&predict_request(MODEL, Asked::Version(2), &X)).await.unwrap();
    assert_eq!(reply.ok().unwrap().values(), BY_V2);
}
