//! The import of a catalog: a document is uploaded or pasted, its difference is shown, and exactly that is applied.
//!
//! **Invariant.** What is applied is what was shown: the form to apply has the digest of the document and the version of
//! the application's entries. If one of them differs, nothing is written and the new difference is shown.

use std::borrow::Cow;
use std::collections::HashMap;

use maud::{Markup, html};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{ADDRESS, page, text};
use crate::console::client::{Call, op};
use crate::console::components::{
    self, Column, Field, Kind, Row, Text, TextKind, Tone, actions, badge, button_named, checkbox, facts, field,
    file_input, hidden_input, notice, table, text_field, textarea_input,
};
use crate::console::form;
use crate::console::i18n::catalog::Catalog;
use crate::console::i18n::{Language, errors, fill};
use crate::console::list;
use crate::console::multipart::Upload;
use crate::console::visit::{Content, View, Visit, is_of_form};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::{secret, units};

/// The most bytes of a document that is pasted, or kept in the form to apply it. Encoded as a form it is up to three
/// times as long.
const TEXT_BYTES_MAX: u64 = 262_144;
/// The application of a document that names none.
const DEFAULT_APP: &str = "main";
/// The names of a kind of change that are shown.
const NAMES_MAX: usize = 100;
/// The digest of the document whose difference was shown.
const DIGEST: &str = "digest";
/// The options of an import that are text, in the order of the form.
const OPTIONS: [&str; 4] = ["prefix", "base", "multi_segment", "organizations"];

/// A number of bytes as people write it.
fn size(bytes: u64) -> String {
    units::shown_bytes(i64::try_from(bytes).unwrap_or(i64::MAX))
}

/// The same within the limit of forms of this site.
fn text_bytes_max(visit: &Visit) -> u64 {
    TEXT_BYTES_MAX.min(visit.config().body_bytes_max / 4)
}

// ── the document ──

/// The document that a form sent.
enum Document<'v> {
    File(&'v Upload),
    Text(&'v str),
}

impl<'v> Document<'v> {
    fn of(visit: &'v Visit) -> Option<Self> {
        match visit.file("file") {
            Some(file) => Some(Self::File(file)),
            None => visit.submitted("document").map(Self::Text),
        }
    }

    fn text(&self) -> Cow<'v, str> {
        match self {
            Self::File(file) => String::from_utf8_lossy(file.bytes()),
            Self::Text(text) => Cow::Borrowed(text),
        }
    }

    fn bytes_len(&self) -> u64 {
        match self {
            Self::File(file) => file.bytes().len() as u64,
            Self::Text(text) => text.len() as u64,
        }
    }

    /// A digest that does not depend on how browsers send line ends and the first line of a text area.
    fn digest(&self) -> String {
        let text = self.text().replace('\r', "");
        hex::encode(secret::hash(text.trim_start_matches('\n')))
    }

    /// The media type: JSON, or YAML.
    fn kind(&self) -> &'static str {
        let is_json = self.text().trim_start_matches('\u{feff}').trim_start().starts_with('{');
        if is_json { "application/json" } else { "application/yaml" }
    }

    /// The application that a catalog in Roster's own format names.
    fn app(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Named {
            app: Option<String>,
            openapi: Option<IgnoredAny>,
        }
        let named: Named = serde_json::from_str(&self.text()).ok()?;
        named.app.filter(|_| named.openapi.is_none())
    }
}

/// The application whose entries the document replaces.
fn app_of(visit: &Visit, document: &Document<'_>) -> String {
    let typed = visit.submitted("app").map(|app| app.trim().to_owned()).filter(|app| !app.is_empty());
    typed.or_else(|| document.app()).unwrap_or_else(|| DEFAULT_APP.to_owned())
}

fn call_of(visit: &Visit, app: &str, document: &Document<'_>) -> Call {
    let mut call = op("import_catalog").query("app", app);
    for name in OPTIONS {
        call = call.query_some(name, visit.submitted(name).map(str::trim));
    }
    if visit.submitted("closed") == Some("true") {
        call = call.query("closed", true);
    }
    match document {
        Document::File(file) => call.file(document.kind(), file),
        Document::Text(text) => call.bytes(document.kind(), text.as_bytes().to_vec()),
    }
}

// ── acts ──

