//! A stock Envoy that istiod configures as an ingress gateway.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use predictgate_e2e::admin::Admin;
use predictgate_e2e::process::Process;
use predictgate_e2e::tools;
use predictgate_e2e::wait::until;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpSocket;

use crate::log::{end_of, read};

const LOG: &str = "envoy.log";
/// Of the gateway's standard output, where Istio's access logs go.
const ACCESS_LOG: &str = "access.log";
const BOOTSTRAP: &str = "envoy.json";
const ADMIN: &str = "admin-address";

/// A port that is this test's. Envoy may listen on it beside the socket here, which nobody else may.
#[derive(Debug)]
pub struct Port(TcpSocket);

impl Port {
    /// # Errors
    ///
    /// When none is free.
    pub fn reserve() -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseport(true)?;
        socket.bind((Ipv4Addr::UNSPECIFIED, 0).into()).context("no free port")?;
        Ok(Self(socket))
    }

    /// # Errors
    ///
    /// When the system does not tell.
    pub fn number(&self) -> Result<u16> {
        Ok(self.0.local_addr()?.port())
    }
}

/// An Envoy with the listener that istiod made of the Gateway. It is killed when this is dropped.
pub struct Gateway {
    /// Where callers connect.
    pub addr: SocketAddr,
    pub admin: Admin,
    // Ended before its directory goes.
    _process: Process,
    directory: TempDir,
}

impl Gateway {
    /// Starts it and waits for the listener on `port`.
    ///
    /// # Errors
    ///
    /// When Envoy refuses what istiod sends, or the listener does not come; the error ends with Envoy's log.
    pub async fn start(istiod: SocketAddr, port: u16) -> Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
        let place = |name: &str| directory.path().join(name);
        fs::write(place(BOOTSTRAP), bootstrap(istiod).to_string())?;
        let mut command = Command::new(tools::envoy()?);
        command.arg("-c").arg(place(BOOTSTRAP)).arg("--admin-address-path").arg(place(ADMIN));
        command.args([
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--component-log-level",
            "main:warning",
        ]);
        command.args(["--file-flush-interval-msec", "20"]);
        command
            .stdin(Stdio::null())
            .stdout(File::create(place(ACCESS_LOG))?)
            .stderr(File::create(place(LOG))?);
        let process = Process::spawn(command)?;
        let (alive, address, ours) = (&process, &place(ADMIN), &place(BOOTSTRAP));
        let started = until("Envoy to have the listener of the Gateway", || async move {
            if let Some(status) = alive.ended() {
                bail!("Envoy has ended, {status}");
            }
            let Some(addr) = read(address).trim().parse().ok() else { return Ok(None) };
            let admin = Admin { addr };
            if !admin.is_ready(ours).await {
                return Ok(None);
            }
            for kind in ["listener_manager.lds", "cluster_manager.cds"] {
                let rejected = admin.stat(&format!("{kind}.update_rejected")).await?;
                ensure!(rejected == 0, "Envoy has rejected what istiod sends ({kind})");
            }
            Ok(admin.listener(&format!("0.0.0.0_{port}")).await.ok().map(|_| admin))
        })
        .await;
        let admin = started.with_context(|| end_of("Envoy", &place(LOG)))?;
        Ok(Self { addr: (Ipv4Addr::LOCALHOST, port).into(), admin, directory, _process: process })
    }

    /// What Envoy has got by extension config discovery: each filter, by name.
    ///
    /// # Errors
    ///
    /// When Envoy does not answer.
    pub async fn discovered(&self) -> Result<Vec<(String, Value)>> {
        let dump = self.admin.json("/config_dump?resource=ecds_filters").await?;
        let filters = dump["configs"].as_array().into_iter().flatten();
        Ok(filters
            .map(|filter| &filter["ecds_filter"])
            .map(|filter| {
                (filter["name"].as_str().unwrap_or_default().to_owned(), filter["typed_config"].clone())
            })
            .collect())
    }

    /// Waits for so many entries of the access log.
    ///
    /// # Errors
    ///
    /// When they do not come within the deadline, or one is not JSON.
    pub async fn wait_for_access(&self, entries: usize) -> Result<Vec<Value>> {
        let path = self.directory.path().join(ACCESS_LOG);
        until(format!("{entries} entries of the access log"), || async {
            let text = read(&path);
            // The last line may be half written.
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let read: Result<Vec<Value>, _> = whole.lines().map(serde_json::from_str).collect();
            Ok(Some(read.with_context(|| whole.to_owned())?).filter(|read| entries <= read.len()))
        })
        .await
    }

    /// Waits until the only filter that Envoy has discovered is configured so.
    ///
    /// # Errors
    ///
    /// When it is not within the deadline.
    pub async fn wait_for_configuration(&self, wanted: impl Fn(&Value) -> bool) -> Result<()> {
        until("Envoy to have the new configuration", || async {
            let discovered = self.discovered().await?;
            let [(_, filter)] = discovered.as_slice() else { return Ok(None) };
            Ok(wanted(&configuration(filter)?).then_some(()))
        })
        .await
    }
}

/// The plugin's configuration in a Wasm filter.
///
/// # Errors
///
/// When it is no JSON in a StringValue.
pub fn configuration(filter: &Value) -> Result<Value> {
    let text = filter["config"]["configuration"]["value"].as_str();
    let text = text.with_context(|| format!("no StringValue in {filter}"))?;
    serde_json::from_str(text).context("the plugin's configuration is not JSON")
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", end_of("Envoy", &self.directory.path().join(LOG)));
        }
    }
}

/// What Istio's agent would write: who the proxy is, and where istiod is.
fn bootstrap(istiod: SocketAddr) -> Value {
    let ads = json!({ "ads": {}, "resource_api_version": "V3" });
    let socket = json!({ "address": istiod.ip(), "port_value": istiod.port() });
    json!({
        "node": {
            // The address is only a name here, and must be of no server that istiod knows.
            "id": "router~192.0.2.1~istio-ingressgateway.istio-ingress~istio-ingress.svc.cluster.local",
            "cluster": "istio-ingressgateway.istio-ingress",
            "metadata": {
                "NAMESPACE": "istio-ingress",
                "LABELS": { "istio": "ingressgateway" },
                "ISTIO_VERSION": "1.31.0",
            },
        },
        "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds-grpc" } }],
            },
            "lds_config": ads,
            "cds_config": ads,
        },
        "static_resources": {
            "clusters": [{
                "name": "xds-grpc",
                "type": "STATIC",
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": { "http2_protocol_options": {} },
                    },
                },
                "load_assignment": {
                    "cluster_name": "xds-grpc",
                    "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": { "socket_address": socket } } }] }],
                },
            }],
        },
    })
}
