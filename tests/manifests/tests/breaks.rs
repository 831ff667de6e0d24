//! Breaks the manifests one by one: each time the check names the file and the reason.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use predictgate_manifests::{Checker, Fault, Sources};
use tempfile::TempDir;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn checker(prometheus: PathBuf) -> Checker {
    let sources = Sources {
        filter: root().join("filters/predictgate/src"),
        bootstrap: root().join("envoy/quickstart/envoy.yaml"),
        prometheus,
        definitions: definitions(),
        kustomize: None,
    };
    Checker::load(&sources).unwrap()
}

fn definitions() -> Option<PathBuf> {
    std::env::var_os("PREDICTGATE_CRDS").filter(|value| !value.is_empty()).map(Into::into)
}

/// The folder beside the manifests that is checked with them.
const PROMETHEUS: &str = "prometheus";

/// A copy of the manifests in `istio` and of the folder beside them, to be broken, and what is wrong with it before.
struct Copy {
    folder: TempDir,
    checker: Checker,
    before: BTreeSet<Fault>,
}

impl Copy {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let manifests = files().into_iter().map(|file| (root().join("istio").join(&file), file));
        let beside = fs::read_dir(root().join("envoy").join(PROMETHEUS)).unwrap().map(|entry| {
            let entry = entry.unwrap();
            (entry.path(), format!("{PROMETHEUS}/{}", entry.file_name().to_str().unwrap()))
        });
        for (from, file) in manifests.chain(beside) {
            let to = place(folder.path(), &file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from, to).unwrap();
        }
        let checker = checker(folder.path().join(PROMETHEUS));
        let mut copy = Self { folder, checker, before: BTreeSet::new() };
        copy.before = copy.faults().into_iter().collect();
        copy
    }

    fn faults(&self) -> Vec<Fault> {
        self.checker.check(&self.folder.path().join("istio")).unwrap().faults
    }

    /// The faults that there are after `change`, and were not before.
    #[track_caller]
    fn faults_after(&self, file: &str, change: impl FnOnce(&str) -> String) -> Vec<Fault> {
        let path = place(self.folder.path(), file);
        let text = fs::read_to_string(&path).unwrap();
        let changed = change(&text);
        assert_ne!(changed, text, "{file} is not changed");
        fs::write(&path, changed).unwrap();
        let after = self.faults();
        fs::write(&path, text).unwrap();
        after.into_iter().filter(|fault| !self.before.contains(fault)).collect()
    }
}

/// Where a file stands in a copy.
fn place(copy: &Path, file: &str) -> PathBuf {
    if file.starts_with(PROMETHEUS) { copy.join(file) } else { copy.join("istio").join(file) }
}

