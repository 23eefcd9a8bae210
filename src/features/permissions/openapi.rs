//! Converts an OpenAPI 3 document into catalog entries: the name of each operation, and the requests that it covers.
//!
//! **Invariant.** An operation that cannot be protected does not make the import fail. It is listed with the reason,
//! and its requests are denied, because a path that is not in the catalog is denied. The same document always yields
//! the same names.
//!
//! A name is `prefix.tag.operationId` in lower case; a character outside ASCII becomes `u` and its code point in
//! hexadecimal. An operation without an id is named after its method and path. Equal names are numbered in the order of
//! paths and methods. A name that is too long is truncated and ends with a digest of the whole name.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::import::{Entry, Faults, ImportOptions, NAME_BYTES_MAX, Skipped};
use crate::kernel::authz::catalog::UserType;
use crate::kernel::authz::path::Template;
use crate::kernel::authz::permission::ROSTER_APP;
use crate::kernel::http::documents::Document;

const METHODS: [&str; 9] = ["get", "put", "post", "delete", "options", "head", "patch", "trace", "query"];

/// The most references in a chain.
const REFERENCES_MAX: usize = 16;
/// The most parameters of one operation that are read.
const PARAMETERS_MAX: usize = 256;
/// The most bytes of a path, a server's URL, a reference or a parameter's name. References can repeat long ones.
const TEXT_BYTES_MAX: usize = 4_096;
/// The most characters of a path, a method or a reason in the list of what is left out.
const SHOWN_CHARACTERS_MAX: usize = 500;

/// One operation of the document.
struct Operation<'d> {
    path: &'d str,
    method: String,
    tag: Option<&'d str>,
    id: Option<&'d str>,
    template: Template,
    http_path: String,
    /// Whether the path had a query or a fragment, which decisions ignore.
    is_variant: bool,
}

impl Operation<'_> {
    fn skipped(&self, document: &Document, reason: impl Into<String>) -> Skipped {
        skipped(document, self.path, Some(&self.method), reason)
    }
}

