//! Simplifies the generated document: one item per path, named envelopes, shared parameters and responses, integer
//! bounds, tags in reading order.

use std::collections::BTreeMap;

use poem_openapi::Tags as _;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value, json};

use super::{METHODS, PARAMETERS, Tag};
use crate::kernel::error::{Error, Result};
use crate::kernel::secret;

/// The generated document.
#[derive(Deserialize)]
struct Generated {
    paths: Paths,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// The paths. If two APIs have operations of one path, the generated JSON has a duplicate key; these are merged.
struct Paths(Map<String, Value>);

impl<'de> Deserialize<'de> for Paths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Merged;

        impl<'de> Visitor<'de> for Merged {
            type Value = Paths;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("paths with their operations")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Paths, A::Error> {
                let mut paths = Map::new();
                while let Some((path, item)) = map.next_entry::<String, Map<String, Value>>()? {
                    if let Some(known) = paths.entry(path).or_insert_with(|| json!({})).as_object_mut() {
                        known.extend(item);
                    }
                }
                Ok(Paths(paths))
            }
        }

        deserializer.deserialize_map(Merged)
    }
}

pub(super) fn read(generated: &str) -> Result<Value> {
    let Generated { paths, mut rest } = serde_json::from_str(generated)
        .map_err(|e| Error::internal(format!("the generated document is not JSON: {e}")))?;
    rest.insert("paths".into(), Value::Object(paths.0));
    Ok(Value::Object(rest))
}

/// Moves repeated parts to `components`, and removes redundant ones.
pub(super) fn tidy(document: &mut Value) {
    name_envelopes(document);
    rename_pages(document);
    share_pages(document);
    let schemas = document["components"]["schemas"].as_object().into_iter().flatten();
    let kinds = schemas.map(|(name, schema)| (name.clone(), schema["type"].clone())).collect();
    shorten(document, &kinds);
    share_parameters(document);
    share_successes(document);
    let tags = document["tags"].as_array_mut().into_iter().flatten();
    let mut tags: Vec<Value> = tags.map(Value::take).collect();
    tags.sort_by_key(|tag| Tag::ALL.iter().position(|one| tag["name"] == one.name()));
    document["tags"] = Value::Array(tags);
}

/// Makes each success envelope a named schema, so that generated types have names.
fn name_envelopes(document: &mut Value) {
    let mut named = Map::new();
    for item in document["paths"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        for method in METHODS {
            let Some(operation) = item.get_mut(method) else { continue };
            let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
            let responses = operation["responses"].as_object_mut().into_iter().flat_map(Map::values_mut);
            for response in responses {
                let Some(schema) = response.pointer_mut("/content/application~1json/schema") else { continue };
                if schema["properties"].get("code").is_none() {
                    continue;
                }
                let data = schema["properties"].get("data").cloned();
                let name = match &data {
                    None => "Done".to_owned(),
                    Some(data) => match data["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
                        Some(name) => format!("{}Envelope", page_name(name)),
                        None => format!("{}Envelope", pascal(&id)),
                    },
                };
                let reference = json!({"$ref": format!("#/components/schemas/{name}")});
                let envelope = std::mem::replace(schema, reference);
                named.insert(name, data.map_or(envelope, |data| extended("Done", json!({"data": data}))));
            }
        }
    }
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        schemas.extend(named);
    }
}

fn pascal(id: &str) -> String {
    let word = |word: &str| word.chars().next().map(|c| c.to_uppercase().to_string() + &word[c.len_utf8()..]);
    id.split('_').filter_map(word).collect()
}

/// Converts the framework's `Page_Member` to `MemberPage`.
fn page_name(name: &str) -> String {
    name.strip_prefix("Page_").map_or_else(|| name.to_owned(), |of| format!("{of}Page"))
}

fn rename_pages(document: &mut Value) {
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        *schemas = std::mem::take(schemas).into_iter().map(|(name, schema)| (page_name(&name), schema)).collect();
    }
    rename_references(document);
}

/// Moves the properties that all pages share to one schema.
fn share_pages(document: &mut Value) {
    let Some(schemas) = document["components"]["schemas"].as_object_mut() else { return };
    let mut shared = None;
    for (_, page) in schemas.iter_mut().filter(|(name, _)| name.ends_with("Page")) {
        let mut of_all = page.clone();
        let Some(items) = of_all["properties"].as_object_mut().and_then(|properties| properties.remove("items")) else {
            continue;
        };
        of_all["required"].as_array_mut().into_iter().for_each(|required| required.retain(|name| name != "items"));
        *page = extended("Page", json!({"items": items}));
        shared = Some(of_all);
    }
    schemas.extend(shared.map(|shared| ("Page".to_owned(), shared)));
}

/// A schema that extends another one with required properties. (Generators treat a reference alone as an alias.)
fn extended(schema: &str, properties: Value) -> Value {
    let required: Vec<&String> = properties.as_object().into_iter().flat_map(Map::keys).collect();
    json!({"allOf": [
        {"$ref": format!("#/components/schemas/{schema}")},
        {"type": "object", "properties": properties, "required": required},
    ]})
}

fn rename_references(value: &mut Value) {
    match value {
        Value::Object(map) => map.iter_mut().for_each(|(key, value)| match value {
            Value::String(text) if key == "$ref" => {
                *text = text
                    .rsplit_once('/')
                    .map_or_else(|| text.clone(), |(path, name)| format!("{path}/{}", page_name(name)))
            }
            value => rename_references(value),
        }),
        Value::Array(list) => list.iter_mut().for_each(rename_references),
        _ => {}
    }
}

