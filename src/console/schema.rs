//! What the console knows of the operations, read from the OpenAPI document at start: address, permission, and the
//! fields of the request body with their rules. Forms take their rules from here, so they are written once.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::kernel::authz::permission::Permission;
use crate::kernel::http::openapi::operations;

/// One operation.
#[derive(Debug, Clone)]
pub struct OperationInfo {
    /// In upper case.
    pub method: String,
    /// The path template, below the base path of the API.
    pub path: String,
    /// The permission that the operation requires; `None` for one's own data and for public operations.
    pub permission: Option<Permission>,
    pub fields: Vec<FieldInfo>,
}

/// A property of the request body.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldInfo {
    pub name: String,
    pub kind: FieldKind,
    pub is_required: bool,
    pub is_nullable: bool,
    pub length_min: Option<u64>,
    pub length_max: Option<u64>,
    pub pattern: Option<String>,
    /// The English description in the document.
    pub about: String,
}

/// The type of a property.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldKind {
    Text,
    Integer,
    Number,
    Boolean,
    Choice(Vec<String>),
    /// A list of texts, with the allowed values if they are a closed set.
    List(Vec<String>),
    /// An object or a list of objects, which no form has as one control.
    Other,
}

impl OperationInfo {
    /// An operation without a body.
    pub fn at(method: &str, path: &str) -> Self {
        Self { method: method.to_owned(), path: path.to_owned(), permission: None, fields: Vec::new() }
    }

    pub fn field(&self, name: &str) -> Option<&FieldInfo> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// All operations, by their id.
pub type Operations = HashMap<String, OperationInfo>;

/// Reads the operations of the document.
pub fn read(document: &Value) -> Operations {
    let permissions: HashMap<&str, Permission> = Permission::all().map(|known| (known.builtin().name, known)).collect();
    operations(document)
        .into_iter()
        .map(|operation| {
            let body = &operation.value["requestBody"]["content"]["application/json"]["schema"];
            let info = OperationInfo {
                method: operation.method.to_uppercase(),
                path: operation.path.to_owned(),
                permission: operation.value["x-permission"].as_str().and_then(|name| permissions.get(name).copied()),
                fields: fields(document, resolved(document, body)),
            };
            (operation.id.to_owned(), info)
        })
        .collect()
}

/// Follows `$ref` and an `allOf` of one schema.
fn resolved<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    let mut schema = schema;
    // Schemas refer to others at most a few levels deep.
    for _ in 0..8 {
        let inner = schema["allOf"].get(0).or_else(|| schema["anyOf"].get(0));
        schema = match (schema["$ref"].as_str(), inner) {
            (Some(path), _) => {
                let name = path.rsplit('/').next().unwrap_or_default();
                &document["components"]["schemas"][name]
            }
            (None, Some(inner)) => inner,
            (None, None) => break,
        };
    }
    schema
}

fn fields(document: &Value, schema: &Value) -> Vec<FieldInfo> {
    let none = Map::new();
    let required = |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
    schema["properties"]
        .as_object()
        .unwrap_or(&none)
        .iter()
        .map(|(name, property)| {
            let inner = resolved(document, property);
            let number = |key: &str| property[key].as_u64().or_else(|| inner[key].as_u64());
            FieldInfo {
                name: name.clone(),
                kind: kind(document, inner),
                is_required: required(name),
                is_nullable: property["nullable"] == true,
                length_min: number("minLength"),
                length_max: number("maxLength"),
                pattern: inner["pattern"].as_str().map(str::to_owned),
                about: property["description"]
                    .as_str()
                    .or(inner["description"].as_str())
                    .unwrap_or_default()
                    .to_owned(),
            }
        })
        .collect()
}

fn kind(document: &Value, schema: &Value) -> FieldKind {
    let choices = |schema: &Value| -> Vec<String> {
        schema["enum"].as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect()
    };
    match schema["type"].as_str() {
        Some("string") if schema["enum"].is_array() => FieldKind::Choice(choices(schema)),
        Some("string") => FieldKind::Text,
        Some("integer") => FieldKind::Integer,
        Some("number") => FieldKind::Number,
        Some("boolean") => FieldKind::Boolean,
        Some("array") => {
            let items = resolved(document, &schema["items"]);
            if items["type"] == "string" { FieldKind::List(choices(items)) } else { FieldKind::Other }
        }
        _ => FieldKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{FieldKind, read};

    #[test]
    fn the_rules_of_fields_come_from_the_document() {
        let document = json!({
            "paths": {"/me": {"patch": {
                "operationId": "update_me",
                "x-permission": "roster.user.list",
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/UpdateMe"}}}},
            }}},
            "components": {"schemas": {
                "UpdateMe": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string", "maxLength": 20, "minLength": 1, "pattern": "^a", "description": "A name"},
                    "state": {"allOf": [{"$ref": "#/components/schemas/State"}], "nullable": true},
                    "scopes": {"type": "array", "items": {"$ref": "#/components/schemas/State"}},
                    "inner": {"type": "object"},
                }},
                "State": {"type": "string", "enum": ["open", "closed"]},
            }},
        });
        let operations = read(&document);
        let update = &operations["update_me"];
        assert_eq!((update.method.as_str(), update.path.as_str()), ("PATCH", "/me"));
        assert!(update.permission.is_some());
        let name = update.field("name").expect("the field");
        assert!(name.is_required && !name.is_nullable);
        assert_eq!((name.length_min, name.length_max, name.pattern.as_deref()), (Some(1), Some(20), Some("^a")));
        let choices = vec!["open".to_owned(), "closed".to_owned()];
        let state = update.field("state").expect("the field");
        assert!(state.is_nullable && state.kind == FieldKind::Choice(choices.clone()));
        assert_eq!(update.field("scopes").map(|field| &field.kind), Some(&FieldKind::List(choices)));
        assert_eq!(update.field("inner").map(|field| &field.kind), Some(&FieldKind::Other));
    }
}
