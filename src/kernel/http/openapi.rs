//! The generated OpenAPI document, finished: what the framework's macros cannot say is added here, once, at start.

pub mod answers;
mod introduction;
mod shapes;

use poem_openapi::Tags;
use serde_json::{Map, Value, json};

pub use self::answers::{Answers, AsDefined, Declared, Documented};
use crate::kernel::authn::caller::IDEMPOTENCY_KEY_BYTES_MAX;
use crate::kernel::authz::permission::BUILTIN_PERMISSIONS;
use crate::kernel::config::Config;
use crate::kernel::db::Window;
use crate::kernel::error::{Error, Result};

/// What the operations are about, in the order in which somebody new reads them.
#[derive(Tags)]
pub enum Tag {
    /// Sign-in, tokens, second factors, and where one is signed in
    Sessions,
    /// Members, their identities and their organizations; the caller's own account
    Members,
    /// Links by which people join an organization
    Invitations,
    /// Organizations, which are tenants
    Organizations,
    /// The catalog of permissions, roles, who holds them, and which external roles bring them
    Permissions,
    /// Rights in programs that ask by scope, module and action
    Grants,
    /// May somebody do something, why, and what was answered before
    Decisions,
    /// The organization's plugins: what is uploaded, tried, put in force and taken back
    Plugins,
    /// Programs that call this API by a key and a secret, within scopes
    #[oai(rename = "API clients")]
    ApiClients,
    /// Keys of members and services, for uploads and jobs
    #[oai(rename = "API keys")]
    ApiKeys,
    /// Videos: the files in the members' folders, and whose they are
    Videos,
    /// What members and organizations may store, and do store
    Quotas,
    /// Work on videos, and who does it
    Jobs,
    /// Events that other programs are told of, and their deliveries
    Webhooks,
    /// What was done, by whom
    Audit,
    /// SFTPGo: its accounts beside the members, and what it asks and tells
    #[oai(rename = "SFTPGo")]
    Sftpgo,
    /// WordPress: its accounts beside the members, and what it tells
    #[oai(rename = "WordPress")]
    WordPress,
    /// Authentik: accounts there for members here
    Authentik,
    /// The program itself
    System,
}

/// The names of the tags, in reading order.
const TAGS: [&str; 19] = [
    "Sessions",
    "Members",
    "Invitations",
    "Organizations",
    "Permissions",
    "Grants",
    "Decisions",
    "Plugins",
    "API clients",
    "API keys",
    "Videos",
    "Quotas",
    "Jobs",
    "Webhooks",
    "Audit",
    "SFTPGo",
    "WordPress",
    "Authentik",
    "System",
];

/// One operation of a document.
pub struct Operation<'d> {
    pub method: &'d str,
    pub path: &'d str,
    pub id: &'d str,
    pub value: &'d Value,
}

/// Where parameters lie that several operations have.
const PARAMETERS: &str = "#/components/parameters/";

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

impl<'d> Operation<'d> {
    /// Its parameters, also where they stand once for several operations.
    pub fn parameters(&self, document: &'d Value) -> impl Iterator<Item = &'d Value> + use<'d> {
        self.value["parameters"].as_array().into_iter().flatten().map(|parameter| {
            let name = parameter["$ref"].as_str().and_then(|path| path.strip_prefix(PARAMETERS));
            name.map_or(parameter, |name| &document["components"]["parameters"][name])
        })
    }
}

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

/// Finishes what the framework generated; with it, what each operation can answer.
pub fn finish(
    generated: &str,
    apis: &[Documented],
    as_defined: AsDefined,
    details: &[(&str, &str, Value)],
) -> Result<(Value, Declared)> {
    let mut document = shapes::read(generated)?;
    let inputs = request_schemas(&document);
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        for method in METHODS {
            if let Some(operation) = item.get_mut(method) {
                finish_operation(method, operation);
                // Sessions begin with signing in, not with what an administrator does to somebody else's.
                if path.starts_with("/admin/members/") && operation["tags"] == json!(["Sessions"]) {
                    operation["tags"] = json!(["Members"]);
                }
                bound_page(path, operation);
            }
        }
    }
    name_permissions(&mut document);
    let answers: Vec<&Answers> = apis.iter().flat_map(|api| api.answers).collect();
    let declared = answers::write(&mut document, &answers, as_defined)?;
    shapes::tidy(&mut document);
    for (schema, field, more) in details {
        let of_field = document["components"]["schemas"][*schema]["properties"].get_mut(*field);
        let of_field = of_field.and_then(Value::as_object_mut);
        let missing = || Error::internal(format!("the document has no {field} of {schema}"));
        of_field.ok_or_else(missing)?.extend(more.as_object().cloned().unwrap_or_default());
    }
    let schemas = document["components"]["schemas"].as_object_mut().into_iter().flatten();
    for (name, schema) in schemas {
        if inputs.contains(name) && schema.get("properties").is_some() {
            schema["additionalProperties"] = json!(false);
        }
        if let Some((_, example)) = apis.iter().flat_map(|api| api.examples).find(|(schema, _)| schema == name) {
            schema["example"] = serde_json::from_str(example)
                .map_err(|e| Error::internal(format!("the example of {name} is not JSON: {e}")))?;
        }
    }
    Ok((document, declared))
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
        None => operation["security"] = json!([]),
    }
}

