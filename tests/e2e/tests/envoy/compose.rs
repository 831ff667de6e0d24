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
fn images_are_public_and_pinned_and_only_callers_have_a_port_beyond_this_machine() {
    const PUBLIC: [&str; 4] =
        ["envoyproxy/envoy", "tensorflow/serving", "tensorflow/tensorflow", "prom/prometheus"];
    for directory in scenarios() {
        let compose = read_yaml(&directory.join("docker-compose.yaml")).unwrap();
        let services = compose["services"].as_object().unwrap();
        for (name, service) in services {
            let image = service["image"].as_str().unwrap();
            let (public, tag) = image.split_once(':').unwrap();
            assert!(PUBLIC.contains(&public), "{name}: {image}");
            assert!(tag.contains('.') && !tag.contains("latest"), "{name}: {image}");
            // Whatever is not in an image comes from this repository, and nothing writes to it.
            for volume in service["volumes"].as_array().into_iter().flatten() {
                let volume = volume.as_str().unwrap();
                let (host, rest) = volume.split_once(':').unwrap();
                let is_built = host == "../../target" || host == "models";
                assert!(is_built || directory.join(host).exists(), "{name}: {volume}");
                assert!(host == "models" || rest.ends_with(":ro"), "{name}: {volume}");
            }
        }
        let ports = services.values().filter_map(|service| service["ports"].as_array()).flatten();
        let ports: BTreeSet<_> = ports.map(|port| port.as_str().unwrap()).collect();
        let published = BTreeSet::from(["8080:8080", "127.0.0.1:9902:9902", "127.0.0.1:9090:9090"]);
        assert_eq!(ports, published, "{}", directory.display());
    }
}

#[test]
fn every_scenario_has_the_services_of_the_quickstart() {
    let of = |directory: &PathBuf| read_yaml(&directory.join("docker-compose.yaml")).unwrap();
    let quickstart = of(&root().join("envoy/quickstart"));
    for directory in scenarios() {
        assert_eq!(of(&directory), quickstart, "{}", directory.display());
    }
}

#[test]
fn whoever_needs_a_service_waits_until_it_is_healthy_or_done() {
    let compose = read_yaml(&root().join("envoy/quickstart/docker-compose.yaml")).unwrap();
    let services = compose["services"].as_object().unwrap();
    // What ends by itself cannot be asked for its health.
    let ends = |name: &str| ["module", "build-models", "verify"].contains(&name);
    for (name, service) in services {
        assert_eq!(service["healthcheck"].is_null(), ends(name), "{name}");
        for (needed, how) in service["depends_on"].as_object().into_iter().flatten() {
            let wanted = if ends(needed) { "service_completed_successfully" } else { "service_healthy" };
            assert_eq!(how["condition"], wanted, "{name} needs {needed}");
        }
    }
    let needs = |name: &str, needed: &str| services[name]["depends_on"][needed].is_object();
    for (name, needed) in [
        ("envoy", "module"),
        ("envoy", "tfs-v1"),
        ("envoy", "tfs-v2"),
        ("tfs-v1", "build-models"),
        ("tfs-v2", "build-models"),
        ("verify", "envoy"),
        ("prometheus", "envoy"),
    ] {
        assert!(needs(name, needed), "{name} does not wait for {needed}");
    }
}

#[test]
fn prometheus_scrapes_the_listener_that_shows_metrics() {
    let prometheus = read_yaml(&root().join("envoy/prometheus/prometheus.yml")).unwrap();
    let scrape = &prometheus["scrape_configs"][0];
    let target = scrape["static_configs"][0]["targets"][0].as_str().unwrap();
    let (host, port) = target.split_once(':').unwrap();
    for directory in scenarios() {
        let compose = read_yaml(&directory.join("docker-compose.yaml")).unwrap();
        assert!(compose["services"][host].is_object(), "{target}");
        let mount = host_path(&compose["services"]["prometheus"], "/etc/prometheus/prometheus.yml").unwrap();
        assert!(directory.join(&mount).is_file(), "{mount}");
        let bootstrap = read_yaml(&directory.join("envoy.yaml")).unwrap();
        let listener = &bootstrap["static_resources"]["listeners"][1];
        assert_eq!(listener["address"]["socket_address"]["port_value"].to_string(), port);
        let routes = "/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes";
        let routes = listener.pointer(routes).unwrap().as_array().unwrap();
        assert!(routes.iter().any(|route| route["match"]["path"] == scrape["metrics_path"]), "{routes:?}");
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
