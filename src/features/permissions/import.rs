//! Parses catalogs to import, as JSON or YAML: Roster's own format here, OpenAPI 3 documents in `openapi`.
//!
//! An import contains all entries of one application. Entries that it no longer contains are orphaned, not deleted,
//! because roles can have them. The whole import is checked before anything is written; `publish` writes it.

use std::collections::HashMap;

use serde_json::Value;

use super::openapi;
use crate::kernel::authz::catalog::{UserType, methods};
use crate::kernel::authz::path::Template;
use crate::kernel::authz::permission::ROSTER_APP;
use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::http::documents::Document;

/// One permission to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub parent: Option<String>,
    pub http_methods: Option<String>,
    pub http_path: Option<String>,
    /// `None` keeps the current status; a new entry is then open.
    pub is_open: Option<bool>,
    pub user_type: UserType,
    /// The location in the document, for messages.
    pub place: String,
}

/// A parsed import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    pub app: String,
    pub entries: Vec<Entry>,
    /// Operations of the document that cannot be protected.
    pub skipped: Vec<Skipped>,
    /// The title of an OpenAPI document, which can be empty; `None` for Roster's own format.
    pub title: Option<String>,
}

/// An operation that is left out, or a whole path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    pub path: String,
    pub method: Option<String>,
    pub reason: String,
    pub line: Option<usize>,
    /// The location in the document, for messages.
    pub place: String,
}

/// Options for parsing a catalog.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    pub app: Option<String>,
    pub prefix: Option<String>,
    /// Prefix of every path of an OpenAPI document, instead of the path of its first server.
    pub base: Option<String>,
    /// Names of parameters of an OpenAPI document that match several path segments.
    pub multi_segment: Vec<String>,
    /// Refuse a document if any of its operations would be left out.
    pub strict: bool,
}

pub const DEFAULT_APP: &str = "main";
pub const NAME_BYTES_MAX: usize = 190;
const APP_BYTES_MAX: usize = 64;

/// Parses a document into entries, with all checks that need no database.
pub fn read(document: &Document, options: &ImportOptions, entries_max: u64) -> Result<Import> {
    let value = &document.value;
    let mut faults = Faults::default();
    let is_openapi = value.get("openapi").is_some();
    if value.get("swagger").is_some() {
        faults.add("swagger", "this is a Swagger 2 document: convert it to OpenAPI 3 first");
        return Err(faults.error());
    }
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let app = options.app.clone().or_else(|| text("app").filter(|_| !is_openapi)).unwrap_or_else(|| DEFAULT_APP.into());
    let (entries, skipped) = if is_openapi {
        openapi::entries(document, options, &app, entries_max, &mut faults)
    } else {
        let prefix = options.prefix.clone().or_else(|| text("prefix"));
        (parse_own_format(value, prefix.as_deref(), &mut faults), Vec::new())
    };
    if !is_name(&app, APP_BYTES_MAX) {
        faults.add("app", "must consist of letters, digits, and . _ - :");
    } else if app == ROSTER_APP {
        faults.add("app", "`roster` is reserved for the entries of Roster itself");
    }
    if entries.len() as u64 > entries_max {
        let message = format!("has {} entries, and limits.catalog_entries is {entries_max}", entries.len());
        return Err(Error::fields(vec![Field::at(&["body"], message)]));
    }
    // An empty import would orphan all entries of the application.
    if options.strict || entries.is_empty() {
        for Skipped { place, reason, line, .. } in &skipped {
            let line = line.map_or_else(String::new, |line| format!(" (line {line})"));
            faults.add(place, format!("{reason}{line}"));
        }
    }
    check(&entries, &mut faults);
    let title = is_openapi.then(|| value["info"]["title"].as_str().unwrap_or_default().to_owned());
    if faults.0.is_empty() { Ok(Import { app, entries, skipped, title }) } else { Err(faults.error()) }
}

#[derive(Default)]
pub struct Faults(pub Vec<Field>);

/// The most faults that are reported for one document.
const FAULTS_MAX: usize = 100;

