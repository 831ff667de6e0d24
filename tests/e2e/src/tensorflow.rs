//! Real TensorFlow behind TensorFlow Serving's interfaces, and the official Python client.
//!
//! Both are Python programs under `tests/tensorflow`; the interpreter that has TensorFlow is the one that
//! `PREDICTGATE_PYTHON` names.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use model_server::client::rest::{self, RestReply};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::tools::root;

/// Two servers of the model `resnet`: one has version 1 (y = 0.5x + 2), which the label `stable` names;
/// the other has version 2 (y = 0.5x + 3), which the label `canary` names.
pub struct TensorFlow {
    pub v1: Server,
    pub v2: Server,
}

impl TensorFlow {
    /// Builds the models where they are missing, and starts both servers.
    ///
    /// # Errors
    ///
    /// When `PREDICTGATE_PYTHON` names no Python with TensorFlow, or a server does not come up.
    pub fn start() -> Result<Self> {
        let models = build_models()?;
        let v1 = Server::spawn(&models, &["--version", "resnet=1", "--label", "resnet:stable=1"])?;
        let v2 = Server::spawn(&models, &["--version", "resnet=2", "--label", "resnet:canary=2"])?;
        // TensorFlow takes seconds to import; the two do it side by side.
        Ok(Self { v1: v1.ready()?, v2: v2.ready()? })
    }
}

fn build_models() -> Result<PathBuf> {
    let root = root().join("target/tensorflow-models");
    fs::create_dir_all(&root).with_context(|| root.display().to_string())?;
    let output = python()?
        .arg(programs().join("build_models.py"))
        .arg(&root)
        .output()
        .context("cannot run build_models.py")?;
    ensure!(output.status.success(), "build_models.py: {}", String::from_utf8_lossy(&output.stderr));
    Ok(root.join("resnet"))
}

/// A running server; it ends when this is dropped.
pub struct Server {
    /// Where it serves gRPC.
    pub grpc: SocketAddr,
    /// Where it serves REST and its own counts.
    pub rest: SocketAddr,
    _program: Program,
}

impl Server {
    fn spawn(models: &Path, options: &[&str]) -> Result<Starting> {
        let mut command = python()?;
        command.arg(programs().join("server.py")).arg("--end-with-stdin").arg("--digests");
        command.arg(format!("--model=resnet={}", models.display())).args(options);
        Program::spawn(command, "server.py").map(Starting)
    }

    /// How many calls this server says that it has executed since it started.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn executed(&self) -> Result<u64> {
        let counts: BTreeMap<String, BTreeMap<String, u64>> = self.get("/counts").await?;
        Ok(counts.values().flat_map(|versions| versions.values()).sum())
    }

    /// The tensors that Predict has brought to this server, oldest first.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn digests(&self) -> Result<Vec<Digest>> {
        self.get("/digests").await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let RestReply { status, body, .. } = rest::get(self.rest, path).await?;
        let body = String::from_utf8_lossy(&body);
        ensure!(status == 200, "server.py answers {status} to {path}: {body}");
        serde_json::from_str(&body).with_context(|| format!("{path}: {body}"))
    }
}

/// One tensor as a server received it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Digest {
    pub version: String,
    pub bytes: u64,
    pub sha256: String,
}

/// A server that has not said yet that it serves.
struct Starting(Program);

impl Starting {
    fn ready(mut self) -> Result<Server> {
        let line = self.0.read_line()?;
        let port = |name: &str| {
            let ports = line.strip_prefix("READY ")?;
            let port = ports.split(' ').find_map(|port| port.strip_prefix(name)?.strip_prefix('='))?;
            Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().ok()?)))
        };
        let (Some(grpc), Some(rest)) = (port("grpc"), port("rest")) else {
            bail!("server.py: found {line:?}, wanted `READY grpc=PORT rest=PORT`");
        };
        Ok(Server { grpc, rest, _program: self.0 })
    }
}

/// The official client, connected to one address.
pub struct Client(Program);

impl Client {
    /// # Errors
    ///
    /// When `PREDICTGATE_PYTHON` names no Python with TensorFlow.
    pub fn start(address: SocketAddr) -> Result<Self> {
        let mut command = python()?;
        command.arg(programs().join("client.py")).arg(address.to_string());
        Program::spawn(command, "client.py").map(Self)
    }

    /// Makes one call; `request` is what `tests/tensorflow/client.py` describes.
    ///
    /// # Errors
    ///
    /// When the client itself fails; a call that fails is an answer.
    pub fn call(&mut self, request: &Value) -> Result<Answer> {
        self.0.write_line(&request.to_string())?;
        let line = self.0.read_line()?;
        serde_json::from_str(&line).with_context(|| format!("client.py: {line}"))
    }
}

/// What the official client made of an answer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// The name of the gRPC code: `OK`, `NOT_FOUND`.
    pub code: String,
    pub details: String,
    pub headers: BTreeMap<String, String>,
    pub trailers: BTreeMap<String, String>,
    /// The model and the version that the server says have answered.
    pub model: String,
    pub version: String,
    pub values: Vec<f64>,
    /// Of more values than the client lists.
    pub count: u64,
    pub first: f64,
    pub last: f64,
    pub sum: f64,
    /// The loaded versions that GetModelStatus told.
    pub versions: Vec<String>,
    pub sent_sha256: String,
    pub error_info: Option<ErrorInfo>,
    pub retry_info: Option<RetryInfo>,
}

/// `google.rpc.ErrorInfo` of a status.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct ErrorInfo {
    pub reason: String,
    pub domain: String,
}

/// `google.rpc.RetryInfo` of a status.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RetryInfo {
    /// In the JSON form of `google.protobuf.Duration`: seconds, such as `1.500s`.
    pub retry_delay: String,
}

/// A Python program that is spoken to by lines and ends with this value.
struct Program {
    name: &'static str,
    child: Child,
    /// Its end is the program's sign to end.
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    errors: File,
}

impl Program {
    fn spawn(mut command: Command, name: &'static str) -> Result<Self> {
        // TensorFlow says much on standard error that is of interest only when something fails.
        let errors = tempfile::tempfile().context("cannot create a temporary file")?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot run {} for {name}", command.get_program().display()))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("{name} has no pipes");
        };
        Ok(Self { name, child, input, output: BufReader::new(output), errors })
    }

    fn write_line(&mut self, line: &str) -> Result<()> {
        writeln!(self.input, "{line}").with_context(|| format!("{} takes no more input", self.name))
    }

    fn read_line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        // The end of output without a line is the end of the program.
        if !line.ends_with('\n') {
            let status = self.child.wait()?;
            let words = self.words()?;
            bail!("{} has ended, {status}, with these words:\n{words}", self.name);
        }
        Ok(line.trim_end().to_owned())
    }

    fn words(&mut self) -> Result<String> {
        let mut words = Vec::new();
        self.errors.rewind()?;
        self.errors.read_to_end(&mut words)?;
        Ok(String::from_utf8_lossy(&words).into_owned())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Nobody reads what it would still say, so there is nothing to wait for but its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The Python that has TensorFlow.
///
/// # Errors
///
/// When `PREDICTGATE_PYTHON` names none.
pub fn python() -> Result<Command> {
    let python = env::var_os("PREDICTGATE_PYTHON")
        .context("PREDICTGATE_PYTHON is not set: run `cargo xtask test --tier tensorflow`")?;
    Ok(Command::new(python))
}

fn programs() -> PathBuf {
    root().join("tests/tensorflow")
}
