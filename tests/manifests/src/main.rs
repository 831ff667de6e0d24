//! Checks the manifests of `istio/` and prints what was checked and what is wrong.

use std::env;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use predictgate_manifests::{Checker, Sources};

fn main() -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let given = |variable| env::var_os(variable).filter(|value| !value.is_empty()).map(Into::into);
    let sources = Sources {
        filter: root.join("filters/predictgate/src"),
        bootstrap: root.join("envoy/quickstart/envoy.yaml"),
        prometheus: root.join("envoy/prometheus"),
        definitions: given("PREDICTGATE_CRDS"),
        kustomize: given("PREDICTGATE_KUSTOMIZE"),
    };
    if sources.definitions.is_none() {
        eprintln!(
            "PREDICTGATE_CRDS names no folder of CustomResourceDefinitions: schemas and CEL rules are left out"
        );
    }
    if sources.kustomize.is_none() {
        eprintln!("PREDICTGATE_KUSTOMIZE names no kustomize: whether it builds the same is left out");
    }
    let report = Checker::load(&sources)?.check(&root.join("istio"))?;
    println!("{report}");
    Ok(if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
