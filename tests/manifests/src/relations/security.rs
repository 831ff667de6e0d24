//! Headers that steer or that limits are keyed by are not the caller's to set.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Together;
use crate::Fault;
use crate::object::{list, text};
use crate::plugin;

/// What the filter sets besides the headers of targets.
const OWN: [&str; 3] = ["x-predictgate-target", "x-predictgate-cluster", "x-predictgate-mirror-cluster"];

pub fn check(together: &Together<'_>, faults: &mut Vec<Fault>) {
    let configurations: Vec<_> = together.objects.iter().flat_map(plugin::configurations).collect();
    let owned: Vec<_> = configurations.iter().flat_map(plugin::headers).collect();
    let tokens: Vec<_> = together.of_kind("RequestAuthentication").collect();
    let claimed: BTreeSet<&str> = tokens
        .iter()
        .flat_map(|token| token.list("/spec/jwtRules"))
        .flat_map(|rule| list(rule, "/outputClaimToHeaders"))
        .map(|claim| text(claim, "/header"))
        .collect();
    for name in configurations.iter().flat_map(plugin::keys).filter(|name| !claimed.contains(name)) {
        for token in &tokens {
            let problem = format!("no claim becomes {name}, by which the filter limits or binds callers");
            faults.push(Fault::new(token.place(), problem));
        }
    }
    for filter in together.of_kind("EnvoyFilter") {
        let removed = removed(&filter.value);
        if removed.is_empty() {
            continue;
        }
        let set = owned.iter().map(|(name, _)| name.as_str());
        for name in set.chain(OWN).chain(claimed.iter().copied()).filter(|name| !removed.contains(name)) {
            faults.push(Fault::new(
                filter.place(),
                format!("does not remove {name}, which is not the caller's to set"),
            ));
        }
    }
}

/// The headers that an EnvoyFilter removes before the route is picked.
fn removed(filter: &Value) -> BTreeSet<&str> {
    list(filter, "/spec/configPatches")
        .iter()
        .flat_map(|patch| list(patch, "/patch/value/typed_config/early_header_mutation_extensions"))
        .flat_map(|extension| list(extension, "/typed_config/mutations"))
        .map(|mutation| text(mutation, "/remove"))
        .collect()
}
