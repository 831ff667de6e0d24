//! What a server serves, and where.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

/// The settings of one server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where gRPC is served; port 0 takes a free one.
    pub grpc: SocketAddr,
    /// Where the REST API and `/control/` are served; port 0 takes a free one.
    pub rest: SocketAddr,
    pub models: Vec<ModelConfig>,
    /// Chance (fail rates, jitter) repeats with the same seed.
    pub seed: u64,
    /// How many received requests are remembered; 0 remembers none, and hashes none.
    pub remembered: usize,
}

/// A model's name, its versions, and its labels with the versions that they mean.
pub type HalfPlus<'a> = (&'a str, &'a [i64], &'a [(&'a str, i64)]);

/// One model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub name: String,
    pub versions: Vec<VersionConfig>,
    pub labels: BTreeMap<String, i64>,
}

/// One version of a model: it answers `y = a * x + b`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VersionConfig {
    pub version: i64,
    pub a: f32,
    pub b: f32,
}

impl ServerConfig {
    /// A server on free loopback ports that remembers the last 10,000 requests.
    pub fn new(models: Vec<ModelConfig>) -> Self {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { grpc: loopback, rest: loopback, models, seed: 1, remembered: 10_000 }
    }

    /// Models that halve and add `version + 1`.
    pub fn half_plus(models: &[HalfPlus<'_>]) -> Self {
        let model = |&(name, versions, labels): &HalfPlus<'_>| ModelConfig {
            name: name.to_owned(),
            versions: versions.iter().copied().map(VersionConfig::half_plus).collect(),
            labels: labels.iter().map(|&(label, version)| (label.to_owned(), version)).collect(),
        };
        Self::new(models.iter().map(model).collect())
    }

    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    #[must_use]
    pub fn remembered(mut self, requests: usize) -> Self {
        self.remembered = requests;
        self
    }

    #[must_use]
    pub fn at(mut self, grpc: SocketAddr, rest: SocketAddr) -> Self {
        self.grpc = grpc;
        self.rest = rest;
        self
    }
}

impl VersionConfig {
    /// Half of x, plus 2 in version 1, plus 3 in version 2 and so on: an answer tells who gave it.
    pub fn half_plus(version: i64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "versions are small numbers here")]
        let b = version as f32 + 1.0;
        Self { version, a: 0.5, b }
    }
}
