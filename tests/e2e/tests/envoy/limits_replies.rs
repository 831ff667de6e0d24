//! What a caller reads of a limit that it exceeds, and what it may do then.

use http::Method;
use model_server::client::{Asked, Client, predict_request, rest};
use model_server::{Code, Rpc};
use predictgate_e2e::pools::MODEL;
use predictgate_e2e::refusal::Details;
use serde_json::{Value, json};

use super::stage::{BY_V1, Stage, X, header, instances};

/// The shipped scenario with limits that hardly fill while a test runs: one token in 1,000 seconds.
async fn stage() -> Stage {
    Stage::shipped("rate-limit", |scenario| {
        scenario.concurrency(4).reconfigured(|configuration| {
            for limit in configuration["models"][0]["rate_limits"].as_array_mut().unwrap() {
                let bucket = &mut limit["token_bucket"];
                bucket["tokens_per_fill"] = json!(1);
                bucket["fill_interval"] = json!("1000s");
            }
        })
    })
    .await
}

async fn of_tenant(stage: &Stage, tenant: &str) -> Client {
    stage.client().await.with_metadata("x-tenant", tenant)
}

/// What is told of a limit that is missing so many tokens; a call does not take 100 s.
#[track_caller]
fn assert_filled_in(seconds: f64, tokens: f64) {
    assert!((1000.0 * tokens - 100.0..=1000.0 * tokens).contains(&seconds), "{seconds} for {tokens} tokens");
}

#[tokio::test]
async fn over_rest_it_is_429_with_headers_and_json() {
    let stage = stage().await;
    let path = "/v1/models/resnet:predict";
    let addr = stage.envoy.addr;
    let call = |tenant: &'static [u8]| async move {
        rest::request(addr, Method::POST, path, &[("x-tenant", tenant)], instances().into()).await
    };
    for _ in 0..20 {
        assert_eq!(call(b"a").await.unwrap().values(), BY_V1);
    }
    let answer = call(b"a").await.unwrap();
    assert_eq!(answer.status, 429);
    assert_eq!(header(&answer, "x-predictgate-reason"), Some("rate_limited"));
    assert_eq!(header(&answer, "content-type"), Some("application/json"));
    assert_eq!(header(&answer, "ratelimit-policy"), Some("\"per-tenant\";q=20;w=20000"));
    let wait = header(&answer, "retry-after").unwrap();
    assert_filled_in(wait.parse().unwrap(), 1.0);
    assert_eq!(header(&answer, "ratelimit"), Some(&*format!("\"per-tenant\";r=0;t={wait}")));
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body, json!({ "error": "limit per-tenant has 0 of 20 left and this costs 1" }));
    assert_eq!(call(b"b").await.unwrap().values(), BY_V1, "another tenant is not concerned");
    assert_eq!(stage.executed(), (21, 0));
    stage.assert_alive().await;
}

#[tokio::test]
async fn over_grpc_it_is_resource_exhausted_with_retry_info_and_metadata() {
    let stage = stage().await;
    let client = of_tenant(&stage, "a").await;
    let request = predict_request(MODEL, Asked::Latest, &[1.0; 200]);
    assert_eq!(client.predict(&request).await.unwrap().code(), Code::Ok);
    let reply = client.predict(&request).await.unwrap();
    assert_eq!(reply.code(), Code::ResourceExhausted);
    assert!(reply.trailers_only);
    assert_eq!(reply.text, "limit examples has 56 of 256 left and this costs 200");
    let details = Details::read(&reply.details).unwrap();
    assert_eq!((details.code, &details.message), (8, &reply.text));
    assert_eq!((&*details.info.reason, &*details.info.domain), ("rate_limited", "predictgate"));
    let wait = details.retry_delay.unwrap().as_secs_f64();
    assert_filled_in(wait, 144.0);
    let header = |name| reply.header(name).unwrap_or_default();
    assert_eq!(header("x-predictgate-reason"), "rate_limited");
    // Who knows only whole numbers comes later, not earlier.
    let seconds = wait.ceil();
    assert_eq!(header("retry-after"), seconds.to_string());
    assert_eq!(header("grpc-retry-pushback-ms"), (1000.0 * wait).ceil().to_string());
    assert_eq!(header("ratelimit"), format!("\"examples\";r=56;t={seconds}"));
    assert_eq!(header("ratelimit-policy"), "\"examples\";q=256;w=256000");
    // What was refused has spent nothing.
    let rest = predict_request(MODEL, Asked::Latest, &[1.0; 56]);
    assert_eq!(client.predict(&rest).await.unwrap().code(), Code::Ok);
    assert_eq!(stage.pools.v1.counts().executed_by(MODEL, 1, Rpc::Predict), 2);
}

