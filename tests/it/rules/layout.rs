//! Tests the layout of the source by its import graph: which folder may use which one. The graph comes from every `use`
//! line and every path expression of `src` that is shipped.

use std::collections::{BTreeMap, BTreeSet};

use super::tidy::{files, shipped};

/// The features that each feature uses. The table is exact and the graph has no cycle: adding or removing an import
/// requires a change here.
const FEATURES: &[(&str, &[&str])] = &[
    ("api_keys", &["members"]),
    ("audit", &["members"]),
    ("decisions", &["members", "permissions"]),
    ("grants", &["members"]),
    ("invitations", &["members", "permissions"]),
    ("jobs", &["members"]),
    ("members", &["permissions"]),
    ("organizations", &["permissions"]),
    ("plugins", &["members"]),
    ("provisioning", &["api_keys", "members", "quotas"]),
    ("quotas", &["members"]),
    ("search", &["api_clients", "members", "organizations", "permissions", "plugins", "videos", "webhooks"]),
    ("sessions", &["api_keys", "invitations", "members", "permissions"]),
    ("statistics", &["audit", "jobs", "quotas"]),
    ("videos", &["jobs", "members", "quotas"]),
    ("webhooks", &["members"]),
];

/// The parts of the kernel that each part uses.
const KERNEL: &[(&str, &[&str])] = &[
    (
        "app",
        &[
            "audit_log",
            "authn",
            "authz",
            "config",
            "db",
            "decision_log",
            "encryption",
            "error",
            "ids",
            "intake",
            "outbound",
            "outbox",
            "runtime",
            "sandbox",
            "secret",
        ],
    ),
    ("audit_log", &["authz", "db", "error", "ids"]),
    ("authn", &["authz", "config", "db", "encryption", "error", "ids", "secret"]),
    ("authz", &["config", "db", "encryption", "error", "ids", "intake", "secret"]),
    ("config", &["nearest", "units"]),
    ("db", &["config", "error", "ids", "runtime"]),
    ("decision_log", &["authz", "config", "db", "error", "ids", "runtime"]),
    ("encryption", &["error", "ids", "secret"]),
    ("http", &["app", "authn", "authz", "config", "db", "error", "ids", "intake", "nearest", "secret"]),
    ("intake", &["config", "error"]),
    ("outbound", &["config", "error", "ids"]),
    ("outbox", &["authz", "config", "db", "error", "ids"]),
    ("runtime", &["config"]),
    ("sandbox", &["authz", "config", "error", "ids", "runtime", "secret"]),
    ("secret", &["error", "ids"]),
    ("units", &["ids"]),
];

/// What integrations and entry points use of each other.
const ABOVE: &[(&str, &[&str])] = &[
    ("cli", &["console", "integrations/sftpgo", "server"]),
    (
        "server",
        &["console", "integrations/authentik", "integrations/mail", "integrations/sftpgo", "integrations/wordpress"],
    ),
];

/// Forbidden imports that still exist, each with the change that removes it. Nothing may be added.
const STILL_TO_CUT: &[(&str, &str, &str)] = &[];

/// Imports of another module's `api` or `store` that still exist: the file, and what it uses.
const FOREIGN_STILL_TO_CUT: &[(&str, &str)] = &[];

/// The layers, from the top.
const LAYERS: [&[&str]; 4] = [&["cli", "server", "console"], &["integrations"], &["features"], &["kernel"]];

fn layer(node: &str) -> usize {
    let top = node.split('/').next().unwrap_or(node);
    LAYERS.iter().position(|layer| layer.contains(&top)).unwrap_or_else(|| panic!("{node} is in no layer"))
}

// ── reading the source ──

