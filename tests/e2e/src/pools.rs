//! The two pools of the shipped scenarios, played by the native model server.

use anyhow::Result;
use model_server::{Server, ServerConfig};

use crate::Scenario;

/// The model that the pools serve.
pub const MODEL: &str = "resnet";

/// `v1` stands for the host tfs-v1: version 1 of resnet (y = 0.5x + 2), which its label `stable` names.
/// `v2` stands for tfs-v2: version 2 (y = 0.5x + 3), which its label `canary` names.
pub struct Pools {
    pub v1: Server,
    pub v2: Server,
}

impl Pools {
    /// # Errors
    ///
    /// When no port is free.
    pub async fn start() -> Result<Self> {
        let pool = |version, label| {
            model_server::start(ServerConfig::half_plus(&[(MODEL, &[version], &[(label, version)])]))
        };
        Ok(Self { v1: pool(1, "stable").await?, v2: pool(2, "canary").await? })
    }

    /// The quickstart in front of these pools.
    ///
    /// # Errors
    ///
    /// When the shipped files or the tools are not as expected.
    pub fn quickstart(&self) -> Result<Scenario> {
        self.shipped("quickstart")
    }

    /// The scenario of a folder of `envoy/` in front of these pools.
    ///
    /// # Errors
    ///
    /// When the shipped files or the tools are not as expected.
    pub fn shipped(&self, folder: &str) -> Result<Scenario> {
        Ok(Scenario::shipped(folder)?.host("tfs-v1", self.v1.grpc_addr(), self.v1.rest_addr()).host(
            "tfs-v2",
            self.v2.grpc_addr(),
            self.v2.rest_addr(),
        ))
    }

    /// How many inferences each pool has executed.
    pub fn executed(&self) -> (u64, u64) {
        (self.v1.counts().total(), self.v2.counts().total())
    }
}
