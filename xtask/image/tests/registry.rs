//! The image in a real registry: Debian's docker-registry, which `PREDICTGATE_REGISTRY` names.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use predictgate_image::{Image, MANIFEST, Registry, accept, digest, push};
use tempfile::TempDir;

fn given(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from);
    path.unwrap_or_else(|| {
        panic!("{variable} is not set: run `cargo xtask test --tier image`, which sets it")
    })
}

/// A registry with an empty store. It ends with its owner.
struct Running {
    address: SocketAddr,
    process: Child,
    _folder: TempDir,
}

impl Running {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let configuration = folder.path().join("config.yaml");
        let store = folder.path().join("store");
        let text = format!(
            "version: 0.1\nlog: {{ level: info }}\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\n\
             http: {{ addr: \"127.0.0.1:0\" }}\n",
            store.display()
        );
        fs::write(&configuration, text).unwrap();
        let log = folder.path().join("log");
        let process = Command::new(given("PREDICTGATE_REGISTRY"))
            .arg("serve")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut running = Self { address: ([127, 0, 0, 1], 0).into(), process, _folder: folder };
        running.address = running.wait_for_address(&log);
        running
    }

    /// The port that it has taken stands in its log.
    fn wait_for_address(&mut self, log: &Path) -> SocketAddr {
        let start = Instant::now();
        loop {
            let said = fs::read_to_string(log).unwrap();
            let address = said.split_once("listening on ").map(|(_, rest)| rest);
            // The line is whole when something follows the address.
            if let Some((address, _)) = address.and_then(|rest| rest.split_once(['"', ',', '\n'])) {
                return address.trim().parse().unwrap();
            }
            assert!(self.process.try_wait().unwrap().is_none(), "the registry has ended:\n{said}");
            assert!(start.elapsed() < Duration::from_secs(20), "the registry does not listen:\n{said}");
            sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn the_built_filter_is_served_by_digest_and_taken_as_the_agent_takes_it() {
    let module = fs::read(given("PREDICTGATE_WASM")).unwrap();
    let image = Image::of(&module, "0.1.0").unwrap();
    let registry = Running::start();
    let name = format!("{}/predictgate", registry.address);
    let pinned = push(&image, &format!("{name}:0.1.0"), Registry::PlainHttp).await.unwrap();
    assert_eq!(pinned, format!("{name}@{}", image.manifest.digest));

    let client = Client::new(ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() });
    let reference: Reference = pinned.parse().unwrap();
    let pulled = client.pull_manifest_raw(&reference, &RegistryAuth::Anonymous, &[MANIFEST]).await;
    let (manifest, _) = pulled.unwrap();
    let pin = pinned.rsplit_once("sha256:").unwrap().1;
    let layer = accept::layer(&manifest, MANIFEST, pin).unwrap();
    let mut bytes = Vec::new();
    let descriptor = OciDescriptor { digest: layer.digest, ..OciDescriptor::default() };
    client.pull_blob(&reference, &descriptor, &mut bytes).await.unwrap();
    assert!(accept::module(&bytes).unwrap() == module, "another module comes out than went in");
}

#[tokio::test]
async fn an_image_that_is_made_and_pushed_again_has_the_same_digest() {
    let module = fs::read(given("PREDICTGATE_WASM")).unwrap();
    let registry = Running::start();
    let name = format!("{}/predictgate", registry.address);
    let mut pinned = Vec::new();
    for tag in ["first", "second"] {
        let image = Image::of(&module, "0.1.0").unwrap();
        pinned.push(push(&image, &format!("{name}:{tag}"), Registry::PlainHttp).await.unwrap());
    }
    assert_eq!(pinned[0], pinned[1]);
    assert_ne!(pinned[0].rsplit_once('@').unwrap().1, digest(&module));
}

#[tokio::test]
async fn what_cannot_be_pushed_says_why() {
    let image = Image::of(b"\0asm\x01\0\0\0", "0.1.0").unwrap();
    let malformed = push(&image, "not a reference", Registry::PlainHttp).await.unwrap_err();
    assert!(format!("{malformed:#}").contains("not a reference"), "{malformed:#}");
    let gone = Running::start().address;
    let refused = push(&image, &format!("{gone}/predictgate:0.1.0"), Registry::PlainHttp).await.unwrap_err();
    assert!(format!("{refused:#}").contains(&gone.to_string()), "{refused:#}");
}
