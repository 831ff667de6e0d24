//! Claims of tokens that Envoy itself has verified.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use model_server::client::rest;
use serde_json::json;

use super::keys::{assert_dealt_by_chance, post, sticky_by};
use super::native::{Caller, Native};
use super::stage::{Stage, instances};
use super::tokens::{Issuer, altered, unsigned};

/// The quickstart behind `jwt_authn`; a claim binds.
async fn stage(issuer: &Issuer, claim: &str) -> Stage {
    Stage::with(|scenario| {
        scenario
            .connection_manager(|manager| issuer.guard(manager))
            .reconfigured(sticky_by(json!([{ "jwt_claim": claim }])))
    })
    .await
}

/// The target that answers the bearer of a token.
async fn bearing(stage: &Stage, token: &str) -> &'static str {
    post(stage.envoy.addr, &[("authorization", format!("Bearer {token}").as_bytes())]).await
}

fn claiming(claim: &str, value: impl Into<Vec<u8>>) -> Caller {
    Caller { claims: BTreeMap::from([(claim.to_owned(), value.into())]), ..Caller::default() }
}

#[tokio::test]
async fn a_claim_binds_its_user_whatever_the_token() {
    let issuer = Issuer::new();
    let stage = stage(&issuer, "sub").await;
    let native = Native::of(stage.envoy.plugin());
    let mut by_v1 = 0;
    for user in 0..100 {
        let user = format!("user-{user}@lab");
        let target = native.target(&claiming("sub", user.clone()));
        for token in ["first", "second"] {
            let token = issuer.token(json!({ "sub": user, "jti": token }));
            assert_eq!(bearing(&stage, &token).await, target, "{user}");
        }
        by_v1 += usize::from(target == "v1");
    }
    // Six standard deviations of a fair coin thrown 100 times are 30.
    assert!((20..=80).contains(&by_v1), "{by_v1} of 100 users have v1");
}

#[tokio::test]
async fn a_forged_token_never_reaches_a_server() {
    let issuer = Issuer::new();
    let stage = stage(&issuer, "sub").await;
    let claims = json!({ "sub": "ada" });
    let good = issuer.token(claims.clone());
    let forged = [
        ("of another key", Issuer::new().token(claims.clone())),
        ("without a signature", unsigned(claims.clone())),
        ("with other claims", altered(&good, json!({ "sub": "eve" }))),
        ("expired", issuer.expired(claims)),
        ("no token", "ada".to_owned()),
    ];
    for (what, token) in forged {
        let authorization = format!("Bearer {token}");
        let headers: [(&str, &[u8]); 1] = [("authorization", authorization.as_bytes())];
        let path = "/v1/models/resnet:predict";
        let answer = rest::request(stage.envoy.addr, Method::POST, path, &headers, instances().into()).await;
        assert_eq!(answer.unwrap().status, 401, "{what}");
        let client = stage.client().await.with_metadata("authorization", &authorization);
        let reply = client.call("/tensorflow.serving.PredictionService/Predict", b"").await.unwrap();
        assert_eq!(reply.code(), model_server::Code::Unauthenticated, "{what}");
    }
    assert_eq!(stage.post("/v1/models/resnet:predict").await.status, 401);
    assert_eq!(stage.executed(), (0, 0));
    bearing(&stage, &good).await;
    assert_eq!(stage.executed().0 + stage.executed().1, 1);
}

#[tokio::test]
async fn a_claim_that_is_no_text_binds_too() {
    let issuer = Issuer::new();
    let stage = stage(&issuer, "tenant").await;
    let native = Native::of(stage.envoy.plugin());
    // Envoy hands over a number as eight bytes, and a truth as one.
    let numbers = (0..10).map(|n| (json!(n), f64::from(n).to_le_bytes().to_vec()));
    for (value, bytes) in numbers.chain([(json!(true), vec![1]), (json!(false), vec![0])]) {
        for token in ["first", "second"] {
            let target = bearing(&stage, &issuer.token(json!({ "tenant": value, "jti": token }))).await;
            assert_eq!(target, native.target(&claiming("tenant", bytes.clone())), "{value}");
        }
    }
    let mut seen = BTreeSet::new();
    for n in 0..10 {
        let list = json!([format!("group-{n}"), n, ["staff"]]);
        let mut targets = BTreeSet::new();
        for token in ["first", "second", "third", "fourth"] {
            targets.insert(bearing(&stage, &issuer.token(json!({ "tenant": list, "jti": token }))).await);
        }
        assert_eq!(targets.len(), 1, "{list}");
        seen.extend(targets);
    }
    assert_eq!(seen.len(), 2);
}

#[tokio::test]
async fn who_lacks_the_claim_or_has_it_empty_is_dealt_by_chance() {
    let issuer = Issuer::new();
    let stage = stage(&issuer, "tenant").await;
    for claims in [json!({ "sub": "ada" }), json!({ "tenant": "" }), json!({ "tenant": null })] {
        let token = issuer.token(claims);
        let mut targets = Vec::new();
        for _ in 0..100 {
            targets.push(bearing(&stage, &token).await);
        }
        assert_dealt_by_chance(&targets);
    }
}