impl Faults {
    pub fn add(&mut self, place: &str, message: impl Into<String>) {
        if self.0.len() < FAULTS_MAX {
            let location = std::iter::once("body").chain(place.split('\u{1f}')).map(str::to_owned).collect();
            self.0.push(Field { location, message: message.into() });
        }
    }

    fn error(self) -> Error {
        Error { fields: self.0, ..Error::new(ErrorCode::AmbiguousCatalog) }
    }
}

fn is_name(text: &str, bytes_max: usize) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b':');
    !text.is_empty() && text.len() <= bytes_max && text.bytes().all(allowed)
}

// ── Roster's own format ──

const FIELDS: [&str; 6] = ["name", "parent", "http_methods", "http_path", "status", "type"];

fn parse_own_format(document: &Value, prefix: Option<&str>, faults: &mut Faults) -> Vec<Entry> {
    for key in document.as_object().into_iter().flat_map(|map| map.keys()) {
        if !["app", "prefix", "permissions"].contains(&key.as_str()) {
            faults.add(key, "is not a field of a catalog; an OpenAPI document must have the field `openapi`");
        }
    }
    let Some(list) = document.get("permissions").and_then(Value::as_array) else {
        faults.add("permissions", "must be a list of permissions");
        return Vec::new();
    };
    let prefixed = |name: &str| prefix.map_or_else(|| name.to_owned(), |prefix| format!("{prefix}.{name}"));
    list.iter().enumerate().filter_map(|(n, item)| parse_entry(n, item, &prefixed, faults)).collect()
}

fn parse_entry(n: usize, item: &Value, prefixed: &dyn Fn(&str) -> String, faults: &mut Faults) -> Option<Entry> {
    let place = format!("permissions\u{1f}{n}");
    let Some(map) = item.as_object() else {
        faults.add(&place, "must be an object");
        return None;
    };
    for key in map.keys().filter(|key| !FIELDS.contains(&key.as_str())) {
        faults.add(&format!("{place}\u{1f}{key}"), "is not a field of a permission");
    }
    let mut text = |name: &str| match map.get(name) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(_) => {
            faults.add(&format!("{place}\u{1f}{name}"), "must be text");
            None
        }
    };
    let (name, parent) = (text("name"), text("parent"));
    let (http_methods, http_path, status, user_type) =
        (text("http_methods"), text("http_path"), text("status"), text("type"));
    let is_open = match status.as_deref() {
        None => None,
        Some("open") => Some(true),
        Some("close") => Some(false),
        Some(_) => {
            faults.add(&format!("{place}\u{1f}status"), "must be open or close");
            None
        }
    };
    let user_type = match user_type.as_deref() {
        None | Some("backend_user") => UserType::Backend,
        Some("frontend_user") => UserType::Frontend,
        Some(_) => {
            faults.add(&format!("{place}\u{1f}type"), "must be backend_user or frontend_user");
            UserType::Backend
        }
    };
    let Some(name) = name else {
        faults.add(&format!("{place}\u{1f}name"), "is missing");
        return None;
    };
    Some(Entry {
        name: prefixed(&name),
        parent: parent.map(|p| prefixed(&p)),
        http_methods,
        // `check` reports a path that cannot be parsed.
        http_path: http_path.map(|text| Template::read(&text).map_or(text, |(_, spelled)| spelled)),
        is_open,
        user_type,
        place,
    })
}

// ── checks ──

/// The most levels of categories: protects code that walks the tree recursively.
const DEPTH_MAX: usize = 16;

