//! Laws of the configuration: no text makes the parser panic, and no key of the contract is without effect.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop where it stands"
)]

use std::sync::LazyLock;

use predictgate::config::{ConfigError, parse, parse_all};
use predictgate::policy::Policy;
use predictgate::route::Names;
use proptest::collection::vec;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

/// The configuration with every key, as the documentation shows it.
static EXAMPLE: LazyLock<Value> = LazyLock::new(|| {
    #[derive(Deserialize)]
    struct Cases {
        case: Vec<Case>,
    }
    #[derive(Deserialize)]
    struct Case {
        name: String,
        json: String,
    }
    let cases: Cases = toml::from_str(include_str!("cases/config/good.toml")).unwrap();
    let whole = cases.case.iter().find(|case| case.name == "every key at once").unwrap();
    serde_json::from_str(&whole.json).unwrap()
});

/// Reads the text in both ways: each accepts it or says why not.
#[track_caller]
fn check(text: &str) {
    for result in [parse(text), parse_all(text)] {
        let Err(errors) = result else { continue };
        assert!(!errors.is_empty(), "refused without a reason: {text}");
        for error in errors {
            let line = error.to_string();
            assert!(!line.is_empty() && !line.contains('\n'), "not one line: {line}");
        }
    }
}

fn accept(configuration: &Value) -> Policy {
    parse_all(&configuration.to_string()).unwrap_or_else(|errors| panic!("{errors:?} in {configuration}"))
}

/// The JSON pointers of every value in the tree, without that of the whole.
fn pointers(tree: &Value) -> Vec<String> {
    let children: Vec<(String, &Value)> = match tree {
        Value::Array(items) => {
            items.iter().enumerate().map(|(place, item)| (format!("/{place}"), item)).collect()
        }
        Value::Object(entries) => entries.iter().map(|(key, value)| (format!("/{key}"), value)).collect(),
        _ => vec![],
    };
    let below = |(step, child): (String, &Value)| {
        let deeper = pointers(child).into_iter().map(|rest| format!("{step}{rest}")).collect::<Vec<_>>();
        std::iter::once(step).chain(deeper).collect::<Vec<_>>()
    };
    children.into_iter().flat_map(below).collect()
}

/// Takes a value out of its object or list.
fn remove(tree: &mut Value, pointer: &str) -> Value {
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    match tree.pointer_mut(parent).unwrap() {
        Value::Object(entries) => entries.remove(last).unwrap(),
        Value::Array(items) => items.remove(last.parse().unwrap()),
        _ => panic!("only these have something inside"),
    }
}

#[test]
fn any_key_left_out_is_a_default_or_an_error() {
    for pointer in pointers(&EXAMPLE) {
        let mut tree = EXAMPLE.clone();
        remove(&mut tree, &pointer);
        check(&tree.to_string());
    }
}

#[test]
fn any_key_of_the_contract_misspelled_is_an_error() {
    for pointer in pointers(&EXAMPLE) {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let is_free = parent.ends_with("/targets") || parent.ends_with("/targets/canary/headers");
        let mut tree = EXAMPLE.clone();
        let value = remove(&mut tree, &pointer);
        let Some(Value::Object(entries)) = tree.pointer_mut(parent) else { continue };
        entries.insert(format!("{key}x"), value);
        let result = parse_all(&tree.to_string());
        let names_it = |error: &ConfigError| {
            error.path.ends_with(&format!("{key}x")) && error.problem.starts_with("unknown key")
        };
        match result {
            Ok(_) => assert!(is_free, "{pointer} with another name is accepted"),
            Err(errors) => assert!(is_free || errors.iter().any(names_it), "{pointer}: {errors:?}"),
        }
    }
}

#[test]
fn any_value_replaced_by_another_is_accepted_or_refused_with_a_reason() {
    let others = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(0.000_000_1),
        json!(1e300),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(""),
        json!("*"),
        json!("\u{0}é\u{202e}"),
        json!("18446744073709551615h"),
        json!("9999-99-99T99:99:99.999999999Z"),
        json!([]),
        json!([[]]),
        json!({}),
        json!({"": {"": null}}),
    ];
    for pointer in pointers(&EXAMPLE) {
        for other in &others {
            let mut tree = EXAMPLE.clone();
            *tree.pointer_mut(&pointer).unwrap() = other.clone();
            check(&tree.to_string());
        }
    }
}

