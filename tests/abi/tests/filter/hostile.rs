//! Clients and servers that send what no one should: nothing kills the VM, and nothing stays held.

use std::time::Duration;

use predictgate_abi::{Action, Stream, Worker};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::request::{Asked, PREDICT, RELOAD, contradiction, grpc, predict, send};
use crate::setup::{held, worker};

#[test]
fn header_bytes_that_are_no_text_pass_untouched() {
    let worker = worker();
    let stream = worker.stream();
    let mut headers: Vec<(&[u8], &[u8])> =
        grpc(PREDICT).into_iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    headers.extend([
        (&b"x-odd"[..], &b"\xff\xfe"[..]),
        (b"x-model-name", b"\xff"),
        (b"x-predictgate-\xff", b"1"),
    ]);
    assert_eq!(stream.request_headers(&headers, false), Action::Pause);
    stream.request_body(&predict("resnet", Asked::Latest, 1), true);
    let state = stream.state();
    assert_eq!(state.headers.as_ref().unwrap().get("x-odd"), Some(&b"\xff\xfe"[..]));
    assert_eq!(state.header("x-predictgate-target").as_deref(), Some("stable"));
}

#[test]
fn a_response_of_odd_bytes_is_counted_and_passes() {
    let worker = worker();
    let stream = send(&worker, &grpc(PREDICT), &[&predict("resnet", Asked::Latest, 1)]);
    stream.response_headers(&[(&b":status"[..], &b"\xff"[..]), (b"grpc-message", b"\xff\xfe")], false);
    stream.response_trailers(&[(&b"grpc-status"[..], &b"\xff"[..]), (b"grpc-message", b"%ff%")]);
    stream.log();
    assert_eq!(worker.metric("predictgate_requests", &[("code", "none")]), 1);
}

#[test]
fn a_stream_that_ends_before_its_headers_were_seen_is_no_request() {
    let worker = worker();
    let stream = worker.stream();
    stream.request_headers::<&str, &str>(&[], false);
    stream.cancel();
    assert_eq!(held(&worker), 0);
}

/// One thing that happens to a stream.
#[derive(Clone, Debug)]
enum Event {
    Body(Vec<u8>),
    Trailers,
    Response(Vec<(Vec<u8>, Vec<u8>)>),
    Tick(u64),
    Cancel,
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..most)
}

fn header() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let name = prop_oneof![
        select(vec![
            ":path",
            ":method",
            "content-type",
            "te",
            "grpc-timeout",
            "grpc-encoding",
            "content-length",
            "x-model-name",
            "x-model-version",
            "x-model-label",
            "x-model-pool",
            "x-predictgate-cluster",
            "x-predictgate-explain",
            "x-forwarded-for",
        ])
        .prop_map(|name| name.as_bytes().to_vec()),
        bytes(20),
    ];
    let value = prop_oneof![
        select(vec![
            PREDICT,
            RELOAD,
            "/v1/models/resnet:predict",
            "/v1/models/%zz:predict",
            "/v2/models/resnet/infer",
            "application/grpc",
            "application/grpc-web",
            "application/json",
            "gzip",
            "1",
            "resnet",
        ])
        .prop_map(|value| value.as_bytes().to_vec()),
        bytes(60),
    ];
    (name, value)
}

/// A message that was whole once, with some of its bytes changed, in pieces.
fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let message = prop_oneof![
        Just(predict("resnet", Asked::Version(2), 40)),
        Just(predict("old", Asked::Label("canary"), 0)),
        Just(contradiction()),
        bytes(200),
    ];
    (message, vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), 1..50_usize).prop_map(
        |(mut message, changes, length)| {
            for (place, byte) in changes {
                if !message.is_empty() {
                    let place = place.index(message.len());
                    message[place] = byte;
                }
            }
            message.chunks(length.max(message.len() / 20)).map(<[u8]>::to_vec).collect()
        },
    )
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let other = prop_oneof![
        3 => bytes(30).prop_map(Event::Body),
        1 => Just(Event::Trailers),
        3 => vec(header(), 0..4).prop_map(Event::Response),
        3 => (0..1500_u64).prop_map(Event::Tick),
        1 => Just(Event::Cancel),
    ];
    (pieces(), vec((any::<prop::sample::Index>(), other), 0..4)).prop_map(|(pieces, others)| {
        let mut events: Vec<_> = pieces.into_iter().map(Event::Body).collect();
        for (place, other) in others {
            events.insert(place.index(events.len() + 1), other);
        }
        events
    })
}

/// Plays the events as far as HTTP allows them, and ends the stream; returns what the client sent.
fn play(worker: &Worker, stream: &Stream, headers: &[(Vec<u8>, Vec<u8>)], events: &[Event]) -> Vec<u8> {
    let mut sent = Vec::new();
    let (mut request_ended, mut responded) = (false, false);
    stream.request_headers(headers, false);
    for event in events {
        match event {
            Event::Body(piece) if !request_ended => {
                sent.extend_from_slice(piece);
                stream.request_body(piece, false);
            }
            Event::Trailers if !request_ended => {
                request_ended = true;
                stream.request_trailers(&[("x-end", "1")]);
            }
            Event::Response(headers) if !responded && stream.state().headers.is_some() => {
                responded = true;
                if stream.state().reply.is_none() {
                    stream.response_headers(headers, true);
                }
            }
            Event::Tick(after) => {
                worker.process().advance(Duration::from_millis(*after));
                worker.tick();
            }
            Event::Cancel => {
                stream.cancel();
                return sent;
            }
            _ => (),
        }
    }
    if !request_ended {
        stream.request_body(b"", true);
    }
    stream.log();
    sent
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_a_client_sends_kills_the_vm(
        known in any::<bool>(),
        knob in any::<bool>(),
        extra in vec(header(), 0..6),
        events in vec(events(), 1..4),
    ) {
        let worker = worker();
        worker.knob(knob);
        let mut headers: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        if known {
            let plain = grpc(PREDICT);
            headers.extend(plain.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())));
        }
        headers.extend(extra);
        for events in events {
            let stream = worker.stream();
            let sent = play(&worker, &stream, &headers, &events);
            let state = stream.state();
            prop_assert_eq!(worker.trap(), None);
            prop_assert!(sent.starts_with(&state.body), "the body is never changed");
            let own = state.header("x-predictgate-cluster");
            prop_assert!(own.is_none_or(|own| own.starts_with("tfs-")), "a client opens no cluster");
            prop_assert_eq!(held(&worker), 0);
        }
        prop_assert_eq!(worker.metric("predictgate_requests", &[("model", "-")]), 0);
    }
}