#[tokio::test]
async fn a_request_that_can_never_pass_is_not_told_to_come_again() {
    let stage = stage().await;
    let client = of_tenant(&stage, "a").await;
    let reply = client.predict(&predict_request(MODEL, Asked::Latest, &[1.0; 257])).await.unwrap();
    assert_eq!(reply.code(), Code::ResourceExhausted);
    assert_eq!(reply.text, "this costs 257, more than the 256 that limit examples ever lets pass at once");
    assert_eq!(reply.header("grpc-retry-pushback-ms"), Some("-1"));
    assert_eq!(reply.header("retry-after"), None);
    assert_eq!(Details::read(&reply.details).unwrap().retry_delay, None);
    assert_eq!(stage.executed(), (0, 0));
}

#[tokio::test]
async fn four_workers_share_a_limit_exactly() {
    let stage = stage().await;
    let request = predict_request(MODEL, Asked::Latest, &X);
    let mut passed = 0;
    // By chance all 40 connections go to one worker of four once in 10^23 runs.
    for _ in 0..40 {
        let reply = of_tenant(&stage, "a").await.predict(&request).await.unwrap();
        passed += u32::from(reply.code() == Code::Ok);
    }
    assert_eq!(passed, 20);
    let workers = stage.envoy.connections_by_worker().await.unwrap();
    assert!(workers.iter().filter(|taken| 0 < **taken).count() > 1, "{workers:?}");
    assert_eq!(stage.executed(), (20, 0));
}

#[tokio::test]
async fn a_new_file_changes_limits_at_once_and_keeps_the_others_as_they_are() {
    let mut stage = stage().await;
    let client = of_tenant(&stage, "a").await;
    let request = predict_request(MODEL, Asked::Latest, &[1.0; 100]);
    for _ in 0..2 {
        assert_eq!(client.predict(&request).await.unwrap().code(), Code::Ok);
    }
    // 56 examples and 18 requests are left.
    let mut next = stage.envoy.plugin().configuration().unwrap();
    next["models"][0]["rate_limits"][0]["token_bucket"]["max_tokens"] = json!(1);
    stage.envoy.configure(&next.to_string()).await.unwrap();
    let refused = |bytes: usize| {
        let (client, request) = (client.clone(), predict_request(MODEL, Asked::Latest, &vec![1.0; bytes]));
        async move {
            let reply = client.predict(&request).await.unwrap();
            assert_eq!(reply.code(), Code::ResourceExhausted);
            reply.header("ratelimit-policy").unwrap().to_owned()
        }
    };
    // Envoy counts the file as accepted before it tells the workers.
    predictgate_e2e::wait::until("the new limit", || async {
        Ok((refused(100).await == "\"per-tenant\";q=1;w=1000").then_some(()))
    })
    .await
    .unwrap();
    next["models"][0]["rate_limits"][0]["token_bucket"]["max_tokens"] = json!(20);
    next["models"][0]["rate_limits"][0]["name"] = json!("another");
    stage.envoy.configure(&next.to_string()).await.unwrap();
    predictgate_e2e::wait::until("the limit of examples", || async {
        Ok((refused(100).await == "\"examples\";q=256;w=256000").then_some(()))
    })
    .await
    .unwrap();
    let last = predict_request(MODEL, Asked::Latest, &[1.0; 56]);
    assert_eq!(client.predict(&last).await.unwrap().code(), Code::Ok);
}
