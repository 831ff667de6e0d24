//! The shipped scenarios agree with the files that they mount, and with each other.
//!
//! That Compose itself takes their files is checked by `cargo xtask ci`.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use predictgate_e2e::plugin::{PluginFile, read_yaml};
use predictgate_e2e::tools::root;
use serde_json::{Value, json};

/// The folders of `envoy/`.
fn scenarios() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("envoy")).unwrap();
    let mut folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.join("envoy.yaml").exists());
    assert!(2 <= folders.len(), "{folders:?}");
    folders
}

/// The host's path of a container's path, by the volumes of a service.
fn host_path(service: &Value, path: &str) -> Option<String> {
    service["volumes"].as_array()?.iter().find_map(|volume| {
        let mut parts = volume.as_str()?.split(':');
        let (host, container) = (parts.next()?, parts.next()?);
        let rest = path.strip_prefix(container)?.strip_prefix('/')?;
        Some(format!("{}/{rest}", host.trim_end_matches('/')))
    })
}

#[test]
fn every_path_and_host_that_the_files_name_is_there() {
    for directory in scenarios() {
        let compose = read_yaml(&directory.join("docker-compose.yaml")).unwrap();
        let bootstrap = read_yaml(&directory.join("envoy.yaml")).unwrap();
        let plugin = PluginFile::load(&directory.join("predictgate.yaml")).unwrap();
        let envoy = &compose["services"]["envoy"];

        let filters = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";
        let filters = bootstrap.pointer(filters).unwrap().as_array().unwrap();
        let discovered = filters.iter().find(|filter| filter["config_discovery"].is_object()).unwrap();
        let path = discovered.pointer("/config_discovery/config_source/path_config_source/path").unwrap();
        let path = host_path(envoy, path.as_str().unwrap()).unwrap();
        assert!(directory.join(&path).is_file(), "{}: {path}", directory.display());

        let module = "/resources/0/typed_config/config/vm_config/code/local/filename";
        let module = plugin.0.pointer(module).unwrap().as_str().unwrap();
        assert_eq!(host_path(envoy, module).unwrap(), "../../target/predictgate.wasm");

        let text = bootstrap.to_string();
        for pool in ["tfs-v1", "tfs-v2"] {
            let service = &compose["services"][pool];
            assert!(text.contains(&format!("\"address\":\"{pool}\"")), "{}: {pool}", directory.display());
            let flag = service["command"][0].as_str().unwrap().strip_prefix("--model_config_file=").unwrap();
            let volume = service["volumes"][0].as_str().unwrap();
            let file = volume.strip_suffix(&format!(":{flag}:ro")).unwrap();
            assert!(directory.join(file).is_file(), "{}: {file}", directory.display());
        }
    }
}

#[test]
fn images_are_pinned_and_only_two_ports_are_published() {
    for directory in scenarios() {
        let compose = read_yaml(&directory.join("docker-compose.yaml")).unwrap();
        let services = compose["services"].as_object().unwrap();
        for (name, service) in services {
            let image = service["image"].as_str().unwrap();
            let (_, tag) = image.split_once(':').unwrap();
            assert!(tag.contains('.') && !tag.contains("latest"), "{name}: {image}");
        }
        let ports = services.values().filter_map(|service| service["ports"].as_array()).flatten();
        let ports: BTreeSet<_> = ports.map(|port| port.as_str().unwrap()).collect();
        assert_eq!(ports, BTreeSet::from(["8080:8080", "127.0.0.1:9902:9902"]), "{}", directory.display());
    }
}

/// What has nothing to do with where requests go, so that a scenario may not have it in its own way: limits,
/// timeouts, what callers may set, what is logged and counted.
fn around_the_routes(mut bootstrap: Value) -> Value {
    let mut models = bootstrap["static_resources"]["listeners"][0].take();
    let manager = &mut models["filter_chains"][0]["filters"][0]["typed_config"];
    for own in ["route_config", "http_filters", "early_header_mutation_extensions"] {
        manager[own] = Value::Null;
    }
    json!({
        "admin": bootstrap["admin"],
        "models": models,
        "metrics": bootstrap["static_resources"]["listeners"][1],
        "stats_config": bootstrap["stats_config"],
        "overload_manager": bootstrap["overload_manager"],
    })
}

#[test]
fn the_scenarios_differ_only_in_where_requests_go() {
    let of = |directory: &PathBuf| around_the_routes(read_yaml(&directory.join("envoy.yaml")).unwrap());
    let quickstart = of(&root().join("envoy/quickstart"));
    assert!(quickstart.as_object().unwrap().values().all(|part| !part.is_null()), "{quickstart}");
    for directory in scenarios() {
        let own = of(&directory);
        for (part, wanted) in quickstart.as_object().unwrap() {
            assert_eq!(&own[part], wanted, "{part} of {}", directory.display());
        }
    }
}

#[test]
fn every_header_that_steers_is_removed_from_callers_by_envoy_itself() {
    for directory in scenarios() {
        let bootstrap = read_yaml(&directory.join("envoy.yaml")).unwrap();
        let mutations = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config\
                         /early_header_mutation_extensions/0/typed_config/mutations";
        let mutations = bootstrap.pointer(mutations).unwrap().as_array().unwrap();
        let removed: BTreeSet<_> = mutations.iter().filter_map(|it| it["remove"].as_str()).collect();
        let mut steer: BTreeSet<_> =
            ["cluster", "target", "mirror-cluster"].map(|name| format!("x-predictgate-{name}")).into();
        let plugin = PluginFile::load(&directory.join("predictgate.yaml")).unwrap();
        for model in plugin.configuration().unwrap()["models"].as_array().unwrap() {
            for target in model["targets"].as_object().unwrap().values() {
                steer.extend(
                    target["headers"].as_object().into_iter().flatten().map(|(name, _)| name.clone()),
                );
            }
        }
        for name in steer {
            assert!(removed.contains(name.as_str()), "{} lets callers set {name}", directory.display());
        }
    }
}
