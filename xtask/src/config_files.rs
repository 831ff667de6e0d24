//! Finds the plugin configurations of Predictgate wherever they stand: in files of Envoy, of Istio, or alone.

use anyhow::{Result, anyhow};
use serde::Deserialize as _;
use serde_json::{Value, json};

/// What a message says when there is none.
pub const LOOKED_FOR: &str = "a Wasm filter's `configuration`, the `pluginConfig` of a WasmPlugin or TrafficExtension, \
     the `config` of an EnvoyExtensionPolicy, a filter by `config_discovery`, or a file that is a plugin configuration itself (it has `models`)";

/// Keys by which a file that is a plugin configuration itself is known.
const OWN_KEYS: [&str; 3] = ["models", "unmatched", "admin_methods"];

const WASM: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";
const TYPED_EXTENSION_CONFIG: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";

/// A plugin configuration, or what stands in its place.
#[derive(Debug, PartialEq)]
pub struct Found {
    /// Where in the file; empty when the file is the configuration.
    pub place: String,
    /// The JSON text that the filter is given, or why it is given none.
    pub text: Result<String, String>,
    /// Something about the plugin beside its configuration names Predictgate.
    pub named: bool,
}

/// A filter whose configuration stands in another file.
#[derive(Debug, PartialEq)]
pub struct Reference {
    pub place: String,
    /// The name that the resource in the other file must have.
    pub name: String,
    /// As Envoy is given it.
    pub path: String,
}

#[derive(Debug, Default, PartialEq)]
pub struct Contents {
    pub found: Vec<Found>,
    pub references: Vec<Reference>,
}

/// The documents of a YAML or JSON file.
///
/// # Errors
///
/// Fails when the text is neither.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    // YAML is a superset of JSON on paper; its readers stumble over tabs.
    let not_json = match serde_json::from_str(text) {
        Ok(value) => return Ok(vec![value]),
        Err(error) => error,
    };
    let read = || -> Result<Vec<Value>> {
        let mut documents = Vec::new();
        for document in yaml_serde::Deserializer::from_str(text) {
            // By way of YAML's own value, which refuses a key that stands twice and allows one that is a number.
            let value = yaml_serde::Value::deserialize(document)?;
            documents.push(serde_json::to_value(value)?);
        }
        documents.retain(|document| !document.is_null());
        Ok(documents)
    };
    read().map_err(|error| {
        if text.trim_start().starts_with('{') {
            anyhow!("not JSON: {not_json}")
        } else {
            anyhow!("not YAML: {error}")
        }
    })
}

/// Every plugin configuration of a file.
pub fn find(text: &str, documents: &[Value]) -> Contents {
    let mut contents = Contents::default();
    for (number, document) in documents.iter().enumerate() {
        if is_plugin_configuration(document) {
            // A JSON file is given as it is, so that the filter's parser sees what stands there.
            let is_json = documents.len() == 1 && serde_json::from_str::<Value>(text).is_ok();
            let text = if is_json { text.to_owned() } else { document.to_string() };
            contents.found.push(Found { place: title(documents, number), text: Ok(text), named: true });
            continue;
        }
        visit(document, &title(documents, number), &mut |place, map| {
            contents.references.extend(reference(place, map));
            contents.found.extend(wasm_filter(place, map));
            contents.found.extend(plugins_of_kubernetes(place, map));
        });
    }
    contents
}

/// The file is Envoy's whole configuration.
pub fn is_bootstrap(document: &Value) -> bool {
    document.get("static_resources").is_some()
}

/// The resource of an ECDS file for the filter `name`; without a name, its first one.
///
/// # Errors
///
/// Says why Envoy would not take the file.
pub fn ecds_resource<'a>(file: &'a Value, name: Option<&str>) -> Result<&'a Value, String> {
    let Some(resources) = file.get("resources").and_then(Value::as_array) else {
        return Err(format!(
            "found no list `resources`, expected resources: [{{\"@type\": {TYPED_EXTENSION_CONFIG}, name, typed_config}}]"
        ));
    };
    let mut names = Vec::new();
    for (number, resource) in resources.iter().enumerate() {
        if type_of(resource) != TYPED_EXTENSION_CONFIG {
            return Err(format!(
                "resources[{number}].@type: found \"{}\", expected {TYPED_EXTENSION_CONFIG}",
                type_of(resource)
            ));
        }
        let own = text_at(resource, "name");
        if name.is_none_or(|name| name == own) {
            return Ok(resource);
        }
        names.push(format!("\"{own}\""));
    }
    match name {
        Some(name) => Err(format!("resources: found {}, expected one named \"{name}\"", names.join(", "))),
        None => Err("resources: found none".to_owned()),
    }
}

