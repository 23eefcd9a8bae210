//! The permission catalog, level by level with counts, and the import of a document.

mod import;

use std::collections::HashMap;

use maud::{Markup, html};
use serde_json::{Value, json};

use crate::console::client::{encoded, op};
use crate::console::components::{self, Column, Row, Tone, badge, card, empty, facts, search_field, table};
use crate::console::i18n::catalog::Catalog;
use crate::console::i18n::{fill, permissions};
use crate::console::list;
use crate::console::visit::{Content, View, Visit};
use crate::kernel::error::{Error, ErrorCode, Result};

pub use import::forms;

/// The address of the page, without the public path.
pub const ADDRESS: &str = "/console/site/catalog";

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

/// The entries of the catalog by name, and those directly below each.
struct Tree<'d> {
    by_name: HashMap<&'d str, &'d Value>,
    /// The children of each entry, in the order of their imports; those of the empty name are at the top.
    below: HashMap<&'d str, Vec<&'d Value>>,
}

impl<'d> Tree<'d> {
    fn of(entries: &'d [Value]) -> Self {
        let by_name: HashMap<&str, &Value> = entries.iter().map(|entry| (text(entry, "name"), entry)).collect();
        let mut below: HashMap<&str, Vec<&Value>> = HashMap::new();
        for entry in entries {
            let parent = Some(text(entry, "parent")).filter(|parent| by_name.contains_key(parent)).unwrap_or_default();
            below.entry(parent).or_default().push(entry);
        }
        Self { by_name, below }
    }

    fn children(&self, name: &str) -> &[&'d Value] {
        self.below.get(name).map_or(&[], Vec::as_slice)
    }

    /// The number of permissions below an entry that open something, and of the closed ones among them.
    fn count(&self, name: &str) -> (usize, usize) {
        let (mut all, mut closed) = (0, 0);
        let mut waiting: Vec<(&Value, bool)> = self.children(name).iter().map(|entry| (*entry, false)).collect();
        while let Some((entry, is_below_closed)) = waiting.pop() {
            let is_closed = is_below_closed || text(entry, "status") == "close";
            if entry["http_path"].is_string() {
                all += 1;
                closed += usize::from(is_closed);
            }
            waiting.extend(self.children(text(entry, "name")).iter().map(|child| (*child, is_closed)));
        }
        (all, closed)
    }

    /// The entries above an entry, from the top.
    fn above(&self, name: &str) -> Vec<&'d str> {
        let parent = |name: &str| {
            let above = text(self.by_name.get(name)?, "parent");
            self.by_name.get_key_value(above).map(|(name, _)| *name)
        };
        let mut names: Vec<&str> = std::iter::successors(parent(name), |name| parent(name)).collect();
        names.reverse();
        names
    }
}

pub async fn show(visit: &Visit) -> Result<View> {
    Ok(page(visit, None).await?.into())
}

pub async fn act(visit: &Visit) -> Result<View> {
    import::act(visit).await
}

/// The page. After a form was sent its import comes first, with its failure.
async fn page(visit: &Visit, error: Option<&Error>) -> Result<Content> {
    let t = Catalog::of(visit.language);
    let found = visit.call(op("get_permission_catalog")).await?.data;
    let entries = found["list"].as_array().map_or(&[][..], Vec::as_slice);
    let tree = Tree::of(entries);
    let is_sent = !visit.form.is_empty() || visit.refused.is_some();
    let at = visit.query("at").filter(|_| !is_sent);
    if at.is_some_and(|at| !tree.by_name.contains_key(at)) {
        return Err(ErrorCode::NotFound.into());
    }
    let shown = match visit.query("q") {
        Some(query) => matching(visit, entries, query),
        None => tree.children(at.unwrap_or_default()).to_vec(),
    };
    let (all, closed) = tree.count(at.unwrap_or_default());
    let may_import = visit.may("import_catalog") && at.is_none();
    let body = html! {
        @if is_sent && may_import { (card(t.import, forms(visit, error))) }
        @match at {
            Some(at) => (entry(visit, t, &tree, at)),
            None => p { (t.about) },
        }
        (components::filter_bar(&visit.here(), Some("entries"), html! {
            (search_field("q", visit.query("q").unwrap_or_default(), t.search))
        }, visit.frame().search))
        (components::region("entries", None, html! {
            p { (fill(t.total, &[&list::grouped(all as u64), &list::grouped(closed as u64)])) }
            (level(visit, t, &tree, &shown))
        }))
        @if !is_sent && may_import && visit.query("q").is_none() { (card(t.import, forms(visit, None))) }
    };
    Ok(Content::new(at.unwrap_or(t.title), body))
}

