//! What the library, run without an Envoy, decides for a caller.

use std::collections::BTreeMap;

use predictgate::config;
use predictgate::exchange::{Exchange, Local, MIRROR_HEADER, Origin, TARGET_HEADER, World, headers};
use predictgate::headers::Headers;
use predictgate::host::Host;
use predictgate::policy::Policy;
use predictgate::store::{MemStore, SharedStore};
use predictgate::units::{Instant, WallTime};
use predictgate::verdict::Verdict;
use predictgate_e2e::plugin::PluginFile;

/// The configuration that Envoy was given, accepted by the library.
pub struct Native(Policy);

/// Who calls, as Envoy should see it.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    pub headers: Vec<(String, Vec<u8>)>,
    /// With a port.
    pub address: Option<String>,
    pub peer_san: Option<String>,
    /// The claims of the verified token, as bytes.
    pub claims: BTreeMap<String, Vec<u8>>,
}

/// What was decided for a request that asks for no version of resnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    pub target: String,
    pub is_mirrored: bool,
}

impl Native {
    pub fn of(plugin: &PluginFile) -> Self {
        Self(config::parse(&plugin.configuration().unwrap().to_string()).unwrap())
    }

    /// Decides with chance of any seed: who has a key must not depend on it.
    pub fn chosen(&self, caller: &Caller) -> Chosen {
        let mut pairs = vec![
            (":method".to_owned(), b"POST".to_vec()),
            (":path".to_owned(), b"/v1/models/resnet:predict".to_vec()),
            (":authority".to_owned(), b"models".to_vec()),
        ];
        pairs.extend(caller.headers.iter().cloned());
        let mut world = World {
            policy: &self.0,
            local: &mut Local::new(&self.0, Origin { seed: 1, ..Origin::default() }),
            now: Instant::default(),
            host: &Told { caller, store: MemStore::default() },
            explains: false,
        };
        let verdict = Exchange::new(1).request_headers(&mut world, Headers::from_pairs(&pairs), false);
        let Verdict::Forward(forward) = verdict else { panic!("{verdict:?}") };
        let set = |name: &str| {
            headers(&self.0, &forward).find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        };
        Chosen { target: set(TARGET_HEADER).unwrap(), is_mirrored: set(MIRROR_HEADER).is_some() }
    }

    pub fn target(&self, caller: &Caller) -> String {
        self.chosen(caller).target
    }
}

impl Caller {
    pub fn with_header(name: &str, value: impl AsRef<[u8]>) -> Self {
        Self { headers: vec![(name.to_owned(), value.as_ref().to_vec())], ..Self::default() }
    }
}

/// A host that tells of one caller, and has one worker.
struct Told<'a> {
    caller: &'a Caller,
    store: MemStore,
}

impl Host for Told<'_> {
    fn source_address(&self) -> Option<Vec<u8>> {
        self.caller.address.clone().map(String::into_bytes)
    }

    fn peer_san(&self) -> Option<Vec<u8>> {
        self.caller.peer_san.clone().map(String::into_bytes)
    }

    fn jwt_claim(&self, claim: &str) -> Option<Vec<u8>> {
        self.caller.claims.get(claim).cloned()
    }

    fn wall_time(&self) -> WallTime {
        WallTime::default()
    }

    fn now(&self) -> Instant {
        Instant::default()
    }

    fn store(&self) -> &dyn SharedStore {
        &self.store
    }
}
