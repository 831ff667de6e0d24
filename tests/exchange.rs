//! What becomes of one request, from its headers and its body in pieces.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop where it stands"
)]

use predictgate::config;
use predictgate::exchange::{Body, Exchange, Local, Origin, World, headers, sanitise};
use predictgate::headers::Headers;
use predictgate::host::Silent;
use predictgate::identity::{Layout, ModelSpec, Rpc, Scanner};
use predictgate::policy::Policy;
use predictgate::units::{Asked, Instant};
use predictgate::verdict::{Forward, Verdict};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Cases {
    config: String,
    case: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    path: Option<String>,
    content_type: Option<String>,
    #[serde(default)]
    headers: Vec<(String, String)>,
    spec: Option<String>,
    body: Option<String>,
    config: Option<String>,
    /// The body comes in one piece.
    #[serde(default)]
    whole: bool,
    #[serde(default)]
    removed: Vec<String>,
    explained: Option<String>,
    expect: String,
}

impl Case {
    fn request_headers(&self) -> Headers {
        let path = self.path.as_deref().unwrap_or("/tensorflow.serving.PredictionService/Predict");
        let mut pairs = vec![(":path", path)];
        match self.content_type.as_deref().unwrap_or("application/grpc") {
            "none" => {}
            content_type => pairs.push(("content-type", content_type)),
        }
        pairs.extend(self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        Headers::from_pairs(&pairs)
    }

    fn body(&self) -> Option<Vec<u8>> {
        let hex = |text: &str| {
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
        };
        self.body.as_deref().map(hex).or_else(|| self.spec.as_deref().map(predict))
    }

    fn policy(&self, base: &str) -> Policy {
        let mut text: Value = serde_json::from_str(base).unwrap();
        if let Some(patch) = &self.config {
            merge(&mut text, &serde_json::from_str(patch).unwrap());
        }
        config::parse(&text.to_string()).unwrap_or_else(|errors| panic!("{}: {errors:?}", self.name))
    }
}

/// A JSON merge patch (RFC 7396).
fn merge(into: &mut Value, patch: &Value) {
    match (into.as_object_mut(), patch.as_object()) {
        (Some(into), Some(patch)) => {
            for (key, value) in patch {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        _ => *into = patch.clone(),
    }
}

/// A `PredictRequest` for `NAME[@VERSION|#LABEL][!SIGNATURE]` with a tensor, in a gRPC frame.
fn predict(spec: &str) -> Vec<u8> {
    let field = |number: u8, content: &[u8]| {
        [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
    };
    let (spec, signature) = spec.split_once('!').unwrap_or((spec, ""));
    let mut model_spec = Vec::new();
    if let Some((name, version)) = spec.split_once('@') {
        model_spec.extend(field(1, name.as_bytes()));
        model_spec.extend(field(2, &[8, version.parse().unwrap()]));
    } else if let Some((name, label)) = spec.split_once('#') {
        model_spec.extend(field(1, name.as_bytes()));
        model_spec.extend(field(4, label.as_bytes()));
    } else {
        model_spec.extend(field(1, spec.as_bytes()));
    }
    model_spec.extend(field(3, signature.as_bytes()));
    let body = [field(1, &model_spec), field(2, &[10, 1, b'x', 18, 2, 8, 1])].concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[0][..], &length, &body].concat()
}

/// Plays the request with its body in pieces of `chunk` bytes, as a host does that runs body callbacks while it holds.
///
/// Shows the last verdict and the explanation.
fn play(policy: &Policy, case: &Case, chunk: usize) -> (String, Vec<String>, Option<String>) {
    let host = Silent::default();
    let mut local = Local::new(policy, Origin::default());
    let mut world =
        World { policy, local: &mut local, now: Instant::default(), host: &host, explains: false };
    let mut exchange = Exchange::new(1);
    let (headers, removed) = sanitise(policy, case.request_headers());
    let body = case.body();
    let mut verdict = exchange.request_headers(&mut world, headers, body.is_none());
    let mut shown = show(policy, &verdict);
    let body = body.unwrap_or_default();
    let pieces: Vec<_> = if body.is_empty() { vec![&body[..]] } else { body.chunks(chunk).collect() };
    let mut kept = Vec::new();
    for (place, piece) in pieces.iter().enumerate() {
        if matches!(verdict, Verdict::Reply(_)) {
            break;
        }
        if verdict != Verdict::Hold {
            kept.clear();
        }
        kept.extend_from_slice(piece);
        let ends = place + 1 == pieces.len();
        let mut read = |at: usize, most: usize| kept.get(at..kept.len().min(at + most)).map(<[u8]>::to_vec);
        let held = verdict == Verdict::Hold;
        if !held && !ends && exchange.skips(kept.len()) {
            continue;
        }
        verdict = exchange.request_body(&mut world, &mut Body { length: kept.len(), read: &mut read }, ends);
        if held || matches!(verdict, Verdict::Reply(_)) {
            shown = show(policy, &verdict);
        } else if verdict != Verdict::PASS {
            // The headers have gone on; what is left to change is the message.
            shown += show(policy, &verdict).trim_start_matches("forward");
        }
    }
    let explanation = exchange.explanation(policy);
    exchange.end(&mut local.holds);
    assert_eq!(local.holds.held(), 0, "{} holds on", case.name);
    (shown, removed, explanation)
}

fn show(policy: &Policy, verdict: &Verdict) -> String {
    match verdict {
        Verdict::Hold => "hold".to_owned(),
        Verdict::Forward(forward) if *forward == Forward::default() => "pass".to_owned(),
        Verdict::Forward(forward) => {
            let set = headers(policy, forward).map(|(name, value)| format!(" {name}={value}"));
            format!(
                "forward{}{}",
                set.collect::<String>(),
                forward.body.as_deref().map(asks).unwrap_or_default()
            )
        }
        Verdict::Reply(reply) => format!("refuse {} {}", reply.reason.name(), reply.http),
    }
}

/// What a rewritten message asks for, in the form of `Case::spec`.
fn asks(body: &[u8]) -> String {
    let mut scanner = Scanner::new(Layout::ModelSpec, Rpc::Unary, 64);
    scanner.feed(body).unwrap();
    let ModelSpec { name, asked, signature } = scanner.merged();
    let asked = match asked {
        Asked::Latest => String::new(),
        Asked::Version(version) => format!("@{version}"),
        Asked::Label(label) => format!("#{label}"),
    };
    let signature = if signature.is_empty() { String::new() } else { format!("!{signature}") };
    format!(" asks {name}{asked}{signature}")
}

#[test]
fn every_case_ends_the_same_however_its_body_is_cut() {
    let cases: Cases = toml::from_str(include_str!("cases/exchange.toml")).unwrap();
    let mut wrong = Vec::new();
    for case in &cases.case {
        let policy = case.policy(&cases.config);
        for chunk in [usize::MAX, 1, 2, 7].into_iter().filter(|chunk| !case.whole || *chunk == usize::MAX) {
            let found = play(&policy, case, chunk);
            let wanted = (case.expect.clone(), case.removed.clone(), case.explained.clone());
            if found != wanted {
                wrong.push(format!(
                    "{}, in pieces of {chunk}:\n  found  {found:?}\n  wanted {wanted:?}",
                    case.name
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