/// Moves parameters of several operations to `components`.
fn share_parameters(document: &mut Value) {
    let mut uses: BTreeMap<String, u32> = BTreeMap::new();
    each_parameter(document, &mut |parameter| *uses.entry(parameter.to_string()).or_default() += 1);
    let mut shared = Map::new();
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    each_parameter(document, &mut |parameter| {
        let text = parameter.to_string();
        if uses.get(&text).is_none_or(|uses| *uses < 2) {
            return;
        }
        let name = names.entry(text).or_insert_with(|| {
            let name = parameter["name"].as_str().unwrap_or_default();
            let free = (1..).map(|n| if n == 1 { name.to_owned() } else { format!("{name}{n}") });
            let name = free.into_iter().find(|name| !shared.contains_key(name)).unwrap_or_default();
            shared.insert(name.clone(), parameter.clone());
            name
        });
        *parameter = json!({"$ref": format!("{PARAMETERS}{name}")});
    });
    document["components"]["parameters"] = Value::Object(shared);
}

/// Moves equal successes, with the same schema and headers, to `components`.
fn share_successes(document: &mut Value) {
    let is_success = |status: &str| status.starts_with('2');
    let mut uses: BTreeMap<String, u32> = BTreeMap::new();
    each_operation(document, &mut |operation| {
        let responses = operation["responses"].as_object_mut().into_iter().flatten();
        for (_, response) in responses.filter(|(status, _)| is_success(status)) {
            *uses.entry(response.to_string()).or_default() += 1;
        }
    });
    uses.retain(|_, uses| *uses > 1);
    let mut shared = document["components"]["responses"].as_object_mut().map(std::mem::take).unwrap_or_default();
    each_operation(document, &mut |operation| {
        let responses = operation["responses"].as_object_mut().into_iter().flatten();
        for (_, response) in responses.filter(|(status, _)| is_success(status)) {
            let text = response.to_string();
            let envelope = response.pointer("/content/application~1json/schema/$ref").and_then(Value::as_str);
            let envelope = envelope.and_then(|path| path.rsplit('/').next()).map(str::to_owned);
            if let Some(envelope) = envelope.filter(|_| uses.contains_key(&text)) {
                *response = share(&mut shared, &envelope, &text, response.take());
            }
        }
    });
    document["components"]["responses"] = Value::Object(shared);
}

/// Adds a response to the shared ones and returns a reference to it. Its name is short, and stable as long as `text`,
/// which identifies it, is the same.
pub(super) fn share(shared: &mut Map<String, Value>, name: &str, text: &str, response: Value) -> Value {
    const DIGITS: usize = 4;
    let digest = hex::encode(secret::hash(text));
    let named = (DIGITS..digest.len()).map(|digits| format!("{name}_{}", &digest[..digits]));
    // If two digests have a common prefix, the name gets more digits.
    let is_free = |name: &String| shared.get(name).is_none_or(|known| *known == response);
    let name = named.into_iter().find(is_free).unwrap_or_else(|| format!("{name}_{digest}"));
    let reference = json!({"$ref": format!("#/components/responses/{name}")});
    shared.insert(name, response);
    reference
}

fn each_operation(document: &mut Value, visit: &mut dyn FnMut(&mut Value)) {
    for item in document["paths"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        METHODS.iter().for_each(|method| item.get_mut(*method).into_iter().for_each(&mut *visit));
    }
}

fn each_parameter(document: &mut Value, visit: &mut dyn FnMut(&mut Value)) {
    each_operation(document, &mut |operation| {
        let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
        parameters.into_iter().flatten().for_each(&mut *visit);
    });
}

/// Removes keys with default values, and joins references with their annotations.
fn shorten(value: &mut Value, kinds: &Map<String, Value>) {
    match value {
        Value::Object(map) => {
            let is_schema = map.get("type").is_some_and(Value::is_string) && map.contains_key("properties");
            let is_any = !["type", "allOf", "properties"].iter().any(|key| map.contains_key(*key));
            let is_parameter = map.get("in").is_some_and(Value::is_string);
            map.retain(|key, value| match key.as_str() {
                "deprecated" => *value != json!(false),
                "explode" => *value != json!(true),
                "required" => !(is_parameter && *value == json!(false)),
                // The same as the schema's name.
                "title" => !(is_schema && value.is_string()),
                // A value of any type can be null.
                "nullable" => !is_any,
                "parameters" => *value != json!([]),
                _ => true,
            });
            join_reference(map, kinds);
            map.values_mut().for_each(|value| shorten(value, kinds));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| shorten(value, kinds)),
        // The framework stores bounds as floats.
        Value::Number(number) if number.is_f64() => {
            if let Ok(whole) = number.as_f64().unwrap_or_default().to_string().parse::<i64>() {
                *number = whole.into();
            }
        }
        _ => {}
    }
}

/// Converts an `allOf` of a reference and its annotations (a description, `nullable`) to an `allOf` of the reference
/// with the annotations beside it, because many generators treat the two as types that exclude each other. A nullable
/// schema states its type, as OpenAPI 3.0.3 requires.
fn join_reference(map: &mut Map<String, Value>, kinds: &Map<String, Value>) {
    let Some([reference, annotations]) = map.get_mut("allOf").and_then(Value::as_array_mut).map(Vec::as_mut_slice)
    else {
        return;
    };
    let Some(name) = reference["$ref"].as_str().and_then(|path| path.rsplit('/').next()) else { return };
    let kind = kinds.get(name).cloned();
    if annotations.get("$ref").is_some() || annotations.get("properties").is_some() {
        return;
    }
    let (reference, annotations) = (reference.take(), annotations.take());
    map.insert("allOf".into(), json!([reference]));
    if let Value::Object(annotations) = annotations {
        map.extend(annotations);
    }
    if map.get("nullable") == Some(&json!(true))
        && let Some(kind) = kind
    {
        map.insert("type".into(), kind);
    }
}
