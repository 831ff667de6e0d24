//! What the service `verify` of every `docker-compose.yaml` runs, against the Envoy of that scenario.

use std::fs;
use std::net::SocketAddr;

use predictgate_e2e::tensorflow::python;
use predictgate_e2e::tools::root;
use predictgate_e2e::{Pools, Scenario};
use serde_json::json;

/// Starts Envoy, and gives whether the program ends well and what it prints.
async fn verify(scenario: Scenario) -> (bool, String) {
    let envoy = scenario.start().await.unwrap();
    envoy.wait_until_healthy().await.unwrap();
    run(envoy.addr)
}

fn run(envoy: SocketAddr) -> (bool, String) {
    let output =
        python().unwrap().arg(root().join("envoy/verify.py")).arg(envoy.to_string()).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    eprintln!("{printed}{}", String::from_utf8_lossy(&output.stderr));
    (output.status.success(), printed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shipped_scenario_passes() {
    let folders = fs::read_dir(root().join("envoy")).unwrap().map(|entry| entry.unwrap().path());
    let folders: Vec<_> = folders.filter(|folder| folder.join("docker-compose.yaml").exists()).collect();
    assert!(2 <= folders.len(), "{folders:?}");
    for folder in folders {
        let name = folder.file_name().unwrap().to_str().unwrap();
        let pools = Pools::start().await.unwrap();
        let (passed, printed) = verify(pools.shipped(name).unwrap()).await;
        assert!(passed, "{name}: {printed}");
        let (v1, v2) = pools.executed();
        assert!(4 <= v1 && 4 <= v2 && v1 + v2 == 10, "{name}: {v1} and {v2} executed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_another_version_fails() {
    let pools = Pools::start().await.unwrap();
    let scenario = pools.quickstart().unwrap().reconfigured(|configuration| {
        // The label is put into the message, so that the server of version 1 answers as if it had been asked.
        let v1 = json!({ "cluster": "tfs-v1", "headers": { "x-model-pool": "v1" }, "rewrite": { "label": "stable" } });
        configuration["models"][0]["targets"]["v2"] = v1;
    });
    let (passed, printed) = verify(scenario.unwrap()).await;
    assert!(!passed, "{printed}");
    assert_eq!(pools.executed().1, 0);
    assert!(
        printed.contains("gRPC, version 2: [2.5, 3.0, 4.5] WRONG, expected [3.5, 4.0, 5.5]"),
        "{printed}"
    );
    assert!(printed.contains("\n4 answers are wrong\n"), "{printed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_should_be_refused_and_is_not_fails() {
    let pools = Pools::start().await.unwrap();
    let scenario = pools.quickstart().unwrap().reconfigured(|configuration| {
        configuration["unmatched"] = json!("pass");
    });
    let (passed, printed) = verify(scenario.unwrap()).await;
    assert!(!passed, "{printed}");
    assert!(printed.contains("\n2 answers are wrong\n"), "{printed}");
}
