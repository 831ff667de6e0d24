//! Faults as they are on the wire.

use std::time::Duration;

use bytes::Bytes;
use model_server::client::raw::{Raw, Step};
use model_server::client::{Asked, Broken, Client, predict_request, rest};
use model_server::{Code, Fault, Outcome, Place, Rpc, Server, framing};
use prost::Message;
use tokio::time::Instant;

use crate::{LONG, pair, server};

/// After which an impatient caller gives up: the server has its request by then on a busy machine, too.
const SOON: Duration = Duration::from_secs(1);

fn body() -> Bytes {
    framing::frame(&predict_request("resnet", Asked::Version(1), &[1.0]).encode_to_vec())
}

async fn raw(server: &Server) -> model_server::client::raw::Answer {
    let raw = Raw::connect(server.grpc_addr()).await.unwrap();
    let headers: &[(&str, &[u8])] = &[("content-type", b"application/grpc"), ("te", b"trailers")];
    raw.request(Rpc::Predict.path(), headers, vec![Step::LastData(body())]).await.unwrap()
}

#[tokio::test]
async fn a_failure_is_in_the_headers_that_end_the_stream() {
    let server = server().await;
    let fault = Fault::fail(1.0, Code::Unavailable, Place::TrailersOnly).with_message("not now: 100 %");
    server.set_fault("resnet", 1, Some(fault));
    let answer = raw(&server).await;
    assert_eq!(answer.status.unwrap(), 200);
    assert_eq!(answer.headers["grpc-status"], "14");
    assert_eq!(answer.headers["grpc-message"], "not now: 100 %25");
    assert_eq!(answer.headers["content-type"], "application/grpc");
    assert_eq!((answer.trailers, answer.data.len(), answer.reset), (None, 0, None));
    assert_eq!((server.counts().total(), server.counts().faults("resnet", 1)), (0, 1));
}

#[tokio::test]
async fn a_failure_is_in_trailers_after_headers() {
    let server = server().await;
    server.set_fault("resnet", 1, Some(Fault::fail(1.0, Code::Internal, Place::AfterHeaders)));
    let answer = raw(&server).await;
    assert!(!answer.headers.contains_key("grpc-status"));
    let trailers = answer.trailers.unwrap();
    assert_eq!(
        (&trailers["grpc-status"], &trailers["grpc-message"]),
        (&"13".parse().unwrap(), &"injected fault".parse().unwrap())
    );
    assert_eq!(answer.data.len(), 0);
    assert_eq!((server.counts().total(), server.counts().faults("resnet", 1)), (0, 1));
}

