//! A whole request against small policies: it always gets an answer, and no hold outlives a verdict.

use std::sync::OnceLock;
use std::time::Duration;

use predictgate::config;
use predictgate::exchange::{Body, Exchange, IdentityResult, Local, Origin, World, sanitise};
use predictgate::headers::Headers;
use predictgate::hold::{Holds, TICK};
use predictgate::host::Silent;
use predictgate::identity::{Layout, Rpc, Scanner};
use predictgate::policy::Policy;
use predictgate::units::{Asked, Instant, Version};
use predictgate::verdict::Verdict;

use crate::input::{Cuts, Input, framed};

const PATHS: [&str; 9] = [
    "/tensorflow.serving.PredictionService/Predict",
    "/tensorflow.serving.PredictionService/MultiInference",
    "/inference.GRPCInferenceService/ModelInfer",
    "/inference.GRPCInferenceService/ModelStreamInfer",
    "/tensorflow.serving.ModelService/GetModelStatus",
    "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
    "/v1/models/resnet/versions/1:predict",
    "/v2/models/resnet/infer",
    "/healthz",
];

const CONTENT_TYPES: [&str; 4] =
    ["application/grpc", "application/grpc-web+proto", "application/grpc+proto; a=b", "application/json"];

const HEADERS: [(&str, &str); 8] = [
    ("x-model-name", "resnet"),
    ("x-model-version", "1"),
    ("x-model-label", "canary"),
    ("grpc-encoding", "gzip"),
    ("grpc-encoding", "deflate"),
    ("content-length", "64"),
    ("x-predictgate-explain", "1"),
    ("x-predictgate-cluster", "spoofed"),
];

/// What the host does beside bringing the body.
#[derive(Clone, Copy)]
struct Host {
    /// It has shown before that it runs body callbacks while headers wait.
    proven: bool,
    /// The deadline of the hold comes before this piece.
    expires_before: Option<usize>,
    /// How long after it that piece comes.
    late_by: Duration,
    trailers: bool,
}

/// How a request ended.
#[derive(Debug)]
struct End {
    refused: bool,
    /// It went on although no identity was read; then nothing more of it is looked at.
    passed_unknown: bool,
    /// What took the place of the body, where all of it was there at once.
    rewritten: Option<Vec<u8>>,
}

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = usize::from(input.byte()) % policies().len();
    let policy = &policies()[choice];
    let path = match usize::from(input.byte()) % (PATHS.len() + 1) {
        place if place < PATHS.len() => PATHS[place].as_bytes(),
        _ => input.piece(),
    };
    let content_type = input.pick(&CONTENT_TYPES);
    let chosen = input.byte();
    let flags = input.byte();
    let seed = input.byte();
    let host = Host {
        proven: flags & 1 == 0,
        expires_before: (flags & 2 != 0).then_some(usize::from(flags >> 6)),
        late_by: if flags & 4 == 0 { Duration::ZERO } else { TICK * 2 },
        trailers: flags & 8 != 0,
    };
    let content = input.rest();
    let body = if flags & 16 == 0 { framed(content) } else { content.to_vec() };

    let mut pairs: Vec<(&[u8], &[u8])> = vec![(b":path", path), (b"content-type", content_type.as_bytes())];
    for (place, (name, value)) in HEADERS.iter().enumerate() {
        if chosen >> place & 1 == 1 {
            pairs.push((name.as_bytes(), value.as_bytes()));
        }
    }
    let headers = Headers::from_pairs(&pairs);

    let cut = play(policy, headers.clone(), &Cuts::new(seed).cut(&body), host);
    let in_time = Host { expires_before: None, proven: true, ..host };
    let whole = play(policy, headers.clone(), &[&body], in_time);
    if let Some(message) = &whole.rewritten {
        asks_for_version_2(path, &body, message);
    }
    // A hold that expires depends on when the pieces come; so does a rewrite once the headers have gone on.
    let comparable = host.expires_before.is_none() && host.proven && choice != REWRITES_LATE;
    if comparable && !body.is_empty() && !cut.passed_unknown {
        assert_eq!(cut.refused, whole.refused, "refused in pieces or as a whole");
    }
}

