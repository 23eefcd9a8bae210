//! Validates requests against the generated OpenAPI document: each rule is declared once, on a type, and becomes part
//! of its schema.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, Validator};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::nearest::did_you_mean;

pub type Shared = Arc<RequestValidator>;

/// The name of a format in a schema, and a function that lists all faults of a text of that format.
pub type Format = (&'static str, fn(&str) -> Vec<String>);

/// Most faults that are reported of one request.
const FAULTS_MAX: usize = 100;

const UUID: &str = "uuid";
const UNKNOWN_FIELD: &str = "is not a field of this request";

/// A query parameter of an operation.
struct Parameter {
    name: String,
    required: bool,
    is_integer: bool,
    is_boolean: bool,
    schema: Value,
}

/// The validator: schemas of all bodies, by name, and of all query parameters, by operation id. A schema is compiled
/// when it is first needed, because compiled schemas take far more memory, and a small site uses only a few.
pub struct RequestValidator {
    /// All schemas that requests refer to, converted to Draft 4.
    definitions: Map<String, Value>,
    bodies: HashMap<String, OnceLock<Validator>>,
    parameters: HashMap<String, Vec<Parameter>>,
    /// By path: the operation id of each method.
    operations: matchit::Router<HashMap<String, String>>,
    formats: &'static [Format],
}

/// Operations below this path accept unknown query parameters, because the external systems that call them add some.
const OPEN_QUERIES: &str = "/hooks/";

impl RequestValidator {
    /// Collects the schemas from a finished document.
    pub fn new(document: &Value, formats: &'static [Format]) -> Self {
        let schemas = document["components"]["schemas"].as_object().into_iter().flatten();
        let definitions = schemas.map(|(name, schema)| (name.clone(), checkable(schema))).collect();
        let (bodies, parameters) = (HashMap::new(), HashMap::new());
        let operations = operations_by_path(document);
        let mut inputs = Self { definitions, bodies, parameters, operations, formats };
        for operation in super::openapi::operations(document) {
            let body = &operation.value["requestBody"]["content"]["application/json"]["schema"];
            if let Some(name) = body["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
                inputs.bodies.insert(name.to_owned(), OnceLock::new());
            }
            let read = operation.parameters(document).filter(|parameter| parameter["in"] == "query").map(|parameter| {
                let schema = &parameter["schema"];
                Parameter {
                    name: parameter["name"].as_str().unwrap_or_default().to_owned(),
                    required: parameter["required"] == true,
                    is_integer: schema["type"] == "integer",
                    is_boolean: schema["type"] == "boolean",
                    schema: checkable(schema),
                }
            });
            inputs.parameters.insert(operation.id.to_owned(), read.collect());
        }
        // Schemas that no request refers to are dropped.
        let of_bodies = inputs.bodies.keys().flat_map(|name| inputs.reached(&body_schema(name)));
        let of_parameters = inputs.parameters.values().flatten().flat_map(|p| inputs.reached(&p.schema));
        let reached: HashSet<String> = of_bodies.chain(of_parameters).collect();
        inputs.definitions.retain(|name, _| reached.contains(name));
        inputs
    }

    fn reached(&self, schema: &Value) -> Vec<String> {
        super::openapi::reached(schema, &self.definitions)
    }

    /// Compiles a schema with all schemas that it refers to.
    fn compiled(&self, mut schema: Value) -> Result<Validator> {
        let names = self.reached(&schema);
        if !names.is_empty() {
            let known = |name: String| Some((name.clone(), self.definitions.get(&name)?.clone()));
            let reached: Map<String, Value> = names.into_iter().filter_map(known).collect();
            schema["components"] = json!({"schemas": reached});
        }
        compile(&schema, self.formats)
    }

    /// The compiled schema of a body; `None` if the document has no body of this name.
    fn body_rule(&self, name: &str) -> Result<Option<&Validator>> {
        let Some(rule) = self.bodies.get(name) else { return Ok(None) };
        if let Some(rule) = rule.get() {
            return Ok(Some(rule));
        }
        let compiled = self.compiled(body_schema(name))?;
        Ok(Some(rule.get_or_init(|| compiled)))
    }

    /// Returns all faults of a body with this schema.
    pub fn check_body(&self, schema: &str, value: &Value) -> Result<Vec<Field>> {
        Ok(match self.body_rule(schema)? {
            Some(rule) if rule.is_valid(value) => Vec::new(),
            Some(rule) => {
                let mut found = faults(rule, value, "body", self.formats);
                for fault in found.iter_mut().filter(|fault| fault.message == UNKNOWN_FIELD) {
                    let Some((name, path)) = fault.location.split_last() else { continue };
                    fault.message.push_str(&did_you_mean(name, self.fields_at(schema, &path[1..])));
                }
                found
            }
            None => vec![Field::at(&["body"], "has no schema: please report this bug")],
        })
    }

    /// The names of the fields that an object at this path in a body can have.
    fn fields_at(&self, schema: &str, path: &[String]) -> Vec<&str> {
        let mut at = self.definitions.get(schema);
        for part in path.iter().map(Some).chain([None]) {
            // A nullable schema is an `anyOf`, and its last branch is the schema itself.
            while let Some(inner) = at {
                let name = inner["$ref"].as_str().and_then(|path| path.rsplit('/').next());
                let last = ["anyOf", "allOf"].iter().find_map(|key| inner[*key].as_array()?.last());
                at = match (name, last) {
                    (Some(name), _) => self.definitions.get(name),
                    (None, Some(last)) => Some(last),
                    (None, None) => break,
                };
            }
            if let Some(part) = part {
                let inner = |key: &str| at.and_then(|schema| schema.get(key));
                let of_list = if part.parse::<usize>().is_ok() { inner("items") } else { None };
                at = inner("properties").and_then(|fields| fields.get(part)).or(of_list);
            }
        }
        at.and_then(|schema| schema["properties"].as_object())
            .into_iter()
            .flatten()
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// Returns a fault for each query parameter that the operation does not have.
    pub fn unknown_parameters(&self, method: &str, path: &str, query: &str) -> Vec<Field> {
        let found = self.operations.at(path).ok().filter(|_| !path.starts_with(OPEN_QUERIES));
        let Some(known) = found.and_then(|found| self.parameters.get(found.value.get(method)?)) else {
            return Vec::new();
        };
        let is_known = |name: &str| known.iter().any(|parameter| parameter.name == name);
        let unknown = query_pairs(query).into_iter().map(|(name, _)| name).filter(|name| !is_known(name));
        let fault = |name: String| {
            let meant = did_you_mean(&name, known.iter().map(|parameter| parameter.name.as_str()));
            Field::at(&["query", &name], format!("is not a parameter of this operation{meant}"))
        };
        unknown.map(fault).take(FAULTS_MAX).collect()
    }

    /// Returns all faults of the query of a request that the framework refused. (An id in a path is never malformed,
    /// only not found, and headers are read as text.)
    pub fn check_query(&self, operation_id: &str, uri: &poem::http::Uri) -> Result<Vec<Field>> {
        let query: Vec<(String, String)> = uri.query().map(query_pairs).unwrap_or_default();
        let mut found = Vec::new();
        for parameter in self.parameters.get(operation_id).map_or(&[][..], Vec::as_slice) {
            let location = ["query", parameter.name.as_str()];
            match query.iter().find(|(name, _)| *name == parameter.name) {
                None if parameter.required => found.push(Field::at(&location, "is missing")),
                None => {}
                Some((_, text)) => {
                    let rule = self.compiled(parameter.schema.clone())?;
                    found.extend(parameter.check(&rule, text).map(|message| Field::at(&location, message)));
                }
            }
        }
        Ok(found)
    }
}

fn operations_by_path(document: &Value) -> matchit::Router<HashMap<String, String>> {
    let mut by_path: HashMap<&str, HashMap<String, String>> = HashMap::new();
    for operation in super::openapi::operations(document) {
        let methods = by_path.entry(operation.path).or_default();
        methods.insert(operation.method.to_uppercase(), operation.id.to_owned());
    }
    let mut router = matchit::Router::new();
    for (path, methods) in by_path {
        if let Err(e) = router.insert(path, methods) {
            tracing::warn!(error = %e, path, "unknown query parameters of this path are not checked");
        }
    }
    router
}

fn body_schema(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

impl Parameter {
    fn check(&self, rule: &Validator, text: &str) -> Option<String> {
        let value = if self.is_integer {
            match text.parse::<i64>() {
                Ok(number) => json!(number),
                Err(_) => return Some("must be a whole number".into()),
            }
        } else if self.is_boolean {
            match text {
                "true" => json!(true),
                "false" => json!(false),
                _ => return Some("must be true or false".into()),
            }
        } else {
            json!(text)
        };
        faults(rule, &value, "", &[]).into_iter().next().map(|field| field.message)
    }
}

/// Removes the query parameters that every read treats as absent: empty filters, and a `limit` of 0.
pub fn drop_empty(uri: &mut poem::http::Uri) {
    let is_present = |pair: &&str| match pair.split_once('=') {
        None | Some((_, "")) => false,
        Some(("limit", digits)) => digits.bytes().any(|digit| digit != b'0'),
        Some(_) => true,
    };
    let Some(query) = uri.query() else { return };
    if query.split('&').all(|pair| is_present(&pair)) {
        return;
    }
    let kept: Vec<&str> = query.split('&').filter(is_present).collect();
    let separator = if kept.is_empty() { "" } else { "?" };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = format!("{}{separator}{}", uri.path(), kept.join("&")).parse().ok();
    if let Ok(shorter) = poem::http::Uri::from_parts(parts) {
        *uri = shorter;
    }
}

/// The names and values of a query string, percent-decoded.
fn query_pairs(query: &str) -> Vec<(String, String)> {
    poem::http::Uri::builder()
        .path_and_query(format!("/?{query}"))
        .build()
        .ok()
        .and_then(|uri| {
            let request = poem::Request::builder().uri(uri).finish();
            request.params::<Vec<(String, String)>>().ok()
        })
        .unwrap_or_default()
}

fn compile(schema: &Value, formats: &'static [Format]) -> Result<Validator> {
    let mut options = jsonschema::options()
        .with_draft(jsonschema::Draft::Draft4)
        .should_validate_formats(true)
        .with_pattern_options(PatternOptions::regex())
        // An id that is no UUID is not malformed, only not found; only an empty one is refused.
        .with_format(UUID, |text| !text.is_empty());
    for (name, faults) in formats {
        options = options.with_format(*name, |text| faults(text).is_empty());
    }
    options
        .build(schema)
        .map_err(|e| Error::internal(format!("a schema of the OpenAPI document cannot be compiled: {e}")))
}

/// Converts a schema from OpenAPI 3.0 to Draft 4: `nullable` becomes an `anyOf`, integer formats become bounds.
fn checkable(schema: &Value) -> Value {
    let mut schema = match schema {
        Value::Object(map) => Value::Object(map.iter().map(|(key, value)| (key.clone(), checkable(value))).collect()),
        Value::Array(list) => Value::Array(list.iter().map(checkable).collect()),
        other => return other.clone(),
    };
    let Some(map) = schema.as_object_mut() else { return schema };
    let bounds = match map.get("format").and_then(Value::as_str) {
        Some("int32") => Some((json!(i32::MIN), json!(i32::MAX))),
        Some("int64") => Some((json!(i64::MIN), json!(i64::MAX))),
        Some("uint32") => Some((json!(0), json!(u32::MAX))),
        Some("uint64") => Some((json!(0), json!(u64::MAX))),
        _ => None,
    };
    if let Some((low, high)) = bounds {
        map.entry("minimum").or_insert(low);
        map.entry("maximum").or_insert(high);
    }
    if map.remove("nullable") == Some(json!(true)) {
        return json!({"anyOf": [{"type": "null"}, schema]});
    }
    schema
}

fn faults(rule: &Validator, value: &Value, location_prefix: &str, formats: &[Format]) -> Vec<Field> {
    let mut found = Vec::new();
    for error in rule.iter_errors(value).take(FAULTS_MAX) {
        collect(&error, location_prefix, formats, &mut found);
    }
    found.truncate(FAULTS_MAX);
    found
}

fn collect(error: &jsonschema::ValidationError<'_>, location_prefix: &str, formats: &[Format], found: &mut Vec<Field>) {
    let mut location = vec![location_prefix.to_owned()];
    let pointer = error.instance_path().to_string();
    location.extend(pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")));
    let text = error.instance().as_str().unwrap_or_default();
    let mut at = |extra: Option<&str>, message: String| {
        let mut location = location.clone();
        location.extend(extra.map(str::to_owned));
        found.push(Field { location, message });
    };
    match error.kind() {
        ValidationErrorKind::AnyOf { context } => {
            // The last branch is the schema itself; the one before it is `null`.
            for inner in context.last().into_iter().flatten() {
                collect(inner, location_prefix, formats, found);
            }
        }
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            unexpected.iter().take(FAULTS_MAX).for_each(|name| at(Some(name), UNKNOWN_FIELD.into()));
        }
        ValidationErrorKind::Required { property } => at(property.as_str(), "is missing".into()),
        ValidationErrorKind::Format { format } if format == UUID => at(None, "must not be empty".into()),
        // An empty text is already reported as too short.
        ValidationErrorKind::Pattern { .. } | ValidationErrorKind::Format { .. } if text.is_empty() => {}
        ValidationErrorKind::Format { format } => {
            let rule = formats.iter().find(|(name, _)| name == format);
            let messages = rule.map_or_else(|| vec!["is not valid".to_owned()], |(_, faults)| faults(text));
            messages.into_iter().for_each(|message| at(None, message));
        }
        kind => at(None, message_of(kind, text)),
    }
}

/// The message for a violated rule. The text of the library is never returned to a caller.
fn message_of(kind: &ValidationErrorKind, text: &str) -> String {
    match kind {
        ValidationErrorKind::Type { kind } => format!("must be {}", type_name(kind)),
        ValidationErrorKind::MinLength { limit: 1 } => "must not be empty".into(),
        ValidationErrorKind::MinLength { limit } => format!("must have at least {limit} characters"),
        ValidationErrorKind::MaxLength { limit } => format!("must have at most {limit} characters"),
        ValidationErrorKind::Pattern { pattern } => {
            pattern_message(pattern).map_or_else(|| format!("must match {pattern}"), str::to_owned)
        }
        ValidationErrorKind::Minimum { limit } => format!("must be {} or more", whole(limit)),
        ValidationErrorKind::Maximum { limit } => format!("must be {} or less", whole(limit)),
        ValidationErrorKind::MinItems { limit } => format!("must have at least {limit} entries"),
        ValidationErrorKind::MaxItems { limit } => format!("must have at most {limit} entries"),
        ValidationErrorKind::UniqueItems => "must not contain duplicates".into(),
        ValidationErrorKind::Enum { options } => {
            let allowed: Vec<&str> = options.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            format!("must be one of {}{}", allowed.join(", "), did_you_mean(text, allowed.iter().copied()))
        }
        _ => "is not valid".into(),
    }
}

/// The message for a pattern of the document, if there is one.
pub fn pattern_message(pattern: &str) -> Option<&'static str> {
    const ALL: [(&str, &str); 14] = [
        (r"^[^\x00-\x1f\x7f]+$", "must not contain line breaks or other control characters"),
        (r"^[^\x00-\x1f\x7f]*$", "must not contain line breaks or other control characters"),
        (r#"^[^\x00-\x20\x7f@<>"]{1,64}@[^\x00-\x20\x7f@<>"]+$"#, "must be an e-mail address such as kim@example.org"),
        (
            "^[A-Za-z0-9][A-Za-z0-9._-]*$",
            "must begin with a letter or digit, and have only letters (a-z), digits and . _ - in it",
        ),
        (
            "^[a-z0-9][a-z0-9._-]*$",
            "must begin with a lower-case letter or digit, and contain only lower-case letters (a-z), digits and . _ -",
        ),
        (
            "^[a-z0-9][a-z0-9._-]{0,63}$",
            "must begin with a lower-case letter or digit, and contain only lower-case letters (a-z), digits and . _ -",
        ),
        (
            "^[a-z0-9][a-z0-9._-]{2,59}$",
            "must be 3 to 60 lower-case letters (a-z), digits and . _ - and begin with a letter or digit",
        ),
        ("^[0-9a-fA-F]+$", "must be hexadecimal digits"),
        (
            r"^[^/\\\x00-\x1f\x7f][^\\\x00-\x1f\x7f]*$",
            "must be a path that does not begin with a slash, without backslashes and control characters",
        ),
        (r"^[\x20-\x7e]+$", "must be plain ASCII without control characters"),
        (r"^[A-Za-z0-9._:-]+(\.\*)?$", "must be the name of a permission, or a prefix followed by .*"),
        ("^(page|known) [0-9]+$", "must be the `next` of the previous response"),
        ("^[0-9]{6}$", "must be 6 digits"),
        (r"^[^:\x00-\x1f\x7f]+$", "must not contain colons, line breaks or other control characters"),
    ];
    ALL.iter().find(|(known, _)| *known == pattern).map(|(_, message)| *message)
}

/// Formats a bound, which the framework stores as a float, without a fraction.
fn whole(limit: &Value) -> String {
    limit.as_f64().map_or_else(|| limit.to_string(), |number| number.to_string())
}

fn type_name(kind: &jsonschema::error::TypeKind) -> String {
    match kind {
        jsonschema::error::TypeKind::Single(one) => match one.to_string().as_str() {
            "string" => "text".into(),
            "integer" => "a whole number".into(),
            "boolean" => "true or false".into(),
            "array" => "a list".into(),
            "object" => "an object".into(),
            other => other.to_owned(),
        },
        jsonschema::error::TypeKind::Multiple(_) => "of another type".into(),
    }
}

/// Parses JSON and refuses duplicate keys, whose meaning would depend on the parser.
pub fn parse(bytes: &[u8]) -> Result<Value> {
    parse_within(bytes, u64::MAX)
}

pub fn empty() -> Error {
    Error::new(ErrorCode::MalformedBody).with_message("the body is empty: send a JSON object")
}

/// Parses JSON with at most `nodes_max` values, including those in lists and objects. Stops at the first value above.
pub fn parse_within(bytes: &[u8], nodes_max: u64) -> Result<Value> {
    let malformed = |message: String| Error::new(ErrorCode::MalformedBody).with_message(message);
    if bytes.is_empty() {
        return Err(empty());
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|e| malformed(format!("the body is not UTF-8 after byte {}", e.valid_up_to())))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let left = Cell::new(nodes_max);
    let read = UniqueKeys(&left).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    read.map_err(|e| {
        let text = e.to_string();
        let message = if text.starts_with(TOO_MANY) {
            format!("{TOO_MANY} {nodes_max} values (limits.body_nodes)")
        } else if text.starts_with(REPEATED) {
            text
        } else {
            format!("the body is not valid JSON at line {}, column {}", e.line(), e.column())
        };
        malformed(message)
    })
}

const REPEATED: &str = "the body names the key";
const TOO_MANY: &str = "the body has more than";

/// Deserializes a value without duplicate keys; holds the number of values that are still allowed.
#[derive(Clone, Copy)]
struct UniqueKeys<'l>(&'l Cell<u64>);

impl<'de> DeserializeSeed<'de> for UniqueKeys<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Value, D::Error> {
        let left = self.0.get().checked_sub(1).ok_or_else(|| D::Error::custom(TOO_MANY))?;
        self.0.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueKeys<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> std::result::Result<Value, E> {
        Ok(json!(value))
    }
    fn visit_i64<E>(self, value: i64) -> std::result::Result<Value, E> {
        Ok(json!(value))
    }
    fn visit_u64<E>(self, value: u64) -> std::result::Result<Value, E> {
        Ok(json!(value))
    }
    fn visit_f64<E>(self, value: f64) -> std::result::Result<Value, E> {
        Ok(json!(value))
    }
    fn visit_str<E>(self, value: &str) -> std::result::Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> std::result::Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(value) = list.next_element_seed(self)? {
            all.push(value);
        }
        Ok(Value::Array(all))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(self)?;
            match all.entry(key) {
                serde_json::map::Entry::Vacant(free) => drop(free.insert(value)),
                serde_json::map::Entry::Occupied(taken) => {
                    return Err(A::Error::custom(format!("{REPEATED} {:?} twice", taken.key())));
                }
            }
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_filters_and_a_limit_of_zero_are_removed_from_a_query() {
        for (sent, kept) in [
            ("/a", "/a"),
            ("/a?b=1&c=2", "/a?b=1&c=2"),
            ("/a?b=", "/a"),
            ("/a?b", "/a"),
            ("/a?b=&limit=0&c=%20&d", "/a?c=%20"),
            ("/a?limit=00", "/a"),
            ("/a?limit=10&offset=0", "/a?limit=10&offset=0"),
            ("/a?limit=-0", "/a?limit=-0"),
            ("http://h:1/a?&b=/?=", "http://h:1/a?b=/?="),
        ] {
            let mut uri = sent.parse().expect("an address");
            drop_empty(&mut uri);
            assert_eq!(uri.to_string(), kept);
        }
    }

    #[test]
    fn nested_values_of_a_body_are_counted() {
        for text in ["[1,2,3]", r#"{"a":1,"b":{"c":2}}"#, r#"[[[null]]]"#, r#"{"a":["x",true]}"#] {
            assert!(parse_within(text.as_bytes(), 4).is_ok(), "{text}");
            let error = parse_within(text.as_bytes(), 3).expect_err("one too many");
            let wanted = "the body has more than 3 values (limits.body_nodes)";
            assert_eq!((error.code, error.message()), (ErrorCode::MalformedBody, wanted), "{text}");
        }
    }

    #[test]
    fn errors_of_a_malformed_body_name_the_position() {
        for (bytes, says) in [
            (&b""[..], "empty"),
            (b"{\"a\":1,\"a\":2}", "\"a\" twice"),
            (b"{\"a\":{\"b\":1,\"b\":2}}", "\"b\" twice"),
            (b"{", "line 1, column 1"),
            (b"{} {}", "line 1"),
            (b"\xff\xfe", "UTF-8"),
        ] {
            let error = parse(bytes).expect_err("malformed");
            assert!(error.message().contains(says), "{}", error.message());
        }
        let deep = "[".repeat(100_000);
        assert_eq!(parse(deep.as_bytes()).expect_err("too deep").code, ErrorCode::MalformedBody);
        assert_eq!(parse(b"{\"a\":[1,null,\"x\",1.5,true]}").expect("fine"), json!({"a": [1, null, "x", 1.5, true]}));
    }
}