/// The source with comments and literals blanked.
fn code(text: &str) -> String {
    let bytes: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let end = match rest {
            ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['r', '#', '"', ..] => find(rest, &['"', '#'], 3),
            ['"', ..] => string_end(rest),
            ['\'', '\\', _, ..] => find(rest, &['\''], 3),
            ['\'', _, '\'', ..] => 3,
            _ => {
                out.push(bytes[at]);
                at += 1;
                continue;
            }
        };
        out.extend(rest[..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at += end;
    }
    out
}

fn find(text: &[char], what: &[char], from: usize) -> usize {
    (from..text.len()).find(|at| text[*at..].starts_with(what)).map_or(text.len(), |at| at + what.len())
}

fn string_end(text: &[char]) -> usize {
    let mut at = 1;
    while at < text.len() && text[at] != '"' {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = match first {
            c if c.is_whitespace() => {
                rest = &rest[c.len_utf8()..];
                continue;
            }
            c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            c => c.len_utf8(),
        };
        tokens.push(&rest[..length]);
        rest = &rest[length..];
    }
    tokens
}

fn is_name(token: &str) -> bool {
    token.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_')
}

type Names = Vec<String>;

/// Reads one tree of a `use` declaration from `at`. Returns where it ends.
fn read_tree(tokens: &[&str], mut at: usize, before: &[String], found: &mut Vec<(Names, String)>) -> usize {
    let mut path = before.to_vec();
    loop {
        match tokens[at] {
            "{" => {
                at += 1;
                while tokens[at] != "}" {
                    at = read_tree(tokens, at, &path, found);
                    at += usize::from(tokens[at] == ",");
                }
                return at + 1;
            }
            "*" => {
                found.push((path, "*".into()));
                return at + 1;
            }
            "::" => at += 1,
            name => {
                path.push(name.to_owned());
                at += 1;
                if tokens[at] == "::" {
                    continue;
                }
                if path.len() > 1 && name == "self" {
                    path.pop();
                }
                let mut binding = path.last().cloned().unwrap_or_default();
                if tokens[at] == "as" {
                    binding = tokens[at + 1].to_owned();
                    at += 2;
                }
                found.push((path, binding));
                return at;
            }
        }
    }
}

/// One source file: its module path, its imports, its path expressions, and the modules that it declares.
struct File {
    name: String,
    module: Names,
    uses: Vec<(Names, String)>,
    paths: Vec<Names>,
    children: BTreeSet<String>,
}

fn read_file(name: &str, text: &str) -> File {
    let below = name.strip_prefix("src/").unwrap_or(name).trim_end_matches(".rs");
    let below = below.trim_end_matches("/mod");
    let module = if below == "lib" { Vec::new() } else { below.split('/').map(str::to_owned).collect() };
    let code = code(shipped(text));
    let tokens = tokens(&code);
    let mut file = File { name: name.into(), module, uses: Vec::new(), paths: Vec::new(), children: BTreeSet::new() };
    let mut at = 0;
    while at < tokens.len() {
        let next = |n: usize| tokens.get(at + n).copied().unwrap_or("");
        match tokens[at] {
            "use" if is_name(next(1)) => at = read_tree(&tokens, at + 1, &[], &mut file.uses),
            "mod" if is_name(next(1)) && next(2) == ";" => {
                file.children.insert(next(1).to_owned());
                at += 3;
            }
            name if is_name(name) && next(1) == "::" && is_name(next(2)) => {
                let mut path = vec![name.to_owned()];
                while tokens.get(at + 1) == Some(&"::") && tokens.get(at + 2).is_some_and(|name| is_name(name)) {
                    at += 2;
                    path.push(tokens[at].to_owned());
                }
                file.paths.push(path);
                at += 1;
            }
            _ => at += 1,
        }
    }
    file
}

impl File {
    /// The path from the crate's root; `None` for a path of another crate.
    fn absolute(&self, path: &[String]) -> Option<Names> {
        let (first, rest) = path.split_first()?;
        let below = |base: &[String]| Some(base.iter().chain(rest).cloned().collect());
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => below(&self.module),
            "super" => {
                let ups = path.iter().take_while(|name| *name == "super").count();
                let base = &self.module[..self.module.len().saturating_sub(ups)];
                Some(base.iter().chain(&path[ups..]).cloned().collect())
            }
            name => {
                if let Some((used, _)) = self.uses.iter().find(|(used, binding)| binding == name && used[0] != name) {
                    return below(&self.absolute(used)?);
                }
                let child: Names = self.module.iter().cloned().chain([name.to_owned()]).collect();
                self.children.contains(name).then(|| below(&child)).flatten()
            }
        }
    }

    /// Every path of this crate that the file uses.
    fn used(&self) -> BTreeSet<Names> {
        let uses = self.uses.iter().map(|(path, _)| path);
        uses.chain(&self.paths).filter_map(|path| self.absolute(path)).filter(|path| !path.is_empty()).collect()
    }
}