pub(super) async fn act(visit: &Visit) -> Result<View> {
    let t = Catalog::of(visit.language);
    if let Some(error) = &visit.refused {
        return refused(visit, error).await;
    }
    let act = visit.submitted("act").unwrap_or_default();
    if !["preview", "apply", "change"].contains(&act) {
        return Err(ErrorCode::BadInput.into());
    }
    let Some(document) = Document::of(visit) else {
        return refused(visit, &Error::field("document", t.document_missing)).await;
    };
    if let Document::Text(text) = document
        && text.len() as u64 > text_bytes_max(visit)
    {
        let limit = size(text_bytes_max(visit));
        let long = Error::new(ErrorCode::TooLarge).with_message(fill(t.document_long, &[&limit]));
        return refused(visit, &long).await;
    }
    match act {
        "apply" => apply(visit, t, &document).await,
        "change" => Ok(page(visit, None).await?.into()),
        _ => preview(visit, t, &document, None).await,
    }
}

/// Shows the form again with the failure.
async fn refused(visit: &Visit, error: &Error) -> Result<View> {
    Ok(page(visit, Some(error)).await?.status_of(error).into())
}

/// Shows the difference. `warning` says why it is shown again, and with which status.
async fn preview(visit: &Visit, t: &Catalog, document: &Document<'_>, warning: Option<(&Error, &str)>) -> Result<View> {
    let app = app_of(visit, document);
    let result = async {
        // The version is read first, so that the difference is of no later version.
        let known = visit.call(op("get_permission_catalog").query("app", &app)).await?;
        let call = call_of(visit, &app, document).query("dry_run", true).if_match(known.etag.as_deref());
        Ok((known.etag.unwrap_or_default(), visit.call(call).await?))
    };
    match result.await {
        Ok((version, answer)) => {
            let shown = Shown { app: &app, document, version: &version };
            let body = html! {
                @if let Some((_, sentence)) = warning { (notice(Tone::Warn, sentence, None)) }
                (difference(visit, t, &shown, &answer.data))
            };
            let content = Content::new(t.preview_title, body);
            Ok(match warning {
                Some((error, _)) => content.status_of(error).into(),
                None => content.into(),
            })
        }
        Err(error) if is_of_form(&error) || error.code == ErrorCode::OrganizationNotFound => {
            refused(visit, &error).await
        }
        Err(error) => Err(error),
    }
}

async fn apply(visit: &Visit, t: &Catalog, document: &Document<'_>) -> Result<View> {
    let (version, app) = (visit.submitted(form::VERSION), app_of(visit, document));
    if version.is_none() || visit.submitted(DIGEST) != Some(document.digest().as_str()) {
        let error = ErrorCode::VersionStale.into();
        return preview(visit, t, document, Some((&error, t.another))).await;
    }
    let mut call = call_of(visit, &app, document).if_match(version);
    if visit.submitted("replace") == Some("true") {
        call = call.query("replace", true);
    }
    match visit.call(call).await {
        Ok(answer) => {
            let [added, changed, orphaned] = ["added", "changed", "orphaned"].map(|key| names(&answer.data, key).len());
            visit.done(ADDRESS, fill(t.imported, &[&added, &changed, &orphaned]))
        }
        Err(error) if error.code == ErrorCode::VersionStale => {
            preview(visit, t, document, Some((&error, t.stale))).await
        }
        // The checkbox of the difference was not set.
        Err(error) if error.code == ErrorCode::CatalogOfAnother => {
            let sentence = errors::sentence(&error, visit.language);
            preview(visit, t, document, Some((&error, &sentence))).await
        }
        Err(error) if is_of_form(&error) => refused(visit, &error).await,
        Err(error) => Err(error),
    }
}

// ── the forms ──

