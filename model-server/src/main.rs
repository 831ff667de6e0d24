//! The model server as a process of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Context;
use clap::Parser;
use model_server::{Fault, ModelConfig, ServerConfig, VersionConfig, start};
use tokio::signal::unix::{SignalKind, signal};

/// A model server that speaks TensorFlow Serving's wire, for demos, tests and benches.
///
/// It answers y = A * x + B over gRPC (PredictionService, ModelService) and REST (/v1/models/...), with
/// TensorFlow Serving's own messages, codes and texts. When both ports take connections it prints
/// "READY grpc=ADDRESS rest=ADDRESS". It ends on SIGTERM or ctrl-c, after what is in flight.
///
/// Under /control/ on the REST port it tells what it did and is told what to do:
///   GET  /control/counts     what every version executed
///   GET  /control/received   the last requests, with headers and the SHA-256 of their messages
///   POST /control/faults     {"model": "m", "version": 1, "fault": "fail=0.5,code=UNAVAILABLE"}
///   POST /control/versions   {"model": "m", "version": 1, "loaded": false}
///   POST /control/reset      forgets faults, counts and requests
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Arguments {
    /// The address of both ports.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,

    /// The port of gRPC; 0 takes a free one.
    #[arg(long, default_value_t = 8500)]
    grpc_port: u16,

    /// The port of REST and /control/; 0 takes a free one.
    #[arg(long, default_value_t = 8501)]
    rest_port: u16,

    /// A version of a model, NAME=VERSION or NAME=VERSION:A,B; without numbers A is 0.5 and B is VERSION + 1.
    /// May be repeated.
    #[arg(long = "model", value_name = "NAME=VERSION[:A,B]", required = true, value_parser = model)]
    models: Vec<(String, VersionConfig)>,

    /// A label of a version. May be repeated.
    #[arg(long = "label", value_name = "NAME:LABEL=VERSION", value_parser = label)]
    labels: Vec<(String, String, i64)>,

    /// A fault of a version: hang, reset, abort, stall, no-status, http=503, fail=RATE, and with them code=UNAVAILABLE,
    /// place=trailers-only|after-headers, message=TEXT, rate=RATE, delay=20ms, jitter=5ms.
    /// May be repeated.
    #[arg(long = "fault", value_name = "NAME:VERSION:FAULT", value_parser = fault)]
    faults: Vec<(String, i64, Fault)>,

    /// The seed of fail rates and jitter.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// How many requests are remembered for /control/received; 0 remembers and hashes none.
    #[arg(long, default_value_t = 10_000)]
    remember: usize,
}

fn model(text: &str) -> anyhow::Result<(String, VersionConfig)> {
    let wanted = || format!("found {text:?}, wanted NAME=VERSION or NAME=VERSION:A,B");
    let (name, version) = text.rsplit_once('=').with_context(wanted)?;
    let (version, numbers) = version.split_once(':').map_or((version, None), |(it, ab)| (it, Some(ab)));
    let mut config = VersionConfig::half_plus(version.parse().with_context(wanted)?);
    if let Some(numbers) = numbers {
        let (a, b) = numbers.split_once(',').with_context(wanted)?;
        config.a = a.parse().with_context(wanted)?;
        config.b = b.parse().with_context(wanted)?;
    }
    Ok((name.to_owned(), config))
}

fn label(text: &str) -> anyhow::Result<(String, String, i64)> {
    let wanted = || format!("found {text:?}, wanted NAME:LABEL=VERSION");
    let (name, rest) = text.split_once(':').with_context(wanted)?;
    let (label, version) = rest.rsplit_once('=').with_context(wanted)?;
    Ok((name.to_owned(), label.to_owned(), version.parse().with_context(wanted)?))
}

fn fault(text: &str) -> anyhow::Result<(String, i64, Fault)> {
    let wanted = || format!("found {text:?}, wanted NAME:VERSION:FAULT");
    let (name, rest) = text.split_once(':').with_context(wanted)?;
    let (version, fault) = rest.split_once(':').with_context(wanted)?;
    Ok((name.to_owned(), version.parse().with_context(wanted)?, fault.parse().with_context(wanted)?))
}

impl Arguments {
    fn config(&self) -> ServerConfig {
        let mut models: BTreeMap<&str, ModelConfig> = BTreeMap::new();
        let new =
            |name: &str| ModelConfig { name: name.to_owned(), versions: Vec::new(), labels: BTreeMap::new() };
        for (name, version) in &self.models {
            models.entry(name).or_insert_with(|| new(name)).versions.push(*version);
        }
        for (name, label, version) in &self.labels {
            models.entry(name).or_insert_with(|| new(name)).labels.insert(label.clone(), *version);
        }
        ServerConfig::new(models.into_values().collect())
            .at(SocketAddr::new(self.address, self.grpc_port), SocketAddr::new(self.address, self.rest_port))
            .seed(self.seed)
            .remembered(self.remember)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let server = start(arguments.config()).await?;
    for (model, version, fault) in arguments.faults {
        server.set_fault(&model, version, Some(fault));
    }
    println!("READY grpc={} rest={}", server.grpc_addr(), server.rest_addr());
    tokio::select! {
        _ = terminated.recv() => (),
        _ = interrupted.recv() => (),
    }
    server.shutdown().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(arguments: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(std::iter::once("model-server").chain(arguments.split(' ')))
    }

    #[test]
    fn versions_and_labels_of_a_model_are_gathered() {
        let line = "--model m=1 --model n=7 --model m=2:0.25,-1 --label m:canary=2 --label m:old=1";
        let models = read(line).unwrap().config().models;
        let m = ModelConfig {
            name: "m".to_owned(),
            versions: vec![
                VersionConfig { version: 1, a: 0.5, b: 2.0 },
                VersionConfig { version: 2, a: 0.25, b: -1.0 },
            ],
            labels: [("canary".to_owned(), 2), ("old".to_owned(), 1)].into(),
        };
        assert_eq!(models.len(), 2);
        assert_eq!(models[0], m);
        assert_eq!(models[1].versions, [VersionConfig::half_plus(7)]);
    }

    #[test]
    fn a_fault_belongs_to_a_version() {
        let faults = read("--model m=1 --fault m:1:delay=20ms").unwrap().faults;
        assert_eq!(faults, [("m".to_owned(), 1, Fault::delay(Duration::from_millis(20)))]);
    }

    #[test]
    fn a_wrong_argument_says_what_was_wanted() {
        for (line, wanted) in [
            ("--model m", "found \"m\", wanted NAME=VERSION or NAME=VERSION:A,B"),
            ("--model m=x", "wanted NAME=VERSION or NAME=VERSION:A,B"),
            ("--model m=1:2", "wanted NAME=VERSION or NAME=VERSION:A,B"),
            ("--model m=1 --label m:l", "wanted NAME:LABEL=VERSION"),
            ("--model m=1 --fault m:hang", "wanted NAME:VERSION:FAULT"),
            ("--grpc-port 1", "--model <NAME=VERSION[:A,B]>"),
        ] {
            let error = read(line).err().unwrap().to_string();
            assert!(error.contains(wanted), "{line}: {error}");
        }
    }
}
