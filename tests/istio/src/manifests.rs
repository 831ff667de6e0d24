//! The manifests as they are applied, and what of them a machine without a cluster must change.
//!
//! Changed:
//! - The module's `oci:` address becomes a file: there is no agent that fetches images. For an EnvoyFilter that is
//!   `code.local` instead of `code.remote`.
//! - The Gateway listens for plain HTTP on a free port: its certificate would come from a Secret.
//! - The Telemetry asks for no metrics: the filter that counts them is only in Istio's own build of Envoy.
//! - The DestinationRule asks for no TLS: the model servers have no certificates of the mesh.
//!
//! Added, because Services and pods come from Kubernetes otherwise:
//! - a ServiceEntry for each Service, with its name, ports and selector;
//! - a WorkloadEntry for each Deployment, with its pods' labels, where a model server listens.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use predictgate_e2e::{Pools, tools};
use serde_json::{Value, json};

const OCI: &str = "oci://";

/// What istiod reads: objects, by kind and name.
#[derive(Clone, Debug)]
pub struct Manifests {
    objects: Vec<Value>,
}

/// What stands for a cluster on this machine.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where callers reach the gateway.
    pub gateway: u16,
    pub module: PathBuf,
    /// Where the pods of a Deployment listen, by the names of its container's ports.
    pub pods: BTreeMap<String, BTreeMap<String, SocketAddr>>,
}

impl Place {
    /// The pools in place of the Deployments of `tf-serving`, and the built filter.
    ///
    /// # Errors
    ///
    /// When `PREDICTGATE_WASM` names no file.
    pub fn of(gateway: u16, pools: &Pools) -> Result<Self> {
        let pool = |name: &str, grpc, rest| {
            let ports = [("grpc-predict".to_owned(), grpc), ("http-rest".to_owned(), rest)];
            (format!("tf-serving-{name}"), BTreeMap::from(ports))
        };
        let pods = BTreeMap::from([
            pool("v1", pools.v1.grpc_addr(), pools.v1.rest_addr()),
            pool("v2", pools.v2.grpc_addr(), pools.v2.rest_addr()),
        ]);
        Ok(Self { gateway, module: tools::wasm()?, pods })
    }
}

impl Manifests {
    /// What `kubectl apply -k` would apply of folders of `istio/`.
    ///
    /// # Errors
    ///
    /// When a kustomization cannot be built.
    pub fn shipped(folders: &[&str]) -> Result<Self> {
        let root = tools::root().join("istio");
        let mut objects = Vec::new();
        for folder in folders {
            objects.extend(predictgate_manifests::applied(&root, folder)?);
        }
        Ok(Self { objects })
    }

    /// The same for this place.
    ///
    /// # Errors
    ///
    /// When a manifest is not as expected.
    pub fn at(mut self, place: &Place) -> Result<Self> {
        let mut added = Vec::new();
        for object in &mut self.objects {
            match object["kind"].as_str().context("an object without a kind")? {
                "WasmPlugin" => local(&mut object["spec"]["url"], &place.module)?,
                "TrafficExtension" => local(&mut object["spec"]["wasm"]["url"], &place.module)?,
                "EnvoyFilter" => local_code(object, &place.module)?,
                "Gateway" => plain(object, place.gateway)?,
                "Telemetry" => object["spec"]["metrics"] = json!([]),
                "DestinationRule" => object["spec"]["trafficPolicy"]["tls"] = json!({ "mode": "DISABLE" }),
                "Service" => added.push(service_entry(object)?),
                "Deployment" => added.push(workload_entry(object, place)?),
                _ => (),
            }
        }
        self.objects.append(&mut added);
        Ok(self)
    }

    /// Changes an object.
    ///
    /// # Errors
    ///
    /// When there is none of that kind and name.
    pub fn change(mut self, kind: &str, name: &str, change: impl FnOnce(&mut Value)) -> Result<Self> {
        let mut objects = self.objects.iter_mut();
        let object = objects.find(|it| it["kind"] == kind && it["metadata"]["name"] == name);
        change(object.with_context(|| format!("no {kind} {name} is applied"))?);
        Ok(self)
    }

    /// Takes the objects of a kind out.
    #[must_use]
    pub fn without(mut self, kind: &str) -> Self {
        self.objects.retain(|object| object["kind"] != kind);
        self
    }