fn skipped(document: &Document, path: &str, method: Option<&str>, reason: impl Into<String>) -> Skipped {
    let (method, reason): (Option<String>, String) = (method.map(shown), reason.into());
    let lower = method.as_deref().map(str::to_lowercase);
    let keys = |path| [Some("paths"), Some(path), lower.as_deref()].into_iter().flatten().collect::<Vec<&str>>();
    let line = document.line(&keys(path));
    let path = shown(path);
    let place = keys(&path).join("\u{1f}");
    Skipped { path, method, reason: shown(&reason), line, place }
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Returns the entries of a document, and its operations that cannot be protected.
pub(super) fn entries(
    document: &Document,
    options: &ImportOptions,
    app: &str,
    entries_max: u64,
    faults: &mut Faults,
) -> (Vec<Entry>, Vec<Skipped>) {
    let is_of_version_3 = match &document.value["openapi"] {
        Value::String(version) => version.starts_with("3."),
        // YAML without quotes: the version is a number.
        Value::Number(version) => version.as_f64().is_some_and(|version| (3.0..4.0).contains(&version)),
        _ => false,
    };
    if !is_of_version_3 {
        faults.add("openapi", "only version 3 documents can be imported");
    }
    let Some(paths) = document.value.get("paths").and_then(Value::as_object) else {
        faults.add("paths", "the document has no paths");
        return (Vec::new(), Vec::new());
    };
    let mut paths: Vec<(&String, &Value)> = paths.iter().filter(|(path, _)| !path.starts_with("x-")).collect();
    paths.sort_unstable_by_key(|(path, _)| *path);
    let (mut found, mut skipped) = (Vec::new(), Vec::new());
    for (path, item) in paths {
        // The caller refuses too many entries. The limit applies here too, because references can multiply operations.
        if is_too_many(&found, &skipped, entries_max) {
            break;
        }
        let reader = PathReader { document, options, path, entries_max };
        reader.read(item, &mut found, &mut skipped);
    }
    if skipped.len() as u64 > entries_max {
        let message = format!("more operations would be left out than the {entries_max} of limits.catalog_entries");
        faults.add("paths", message);
        return (Vec::new(), Vec::new());
    }
    let kept = without_duplicates(document, found, &mut skipped);
    skipped.sort_by(|a, b| (&a.path, &a.method).cmp(&(&b.path, &b.method)));
    (build_entries(&kept, options.prefix.as_deref(), app), skipped)
}

fn is_too_many(found: &[Operation<'_>], skipped: &[Skipped], entries_max: u64) -> bool {
    found.len().max(skipped.len()) as u64 > entries_max
}

// ── reading ──

/// A value with the chain of values that it references. Fields beside a reference take precedence over the referenced
/// ones.
struct Layers<'d>(Vec<&'d Value>);

impl<'d> Layers<'d> {
    /// Follows references within the document. Fails with the reason if one cannot be followed.
    fn of(document: &'d Value, value: &'d Value) -> Result<Self, String> {
        let mut layers = vec![value];
        while let Some(reference) = layers.last().copied().and_then(|last| last.get("$ref")?.as_str()) {
            if reference.len() > TEXT_BYTES_MAX {
                return Err(format!("has a $ref of more than {TEXT_BYTES_MAX} bytes"));
            }
            let target = reference
                .strip_prefix('#')
                .ok_or_else(|| format!("is in another document ($ref: {reference}): copy it into this one"))?;
            let target = percent_decoded(target).and_then(|target| document.pointer(&target));
            let target = target.filter(|target| target.is_object());
            layers.push(target.ok_or_else(|| format!("references nothing in this document ($ref: {reference})"))?);
            if layers.len() > REFERENCES_MAX {
                return Err(format!(
                    "references itself, or is a chain of more than {REFERENCES_MAX} references ($ref: {reference})"
                ));
            }
        }
        Ok(Self(layers))
    }

    fn get(&self, key: &str) -> Option<&'d Value> {
        self.0.iter().find_map(|layer| layer.get(key))
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend(part.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

struct PathReader<'d> {
    document: &'d Document,
    options: &'d ImportOptions,
    path: &'d str,
    entries_max: u64,
}

impl<'d> PathReader<'d> {
    fn read(&self, item: &'d Value, found: &mut Vec<Operation<'d>>, skipped: &mut Vec<Skipped>) {
        let item = match Layers::of(&self.document.value, item) {
            Ok(item) => item,
            Err(reason) => return skipped.push(self::skipped(self.document, self.path, None, reason)),
        };
        let fixed = METHODS.iter().filter_map(|method| Some((method.to_uppercase(), item.get(method)?)));
        let more = item.get("additionalOperations").and_then(Value::as_object).into_iter().flatten();
        let more = more.map(|(method, operation)| (method.clone(), operation));
        let multi = self.multi_segment(&[item.get("parameters")]);
        for (method, operation) in fixed.chain(more).filter(|(_, operation)| operation.is_object()) {
            if is_too_many(found, skipped, self.entries_max) {
                return;
            }
            match self.operation(&method, &item, operation, &multi) {
                Ok(operation) => found.push(operation),
                Err(reason) => skipped.push(self::skipped(self.document, self.path, Some(&method), reason)),
            }
        }
    }

    fn operation(
        &self,
        method: &str,
        item: &Layers<'d>,
        operation: &'d Value,
        multi: &[&'d str],
    ) -> Result<Operation<'d>, String> {
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) || method.len() > 20 {
            return Err(format!("has the method {:?}, which is not an upper-case word", shown(method)));
        }
        if self.path.len() > TEXT_BYTES_MAX {
            return Err(format!("has a path of more than {TEXT_BYTES_MAX} bytes"));
        }
        let operation = Layers::of(&self.document.value, operation)?;
        let base = match &self.options.base {
            Some(base) => normalized_base(base),
            None => base_path(&[operation.get("servers"), item.get("servers"), self.document.value.get("servers")])?,
        };
        if !self.path.starts_with('/') {
            return Err(format!("the path {:?} must begin with a slash", self.path));
        }
        let own = self.multi_segment(&[operation.get("parameters")]);
        let (path, is_variant) = without_query(self.path);
        let names = multi.iter().chain(&own).copied().chain(self.options.multi_segment.iter().map(String::as_str));
        let path =
            names.fold(path.to_owned(), |path, name| path.replace(&format!("{{{name}}}"), &format!("{{{name}+}}")));
        let (template, http_path) = Template::read(&format!("{base}{path}"))?;
        Ok(Operation {
            path: self.path,
            method: method.to_owned(),
            tag: operation.get("tags").and_then(|tags| tags[0].as_str()),
            id: operation.get("operationId").and_then(Value::as_str),
            template,
            http_path,
            is_variant,
        })
    }

    /// Returns the names of the parameters that match several path segments.
    fn multi_segment(&self, lists: &[Option<&'d Value>]) -> Vec<&'d str> {
        let all = lists.iter().copied().flatten().filter_map(Value::as_array).flatten().take(PARAMETERS_MAX);
        let resolved = all.filter_map(|parameter| Layers::of(&self.document.value, parameter).ok());
        let is_multi = |parameter: &Layers<'_>| {
            parameter.get("in").is_some_and(|place| place == "path")
                && parameter.get("x-multi-segment").is_some_and(|is_multi| is_multi == true)
        };
        let names = resolved.filter(is_multi).filter_map(|parameter| parameter.get("name")?.as_str());
        names.filter(|name| name.len() <= TEXT_BYTES_MAX).collect()
    }
}

/// Returns the path before `?`, `#`, `{?…}`, `{#…}` or `{&…}`, and whether it had one of them.
fn without_query(path: &str) -> (&str, bool) {
    let mut depth = 0_usize;
    for (at, c) in path.char_indices() {
        let ends = match c {
            '{' => depth == 0 && path[at + 1..].starts_with(['?', '#', '&']),
            '?' | '#' => depth == 0,
            _ => false,
        };
        if ends {
            return (&path[..at], true);
        }
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    (path, false)
}

/// Returns the path of the first server at the innermost level that has servers: the prefix of the path of each
/// request.
fn base_path(levels: &[Option<&Value>]) -> Result<String, String> {
    let Some(server) = levels.iter().flatten().find_map(|servers| servers.get(0)) else { return Ok(String::new()) };
    let url = server["url"].as_str().unwrap_or_default();
    if url.len() > TEXT_BYTES_MAX {
        return Err(format!("the server has a URL of more than {TEXT_BYTES_MAX} bytes: set the base path"));
    }
    let mut plain = String::new();
    let mut rest = url;
    while let Some((before, (name, behind))) =
        rest.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    {
        plain.push_str(before);
        match &server["variables"][name]["default"] {
            Value::String(text) => plain.push_str(text),
            Value::Number(number) => plain.push_str(&number.to_string()),
            _ => return Err(format!("the server {url:?} has no default for {name:?}: set the base path")),
        }
        rest = behind;
    }
    plain.push_str(rest);
    let plain = plain.split(['?', '#']).next().unwrap_or_default();
    let host_and_path = plain.strip_prefix("//").or_else(|| plain.split_once("://").map(|(_, rest)| rest));
    Ok(match host_and_path {
        Some(rest) => normalized_base(rest.find('/').map_or("", |slash| &rest[slash..])),
        None => normalized_base(plain),
    })
}

/// Normalizes a base path: a leading slash and no trailing one. A relative base is relative to the document, which is
/// taken to be at the root.
fn normalized_base(base: &str) -> String {
    let mut base = base.trim_matches('/');
    while let Some(rest) = base.strip_prefix("./").or_else(|| base.strip_prefix("../")) {
        base = rest.trim_start_matches('/');
    }
    if matches!(base, "" | "." | "..") { String::new() } else { format!("/{base}") }
}

/// Of operations that cover the same requests, keeps the first whose path has no query or fragment. If all have one,
/// none of them is kept: a permission for one would allow the others.
fn without_duplicates<'d>(
    document: &Document,
    found: Vec<Operation<'d>>,
    skipped: &mut Vec<Skipped>,
) -> Vec<Operation<'d>> {
    let mut groups: HashMap<(&Template, &str), Vec<usize>> = HashMap::new();
    for (n, operation) in found.iter().enumerate() {
        groups.entry((&operation.template, &operation.method)).or_default().push(n);
    }
    let mut lost = HashSet::new();
    for group in groups.values().filter(|group| group.len() > 1) {
        let kept = group.iter().copied().find(|n| !found[*n].is_variant);
        for n in group.iter().copied().filter(|n| Some(*n) != kept) {
            let reason = match kept {
                Some(kept) => {
                    let Operation { method, path, .. } = &found[kept];
                    format!("its requests are the same as those of {method} {path}, whose permission applies")
                }
                None => "differs from others only in its query or fragment, which decisions ignore".to_owned(),
            };
            skipped.push(found[n].skipped(document, reason));
            lost.insert(n);
        }
    }
    found.into_iter().enumerate().filter(|(n, _)| !lost.contains(n)).map(|(_, operation)| operation).collect()
}

// ── names ──

/// Builds the entries: the root, the categories by name, then the operations in their order.
fn build_entries(operations: &[Operation<'_>], prefix: Option<&str>, app: &str) -> Vec<Entry> {
    let root = prefix.map(plain).filter(|prefix| !prefix.is_empty()).map(|prefix| allowed(&prefix, app));
    let category_of = |operation: &Operation<'_>| {
        let tag = operation.tag.map(plain).filter(|tag| !tag.is_empty()).unwrap_or_else(|| "untagged".into());
        truncated(&root.as_ref().map_or_else(|| allowed(&tag, app), |root| format!("{root}.{tag}")), CATEGORY_BYTES_MAX)
    };
    let name_of = |operation: &Operation<'_>, category: &str| {
        let id = operation.id.map(plain).filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| plain(&format!("{}_{}", operation.method, operation.path)));
        truncated(&format!("{category}.{id}"), NAME_BYTES_MAX)
    };
    let categories: BTreeSet<String> = operations.iter().map(category_of).collect();
    let wanted: Vec<(String, String)> = operations
        .iter()
        .map(|operation| {
            let category = category_of(operation);
            (name_of(operation, &category), category)
        })
        .collect();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    wanted.iter().for_each(|(name, _)| *counts.entry(name).or_default() += 1);
    // A name that only one operation would have is never the numbered name of another one.
    let is_taken = |name: &str| categories.contains(name) || root.as_deref() == Some(name);
    let mut taken: HashSet<String> = counts
        .iter()
        .filter(|(name, count)| **count == 1 && !is_taken(name))
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let categories_and_root = root.iter().cloned().chain(categories.iter().cloned());
    taken.extend(categories_and_root);
    let mut entries: Vec<Entry> = root.iter().map(|root| category(root.clone(), None)).collect();
    entries.extend(categories.iter().map(|name| category(name.clone(), root.clone())));
    for (operation, (name, parent)) in operations.iter().zip(&wanted) {
        let is_unique = counts[name.as_str()] == 1 && !is_taken(name);
        let name = if is_unique { name.clone() } else { unique_name(name, &mut taken) };
        entries.push(Entry {
            name,
            parent: Some(parent.clone()),
            http_methods: Some(operation.method.clone()),
            http_path: Some(operation.http_path.clone()),
            is_open: None,
            user_type: UserType::Backend,
            place: format!("paths\u{1f}{}\u{1f}{}", operation.path, operation.method.to_lowercase()),
        });
    }
    entries
}

