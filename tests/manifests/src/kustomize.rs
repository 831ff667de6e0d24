//! Reads kustomizations: the few things of kustomize that the manifests use. Everything else is a fault, so that
//! nothing is applied that was not checked.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Deserialize as _;
use serde_json::Value;

use crate::Fault;
use crate::object::{Object, list, text};

const FILE: &str = "kustomization.yaml";
/// Values for Helm charts stand beside and are no objects.
const VALUES: &str = "-values.yaml";

/// Every object under the folder, each once. A file that no kustomization names is a fault.
pub fn all(root: &Path, faults: &mut Vec<Fault>) -> Result<Vec<Object>> {
    let mut files = Vec::new();
    walk(root, &mut files)?;
    let mut named = BTreeSet::new();
    let mut objects = Vec::new();
    for file in &files {
        let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
        if name.ends_with(VALUES) {
            continue;
        }
        let documents = match documents(&root.join(file)) {
            Ok(documents) => documents,
            Err(error) => {
                faults.push(Fault::new(file, format!("{error:#}")));
                continue;
            }
        };
        if name == FILE {
            for resource in documents.iter().flat_map(|document| list(document, "/resources")) {
                named.insert(join(folder, resource.as_str().unwrap_or_default()));
            }
        } else {
            objects.extend(documents.into_iter().map(|value| Object { file: file.clone(), value }));
        }
    }
    let stray = files.iter().filter(|file| !file.ends_with(FILE) && !file.ends_with(VALUES));
    for file in stray.filter(|file| !named.contains(*file)) {
        faults.push(Fault::new(file, format!("no {FILE} names it, expected it among the resources of one")));
    }
    Ok(objects)
}

/// What `kubectl apply -k FOLDER` would apply.
pub fn build(root: &Path, folder: &str, faults: &mut Vec<Fault>) -> Vec<Object> {
    let file = join(folder, FILE);
    let kustomization = match documents(&root.join(&file)) {
        Ok(documents) if documents.len() == 1 => documents.into_iter().next().unwrap_or_default(),
        Ok(_) => {
            faults.push(Fault::new(file, "expected one document"));
            return Vec::new();
        }
        Err(error) => {
            faults.push(Fault::new(file, format!("{error:#}")));
            return Vec::new();
        }
    };
    let mut objects = Vec::new();
    for (key, value) in kustomization.as_object().into_iter().flatten() {
        match key.as_str() {
            "apiVersion" | "kind" | "patches" => (),
            "resources" => {
                for resource in value.as_array().into_iter().flatten().filter_map(Value::as_str) {
                    objects.extend(resources(root, &join(folder, resource), &file, faults));
                }
            }
            _ => faults.push(Fault::new(&file, format!("{key}: this check does not know what it does"))),
        }
    }
    for patch in list(&kustomization, "/patches") {
        if let Err(problem) = apply(patch, &mut objects) {
            faults.push(Fault::new(&file, format!("patches: {problem}")));
        }
    }
    objects
}

/// Lets kustomize itself build a folder; it gives the same objects.
pub fn compare(program: &Path, root: &Path, folder: &str, faults: &mut Vec<Fault>) -> Result<()> {
    let output = Command::new(program).arg("build").arg(root.join(folder)).output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    let file = join(folder, FILE);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        faults.push(Fault::new(file, format!("kustomize: {}", said.trim())));
        return Ok(());
    }
    let built = parse(&String::from_utf8_lossy(&output.stdout)).context("what kustomize has built")?;
    // What is wrong with the files has been said before.
    let read = build(root, folder, &mut Vec::new());
    let sorted = |mut values: Vec<Value>| {
        values.sort_by_key(Value::to_string);
        values
    };
    if sorted(built) != sorted(read.into_iter().map(|object| object.value).collect()) {
        faults.push(Fault::new(file, "kustomize builds other objects than this check reads"));
    }
    Ok(())
}

fn resources(root: &Path, path: &str, named_in: &str, faults: &mut Vec<Fault>) -> Vec<Object> {
    if root.join(path).is_dir() {
        return build(root, path, faults);
    }
    match documents(&root.join(path)) {
        Ok(documents) => documents.into_iter().map(|value| Object { file: path.to_owned(), value }).collect(),
        Err(error) => {
            faults.push(Fault::new(named_in, format!("resources: {path}: {error:#}")));
            Vec::new()
        }
    }
}

/// The only patch that is used: one that takes an object out.
fn apply(patch: &Value, objects: &mut Vec<Object>) -> Result<(), String> {
    let text_of = text(patch, "/patch");
    let patch: Value = yaml_serde::from_str(text_of).map_err(|error| format!("not YAML: {error}"))?;
    if text(&patch, "/$patch") != "delete" {
        return Err("this check only knows `$patch: delete`".to_owned());
    }
    let target = Object { file: String::new(), value: patch };
    let before = objects.len();
    objects.retain(|object| object.identity() != target.identity());
    if objects.len() == before {
        return Err(format!("there is no {} {} to delete", target.kind(), target.name()));
    }
    Ok(())
}

fn documents(path: &Path) -> Result<Vec<Value>> {
    parse(&fs::read_to_string(path).context("cannot read it")?)
}

fn parse(text: &str) -> Result<Vec<Value>> {
    let mut documents = Vec::new();
    for document in yaml_serde::Deserializer::from_str(text) {
        // By way of YAML's own value, which refuses a key that stands twice.
        let value = yaml_serde::Value::deserialize(document).context("not YAML")?;
        documents.push(serde_json::to_value(value).context("not an object")?);
    }
    documents.retain(|document| !document.is_null());
    Ok(documents)
}

/// The YAML files under `root`, from there.
fn walk(root: &Path, files: &mut Vec<String>) -> Result<()> {
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let path = root.join(&folder);
        for entry in fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))? {
            let relative = folder.join(entry?.file_name());
            if root.join(&relative).is_dir() {
                folders.push(relative);
            } else if relative.extension().is_some_and(|extension| extension == "yaml") {
                files.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    files.sort();
    Ok(())
}

/// `path` from `folder`, without `..`.
fn join(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "" | "." => (),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_lead_upwards() {
        assert_eq!(join("overlays/body", "../../base"), "base");
        assert_eq!(join("", "base/./gateway.yaml"), "base/gateway.yaml");
    }
}