/// The node of the graph that a path belongs to: a feature, an integration, a part of the kernel, an entry point.
fn node(path: &[String]) -> String {
    let depth = if ["features", "integrations", "kernel"].contains(&path[0].as_str()) { 2 } else { 1 };
    path[..depth.min(path.len())].join("/")
}

fn source() -> Vec<File> {
    let all = files("src").into_iter().filter(|(name, _)| name != "src/main.rs" && name != "src/lib.rs");
    all.map(|(name, text)| read_file(&name, &text)).collect()
}

type Graph = BTreeMap<String, BTreeMap<String, String>>;

/// The edges of the graph, each with one file that causes it.
fn graph(files: &[File]) -> Graph {
    let tops: BTreeSet<&str> = LAYERS.iter().copied().flatten().copied().collect();
    let mut graph = Graph::new();
    for file in files.iter().filter(|file| file.module.len() > 1 || layer(&file.module[0]) == 0) {
        for path in file.used().iter().filter(|path| tops.contains(path[0].as_str())) {
            let (own, other) = (node(&file.module), node(path));
            if own != other && other.contains('/') == (layer(&other) > 0) {
                graph.entry(own).or_default().entry(other).or_insert_with(|| file.name.clone());
            }
        }
    }
    graph
}

/// The members of a cycle, if there is one.
fn cycle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    let mut left = graph.clone();
    loop {
        // A node whose dependencies have all been removed is in no cycle.
        let done: Vec<String> = left
            .iter()
            .filter(|(_, used)| !used.iter().any(|used| left.contains_key(used)))
            .map(|(own, _)| own.clone())
            .collect();
        if done.is_empty() {
            return (!left.is_empty()).then(|| left.into_keys().collect());
        }
        done.iter().for_each(|own| drop(left.remove(own)));
    }
}

fn is_to_cut(own: &str, other: &str) -> bool {
    STILL_TO_CUT.iter().any(|(from, to, _)| (*from, *to) == (own, other))
}

/// The edges among the nodes of these layers, in the form of the tables.
fn within(graph: &Graph, layers: &[usize]) -> BTreeMap<String, BTreeSet<String>> {
    let short =
        |name: &str| name.split_once('/').filter(|_| layers.len() == 1).map_or(name, |(_, name)| name).to_owned();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (own, used) in graph.iter().filter(|(own, _)| layers.contains(&layer(own))) {
        let inside = used.keys().filter(|other| layers.contains(&layer(other)) && !is_to_cut(own, other));
        let inside: BTreeSet<String> = inside.map(|other| short(other)).collect();
        if !inside.is_empty() {
            found.insert(short(own), inside);
        }
    }
    found
}

fn written(table: &[(&str, &[&str])]) -> BTreeMap<String, BTreeSet<String>> {
    table.iter().map(|(own, used)| ((*own).into(), used.iter().map(|used| (*used).into()).collect())).collect()
}

/// The edges formatted as a table of this file.
fn shown(graph: &BTreeMap<String, BTreeSet<String>>) -> String {
    graph.iter().map(|(own, used)| format!("    (\"{own}\", &{:?}),\n", used.iter().collect::<Vec<_>>())).collect()
}

// ── rules ──

#[test]
fn imports_go_down_only() {
    for (own, used) in graph(&source()) {
        for (other, file) in used {
            let is_up = layer(&other) < layer(&own);
            assert!(!is_up || is_to_cut(&own, &other), "{file} imports from the higher layer {other}");
        }
    }
}