fn category(name: String, parent: Option<String>) -> Entry {
    Entry {
        place: format!("tags\u{1f}{name}"),
        name,
        parent,
        http_methods: None,
        http_path: None,
        is_open: None,
        user_type: UserType::Backend,
    }
}

/// Returns the name, or the first of `name_2`, `name_3`, … that is not taken.
fn unique_name(name: &str, taken: &mut HashSet<String>) -> String {
    let mut tried = (1_u64..).map(|n| match n {
        1 => name.to_owned(),
        n => {
            let number = format!("_{n}");
            format!("{}{number}", truncated(name, NAME_BYTES_MAX - number.len()))
        }
    });
    let free = tried.find(|name| !taken.contains(name)).unwrap_or_default();
    taken.insert(free.clone());
    free
}

/// Puts a name that is reserved for Roster's own entries below the name of its application.
fn allowed(name: &str, app: &str) -> String {
    let is_own = name == ROSTER_APP || name.strip_prefix(ROSTER_APP).is_some_and(|rest| rest.starts_with('.'));
    if is_own { format!("{}.{name}", plain(app)) } else { name.to_owned() }
}

/// The most bytes of a category name; leaves room for the name of an operation.
const CATEGORY_BYTES_MAX: usize = 120;

fn truncated(name: &str, bytes_max: usize) -> String {
    if name.len() <= bytes_max {
        return name.to_owned();
    }
    let digest = hex::encode(&Sha256::digest(name.as_bytes())[..5]);
    // The name is ASCII here, so it can be sliced anywhere.
    format!("{}_{digest}", name[..bytes_max - digest.len() - 1].trim_end_matches(['_', '.']))
}

