//! Who answers: the native model servers, or real TensorFlow.

use anyhow::{Context, Result};
use clap::ValueEnum;
use predictgate_e2e::tensorflow::TensorFlow;
use predictgate_e2e::{Pools, Scenario};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The native model servers of this project
    #[default]
    ModelServer,
    /// Real TensorFlow behind the API of TensorFlow Serving
    Tensorflow,
}

/// The two pools, whoever plays them.
pub enum Backend {
    Native(Pools),
    TensorFlow(TensorFlow),
}

/// The hosts of the shipped configuration, in the order in which everything here counts them.
pub const POOLS: [&str; 2] = ["tfs-v1", "tfs-v2"];

impl Backend {
    pub async fn start(kind: Kind) -> Result<Self> {
        match kind {
            Kind::ModelServer => Pools::start().await.map(Self::Native),
            Kind::Tensorflow => TensorFlow::start().map(Self::TensorFlow),
        }
    }

    pub fn who(&self) -> &'static str {
        match self {
            Self::Native(_) => "native model servers",
            Self::TensorFlow(_) => "real TensorFlow",
        }
    }

    /// The scenario of a folder of `envoy/` in front of the pools.
    pub fn shipped(&self, folder: &str) -> Result<Scenario> {
        match self {
            Self::Native(pools) => pools.shipped(folder),
            Self::TensorFlow(servers) => Ok(Scenario::shipped(folder)?
                .host(POOLS[0], servers.v1.grpc, servers.v1.rest)
                .host(POOLS[1], servers.v2.grpc, servers.v2.rest)),
        }
    }

    /// How many inferences each pool says that it has executed.
    pub async fn executed(&self) -> Result<[u64; 2]> {
        match self {
            Self::Native(pools) => Ok(pools.executed().into()),
            Self::TensorFlow(servers) => Ok([servers.v1.executed().await?, servers.v2.executed().await?]),
        }
    }

    /// SHA-256, in hexadecimal, of what the pool `tfs-v1` received last: the whole message, or its tensor.
    pub async fn last_received(&self) -> Result<Received> {
        match self {
            Self::Native(pools) => {
                let all = pools.v1.received();
                let hash = all.iter().rev().find(|it| it.executed).and_then(|it| it.sha256_hex());
                Ok(Received::Message(hash.context("tfs-v1 has received nothing")?))
            }
            Self::TensorFlow(servers) => {
                let last = servers.v1.digests().await?.pop().context("tfs-v1 has received nothing")?;
                Ok(Received::Tensor(last.sha256))
            }
        }
    }
}

/// What a server has hashed.
pub enum Received {
    Message(String),
    Tensor(String),
}
