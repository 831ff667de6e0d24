//! Two pools, an istiod with the manifests, and the gateway that it configures.

use http::Method;
use model_server::client::{Client, rest};
use model_server::{Rpc, Server};
use predictgate_e2e::Pools;
use predictgate_e2e::pools::MODEL;
use predictgate_istio::{Gateway, Istiod, Manifests, Place, Port, configuration};
use serde_json::{Value, json};

pub const X: [f32; 3] = [1.0, 2.0, 5.0];
/// The host of the Gateway and of the VirtualService.
const HOST: &str = "inference.example.com";

/// What brings the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    WasmPlugin,
    TrafficExtension,
    EnvoyFilter,
}

impl By {
    /// The folder of `istio/` that has it, which is applied beside `tf-serving`.
    pub fn folder(self) -> &'static str {
        match self {
            Self::WasmPlugin => "base",
            Self::TrafficExtension => "overlays/istio-1.30",
            Self::EnvoyFilter => "overlays/body",
        }
    }

    /// As Envoy knows the filter: a WasmPlugin is what istiod makes of it.
    pub fn filter(self) -> &'static str {
        match self {
            Self::WasmPlugin => {
                "extensions.istio.io/trafficextension/istio-ingress.predictgate~istio-translated-wasmplugin"
            }
            Self::TrafficExtension => "extensions.istio.io/trafficextension/istio-ingress.predictgate",
            Self::EnvoyFilter => "predictgate",
        }
    }

    pub fn manifests(self) -> Manifests {
        Manifests::shipped(&[self.folder(), "tf-serving"]).unwrap()
    }
}

pub struct Stage {
    pub pools: Pools,
    pub istiod: Istiod,
    pub gateway: Gateway,
    /// What istiod has been given first.
    pub manifests: Manifests,
    _port: Port,
}

impl Stage {
    pub async fn of(by: By) -> Self {
        Self::with(by.manifests()).await
    }

    pub async fn with(manifests: Manifests) -> Self {
        let pools = Pools::start().await.unwrap();
        let port = Port::reserve().unwrap();
        let place = Place::of(port.number().unwrap(), &pools).unwrap();
        let manifests = manifests.at(&place).unwrap();
        let istiod = Istiod::start(&manifests).await.unwrap();
        let gateway = Gateway::start(istiod.addr, port.number().unwrap()).await.unwrap();
        Self { pools, istiod, gateway, manifests, _port: port }
    }

    /// The configuration of the only filter that Envoy has discovered.
    pub async fn configured(&self, by: By) -> Value {
        let discovered = self.gateway.discovered().await.unwrap();
        let [(name, filter)] = discovered.as_slice() else { panic!("{discovered:?}") };
        assert_eq!(name, by.filter());
        configuration(filter).unwrap()
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.gateway.addr).await.unwrap().with_authority(HOST)
    }

    pub async fn rest(&self, path: &str, headers: &[(&str, &[u8])]) -> rest::RestReply {
        let body = json!({ "instances": X }).to_string();
        let headers: Vec<_> = headers.iter().copied().chain([("host", HOST.as_bytes())]).collect();
        rest::request(self.gateway.addr, Method::POST, path, &headers, body.into()).await.unwrap()
    }

    /// How many inferences each pool has executed.
    pub fn executed(&self) -> (u64, u64) {
        self.pools.executed()
    }

    /// How many Predicts have come to each pool, whatever became of them.
    pub fn received(&self) -> (u64, u64) {
        let received = |server: &Server| {
            let received = server.received();
            received.iter().filter(|it| it.rpc == Some(Rpc::Predict)).count() as u64
        };
        (received(&self.pools.v1), received(&self.pools.v2))
    }
}

/// A client that names the model in headers, and more.
pub fn named(client: &Client, asked: &[(&str, &str)]) -> Client {
    let client = client.clone().with_metadata("x-model-name", MODEL);
    asked.iter().fold(client, |client, (name, value)| client.with_metadata(name, value))
}
