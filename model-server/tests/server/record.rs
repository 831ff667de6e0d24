//! What the server tells of the requests that it got.

use bytes::Bytes;
use model_server::client::raw::{Raw, Step};
use model_server::client::{Asked, Client, predict_content_request, predict_request, rest};
use model_server::{Code, Outcome, Protocol, Rpc, Server, ServerConfig, framing, hex, start};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::{LONG, pair, server};

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

#[tokio::test]
async fn a_request_is_remembered_as_it_came() {
    let (server, client) = pair().await;
    let request = predict_request("resnet", Asked::Label("canary"), &[1.0]);
    let client = client
        .with_metadata("x-user-id", "7")
        .with_metadata("x-odd", b"\xff\xfe")
        .with_metadata("x-user-id", "8")
        .with_authority("models.example");
    client.predict(&request).await.unwrap().ok().unwrap();
    let received = server.received();
    let [it] = received.as_slice() else { panic!("{received:?}") };
    assert_eq!(
        (it.protocol, it.http_method.as_str(), it.path.as_str()),
        (Protocol::Grpc, "POST", Rpc::Predict.path())
    );
    assert_eq!(it.header(":authority"), Some(&b"models.example"[..]));
    assert_eq!(it.header("x-odd"), Some(&b"\xff\xfe"[..]));
    let users: Vec<_> =
        it.headers.iter().filter(|(name, _)| name == "x-user-id").map(|(_, it)| it.as_slice()).collect();
    assert_eq!(users, [b"7", b"8"]);
    let message = request.encode_to_vec();
    assert_eq!((it.message_bytes, it.body_bytes), (message.len() as u64, message.len() as u64 + 5));
    assert_eq!(it.sha256_hex().unwrap(), sha256(&message));
    assert_eq!((it.rpc, it.model.as_deref(), it.version), (Some(Rpc::Predict), Some("resnet"), Some(2)));
    assert_eq!((it.executed, it.outcome), (true, Outcome::Completed(0)));
}

#[tokio::test]
async fn forty_megabytes_arrive_unchanged_and_are_answered() {
    let (server, client) = pair().await;
    let x: Vec<f32> = (0..10_000_000_u32).map(|it| f32::from((it % 1009) as u16)).collect();
    let request = predict_content_request("resnet", Asked::Version(1), &x);
    let message = request.encode_to_vec();
    assert!(40_000_000 < message.len());
    let response = client.predict(&request).await.unwrap().ok().unwrap();
    assert_eq!(response.values().len(), x.len());
    assert!(response.values().iter().zip(&x).all(|(y, x)| (y - (0.5 * x + 2.0)).abs() < f32::EPSILON));
    let it = &server.received()[0];
    assert_eq!((it.message_bytes, it.sha256_hex().unwrap()), (message.len() as u64, sha256(&message)));
}

#[tokio::test]
async fn only_what_arrived_whole_is_executed() {
    let server = server().await;
    let raw = Raw::connect(server.grpc_addr()).await.unwrap();
    let body = framing::frame(&predict_request("resnet", Asked::Version(1), &[1.0]).encode_to_vec());
    // Everything but the last byte, and everything but the end of the stream.
    for end in [body.len() - 1, body.len()] {
        let steps = vec![Step::Data(body.slice(..end)), Step::Reset(h2::Reason::CANCEL)];
        let answer = raw.request(Rpc::Predict.path(), &[], steps).await.unwrap();
        assert_eq!(answer.reset, Some(h2::Reason::CANCEL), "{answer:?}");
    }
    let cancelled = |server: &Server| {
        let received = server.received();
        received.len() == 2 && received.iter().all(|it| it.outcome == Outcome::Cancelled)
    };
    server.until(LONG, cancelled).await.unwrap();
    let counts = server.counts();
    assert_eq!((counts.begun.of(Rpc::Predict), counts.arrived.total(), counts.total()), (2, 0, 0));
    let received = server.received();
    assert_eq!(received[0].body_bytes, body.len() as u64 - 1);
    assert!(received.iter().all(|it| !it.executed && it.model.is_none()));
}