fn check(entries: &[Entry], faults: &mut Faults) {
    let mut names: HashMap<&str, &Entry> = HashMap::new();
    let mut routes: HashMap<Template, Vec<(&str, &Entry)>> = HashMap::new();
    for entry in entries {
        if !is_name(&entry.name, NAME_BYTES_MAX) {
            let message = format!("must consist of letters, digits, and . _ - :, at most {NAME_BYTES_MAX} bytes");
            faults.add(&entry.place, format!("the name {:?} {message}", entry.name));
        }
        if entry.name == ROSTER_APP || entry.name.starts_with("roster.") {
            faults.add(&entry.place, format!("{} is reserved for the entries of Roster itself", entry.name));
        }
        if let Some(other) = names.insert(&entry.name, entry) {
            let place = other.place.replace('\u{1f}', ".");
            faults.add(&entry.place, format!("{} is defined twice: here and at {place}", entry.name));
        }
        check_route(entry, &mut routes, faults);
    }
    for entry in entries {
        let Some(parent) = &entry.parent else { continue };
        if !names.contains_key(parent.as_str()) {
            faults.add(&entry.place, format!("the parent {parent} is not in this import"));
            continue;
        }
        let chain = std::iter::successors(names.get(parent.as_str()), |above| names.get(above.parent.as_deref()?));
        let above: Vec<&str> = chain.take(DEPTH_MAX).map(|above| above.name.as_str()).collect();
        if above.contains(&entry.name.as_str()) {
            faults.add(&entry.place, format!("{} is its own ancestor", entry.name));
        } else if above.len() == DEPTH_MAX {
            faults.add(&entry.place, format!("{} is nested in more than {DEPTH_MAX} categories", entry.name));
        }
    }
}

fn check_route<'e>(entry: &'e Entry, routes: &mut HashMap<Template, Vec<(&'e str, &'e Entry)>>, faults: &mut Faults) {
    let (text, tokens) = match (&entry.http_path, &entry.http_methods) {
        (None, None) => return,
        (Some(path), Some(tokens)) => (path, tokens),
        _ => {
            let message = format!("{} needs both http_methods and http_path, or neither", entry.name);
            return faults.add(&entry.place, message);
        }
    };
    let template = Template::parse(text);
    let tokens = methods(tokens);
    for message in [template.as_ref().err(), tokens.as_ref().err()].into_iter().flatten() {
        faults.add(&entry.place, message.clone());
    }
    let (Ok(template), Ok(tokens)) = (template, tokens) else { return };
    let known = routes.entry(template).or_default();
    for token in &tokens {
        let clashes = |other: &str| other == *token || other == "*" || *token == "*";
        if let Some((_, other)) = known.iter().find(|(other, _)| clashes(other)) {
            let message =
                format!("{} and {} both answer {token} {text}: the import is ambiguous", other.name, entry.name);
            faults.add(&entry.place, message);
        }
    }
    known.extend(tokens.into_iter().map(|token| (token, entry)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(document: &Value) -> Vec<String> {
        read(&Document::from_value(document.clone()), &ImportOptions::default(), 100)
            .expect_err("faulty")
            .fields
            .into_iter()
            .map(|field| field.message)
            .collect()
    }

    #[test]
    fn an_ambiguous_import_names_both_entries() {
        let document = json!({"permissions": [
            {"name": "a.one", "http_methods": "GET|POST", "http_path": "/a/:id"},
            {"name": "a.two", "http_methods": "POST", "http_path": "/a/{key}"},
        ]});
        assert_eq!(faults(&document), ["a.one and a.two both answer POST /a/{key}: the import is ambiguous"]);
        let star = json!({"permissions": [
            {"name": "a.one", "http_methods": "GET", "http_path": "/a"},
            {"name": "a.two", "http_methods": "*", "http_path": "/a"},
        ]});
        assert_eq!(faults(&star), ["a.one and a.two both answer * /a: the import is ambiguous"]);
    }

    #[test]
    fn all_faults_of_a_catalog_are_reported_at_once() {
        let document = json!({"colour": 1, "permissions": [
            {"name": "a", "parent": "nowhere"},
            {"name": "b", "parent": "c"},
            {"name": "c", "parent": "b"},
            {"name": "a"},
            {"name": "d", "http_path": "/d"},
            {"name": "e", "http_methods": "get", "http_path": "e"},
            {"name": "f", "status": "shut", "type": "robot", "size": 1},
            {"http_path": 7},
            "x",
        ]});
        assert_eq!(faults(&document).len(), 14, "{:#?}", faults(&document));
    }

    #[test]
    fn the_application_roster_is_reserved() {
        assert_eq!(faults(&json!({"app": "roster", "permissions": []})).len(), 1);
    }
}
