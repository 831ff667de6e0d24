//! The official client of TensorFlow Serving, Envoy with the filter as shipped, and real TensorFlow.
//!
//! One server has version 1 (y = 0.5x + 2), the other has version 2 (y = 0.5x + 3): the numbers of an answer
//! tell who computed it, and each server counts what it executes.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use bytes::Bytes;
use http::Method;
use libtest_mimic::{Arguments, Trial};
use model_server::client::rest::{self, RestReply};
use predictgate_e2e::tensorflow::{Answer, Client, Digest, ErrorInfo, Server, TensorFlow};
use predictgate_e2e::wait::until;
use predictgate_e2e::{Envoy, Scenario};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// What the tests share, one at a time: TensorFlow takes long to start, and counts must not mix.
struct Stage {
    servers: TensorFlow,
    /// Where Envoy listens.
    addr: SocketAddr,
    client: Client,
    /// A client of the server of version 1 that passes no Envoy.
    direct: Client,
    envoy: Envoy,
    runtime: Runtime,
}

static STAGE: Mutex<Option<Stage>> = Mutex::new(None);

/// The usual harness has no place for the end of what the tests share.
fn main() -> Result<ExitCode> {
    macro_rules! trials {
        ($($test:ident),* $(,)?) => {
            vec![$(Trial::test(stringify!($test), || {
                let mut stage = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
                $test(stage.as_mut().unwrap());
                Ok(())
            })),*]
        };
    }
    let trials = trials![
        predict_is_answered_by_the_version_that_it_asks_for,
        predict_that_asks_for_no_version_is_answered_by_the_stable_pool,
        a_hundred_calls_are_executed_once_each_where_they_belong,
        classify_and_regress_go_where_predict_goes,
        status_and_metadata_are_those_of_the_version_that_is_asked_for,
        a_tensor_of_4_mib_arrives_and_comes_back_unchanged,
        what_the_server_refuses_reaches_the_client_unchanged,
        a_version_that_is_not_loaded_is_ejected_and_rolled_back_where_the_configuration_chose_it,
        a_version_that_is_not_loaded_ejects_nobody_where_the_client_asked_for_it,
        a_model_that_is_not_configured_reaches_no_server,
        a_request_without_a_model_reaches_no_server,
        a_gzip_message_is_read_and_arrives_unchanged,
        a_rewritten_call_is_what_the_configuration_says,
        a_tensor_of_4_mib_survives_the_rewriting,
        a_gzip_message_that_would_be_rewritten_reaches_no_server,
        an_exceeded_limit_tells_the_client_when_to_come_again,
        a_cost_above_the_burst_tells_the_client_never_to_come_again,
        rest_reads_an_exceeded_limit_as_json,
        an_administrative_call_reaches_no_server,
        a_client_cannot_name_the_cluster_itself,
        a_client_that_asks_is_told_the_decision,
        rest_predict_is_answered_by_the_version_in_the_path,
        rest_status_is_that_of_the_version_in_the_path,
        rest_errors_are_json_whoever_refuses,
    ];
    let arguments = Arguments::from_args();
    let set_stage = |stage| *STAGE.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    if !arguments.list {
        set_stage(Some(Stage::set_up()?));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    set_stage(None);
    Ok(conclusion.exit_code())
}

impl Stage {
    fn set_up() -> Result<Self> {
        let servers = TensorFlow::start()?;
        let runtime = Runtime::new()?;
        let envoy = runtime.block_on(start_envoy(&servers))?;
        let client = Client::start(envoy.addr)?;
        let direct = Client::start(servers.v1.grpc)?;
        Ok(Self { servers, addr: envoy.addr, client, direct, envoy, runtime })
    }

    /// Makes a call through Envoy, and says how many the servers of version 1 and of version 2 executed.
    #[track_caller]
    fn call(&mut self, request: &Value) -> (Answer, [u64; 2]) {
        let before = self.executed();
        let answer = self.client.call(request).unwrap();
        let after = self.executed();
        (answer, [after[0] - before[0], after[1] - before[1]])
    }

    /// The same for a REST call.
    #[track_caller]
    fn rest(&self, method: Method, path: &str, body: &str) -> (u16, Value, [u64; 2]) {
        let before = self.executed();
        let answer = rest::request(self.addr, method, path, &[], Bytes::copy_from_slice(body.as_bytes()));
        let RestReply { status, body, .. } = self.runtime.block_on(answer).unwrap();
        let after = self.executed();
        let text = String::from_utf8_lossy(&body);
        let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        (status, body, [after[0] - before[0], after[1] - before[1]])
    }

    /// What the metrics of the filter say of a model, all labels together, once so many of its requests are counted.
    fn metrics<const N: usize>(&self, model: &str, requests: u64, names: [&str; N]) -> [u64; N] {
        let read = until(format!("{requests} requests of {model} to be counted"), || async {
            let samples = self.envoy.admin.prometheus().await?;
            let sum = |name: &str| -> u64 {
                let of_model = samples.iter().filter(|it| it.is(name, &[("model", model)]));
                of_model.map(|it| it.value as u64).sum()
            };
            Ok((sum("predictgate_requests") == requests).then(|| names.map(sum)))
        });
        self.runtime.block_on(read).unwrap()
    }

    fn executed(&self) -> [u64; 2] {
        [&self.servers.v1, &self.servers.v2].map(|server| self.runtime.block_on(server.executed()).unwrap())
    }

    /// The tensor that a server received last.
    fn last_received(&self, server: &Server) -> Digest {
        self.runtime.block_on(server.digests()).unwrap().pop().unwrap()
    }
}

/// The quickstart, and models that no server has: `nightly` is rewritten to what `resnet` calls `canary`, the limited
/// ones are `resnet` under limits that hardly fill while the tests run, and the health of the two that are watched is
/// judged. Half of the calls of `promised` are for a version that nobody has loaded.
async fn start_envoy(servers: &TensorFlow) -> Result<Envoy> {
    let scenario = Scenario::shipped("quickstart")?.reconfigured(|configuration| {
        let rewrite = json!({ "model": "resnet", "label": "canary" });
        let canary = json!({ "cluster": "tfs-v2", "headers": { "x-model-pool": "v2" }, "rewrite": rewrite });
        let routes = json!([{ "split": [{ "target": "canary" }] }]);
        let nightly = json!({ "name": "nightly", "targets": { "canary": canary }, "routes": routes });
        let limited = |name, cost| {
            let stable = json!({ "cluster": "tfs-v1", "rewrite": { "model": "resnet" } });
            let bucket = json!({ "max_tokens": 4, "tokens_per_fill": 1, "fill_interval": "1000s" });
            let limit = json!({ "name": "small", "cost": cost, "token_bucket": bucket });
            let routes = json!([{ "split": [{ "target": "stable" }] }]);
            json!({ "name": name, "targets": { "stable": stable }, "routes": routes, "rate_limits": [limit] })
        };
        let watched = |name, canary| {
            let stable = json!({ "cluster": "tfs-v1", "rewrite": { "model": "resnet" } });
            let canary = json!({ "cluster": "tfs-v2", "rewrite": canary });
            let half = |target| json!({ "target": target, "weight": 1 });
            let guard = json!({ "target": "canary", "baseline": "stable" });
            let route = json!({ "split": [half("stable"), half("canary")], "guard": guard });
            let targets = json!({ "stable": stable, "canary": canary });
            let detection = json!({ "consecutive_failures": 3 });
            json!({ "name": name, "targets": targets, "routes": [route], "outlier_detection": detection })
        };
        let models = configuration["models"].as_array_mut().unwrap();
        models.extend([
            nightly,
            limited("metered", "batch"),
            limited("counted", "request"),
            watched("promised", json!({ "model": "resnet", "version": "9" })),
            watched("asked", json!({ "model": "resnet" })),
        ]);
    })?;
    let scenario = scenario.host("tfs-v1", servers.v1.grpc, servers.v1.rest);
    let envoy = scenario.host("tfs-v2", servers.v2.grpc, servers.v2.rest).start().await?;
    for cluster in ["tfs-v1", "tfs-v2", "tfs-v1-rest", "tfs-v2-rest"] {
        envoy.wait_for_healthy(cluster).await?;
    }
    Ok(envoy)
}

const BY_V1: [u64; 2] = [1, 0];
const BY_V2: [u64; 2] = [0, 1];
const BY_NONE: [u64; 2] = [0, 0];

#[track_caller]
fn check_predict(stage: &mut Stage, asked: Value, version: &str, executed: [u64; 2], values: [f64; 3]) {
    let mut request = json!({ "model": "resnet", "values": [1, 2, 5] });
    request.as_object_mut().unwrap().extend(asked.as_object().unwrap().clone());
    let (answer, by) = stage.call(&request);
    assert_eq!((answer.code.as_str(), answer.details.as_str()), ("OK", ""), "{request}");
    assert_eq!(answer.values, values, "{request}");
    assert_eq!((answer.model.as_str(), answer.version.as_str()), ("resnet", version), "{request}");
    assert_eq!(by, executed, "{request}");
}

fn predict_is_answered_by_the_version_that_it_asks_for(stage: &mut Stage) {
    check_predict(stage, json!({ "version": 1 }), "1", BY_V1, [2.5, 3.0, 4.5]);
    check_predict(stage, json!({ "version": 2 }), "2", BY_V2, [3.5, 4.0, 5.5]);
    check_predict(stage, json!({ "label": "stable" }), "1", BY_V1, [2.5, 3.0, 4.5]);
    check_predict(stage, json!({ "label": "canary" }), "2", BY_V2, [3.5, 4.0, 5.5]);
}

fn predict_that_asks_for_no_version_is_answered_by_the_stable_pool(stage: &mut Stage) {
    check_predict(stage, json!({}), "1", BY_V1, [2.5, 3.0, 4.5]);
    check_predict(stage, json!({ "signature": "serving_default" }), "1", BY_V1, [2.5, 3.0, 4.5]);
}

fn a_hundred_calls_are_executed_once_each_where_they_belong(stage: &mut Stage) {
    let before = stage.executed();
    for call in 0..100 {
        let version = if call % 4 == 0 { 2 } else { 1 };
        let answer = stage.client.call(&json!({ "model": "resnet", "version": version, "values": [call] }));
        let expected = 0.5 * f64::from(call) + if version == 2 { 3.0 } else { 2.0 };
        assert_eq!(answer.unwrap().values, [expected]);
    }
    let after = stage.executed();
    assert_eq!([after[0] - before[0], after[1] - before[1]], [75, 25]);
}

fn classify_and_regress_go_where_predict_goes(stage: &mut Stage) {
    let regress = json!({ "method": "Regress", "signature": "regress_x_to_y" });
    check_predict(stage, regress, "1", BY_V1, [2.5, 3.0, 4.5]);
    let classify = json!({ "method": "Classify", "signature": "classify_x_to_y", "label": "canary" });
    check_predict(stage, classify, "2", BY_V2, [3.5, 4.0, 5.5]);
}

fn status_and_metadata_are_those_of_the_version_that_is_asked_for(stage: &mut Stage) {
    for (asked, version) in [(1, "1"), (2, "2")] {
        let call = json!({ "method": "GetModelStatus", "model": "resnet", "version": asked });
        assert_eq!(stage.call(&call).0.versions, [version]);
        let call = json!({ "method": "GetModelMetadata", "model": "resnet", "version": asked });
        assert_eq!(stage.call(&call).0.version, version);
    }
}

fn a_tensor_of_4_mib_arrives_and_comes_back_unchanged(stage: &mut Stage) {
    const COUNT: u32 = 1 << 20;
    let (answer, by) = stage.call(&json!({ "model": "resnet", "version": 2, "count": COUNT }));
    assert_eq!((answer.code.as_str(), answer.details.as_str(), by), ("OK", "", BY_V2));

    let received = stage.last_received(&stage.servers.v2);
    assert_eq!((received.version.as_str(), received.bytes), ("2", 4 << 20));
    assert_eq!(received.sha256, answer.sent_sha256);

    let count = f64::from(COUNT);
    assert_eq!(answer.count, u64::from(COUNT));
    assert_eq!([answer.first, answer.last], [3.0, 0.5 * (count - 1.0) + 3.0]);
    // Every number is a multiple of one half below 2^20, so no rounding is in the sum.
    assert!((answer.sum - (0.5 * count * (count - 1.0) / 2.0 + 3.0 * count)).abs() < 0.25);
}

/// What the server refuses reaches the client as if there were no Envoy.
#[track_caller]
fn check_refused_by_server(stage: &mut Stage, request: Value, code: &str, details: &str) {
    let (answer, by) = stage.call(&request);
    let direct = stage.direct.call(&request).unwrap();
    assert_eq!((direct.code.as_str(), direct.details.as_str()), (code, details), "direct, {request}");
    assert_eq!((answer.code.as_str(), answer.details.as_str()), (code, details), "{request}");
    assert_eq!((answer.error_info, by), (None, BY_NONE), "{request}");
}

fn what_the_server_refuses_reaches_the_client_unchanged(stage: &mut Stage) {
    check_refused_by_server(
        stage,
        json!({ "model": "resnet", "version": 3, "values": [1] }),
        "NOT_FOUND",
        "Servable not found for request: Specific(resnet, 3)",
    );
    check_refused_by_server(
        stage,
        json!({ "model": "resnet", "label": "nightly", "values": [1] }),
        "INVALID_ARGUMENT",
        "Unrecognized servable version label: nightly",
    );
    check_refused_by_server(
        stage,
        json!({ "model": "resnet", "signature": "softmax", "values": [1] }),
        "FAILED_PRECONDITION",
        "Serving signature key \"softmax\" not found.",
    );
    check_refused_by_server(
        stage,
        json!({ "method": "GetModelStatus", "model": "resnet", "version": 3 }),
        "NOT_FOUND",
        "Could not find version 3 of model resnet",
    );
}

const NOT_LOADED: (&str, &str) = ("NOT_FOUND", "Servable not found for request: Specific(resnet, 9)");

fn a_version_that_is_not_loaded_is_ejected_and_rolled_back_where_the_configuration_chose_it(
    stage: &mut Stage,
) {
    let call = json!({ "model": "promised", "values": [1] });
    let mut refused = 0;
    // By chance 3 of 64 calls do not go to one of two targets once in 10^16 runs.
    for _ in 0..64 {
        let (answer, _) = stage.call(&call);
        if answer.code != "OK" {
            assert_eq!((answer.code.as_str(), answer.details.as_str()), NOT_LOADED);
            refused += 1;
        }
    }
    assert_eq!(refused, 3, "the row, and none after it");
    let log = stage.envoy.log();
    assert!(log.contains("ejected: model=promised target=canary cause=consecutive_failures"), "{log}");
    assert!(log.contains("rolled back: model=promised route=0 target=canary cause=ejection"), "{log}");
    assert_eq!(stage.call(&call).1, BY_V1);
}

fn a_version_that_is_not_loaded_ejects_nobody_where_the_client_asked_for_it(stage: &mut Stage) {
    for _ in 0..32 {
        let (answer, _) = stage.call(&json!({ "model": "asked", "version": 9, "values": [1] }));
        assert_eq!((answer.code.as_str(), answer.details.as_str()), NOT_LOADED);
    }
    let names = ["predictgate_ejections", "predictgate_rollbacks"];
    assert_eq!(stage.metrics("asked", 32, names), [0, 0]);
}

#[track_caller]
fn check_refused_by_filter(stage: &mut Stage, request: Value, code: &str, reason: &str) {
    let (answer, by) = stage.call(&request);
    assert_eq!(answer.code, code, "{request}: {}", answer.details);
    assert_eq!(
        answer.error_info,
        Some(ErrorInfo { reason: reason.to_owned(), domain: "predictgate".to_owned() }),
        "{request}"
    );
    assert_eq!(answer.trailers.get("x-predictgate-reason").map(String::as_str), Some(reason), "{request}");
    assert_ne!(answer.details, "", "{request}");
    assert_eq!(by, BY_NONE, "{request}");
}

fn a_model_that_is_not_configured_reaches_no_server(stage: &mut Stage) {
    let request = json!({ "model": "bert", "values": [1] });
    check_refused_by_filter(stage, request, "NOT_FOUND", "model_not_configured");
}

fn a_request_without_a_model_reaches_no_server(stage: &mut Stage) {
    check_refused_by_filter(stage, json!({ "values": [1] }), "INVALID_ARGUMENT", "identity_not_found");
    check_refused_by_filter(stage, json!({ "version": 2 }), "INVALID_ARGUMENT", "identity_not_found");
}

fn a_gzip_message_is_read_and_arrives_unchanged(stage: &mut Stage) {
    // gRPC sends what compression would make longer as it is; numbers in a row become shorter.
    for (version, count, executed) in [("1", 1000, BY_V1), ("2", 1 << 20, BY_V2)] {
        let request = json!({ "model": "resnet", "version": version, "count": count, "gzip": true });
        let (answer, by) = stage.call(&request);
        assert_eq!((answer.code.as_str(), answer.details.as_str(), by), ("OK", "", executed), "{request}");
        assert_eq!((answer.version.as_str(), answer.count), (version, count), "{request}");
        let server = if executed == BY_V1 { &stage.servers.v1 } else { &stage.servers.v2 };
        assert_eq!(stage.last_received(server).sha256, answer.sent_sha256, "{request}");
    }
}

fn a_rewritten_call_is_what_the_configuration_says(stage: &mut Stage) {
    let values = [3.5, 4.0, 5.5];
    check_predict(stage, json!({ "model": "nightly" }), "2", BY_V2, values);
    check_predict(stage, json!({ "model": "nightly", "version": 1 }), "2", BY_V2, values);
    check_predict(stage, json!({ "model": "nightly", "label": "x" }), "2", BY_V2, values);

    for path in ["/v1/models/nightly:predict", "/v1/models/nightly/versions/1:predict"] {
        let (status, body, by) = stage.rest(Method::POST, path, r#"{"instances": [1.0, 2.0, 5.0]}"#);
        assert_eq!((status, body, by), (200, json!({ "predictions": values }), BY_V2), "{path}");
    }
}

fn a_tensor_of_4_mib_survives_the_rewriting(stage: &mut Stage) {
    let (answer, by) = stage.call(&json!({ "model": "nightly", "count": 1 << 20 }));
    assert_eq!((answer.code.as_str(), answer.details.as_str(), by), ("OK", "", BY_V2));
    let received = stage.last_received(&stage.servers.v2);
    assert_eq!((received.bytes, received.sha256), (4 << 20, answer.sent_sha256));
}

fn a_gzip_message_that_would_be_rewritten_reaches_no_server(stage: &mut Stage) {
    let request = json!({ "model": "nightly", "count": 1000, "gzip": true });
    check_refused_by_filter(stage, request, "INVALID_ARGUMENT", "rewrite_impossible");
}

/// A value of `retry-after` or the like, of a limit that fills by one token in 1,000 seconds: it is missing so many
/// tokens, and a call cannot take a second.
#[track_caller]
fn assert_filled_in(seconds: f64, tokens: f64) {
    assert!((1000.0 * tokens - 100.0..=1000.0 * tokens).contains(&seconds), "{seconds} for {tokens} tokens");
}

fn an_exceeded_limit_tells_the_client_when_to_come_again(stage: &mut Stage) {
    let asked = json!({ "model": "metered", "values": [1, 2, 5] });
    let (answer, by) = stage.call(&asked);
    assert_eq!((answer.code.as_str(), answer.values, by), ("OK", vec![2.5, 3.0, 4.5], BY_V1));
    let (answer, by) = stage.call(&asked);
    assert_eq!((answer.code.as_str(), by), ("RESOURCE_EXHAUSTED", BY_NONE));
    assert_eq!(answer.details, "limit small has 1 of 4 left and this costs 3");
    let info = ErrorInfo { reason: "rate_limited".to_owned(), domain: "predictgate".to_owned() };
    assert_eq!(answer.error_info, Some(info));
    let delay = answer.retry_info.unwrap().retry_delay;
    let delay: f64 = delay.strip_suffix('s').unwrap().parse().unwrap();
    assert_filled_in(delay, 2.0);
    let trailer = |name: &str| answer.trailers.get(name).map_or("", String::as_str);
    assert_eq!(trailer("x-predictgate-reason"), "rate_limited");
    // Programs that know only whole numbers are told to come later, not earlier.
    let seconds = delay.ceil();
    assert_eq!(trailer("retry-after"), seconds.to_string());
    assert_eq!(trailer("grpc-retry-pushback-ms"), (1000.0 * delay).ceil().to_string());
    assert_eq!(trailer("ratelimit"), format!("\"small\";r=1;t={seconds}"));
    assert_eq!(trailer("ratelimit-policy"), "\"small\";q=4;w=4000");
}

fn a_cost_above_the_burst_tells_the_client_never_to_come_again(stage: &mut Stage) {
    let (answer, by) = stage.call(&json!({ "model": "metered", "values": [1, 2, 3, 4, 5] }));
    assert_eq!((answer.code.as_str(), by), ("RESOURCE_EXHAUSTED", BY_NONE));
    assert_eq!(answer.details, "this costs 5, more than the 4 that limit small ever lets pass at once");
    assert_eq!(
        (answer.error_info.map(|it| it.reason), answer.retry_info),
        (Some("rate_limited".to_owned()), None)
    );
    let trailer = |name: &str| answer.trailers.get(name).map(String::as_str);
    assert_eq!(trailer("grpc-retry-pushback-ms"), Some("-1"));
    assert_eq!(trailer("retry-after"), None);
    assert_eq!(trailer("ratelimit-policy"), Some("\"small\";q=4;w=4000"));
}

fn rest_reads_an_exceeded_limit_as_json(stage: &mut Stage) {
    let path = "/v1/models/counted";
    for _ in 0..4 {
        // Asked of `resnet`, as the target says.
        let (status, _, by) = stage.rest(Method::GET, path, "");
        assert_eq!((status, by), (200, BY_NONE));
    }
    let (status, body, by) = stage.rest(Method::GET, path, "");
    let error = json!({ "error": "limit small has 0 of 4 left and this costs 1" });
    assert_eq!((status, body, by), (429, error, BY_NONE));
}

fn an_administrative_call_reaches_no_server(stage: &mut Stage) {
    let request = json!({ "method": "HandleReloadConfigRequest" });
    // A server that it did reach would answer UNIMPLEMENTED.
    assert_eq!(stage.direct.call(&request).unwrap().code, "UNIMPLEMENTED");
    check_refused_by_filter(stage, request, "PERMISSION_DENIED", "admin_method_refused");
}

fn a_client_cannot_name_the_cluster_itself(stage: &mut Stage) {
    let spoofed =
        json!({ "x-predictgate-cluster": "tfs-v2", "x-predictgate-target": "v2", "x-model-pool": "v2" });
    let version_1 = json!({ "version": 1, "metadata": spoofed });
    check_predict(stage, version_1, "1", BY_V1, [2.5, 3.0, 4.5]);
    check_predict(stage, json!({ "metadata": spoofed }), "1", BY_V1, [2.5, 3.0, 4.5]);
}

fn a_client_that_asks_is_told_the_decision(stage: &mut Stage) {
    let asks = json!({ "x-predictgate-explain": "1" });
    let request = json!({ "model": "resnet", "label": "canary", "values": [1], "metadata": asks });
    let (answer, _) = stage.call(&request);
    let decision = answer.headers.get("x-predictgate-decision").map(String::as_str);
    assert_eq!(decision, Some("model=resnet;asked=label.canary;route=canary;target=v2;reason=split"));

    let (answer, _) = stage.call(&json!({ "model": "resnet", "values": [1] }));
    assert_eq!(answer.headers.get("x-predictgate-decision"), None);
}

fn rest_predict_is_answered_by_the_version_in_the_path(stage: &mut Stage) {
    for (path, offset, executed) in [
        ("/v1/models/resnet/versions/1:predict", 2.0, BY_V1),
        ("/v1/models/resnet/versions/2:predict", 3.0, BY_V2),
        ("/v1/models/resnet/labels/canary:predict", 3.0, BY_V2),
        ("/v1/models/resnet:predict", 2.0, BY_V1),
        ("/V1/Models/res%6eet/Versions/2:predict", 3.0, BY_V2),
    ] {
        let rows = json!({ "instances": [1.0, 2.0, 5.0] }).to_string();
        let (status, body, by) = stage.rest(Method::POST, path, &rows);
        let predictions = [1.0, 2.0, 5.0].map(|x| 0.5 * x + offset);
        assert_eq!((status, body), (200, json!({ "predictions": predictions })), "{path}");
        assert_eq!(by, executed, "{path}");
    }
}

fn rest_status_is_that_of_the_version_in_the_path(stage: &mut Stage) {
    let (status, body, _) = stage.rest(Method::GET, "/v1/models/resnet/versions/2", "");
    assert_eq!(status, 200);
    assert_eq!(body["model_version_status"][0]["version"], "2");
    assert_eq!(body["model_version_status"][0]["state"], "AVAILABLE");
}

fn rest_errors_are_json_whoever_refuses(stage: &mut Stage) {
    let rows = r#"{"instances": [1.0]}"#;
    let (status, body, by) = stage.rest(Method::POST, "/v1/models/resnet/versions/3:predict", rows);
    let error = json!({ "error": "Servable not found for request: Specific(resnet, 3)" });
    assert_eq!((status, body, by), (404, error, BY_NONE));

    let (status, body, by) = stage.rest(Method::POST, "/v1/models/bert:predict", rows);
    assert_eq!((status, by), (404, BY_NONE));
    assert!(body["error"].is_string(), "{body}");
}
