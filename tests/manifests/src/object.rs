//! A Kubernetes object and where it stands.

use serde_json::Value;

#[derive(Clone, Debug)]
pub struct Object {
    /// From the folder of the manifests.
    pub file: String,
    pub value: Value,
}

impl Object {
    /// The text at a JSON pointer, or none.
    pub fn text(&self, pointer: &str) -> &str {
        self.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    pub fn api_version(&self) -> &str {
        self.text("/apiVersion")
    }

    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    pub fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    /// The list at a JSON pointer; empty where there is none.
    pub fn list(&self, pointer: &str) -> &[Value] {
        list(&self.value, pointer)
    }

    pub fn place(&self) -> String {
        format!("{}: {} {}", self.file, self.kind(), self.name())
    }

    /// What two objects of a cluster cannot share.
    pub fn identity(&self) -> [&str; 4] {
        [self.api_version(), self.kind(), self.namespace(), self.name()]
    }
}

/// The list at a JSON pointer; empty where there is none.
pub fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The text at a JSON pointer; empty where there is none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