/// Puts what `resolve` gives for a filter's reference in the place of the reference.
///
/// # Errors
///
/// The first error of `resolve`.
pub fn inline<E>(
    value: &mut Value,
    resolve: &mut dyn FnMut(&Reference) -> Result<Value, E>,
) -> Result<(), E> {
    if let Some(reference) = reference("", value) {
        let typed_config = resolve(&reference)?;
        *value = json!({ "name": reference.name, "typed_config": typed_config });
        return Ok(());
    }
    children(value).try_for_each(|child| inline(child, resolve))
}

/// Lets every filter that names Predictgate, or every one if none does, run the module at `path`.
pub fn set_module(value: &mut Value, path: &str) {
    let mut any_named = false;
    visit(value, "", &mut |_, map| any_named |= plugin_of(map).is_some_and(names_predictgate));
    set_code(value, path, any_named);
}

fn set_code(value: &mut Value, path: &str, only_named: bool) {
    if let Some(plugin) = plugin_pointer(value).and_then(|pointer| value.pointer_mut(pointer))
        && (!only_named || names_predictgate(plugin))
        && let Some(plugin) = plugin.as_object_mut()
    {
        let vm = plugin.entry("vm_config").or_insert_with(|| json!({}));
        if let Some(vm) = vm.as_object_mut() {
            vm.insert("code".to_owned(), json!({ "local": { "filename": path } }));
        }
    }
    children(value).for_each(|child| set_code(child, path, only_named));
}

fn children(value: &mut Value) -> Box<dyn Iterator<Item = &mut Value> + '_> {
    match value {
        Value::Object(map) => Box::new(map.values_mut()),
        Value::Array(values) => Box::new(values.iter_mut()),
        _ => Box::new(std::iter::empty()),
    }
}

/// An Envoy that has nothing but the filter of an ECDS file.
pub fn bootstrap_around(resource: &Value) -> Value {
    let manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    json!({
        "node": { "id": "check", "cluster": "check" },
        "static_resources": { "listeners": [{
            "name": "check",
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } },
            "filter_chains": [{ "filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": manager,
                    "stat_prefix": "check",
                    "route_config": { "virtual_hosts": [{
                        "name": "all", "domains": ["*"],
                        "routes": [{ "match": { "prefix": "/" }, "direct_response": { "status": 200 } }],
                    }] },
                    "http_filters": [
                        { "name": resource.get("name"), "typed_config": resource.get("typed_config") },
                        { "name": "envoy.filters.http.router", "typed_config": { "@type": router } },
                    ],
                },
            }] }],
        }] },
    })
}

/// What leads to a document: nothing for the only one, else its number and what it is.
fn title(documents: &[Value], number: usize) -> String {
    let Some(document) = documents.get(number).filter(|_| 1 < documents.len()) else { return String::new() };
    let name = document.get("metadata").map(|metadata| text_at(metadata, "name")).unwrap_or_default();
    let words = [text_at(document, "kind"), name];
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let number = number + 1;
    if words.is_empty() {
        format!("document {number}: ")
    } else {
        format!("document {number} ({}): ", words.join(" "))
    }
}

fn is_plugin_configuration(document: &Value) -> bool {
    let has = |key: &str| document.get(key).is_some();
    !has("kind") && !has("@type") && OWN_KEYS.into_iter().any(has)
}

/// Every mapping in `value`, with its place, the outer before the inner.
fn visit(value: &Value, place: &str, see: &mut dyn FnMut(&str, &Value)) {
    match value {
        Value::Object(map) => {
            see(place, value);
            for (key, value) in map {
                visit(value, &under(place, key), see);
            }
        }
        Value::Array(values) => {
            for (number, value) in values.iter().enumerate() {
                visit(value, &format!("{place}[{number}]"), see);
            }
        }
        _ => {}
    }
}

fn under(place: &str, key: &str) -> String {
    let plain = key.chars().all(|c| c.is_ascii_alphanumeric() || "_-@/".contains(c));
    match (plain, place.is_empty() || place.ends_with(' ')) {
        (true, true) => format!("{place}{key}"),
        (true, false) => format!("{place}.{key}"),
        (false, _) => format!("{place}[\"{key}\"]"),
    }
}

fn text_at<'a>(map: &'a Value, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn type_of(map: &Value) -> &str {
    text_at(map, "@type")
}