#[test]
fn the_tables_equal_the_import_graph_which_has_no_cycle() {
    let graph = graph(&source());
    for (table, layers) in [(ABOVE, &[0, 1][..]), (FEATURES, &[2]), (KERNEL, &[3])] {
        let found = within(&graph, layers);
        assert!(written(table) == found, "the imports are not as written; they are:\n{}", shown(&found));
        assert_eq!(cycle(&found), None, "the imports have a cycle");
    }
    for (own, other, why) in STILL_TO_CUT {
        let is_there = graph.get(*own).is_some_and(|used| used.contains_key(*other));
        assert!(is_there, "{own} → {other} no longer exists: remove it from the list ({why})");
    }
}

#[test]
fn a_module_never_uses_the_api_or_store_of_another() {
    let mut found = BTreeSet::new();
    for file in source().iter().filter(|file| layer(&file.module[0]) > 0) {
        for path in
            file.used().iter().filter(|path| path.len() > 2 && ["features", "integrations"].contains(&path[0].as_str()))
        {
            let is_private = path[2] == "api" || path[2] == "store" || path[2].ends_with("_store");
            if is_private && node(path) != node(&file.module) {
                found.insert((file.name.clone(), path[..3].join("/")));
            }
        }
    }
    let listed: BTreeSet<(String, String)> =
        FOREIGN_STILL_TO_CUT.iter().map(|(file, used)| ((*file).into(), (*used).into())).collect();
    assert_eq!(found, listed);
}

/// The tables that a statement writes.
fn written_tables(text: &str) -> BTreeSet<String> {
    let words: Vec<String> = text
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '"'))
        .filter(|word| !word.is_empty())
        .map(|word| word.trim_matches('"').to_owned())
        .collect();
    let mut found = BTreeSet::new();
    for at in 0..words.len() {
        let word = |n: usize| words.get(at + n).map_or("", String::as_str);
        let table = match (word(0), word(1), word(2), word(3)) {
            ("insert", "into", table, _) | ("delete", "from", table, _) => table,
            ("insert", "or", _, "into") => word(4),
            ("update", table, "set", _) => table,
            _ => continue,
        };
        found.insert(table.to_owned());
    }
    found
}

#[test]
fn a_table_is_written_by_one_module() {
    let schema = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/schema.sql")).expect("schema.sql");
    let is_table = |name: &str| schema.contains(&format!("create table {name} ("));
    let mut writers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, text) in files("src") {
        let text = shipped(&text);
        let statements =
            text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        for table in written_tables(&statements).into_iter().filter(|table| is_table(table)) {
            writers.entry(table).or_default().insert(node(&read_file(&name, "").module));
        }
    }
    let several: BTreeMap<String, BTreeSet<String>> = writers.into_iter().filter(|(_, by)| by.len() > 1).collect();
    assert!(several.is_empty(), "tables with several writers:\n{}", shown(&several));
}

/// Paths of former modules that must not return.
const GONE: [&str; 4] = ["crate::wire", "crate::access", "crate::connect", "crate::routes"];

#[test]
fn former_module_paths_are_not_used() {
    for (name, text) in files("src") {
        for word in GONE {
            assert!(!text.contains(word), "{name} contains {word}");
        }
    }
}

#[test]
fn the_parser_of_imports_reads_all_forms() {
    let text = "
        //! use crate::kernel::no;
        mod child;
        use super::{store, x::{self, Y as Z}};
        use crate::kernel::db::*;
        const S: &str = \"crate::kernel::no\";
        fn f() -> char { store::get(); child::go(); Z::new(); crate::kernel::ids::now(); '\"' }
        #[cfg(test)]
        mod tests { use crate::kernel::no; }";
    let file = read_file("src/features/a/b.rs", &text.replace("\n        ", "\n"));
    let used: Vec<String> = file.used().iter().map(|path| path.join("::")).collect();
    let expected = [
        "features::a::b::child::go",
        "features::a::store",
        "features::a::store::get",
        "features::a::x",
        "features::a::x::Y",
        "features::a::x::Y::new",
        "kernel::db",
        "kernel::ids::now",
    ];
    assert_eq!(used, expected);
}
