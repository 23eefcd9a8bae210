//! Catalogs from files: our own form, and any service's OpenAPI 3 document, as JSON or YAML.
//!
//! An import is the whole of one application: what it does not name any more is orphaned, not deleted, because roles
//! may tick it. It is checked as a whole before anything is written.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::store::{self, PermissionRow};
use crate::access;
use crate::access::catalog::{Catalog, Node, Template, UserType, methods};
use crate::access::permission::OWN_APP;
use crate::access::snapshot::Change;
use crate::app::Transaction;
use crate::error::{Cause, Error, Field, Result};

/// One permission to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub parent: Option<String>,
    pub http_methods: Option<String>,
    pub http_path: Option<String>,
    /// Absent: as it is, open when new.
    pub is_open: Option<bool>,
    pub user_type: UserType,
    /// Where the document has it, for messages.
    pub place: String,
}

/// What an import names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    pub app: String,
    pub entries: Vec<Entry>,
}

/// What an import did: names, sorted. An orphan is named once, when it becomes one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    pub added: Vec<String>,
    pub changed: Vec<String>,
    pub orphaned: Vec<String>,
}

/// What the request says beside the document.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub app: Option<String>,
    pub prefix: Option<String>,
    /// Path that lies before every path of an OpenAPI document, instead of its first server's.
    pub base: Option<String>,
}

pub const DEFAULT_APP: &str = "main";
const NAME_BYTES_MAX: usize = 190;
const APP_BYTES_MAX: usize = 64;

/// Turns a document into entries, and checks all that can be checked without the database.
pub fn read(document: &Value, options: &Options, entries_max: u64) -> Result<Import> {
    let mut faults = Faults::default();
    let is_openapi = document.get("openapi").is_some();
    if document.get("swagger").is_some() {
        faults.add("swagger", "this is a Swagger 2 document: convert it to OpenAPI 3 first");
        return Err(faults.error());
    }
    let text = |name: &str| document.get(name).and_then(Value::as_str).map(str::to_owned);
    let app = options.app.clone().or_else(|| text("app").filter(|_| !is_openapi)).unwrap_or_else(|| DEFAULT_APP.into());
    let entries = if is_openapi {
        openapi(document, options, &mut faults)
    } else {
        let prefix = options.prefix.clone().or_else(|| text("prefix"));
        own_form(document, prefix.as_deref(), &mut faults)
    };
    if !is_word(&app, APP_BYTES_MAX) {
        faults.add("app", "must be letters, digits, and . _ -");
    } else if app == OWN_APP {
        faults.add("app", "`roster` is the name of this program's own entries");
    }
    if entries.len() as u64 > entries_max {
        let message = format!("has {} entries, and limits.catalog_entries is {entries_max}", entries.len());
        return Err(Error::fields(vec![Field::at(&["body"], message)]));
    }
    check(&entries, &mut faults);
    if faults.0.is_empty() { Ok(Import { app, entries }) } else { Err(faults.error()) }
}

#[derive(Default)]
struct Faults(Vec<Field>);

/// As many faults of one document as a person will read.
const FAULTS_MAX: usize = 100;

impl Faults {
    fn add(&mut self, place: &str, message: impl Into<String>) {
        if self.0.len() < FAULTS_MAX {
            let location = std::iter::once("body").chain(place.split('\u{1f}')).map(str::to_owned).collect();
            self.0.push(Field { location, message: message.into() });
        }
    }

    fn error(self) -> Error {
        Error { fields: self.0, ..Error::new(Cause::AmbiguousCatalog) }
    }
}

fn is_word(text: &str, bytes_max: usize) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b':');
    !text.is_empty() && text.len() <= bytes_max && text.bytes().all(allowed)
}

// ── our own form ──

const FIELDS: [&str; 6] = ["name", "parent", "http_methods", "http_path", "status", "type"];

fn own_form(document: &Value, prefix: Option<&str>, faults: &mut Faults) -> Vec<Entry> {
    for key in document.as_object().into_iter().flat_map(|map| map.keys()) {
        if !["app", "prefix", "permissions"].contains(&key.as_str()) {
            faults.add(key, "is not a field of a catalog; an OpenAPI document would have `openapi`");
        }
    }
    let Some(list) = document.get("permissions").and_then(Value::as_array) else {
        faults.add("permissions", "must be a list of permissions");
        return Vec::new();
    };
    let prefixed = |name: &str| prefix.map_or_else(|| name.to_owned(), |prefix| format!("{prefix}.{name}"));
    list.iter().enumerate().filter_map(|(n, item)| own_entry(n, item, &prefixed, faults)).collect()
}

fn own_entry(n: usize, item: &Value, prefixed: &dyn Fn(&str) -> String, faults: &mut Faults) -> Option<Entry> {
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
        http_path,
        is_open,
        user_type,
        place,
    })
}

// ── OpenAPI ──