/// The two forms of a document: a file, or pasted text. They can stand on any page.
pub fn forms(visit: &Visit, error: Option<&Error>) -> Markup {
    let t = Catalog::of(visit.language);
    let config = visit.config();
    let action = visit.href(ADDRESS);
    let faults = error.map(|error| faults_of(visit, t, error)).unwrap_or_default();
    let (sizes, entries) = (size(config.catalog_bytes_max), list::grouped(config.catalog_entries_max));
    let file_hint = fill(t.file_hint, &[&sizes, &entries]);
    let text_hint = fill(t.document_hint, &[&size(text_bytes_max(visit))]);
    let is_text = visit.submitted("document").is_some();
    let (of_file, of_text) = if is_text { (&[][..], &faults[..]) } else { (&faults[..], &[][..]) };
    let file = Field::new("file", t.file).hint(&file_hint).faults(of_file);
    let document = Field::new("document", t.document).hint(&text_hint).faults(of_text);
    let area = components::Area {
        name: "document",
        value: visit.submitted("document").unwrap_or_default(),
        rows: 10,
        is_required: true,
        is_code: true,
        placeholder: Some("openapi: 3.0.3"),
        ..components::Area::default()
    };
    html! {
        p { (t.import_about) }
        @if let Some(error) = error.filter(|error| has_summary(error)) {
            (components::faults_summary(t.faulty, &listed(visit, t, error)))
        }
        form method="post" action=(action) enctype="multipart/form-data" {
            (field(&file, file_input(&file, "file", ".json,.yaml,.yml", true)))
            (options(visit, t, "file", !is_text))
            (actions(button_named("act", "preview", t.preview, Kind::Main)))
        }
        details open[is_text] {
            summary { (t.paste) }
            form method="post" action=(action) data-guard {
                (field(&document, textarea_input(&document, &area)))
                (options(visit, t, "text", is_text))
                (actions(button_named("act", "preview", t.preview, Kind::Main)))
            }
        }
    }
}

/// Whether the faults are of the document, and listed above its form.
fn has_summary(error: &Error) -> bool {
    error.fields.len() > 1 || (error.code != ErrorCode::BadInput && !error.fields.is_empty())
}

/// The sentences at the field of the document.
fn faults_of(visit: &Visit, t: &Catalog, error: &Error) -> Vec<String> {
    if error.fields.is_empty() || has_summary(error) {
        return vec![errors::sentence(error, visit.language)];
    }
    listed(visit, t, error).into_iter().map(|(_, text)| text).collect()
}

/// All faults of a document, each with its place in it.
fn listed(visit: &Visit, t: &Catalog, error: &Error) -> Vec<(String, String)> {
    let sentence = |field: &crate::kernel::error::Field| {
        let message = errors::field_message(&field.message, visit.language);
        let place = field.location.get(1..).unwrap_or_default().join(".");
        let is_own = place.is_empty() || place == "document";
        let text = if is_own { message } else { format!("{message} ({})", fill(t.at, &[&place])) };
        (String::new(), text)
    };
    error.fields.iter().map(sentence).collect()
}

/// The fields of an import beside the document. `form` makes their ids unique; only the form that was sent keeps its
/// values.
fn options(visit: &Visit, t: &Catalog, form: &str, is_sent: bool) -> Markup {
    let value = |name: &str| visit.submitted(name).filter(|_| is_sent).unwrap_or_default();
    let line = |name: &str, label: &str, hint: &str| {
        let id = format!("{form}-{name}");
        let text = Text { name, value: value(name), kind: TextKind::Text, maxlength: Some(2_000), ..Text::default() };
        text_field(&Field::new(&id, label).hint(hint), &text)
    };
    let is_open = is_sent && OPTIONS.iter().any(|name| !value(name).is_empty());
    html! {
        (line("app", t.app, t.app_hint))
        details open[is_open] {
            summary { (t.options) }
            (line("prefix", t.prefix, t.prefix_hint))
            (line("base", t.base, t.base_hint))
            (line("multi_segment", t.multi_segment, t.multi_segment_hint))
            (line("organizations", t.organizations, t.organizations_hint))
            (checkbox(&Field::new(&format!("{form}-closed"), t.closed), "closed", "true", value("closed") == "true"))
        }
    }
}

// ── the difference ──

/// What the difference was computed of.
struct Shown<'s> {
    app: &'s str,
    document: &'s Document<'s>,
    version: &'s str,
}

fn names(data: &Value, key: &str) -> Vec<String> {
    let name = |one: &Value| match (one["from"].as_str(), one["to"].as_str()) {
        (Some(from), Some(to)) => format!("{from} → {to}"),
        _ => one.as_str().unwrap_or_default().to_owned(),
    };
    data[key].as_array().into_iter().flatten().map(name).collect()
}