    /// An object, as istiod reads it.
    ///
    /// # Errors
    ///
    /// When there is none of that kind and name.
    pub fn object(&self, kind: &str, name: &str) -> Result<&Value> {
        let mut objects = self.objects.iter();
        let object = objects.find(|it| it["kind"] == kind && it["metadata"]["name"] == name);
        object.with_context(|| format!("no {kind} {name} is applied"))
    }

    /// The objects that are istiod's own to read, as `KIND/NAME`.
    pub fn of_istio(&self) -> impl Iterator<Item = String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let objects =
            self.objects.iter().filter(move |object| text(&object["apiVersion"]).contains(".istio.io/"));
        objects.map(move |it| format!("{}/{}", text(&it["kind"]), text(&it["metadata"]["name"])))
    }

    /// Writes a file for each object. What stands in the folder already is replaced in one step, since istiod watches.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        for object in &self.objects {
            let metadata = &object["metadata"];
            let parts = [&object["kind"], &metadata["namespace"], &metadata["name"]];
            let name = parts.map(|part| part.as_str().unwrap_or("all")).join(".");
            // JSON is YAML, and istiod reads no other name.
            let path = folder.join(format!("{name}.yaml"));
            let fresh = folder.join(format!("{name}.fresh"));
            fs::write(&fresh, object.to_string()).with_context(|| fresh.display().to_string())?;
            fs::rename(&fresh, &path).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

fn local(url: &mut Value, module: &Path) -> Result<()> {
    ensure!(url.as_str().is_some_and(|url| url.starts_with(OCI)), "found the url {url}, wanted {OCI}");
    *url = json!(format!("file://{}", module.display()));
    Ok(())
}

/// The module of an EnvoyFilter that has one.
fn local_code(filter: &mut Value, module: &Path) -> Result<()> {
    for patch in filter["spec"]["configPatches"].as_array_mut().into_iter().flatten() {
        if patch["applyTo"] == "EXTENSION_CONFIG" {
            let code = &mut patch["patch"]["value"]["typed_config"]["config"]["vm_config"]["code"];
            let uri = code["remote"]["http_uri"]["uri"].as_str();
            ensure!(uri.is_some_and(|uri| uri.starts_with(OCI)), "found the code {code}, wanted {OCI}");
            *code = json!({ "local": { "filename": module } });
        }
    }
    Ok(())
}

fn plain(gateway: &mut Value, port: u16) -> Result<()> {
    let servers = gateway["spec"]["servers"].as_array_mut().context("a Gateway without servers")?;
    let [server] = servers.as_mut_slice() else { anyhow::bail!("a Gateway with several servers") };
    server["port"] = json!({ "number": port, "name": "http-inference", "protocol": "HTTP" });
    server.as_object_mut().context("a server")?.remove("tls");
    Ok(())
}

fn service_entry(service: &Value) -> Result<Value> {
    let (metadata, spec) = (&service["metadata"], &service["spec"]);
    let name = metadata["name"].as_str().context("a Service without a name")?;
    let namespace = metadata["namespace"].as_str().context("a Service without a namespace")?;
    let ports = spec["ports"].as_array().into_iter().flatten().map(|port| {
        let protocol = port["appProtocol"].as_str().context("a port without an appProtocol")?;
        Ok(json!({ "number": port["port"], "name": port["name"], "protocol": protocol.to_uppercase() }))
    });
    Ok(json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "hosts": [format!("{name}.{namespace}.svc.cluster.local")],
            "location": "MESH_INTERNAL",
            "resolution": "STATIC",
            "ports": ports.collect::<Result<Vec<_>>>()?,
            "workloadSelector": { "labels": spec["selector"] },
        },
    }))
}

fn workload_entry(deployment: &Value, place: &Place) -> Result<Value> {
    let metadata = &deployment["metadata"];
    let name = metadata["name"].as_str().context("a Deployment without a name")?;
    let pods = place.pods.get(name).with_context(|| format!("no server stands for {name}"))?;
    let address = pods.values().next().with_context(|| format!("{name} has no port"))?.ip();
    let ports: BTreeMap<_, _> = pods.iter().map(|(port, at)| (port, at.port())).collect();
    Ok(json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": { "name": name, "namespace": metadata["namespace"] },
        "spec": {
            "address": address,
            "labels": deployment["spec"]["template"]["metadata"]["labels"],
            "ports": ports,
        },
    }))
}