/// Converts a text to lower-case letters, digits, dots and underscores; other letters and digits become their code
/// points.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars().flat_map(char::to_lowercase) {
        match c {
            'a'..='z' | '0'..='9' | '.' => plain.push(c),
            _ if !c.is_ascii() && c.is_alphanumeric() => plain.push_str(&format!("u{:x}", u32::from(c))),
            _ if plain.ends_with(['_', '.']) || plain.is_empty() => {}
            _ => plain.push('_'),
        }
    }
    plain.trim_end_matches(['_', '.']).trim_start_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::import::{Import, read};
    use super::*;

    fn imported(value: Value, options: &ImportOptions) -> Import {
        read(&Document::from_value(value), options, 1_000).expect("an import")
    }

    fn document(paths: &Value) -> Value {
        json!({"openapi": "3.0.3", "info": {"title": "lab", "version": "1"}, "paths": paths})
    }

    /// Returns the method, path and name of each operation.
    fn operations(import: &Import) -> Vec<String> {
        let operation = |entry: &Entry| {
            Some(format!("{} {} {}", entry.http_methods.as_ref()?, entry.http_path.as_ref()?, entry.name))
        };
        import.entries.iter().filter_map(operation).collect()
    }

    fn skipped_of(import: &Import) -> Vec<String> {
        let place = |skipped: &Skipped| format!("{} {}", skipped.method.as_deref().unwrap_or("-"), skipped.path);
        import.skipped.iter().map(place).collect()
    }

    #[test]
    fn an_openapi_document_becomes_categories_and_operations() {
        let document = json!({"openapi": "3.0.3", "servers": [{"url": "https://files.example.org/api/v2/"}], "paths": {
            "/users/{id}": {"get": {"tags": ["User APIs"], "operationId": "getUser-ById"}, "parameters": []},
            "/ping": {"post": {}, "servers": [{"url": "/"}]},
            "x-note": {"get": {}},
        }});
        let options =
            ImportOptions { app: Some("files".into()), prefix: Some("Files".into()), ..ImportOptions::default() };
        let import = imported(document, &options);
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
    fn the_first_server_gives_the_base_path() {
        let base = |server: Value| {
            let document =
                json!({"openapi": "3.0.3", "servers": [server], "paths": {"/a": {"get": {"operationId": "a"}}}});
            read(&Document::from_value(document), &ImportOptions::default(), 10)
                .map(|import| import.entries[1].http_path.clone())
        };
        let of_url = |url: &str| base(json!({"url": url})).expect(url).expect("a path");
        for (url, path) in [
            ("https://files.example.org", "/a"),
            ("https://files.example.org/", "/a"),
            ("https://files.example.org/v2/", "/v2/a"),
            ("https://files.example.org/v2?x=/y", "/v2/a"),
            ("//files.example.org/v2", "/v2/a"),
            ("//files.example.org", "/a"),
            ("/", "/a"),
            ("/v2", "/v2/a"),
            ("v2", "/v2/a"),
            ("./v2/", "/v2/a"),
            ("../../v2", "/v2/a"),
            (".", "/a"),
            ("./", "/a"),
            ("", "/a"),
        ] {
            assert_eq!(of_url(url), path, "{url}");
        }
        let with = |url: &str, variables: Value| base(json!({"url": url, "variables": variables}));
        let variables = json!({"base": {"default": "api"}, "port": {"default": 8443}, "all": {"default": "/x/y"}});
        for (url, path) in [
            ("https://files.example.org/{base}/v2", "/api/v2/a"),
            ("https://files.example.org:{port}/{base}", "/api/a"),
            ("{all}", "/x/y/a"),
        ] {
            assert_eq!(with(url, variables.clone()).expect(url).as_deref(), Some(path), "{url}");
        }
        let refused = with("https://{host}/v2", json!({})).expect_err("no default");
        assert!(refused.fields[0].message.contains("no default for \"host\""), "{refused:?}");
        let options = ImportOptions { base: Some("v9/".into()), ..ImportOptions::default() };
        let import = imported(document(&json!({"/a": {"get": {"operationId": "a"}}})), &options);
        assert_eq!(operations(&import), ["GET /v9/a untagged.a"]);
    }

    #[test]
    fn names_are_valid_unique_and_independent_of_the_order() {
        let long = "x".repeat(300);
        let (long_a, long_b) = (format!("{long}a"), format!("{long}b"));
        let import = imported(
            document(&json!({
                "/users/{id}": {"get": {}},
                "/users/id": {"get": {}},
                "/a-b": {"get": {}},
                "/a_b": {"get": {}},
                "/b": {"get": {"tags": ["x"], "operationId": "list"}, "post": {"tags": ["x"], "operationId": "list_2"}},
                "/a": {"get": {"tags": ["x"], "operationId": "list"}, "post": {"tags": ["x.list"], "operationId": "?!"}},
                "/z1": {"get": {"tags": ["會員"], "operationId": "查詢"}},
                "/z2": {"get": {"tags": ["影片"], "operationId": "刪除"}},
                "/z3": {"get": {"tags": ["roster"], "operationId": "own"}},
                "/z4": {"get": {"tags": ["…"], "operationId": long_a}},
                "/z5": {"get": {"tags": [7], "operationId": long_b}},
            })),
            &ImportOptions { app: Some("Files".into()), ..ImportOptions::default() },
        );
        let names: Vec<&str> = import.entries.iter().map(|entry| entry.name.as_str()).collect();
        let unique: HashSet<&str> = names.iter().copied().collect();
        assert_eq!(unique.len(), names.len());
        for (path, name) in [
            ("GET /a-b", "untagged.get_a_b"),
            ("GET /a_b", "untagged.get_a_b_2"),
            ("GET /users/id", "untagged.get_users_id"),
            ("GET /users/{id}", "untagged.get_users_id_2"),
            // `x.list` is a category.
            ("GET /a", "x.list_3"),
            ("GET /b", "x.list_4"),
            ("POST /b", "x.list_2"),
            ("POST /a", "x.list.post_a"),
            ("GET /z1", "u6703u54e1.u67e5u8a62"),
            ("GET /z2", "u5f71u7247.u522au9664"),
            ("GET /z3", "files.roster.own"),
        ] {
            assert!(operations(&import).contains(&format!("{path} {name}")), "{path}: {:?}", operations(&import));
        }
        let cut: Vec<&&str> = names.iter().filter(|name| name.len() == NAME_BYTES_MAX).collect();
        assert!(cut.len() == 2 && cut.iter().all(|name| name.starts_with("untagged.xxx")), "{cut:?}");
    }

    #[test]
    fn as_many_operations_are_left_out_as_the_limit_and_not_one_more() {
        let wrong = |count: usize| {
            let more: serde_json::Map<String, Value> = (0..count).map(|n| (format!("x{n}"), json!({}))).collect();
            let paths = json!({"/a": {"get": {"operationId": "a"}}, "/b": {"additionalOperations": more}});
            read(&Document::from_value(document(&paths)), &ImportOptions::default(), 10)
        };
        assert_eq!(wrong(10).expect("an import").skipped.len(), 10);
        let refused = wrong(11).expect_err("too many").fields;
        assert_eq!((refused.len(), refused[0].name()), (1, "paths"), "{refused:?}");
    }

    #[test]
    fn long_texts_are_cut_where_they_are_repeated() {
        let path = |bytes: usize| format!("/{}", "é".repeat(bytes / 2 - 1) + "x");
        let (most, more) = (path(TEXT_BYTES_MAX), path(TEXT_BYTES_MAX + 2));
        assert_eq!((most.len(), more.len()), (TEXT_BYTES_MAX, TEXT_BYTES_MAX + 2));
        let get = json!({"get": {"operationId": "a"}});
        let skipped = imported(document(&json!({"/a": get, most: get, more: get})), &ImportOptions::default()).skipped;
        assert_eq!(skipped.len(), 2);
        for one in &skipped {
            assert_eq!((one.path.chars().count(), one.path.ends_with('…')), (SHOWN_CHARACTERS_MAX + 1, true));
            assert!(one.reason.chars().count() <= SHOWN_CHARACTERS_MAX + 1, "{}", one.reason);
        }
        assert!(skipped.iter().any(|one| one.reason == "has a path of more than 4096 bytes"));
    }

    #[test]
    fn operations_that_cannot_be_protected_are_skipped() {
        let import = imported(
            document(&json!({
                "/fine": {"get": {}},
                "/{a}{b}": {"get": {}},
                "/contents/{a+}/{b+}": {"get": {}, "post": {}},
                "no/slash": {"get": {}},
                "/a;v=1": {"get": {}},
                "/same/{a}": {"get": {}, "put": {}},
                "/same/{b}": {"get": {}, "post": {}},
                "/same/{c}/": {"post": {}},
                "/one?op=x": {"get": {}},
                "/both": {"get": {}},
                "/both?op=x": {"get": {}},
                "/both#op=y": {"get": {}, "put": {}},
                "/": {"get": {}},
                "/#Action=A": {"post": {}},
                "/#Action=B": {"post": {}},
                "/list{?q,limit}": {"get": {}},
                "/more": {"additionalOperations": {"LINK": {}, "un-link": {}}, "query": {}},
            })),
            &ImportOptions::default(),
        );
        assert_eq!(
            skipped_of(&import),
            [
                "POST /#Action=A",
                "POST /#Action=B",
                "GET /a;v=1",
                "GET /both#op=y",
                "GET /both?op=x",
                "GET /contents/{a+}/{b+}",
                "POST /contents/{a+}/{b+}",
                "un-link /more",
                "GET /same/{b}",
                "POST /same/{c}/",
                "GET /{a}{b}",
                "GET no/slash",
            ]
        );
        let routes: Vec<String> =
            operations(&import).iter().map(|line| line.rsplit_once(' ').expect("a name").0.to_owned()).collect();
        assert_eq!(
            routes,
            [
                "GET /",
                "GET /both",
                "PUT /both",
                "GET /fine",
                "GET /list",
                "QUERY /more",
                "LINK /more",
                "GET /one",
                "GET /same/{a}",
                "PUT /same/{a}",
                "POST /same/{b}",
            ]
        );
        assert!(import.skipped.iter().any(|s| s.reason.contains("as those of GET /same/{a}")), "{:?}", import.skipped);
        let strict = ImportOptions { strict: true, ..ImportOptions::default() };
        let refused =
            read(&Document::from_value(document(&json!({"/a": {"get": {}}, "/a;b": {"get": {}}}))), &strict, 10);
        assert_eq!(refused.expect_err("strict").fields[0].location, ["body", "paths", "/a;b", "get"]);
        let nothing =
            read(&Document::from_value(document(&json!({"/a;b": {"get": {}}}))), &ImportOptions::default(), 10);
        assert_eq!(nothing.expect_err("nothing is left").fields.len(), 1);
    }

    #[test]
    fn references_within_the_document_are_followed_and_others_are_left_out() {
        let import = imported(
            json!({
                "openapi": "3.1.0",
                "paths": {
                    "/a": {"$ref": "#/components/pathItems/A"},
                    "/b": {"$ref": "#/paths/~1a", "get": {"operationId": "own"}, "put": {"$ref": "#/components/x-ops/put"}},
                    "/c": {"$ref": "#/components/pathItems/caf%C3%A9"},
                    "/d": {"$ref": "paths/d.yaml"},
                    "/e": {"get": {"$ref": "e.yaml#/get"}, "post": {"operationId": "e"}},
                    "/f": {"$ref": "#/paths/~1f"},
                    "/g": {"$ref": "#/nowhere"},
                    "/h": {"$ref": "#/openapi"},
                    "/i/{path}": {"get": {"operationId": "i", "parameters": [{"$ref": "#/components/parameters/Path"}]}},
                },
                "components": {
                    "pathItems": {
                        "A": {"get": {"tags": ["t"], "operationId": "a"}, "post": {"operationId": "a2"}},
                        "café": {"get": {"operationId": "c"}},
                    },
                    "x-ops": {"put": {"tags": ["t"], "operationId": "p"}},
                    "parameters": {"Path": {"name": "path", "in": "path", "x-multi-segment": true}},
                },
            }),
            &ImportOptions::default(),
        );
        assert_eq!(
            operations(&import),
            [
                "GET /a t.a",
                "POST /a untagged.a2",
                "GET /b untagged.own",
                "PUT /b t.p",
                "POST /b untagged.a2_2",
                "GET /c untagged.c",
                "POST /e untagged.e",
                "GET /i/{path+} untagged.i",
            ]
        );
        assert_eq!(skipped_of(&import), ["- /d", "GET /e", "- /f", "- /g", "- /h"]);
    }

    #[test]
    fn parameters_of_several_segments_are_marked_by_extension_syntax_or_option() {
        let multi = json!([{"name": "p", "in": "path", "required": true, "x-multi-segment": true}]);
        let import = imported(
            document(&json!({
                "/a/{p}": {"get": {"parameters": multi}, "put": {}},
                "/b/{p}": {"parameters": multi, "get": {}},
                "/c/{p+}": {"get": {}},
                "/d/{p:.*}": {"get": {}},
                "/e/{name}:undo": {"post": {}},
                "/e/{name}/status": {"get": {}},
                "/f/{q}": {"get": {"parameters": [{"name": "q", "in": "query", "x-multi-segment": true}]}},
            })),
            &ImportOptions { multi_segment: vec!["name".into()], ..ImportOptions::default() },
        );
        let paths: Vec<&str> = import.entries.iter().filter_map(|entry| entry.http_path.as_deref()).collect();
        assert_eq!(
            paths,
            ["/a/{p+}", "/a/{p}", "/b/{p+}", "/c/{p+}", "/d/{p+}", "/e/{name+}/status", "/e/{name+}:undo", "/f/{q}"]
        );
    }
}
