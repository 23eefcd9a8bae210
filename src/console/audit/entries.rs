//! The entries of the audit log as rows: who did what to what, and what changed.

use std::collections::BTreeSet;

use maud::{Markup, html};
use serde_json::Value;

use super::{Known, Words, folded};
use crate::console::components::{self, Change, Column, Row, Tone};
use crate::console::i18n::{Language, actions, errors, fields, fill, permissions, roles as role_names};
use crate::console::things;
use crate::console::visit::Visit;
use crate::kernel::audit_log::Outcome;
use crate::kernel::error::{Error, ErrorCode};

/// Longer values are cut.
const VALUE_CHARS_MAX: usize = 300;
/// The other entries of a request that are shown.
const OTHERS_MAX: usize = 50;
/// The characters of an id that tell it from others on a page.
const ID_CHARS: usize = 8;

/// The row of a request: its first entry. What changed and its other entries are shown if the address asks for it, since
/// they are longer than the rest of the page.
pub fn row(visit: &Visit, t: &Words, known: &Known, request: &[&Value]) -> Row {
    let entry = request[0];
    let id = entry["id"].to_string();
    let is_open = visit.query("open").is_some_and(|open| open == id);
    Row {
        cells: vec![
            components::time(entry["at"].as_i64().unwrap_or_default()),
            actor(visit, known, entry),
            html! {
                (done(visit, entry))
                @if is_open { (opened(visit, t, known, request)) } @else { (opener(visit, t, request, &id)) }
            },
            target(visit, known, entry),
            outcome(visit, entry),
        ],
        ..Row::default()
    }
}

/// A table of the newest requests among these entries, for overviews.
pub fn newest(visit: &Visit, title: &str, entries: &[Value], rows_max: usize) -> Markup {
    let (t, known) = (Words::of(visit.language), Known::default());
    let row = |request: &Vec<&Value>| {
        let (entry, more) = (request[0], request.len() - 1);
        Row {
            cells: vec![
                components::time_ago(entry["at"].as_i64().unwrap_or_default()),
                actor(visit, &known, entry),
                html! { (done(visit, entry)) @if more > 0 { " " small { (fill(t.and_more, &[&more])) } } },
                target(visit, &known, entry),
                outcome(visit, entry),
            ],
            ..Row::default()
        }
    };
    let columns = [t.at, t.who, t.what, t.target, t.outcome].map(Column::new);
    components::table(title, &columns, folded(entries, rows_max).0.iter().map(row).collect())
}

/// The link that shows more about a request, if there is more.
fn opener(visit: &Visit, t: &Words, request: &[&Value], id: &str) -> Markup {
    let more = match request.len() {
        1 if is_denied(request[0]) => fields::label("reason", visit.language),
        1 if changes(visit, request[0]).is_empty() => return html! {},
        1 => t.changes.to_owned(),
        entries => fill(t.and_more, &[&(entries - 1)]),
    };
    html! { " " a href={ (visit.with_query(&[("open", id)])) "#open" } { (more) } }
}

fn opened(visit: &Visit, t: &Words, known: &Known, request: &[&Value]) -> Markup {
    let (request_id, address) = (text(request[0], "request_id"), text(request[0], "address"));
    let (others, rest) = (&request[1..], request.len().saturating_sub(1 + OTHERS_MAX));
    html! {
        div id="open" {
            (difference(visit, t, request[0]))
            @if !others.is_empty() {
                ul class="plain" {
                    @for other in others.iter().take(OTHERS_MAX) {
                        li { (done(visit, other)) " · " (target(visit, known, other)) (difference(visit, t, other)) }
                    }
                }
            }
            @if rest > 0 { p { (fill(t.and_more, &[&rest])) } }
            @if !request_id.is_empty() { p { small { (fill(t.of_request, &[&request_id, &address])) } } }
        }
    }
}

fn text<'e>(entry: &'e Value, name: &str) -> &'e str {
    entry[name].as_str().unwrap_or_default()
}

/// What was done, in words.
pub fn done(visit: &Visit, entry: &Value) -> Markup {
    let action = text(entry, "action");
    html! { span title=(action) { (label(visit, action)) } }
}

/// The words of an action. The action of a denial is the operation that was asked for.
pub fn label(visit: &Visit, action: &str) -> String {
    label_in(visit, action, visit.language)
}

/// The same in this language.
pub fn label_in(visit: &Visit, action: &str, language: Language) -> String {
    let asked = visit.operation(action).ok().and_then(|operation| operation.permission);
    let meaning = asked.and_then(|permission| permissions::meaning(permission.builtin().name, language));
    meaning.map_or_else(|| actions::text(action, language), str::to_owned)
}

fn is_denied(entry: &Value) -> bool {
    text(entry, "outcome") == Outcome::Denied.as_str()
}

pub fn outcome(visit: &Visit, entry: &Value) -> Markup {
    let word = fields::value(text(entry, "outcome"), visit.language);
    if text(entry, "outcome") == "done" {
        html! { (word) }
    } else {
        components::badge(Tone::Bad, &word)
    }
}

/// The beginning of an id, with the whole one for pointers.
fn short(id: &str) -> Markup {
    match id.get(..ID_CHARS).filter(|_| uuid::Uuid::parse_str(id).is_ok()) {
        Some(begin) => html! { code title=(id) { (begin) "…" } },
        None => html! { code { (id) } },
    }
}

