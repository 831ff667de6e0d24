//! The REST API, and `/control/` beside it.

use bytes::Bytes;
use http::Method;
use model_server::client::rest::{RestReply, get, post, request};
use model_server::{Server, framing};
use serde_json::json;

use crate::server;

async fn check(server: &Server, target: &str, body: &str, status: u16, expected: Result<&[f32], &str>) {
    let reply = post(server.rest_addr(), target, body.to_owned()).await.unwrap();
    assert_eq!(reply.status, status, "{target} {body}: {reply:?}");
    match expected {
        Ok(values) => assert_eq!(reply.values(), values, "{target} {body}"),
        Err(error) => assert_eq!(reply.error().as_deref(), Some(error), "{target} {body}"),
    }
    assert_eq!(reply.headers["content-type"], "application/json");
}

const ROWS: &str = r#"{"instances": [1.0, 2.0]}"#;

#[tokio::test]
async fn paths_choose_the_version_that_answers() {
    let server = server().await;
    let table: [(&str, &[f32]); 7] = [
        ("/v1/models/resnet:predict", &[3.5, 4.0]),
        ("/v1/models/resnet/versions/1:predict", &[2.5, 3.0]),
        ("/v1/models/resnet/labels/canary:predict", &[3.5, 4.0]),
        ("/v1/models/resnet/labels/st%61ble:predict", &[2.5, 3.0]),
        ("/V1/Models/res%6eet:predict", &[3.5, 4.0]),
        ("/V1/MODELS/resnet/Versions/01:predict", &[2.5, 3.0]),
        ("/v1/models/bert:predict", &[8.5, 9.0]),
    ];
    for (target, expected) in table {
        check(&server, target, ROWS, 200, Ok(expected)).await;
    }
}

#[tokio::test]
async fn paths_that_lead_nowhere_are_refused_as_the_server_does() {
    let server = server().await;
    let table = [
        ("/v1/models/a%2Fb:predict", 404, "Servable not found for request: Latest(a/b)"),
        ("/v1/models/nope:predict", 404, "Servable not found for request: Latest(nope)"),
        ("/v1/models/resnet/versions/9:predict", 404, "Servable not found for request: Specific(resnet, 9)"),
        ("/v1/models/resnet/labels/x:predict", 400, "Unrecognized servable version label: x"),
        ("/v1/models/resnet:Predict", 400, "Malformed request: POST /v1/models/resnet:Predict"),
        ("/v1/models/resnet:predict?a=b", 400, "Malformed request: POST /v1/models/resnet:predict?a=b"),
        ("/v1/anything", 400, "Malformed request: POST /v1/anything"),
    ];
    for (target, status, error) in table {
        check(&server, target, ROWS, status, Err(error)).await;
    }
    let empty = |reply: RestReply| (reply.status, reply.body.len());
    let target = "/v1/models/resnet/versions/99999999999999999999:predict";
    assert_eq!(empty(post(server.rest_addr(), target, ROWS).await.unwrap()), (400, 0));
    assert_eq!(empty(post(server.rest_addr(), "/elsewhere", ROWS).await.unwrap()), (404, 0));
    assert_eq!(server.counts().total(), 0);
}

