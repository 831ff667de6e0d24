use super::*;

const STRING_VALUE: &str = "type.googleapis.com/google.protobuf.StringValue";
const WASM_URL: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

/// What is found, as "PLACE = TEXT" or "PLACE ! PROBLEM", and "PLACE -> NAME at PATH" for references.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let contents = find(text, &documents(text).unwrap());
    let found = contents.found.iter().map(|found| match &found.text {
        Ok(text) => format!("{} = {text}", found.place),
        Err(problem) => format!("{} ! {}", found.place, problem.split([';', ',']).next().unwrap()),
    });
    let references = contents.references.iter();
    let references = references.map(|it| format!("{} -> {} at {}", it.place, it.name, it.path));
    assert_eq!(found.chain(references).collect::<Vec<_>>(), expected);
}

fn filter(configuration: &str) -> String {
    format!(
        r#"{{"http_filters": [{{"name": "a", "typed_config": {{"@type": "{WASM_URL}", "config": {{{configuration}}}}}}}]}}"#
    )
}

#[test]
fn a_json_file_is_given_as_it_stands() {
    let text = "{\n\t\"models\": [],\n\t\"models\": 1\n}";
    check(text, &[&format!(" = {text}")]);
}

#[test]
fn a_yaml_file_is_given_as_json() {
    check(
        "models:\n- name: resnet\n  x: [1, 0.5, true, null, '1']\n",
        &[r#" = {"models":[{"name":"resnet","x":[1,0.5,true,null,"1"]}]}"#],
    );
}

#[test]
fn a_wasm_filter_gives_the_text_of_its_string_value() {
    let text = filter(&format!(r#""configuration": {{"@type": "{STRING_VALUE}", "value": "{{}}"}}"#));
    check(&text, &["http_filters[0].typed_config.config.configuration = {}"]);
}

#[test]
fn a_wasm_filter_with_anything_else_is_an_error_at_its_place() {
    let place = "http_filters[0].typed_config.config.configuration";
    for (configuration, problem) in [
        ("", "found no configuration"),
        (
            r#""configuration": {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"models": []}}"#,
            "found a Struct",
        ),
        (
            r#""configuration": {"@type": "type.googleapis.com/google.protobuf.BytesValue", "value": "e30="}"#,
            "found type.googleapis.com/google.protobuf.BytesValue",
        ),
        (r#""configuration": {"models": []}"#, "found no @type"),
        (
            &format!(r#""configuration": {{"@type": "{STRING_VALUE}", "value": {{}}}}"#),
            "found a StringValue whose `value` is not text",
        ),
    ] {
        check(&filter(configuration), &[&format!("{place} ! {problem}")]);
    }
}

#[test]
fn a_struct_is_an_error_that_names_the_cure() {
    let text = filter(r#""configuration": {"@type": "type.googleapis.com/google.protobuf.Struct"}"#);
    let problem = find(&text, &documents(&text).unwrap()).found.remove(0).text.unwrap_err();
    assert!(problem.contains("google.protobuf.StringValue"), "{problem}");
}

#[test]
fn a_wasm_filter_may_be_a_typed_struct() {
    let text = format!(
        r#"{{"typed_config": {{"@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "type_url": "{WASM_URL}",
            "value": {{"config": {{"configuration": {{"@type": "{STRING_VALUE}", "value": "x"}}}}}}}}}}"#
    );
    check(&text, &["typed_config.value.config.configuration = x"]);
}

#[test]
fn istio_objects_are_found_in_a_file_of_several() {
    let text = format!(
        "
kind: WasmPlugin
metadata: {{name: gate}}
spec:
  url: oci://registry/predictgate
  pluginConfig:
    models: [{{name: a, targets: {{1: {{cluster: x}}}}}}]
---
kind: Gateway
metadata: {{name: other}}
---
# nothing
---
kind: EnvoyFilter
metadata: {{name: filter}}
spec:
  configPatches:
  - patch:
      value:
        typed_config:
          '@type': {WASM_URL}
          config:
            configuration: {{'@type': {STRING_VALUE}, value: text}}
"
    );
    check(
        &text,
        &[
            r#"document 1 (WasmPlugin gate): spec.pluginConfig = {"models":[{"name":"a","targets":{"1":{"cluster":"x"}}}]}"#,
            "document 3 (EnvoyFilter filter): spec.configPatches[0].patch.value.typed_config.config.configuration = text",
        ],
    );
}

#[test]
fn a_wasm_plugin_without_a_configuration_is_an_error() {
    check("kind: WasmPlugin\nspec: {url: x}", &["spec.pluginConfig ! found no configuration"]);
    check("kind: WasmPlugin\nspec: {pluginConfig: text}", &["spec.pluginConfig ! expected a mapping"]);
}

#[test]
fn keys_that_are_no_words_are_quoted_in_a_place() {
    let text = format!("a.b/c: {{'@type': {WASM_URL}}}");
    check(&text, &[r#"["a.b/c"].config.configuration ! found no configuration"#]);
}

#[test]
fn only_what_names_predictgate_beside_its_configuration_is_named() {
    for (configuration, expected) in [
        (r#""name": "Predictgate""#, true),
        (r#""vm_config": {"code": {"local": {"filename": "/etc/envoy/predictgate.wasm"}}}"#, true),
        (r#""name": "other""#, false),
        (r#""configuration": {"value": "predictgate"}"#, false),
    ] {
        let text = filter(configuration);
        assert_eq!(find(&text, &documents(&text).unwrap()).found[0].named, expected, "{configuration}");
    }
}

#[test]
fn other_files_hold_nothing() {
    check("kind: Deployment\nmodels: []", &[]);
    check("services: {envoy: {image: x}}", &[]);
    check("[1, 2]", &[]);
    check("", &[]);
}

#[test]
fn what_is_no_document_says_where() {
    let yaml = documents("a: b\nc: [").unwrap_err().to_string();
    assert!(yaml.starts_with("not YAML: ") && yaml.contains("line"), "{yaml}");
    let json = documents("{\n\"a\": 1,\n}").unwrap();
    assert_eq!(json, [json!({"a": 1})], "a flow mapping of YAML may end in a comma");
    let json = documents("{\n\"a\" 1\n").unwrap_err().to_string();
    assert!(json.starts_with("not JSON: ") && json.contains("line 2"), "{json}");
    let twice = documents("a: 1\na: 2").unwrap_err().to_string();
    assert!(twice.contains("duplicate"), "{twice}");
}

fn discovery(name: &str) -> String {
    format!(
        "http_filters:
- name: {name}
  config_discovery:
    config_source: {{path_config_source: {{path: /etc/envoy/filter.yaml}}}}
    type_urls: [{WASM_URL}]
- name: router
  typed_config: {{}}
"
    )
}

#[test]
fn a_filter_in_another_file_is_a_reference() {
    check(&discovery("gate"), &["http_filters[0].config_discovery -> gate at /etc/envoy/filter.yaml"]);
    check(&discovery("gate").replace(WASM_URL, "type.googleapis.com/x.Lua"), &[]);
}

#[test]
fn a_reference_is_replaced_by_the_filter_itself() {
    let mut value = documents(&discovery("gate")).unwrap().remove(0);
    inline(&mut value, &mut |_| Ok::<_, ()>(json!({"@type": WASM_URL}))).unwrap();
    let filters = json!([{"name": "gate", "typed_config": {"@type": WASM_URL}}, {"name": "router", "typed_config": {}}]);
    assert_eq!(value["http_filters"], filters);
    let mut value = documents(&discovery("gate")).unwrap().remove(0);
    assert_eq!(inline(&mut value, &mut |reference| Err(reference.name.clone())), Err("gate".to_owned()));
}

#[test]
fn an_ecds_file_must_hold_the_filter_under_its_name() {
    let file = |kind: &str| json!({"resources": [{"@type": kind, "name": "gate", "typed_config": {}}]});
    let good = file(TYPED_EXTENSION_CONFIG);
    assert!(ecds_resource(&good, Some("gate")).is_ok());
    assert!(ecds_resource(&good, None).is_ok());
    let problem = ecds_resource(&good, Some("other")).unwrap_err();
    assert_eq!(problem, "resources: found \"gate\", expected one named \"other\"");
    assert!(ecds_resource(&file("x"), None).unwrap_err().starts_with("resources[0].@type: found \"x\""));
    assert!(ecds_resource(&json!({"resources": []}), None).is_err());
    assert!(ecds_resource(&json!({}), None).is_err());
}

#[test]
fn the_module_is_set_where_predictgate_is_named_or_nothing_is() {
    let code = |name: &str| json!({"@type": WASM_URL, "config": {"name": name, "vm_config": {"runtime": "r", "code": {"remote": {}}}}});
    let set =
        |value: &Value| value["config"]["vm_config"]["code"] == json!({"local": {"filename": "/m.wasm"}});
    let mut both = json!([code("predictgate"), code("other")]);
    set_module(&mut both, "/m.wasm");
    assert!(set(&both[0]) && !set(&both[1]), "{both}");
    assert_eq!(both[0]["config"]["vm_config"]["runtime"], "r");
    let mut neither = json!([code("a"), code("b")]);
    set_module(&mut neither, "/m.wasm");
    assert!(set(&neither[0]) && set(&neither[1]), "{neither}");
}

#[test]
fn a_traffic_extension_and_an_extension_policy_give_their_mappings() {
    check(
        "kind: TrafficExtension\nspec: {wasm: {pluginConfig: {models: []}}}",
        &[r#"spec.wasm.pluginConfig = {"models":[]}"#],
    );
    check(
        "kind: EnvoyExtensionPolicy\nspec: {wasm: [{name: a}, {name: b, config: {models: []}}]}",
        &["spec.wasm[0].config ! found no configuration", r#"spec.wasm[1].config = {"models":[]}"#],
    );
    // A TrafficExtension may be of Lua.
    check("kind: TrafficExtension\nspec: {lua: {}}", &[]);
}
