//! `/control/`: what tests and people ask of a server that runs in another process.

use http::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Parts;
use crate::config::VersionConfig;
use crate::faults::Fault;
use crate::record::{Counts, Received, hex};
use crate::server::Shared;

/// The body of `POST /control/faults`; without a fault, the version's fault is cleared.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetFault {
    model: String,
    version: i64,
    /// As `--fault` takes it, for example `fail=0.5,code=UNAVAILABLE`.
    fault: Option<String>,
}

/// The body of `POST /control/versions`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetVersion {
    model: String,
    version: i64,
    loaded: bool,
}

pub(super) fn serve(shared: &Shared, method: &Method, path: &str, body: &[u8]) -> Response<Parts> {
    let answer = match (method, path) {
        (&Method::GET, "counts") => Ok(counts(&shared.counts())),
        (&Method::GET, "received") => Ok(shared.recorder.received().iter().map(received).collect::<Value>()),
        (&Method::POST, "faults") => set_fault(shared, body),
        (&Method::POST, "versions") => set_version(shared, body),
        (&Method::POST, "reset") => {
            shared.reset();
            Ok(json!({}))
        }
        _ => {
            let message = "found nothing here; GET counts and received, POST faults, versions and reset";
            return respond(StatusCode::NOT_FOUND, &json!({ "error": message }));
        }
    };
    match answer {
        Ok(answer) => respond(StatusCode::OK, &answer),
        Err(error) => respond(StatusCode::BAD_REQUEST, &json!({ "error": format!("{error:#}") })),
    }
}

fn respond(status: StatusCode, value: &Value) -> Response<Parts> {
    super::response(status, Parts::whole(format!("{value:#}\n")))
}

fn set_fault(shared: &Shared, body: &[u8]) -> anyhow::Result<Value> {
    let SetFault { model, version, fault } = serde_json::from_slice(body)?;
    let fault = fault.map(|text| text.parse::<Fault>()).transpose()?;
    shared.faults.set(&model, version, fault);
    Ok(json!({}))
}

fn set_version(shared: &Shared, body: &[u8]) -> anyhow::Result<Value> {
    let SetVersion { model, version, loaded } = serde_json::from_slice(body)?;
    if loaded {
        shared.servables.load(&model, VersionConfig::half_plus(version));
    } else if !shared.servables.unload(&model, version) {
        anyhow::bail!("model {model} has no version {version}");
    }
    Ok(json!({}))
}

fn counts(counts: &Counts) -> Value {
    let mut models = serde_json::Map::new();
    for ((model, version), executed) in &counts.versions {
        let versions = models.entry(model).or_insert_with(|| json!({}));
        versions[version.to_string()] = json!({ "executed": executed.by_rpc.inference(), "by_rpc": executed.by_rpc, "faults": executed.faults });
    }
    json!({
        "total": counts.total(),
        "models": models,
        "begun": counts.begun,
        "arrived": counts.arrived,
        "unknown": counts.unknown,
    })
}

fn received(received: &Received) -> Value {
    let header = |(name, value): &(String, Vec<u8>)| json!([name, String::from_utf8_lossy(value)]);
    json!({
        "protocol": received.protocol,
        "method": received.http_method,
        "path": received.path,
        "headers": received.headers.iter().map(header).collect::<Value>(),
        "rpc": received.rpc,
        "body_bytes": received.body_bytes,
        "message_bytes": received.message_bytes,
        "sha256": received.sha256.map(|hash| hex(&hash)),
        "model": received.model,
        "version": received.version,
        "executed": received.executed,
        "outcome": format!("{:?}", received.outcome),
    })
}