/// What the documentation shows as a default is what the key has when it is left out.
#[test]
fn the_defaults_are_those_that_the_documentation_shows() {
    let optional = [
        "/identity",
        "/rate_limits",
        "/unmatched",
        "/admin_methods",
        "/explain/match",
        "/metrics",
        "/state_namespace",
        "/models/0/rate_limits/0/cost",
        "/models/0/rate_limits/0/slots",
        "/models/0/rate_limits/0/on_error",
        "/models/0/rate_limits/0/mode",
        "/models/0/routes/3/mirror/percent",
    ];
    let inside = ["/identity", "/models/0/outlier_detection", "/models/0/routes/3/guard"];
    let inside = inside.into_iter().flat_map(|parent| {
        let keys = pointers(EXAMPLE.pointer(parent).unwrap());
        keys.into_iter().map(move |key| format!("{parent}{key}"))
    });
    let is_optional = |pointer: &String| {
        !pointer.ends_with("guard/target") && !pointer.ends_with("baseline") && !pointer.contains("_steps/")
    };
    // The index of the names has no order of its own.
    let show = |policy: Policy| format!("{:#?}", Policy { names: Names::default(), ..policy });
    let whole = show(accept(&EXAMPLE));
    for pointer in optional.map(str::to_owned).into_iter().chain(inside.filter(is_optional)) {
        let mut tree = EXAMPLE.clone();
        remove(&mut tree, &pointer);
        assert_eq!(show(accept(&tree)), whole, "without {pointer}");
    }
}

#[test]
fn the_tables_of_a_policy_agree() {
    let policy = accept(&EXAMPLE);
    let found = ["resnet", "bert-large", "other"].map(|name| policy.names.find(name).map(|model| model.0));
    assert_eq!(found, [Some(0), Some(1), None]);
    assert_eq!(policy.owned_headers, ["x-model-pool".into()]);
}

fn words() -> impl Strategy<Value = String> {
    let mut words: Vec<String> = vec!["*".into(), "10s".into(), String::new()];
    for pointer in pointers(&EXAMPLE) {
        words.extend(pointer.rsplit_once('/').map(|(_, key)| key.to_owned()));
        words.extend(EXAMPLE.pointer(&pointer).and_then(Value::as_str).map(str::to_owned));
    }
    proptest::sample::select(words)
}

/// Trees made of the words of the contract in any order.
fn trees() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        words().prop_map(Value::String),
        any::<i64>().prop_map(|number| json!(number)),
        any::<f64>().prop_map(|number| json!(number)),
        any::<bool>().prop_map(Value::Bool),
        Just(Value::Null),
    ];
    leaf.prop_recursive(6, 100, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::Array),
            vec((words(), inner), 0..8).prop_map(|entries| entries.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        check(&text);
    }

    #[test]
    fn no_tree_makes_the_parser_panic(tree in trees()) {
        check(&tree.to_string());
    }

    #[test]
    fn no_grafted_tree_makes_the_parser_panic(
        grafts in vec((any::<proptest::sample::Index>(), trees()), 1..4),
    ) {
        let mut tree = EXAMPLE.clone();
        for (place, graft) in grafts {
            let pointers = pointers(&tree);
            if !pointers.is_empty() {
                *tree.pointer_mut(&pointers[place.index(pointers.len())]).unwrap() = graft;
            }
        }
        check(&tree.to_string());
    }

    #[test]
    fn no_damaged_text_makes_the_parser_panic(
        cuts in vec((any::<proptest::sample::Index>(), any::<char>(), any::<bool>()), 1..8),
    ) {
        let mut text: Vec<char> = EXAMPLE.to_string().chars().collect();
        for (place, character, replaces) in cuts {
            let place = place.index(text.len());
            if replaces {
                text[place] = character;
            } else {
                text.remove(place);
            }
        }
        check(&text.into_iter().collect::<String>());
    }

    /// Duplicate keys, which no map can hold.
    #[test]
    fn no_repetition_makes_the_parser_panic(text in "[\\[\\]{}\":, a*0-9.eE-]{0,64}", key in words()) {
        check(&format!("{{\"{key}\": 1, \"{key}\": {text}, \"models\": [{text}]}}"));
    }
}
