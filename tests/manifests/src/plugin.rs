//! The filter in the manifests: its configuration, its module, and what the API that carries it can do.

use serde_json::{Map, Value};

use crate::Fault;
use crate::object::{self, Object, list, text};

/// The filter as an object carries it.
pub struct Carried<'a> {
    /// Where in the object the configuration stands.
    pub place: String,
    /// The JSON text that the filter is given.
    pub configuration: Result<String, &'static str>,
    /// The digest of the module's image.
    digest: &'a str,
    /// Envoy can hold headers until the first bytes of the body have come.
    can_hold: bool,
}

const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

/// Every filter that an object carries.
pub fn carried(object: &Object) -> Vec<Carried<'_>> {
    match object.kind() {
        "WasmPlugin" => vec![istio(object, "/spec")],
        "TrafficExtension" => vec![istio(object, "/spec/wasm")],
        "EnvoyExtensionPolicy" => {
            let filters = object.list("/spec/wasm").iter().enumerate();
            let carried = filters.map(|(number, filter)| Carried {
                place: format!("spec.wasm[{number}].config"),
                configuration: mapping(filter.get("config")),
                digest: text(filter, "/code/image/sha256"),
                can_hold: false,
            });
            carried.collect()
        }
        "EnvoyFilter" => {
            let patches = object.list("/spec/configPatches").iter().enumerate();
            let filters = patches.filter_map(|(number, patch)| {
                let filter = patch.pointer("/patch/value/typed_config")?;
                (text(filter, "/@type") == WASM).then_some((number, filter))
            });
            let carried = filters.map(|(number, filter)| Carried {
                place: format!("spec.configPatches[{number}].patch.value.typed_config.config.configuration"),
                configuration: match text(filter, "/config/configuration/value") {
                    "" => Err("found no StringValue with the configuration as JSON text"),
                    value => Ok(value.to_owned()),
                },
                digest: text(filter, "/config/vm_config/code/remote/sha256"),
                can_hold: filter.pointer("/config/allow_on_headers_stop_iteration")
                    == Some(&Value::Bool(true)),
            });
            carried.collect()
        }
        _ => Vec::new(),
    }
}

fn istio<'a>(object: &'a Object, at: &str) -> Carried<'a> {
    let url = object.text(&format!("{at}/url"));
    Carried {
        place: format!("{}.pluginConfig", at.trim_start_matches('/').replace('/', ".")),
        configuration: mapping(object.value.pointer(&format!("{at}/pluginConfig"))),
        digest: url.split_once("@sha256:").map_or("", |(_, digest)| digest),
        can_hold: false,
    }
}

fn mapping(configuration: Option<&Value>) -> Result<String, &'static str> {
    match configuration {
        Some(mapping @ Value::Object(_)) => Ok(mapping.to_string()),
        _ => Err("found no mapping with the configuration"),
    }
}

/// The configurations that an object carries, also those that the filter would refuse.
pub fn configurations(object: &Object) -> Vec<Value> {
    let texts = carried(object).into_iter().filter_map(|it| it.configuration.ok());
    texts.filter_map(|text| serde_json::from_str(&text).ok()).collect()
}

/// Every header that some target of a configuration sets, with its value.
pub fn headers(configuration: &Value) -> Vec<(String, String)> {
    let targets = list(configuration, "/models")
        .iter()
        .filter_map(|model| model.get("targets")?.as_object())
        .flat_map(Map::values);
    let headers = targets.filter_map(|target| target.get("headers")?.as_object()).flatten();
    headers
        .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}

/// Every header that a key of a limit or of a sticky split is made of.
pub fn keys(configuration: &Value) -> Vec<&str> {
    let models = list(configuration, "/models").iter();
    let limits = models.clone().flat_map(|model| list(model, "/rate_limits"));
    let limits = limits.chain(list(configuration, "/rate_limits"));
    let sticky = models.flat_map(|model| list(model, "/routes")).filter_map(|route| route.get("sticky"));
    let sources = limits.chain(sticky).flat_map(|keyed| list(keyed, "/by"));
    sources.filter_map(|source| source.get("header")?.as_str()).collect()
}

pub fn check(object: &Object, faults: &mut Vec<Fault>) {
    for it in carried(object) {
        let mut fault = |problem: String| {
            faults.push(Fault::new(object.place(), format!("{}: {problem}", it.place)));
        };
        let text = match &it.configuration {
            Ok(text) => text,
            Err(problem) => {
                fault((*problem).to_owned());
                continue;
            }
        };
        if let Err(errors) = predictgate::config::parse(text) {
            for error in errors {
                let separator = if error.path.is_empty() { "" } else { ": " };
                fault(format!("{}{separator}{}", error.path, error.problem));
            }
        }
        let configuration: Value = serde_json::from_str(text).unwrap_or_default();
        if !it.can_hold && matches!(object::text(&configuration, "/identity/grpc"), "" | "body") {
            fault("identity.grpc: found body mode, which needs allow_on_headers_stop_iteration".to_owned());
        }
        if it.digest.len() != 64 || !it.digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let found = if it.digest.is_empty() { "no digest" } else { it.digest };
            fault(format!("the module: found {found}, expected the sha256 of the image's manifest"));
        }
    }
    if matches!(object.kind(), "WasmPlugin" | "TrafficExtension") {
        attached(object, faults);
    }
    for patch in object.list("/spec/configPatches") {
        let remote = patch.pointer("/patch/value/typed_config/config/vm_config/code/remote");
        let Some(remote) = remote else { continue };
        let (uri, digest) = (text(remote, "/http_uri/uri"), text(remote, "/sha256"));
        if !uri.ends_with(&format!("@sha256:{digest}")) {
            let problem =
                format!("the module: found {uri} with sha256 {digest}, expected the same digest twice");
            faults.push(Fault::new(object.place(), problem));
        }
    }
}

/// What Istio would guess wrong.
fn attached(object: &Object, faults: &mut Vec<Fault>) {
    let at = if object.kind() == "WasmPlugin" { "/spec" } else { "/spec/wasm" };
    let mut fault = |problem: &str| faults.push(Fault::new(object.place(), problem));
    if object.value.pointer("/spec/priority").is_none() {
        fault("spec.priority: found none, which sorts behind every plugin that has one");
    }
    if object.text(&format!("{at}/failStrategy")) != "FAIL_RELOAD" {
        fault("failStrategy: expected FAIL_RELOAD, or a crash ends the filter for good");
    }
    for place in object.list("/spec/match") {
        if !list(place, "/ports").is_empty() {
            fault("spec.match.ports: they are the pod's and not the Service's, expected none");
        }
    }
}

/// The forms of the filter differ in `identity` alone, and run one module.
pub fn same(objects: &[Object], faults: &mut Vec<Fault>) {
    let all = objects.iter().flat_map(|object| carried(object).into_iter().map(move |it| (object, it)));
    let mut first: Option<(String, Value, String)> = None;
    for (object, it) in all {
        let Some(mut configuration) = it.configuration.ok().and_then(|text| serde_json::from_str(&text).ok())
        else {
            continue;
        };
        if let Value::Object(map) = &mut configuration {
            map.remove("identity");
        }
        let Some((place, other, digest)) = &first else {
            first = Some((object.place(), configuration, it.digest.to_owned()));
            continue;
        };
        if *other != configuration {
            let problem = format!("{}: differs from that of {place} in more than `identity`", it.place);
            faults.push(Fault::new(object.place(), problem));
        }
        if digest != it.digest {
            faults.push(Fault::new(object.place(), format!("the module: another one than in {place}")));
        }
    }
}
