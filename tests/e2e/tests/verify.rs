//! What the service `verify` of every `docker-compose.yaml` runs, against the Envoy of that scenario.

use std::fs;

use predictgate_e2e::tensorflow::python;
use predictgate_e2e::tools::root;
use predictgate_e2e::{Envoy, Pools, Scenario};
use serde_json::json;

async fn start(scenario: Scenario) -> Envoy {
    let envoy = scenario.start().await.unwrap();
    envoy.wait_until_healthy().await.unwrap();
    envoy
}

/// Whether the program ends well, and what it prints. TensorFlow takes seconds to import, so it asks all at once.
fn verify(envoys: &[Envoy]) -> (bool, String) {
    let addresses = envoys.iter().map(|envoy| envoy.addr.to_string());
    let output = python().unwrap().arg(root().join("envoy/verify.py")).args(addresses).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    eprintln!("{printed}{}", String::from_utf8_lossy(&output.stderr));
    (output.status.success(), printed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shipped_scenario_passes() {
    let folders = fs::read_dir(root().join("envoy")).unwrap().map(|entry| entry.unwrap().path());
    let folders: Vec<_> = folders.filter(|folder| folder.join("docker-compose.yaml").exists()).collect();
    assert!(2 <= folders.len(), "{folders:?}");
    let (mut all_pools, mut envoys) = (Vec::new(), Vec::new());
    for folder in &folders {
        let pools = Pools::start().await.unwrap();
        envoys.push(start(pools.shipped(folder.file_name().unwrap().to_str().unwrap()).unwrap()).await);
        all_pools.push(pools);
    }
    let (passed, printed) = verify(&envoys);
    assert!(passed, "{printed}");
    for (folder, pools) in folders.iter().zip(&all_pools) {
        let (v1, v2) = pools.executed();
        assert!(4 <= v1 && 4 <= v2 && v1 + v2 == 10, "{}: {v1} and {v2} executed", folder.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_another_version_and_one_that_should_be_a_refusal_fail() {
    let pools = Pools::start().await.unwrap();
    let other_version = pools.quickstart().unwrap().reconfigured(|configuration| {
        // The label is put into the message, so that the server of version 1 answers as if it had been asked.
        let v1 = json!({ "cluster": "tfs-v1", "headers": { "x-model-pool": "v1" }, "rewrite": { "label": "stable" } });
        configuration["models"][0]["targets"]["v2"] = v1;
    });
    let (passed, printed) = verify(&[start(other_version.unwrap()).await]);
    assert!(!passed, "{printed}");
    assert_eq!(pools.executed().1, 0);
    assert!(
        printed.contains("gRPC, version 2: [2.5, 3.0, 4.5] WRONG, expected [3.5, 4.0, 5.5]"),
        "{printed}"
    );
    assert!(printed.ends_with("\n4 answers are wrong\n"), "{printed}");

    let not_refused =
        pools.quickstart().unwrap().reconfigured(|configuration| configuration["unmatched"] = json!("pass"));
    let (passed, printed) = verify(&[start(not_refused.unwrap()).await]);
    assert!(!passed, "{printed}");
    assert!(printed.ends_with("\n2 answers are wrong\n"), "{printed}");
}