/// How long a page is, and can be.
fn bound_page(path: &str, operation: &mut Value) {
    let (default, max) = match path.starts_with("/internal/") {
        true => (Window::INTERNAL_MAX, Window::INTERNAL_MAX),
        false => (Window::DEFAULT, Window::MAX),
    };
    for parameter in operation["parameters"].as_array_mut().into_iter().flatten() {
        if parameter["in"] == "query" && parameter["name"] == "limit" {
            parameter["description"] = json!("How many at most; a larger number is taken as the maximum");
            parameter["schema"]["default"] = json!(default);
            parameter["schema"]["maximum"] = json!(max);
        } else if parameter["in"] == "query" && parameter["name"] == "offset" {
            parameter["schema"]["default"] = json!(0);
            parameter["schema"]["minimum"] = json!(0);
        }
    }
}

/// Headers that every guarded operation reads, and every one that changes something.
fn name_shared_headers(method: &str, operation: &mut Value) {
    let header = |name: &str, description: &str, characters_max: Option<usize>| {
        let mut schema = json!({"type": "string"});
        if let Some(characters_max) = characters_max {
            schema["minLength"] = json!(1);
            schema["maxLength"] = json!(characters_max);
        }
        json!({"name": name, "in": "header", "description": description, "schema": schema})
    };
    let is_guarded = operation.get("security").is_some();
    let Some(map) = operation.as_object_mut() else { return };
    let parameters = map.entry("parameters").or_insert_with(|| json!([]));
    let Some(parameters) = parameters.as_array_mut() else { return };
    if is_guarded {
        let about = "The organization to act in, by id or org_code, where it is not the only one";
        parameters.push(header("X-Tenant-ID", about, None));
    }
    if is_guarded && method == "post" {
        let about = "A creating request with the same key happens once";
        parameters.push(header("Idempotency-Key", about, Some(IDEMPOTENCY_KEY_BYTES_MAX)));
    }
}

/// `{"a+b": []}` stands for two headers that are needed together.
fn split_scheme(scheme: &mut Value) {
    let names: Vec<String> = scheme.as_object().into_iter().flat_map(Map::keys).cloned().collect();
    let parts = names.iter().flat_map(|name| name.split('+')).map(|part| (part.to_owned(), json!([])));
    *scheme = Value::Object(parts.collect());
}

/// Whose API this is, and how it is called.
pub fn info(config: &Config) -> Value {
    let own = match config.docs_description.as_str() {
        "" => "Members, organizations, roles, API clients, permission checks and storage quotas of this site.",
        own => own,
    };
    let mut info = json!({
        "title": config.docs_title,
        "version": env!("CARGO_PKG_VERSION"),
        "description": introduction::text(&format!("{own}\n\n{}", manual(config))),
        "license": {"name": env!("CARGO_PKG_LICENSE")},
    });
    let contact =
        [("name", &config.docs_contact_name), ("email", &config.docs_contact_email), ("url", &config.docs_contact_url)];
    let contact = contact.into_iter().filter(|(_, value)| !value.is_empty());
    let contact: Map<String, Value> = contact.map(|(name, value)| (name.to_owned(), json!(value))).collect();
    if !contact.is_empty() {
        info["contact"] = Value::Object(contact);
    }
    info
}

/// Where the manual is, for who reads about the API first.
fn manual(config: &Config) -> String {
    format!("The [manual]({}/manual) says how to set Roster up and use it, task by task.\n\n", config.public_path())
}

/// Says which permission an operation needs, from the table that the guard uses.
fn name_permissions(document: &mut Value) {
    for own in BUILTIN_PERMISSIONS.iter().filter(|own| !own.method.is_empty()) {
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
