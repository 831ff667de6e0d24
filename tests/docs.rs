//! What the documents say is so: their examples are accepted, and the files that they name are there.

#![allow(clippy::panic, reason = "a test may stop where it stands")]

use std::fs;
use std::path::Path;

use predictgate::config;

const DOCUMENTS: [&str; 9] = [
    "README.md",
    "docs/ARCHITECTURE.md",
    "docs/OPERATING.md",
    "istio/README.md",
    "envoy/quickstart/README.md",
    "envoy/canary/README.md",
    "envoy/subsets/README.md",
    "envoy/rate-limit/README.md",
    "envoy/ejection/README.md",
];

fn read(document: &str) -> String {
    let path = root().join(document);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The texts between fences that are opened as `language`.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let opening = format!("```{language}\n");
    text.split(&opening).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn every_configuration_in_the_readme_is_accepted() {
    let text = read("README.md");
    let configurations: Vec<_> =
        blocks(&text, "json").into_iter().filter(|block| block.contains("\"models\"")).collect();
    assert!(!configurations.is_empty(), "no configuration in the README");
    for configuration in configurations {
        if let Err(errors) = config::parse(configuration) {
            panic!("{configuration}\n{errors:#?}");
        }
    }
}

/// Links to files and paths in the tables' first column.
#[test]
fn every_file_that_a_document_names_is_there() {
    for document in DOCUMENTS {
        let text = read(document);
        let folder = root().join(document).parent().unwrap().to_owned();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let file = link.split('#').next().unwrap();
            assert!(folder.join(file).exists(), "{document} links to {link}");
        }
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        for path in rows.filter(|name| name.contains('/') && !name.contains(' ')) {
            assert!(root().join(path).exists(), "{document} names {path}");
        }
    }
}

/// Who looks for the room of the next feature looks there.
#[test]
fn the_map_of_the_tree_has_every_folder_and_module() {
    let map = read("docs/ARCHITECTURE.md");
    let mut missing = Vec::new();
    for folder in ["envoy", "src", "tests"] {
        for entry in fs::read_dir(root().join(folder)).unwrap().flatten() {
            let is_folder = entry.path().is_dir();
            let name = entry.file_name().into_string().unwrap();
            let path = format!("{folder}/{name}{}", if is_folder { "/" } else { "" });
            let is_module = folder == "src" && name != "lib.rs";
            if (is_folder || is_module) && !map.contains(&format!("\n| `{path}` |")) {
                missing.push(path);
            }
        }
    }
    assert!(missing.is_empty(), "not in docs/ARCHITECTURE.md: {missing:?}");
}
