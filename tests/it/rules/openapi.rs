//! The generated OpenAPI document.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::site::{Site, binary};

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
        "openapi/openapi.json is outdated: `roster openapi > openapi/openapi.json`, or run the tests with UPDATE_EXPECT=1"
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
fn every_operation_has_a_description_and_its_failures() {
    let document: Value = serde_json::from_str(&printed()).expect("JSON");
    let mut ids = BTreeSet::new();
    for (name, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{name} has no id"));
        assert!(ids.insert(id.to_owned()), "{id} twice");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{name} has no summary");
        assert!(operation["tags"].as_array().is_some_and(|tags| !tags.is_empty()), "{name} has no tag");
        let about = operation["description"].as_str().unwrap_or_default();
        assert!(!about.is_empty(), "{name} is not described");
        let responses = operation["responses"].as_object().expect("responses");
        for (status, response) in responses.iter().filter(|(status, _)| status.as_str() >= "4") {
            let shared = response["$ref"].as_str().and_then(|path| path.strip_prefix("#/components/responses/"));
            let response = &document["components"]["responses"][shared.unwrap_or_else(|| panic!("{name} {status}"))];
            let parts = &response["content"]["application/json"]["schema"]["allOf"];
            assert_eq!(parts[0]["$ref"], "#/components/schemas/Failure", "{name} {status}");
            let words = parts[1]["properties"]["detail"]["enum"].as_array().expect("words");
            assert!(!words.is_empty(), "{name} {status}");
            assert!(response["headers"].get("X-Request-Id").is_some(), "{name} {status}");
        }
        assert!(responses.contains_key("400") && responses.contains_key("5XX"), "{name}");
        let is_public = operation["security"].as_array().expect("security").is_empty();
        assert!(is_public || responses.contains_key("401"), "{name}");
        let reads = |header: &str| parameters(&document, operation).iter().any(|p| p["name"] == header);
        assert_eq!(reads("If-Match"), responses.contains_key("412"), "{name}");
        assert_eq!(reads("If-None-Match"), responses.contains_key("304"), "{name}");
    }
    assert!(ids.len() > 150, "{}", ids.len());
}

/// The parameters of an operation, both inline and by reference.
fn parameters(document: &Value, operation: &Value) -> Vec<Value> {
    let listed = operation["parameters"].as_array().into_iter().flatten();
    let resolved = listed.map(|parameter| match parameter["$ref"].as_str() {
        Some(path) => document.pointer(path.trim_start_matches('#')).expect("a shared parameter").clone(),
        None => parameter.clone(),
    });
    resolved.collect()
}

#[test]
fn the_document_is_short_and_in_reading_order() {
    let document: Value = serde_json::from_str(&printed()).expect("JSON");
    const BYTES_MAX: usize = 520_000;
    assert!(document.to_string().len() < BYTES_MAX, "{}", document.to_string().len());
    let tags = document["tags"].as_array().expect("tags");
    let names: Vec<&str> = tags.iter().filter_map(|tag| tag["name"].as_str()).collect();
    assert_eq!(names.first(), Some(&"Sessions"));
    assert_eq!(names.last(), Some(&"System"));
    let used: BTreeSet<&str> = operations(&document)
        .iter()
        .flat_map(|(_, operation)| operation["tags"].as_array().into_iter().flatten().filter_map(Value::as_str))
        .collect();
    assert_eq!(used, names.into_iter().collect());
}

#[test]
fn every_failure_has_a_heading_with_its_status_and_its_code() {
    let document: Value = serde_json::from_str(&printed()).expect("JSON");
    let text = document["info"]["description"].as_str().expect("an introduction");
    for cause in roster::kernel::error::ErrorCode::ALL {
        let heading = format!("\n### {} {}\n\n{}\n", cause.status(), cause.as_str(), cause.message());
        assert_eq!(text.matches(&heading).count(), 1, "{heading}");
    }
    // A narrow page cuts off the columns of a table.
    assert!(!text.contains("| `detail` |"), "{text}");
}