const OPERATIONS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

fn openapi(document: &Value, options: &Options, faults: &mut Faults) -> Vec<Entry> {
    if !document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")) {
        faults.add("openapi", "only version 3 documents can be imported");
    }
    let Some(paths) = document.get("paths").and_then(Value::as_object) else {
        faults.add("paths", "the document has no paths");
        return Vec::new();
    };
    let prefix = options.prefix.as_deref().map(plain).filter(|prefix| !prefix.is_empty());
    let mut categories: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut leaves = Vec::new();
    for (path, item) in paths {
        if item.get("$ref").is_some() {
            faults.add(
                &format!("paths\u{1f}{path}"),
                "stands in another place ($ref): put it here, so that nothing is left out",
            );
        }
        for method in OPERATIONS {
            let Some(operation) = item.get(method).filter(|value| value.is_object()) else { continue };
            let base = options.base.clone().unwrap_or_else(|| base_path(&[operation, item, document]));
            let tag = operation["tags"][0]
                .as_str()
                .map(plain)
                .filter(|tag| !tag.is_empty())
                .unwrap_or_else(|| "untagged".into());
            let id = operation["operationId"].as_str().map_or_else(|| plain(&format!("{method}_{path}")), plain);
            let category = prefix.as_ref().map_or_else(|| tag.clone(), |prefix| format!("{prefix}.{tag}"));
            categories.insert(category.clone(), prefix.clone());
            leaves.push(Entry {
                name: format!("{category}.{id}"),
                parent: Some(category),
                http_methods: Some(method.to_uppercase()),
                http_path: Some(format!("{base}{path}")),
                is_open: None,
                user_type: UserType::Backend,
                place: format!("paths\u{1f}{path}\u{1f}{method}"),
            });
        }
    }
    let category = |name: String, parent: Option<String>| Entry {
        place: format!("tags\u{1f}{name}"),
        name,
        parent,
        http_methods: None,
        http_path: None,
        is_open: None,
        user_type: UserType::Backend,
    };
    let root = prefix.map(|prefix| category(prefix, None));
    root.into_iter().chain(categories.into_iter().map(|(name, parent)| category(name, parent))).chain(leaves).collect()
}

/// The path of the first server that the nearest of these names: what a request really begins with.
fn base_path(levels: &[&Value]) -> String {
    let url = levels.iter().find_map(|level| level["servers"][0]["url"].as_str()).unwrap_or("");
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |slash| &rest[slash..]),
        None => url,
    };
    // A server with variables has no path to go by: `base` says it then.
    if path.contains('{') || !path.starts_with('/') { String::new() } else { path.trim_end_matches('/').to_owned() }
}

/// Lower case, dots and underscores only.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars().flat_map(char::to_lowercase) {
        match c {
            'a'..='z' | '0'..='9' | '.' => plain.push(c),
            _ if plain.ends_with(['_', '.']) || plain.is_empty() => {}
            _ => plain.push('_'),
        }
    }
    plain.trim_end_matches(['_', '.']).trim_start_matches('.').to_owned()
}

// ── checks ──

/// Categories are for people: deeper ones are a mistake, or an attack on what walks them.
const DEPTH_MAX: usize = 16;

fn check(entries: &[Entry], faults: &mut Faults) {
    let mut names: HashMap<&str, &Entry> = HashMap::new();
    let mut routes: HashMap<String, Vec<(&str, &Entry)>> = HashMap::new();
    for entry in entries {
        if !is_word(&entry.name, NAME_BYTES_MAX) {
            let message = format!("must be letters, digits, and . _ - :, at most {NAME_BYTES_MAX}");
            faults.add(&entry.place, format!("the name {:?} {message}", entry.name));
        }
        if entry.name == OWN_APP || entry.name.starts_with("roster.") {
            faults.add(&entry.place, format!("{} is kept for this program's own entries", entry.name));
        }
        if let Some(other) = names.insert(&entry.name, entry) {
            let place = other.place.replace('\u{1f}', ".");
            faults.add(&entry.place, format!("{} is named twice: here and at {place}", entry.name));
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
            faults.add(&entry.place, format!("{} lies deeper than {DEPTH_MAX} categories", entry.name));
        }
    }
}

