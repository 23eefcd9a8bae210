//! Completes the generated OpenAPI document, once, at start: adds what the macros of the framework cannot express.

pub mod answers;
mod introduction;
mod shapes;

use poem_openapi::Tags;
use serde_json::{Map, Value, json};

pub use self::answers::{Answers, CauseOverride, Declared, Documented};
use crate::kernel::authn::caller::IDEMPOTENCY_KEY_BYTES_MAX;
use crate::kernel::authz::permission::BUILTIN_PERMISSIONS;
use crate::kernel::config::Config;
use crate::kernel::db::PageRequest;
use crate::kernel::error::{Error, Result};

macro_rules! tags {
    ($($(#[$($attribute:tt)*])* $name:ident,)*) => {
        /// The tags of the operations, in reading order for a newcomer.
        #[derive(Tags, Clone, Copy)]
        pub enum Tag { $($(#[$($attribute)*])* $name,)* }

        impl Tag {
            const ALL: &'static [Self] = &[$(Self::$name,)*];
        }
    };
}

tags! {
    /// Sign-in, tokens, second factors and sessions
    Sessions,
    /// Members, their identities and memberships; the caller's own account
    Members,
    /// Invitation links to an organization
    Invitations,
    /// Organizations, which are the tenants
    Organizations,
    /// The permission catalog, roles, role assignments and mappings of external roles
    Permissions,
    /// Direct grants, by scope, module and action
    Grants,
    /// Permission checks with explanations, and the decision log
    Decisions,
    /// The organization's plugins: upload, test, activation and rollback
    Plugins,
    /// Programs that call this API with a key and a secret, limited by scopes
    #[oai(rename = "API clients")]
    ApiClients,
    /// API keys of members and services, for uploads and jobs
    #[oai(rename = "API keys")]
    ApiKeys,
    /// Videos: the files in the members' folders, and their owners
    Videos,
    /// Storage quotas and usage of members and organizations
    Quotas,
    /// Processing jobs of videos, and their workers
    Jobs,
    /// Webhooks for events, and their deliveries
    Webhooks,
    /// Work in the background: its progress and its result
    Tasks,
    /// Counts over time: sign-ins, decisions, jobs and storage
    Statistics,
    /// The audit log
    Audit,
    /// Search over everything that the caller may list
    Search,
    /// SFTPGo: account provisioning, the login hook and file events
    #[oai(rename = "SFTPGo")]
    Sftpgo,
    /// WordPress: account synchronization and events
    #[oai(rename = "WordPress")]
    WordPress,
    /// Authentik: account provisioning
    Authentik,
    /// Health, metrics and administration of the server
    System,
}

/// One operation of a document.
pub struct Operation<'d> {
    pub method: &'d str,
    pub path: &'d str,
    pub id: &'d str,
    pub value: &'d Value,
}

/// The path of parameters that several operations share.
const PARAMETERS: &str = "#/components/parameters/";

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

impl<'d> Operation<'d> {
    /// Its parameters, with references to shared ones resolved.
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

/// Completes the document that the framework generated. Returns it with the failures and headers of each operation.
pub fn finish(
    generated: &str,
    apis: &[Documented],
    as_defined: CauseOverride,
    details: &[(&str, &str, Value)],
) -> Result<(Value, Declared)> {
    let mut document = shapes::read(generated)?;
    let inputs = request_schemas(&document);
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        for method in METHODS {
            if let Some(operation) = item.get_mut(method) {
                finish_operation(method, operation);
                // The tag Sessions starts with sign-in; what administrators do with members' sessions is under Members.
                if path.starts_with("/admin/members/") && operation["tags"] == json!([Tag::Sessions.name()]) {
                    operation["tags"] = json!([Tag::Members.name()]);
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
            // Removed before the operation reads it (`request_validator::drop_empty`).
            limit["schema"]["minimum"] = json!(0);
        }
    }
    match operation.get_mut("security").and_then(Value::as_array_mut) {
        Some(schemes) => schemes.iter_mut().for_each(split_scheme),
        None => operation["security"] = json!([]),
    }
}

/// Adds the description of `limit`, and the default and the maximum of `limit` and `offset`.
fn bound_page(path: &str, operation: &mut Value) {
    let (default, max) = match path.starts_with("/internal/") {
        true => (PageRequest::INTERNAL_MAX, PageRequest::INTERNAL_MAX),
        false => (PageRequest::DEFAULT, PageRequest::MAX),
    };
    for parameter in operation["parameters"].as_array_mut().into_iter().flatten() {
        if parameter["in"] == "query" && parameter["name"] == "limit" {
            parameter["description"] =
                json!("The maximum number of entries; a value above the maximum is reduced to it");
            parameter["schema"]["default"] = json!(default);
            parameter["schema"]["maximum"] = json!(max);
        } else if parameter["in"] == "query" && parameter["name"] == "offset" {
            parameter["schema"]["default"] = json!(0);
            parameter["schema"]["minimum"] = json!(0);
        }
    }
}

/// Adds the headers that every authenticated operation reads, and those of every POST operation.
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
        let description =
            "The organization to act in, by id or org_code; required for members of several organizations";
        parameters.push(header("X-Tenant-ID", description, None));
    }
    if is_guarded && method == "post" {
        let description = "A request that creates a resource is executed once per key";
        parameters.push(header("Idempotency-Key", description, Some(IDEMPOTENCY_KEY_BYTES_MAX)));
    }
}

/// Splits `{"a+b": []}`, which declares two headers that are required together.
fn split_scheme(scheme: &mut Value) {
    let names: Vec<String> = scheme.as_object().into_iter().flat_map(Map::keys).cloned().collect();
    let parts = names.iter().flat_map(|name| name.split('+')).map(|part| (part.to_owned(), json!([])));
    *scheme = Value::Object(parts.collect());
}

/// The `info` of the document: title, description, license and contact.
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

/// A link to the manual, for readers who come to the API documentation first.
fn manual(config: &Config) -> String {
    format!("The [manual]({}/manual) describes how to set up and use Roster, task by task.\n\n", config.public_path())
}

/// Adds the permission and the client scope that each operation requires, from the table that the guard uses.
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

/// Converts `/a/:b` to `/a/{b}`.
pub fn braced(path: &str) -> String {
    let segment =
        |segment: &str| segment.strip_prefix(':').map_or_else(|| segment.to_owned(), |name| format!("{{{name}}}"));
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

/// The names of all schemas that request bodies refer to.
fn request_schemas(document: &Value) -> Vec<String> {
    let bodies = operations(document).into_iter().map(|operation| operation.value["requestBody"].clone()).collect();
    let none = Map::new();
    reached(&Value::Array(bodies), document["components"]["schemas"].as_object().unwrap_or(&none))
}

/// The names of all schemas that a value refers to, directly or transitively.
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
