//! What is applied together fits together.

mod routing;
mod security;
mod workloads;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::Fault;
use crate::object::Object;
use crate::plugin;

/// The objects that are applied together.
struct Together<'a> {
    objects: &'a [Object],
}

/// Checks the objects of one set; `set` is what it is called.
pub fn check(set: &str, objects: &[Object], faults: &mut Vec<Fault>) {
    let together = Together { objects };
    let mut seen = BTreeMap::new();
    for object in objects {
        if let Some(other) = seen.insert(object.identity(), object) {
            faults
                .push(Fault::new(object.place(), format!("is in {} too, and both are in {set}", other.file)));
        }
    }
    let carriers: Vec<_> = objects.iter().filter(|object| !plugin::carried(object).is_empty()).collect();
    if carriers.len() != 1 {
        let carriers: Vec<_> = carriers.iter().map(|object| object.place()).collect();
        faults.push(Fault::new(
            set,
            format!("the filter runs {} times, expected once: {carriers:?}", carriers.len()),
        ));
    }
    routing::check(&together, faults);
    security::check(&together, faults);
    workloads::check(&together, faults);
}

impl Together<'_> {
    fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Object> {
        self.objects.iter().filter(move |object| object.kind() == kind)
    }

    fn named(&self, kind: &str, namespace: &str, name: &str) -> Option<&Object> {
        self.objects
            .iter()
            .find(|object| object.kind() == kind && object.namespace() == namespace && object.name() == name)
    }
}

/// Whether every label of `selector` is one of `labels`.
fn selects(selector: Option<&Value>, labels: Option<&Value>) -> bool {
    let wanted = selector.and_then(Value::as_object).into_iter().flatten();
    let mut wanted = wanted.peekable();
    wanted.peek().is_some()
        && wanted.all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}