fn check_route<'e>(entry: &'e Entry, routes: &mut HashMap<String, Vec<(&'e str, &'e Entry)>>, faults: &mut Faults) {
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
    for why in [template.as_ref().err(), tokens.as_ref().err()].into_iter().flatten() {
        faults.add(&entry.place, why.clone());
    }
    let (Ok(template), Ok(tokens)) = (template, tokens) else { return };
    let known = routes.entry(template.shape()).or_default();
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

// ── writing ──

/// Writes an import and answers what it did. With `dry_run` it only answers.
pub fn write(
    t: &Transaction<'_>,
    import: &Import,
    entries_max: u64,
    dry_run: bool,
) -> Result<(Imported, Option<Change>)> {
    let catalog = &t.snapshot().catalog;
    let imported = compare(catalog, import)?;
    let total = catalog.len() as u64 + imported.added.len() as u64;
    if total > entries_max {
        let message = format!("the catalog would have {total} entries, and limits.catalog_entries is {entries_max}");
        return Err(Error::fields(vec![Field::at(&["body"], message)]));
    }
    let touched: HashSet<&str> = imported.added.iter().chain(&imported.changed).map(String::as_str).collect();
    let differs = |name: &str| touched.contains(name);
    if dry_run || (touched.is_empty() && imported.orphaned.is_empty()) {
        return Ok((imported, None));
    }
    for (position, entry) in (0..).zip(&import.entries).filter(|(_, entry)| differs(&entry.name)) {
        let known = catalog.find(&entry.name);
        let row = PermissionRow {
            name: &entry.name,
            app: &import.app,
            http_methods: entry.http_methods.as_deref(),
            http_path: entry.http_path.as_deref(),
            is_open: entry.is_open.or(known.map(|node| node.is_open)).unwrap_or(true),
            user_type: user_type(entry.user_type),
            position,
        };
        store::put_permission(t, &row, known.is_some())?;
    }
    for entry in import.entries.iter().filter(|entry| differs(&entry.name)) {
        store::set_parent(t, &entry.name, entry.parent.as_deref())?;
    }
    imported.orphaned.iter().try_for_each(|name| store::orphan_permission(t, name))?;
    Ok((imported, Some(access::store::catalog(t)?)))
}

pub fn user_type(user_type: UserType) -> &'static str {
    match user_type {
        UserType::Backend => "backend_user",
        UserType::Frontend => "frontend_user",
    }
}

fn compare(catalog: &Catalog, import: &Import) -> Result<Imported> {
    let mut faults = Faults::default();
    let mut imported = Imported::default();
    for entry in &import.entries {
        match catalog.find(&entry.name) {
            None => imported.added.push(entry.name.clone()),
            Some(node) if *node.app != *import.app => {
                faults.add(
                    &entry.place,
                    format!("{} is a permission of the application {} already: use a prefix", entry.name, node.app),
                );
            }
            Some(node) if differs(catalog, node, entry) => imported.changed.push(entry.name.clone()),
            Some(_) => {}
        }
    }
    if !faults.0.is_empty() {
        return Err(Error { fields: faults.0, ..Error::new(Cause::PermissionExists) });
    }
    let named: HashSet<&str> = import.entries.iter().map(|entry| entry.name.as_str()).collect();
    let of_app = catalog.iter().filter(|node| *node.app == *import.app && !node.orphaned);
    imported.orphaned = of_app.filter(|node| !named.contains(&*node.name)).map(|node| node.name.to_string()).collect();
    for names in [&mut imported.added, &mut imported.changed, &mut imported.orphaned] {
        names.sort_unstable();
    }
    Ok(imported)
}

fn differs(catalog: &Catalog, node: &Node, entry: &Entry) -> bool {
    let parent = node.parent.and_then(|slot| catalog.get(slot)).map(|parent| &*parent.name);
    node.orphaned
        || parent != entry.parent.as_deref()
        || node.http_methods.as_deref() != entry.http_methods.as_deref()
        || node.http_path.as_deref() != entry.http_path.as_deref()
        || entry.is_open.is_some_and(|is_open| is_open != node.is_open)
        || node.user_type != entry.user_type
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(document: &Value) -> Vec<String> {
        read(document, &Options::default(), 100)
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
    fn every_fault_of_a_catalog_is_named_at_once() {
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
    fn an_openapi_document_becomes_categories_and_operations() {
        let document = json!({"openapi": "3.0.3", "servers": [{"url": "https://files.example.org/api/v2/"}], "paths": {
            "/users/{id}": {"get": {"tags": ["User APIs"], "operationId": "getUser-ById"}, "parameters": []},
            "/ping": {"post": {}, "servers": [{"url": "/"}]},
        }});
        let options = Options { app: Some("files".into()), prefix: Some("Files".into()), base: None };
        let import = read(&document, &options, 100).expect("import");
        let seen: Vec<_> =
            import.entries.iter().map(|e| (e.name.as_str(), e.parent.as_deref(), e.http_path.as_deref())).collect();
        assert_eq!(
            seen,
            [
                ("files", None, None),
                ("files.untagged", Some("files"), None),
                ("files.user_apis", Some("files"), None),
                ("files.untagged.post_ping", Some("files.untagged"), Some("/ping")),
                ("files.user_apis.getuser_byid", Some("files.user_apis"), Some("/api/v2/users/{id}")),
            ]
        );
    }

    #[test]
    fn roster_keeps_its_own_name() {
        assert_eq!(faults(&json!({"app": "roster", "permissions": []})).len(), 1);
    }
}
