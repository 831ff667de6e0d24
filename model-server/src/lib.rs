//! A model server that speaks TensorFlow Serving's wire, for demos, tests and benches.
//!
//! It answers `y = a * x + b` over gRPC and REST with TensorFlow Serving's own messages, codes and texts,
//! fails on demand, and tells what it received and executed.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> anyhow::Result<()> {
//! use model_server::client::{Asked, Client, predict_request};
//! use model_server::{ServerConfig, start};
//!
//! let server = start(ServerConfig::half_plus(&[("resnet", &[1, 2], &[("canary", 2)])])).await?;
//! let client = Client::connect(server.grpc_addr()).await?;
//! let reply = client.predict(&predict_request("resnet", Asked::Version(1), &[1.0, 2.0])).await?;
//! assert_eq!(reply.ok()?.values(), [2.5, 3.0]);
//! assert_eq!(server.counts().executed("resnet", 1), 1);
//! server.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod call;
pub mod client;
mod config;
pub mod errors;
mod faults;
pub mod framing;
mod grpc;
mod inference;
mod listen;
pub mod messages;
mod record;
mod rest;
mod rpc;
mod servable;
mod server;
pub mod signature;
pub mod tensor;

pub use config::{HalfPlus, ModelConfig, ServerConfig, VersionConfig};
pub use faults::{Action, Fault, INJECTED, Place};
pub use record::{ByRpc, Counts, Executed, Outcome, Received, hex};
pub use rpc::{Protocol, Rpc};
pub use server::{Server, start};
pub use tonic::Code;
