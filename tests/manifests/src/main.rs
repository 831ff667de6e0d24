//! Checks the manifests of `istio/` and prints what was checked and what is wrong.

use std::env;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use predictgate_manifests::{Sources, check};

fn main() -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let report = check(&Sources {
        manifests: root.join("istio"),
        filter: root.join("filters/predictgate/src"),
        bootstrap: root.join("envoy/quickstart/envoy.yaml"),
        definitions: env::var_os("PREDICTGATE_CRDS").map(Into::into),
    })?;
    println!("{report}");
    Ok(if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
