//! The generated document.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::site::{Site, binary};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

fn printed() -> String {
    let output = Command::new(binary()).arg("openapi").output().expect("roster openapi");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().expect("paths");
    let of = |(path, item): (&String, &'_ Value)| -> Vec<(String, String)> {
        METHODS
            .iter()
            .filter(|method| item.get(**method).is_some())
            .map(|method| (path.clone(), (*method).to_owned()))
            .collect()
    };
    let names: Vec<(String, String)> = paths.iter().flat_map(of).collect();
    names.into_iter().map(|(path, method)| (format!("{method} {path}"), &document["paths"][&path][&method])).collect()
}

#[test]
fn the_committed_document_is_what_the_binary_prints() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
    let printed = printed();
    if std::fs::read_to_string(path).is_ok_and(|committed| committed == printed) {
        return;
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, printed).expect("written");
    }
    panic!(
        "openapi/openapi.json is not fresh: `roster openapi > openapi/openapi.json`, or run the tests with UPDATE_EXPECT=1"
    );
}

#[tokio::test]
async fn the_server_serves_the_same_document() {
    let site = Site::start().await;
    let served = site.nobody().get("/api/v1/openapi.json").await;
    let printed: Value = serde_json::from_str(&printed()).expect("JSON");
    assert_eq!(served.body, printed);
}

#[test]
fn every_operation_says_what_it_is_and_how_it_fails() {
    let document: Value = serde_json::from_str(&printed()).expect("JSON");
    let mut ids = BTreeSet::new();
    for (name, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{name} has no id"));
        assert!(ids.insert(id.to_owned()), "{id} twice");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{name} has no summary");
        assert!(operation["tags"].as_array().is_some_and(|tags| !tags.is_empty()), "{name} has no tag");
        let responses = operation["responses"].as_object().expect("responses");
        for status in responses.keys().filter(|status| status.as_str() >= "400") {
            let schema = &responses[status]["content"]["application/json"]["schema"]["$ref"];
            assert_eq!(schema, "#/components/schemas/Failure", "{name} {status}");
        }
        assert!(responses.contains_key("400") && responses.contains_key("500"), "{name}");
        let is_guarded = operation.get("security").is_some();
        assert_eq!(is_guarded, responses.contains_key("401"), "{name}");
    }
    assert!(ids.len() > 50, "{}", ids.len());
}

#[test]
fn every_edit_takes_if_match() {
    let document: Value = serde_json::from_str(&printed()).expect("JSON");
    let has = |operation: &Value| {
        operation["parameters"].as_array().into_iter().flatten().any(|parameter| parameter["name"] == "If-Match")
    };
    let all = operations(&document);
    for (name, operation) in &all {
        let (method, path) = name.split_once(' ').expect("method and path");
        let is_edited = || all.iter().any(|(other, _)| *other == format!("patch {path}"));
        if matches!(method, "put" | "patch") || (method == "delete" && is_edited()) {
            assert!(has(operation), "{name}");
        }
    }
}

#[test]
fn parameters_of_a_path_are_those_of_its_template() {
    let document: Value = serde_json::from_str(&printed()).expect("JSON");
    for (name, operation) in operations(&document) {
        let in_template: BTreeSet<&str> = name.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect();
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let in_list: BTreeSet<&str> =
            parameters.iter().filter(|p| p["in"] == "path").filter_map(|p| p["name"].as_str()).collect();
        assert_eq!(in_template, in_list, "{name}");
    }
}

#[test]
fn every_request_has_an_example_that_its_own_schema_takes_and_takes_nothing_unknown() {
    let document: Value = serde_json::from_str(&printed()).expect("JSON");
    let inputs = roster::wire::inputs::Inputs::new(&document, roster::routes::FORMATS);
    let mut seen = BTreeMap::new();
    for (name, operation) in operations(&document) {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        let Some(schema) = schema.as_str().and_then(|path| path.rsplit('/').next()) else { continue };
        let component = &document["components"]["schemas"][schema];
        assert_eq!(component["additionalProperties"], Value::Bool(false), "{name} takes unknown fields");
        let example = component.get("example").unwrap_or_else(|| panic!("{schema} has no example"));
        let faults = inputs.check_body(schema, example).expect("a rule that can be used");
        assert!(faults.is_empty(), "{schema}: {faults:?}");
        seen.insert(schema.to_owned(), name);
    }
    assert!(seen.len() > 15, "{seen:?}");
    for operation in roster::wire::document::operations(&document) {
        let parameters = operation.value["parameters"].as_array().cloned().unwrap_or_default();
        let query = parameters.iter().map(|p| format!("{}=x", p["name"].as_str().unwrap_or_default()));
        let uri = format!("/?{}", query.collect::<Vec<_>>().join("&")).parse().expect("an address");
        inputs.check_query(operation.id, &uri).expect("rules that can be used");
    }
}