/// Who did it, by name if it is known.
pub fn actor(visit: &Visit, known: &Known, entry: &Value) -> Markup {
    let (kind, id) = (text(entry, "actor_kind"), text(entry, "actor"));
    let kind_text = fields::value(kind, visit.language);
    match entry["actor_name"].as_str() {
        Some(name) => html! {
            (linked(place(visit, known, entry, "member", id), html! { (name) }))
            @if kind != "member" { " " small { (kind_text) } }
        },
        // The command line and strangers have no id that says more.
        None if id.is_empty() || id == kind => html! { (kind_text) },
        None => html! { (kind_text) " " (short(id)) },
    }
}

/// To what it was done, with a link if it has a page.
pub fn target(visit: &Visit, known: &Known, entry: &Value) -> Markup {
    let (kind, id) = text(entry, "target").split_once(' ').unwrap_or((text(entry, "target"), ""));
    let name = name_of_target(visit, known, entry, kind, id);
    let is_there = name.is_some() || !["member", "user", "role", "quota", "password"].contains(&kind);
    let href = if is_there { place(visit, known, entry, kind, id) } else { None };
    let code = entry["organization_id"].as_str().and_then(|id| known.codes.get(id));
    html! {
        small { (actions::thing(kind, visit.language)) } " "
        (linked(href, match name { Some(name) => html! { (name) }, None => short(id) }))
        @if let Some(code) = code { " " small { "(" (code) ")" } }
    }
}

/// The name of a target: a role's in the reader's language, else what the log answers.
fn name_of_target(visit: &Visit, known: &Known, entry: &Value, kind: &str, id: &str) -> Option<String> {
    let name = entry["target_name"].as_str()?;
    if kind != "role" {
        return Some(name.to_owned());
    }
    let mut all = known.roles.as_array().into_iter().flatten();
    let display_name = all.find(|role| role["id"] == id).map_or("", |role| text(role, "display_name"));
    Some(role_names::name(display_name, name, visit.language).to_owned())
}

fn linked(href: Option<String>, inner: Markup) -> Markup {
    html! { @match href { Some(href) => a href=(href) { (inner) }, None => (inner) } }
}

/// The page of a thing, if there is one that the visitor may open.
fn place(visit: &Visit, known: &Known, entry: &Value, kind: &str, id: &str) -> Option<String> {
    let code = match visit.organization() {
        Some(here) => Some(here.code.as_str()),
        None => known.codes.get(text(entry, "organization_id")).map(String::as_str),
    };
    things::href(visit, code, visit.organization().is_none(), kind, id)
}

/// What changed, field by field; nothing for an entry without values. Of a denial, why it was denied.
fn difference(visit: &Visit, t: &Words, entry: &Value) -> Markup {
    if is_denied(entry) {
        return denial(visit, t, &entry["after"]);
    }
    let changes = changes(visit, entry);
    html! {
        @if !changes.is_empty() { (components::difference(t.changes, [t.property, t.before, t.after], &changes)) }
    }
}

/// The sentence of the error, and how often the same was denied before without an entry.
fn denial(visit: &Visit, t: &Words, after: &Value) -> Markup {
    let word = text(after, "detail");
    let code = ErrorCode::ALL.iter().find(|code| code.as_str() == word);
    let sentence = code.map(|code| errors::sentence(&Error::new(*code), visit.language));
    let repeats = after["repeats_before"].as_u64().or(after["repeats"].as_u64()).unwrap_or_default();
    html! {
        p {
            @match sentence { Some(sentence) => span title=(word) { (sentence) }, None => (word) }
            @if repeats > 0 { " " (fill(t.repeated, &[&repeats])) }
        }
    }
}

fn changes(visit: &Visit, entry: &Value) -> Vec<Change> {
    let (before, after) = (&entry["before"], &entry["after"]);
    let keys = |value: &Value| value.as_object().into_iter().flat_map(|all| all.keys().cloned()).collect::<Vec<_>>();
    let names: BTreeSet<String> = keys(before).into_iter().chain(keys(after)).collect();
    if names.is_empty() {
        let change = Change { name: String::new(), before: shown(before), after: shown(after) };
        return Some(change).filter(|change| change.before != change.after).into_iter().collect();
    }
    let change = |name: String| Change {
        before: shown(&before[&name]),
        after: shown(&after[&name]),
        name: fields::label(&name, visit.language),
    };
    names.into_iter().map(change).filter(|change| change.before != change.after).collect()
}

/// A value as text; `None` for null.
fn shown(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        Value::Array(all) if all.iter().all(Value::is_string) => {
            all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    };
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => Some(format!("{}…", &text[..end])),
        None => Some(text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::shown;

    #[test]
    fn values_are_short_texts() {
        let long = "停".repeat(301);
        for (value, text) in [
            (Value::Null, None),
            (json!("a"), Some("a".to_owned())),
            (json!(["a", "b"]), Some("a, b".to_owned())),
            (json!([1, "b"]), Some("[1,\"b\"]".to_owned())),
            (json!({"n": 1}), Some("{\"n\":1}".to_owned())),
            (json!(long), Some(format!("{}…", "停".repeat(300)))),
        ] {
            assert_eq!(shown(&value), text);
        }
    }
}