fn difference(visit: &Visit, t: &Catalog, shown: &Shown<'_>, data: &Value) -> Markup {
    let is_same = ["added", "changed", "renamed", "orphaned"].iter().all(|key| names(data, key).is_empty());
    let bytes = shown.document.bytes_len();
    let mut rows = vec![
        (t.app, html! { code { (shown.app) } }),
        (t.size, html! { (size(bytes)) }),
        (t.state, badge(Tone::Plain, t.nothing_written)),
    ];
    if data["organizations"].is_array() {
        rows.push((t.only_for, html! { (names(data, "organizations").join(", ")) }));
    }
    html! {
        (facts(&rows))
        @if names(data, "note_codes").iter().any(|code| code == EVERY_OWNER) {
            (notice(Tone::Warn, t.note_every_owner, None))
        }
        @if is_same { p { (t.no_difference) } }
        (part(t, data, "added", t.added))
        (part(t, data, "changed", t.changed))
        (part(t, data, "renamed", t.renamed))
        (part(t, data, "orphaned", t.orphaned))
        (skipped(visit, t, data))
        (notes(t, data))
        (losing(visit, t, data))
        (apply_form(visit, t, shown, data))
    }
}

/// The word of the consequence that matters most, which stands above the others.
const EVERY_OWNER: &str = "every_owner";

/// The other consequences. One that the console does not know is shown as the API writes it.
fn notes(t: &Catalog, data: &Value) -> Markup {
    let codes = names(data, "note_codes");
    let texts = names(data, "notes");
    let sentence = |n: usize| match codes.get(n).map(String::as_str) {
        Some("orphaned_kept") => Some(t.note_orphaned),
        Some("renamed_kept") => Some(t.note_renamed),
        Some("skipped_denied") => Some(t.note_skipped),
        _ => None,
    };
    let others: Vec<(usize, &String)> =
        texts.iter().enumerate().filter(|(n, _)| codes.get(*n).is_none_or(|code| code != EVERY_OWNER)).collect();
    html! {
        @if !others.is_empty() {
            h2 { (t.notes) }
            ul { @for (n, text) in others { li {
                @match sentence(n) { Some(known) => (known), None => span lang="en" { (text) } }
            } } }
        }
    }
}

fn part(t: &Catalog, data: &Value, key: &str, title: &str) -> Markup {
    let names = names(data, key);
    let all = data["requests"].as_array().map_or(&[][..], Vec::as_slice);
    let requests: HashMap<&str, &Value> = all.iter().map(|one| (text(one, "name"), one)).collect();
    let changes = data[key].as_array().map_or(&[][..], Vec::as_slice);
    let request = |change: &Value| requests.get(change["to"].as_str().or(change.as_str())?).copied();
    html! {
        @if !names.is_empty() {
            h2 { (title) " (" (names.len()) ")" }
            ul.plain.changes { @for (name, change) in names.iter().zip(changes).take(NAMES_MAX) { li {
                @match key {
                    "added" => ins { "+ " (name) },
                    "orphaned" => del { "− " (name) },
                    _ => (name),
                }
                @if let Some(request) = request(change) { " " (opened(request, key == "changed")) }
            } } }
            (further(t, names.len()))
        }
    }
}

/// What an entry opens, and what it opened before if that differs.
fn opened(request: &Value, is_changed: bool) -> Markup {
    let side =
        |methods: &str, path: &str| request[path].as_str().map(|path| format!("{} {path}", text(request, methods)));
    let former = side("former_http_methods", "former_http_path");
    let new = side("http_methods", "http_path");
    html! {
        @match (&former, &new) {
            (Some(former), Some(new)) if former != new => { code { (former) } " → " code { (new) } },
            (Some(former), None) if is_changed => { code { (former) } " → –" },
            (Some(one), _) | (None, Some(one)) => code { (one) },
            (None, None) => {},
        }
    }
}

fn further(t: &Catalog, count: usize) -> Markup {
    html! { @if count > NAMES_MAX { p { (fill(t.further, &[&(count - NAMES_MAX)])) } } }
}

/// Why an operation is left out, in the language of the page if the console knows the sentence.
fn reason_of(visit: &Visit, one: &Value) -> Markup {
    let reason = text(one, "reason");
    let shown = match visit.language {
        Language::English => reason.to_owned(),
        Language::Chinese => errors::field_message(reason, visit.language),
    };
    let lang = (shown == reason).then_some("en");
    html! { span lang=[lang] { (shown) } }
}

