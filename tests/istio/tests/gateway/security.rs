//! Who may call, and who may choose a subset: `overlays/security`.

use model_server::Code;
use model_server::client::{Asked, Client, predict_request};
use model_server::messages::ReloadConfigRequest;
use predictgate_e2e::pools::MODEL;
use predictgate_istio::Manifests;
use serde_json::{Value, json};

use crate::stage::{By, Stage, X, named};

/// A key and a token of ada, a user of the tenant acme, signed with it (HS256); the token is valid until 2100.
const KEY: &str = "YSBrZXkgdGhhdCBvbmx5IHRoaXMgdGVzdCBhbmQgaXRzIHRva2VucyBrbm93";
const TOKEN: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6InRlc3QifQ.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlLmNvbS8iLCJhdWQiOiJpbmZlcmVuY2UiLCJzdWIiOiJhZGEiLCJ0ZW5hbnQiOiJhY21lIiwiZXhwIjo0MTAyNDQ0ODAwfQ.Saj0AjyNfU9xfnCMrexg35BuoLg8SyzPHyyEBCgw5Sg";

/// Asks for version 1 by the message alone, by headers and by REST, and claims the canary's header each time.
async fn spoof(stage: &Stage) -> (u64, u64) {
    let client = stage.client().await.with_metadata("x-model-pool", "v2");
    // Whether the server that is reached has this version is not the point.
    client.predict(&predict_request(MODEL, Asked::Version(1), &X)).await.unwrap();
    let client = named(&client, &[("x-model-version", "1")]);
    client.predict(&predict_request(MODEL, Asked::Version(1), &X)).await.unwrap();
    stage.rest("/v1/models/resnet/versions/1:predict", &[("x-model-pool", b"v2")]).await;
    stage.received()
}

#[tokio::test]
async fn the_filter_keeps_a_caller_from_choosing_the_subset() {
    for by in [By::WasmPlugin, By::EnvoyFilter] {
        assert_eq!(spoof(&Stage::of(by).await).await, (3, 0), "{by:?}");
    }
}

#[tokio::test]
async fn while_the_filter_is_absent_the_overlay_keeps_a_caller_from_choosing() {
    let absent = |folders: &[&str]| {
        let manifests = Manifests::shipped(folders).unwrap().without("WasmPlugin");
        // The calls have no tokens.
        Stage::with(manifests.without("RequestAuthentication").without("AuthorizationPolicy"))
    };
    let open = absent(&["base", "tf-serving"]).await;
    assert_eq!(spoof(&open).await, (0, 3), "without the overlay, the header of a caller matches");
    let closed = absent(&["base", "tf-serving", "overlays/security"]).await;
    assert_eq!(spoof(&closed).await, (3, 0));
}

/// The filter, where each tenant has few tokens, behind the overlay.
async fn guarded(max_tokens: u32) -> Stage {
    let bucket = json!({ "max_tokens": max_tokens, "tokens_per_fill": 1, "fill_interval": "24h" });
    let manifests = Manifests::shipped(&["base", "tf-serving", "overlays/security"]).unwrap();
    let manifests = manifests.change("WasmPlugin", "predictgate", |plugin| {
        plugin["spec"]["pluginConfig"]["models"][0]["rate_limits"][0]["token_bucket"] = bucket;
    });
    // The issuer's keys stand in the manifest, as istiod would fetch them from the issuer.
    let keys = json!({ "keys": [{ "kty": "oct", "alg": "HS256", "kid": "test", "k": KEY }] });
    let manifests = manifests.unwrap().change("RequestAuthentication", "inference-jwt", |authentication| {
        let rule = &mut authentication["spec"]["jwtRules"][0];
        rule["jwksUri"] = Value::Null;
        rule["jwks"] = json!(keys.to_string());
    });
    Stage::with(manifests.unwrap()).await
}

fn bearing(client: &Client, token: &str) -> Client {
    client.clone().with_metadata("authorization", format!("Bearer {token}"))
}

#[tokio::test]
async fn a_call_without_a_valid_token_is_executed_by_nobody_and_spends_nothing() {
    let stage = guarded(1).await;
    // The headers say enough for the limit, so that only the order of filters keeps it from being spent.
    let client = named(&stage.client().await, &[("x-model-version", "1")]);
    let forged = TOKEN.replace("eyJpc3", "eyJpc4");
    let predict = async |client: &Client| {
        client.predict(&predict_request(MODEL, Asked::Version(1), &X)).await.unwrap().code()
    };
    assert_eq!(predict(&client).await, Code::PermissionDenied);
    assert_eq!(predict(&bearing(&client, &forged)).await, Code::Unauthenticated);
    assert_eq!(stage.received(), (0, 0));
    assert_eq!(predict(&bearing(&client, TOKEN)).await, Code::Ok);
}

#[tokio::test]
async fn the_tenant_that_is_limited_is_the_tokens_whatever_the_caller_says() {
    let tokens = 3;
    let stage = guarded(tokens).await;
    let client = bearing(&stage.client().await, TOKEN);
    let mut passed = 0;
    for call in 0..4 * tokens {
        let client = client.clone().with_metadata("x-tenant", format!("tenant-{call}"));
        let reply = client.predict(&predict_request(MODEL, Asked::Latest, &X)).await.unwrap();
        match reply.code() {
            Code::Ok => passed += 1,
            code => assert_eq!(code, Code::ResourceExhausted, "{reply:?}"),
        }
    }
    assert_eq!(passed, tokens);
}

#[tokio::test]
async fn a_token_does_not_reach_what_administers_a_server() {
    let stage = guarded(1).await;
    let client = bearing(&stage.client().await, TOKEN);
    let reply = client.reload_config(&ReloadConfigRequest::default()).await.unwrap();
    assert_eq!(reply.code(), Code::PermissionDenied, "{reply:?}");
}
