//! A server and a client in one process: what is on the wire is what a proxy between them would see.

mod answers;
mod errors;
mod faults;
mod messages;
mod record;
mod rest;
mod wire;

use std::time::Duration;

use model_server::client::Client;
use model_server::{Server, ServerConfig, start};

/// Longer than anything here takes: only a test that fails waits so long.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// The models of every test: `resnet` with a label for its newest version, and `bert`.
pub(crate) async fn server() -> Server {
    let models = ServerConfig::half_plus(&[
        ("resnet", &[1, 2], &[("canary", 2), ("stable", 1), ("gone", 9)]),
        ("bert", &[7], &[]),
    ]);
    start(models).await.unwrap()
}

pub(crate) async fn pair() -> (Server, Client) {
    let server = server().await;
    let client = Client::connect(server.grpc_addr()).await.unwrap();
    (server, client)
}