/// The entries that have this text in name, path or meaning.
fn matching<'d>(visit: &Visit, entries: &'d [Value], query: &str) -> Vec<&'d Value> {
    let query = query.to_lowercase();
    let fits = |entry: &&Value| {
        let meaning = permissions::meaning(text(entry, "name"), visit.language).unwrap_or_default();
        [text(entry, "name"), text(entry, "http_path"), meaning].iter().any(|text| text.to_lowercase().contains(&query))
    };
    entries.iter().filter(fits).collect()
}

/// An entry with children: what it is, and the entries above it.
fn entry(visit: &Visit, t: &Catalog, tree: &Tree<'_>, name: &str) -> Markup {
    let above = tree.above(name);
    html! {
        nav aria-label=(t.top) {
            p {
                a href=(visit.here()) { (t.top) }
                @for one in above { " › " a href=(link(one)) { (one) } }
                " › " (name)
            }
        }
        @if let Some(meaning) = permissions::meaning(name, visit.language) { p { (meaning) } }
        @if let Some(entry) = tree.by_name.get(name) {
            (facts(&[(t.state, state(t, entry)), (t.opens, opens(entry))]))
        }
    }
}

fn link(name: &str) -> String {
    format!("?at={}", encoded(name))
}

fn state(t: &Catalog, entry: &Value) -> Markup {
    match text(entry, "status") {
        "close" => badge(Tone::Warn, t.is_closed),
        _ => html! { (t.open) },
    }
}

/// The methods and path that the permission opens.
fn opens(entry: &Value) -> Markup {
    let (methods, path) = (text(entry, "http_methods"), text(entry, "http_path"));
    html! { @if path.is_empty() { "–" } @else { code { (methods) " " (path) } } }
}

/// One level of the tree, or what a search found.
fn level(visit: &Visit, t: &Catalog, tree: &Tree<'_>, shown: &[&Value]) -> Markup {
    if shown.is_empty() {
        let all = components::link_button(&visit.here(), t.top);
        return empty(t.none_fits, t.none_fits_text, Some(all));
    }
    let (limit, offset) = (list::limit(visit), list::offset(visit));
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let part: Vec<&Value> = shown.iter().copied().skip(count(offset)).take(count(limit)).collect();
    let row = |entry: &&Value| {
        let name = text(entry, "name");
        let (below, _) = tree.count(name);
        let has_children = !tree.children(name).is_empty();
        Row {
            cells: vec![
                html! { code { (name) } },
                html! { (permissions::meaning(name, visit.language).unwrap_or_default()) },
                opens(entry),
                state(t, entry),
                html! { @if has_children { (list::grouped(below as u64)) } },
            ],
            href: has_children.then(|| link(name)),
            ..Row::default()
        }
    };
    let columns = [
        Column::new(t.name),
        Column::new(t.meaning),
        Column::new(t.opens),
        Column::new(t.state),
        Column::number(t.below),
    ];
    let rows = part.iter().map(row).collect();
    let page = json!({"items": part, "total": shown.len(), "offset": offset, "limit": limit});
    html! { (table(t.title, &columns, rows)) (list::pager(visit, &page)) }
}