/// Plays the request as a host does, and demands what must hold after each callback.
fn play(policy: &Policy, headers: Headers, pieces: &[&[u8]], host: Host) -> End {
    let silent = Silent::default();
    let mut local = Local::new(policy, Origin::default());
    if host.proven {
        local.holds.prove_capable();
    }
    let mut now = Instant::from_nanos(1_000_000_000);
    let mut exchange = Exchange::new(1);
    let mut end = End { refused: false, passed_unknown: false, rewritten: None };
    let (headers, removed) = sanitise(policy, headers);
    assert!(removed.iter().all(|name| headers.get(name).is_none()), "{removed:?} is still there");
    let mut ends = pieces.is_empty() && !host.trailers;
    let mut verdict = exchange.request_headers(
        &mut World { policy, local: &mut local, now, host: &silent, explains: false },
        headers,
        ends,
    );
    let mut kept = Vec::new();
    for (place, piece) in pieces.iter().enumerate() {
        judge(&exchange, &verdict, &local.holds, policy);
        if matches!(verdict, Verdict::Reply(_)) {
            break;
        }
        if host.expires_before == Some(place) {
            now = now.after(policy.identity.hold_timeout);
            if local.holds.expire(now, usize::MAX).iter().any(|(id, _)| *id == 1) {
                verdict = exchange.hold_expired(&mut World {
                    policy,
                    local: &mut local,
                    now,
                    host: &silent,
                    explains: false,
                });
                assert_ne!(verdict, Verdict::Hold, "a hold whose deadline has come ends");
                judge(&exchange, &verdict, &local.holds, policy);
                if matches!(verdict, Verdict::Reply(_)) {
                    break;
                }
            }
            now = now.after(host.late_by);
        }
        let held = verdict == Verdict::Hold;
        if !held {
            kept.clear();
        }
        kept.extend_from_slice(piece);
        ends = place + 1 == pieces.len() && !host.trailers;
        let mut read = |at: usize, most: usize| {
            kept.get(at..kept.len().min(at.saturating_add(most))).map(<[u8]>::to_vec)
        };
        let mut body = Body { length: kept.len(), read: &mut read };
        verdict = exchange.request_body(
            &mut World { policy, local: &mut local, now, host: &silent, explains: false },
            &mut body,
            ends,
        );
        assert!(!ends || verdict != Verdict::Hold, "what has ended is not held");
        if let Verdict::Forward(forward) = &mut verdict
            && pieces.len() == 1
            && ends
        {
            end.rewritten = forward.body.take();
        }
    }
    if !ends && !matches!(verdict, Verdict::Reply(_)) {
        verdict = exchange.request_trailers(&mut World {
            policy,
            local: &mut local,
            now,
            host: &silent,
            explains: false,
        });
        assert_ne!(verdict, Verdict::Hold, "what has ended is not held");
    }
    judge(&exchange, &verdict, &local.holds, policy);
    end.refused = matches!(verdict, Verdict::Reply(_));
    end.passed_unknown = !end.refused && exchange.identity() == IdentityResult::Unknown;
    assert_eq!(end.refused, exchange.refusal().is_some(), "a refusal has a reason, and nothing else has");
    exchange.end(&mut local.holds);
    assert_eq!(local.holds.held(), 0, "the end of a stream ends its hold");
    end
}

fn judge(exchange: &Exchange, verdict: &Verdict, holds: &Holds, policy: &Policy) {
    assert_eq!(holds.held() == 1, *verdict == Verdict::Hold, "held exactly while the verdict is to hold");
    exchange.explanation(policy);
    if let Verdict::Reply(reply) = verdict {
        let answer = reply.answer(exchange.protocol());
        assert!(
            answer.headers.iter().all(|(_, value)| value.bytes().all(|byte| (b' '..=b'~').contains(&byte)))
        );
    }
}

/// The rewritten message is what the client sent but for the version.
fn asks_for_version_2(path: &[u8], sent: &[u8], rewritten: &[u8]) {
    let layout = if path.starts_with(b"/inference.") { Layout::NameAndVersion } else { Layout::ModelSpec };
    let read = |body| {
        let mut scanner = Scanner::new(layout, Rpc::Unary, u32::MAX);
        scanner.feed(body).expect("it is well-formed");
        scanner.end().expect("it is whole");
        scanner.merged().clone()
    };
    let (sent, rewritten) = (read(sent), read(rewritten));
    assert_eq!(rewritten.asked, Asked::Version(Version::Number(2)));
    assert_eq!((rewritten.name, rewritten.signature), (sent.name, sent.signature));
}

/// The policy whose rewrite needs the identity in the first piece.
const REWRITES_LATE: usize = 3;

fn policies() -> &'static [Policy] {
    const TEXTS: [&str; 4] = [
        r#"{"models": [{"name": "resnet",
            "targets": {"a": {"cluster": "a"}, "b": {"cluster": "b", "headers": {"x-pool": "b"}}},
            "routes": [{"match": {"version": "1"}, "split": [{"target": "a"}]},
                       {"match": {"label": "canary"}, "split": [{"target": "b"}]}],
            "otherwise": "reject"}],
          "unmatched": "reject", "explain": {"header": "x-predictgate-explain"}}"#,
        r#"{"identity": {"max_peek_bytes": 64, "max_inflate_bytes": 256, "on_unknown": "pass", "on_hold_timeout": "pass",
                         "compressed": "first"},
          "models": [{"name": "r*", "targets": {"a": {"cluster": "a", "rewrite": {"version": "2"}}},
                      "routes": [{"split": [{"target": "a"}]}]}],
          "admin_methods": "pass", "explain": {"header": "x-predictgate-explain"}}"#,
        r#"{"identity": {"grpc": "metadata"},
          "models": [{"name": "resnet", "targets": {"a": {"cluster": "a"}},
                      "routes": [{"match": {"version": "1"}, "split": [{"target": "a"}]}], "otherwise": "pass"}]}"#,
        r#"{"identity": {"grpc": "metadata", "compressed": "reject"},
          "models": [{"name": "resnet", "targets": {"a": {"cluster": "a", "rewrite": {"version": "2"}}},
                      "routes": [{"split": [{"target": "a"}]}]}]}"#,
    ];
    static POLICIES: OnceLock<Vec<Policy>> = OnceLock::new();
    POLICIES.get_or_init(|| {
        let parse = |text: &&str| config::parse_all(text).expect("the policy is a policy");
        TEXTS.iter().map(parse).collect()
    })
}
