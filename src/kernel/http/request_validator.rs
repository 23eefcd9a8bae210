//! The generated document as the validator: every rule is written once, on a type, and checked from its schema.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, Validator};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::nearest::did_you_mean;

pub type Shared = Arc<Inputs>;

/// The name of a format in a schema, and all that is wrong with a text of that format.
pub type Format = (&'static str, fn(&str) -> Vec<String>);

/// More than this many faults in one request are not listed.
const FAULTS_MAX: usize = 100;

const UUID: &str = "uuid";
const UNKNOWN_FIELD: &str = "is not a field of this request";

/// A parameter of the query.
struct Parameter {
    name: String,
    required: bool,
    is_integer: bool,
    is_boolean: bool,
    schema: Value,
}

/// Rules of all bodies, by schema name, and of all query parameters, by operation id. A rule is compiled when it is first
/// needed: compiled they take far more memory than as schemas, and a small site uses a few.
pub struct Inputs {
    /// All schemas of the document, in the dialect of the validator.
    definitions: Map<String, Value>,
    bodies: HashMap<String, OnceLock<Validator>>,
    parameters: HashMap<String, Vec<Parameter>>,
    /// By path: the operation of each method.
    operations: matchit::Router<HashMap<String, String>>,
    formats: &'static [Format],
}

/// External systems call these, and add parameters of their own.
const OPEN_QUERIES: &str = "/hooks/";

impl Inputs {
    /// Takes the rules out of a finished document.
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
        // What no request reaches is not needed again.
        let of_bodies = inputs.bodies.keys().flat_map(|name| inputs.reached(&body_schema(name)));
        let of_parameters = inputs.parameters.values().flatten().flat_map(|p| inputs.reached(&p.schema));
        let reached: HashSet<String> = of_bodies.chain(of_parameters).collect();
        inputs.definitions.retain(|name, _| reached.contains(name));
        inputs
    }

    fn reached(&self, schema: &Value) -> Vec<String> {
        super::openapi::reached(schema, &self.definitions)
    }

    /// The rule of a schema, with all that it refers to.
    fn compiled(&self, mut schema: Value) -> Result<Validator> {
        let names = self.reached(&schema);
        if !names.is_empty() {
            let known = |name: String| Some((name.clone(), self.definitions.get(&name)?.clone()));
            let reached: Map<String, Value> = names.into_iter().filter_map(known).collect();
            schema["components"] = json!({"schemas": reached});
        }
        compile(&schema, self.formats)
    }

    /// The rule of a body; `None` when the document has none of this name.
    fn body_rule(&self, name: &str) -> Result<Option<&Validator>> {
        let Some(rule) = self.bodies.get(name) else { return Ok(None) };
        if let Some(rule) = rule.get() {
            return Ok(Some(rule));
        }
        let compiled = self.compiled(body_schema(name))?;
        Ok(Some(rule.get_or_init(|| compiled)))
    }

    /// All that is wrong with a body of this schema.
    pub fn check_body(&self, schema: &str, value: &Value) -> Result<Vec<Field>> {
        Ok(match self.body_rule(schema)? {
            Some(rule) if rule.is_valid(value) => Vec::new(),
            Some(rule) => {
                let mut found = faults(rule, value, "body", self.formats);
                for fault in found.iter_mut().filter(|fault| fault.message == UNKNOWN_FIELD) {
                    let Some((name, place)) = fault.location.split_last() else { continue };
                    fault.message.push_str(&did_you_mean(name, self.fields_at(schema, &place[1..])));
                }
                found
            }
            None => vec![Field::at(&["body"], "has no rules: please report this")],
        })
    }

    /// The names of the fields that an object at this place in a body can have.
    fn fields_at(&self, schema: &str, place: &[String]) -> Vec<&str> {
        let mut at = self.definitions.get(schema);
        for part in place.iter().map(Some).chain([None]) {
            // What may be null is a choice, whose last branch is the real one.
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

    /// Parameters in the query of a request that its operation does not have.
    pub fn unknown_parameters(&self, method: &str, path: &str, query: &str) -> Vec<Field> {
        let found = self.operations.at(path).ok().filter(|_| !path.starts_with(OPEN_QUERIES));
        let Some(known) = found.and_then(|found| self.parameters.get(found.value.get(method)?)) else {
            return Vec::new();
        };
        let is_known = |name: &str| known.iter().any(|parameter| parameter.name == name);
        let unknown = query_pairs(query).into_iter().map(|(name, _)| name).filter(|name| !is_known(name));
        let fault = |name: String| {
            let meant = did_you_mean(&name, known.iter().map(|parameter| parameter.name.as_str()));
            Field::at(&["query", &name], format!("is no parameter of this operation{meant}"))
        };
        unknown.map(fault).take(FAULTS_MAX).collect()
    }

    /// All that is wrong with the query of a request that the framework refused. (Ids in paths are never malformed, only
    /// missing, and headers are read as text.)
    pub fn check_query(&self, operation_id: &str, uri: &poem::http::Uri) -> Result<Vec<Field>> {
        let query: Vec<(String, String)> = uri.query().map(query_pairs).unwrap_or_default();
        let mut found = Vec::new();
        for parameter in self.parameters.get(operation_id).map_or(&[][..], Vec::as_slice) {
            let place = ["query", parameter.name.as_str()];
            match query.iter().find(|(name, _)| *name == parameter.name) {
                None if parameter.required => found.push(Field::at(&place, "is missing")),
                None => {}
                Some((_, text)) => {
                    let rule = self.compiled(parameter.schema.clone())?;
                    found.extend(parameter.check(&rule, text).map(|message| Field::at(&place, message)));
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
            tracing::warn!(error = %e, path, "parameters of this path are not looked at");
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

/// Takes out of the query what counts as absent in every read: filters that are empty, and a `limit` of 0.
pub fn drop_empty(uri: &mut poem::http::Uri) {
    let counts = |pair: &&str| match pair.split_once('=') {
        None | Some((_, "")) => false,
        Some(("limit", digits)) => digits.bytes().any(|digit| digit != b'0'),
        Some(_) => true,
    };
    let Some(query) = uri.query() else { return };
    if query.split('&').all(|pair| counts(&pair)) {
        return;
    }
    let kept: Vec<&str> = query.split('&').filter(counts).collect();
    let mark = if kept.is_empty() { "" } else { "?" };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = format!("{}{mark}{}", uri.path(), kept.join("&")).parse().ok();
    if let Ok(shorter) = poem::http::Uri::from_parts(parts) {
        *uri = shorter;
    }
}

/// Names and values of a query string, percent-decoded.
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
        // An id that is none is not malformed, only missing; an empty one is no id.
        .with_format(UUID, |text| !text.is_empty());
    for (name, faults) in formats {
        options = options.with_format(*name, |text| faults(text).is_empty());
    }
    options.build(schema).map_err(|e| Error::internal(format!("a schema of the document is not usable: {e}")))
}

/// OpenAPI 3.0's dialect as Draft 4: `nullable` becomes a choice, integer formats become bounds.
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

fn faults(rule: &Validator, value: &Value, place: &str, formats: &[Format]) -> Vec<Field> {
    let mut found = Vec::new();
    for error in rule.iter_errors(value).take(FAULTS_MAX) {
        collect(&error, place, formats, &mut found);
    }
    found.truncate(FAULTS_MAX);
    found
}

fn collect(error: &jsonschema::ValidationError<'_>, place: &str, formats: &[Format], found: &mut Vec<Field>) {
    let mut location = vec![place.to_owned()];
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
            // The last branch is the real rule; the ones before it are `null`.
            for inner in context.last().into_iter().flatten() {
                collect(inner, place, formats, found);
            }
        }
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            unexpected.iter().take(FAULTS_MAX).for_each(|name| at(Some(name), UNKNOWN_FIELD.into()));
        }
        ValidationErrorKind::Required { property } => at(property.as_str(), "is missing".into()),
        ValidationErrorKind::Format { format } if format == UUID => at(None, "must not be empty".into()),
        // An empty text is too short already.
        ValidationErrorKind::Pattern { .. } | ValidationErrorKind::Format { .. } if text.is_empty() => {}
        ValidationErrorKind::Format { format } => {
            let rule = formats.iter().find(|(name, _)| name == format);
            let said = rule.map_or_else(|| vec!["is not valid".to_owned()], |(_, faults)| faults(text));
            said.into_iter().for_each(|message| at(None, message));
        }
        kind => at(None, sentence(kind, text)),
    }
}

/// Our words for a broken rule; the library's own text never reaches a caller.
fn sentence(kind: &ValidationErrorKind, text: &str) -> String {
    match kind {
        ValidationErrorKind::Type { kind } => format!("must be {}", type_name(kind)),
        ValidationErrorKind::MinLength { limit: 1 } => "must not be empty".into(),
        ValidationErrorKind::MinLength { limit } => format!("must have at least {limit} characters"),
        ValidationErrorKind::MaxLength { limit } => format!("must have at most {limit} characters"),
        ValidationErrorKind::Pattern { pattern } => {
            said_of_pattern(pattern).map_or_else(|| format!("must match {pattern}"), str::to_owned)
        }
        ValidationErrorKind::Minimum { limit } => format!("must be {} or more", whole(limit)),
        ValidationErrorKind::Maximum { limit } => format!("must be {} or less", whole(limit)),
        ValidationErrorKind::MinItems { limit } => format!("must have at least {limit} entries"),
        ValidationErrorKind::MaxItems { limit } => format!("must have at most {limit} entries"),
        ValidationErrorKind::UniqueItems => "must not name anything twice".into(),
        ValidationErrorKind::Enum { options } => {
            let words: Vec<&str> = options.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            format!("must be one of {}{}", words.join(", "), did_you_mean(text, words.iter().copied()))
        }
        _ => "is not valid".into(),
    }
}

/// What a pattern of the document asks for, for people.
pub fn said_of_pattern(pattern: &str) -> Option<&'static str> {
    const ALL: [(&str, &str); 14] = [
        (r"^[^\x00-\x1f\x7f]+$", "must have no line breaks or other control characters"),
        (r"^[^\x00-\x1f\x7f]*$", "must have no line breaks or other control characters"),
        (r#"^[^\x00-\x20\x7f@<>"]{1,64}@[^\x00-\x20\x7f@<>"]+$"#, "must be an e-mail address such as kim@example.org"),
        (
            "^[A-Za-z0-9][A-Za-z0-9._-]*$",
            "must begin with a letter or digit, and have only letters (a-z), digits and . _ - in it",
        ),
        (
            "^[a-z0-9][a-z0-9._-]*$",
            "must begin with a small letter or digit, and have only small letters (a-z), digits and . _ - in it",
        ),
        (
            "^[a-z0-9][a-z0-9._-]{0,63}$",
            "must begin with a small letter or digit, and have only small letters (a-z), digits and . _ - in it",
        ),
        (
            "^[a-z0-9][a-z0-9._-]{2,59}$",
            "must have 3 to 60 small letters (a-z), digits and . _ - and begin with a letter or digit",
        ),
        ("^[0-9a-fA-F]+$", "must be hexadecimal digits"),
        (
            r"^[^/\\\x00-\x1f\x7f][^\\\x00-\x1f\x7f]*$",
            "must be a path that does not begin with a slash, without backslashes and control characters",
        ),
        (r"^[\x20-\x7e]+$", "must be plain ASCII without control characters"),
        (r"^[A-Za-z0-9._:-]+(\.\*)?$", "must be the name of a permission, or the beginning of some with .* behind it"),
        ("^(page|known) [0-9]+$", "must be the `next` of the answer before"),
        ("^[0-9]{6}$", "must be 6 digits"),
        (r"^[^:\x00-\x1f\x7f]+$", "must have no colon, line breaks or other control characters"),
    ];
    ALL.iter().find(|(known, _)| *known == pattern).map(|(_, said)| *said)
}

/// The framework prints bounds as floats.
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

/// Reads JSON and refuses what a policy document must not leave to chance: the same key twice.
pub fn parse(bytes: &[u8]) -> Result<Value> {
    parse_within(bytes, u64::MAX)
}

pub fn empty() -> Error {
    Error::new(ErrorCode::MalformedBody).with_message("the body is empty: send a JSON object")
}

/// The same of at most so many values, those within lists and objects too; it stops at the first one beyond.
pub fn parse_within(bytes: &[u8], nodes_max: u64) -> Result<Value> {
    let malformed = |why: String| Error::new(ErrorCode::MalformedBody).with_message(why);
    if bytes.is_empty() {
        return Err(empty());
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|e| malformed(format!("the body is not UTF-8 after byte {}", e.valid_up_to())))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let left = Cell::new(nodes_max);
    let read = Unrepeated(&left).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    read.map_err(|e| {
        let said = e.to_string();
        let what = if said.starts_with(TOO_MANY) {
            format!("{TOO_MANY} {nodes_max} values (limits.body_nodes)")
        } else if said.starts_with(REPEATED) {
            said
        } else {
            format!("the body is not valid JSON at line {}, column {}", e.line(), e.column())
        };
        malformed(what)
    })
}

const REPEATED: &str = "the body names the key";
const TOO_MANY: &str = "the body has more than";

/// With how many values there may still be.
#[derive(Clone, Copy)]
struct Unrepeated<'l>(&'l Cell<u64>);

impl<'de> DeserializeSeed<'de> for Unrepeated<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Value, D::Error> {
        let left = self.0.get().checked_sub(1).ok_or_else(|| D::Error::custom(TOO_MANY))?;
        self.0.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unrepeated<'_> {
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
    fn empty_filters_and_a_limit_of_nothing_are_taken_out_of_a_query() {
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
    fn values_of_a_body_are_counted_wherever_they_are() {
        for text in ["[1,2,3]", r#"{"a":1,"b":{"c":2}}"#, r#"[[[null]]]"#, r#"{"a":["x",true]}"#] {
            assert!(parse_within(text.as_bytes(), 4).is_ok(), "{text}");
            let error = parse_within(text.as_bytes(), 3).expect_err("one too many");
            let wanted = "the body has more than 3 values (limits.body_nodes)";
            assert_eq!((error.cause, error.message()), (ErrorCode::MalformedBody, wanted), "{text}");
        }
    }

    #[test]
    fn a_body_that_is_not_one_json_value_says_where() {
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
        assert_eq!(parse(deep.as_bytes()).expect_err("too deep").cause, ErrorCode::MalformedBody);
        assert_eq!(parse(b"{\"a\":[1,null,\"x\",1.5,true]}").expect("fine"), json!({"a": [1, null, "x", 1.5, true]}));
    }
}
