//! Plugins of an organization: the list, and what its pages share.

pub mod acts;
pub mod dry_run;
pub mod log;
pub mod show;
pub mod upload;

use maud::{Markup, html};
use serde_json::Value;

use super::roles::{each, text};
use crate::console::client::op;
use crate::console::components::{Column, Row, Tone, badge, card, copyable_block, empty, table, time_ago};
use crate::console::i18n::plugins::Plugins;
use crate::console::i18n::{Language, fields};
use crate::console::list;
use crate::console::visit::{Content, View, Visit};
use crate::kernel::error::{Error, ErrorCode, Result};

pub use upload::task_result;

pub async fn list(visit: &Visit) -> Result<View> {
    Ok(page(visit, None).await?.into())
}

/// Uploads a component.
pub async fn act(visit: &Visit) -> Result<View> {
    match upload::start(visit).await {
        Ok(view) => Ok(view),
        Err(error) if is_shown(&error) => Ok(page(visit, Some(&error)).await?.into()),
        Err(error) => Err(error),
    }
}

/// The list, with the refusal of an upload.
async fn page(visit: &Visit, error: Option<&Error>) -> Result<Content> {
    let t = Plugins::of(visit.language);
    let found = visit.call(list::paged(visit, op("list_plugins"))).await?.data;
    let rows: Vec<Row> = list::items(&found).iter().map(|one| row(visit, t, one)).collect();
    let is_empty = rows.is_empty();
    let body = html! {
        p { (t.about) }
        @if let Some(error) = error { (upload::refusal(visit, error, &upload::name_of(visit))) }
        @if is_empty { (nothing(visit, t)) }
        @else {
            (table(t.title, &columns(t), rows))
            (list::pager(visit, &found))
        }
        (upload::form(visit, None, error))
        p { a href=(visit.href("/manual/plugins")) { (t.learn) } }
    };
    let content = Content::new(t.title, body);
    Ok(match error {
        Some(error) => content.status_of(error),
        None => content,
    })
}

fn columns(t: &Plugins) -> [Column<'_>; 6] {
    [
        Column::new(t.name),
        Column::new(t.state),
        Column::new(t.in_force),
        Column::new(t.kind),
        Column::number(t.versions),
        Column::new(t.since),
    ]
}

fn row(visit: &Visit, t: &Plugins, one: &Value) -> Row {
    let enforced = one["enforced_version"].as_u64();
    let versions = [(enforced, "enforce"), (one["shadow_version"].as_u64(), "shadow")];
    let in_force = versions.iter().filter_map(|(version, mode)| Some((version.as_ref()?, *mode)));
    let in_force: Vec<String> =
        in_force.map(|(n, mode)| format!("v{n} {}", fields::value(mode, visit.language))).collect();
    Row {
        cells: vec![
            html! { (text(one, "name")) },
            html! {
                @if one["quarantined"] == true {
                    (badge(Tone::Bad, &fields::value("quarantined", visit.language)))
                    " " small { (if enforced.is_some() { t.now_denied } else { t.now_silent }) }
                } @else if let Some(mode) = one["mode"].as_str() {
                    (badge(tone_of(mode), &fields::value(mode, visit.language)))
                } @else { (badge(Tone::Plain, t.inactive)) }
            },
            html! { @if in_force.is_empty() { "–" } @else { (in_force.join(", ")) } },
            html! { (kinds(one, visit.language)) },
            html! { (one["versions"].as_u64().unwrap_or_default()) },
            html! { @if let Some(since) = one["since"].as_i64() { (time_ago(since)) } @else { "–" } },
        ],
        href: Some(visit.in_organization(&format!("plugins/{}", text(one, "name")))),
        ..Row::default()
    }
}

/// What a plugin is, and how to get the first one.
fn nothing(visit: &Visit, t: &Plugins) -> Markup {
    let frame = visit.frame();
    if !visit.may("upload_plugin") {
        return empty(t.empty_title, t.empty_readonly, None);
    }
    let examples = [
        ("business-hours", t.hours),
        ("ownership", t.ownership),
        ("embargo", t.embargo),
        ("group-mapper", t.groups),
        ("department-roles", t.department),
    ];
    html! {
        (empty(t.empty_title, t.empty_text, None))
        (copyable_block("roster plugin new --lang rust hours", frame.copy, frame.copied))
        (card("", html! {
            p { (t.examples) }
            ul { @for (name, about) in examples { li { code { "plugins/" (name) } " – " (about) } } }
        }))
    }
}

// ── what the pages share ──

/// The tone of a state of a version, or of a mode.
fn tone_of(state: &str) -> Tone {
    match state {
        "active" | "enforce" => Tone::Ok,
        "quarantined" => Tone::Bad,
        "compiled" => Tone::Warn,
        _ => Tone::Plain,
    }
}

/// What a plugin or version does.
fn kinds(one: &Value, language: Language) -> String {
    let kinds = each(one, "exports").iter().map(|export| kind(export.as_str().unwrap_or_default(), language));
    kinds.collect::<Vec<_>>().join(", ")
}

/// What an export does.
fn kind(export: &str, language: Language) -> &str {
    let t = Plugins::of(language);
    match export {
        "authorizer" => t.authorizer,
        "role-mapper" => t.role_mapper,
        other => other,
    }
}

fn exports(version: &Value, export: &str) -> bool {
    each(version, "exports").iter().any(|one| one == export)
}

/// Whether the error is shown on the page, above what the visitor can do about it.
fn is_shown(error: &Error) -> bool {
    matches!(error.code.status(), 400 | 409 | 412 | 413 | 422 | 429 | 503)
        || matches!(error.code, ErrorCode::OwnerNeeded | ErrorCode::NotHeld | ErrorCode::TooLarge)
}

/// The activation in this mode.
fn activation<'p>(plugin: &'p Value, mode: &str) -> Option<&'p Value> {
    each(plugin, "activations").iter().find(|one| one["mode"] == mode)
}

/// Whether this version acts in this mode. One in quarantine does not.
fn is_in_force(plugin: &Value, version: &Value, mode: &str) -> bool {
    activation(plugin, mode).is_some_and(|one| one["version"] == *version && one["quarantined"] != true)
}

fn version_of(plugin: &Value, number: u64) -> Option<&Value> {
    each(plugin, "versions").iter().find(|version| version["version"] == number)
}

/// The page of a plugin, without the public path.
fn address(visit: &Visit, name: &str) -> String {
    visit.of_organization(&format!("plugins/{name}"))
}