#[test]
fn the_page_begins_with_signing_in_and_every_pattern_is_described_in_words() {
    let document: Value = serde_json::from_str(&printed()).expect("JSON");
    assert_eq!(document["info"]["title"], "Roster API");
    let sessions = operations(&document).into_iter().filter(|(_, operation)| operation["tags"][0] == "Sessions");
    let names: Vec<String> = sessions.map(|(name, _)| name).collect();
    assert_eq!(names.first().map(String::as_str), Some("post /auth/login"), "{names:?}");
    assert!(document["components"]["schemas"]["NewInvitation"]["example"]["url"].is_string());
    fn patterns<'d>(value: &'d Value, found: &mut BTreeSet<&'d str>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("pattern").and_then(Value::as_str));
                map.values().for_each(|inner| patterns(inner, found));
            }
            Value::Array(list) => list.iter().for_each(|inner| patterns(inner, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    patterns(&document, &mut found);
    let unsaid: Vec<&str> = found
        .into_iter()
        .filter(|one| roster::kernel::http::request_validator::pattern_message(one).is_none())
        .collect();
    assert!(unsaid.is_empty(), "{unsaid:?}");
}

#[tokio::test]
async fn the_document_names_the_operator_of_the_site() {
    let settings = "[docs]\ntitle = \"Example Media\"\ndescription = \"Ours.\"\ncontact_name = \"The operators\"\n\
        contact_email = \"api@example.org\"\ncontact_url = \"https://example.org/api\"";
    let site = Site::with(settings).await;
    let info = site.nobody().get("/api/v1/openapi.json").await.body["info"].clone();
    assert_eq!(info["title"], "Example Media");
    assert!(info["description"].as_str().is_some_and(|text| text.starts_with("Ours.")), "{info}");
    let contact = json!({"name": "The operators", "email": "api@example.org", "url": "https://example.org/api"});
    assert_eq!(info["contact"], contact);
}

#[tokio::test]
async fn an_unknown_parameter_is_refused() {
    let site = Site::start().await;
    let document: Value = serde_json::from_str(&printed()).expect("JSON");
    for (name, operation) in operations(&document) {
        let (method, path) = name.split_once(' ').expect("a method and a path");
        let is_hook = path.starts_with("/hooks/");
        let path: String =
            path.split('/').map(|part| if part.starts_with('{') { "0" } else { part }).collect::<Vec<_>>().join("/");
        let method = method.to_uppercase().parse().expect("a method");
        let path = format!("/api/v1{path}?nonsense=1&limit%5B%5D=1");
        let answer = site.nobody().send(method, &path, None).await;
        if is_hook {
            assert_ne!(answer.body["fields"][0]["field"], "nonsense", "{name}");
        } else {
            assert_eq!(answer.status, 400, "{name}: {}", answer.body);
            let fields: Vec<&str> =
                answer.body["fields"].as_array().into_iter().flatten().filter_map(|f| f["field"].as_str()).collect();
            assert_eq!(fields, ["nonsense", "limit[]"], "{} {operation}", answer.body);
        }
    }
}

#[test]
fn every_update_accepts_if_match() {
    let document: Value = serde_json::from_str(&printed()).expect("JSON");
    let has = |operation: &Value| parameters(&document, operation).iter().any(|p| p["name"] == "If-Match");
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
        let parameters = parameters(&document, operation);
        let in_list: BTreeSet<&str> =
            parameters.iter().filter(|p| p["in"] == "path").filter_map(|p| p["name"].as_str()).collect();
        assert_eq!(in_template, in_list, "{name}");
    }
}

#[test]
fn every_request_has_a_valid_example_and_refuses_unknown_fields() {
    let document: Value = serde_json::from_str(&printed()).expect("JSON");
    let inputs = roster::kernel::http::request_validator::RequestValidator::new(&document, roster::server::FORMATS);
    let mut seen = BTreeMap::new();
    for (name, operation) in operations(&document) {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        let Some(schema) = schema.as_str().and_then(|path| path.rsplit('/').next()) else { continue };
        let component = &document["components"]["schemas"][schema];
        assert_eq!(component["additionalProperties"], Value::Bool(false), "{name} accepts unknown fields");
        let example = component.get("example").unwrap_or_else(|| panic!("{schema} has no example"));
        let faults = inputs.check_body(schema, example).expect("a rule that can be used");
        assert!(faults.is_empty(), "{schema}: {faults:?}");
        seen.insert(schema.to_owned(), name);
    }
    assert!(seen.len() > 15, "{seen:?}");
    for operation in roster::kernel::http::openapi::operations(&document) {
        let parameters = parameters(&document, operation.value);
        let query = parameters.iter().map(|p| format!("{}=x", p["name"].as_str().unwrap_or_default()));
        let uri = format!("/?{}", query.collect::<Vec<_>>().join("&")).parse().expect("an address");
        inputs.check_query(operation.id, &uri).expect("rules that can be used");
    }
}