#[tokio::test]
async fn a_client_that_goes_away_mid_body_leaves_nothing_executed() {
    let server = server().await;
    let raw = Raw::connect(server.grpc_addr()).await.unwrap();
    let mut stream = raw.open(raw.post(Rpc::Predict.path(), &[]).unwrap(), false).await.unwrap();
    stream.send(&b"\x00\x00\x00\x01\x00"[..]).await.unwrap();
    server.until(LONG, |server| server.received().iter().any(|it| it.body_bytes == 5)).await.unwrap();
    drop((stream, raw));
    server.until(LONG, |server| server.received()[0].outcome == Outcome::Cancelled).await.unwrap();
    assert_eq!(server.counts().total(), 0);
}

#[tokio::test]
async fn counts_are_by_model_version_and_method() {
    let (server, client) = pair().await;
    for (asked, times) in [(Asked::Version(1), 3), (Asked::Label("canary"), 2), (Asked::Latest, 1)] {
        for _ in 0..times {
            client.predict(&predict_request("resnet", asked, &[1.0])).await.unwrap().ok().unwrap();
        }
    }
    let regress = model_server::client::regress_request("resnet", Asked::Version(1), &[1.0]);
    client.regress(&regress).await.unwrap().ok().unwrap();
    rest::post(server.rest_addr(), "/v1/models/bert:predict", r#"{"inputs": [1.0]}"#).await.unwrap();
    rest::get(server.rest_addr(), "/v1/models/bert").await.unwrap();
    rest::get(server.rest_addr(), "/v1/models/bert/metadata").await.unwrap();

    let counts = server.counts();
    assert_eq!((counts.executed("resnet", 1), counts.executed("resnet", 2)), (4, 3));
    assert_eq!(counts.executed_by("resnet", 1, Rpc::Predict), 3);
    assert_eq!(counts.executed_by("resnet", 1, Rpc::Regress), 1);
    // Questions about a model run nothing.
    assert_eq!((counts.executed("bert", 7), counts.total()), (1, 8));
    let bert = &counts.versions[&("bert".to_owned(), 7)].by_rpc;
    assert_eq!(bert.by(Protocol::Rest, Rpc::Predict), 1);
    assert_eq!(bert.by(Protocol::Grpc, Rpc::Predict), 0);
    assert_eq!(counts.begun.by(Protocol::Rest, Rpc::GetModelStatus), 1);
    assert_eq!((counts.begun.total(), counts.arrived.total(), counts.unknown), (10, 10, 0));

    server.reset();
    assert_eq!((server.counts().total(), server.counts().begun.total(), server.received().len()), (0, 0, 0));
}

#[tokio::test]
async fn the_oldest_are_forgotten_first_and_none_are_remembered_on_request() {
    for (remembered, expected) in [(2, vec!["3", "4"]), (0, vec![])] {
        let models = ServerConfig::half_plus(&[("m", &[1], &[])]).remembered(remembered);
        let server = start(models).await.unwrap();
        let client = Client::connect(server.grpc_addr()).await.unwrap();
        for user in 1..=4 {
            let client = client.clone().with_metadata("x-user-id", user.to_string());
            let reply = client.predict(&predict_request("m", Asked::Latest, &[1.0])).await.unwrap();
            assert_eq!(reply.code(), Code::Ok);
        }
        let received = server.received();
        let users: Vec<_> = received.iter().map(|it| it.header("x-user-id").unwrap()).collect();
        assert_eq!(users, expected.iter().map(|it| it.as_bytes()).collect::<Vec<_>>());
        assert_eq!(server.counts().executed("m", 1), 4);
    }
}

#[tokio::test]
async fn a_rest_request_is_remembered_too() {
    let server = server().await;
    let body = Bytes::from_static(br#"{"instances": [1.0]}"#);
    rest::post(server.rest_addr(), "/V1/models/resnet/labels/stable:predict", body.clone()).await.unwrap();
    let it = &server.received()[0];
    assert_eq!((it.protocol, it.path.as_str()), (Protocol::Rest, "/V1/models/resnet/labels/stable:predict"));
    assert_eq!((it.model.as_deref(), it.version), (Some("resnet"), Some(1)));
    assert_eq!((it.message_bytes, it.sha256_hex().unwrap()), (body.len() as u64, sha256(&body)));
    assert_eq!((it.executed, it.outcome), (true, Outcome::Completed(200)));
}
