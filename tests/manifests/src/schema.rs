//! Holds objects against CustomResourceDefinitions: their schemas, strictly, and their rules in CEL.
//!
//! An API server drops unknown keys and says so at best; here they are faults.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use kube_cel::{Validator, apply_defaults};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use crate::Fault;
use crate::object::{Object, list, text};

/// The schemas of all definitions of a folder.
pub struct Schemas {
    /// By `apiVersion` and `kind`. Several releases of a definition may be there.
    known: BTreeMap<(String, String), Vec<Definition>>,
    rules: Validator,
}

/// One version of one definition.
struct Definition {
    /// The file that it stands in, which tells the release.
    file: String,
    schema: Value,
    /// Made when it is needed: most definitions are of nothing that is here.
    validator: OnceCell<Result<jsonschema::Validator, String>>,
}

impl Definition {
    fn new(file: String, schema: Value) -> Self {
        Self { file, schema, validator: OnceCell::new() }
    }

    fn validator(&self) -> &Result<jsonschema::Validator, String> {
        let make =
            || jsonschema::validator_for(&strict(&self.schema, true)).map_err(|error| error.to_string());
        self.validator.get_or_init(make)
    }
}

/// How much an object was held against.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checked {
    pub schemas: usize,
    pub rules: usize,
}

impl Schemas {
    /// # Errors
    ///
    /// When the folder cannot be read or has no definition.
    pub fn load(folder: &Path) -> Result<Self> {
        let mut known: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let read =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            for document in yaml_serde::Deserializer::from_str(&read) {
                let definition = Value::deserialize(document).with_context(|| name.clone())?;
                if text(&definition, "/kind") != "CustomResourceDefinition" {
                    continue;
                }
                for version in list(&definition, "/spec/versions") {
                    let api_version =
                        format!("{}/{}", text(&definition, "/spec/group"), text(version, "/name"));
                    let kind = text(&definition, "/spec/names/kind").to_owned();
                    let schema = version.pointer("/schema/openAPIV3Schema").cloned().unwrap_or_default();
                    known.entry((api_version, kind)).or_default().push(Definition::new(name.clone(), schema));
                }
            }
        }
        ensure!(!known.is_empty(), "{} has no CustomResourceDefinition", folder.display());
        Ok(Self { known, rules: Validator::new() })
    }

    pub fn check(&self, object: &Object, faults: &mut Vec<Fault>) -> Checked {
        let mut checked = Checked::default();
        let key = (object.api_version().to_owned(), object.kind().to_owned());
        for definition in self.known.get(&key).into_iter().flatten() {
            let schema = &definition.schema;
            checked.schemas += 1;
            let place = format!("{}: by {}", object.place(), definition.file);
            match definition.validator() {
                Ok(validator) => {
                    for error in validator.iter_errors(&object.value) {
                        faults.push(Fault::new(&place, format!("{}: {error}", error.instance_path())));
                    }
                }
                Err(error) => faults.push(Fault::new(&place, format!("the schema itself: {error}"))),
            }
            checked.rules += rules(schema, &apply_defaults(schema, &object.value));
            if let Err(errors) = self.rules.validate(schema, &object.value, None) {
                for error in errors.iter() {
                    faults.push(Fault::new(&place, format!("{error} (rule {})", error.rule)));
                }
            }
        }
        checked
    }
}

/// A structural schema as JSON Schema that refuses the keys that it does not name.
fn strict(schema: &Value, root: bool) -> Value {
    let Value::Object(schema) = schema else { return schema.clone() };
    let mut out = Map::new();
    for (key, value) in schema {
        let value = match key.as_str() {
            "properties" => mapped(value),
            "items" | "additionalProperties" => strict(value, false),
            // Branches constrain what stands outside of them and name only some of its keys.
            _ => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    if schema.get("x-kubernetes-int-or-string") == Some(&json!(true)) {
        out.remove("anyOf");
        out.insert("type".to_owned(), json!(["integer", "string"]));
    }
    if schema.get("nullable") == Some(&json!(true))
        && let Some(kind) = out.get("type").filter(|kind| kind.is_string()).cloned()
    {
        out.insert("type".to_owned(), json!([kind, "null"]));
    }
    if let Some(Value::Object(properties)) = out.get_mut("properties") {
        if root {
            // The API server knows these by itself.
            for key in ["apiVersion", "kind", "metadata"] {
                properties.insert(key.to_owned(), json!({}));
            }
        }
        let open = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
        if !open {
            out.entry("additionalProperties").or_insert(json!(false));
        }
    }
    Value::Object(out)
}

fn mapped(properties: &Value) -> Value {
    let entries = properties.as_object().into_iter().flatten();
    entries.map(|(key, value)| (key.clone(), strict(value, false))).collect()
}

/// How many rules apply to what is there. Those about a change need an old object and are not evaluated.
fn rules(schema: &Value, value: &Value) -> usize {
    let here = list(schema, "/x-kubernetes-validations");
    let here = here.iter().filter(|rule| !text(rule, "/rule").contains("oldSelf")).count();
    let below: usize = match value {
        Value::Object(map) => map
            .iter()
            .filter_map(|(key, value)| {
                let child = schema.get("properties").and_then(|properties| properties.get(key));
                let child = child.or_else(|| schema.get("additionalProperties"));
                child.filter(|child| child.is_object()).map(|child| rules(child, value))
            })
            .sum(),
        Value::Array(values) => {
            schema.get("items").map_or(0, |items| values.iter().map(|value| rules(items, value)).sum())
        }
        _ => 0,
    };
    here + below
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schemas(schema: Value) -> Schemas {
        let known = [(
            ("v1".to_owned(), "Thing".to_owned()),
            vec![Definition::new("things.yaml".to_owned(), schema)],
        )];
        Schemas { known: known.into(), rules: Validator::new() }
    }

    #[track_caller]
    fn check(spec: Value, expected: &[&str]) {
        let schema = json!({
            "type": "object",
            "properties": { "spec": {
                "type": "object",
                "properties": { "a": { "type": "string", "enum": ["x"] }, "b": { "type": "integer" } },
                "x-kubernetes-validations": [{ "rule": "!(has(self.a) && has(self.b))", "message": "not both" }],
            } },
        });
        let value =
            json!({ "apiVersion": "v1", "kind": "Thing", "metadata": { "name": "it" }, "spec": spec });
        let mut faults = Vec::new();
        let checked = schemas(schema).check(&Object { file: "it.yaml".to_owned(), value }, &mut faults);
        assert_eq!((checked.schemas, checked.rules), (1, 1));
        assert_eq!(faults.len(), expected.len(), "{faults:?}");
        for (fault, expected) in faults.iter().zip(expected) {
            assert!(fault.to_string().contains(expected), "{fault}");
        }
    }

    #[test]
    fn keys_values_and_rules_are_held() {
        check(json!({ "a": "x" }), &[]);
        check(json!({ "a": "y" }), &["/spec/a"]);
        check(json!({ "c": 1 }), &["'c' was unexpected"]);
        check(json!({ "a": "x", "b": 1 }), &["not both"]);
    }
}