/// What leads from a Wasm filter, given as itself or as a TypedStruct, to its plugin.
fn plugin_pointer(map: &Value) -> Option<&'static str> {
    if type_of(map).ends_with(WASM) {
        Some("/config")
    } else if type_of(map).ends_with("TypedStruct") && text_at(map, "type_url").ends_with(WASM) {
        Some("/value/config")
    } else {
        None
    }
}

fn plugin_of(map: &Value) -> Option<&Value> {
    map.pointer(plugin_pointer(map)?)
}

fn wasm_filter(place: &str, map: &Value) -> Option<Found> {
    let pointer = plugin_pointer(map)?;
    let plugin = map.pointer(pointer);
    let place = pointer.split('/').skip(1).fold(place.to_owned(), |place, key| under(&place, key));
    Some(Found {
        place: under(&place, "configuration"),
        text: string_value(plugin.and_then(|plugin| plugin.get("configuration"))),
        named: plugin.is_some_and(names_predictgate),
    })
}

fn string_value(configuration: Option<&Value>) -> Result<String, String> {
    const WANTED: &str = "write {\"@type\": type.googleapis.com/google.protobuf.StringValue, value: '<the configuration as JSON text>'}";
    let Some(configuration) = configuration else {
        return Err(format!("found no configuration; {WANTED}"));
    };
    let kind = type_of(configuration);
    match kind.rsplit('.').next() {
        Some("StringValue") => match configuration.get("value") {
            Some(Value::String(text)) => Ok(text.clone()),
            _ => {
                Err("found a StringValue whose `value` is not text, expected the configuration as JSON text"
                    .to_owned())
            }
        },
        Some("Struct") => {
            Err(format!("found a Struct, which reaches the filter as protobuf and not as JSON; {WANTED}"))
        }
        _ => {
            let kind = if kind.is_empty() { "no @type" } else { kind };
            Err(format!("found {kind}, expected a StringValue; {WANTED}"))
        }
    }
}

/// The kinds that carry plugins as mappings: where in them, and what a plugin's configuration is called there.
const CARRIERS: [(&str, &str, &str); 3] = [
    ("WasmPlugin", "spec", "pluginConfig"),
    ("TrafficExtension", "spec.wasm", "pluginConfig"),
    ("EnvoyExtensionPolicy", "spec.wasm", "config"),
];

fn plugins_of_kubernetes(place: &str, map: &Value) -> Vec<Found> {
    let carrier = CARRIERS.into_iter().find(|(kind, ..)| *kind == text_at(map, "kind"));
    let Some((_, path, key)) = carrier else { return Vec::new() };
    let Some(carried) = map.pointer(&format!("/{}", path.replace('.', "/"))) else { return Vec::new() };
    let place = path.split('.').fold(place.to_owned(), |place, key| under(&place, key));
    let plugins = match carried {
        Value::Array(plugins) => {
            plugins.iter().enumerate().map(|(number, it)| (format!("{place}[{number}]"), it)).collect()
        }
        plugin => vec![(place, plugin)],
    };
    let found = plugins.into_iter().map(|(place, plugin)| Found {
        place: under(&place, key),
        text: match plugin.get(key) {
            Some(config @ Value::Object(_)) => Ok(config.to_string()),
            Some(_) => Err("expected a mapping".to_owned()),
            None => Err("found no configuration, expected a mapping with `models`".to_owned()),
        },
        named: [
            plugin.get("url"),
            plugin.get("pluginName"),
            plugin.get("name"),
            map.pointer("/metadata/name"),
        ]
        .into_iter()
        .flatten()
        .any(mentions_predictgate),
    });
    found.collect()
}

fn reference(place: &str, map: &Value) -> Option<Reference> {
    let discovery = map.get("config_discovery")?;
    let is_wasm = |url: &Value| url.as_str().is_some_and(|url| url.ends_with(WASM));
    if !discovery.get("type_urls")?.as_array()?.iter().any(is_wasm) {
        return None;
    }
    let path = discovery.pointer("/config_source/path_config_source/path")?.as_str()?.to_owned();
    Some(Reference { place: under(place, "config_discovery"), name: text_at(map, "name").to_owned(), path })
}

/// Whether a plugin's name, VM or code says that it is Predictgate; its configuration does not count.
fn names_predictgate(plugin: &Value) -> bool {
    let entries = plugin.as_object().into_iter().flatten();
    entries.filter(|(key, _)| *key != "configuration").any(|(_, value)| mentions_predictgate(value))
}

fn mentions_predictgate(value: &Value) -> bool {
    match value {
        Value::String(text) => text.to_ascii_lowercase().contains("predictgate"),
        Value::Array(values) => values.iter().any(mentions_predictgate),
        Value::Object(map) => map.values().any(mentions_predictgate),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