/// The YAML files of the manifests.
fn files() -> Vec<String> {
    let manifests = root().join("istio");
    let (mut files, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(manifests.join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if manifests.join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                files.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    files
}

/// Files, what stands there, what is put in its place everywhere in the file, and what the check says then.
const BREAKS: [(&str, &str, &str, &str); 39] = [
    ("base/wasmplugin.yaml", "failStrategy:", "failStrateggy:", "spec.failStrateggy: unknown key"),
    (
        "base/wasmplugin.yaml",
        "unmatched:",
        "unmached:",
        "unmached: unknown key (did you mean \"unmatched\"?)",
    ),
    ("base/wasmplugin.yaml", "weight: 95", "weight: -1", "models[0].routes[3].split[0].weight"),
    (
        "base/wasmplugin.yaml",
        "version: \"2\"",
        "version: \"2\", vers: 1",
        "models[0].routes[1].match.vers: unknown key",
    ),
    ("base/wasmplugin.yaml", "x-model-pool: v2", "x-model-pool: v3", "no route matches x-model-pool: v3"),
    ("base/wasmplugin.yaml", "x-model-pool: v2", "x-modell-pool: v2", "no route matches x-modell-pool: v2"),
    ("base/wasmplugin.yaml", "grpc: metadata", "grpc: body", "needs allow_on_headers_stop_iteration"),
    (
        "base/wasmplugin.yaml",
        "target: canary, weight: 5",
        "target: canary, weight: 6",
        "in more than `identity`",
    ),
    ("base/wasmplugin.yaml", "@sha256:", ":0.1.0-", "expected the sha256 of the image's manifest"),
    ("base/wasmplugin.yaml", "sha256:0", "sha256:1", "another one than in"),
    ("base/wasmplugin.yaml", "priority: 100", "", "spec.priority: found none"),
    ("base/wasmplugin.yaml", "FAIL_RELOAD", "FAIL_OPEN", "expected FAIL_RELOAD"),
    (
        "base/wasmplugin.yaml",
        "- mode: CLIENT",
        "- mode: CLIENT\n    ports: [{ number: 443 }]",
        "spec.match.ports",
    ),
    ("base/virtualservice.yaml", "subset: v2", "subset: v3", "there is no subset v3"),
    ("base/virtualservice.yaml", "number: 8501", "number: 8502", "there is no port"),
    (
        "base/virtualservice.yaml",
        "exact: v2",
        "exact: v4",
        "a route matches x-model-pool: v4, which no target sets",
    ),
    (
        "base/virtualservice.yaml",
        "    - uri: { prefix: /v1/models/ }\n    route",
        "    route",
        "the last match asks for a header",
    ),
    ("base/virtualservice.yaml", "istio-ingress/inference", "istio-ingress/inferense", "there is no Gateway"),
    (
        "base/virtualservice.yaml",
        "    route:\n",
        "    route:\n    - { destination: { host: a }, weight: 5 }\n",
        "found 2 destinations, expected one: the weights are the filter's",
    ),
    ("base/destinationrule.yaml", "- name: v2", "- name: canary", "there is no subset v2"),
    ("base/destinationrule.yaml", "tfs-pool: v2", "tfs-pool: v5", "its labels select no pods"),
    (
        "overlays/body/envoyfilter.yaml",
        "iteration: true",
        "iteration: false",
        "needs allow_on_headers_stop_iteration",
    ),
    ("overlays/body/envoyfilter.yaml", "sha256: \"0", "sha256: \"1", "expected the same digest twice"),
    (
        "overlays/body/kustomization.yaml",
        "name: predictgate",
        "name: predictgat",
        "there is no WasmPlugin predictgat",
    ),
    (
        "overlays/istio-1.30/kustomization.yaml",
        "$patch: delete",
        "",
        "this check only knows `$patch: delete`",
    ),
    (
        "overlays/security/strip-headers.yaml",
        "              - remove: x-model-pool\n",
        "",
        "does not remove x-model-pool",
    ),
    ("overlays/security/requestauthentication.yaml", "x-tenant", "x-tenants", "no claim becomes x-tenant"),
    (
        "overlays/monitoring/prometheusrule.yaml",
        "(predictgate_requests[",
        "(predictgate_request[",
        "nothing counts that",
    ),
    ("overlays/monitoring/prometheusrule.yaml", "{result=\"host", "{results=\"host", "has no label results"),
    (
        "overlays/monitoring/prometheusrule.yaml",
        "for: 5m",
        "for: 6m",
        "prometheus/rules.yml: group predictgate: is another one in",
    ),
    ("prometheus/rules.yml", "> 0.02", "> 0.03", "expected the same rules in both"),
    (
        "prometheus/rules.yml",
        "(predictgate_ejected)",
        "(predictgate_ejecte)",
        "predictgate_ejecte: nothing counts",
    ),
    ("prometheus/dashboard.json", "duration_ms_bucket[", "duration_ms_buckets[", "nothing counts that"),
    ("prometheus/dashboard.json", "{reason!=", "{reasons!=", "has no label reasons"),
    (
        "overlays/autoscaling/scaledobjects.yaml",
        "(predictgate_requests{",
        "(predictgate_request{",
        "nothing counts that",
    ),
    (
        "overlays/autoscaling-hpa/hpa.yaml",
        "tf-serving-v2",
        "tf-serving-v3",
        "there is no Deployment tf-serving-v3",
    ),
    ("tf-serving/service.yaml", "targetPort: http-rest", "targetPort: http", "has no such port"),
    (
        "tf-serving/pool-v2.yaml",
        "configMap: { name: tf-serving-v2",
        "configMap: { name: tf-serving-v3",
        "no ConfigMap",
    ),
    ("gateway-values.yaml", "limit, cause", "cause", "extraStatTags"),
];

#[test]
fn what_does_not_fit_is_found_with_its_file_and_the_reason() {
    let copy = Copy::new();
    for (file, from, to, expected) in BREAKS {
        let faults = copy.faults_after(file, |text| text.replace(from, to));
        let found = faults.iter().any(|fault| fault.to_string().contains(expected));
        assert!(found, "{file}: {from:?} as {to:?}, expected {expected:?}: {faults:#?}");
    }
}

#[test]
fn weights_that_sum_to_nothing_are_found() {
    let copy = Copy::new();
    let faults = copy.faults_after("base/wasmplugin.yaml", |text| {
        text.replace("weight: 95", "weight: 0").replace("weight: 5", "weight: 0")
    });
    let of_sum = |fault: &&Fault| fault.problem.contains("split: ") && fault.problem.contains("sum");
    let fault = faults.iter().find(of_sum).unwrap_or_else(|| panic!("{faults:#?}"));
    assert_eq!(fault.place, "base/wasmplugin.yaml: WasmPlugin predictgate");
}

#[test]
fn an_unknown_key_is_found_in_every_file() {
    let copy = Copy::new();
    // Without their definitions nothing knows the keys of these.
    let unknown =
        ["TrafficExtension", "ScaledObject", "PodMonitor", "PrometheusRule", "EnvoyExtensionPolicy"];
    for file in files().iter().filter(|file| !file.ends_with("-values.yaml")) {
        let text = fs::read_to_string(root().join("istio").join(file)).unwrap();
        if definitions().is_none() && unknown.iter().any(|kind| text.contains(&format!("kind: {kind}\n"))) {
            continue;
        }
        let faults = copy.faults_after(file, |text| text.replacen("kind:", "unexpected: 1\nkind:", 1));
        let found = faults.iter().any(|fault| {
            fault.to_string().starts_with(file.as_str()) && fault.problem.contains("unexpected")
        });
        assert!(found, "{file}: {faults:#?}");
    }
}

#[test]
fn a_file_that_nothing_applies_is_found() {
    let copy = Copy::new();
    let file = "overlays/security/kustomization.yaml";
    let faults = copy.faults_after(file, |text| text.replace("- networkpolicy.yaml\n", ""));
    assert!(faults.iter().any(|fault| fault.place == "overlays/security/networkpolicy.yaml"), "{faults:#?}");
}