#[tokio::test]
async fn a_success_has_its_status_in_trailers() {
    let answer = raw(&server().await).await;
    assert!(!answer.headers.contains_key("grpc-status"));
    assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn a_reset_comes_after_headers_and_a_part_of_the_body() {
    let server = server().await;
    server.set_fault("resnet", 1, Some(Fault::reset()));
    for _ in 0..50 {
        let answer = raw(&server).await;
        assert_eq!(answer.status.unwrap(), 200);
        let body = answer.body();
        // The prefix promises a whole message, of which half came.
        let promised = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
        assert_eq!(body.len(), framing::PREFIX.midpoint(promised));
        assert_eq!(answer.trailers, None);
        assert_eq!(answer.reset, Some(h2::Reason::INTERNAL_ERROR));
    }
    assert_eq!((server.counts().executed("resnet", 1), server.counts().faults("resnet", 1)), (50, 50));
    assert!(server.received().iter().all(|received| received.outcome == Outcome::Reset));
}

#[tokio::test]
async fn a_reset_waits_for_a_part_that_is_larger_than_the_windows() {
    let (server, client) = pair().await;
    server.set_fault("resnet", 1, Some(Fault::reset()));
    let request = predict_request("resnet", Asked::Version(1), &vec![1.0; 10_000_000]);
    let broken = client.predict(&request).await.unwrap_err();
    assert!(matches!(broken, Broken::Reset(h2::Reason::INTERNAL_ERROR)), "{broken}");
}

/// Whether the only request has come and its client has given up.
fn is_cancelled(server: &Server) -> bool {
    server.received().first().is_some_and(|it| it.outcome == Outcome::Cancelled)
}

#[tokio::test]
async fn a_hang_lasts_until_the_client_gives_up() {
    let (server, client) = pair().await;
    server.set_fault("resnet", 1, Some(Fault::hang()));
    let impatient = client.clone().with_deadline(SOON);
    let broken = impatient.predict(&predict_request("resnet", Asked::Version(1), &[1.0])).await.unwrap_err();
    assert!(matches!(broken, Broken::Deadline), "{broken}");
    server.until(LONG, is_cancelled).await.unwrap();
    let received = &server.received()[0];
    assert_eq!((received.executed, received.header("grpc-timeout")), (false, Some(&b"1000000u"[..])));
    // The other version answers on the same connection meanwhile.
    let reply = client.predict(&predict_request("resnet", Asked::Version(2), &[1.0])).await.unwrap();
    assert_eq!(reply.code(), Code::Ok);
}

#[tokio::test]
async fn a_server_that_shuts_down_ends_what_hangs() {
    let (server, client) = pair().await;
    server.set_fault("resnet", 1, Some(Fault::hang()));
    let request = predict_request("resnet", Asked::Version(1), &[1.0]);
    let call = tokio::spawn(async move { client.predict(&request).await });
    server.until(LONG, |server| server.counts().faults("resnet", 1) == 1).await.unwrap();
    server.shutdown().await;
    let broken = call.await.unwrap().unwrap_err();
    assert!(matches!(broken, Broken::Reset(h2::Reason::CANCEL)), "{broken}");
}

#[tokio::test]
async fn a_delay_is_at_least_as_long_as_it_says() {
    let (server, client) = pair().await;
    let delay = Duration::from_millis(30);
    server.set_fault("resnet", 1, Some(Fault::delay(delay).with_delay(delay, Duration::from_millis(5))));
    let before = Instant::now();
    let reply = client.predict(&predict_request("resnet", Asked::Version(1), &[1.0])).await.unwrap();
    assert_eq!(reply.ok().unwrap().values(), [2.5]);
    assert!(delay <= before.elapsed());
    // A delayed request is answered: nothing befell it.
    assert_eq!(server.counts().faults("resnet", 1), 0);
}

#[tokio::test]
async fn a_rate_repeats_with_the_seed() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let (server, client) = pair().await;
        server.set_fault("resnet", 1, Some(Fault::fail(0.5, Code::Unavailable, Place::TrailersOnly)));
        let mut codes = Vec::new();
        for _ in 0..40 {
            let reply = client.predict(&predict_request("resnet", Asked::Version(1), &[1.0])).await.unwrap();
            codes.push(reply.code());
        }
        let failed = codes.iter().filter(|&&code| code == Code::Unavailable).count() as u64;
        assert!(0 < failed && failed < 40);
        let counts = server.counts();
        assert_eq!((counts.faults("resnet", 1), counts.executed("resnet", 1)), (failed, 40 - failed));
        runs.push(codes);
    }
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test]
async fn a_server_that_refuses_has_no_connection_old_or_new_until_it_listens_again() {
    let (server, client) = pair().await;
    let request = predict_request("resnet", Asked::Version(1), &[1.0]);
    assert_eq!(client.predict(&request).await.unwrap().code(), Code::Ok);
    let (grpc, rest) = (server.grpc_addr(), server.rest_addr());

    server.refuse(true).await.unwrap();
    assert!(client.predict(&request).await.is_err());
    for address in [grpc, rest] {
        let refused = tokio::net::TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    server.refuse(true).await.unwrap();

    server.refuse(false).await.unwrap();
    server.refuse(false).await.unwrap();
    assert_eq!((server.grpc_addr(), server.rest_addr()), (grpc, rest));
    let client = Client::connect(grpc).await.unwrap();
    assert_eq!(client.predict(&request).await.unwrap().code(), Code::Ok);
    assert_eq!(rest::get(rest, "/v1/models/resnet").await.unwrap().status, 200);
    assert_eq!(server.counts().executed("resnet", 1), 2);
}

#[tokio::test]
async fn a_port_that_another_server_has_is_an_error() {
    let first = server().await;
    let config = model_server::ServerConfig::half_plus(&[("m", &[1], &[])]);
    let config = config.at(first.grpc_addr(), ([127, 0, 0, 1], 0).into());
    let error = model_server::start(config).await.err().unwrap();
    assert!(format!("{error:#}").contains("is another server on this port?"), "{error:#}");
}

#[tokio::test]
async fn the_rest_side_has_the_same_faults() {
    let server = server().await;
    let address = server.rest_addr();
    let post =
        async || rest::post(address, "/v1/models/resnet/versions/1:predict", r#"{"instances": [1.0]}"#).await;
    server.set_fault("resnet", 1, Some(Fault::fail(1.0, Code::Unavailable, Place::TrailersOnly)));
    let reply = post().await.unwrap();
    assert_eq!((reply.status, reply.error().as_deref()), (503, Some("injected fault")));
    assert_eq!(server.counts().executed("resnet", 1), 0);

    server.set_fault("resnet", 1, Some(Fault::reset()));
    let error = format!("{:#}", post().await.unwrap_err());
    assert!(error.contains("end of file before message length reached"), "{error}");
    assert_eq!(server.counts().executed("resnet", 1), 1);

    server.set_fault("resnet", 1, Some(Fault::hang()));
    let before = server.counts().faults("resnet", 1);
    tokio::select! {
        answer = post() => panic!("{answer:?}"),
        hangs = server.until(LONG, |it| before < it.counts().faults("resnet", 1)) => hangs.unwrap(),
    }
    let cancelled = |server: &Server| server.received().last().unwrap().outcome == Outcome::Cancelled;
    server.until(LONG, cancelled).await.unwrap();

    server.set_fault("resnet", 1, None);
    assert_eq!(post().await.unwrap().values(), [2.5]);
    assert_eq!(server.counts().executed("resnet", 1), 2);
}

#[tokio::test]
async fn an_abort_comes_before_any_answer() {
    let server = server().await;
    server.set_fault("resnet", 1, Some(Fault::abort()));
    let answer = raw(&server).await;
    assert_eq!((answer.status, answer.reset), (None, Some(h2::Reason::INTERNAL_ERROR)));
    assert_eq!((server.counts().total(), server.counts().faults("resnet", 1)), (0, 1));
}

#[tokio::test]
async fn an_answer_without_a_status_ends_with_its_message() {
    let server = server().await;
    server.set_fault("resnet", 1, Some(Fault::no_status()));
    let answer = raw(&server).await;
    assert_eq!(
        (answer.status.unwrap(), answer.trailers.is_none(), answer.reset),
        (http::StatusCode::OK, true, None)
    );
    assert!(!answer.headers.contains_key("grpc-status"));
    assert_eq!(server.counts().total(), 1);
}

#[tokio::test]
async fn an_answer_that_is_no_grpc_has_an_http_status_alone() {
    let server = server().await;
    server.set_fault("resnet", 1, Some(Fault::http(503)));
    let answer = raw(&server).await;
    assert_eq!(answer.status.unwrap(), 503);
    assert!(!answer.headers.contains_key("grpc-status") && !answer.headers.contains_key("content-type"));
    assert_eq!(server.counts().total(), 0);
}

#[tokio::test]
async fn an_answer_that_stalls_has_begun_and_ends_with_the_server() {
    let server = server().await;
    server.set_fault("resnet", 1, Some(Fault::stall()));
    let client = Client::connect(server.grpc_addr()).await.unwrap().with_deadline(SOON);
    let request = predict_request("resnet", Asked::Version(1), &[1.0]);
    assert!(matches!(client.predict(&request).await, Err(Broken::Deadline)));
    assert_eq!(server.counts().total(), 1);
    server.until(LONG, is_cancelled).await.unwrap();
}

#[tokio::test]
async fn a_client_comes_from_the_address_that_it_is_given() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let from = "127.0.0.7".parse().unwrap();
    let (client, accepted) =
        tokio::join!(Client::connect_from(from, listener.local_addr().unwrap()), listener.accept());
    client.unwrap();
    assert_eq!(accepted.unwrap().1.ip(), from);
}
