//! The generated OpenAPI document, finished: what the framework's macros cannot say is added here, once, at start.

use poem_openapi::Tags;
use serde_json::{Map, Value, json};

use crate::access::permission::OWN;
use crate::error::{Error, Result};

/// The areas of the API: each is a folder, a tag, and a file of tests.
#[derive(Tags)]
pub enum Tag {
    /// Sign-in and tokens
    Sessions,
    /// The signed-in member's own view
    Me,
    /// Members, their identities, memberships and direct grants
    Members,
    /// Organizations, which are tenants
    Organizations,
    /// Catalog, roles, assignments, mappings and decisions
    Permissions,
    /// The organization's own rules: what is uploaded, tried, put in force and taken back
    Plugins,
    /// API clients of back-office programs, and API keys of services
    Clients,
    /// Work on videos, and who does it
    Jobs,
    /// Videos: what lies in the members' folders, and whose it is
    Videos,
    /// What members and organizations may store, and do store
    Quotas,
    /// What other services are told of: webhooks, and the deliveries of events
    Outbox,
    /// SFTPGo: its accounts beside the members, and what it asks and tells
    Sftpgo,
    /// What was done, by whom
    Audit,
    /// Lookups for the services of this site
    Internal,
    /// The program itself
    System,
}

/// One operation of a document.
pub struct Operation<'d> {
    pub method: &'d str,
    pub path: &'d str,
    pub id: &'d str,
    pub value: &'d Value,
}

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// All operations, in the document's order.
pub fn operations(document: &Value) -> Vec<Operation<'_>> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths
        .flat_map(|(path, item)| {
            METHODS.iter().filter_map(move |method| {
                let value = item.get(*method)?;
                Some(Operation { method, path, id: value["operationId"].as_str().unwrap_or_default(), value })
            })
        })
        .collect()
}

/// Finishes what the framework generated.
pub fn finish(generated: &str, examples: &[(&str, &str)]) -> Result<Value> {
    let mut document: Value = serde_json::from_str(generated)
        .map_err(|e| Error::internal(format!("the generated document is not JSON: {e}")))?;
    let inputs = request_schemas(&document);
    for item in document["paths"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        for method in METHODS {
            if let Some(operation) = item.get_mut(method) {
                finish_operation(method, operation);
            }
        }
    }
    name_permissions(&mut document);
    let schemas = document["components"]["schemas"].as_object_mut().into_iter().flatten();
    for (name, schema) in schemas {
        if inputs.contains(name) && schema.get("properties").is_some() {
            schema["additionalProperties"] = json!(false);
        }
        if let Some((_, example)) = examples.iter().find(|(schema, _)| schema == name) {
            schema["example"] = serde_json::from_str(example)
                .map_err(|e| Error::internal(format!("the example of {name} is not JSON: {e}")))?;
        }
    }
    Ok(document)
}

fn finish_operation(method: &str, operation: &mut Value) {
    name_shared_headers(method, operation);
    if method == "get" {
        let parameters = operation["parameters"].as_array_mut().into_iter().flatten();
        for limit in parameters.filter(|parameter| parameter["in"] == "query" && parameter["name"] == "limit") {
            // Taken out before the operation reads it (`inputs::drop_empty`).
            limit["schema"]["minimum"] = json!(0);
            if limit.get("description").is_none() {
                limit["description"] = json!("At most so many; 0 stands for the default");
            }
        }
    }
    match operation.get_mut("security").and_then(Value::as_array_mut) {
        Some(schemes) => schemes.iter_mut().for_each(split_scheme),
        // Nobody is asked who they are, so nobody can be refused for it.
        None => {
            if let Some(responses) = operation["responses"].as_object_mut() {
                responses.remove("401");
                responses.remove("403");
            }
        }
    }
    if operation.get("requestBody").is_none()
        && let Some(responses) = operation["responses"].as_object_mut()
    {
        ["408", "413", "415"].iter().for_each(|status| drop(responses.remove(*status)));
    }
}

/// Headers that every guarded operation reads, and every one that changes something.
fn name_shared_headers(method: &str, operation: &mut Value) {
    let header = |name: &str, description: &str| json!({"name": name, "in": "header", "required": false, "description": description, "schema": {"type": "string"}});
    let is_guarded = operation.get("security").is_some();
    let Some(map) = operation.as_object_mut() else { return };
    let parameters = map.entry("parameters").or_insert_with(|| json!([]));
    let Some(parameters) = parameters.as_array_mut() else { return };
    if is_guarded {
        parameters
            .push(header("X-Tenant-ID", "The organization to act in, by id or org_code, where it is not the only one"));
    }
    if is_guarded && method == "post" {
        parameters.push(header("Idempotency-Key", "A creating request with the same key happens once"));
    }
}

/// `{"a+b": []}` stands for two headers that are needed together.
fn split_scheme(scheme: &mut Value) {
    let names: Vec<String> = scheme.as_object().into_iter().flat_map(Map::keys).cloned().collect();
    let parts = names.iter().flat_map(|name| name.split('+')).map(|part| (part.to_owned(), json!([])));
    *scheme = Value::Object(parts.collect());
}

/// Says which permission an operation needs, from the table that the guard uses.
fn name_permissions(document: &mut Value) {
    for own in OWN.iter().filter(|own| !own.method.is_empty()) {
        let path = braced(own.path);
        let Some(operation) = document["paths"].get_mut(&path).and_then(|item| item.get_mut(own.method.to_lowercase()))
        else {
            continue;
        };
        operation["x-permission"] = json!(own.name);
        if let Some(scope) = own.scope {
            operation["x-client-scope"] = json!(scope);
        }
    }
}

/// `/a/:b` as `/a/{b}`.
pub fn braced(path: &str) -> String {
    let segment =
        |segment: &str| segment.strip_prefix(':').map_or_else(|| segment.to_owned(), |name| format!("{{{name}}}"));
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

/// Names of all schemas that a request body reaches.
fn request_schemas(document: &Value) -> Vec<String> {
    let bodies = operations(document).into_iter().map(|operation| operation.value["requestBody"].clone()).collect();
    let none = Map::new();
    reached(&Value::Array(bodies), document["components"]["schemas"].as_object().unwrap_or(&none))
}

/// Names of all schemas that a value refers to, directly or by way of others.
pub fn reached(value: &Value, schemas: &Map<String, Value>) -> Vec<String> {
    let mut waiting: Vec<String> = Vec::new();
    references(value, &mut waiting);
    let mut found: Vec<String> = Vec::new();
    while let Some(name) = waiting.pop() {
        if !found.contains(&name) {
            if let Some(schema) = schemas.get(&name) {
                references(schema, &mut waiting);
            }
            found.push(name);
        }
    }
    found
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(name) = map.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next()) {
                found.push(name.to_owned());
            }
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}