fn skipped(visit: &Visit, t: &Catalog, data: &Value) -> Markup {
    let all = data["skipped"].as_array().map_or(&[][..], Vec::as_slice);
    html! {
        @if !all.is_empty() {
            h2 { (t.skipped) " (" (all.len()) ")" }
            ul { @for one in all.iter().take(NAMES_MAX) { li {
                code { (text(one, "method")) " " (text(one, "path")) } ": " (reason_of(visit, one))
                @if let Some(line) = one["line"].as_u64() { " (" (fill(t.line, &[&line])) ")" }
            } } }
            (further(t, all.len()))
        }
    }
}

/// The roles that lose permissions, each with its members.
fn losing(visit: &Visit, t: &Catalog, data: &Value) -> Markup {
    let roles = data["losing_roles"].as_array().map_or(&[][..], Vec::as_slice);
    let total = data["losing_roles_total"].as_u64().unwrap_or_default();
    if roles.is_empty() {
        return html! { p { (t.nobody_loses) } };
    }
    let row = |role: &Value| {
        let (org_code, id) = (text(role, "org_code"), text(role, "role_id"));
        let (lost, count) = (names(role, "permissions"), role["count"].as_u64().unwrap_or_default());
        let more = count.saturating_sub(lost.len() as u64);
        Row {
            cells: vec![
                html! { a href=(visit.href(&format!("/console/o/{org_code}/roles/{id}"))) { (text(role, "key")) } },
                html! { (org_code) },
                html! { (list::grouped(role["members"].as_u64().unwrap_or_default())) },
                html! { code { (lost.join(", ")) } @if more > 0 { " " (fill(t.further, &[&more])) } },
            ],
            ..Row::default()
        }
    };
    let columns =
        [Column::new(t.role), Column::new(t.organization), Column::number(t.members), Column::new(t.permissions)];
    html! {
        h2 { (t.losing) " (" (total) ")" }
        p { (t.losing_about) }
        (table(t.losing, &columns, roles.iter().map(row).collect()))
        @if total > roles.len() as u64 { p { (fill(t.losing_more, &[&total])) } }
    }
}

/// The document whose entries are replaced.
fn replaced_of(t: &Catalog, replaced: &str) -> String {
    match replaced.strip_prefix("the OpenAPI document ") {
        Some(title) => fill(t.replaces_openapi, &[&title]),
        None if replaced.starts_with("a catalog in") => t.replaces_own.to_owned(),
        None => replaced.to_owned(),
    }
}

/// The form that applies the difference. A long document is not repeated in it, but chosen again.
fn apply_form(visit: &Visit, t: &Catalog, shown: &Shown<'_>, data: &Value) -> Markup {
    let document = shown.document;
    let is_kept = document.bytes_len() <= text_bytes_max(visit);
    let file = Field::new("file", t.file).hint(t.choose_again);
    let replaced = data["replaces"].as_str();
    let replace = Field::new("replace", t.replace);
    html! {
        form.card method="post" action=(visit.href(ADDRESS)) enctype=[(!is_kept).then_some("multipart/form-data")] {
            h2 { (t.apply) }
            p { (t.apply_about) }
            @if let Some(replaced) = replaced {
                (notice(Tone::Warn, &fill(t.replaces, &[&replaced_of(t, replaced)]), None))
                (checkbox(&replace, "replace", "true", false))
            }
            (hidden_input("app", shown.app))
            @for name in OPTIONS.into_iter().chain(["closed"]) {
                @if let Some(value) = visit.submitted(name) { (hidden_input(name, value)) }
            }
            (hidden_input(form::VERSION, shown.version))
            (hidden_input(DIGEST, &document.digest()))
            @if is_kept {
                @let around = Field::new("document", t.document);
                // Browsers drop a first line end.
                @let value = format!("\n{}", document.text().trim_start_matches(['\r', '\n']));
                details {
                    summary { (t.document) }
                    (field(&around, textarea_input(&around, &components::Area {
                        name: "document", value: &value, rows: 10, is_code: true, is_readonly: true,
                        ..components::Area::default()
                    })))
                }
            } @else {
                (field(&file, file_input(&file, "file", ".json,.yaml,.yml", true)))
            }
            (actions(html! {
                (button_named("act", "apply", t.apply, Kind::Main))
                @if is_kept { (button_named("act", "change", t.change, Kind::Plain)) }
            }))
        }
    }
}
