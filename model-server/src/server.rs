//! A running server: its two ports, and what tests ask of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;

use crate::config::{ServerConfig, VersionConfig};
use crate::faults::{Fault, Faults};
use crate::listen::{Command, Port, Serve};
use crate::record::{Counts, Received, Recorder};
use crate::servable::Servables;
use crate::{grpc, rest};

/// What all connections of a server share.
pub(crate) struct Shared {
    pub(crate) servables: Servables,
    pub(crate) faults: Faults,
    pub(crate) recorder: Arc<Recorder>,
}

impl Shared {
    pub(crate) fn counts(&self) -> Counts {
        self.recorder.counts(self.servables.tallies())
    }

    pub(crate) fn reset(&self) {
        self.faults.clear();
        self.recorder.reset(&self.servables.tallies());
    }
}

/// A running server. Dropped, it closes its ports and cuts their connections; [`Server::shutdown`] is gentler.
pub struct Server {
    shared: Arc<Shared>,
    grpc: Port,
    rest: Port,
}

/// Starts a server; when this returns, both ports take connections.
pub async fn start(config: ServerConfig) -> anyhow::Result<Server> {
    let shared = Arc::new(Shared {
        servables: Servables::new(&config.models),
        faults: Faults::new(config.seed),
        recorder: Arc::new(Recorder::new(config.remembered)),
    });
    let for_grpc = Arc::clone(&shared);
    let serve_grpc: Serve =
        Arc::new(move |stream, commands| Box::pin(grpc::connection(Arc::clone(&for_grpc), stream, commands)));
    let for_rest = Arc::clone(&shared);
    let serve_rest: Serve =
        Arc::new(move |stream, commands| Box::pin(rest::connection(Arc::clone(&for_rest), stream, commands)));
    let grpc = Port::open(config.grpc, serve_grpc).await?;
    let rest = Port::open(config.rest, serve_rest).await?;
    Ok(Server { shared, grpc, rest })
}

impl Server {
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc.address()
    }

    pub fn rest_addr(&self) -> SocketAddr {
        self.rest.address()
    }

    /// What was counted since the start or the last [`Server::reset`].
    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// The last requests, the oldest first, those still open included.
    pub fn received(&self) -> Vec<Received> {
        self.shared.recorder.received()
    }

    /// Waits until `holds` says so of this server; it is asked again after every change.
    pub async fn until(&self, within: Duration, mut holds: impl FnMut(&Self) -> bool) -> anyhow::Result<()> {
        let mut changes = self.shared.recorder.changes();
        let held = async {
            loop {
                changes.mark_unchanged();
                if holds(self) {
                    return;
                }
                // The sender lives as long as this server.
                let _ = changes.changed().await;
            }
        };
        if tokio::time::timeout(within, held).await.is_err() {
            bail!("the condition did not hold within {within:?}; the server counted {:?}", self.counts());
        }
        Ok(())
    }

    /// Sets the fault of one version, or clears it.
    pub fn set_fault(&self, model: &str, version: i64, fault: Option<Fault>) {
        self.shared.faults.set(model, version, fault);
    }

    /// Serves a version, or serves it again.
    pub fn load(&self, model: &str, version: VersionConfig) {
        self.shared.servables.load(model, version);
    }

    /// Stops to serve a version; requests in flight finish. False when there is no such version.
    pub fn unload(&self, model: &str, version: i64) -> bool {
        self.shared.servables.unload(model, version)
    }

    /// Points a label at a version, or removes it.
    pub fn set_label(&self, model: &str, label: &str, version: Option<i64>) {
        self.shared.servables.set_label(model, label, version);
    }

    /// Closes both ports and cuts their connections, or opens the same ports again.
    ///
    /// When it returns, new connections are refused, or taken.
    pub async fn refuse(&self, refuse: bool) -> anyhow::Result<()> {
        if refuse {
            tokio::join!(self.grpc.stop(Command::Cut), self.rest.stop(Command::Cut));
        } else {
            self.grpc.listen().await?;
            self.rest.listen().await?;
        }
        Ok(())
    }

    /// Clears faults, counts and what was received.
    pub fn reset(&self) {
        self.shared.reset();
    }

    /// Takes no more, lets what is in flight finish for a few seconds, and closes both ports.
    pub async fn shutdown(self) {
        tokio::join!(self.grpc.stop(Command::Drain), self.rest.stop(Command::Drain));
    }
}