#[tokio::test]
async fn a_predict_is_written_by_row_or_by_column() {
    let server = server().await;
    let target = "/v1/models/resnet/versions/1:predict";
    let answers = [
        (r#"{"instances": [1.0, 2]}"#, json!({"predictions": [2.5, 3.0]})),
        (r#"{"instances": [[1.0, 2], [3, 4]]}"#, json!({"predictions": [[2.5, 3.0], [3.5, 4.0]]})),
        (r#"{"instances": [{"x": 1}, {"x": 2}]}"#, json!({"predictions": [2.5, 3.0]})),
        (r#"{"inputs": [1.0, 2]}"#, json!({"outputs": [2.5, 3.0]})),
        (r#"{"inputs": {"x": [[1.0], [2]]}}"#, json!({"outputs": [[2.5], [3.0]]})),
        (r#"{"inputs": 8}"#, json!({"outputs": 6.0})),
        (r#"{"signature_name": "serving_default", "instances": [1]}"#, json!({"predictions": [2.5]})),
    ];
    for (body, expected) in answers {
        let reply = post(server.rest_addr(), target, body).await.unwrap();
        assert_eq!((reply.status, reply.json()), (200, expected), "{body}");
    }
}

#[tokio::test]
async fn bodies_that_cannot_be_read_are_refused_as_the_server_does() {
    let server = server().await;
    let table = [
        ("", "JSON Parse error: The document is empty"),
        ("{\n \"instances\": x}", "JSON Parse error: Invalid value. at offset: 16"),
        ("[1]", "JSON Value: [1] Is not object"),
        (r#"{"instances": []}"#, r#"JSON Value: {"instances":[]} No values in 'instances' array"#),
        (
            r#"{"instances": [1], "inputs": [1]}"#,
            r#"JSON Value: {"inputs":[1],"instances":[1]} Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "#,
        ),
        (
            r#"{"signature_name": "s", "instances": [1]}"#,
            r#"Serving signature name: "s" not found in signature def"#,
        ),
        (r#"{"inputs": {"z": [1]}}"#, "Missing named input: x in 'inputs' object."),
        (r#"{"inputs": ["a"]}"#, r#"JSON Value: "a" Type: String is not of expected type: float"#),
        (
            r#"{"inputs": [[1], [1, 2]]}"#,
            "Encountered list at unexpected size: 2 at level: 1 expected size: 1",
        ),
    ];
    for (body, error) in table {
        check(&server, "/v1/models/resnet:predict", body, 400, Err(error)).await;
    }
    assert_eq!(server.counts().total(), 0);
}

#[tokio::test]
async fn classify_and_regress_answer_results() {
    let server = server().await;
    let body = |signature: &str| {
        json!({"signature_name": signature, "context": {"x": 4.0}, "examples": [{"x": 1.0}, {}]}).to_string()
    };
    let target = "/v1/models/resnet/versions/1";
    let reply = post(server.rest_addr(), &format!("{target}:regress"), body("regress_x_to_y")).await.unwrap();
    assert_eq!(reply.json(), json!({"results": [2.5, 4.0]}));
    let reply =
        post(server.rest_addr(), &format!("{target}:classify"), body("classify_x_to_y")).await.unwrap();
    assert_eq!(reply.json(), json!({"results": [[["y", 2.5]], [["y", 4.0]]]}));
}

#[tokio::test]
async fn a_body_may_be_compressed() {
    let server = server().await;
    let headers: &[(&str, &[u8])] = &[("content-encoding", b"gzip")];
    let body = Bytes::from(framing::gzip(ROWS.as_bytes()));
    let target = "/v1/models/resnet/versions/1:predict";
    let reply = request(server.rest_addr(), Method::POST, target, headers, body).await.unwrap();
    assert_eq!(reply.values(), [2.5, 3.0]);
}

#[tokio::test]
async fn status_and_metadata_are_protobufs_json() {
    let server = server().await;
    server.unload("resnet", 1);
    let reply = get(server.rest_addr(), "/v1/models/resnet").await.unwrap();
    let version = |version: &str, state: &str| json!({"version": version, "state": state, "status": {"error_code": "OK", "error_message": ""}});
    let expected = json!({"model_version_status": [version("2", "AVAILABLE"), version("1", "END")]});
    assert_eq!((reply.status, reply.json()), (200, expected));

    let reply = get(server.rest_addr(), "/v1/models/resnet/labels/stable/metadata").await.unwrap();
    assert_eq!(reply.status, 404);
    let reply = get(server.rest_addr(), "/v1/models/resnet/metadata").await.unwrap();
    assert_eq!(reply.json()["model_spec"]["version"], "2");
    let x = &reply.json()["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["x"];
    let shape = json!({"dim": [], "unknown_rank": true});
    assert_eq!(*x, json!({"name": "x:0", "dtype": "DT_FLOAT", "tensor_shape": shape}));

    let table = [
        ("/v1/models/nope", 404, "Could not find any versions of model nope"),
        ("/v1/models/resnet/versions/7", 404, "Could not find version 7 of model resnet"),
        ("/v1/models", 400, "Missing model name in request."),
        ("/v1/models/resnet:predict", 400, "Malformed request: GET /v1/models/resnet:predict"),
    ];
    for (target, status, error) in table {
        let reply = get(server.rest_addr(), target).await.unwrap();
        assert_eq!((reply.status, reply.error().as_deref()), (status, Some(error)), "{target}");
    }
}

#[tokio::test]
async fn control_tells_what_happened_and_sets_faults() {
    let server = server().await;
    let address = server.rest_addr();
    let target = "/v1/models/resnet/versions/1:predict";
    let set = |fault| json!({"model": "resnet", "version": 1, "fault": fault}).to_string();

    let reply = post(address, "/control/faults", set(Some("fail,code=RESOURCE_EXHAUSTED"))).await.unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(post(address, target, ROWS).await.unwrap().status, 429);
    assert_eq!(post(address, "/control/faults", set(None)).await.unwrap().status, 200);
    assert_eq!(post(address, target, ROWS).await.unwrap().status, 200);

    let counts = get(address, "/control/counts").await.unwrap().json();
    assert_eq!(counts["total"], 1);
    let expected = json!({"executed": 1, "by_rpc": {"REST Predict": 1}, "faults": 1});
    assert_eq!(counts["models"]["resnet"]["1"], expected);
    let received = get(address, "/control/received").await.unwrap().json();
    let seen: Vec<_> =
        received.as_array().unwrap().iter().map(|it| (&it["executed"], &it["outcome"])).collect();
    assert_eq!(seen, [(&json!(false), &json!("Completed(429)")), (&json!(true), &json!("Completed(200)"))]);

    let unload = json!({"model": "resnet", "version": 1, "loaded": false}).to_string();
    assert_eq!(post(address, "/control/versions", unload).await.unwrap().status, 200);
    assert_eq!(post(address, target, ROWS).await.unwrap().status, 404);

    let reply = post(address, "/control/faults", set(Some("explode"))).await.unwrap();
    assert_eq!(reply.status, 400);
    assert!(reply.error().unwrap().starts_with("found \"explode\", wanted"), "{reply:?}");
    assert_eq!(get(address, "/control/nothing").await.unwrap().status, 404);
    assert_eq!(post(address, "/control/reset", "").await.unwrap().status, 200);
    assert_eq!(get(address, "/control/counts").await.unwrap().json()["total"], 0);
}
