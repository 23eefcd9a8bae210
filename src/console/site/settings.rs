//! The settings in force, and acts on the server as a whole: policy, quotas, encryption key.

use maud::{Markup, html};
use serde_json::{Value, json};

use crate::console::client::op;
use crate::console::components::{
    self, Column, Confirm, Field, Kind, Row, Select, Tone, badge, button_named, card, facts, notice, table,
};
use crate::console::form;
use crate::console::i18n::settings::{Settings, meaning};
use crate::console::i18n::{fields, fill};
use crate::console::list;
use crate::console::visit::{Content, View, Visit};
use crate::kernel::error::{ErrorCode, Result};

/// The address of the page, without the public path.
const ADDRESS: &str = "/console/site/settings";

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

/// The part of the name before the first dot; empty for a setting of the server itself.
fn group_of(name: &str) -> &str {
    name.split_once('.').map_or("", |(group, _)| group)
}

fn is_changed(setting: &Value) -> bool {
    setting["value"] != setting["default"]
}

/// Shows the settings, one of them, or the page before the encryption key is rotated.
pub async fn list(visit: &Visit) -> Result<View> {
    let t = Settings::of(visit.language);
    let found = visit.call(op("list_settings")).await?.data;
    if visit.query("confirm") == Some("rotate") {
        return Ok(confirm_rotation(visit, t, &found).into());
    }
    let settings = list::items(&found);
    if let Some(name) = visit.query("name") {
        let setting = settings.iter().find(|one| text(one, "name") == name).ok_or(ErrorCode::NotFound)?;
        return Ok(Content::new(text(setting, "name"), one(visit, t, setting)).into());
    }
    let file = format!("{}/roster.toml", text(&found, "data_directory"));
    let body = html! {
        p { (t.about) }
        (facts(&[(t.file, html! { code { (file) } })]))
        (filters(visit, t, settings))
        (components::region("settings", None, html! {
            (matching(visit, t, settings))
        }))
        (providers(visit, t, &found))
        (maintenance(visit, t))
    };
    Ok(Content::new(t.title, body).into())
}

// ── the list ──

/// The groups in the order of the table, each with its number of settings.
fn groups(settings: &[Value]) -> Vec<(&str, usize)> {
    let mut groups: Vec<(&str, usize)> = Vec::new();
    for setting in settings {
        let group = group_of(text(setting, "name"));
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, count)) => *count += 1,
            None => groups.push((group, 1)),
        }
    }
    groups
}

/// The value of the group in the address: the settings of the server itself have no prefix.
const SERVER_GROUP: &str = "server";

fn group_key(group: &str) -> &str {
    if group.is_empty() { SERVER_GROUP } else { group }
}

fn group_title(t: &Settings, group: &str) -> String {
    if group.is_empty() { t.server.to_owned() } else { format!("{group}.*") }
}

fn filters(visit: &Visit, t: &Settings, settings: &[Value]) -> Markup {
    let frame = visit.frame();
    let groups = groups(settings);
    let titles: Vec<(&str, String)> = groups
        .iter()
        .map(|(group, count)| (group_key(group), format!("{} ({count})", group_title(t, group))))
        .collect();
    let options: Vec<(&str, &str)> =
        std::iter::once(("", frame.all)).chain(titles.iter().map(|(group, title)| (*group, title.as_str()))).collect();
    let group = Field::new("group", t.group);
    let chosen = visit.query("group").unwrap_or_default();
    let select = Select { name: "group", options: &options, chosen, is_required: false };
    let only = Field::new("changed", t.only_changed);
    components::filter_bar(
        &visit.here(),
        Some("settings"),
        html! {
            (components::search_field("q", visit.query("q").unwrap_or_default(), frame.search))
            (components::field(&group, components::select_input(&group, &select)))
            (components::checkbox(&only, "changed", "true", visit.query("changed") == Some("true")))
        },
        frame.filter,
    )
}

/// The settings that the address asks for. Without a filter: those that are changed, and all groups.
fn matching(visit: &Visit, t: &Settings, settings: &[Value]) -> Markup {
    let (query, group) = (visit.query("q").map(str::to_lowercase), visit.query("group"));
    let only_changed = visit.query("changed") == Some("true");
    let is_overview = query.is_none() && group.is_none();
    let changed = settings.iter().filter(|one| is_changed(one)).count();
    let fits = |setting: &&Value| {
        let (name, about) = (text(setting, "name"), text(setting, "description"));
        let has_text = |query: &String| {
            [name, about, meaning(name, about, visit.language)].iter().any(|text| text.to_lowercase().contains(query))
        };
        (is_changed(setting) || !(only_changed || is_overview))
            && group.is_none_or(|group| group_key(group_of(name)) == group)
            && query.as_ref().is_none_or(has_text)
    };
    let found: Vec<&Value> = settings.iter().filter(fits).collect();
    let all = components::link_button(&visit.here(), visit.frame().all);
    let (count, sentence) = if is_overview { (changed, t.changed_count) } else { (found.len(), t.found_count) };
    html! {
        p data-announce { (fill(sentence, &[&count, &settings.len()])) }
        @if found.is_empty() && is_overview { (components::empty(t.none_changed, t.none_changed_text, None)) }
        @else if found.is_empty() { (components::empty(t.none_found, t.none_found_text, Some(all))) }
        @else { (rows(visit, t, &found)) }
        @if is_overview {
            h2 { (t.groups) }
            ul {
                @for (group, count) in groups(settings) {
                    li { a href={ "?group=" (group_key(group)) } { (group_title(t, group)) } " (" (count) ")" }
                }
            }
        }
    }
}

fn rows(visit: &Visit, t: &Settings, settings: &[&Value]) -> Markup {
    let columns = [Column::new(t.name), Column::new(t.value), Column::new(t.source)];
    let row = |setting: &&Value| {
        let name = text(setting, "name");
        Row {
            cells: vec![
                html! { code { (breakable(name)) } },
                html! {
                    (value(t, setting))
                    br;
                    small { (meaning(name, text(setting, "description"), visit.language)) }
                },
                html! { (source(t, text(setting, "source"))) },
            ],
            href: Some(format!("?name={name}")),
            ..Row::default()
        }
    };
    table(t.title, &columns, settings.iter().map(row).collect())
}

/// The name of a setting, which breaks after its dots and low lines where it is narrow.
fn breakable(name: &str) -> Markup {
    html! {
        @for part in name.split_inclusive(['.', '_']) {
            (part)
            @if part.ends_with(['.', '_']) { wbr; }
        }
    }
}

/// A value as the settings file has it; a word for an empty text.
fn literal(t: &Settings, value: &str) -> Markup {
    html! { @if value == EMPTY { span class="quiet" { (t.empty) } } @else { code { (value) } } }
}

/// An empty text as the settings file has it.
const EMPTY: &str = "\"\"";

/// The value with its unit; of a secret, the path of its file and whether it is set.
fn value(t: &Settings, setting: &Value) -> Markup {
    let changed = is_changed(setting);
    let is_secret = setting["secret_is_set"].is_boolean();
    let shown = literal(t, text(setting, "value"));
    html! {
        @if text(setting, "value") == EMPTY && is_secret {} @else if changed { strong { (shown) } } @else { (shown) }
        @if let Some(size) = in_words(setting, "value") { " " span class="quiet" { (size) } }
        @if let Some(is_set) = setting["secret_is_set"].as_bool() {
            " " (if is_set { badge(Tone::Ok, t.secret_set) } else { badge(Tone::Plain, t.secret_missing) })
        }
    }
}

/// A number of bytes or seconds as people write it, unless that says no more.
fn in_words(setting: &Value, name: &str) -> Option<String> {
    let number: u64 = text(setting, name).parse().ok()?;
    let steps: &[(u64, &str)] = match setting["unit"].as_str()? {
        "bytes" => &[(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")],
        "seconds" => &[(86_400, "d"), (3_600, "h"), (60, "min")],
        "milliseconds" => &[(60_000, "min"), (1_000, "s")],
        _ => &[],
    };
    let (size, unit) = steps.iter().find(|(size, _)| number >= *size && number.is_multiple_of(*size))?;
    Some(format!("= {} {unit}", number / size))
}

fn source(t: &Settings, source: &str) -> &'static str {
    match source {
        "file" => t.source_file,
        "environment" => t.source_environment,
        "command_line" => t.source_command_line,
        _ => t.source_default,
    }
}

// ── one setting ──

/// Everything about one setting, and how to change it.
fn one(visit: &Visit, t: &Settings, setting: &Value) -> Markup {
    let (name, about) = (text(setting, "name"), text(setting, "description"));
    let frame = visit.frame();
    let mut rows = vec![
        (t.value, value(t, setting)),
        (t.default, literal(t, text(setting, "default"))),
        (t.source, html! { (source(t, text(setting, "source"))) }),
        (t.kind, html! { (kind(visit, setting)) }),
    ];
    if let (Some(least), Some(most)) = (setting["minimum"].as_u64(), setting["maximum"].as_u64()) {
        let range = fill(t.from_to, &[&list::grouped(least), &list::grouped(most)]);
        rows.push((t.bounds, html! { (range) }));
    }
    if let Some(unit) = setting["unit"].as_str() {
        rows.push((t.unit, html! { (fields::value(unit, visit.language)) }));
    }
    let restart = if setting["restart_required"] == true { t.restart_yes } else { t.restart_no };
    rows.push((t.restart, html! { (restart) }));
    let group = group_of(name);
    let anchor = if group.is_empty() { "the-server" } else { group };
    let manual = visit.href(&format!("/manual/reference/settings#{anchor}"));
    rows.push((t.manual, html! { a href=(manual) { (group_title(t, group)) } }));
    html! {
        p { (meaning(name, about, visit.language)) }
        (facts(&rows))
        h2 { (t.line) }
        (components::copyable(&format!("{name} = {}", text(setting, "value")), frame.copy, frame.copied))
        h2 { (t.variable) }
        (components::copyable(text(setting, "variable"), frame.copy, frame.copied))
        p { a href=(format!("{}?group={}", visit.here(), group_key(group))) { (frame.back) } }
    }
}

fn kind(visit: &Visit, setting: &Value) -> String {
    let kind = fields::value(text(setting, "type"), visit.language);
    let choices: Vec<&str> =
        setting["choices"].as_array().into_iter().flatten().filter_map(|choice| choice.as_str()).collect();
    if choices.is_empty() { kind } else { format!("{kind}: {}", choices.join(", ")) }
}

fn providers(visit: &Visit, t: &Settings, found: &Value) -> Markup {
    let all = found["providers"].as_array().map_or(&[][..], Vec::as_slice);
    if all.is_empty() || visit.query("q").is_some() || visit.query("group").is_some() {
        return html! {};
    }
    let columns = [Column::new(t.name), Column::new(t.issuer), Column::new(t.client), Column::new(t.secret)];
    let row = |provider: &Value| {
        let is_set = provider["secret_is_set"] == true;
        Row {
            cells: vec![
                html! { (text(provider, "name")) },
                html! { code { (text(provider, "issuer")) } },
                html! { code { (text(provider, "client_id")) } },
                html! {
                    (if is_set { badge(Tone::Ok, t.secret_set) } else { badge(Tone::Plain, t.secret_missing) })
                    " " code { (text(provider, "client_secret_file")) }
                },
            ],
            ..Row::default()
        }
    };
    card(t.providers, html! { p { (t.providers_about) } (table(t.providers, &columns, all.iter().map(row).collect())) })
}

// ── acts ──

fn maintenance(visit: &Visit, t: &Settings) -> Markup {
    let (may_reload, may_count) = (visit.may("reload_policy"), visit.may("recount_quotas"));
    let rotation = format!("{}?confirm=rotate", visit.here());
    html! {
        @if may_reload {
            (card(t.reload, html! {
                p { (t.reload_about) }
                form method="post" action=(visit.here()) { (button_named("act", "reload", t.reload, Kind::Plain)) }
            }))
        }
        @if may_count {
            (card(t.recount, html! {
                p { (t.recount_about) }
                form method="post" action=(visit.here()) {
                    (components::actions(html! {
                        (button_named("act", "count", t.count, Kind::Plain))
                        (button_named("act", "repair", t.repair, Kind::Plain))
                    }))
                }
            }))
        }
        @if visit.may("rotate_encryption_key") {
            (card(t.rotate_encryption, html! {
                p { (t.rotate_encryption_about) }
                (components::actions(components::link_button(&rotation, t.rotate_encryption)))
            }))
        }
    }
}

fn confirm_rotation(visit: &Visit, t: &Settings, found: &Value) -> Content {
    let settings = list::items(found);
    let set = settings.iter().find(|one| text(one, "name") == "encryption_key_file");
    let set: Option<String> = set.and_then(|one| serde_json::from_str(text(one, "value")).ok());
    let file = set
        .filter(|path: &String| !path.is_empty())
        .unwrap_or_else(|| format!("{}/encryption.key", text(found, "data_directory")));
    let sentences = [
        fill(t.rotate_encryption_first, &[&file]),
        t.rotate_encryption_backups.to_owned(),
        t.rotate_encryption_others.to_owned(),
    ];
    let body = components::confirm_box(&Confirm {
        title: t.rotate_encryption,
        action: &visit.here(),
        what_goes: &sentences,
        typed: None,
        sent: Some(components::hidden_input("act", "rotate_encryption_key")),
        submit: t.rotate_encryption,
        cancel: visit.frame().cancel,
        cancel_href: &visit.here(),
    });
    Content::new(t.rotate_encryption, body)
}

pub async fn act(visit: &Visit) -> Result<View> {
    let t = Settings::of(visit.language);
    match visit.submitted("act") {
        Some("reload") => {
            let answer = visit.call(op("reload_policy").body(&json!({}))).await?.data;
            visit.done(ADDRESS, if answer["changed"] == true { t.reloaded } else { t.reloaded_same })
        }
        Some(act @ ("count" | "repair")) => {
            let call = op("recount_quotas").query("background", "true").body(&json!({"repair": act == "repair"}));
            let task = visit.call(call.once(visit.submitted(form::ONCE))).await?.data;
            Ok(View::Redirect(format!("/console/me/tasks/{}", text(&task, "id")), None))
        }
        Some("rotate_encryption_key") => {
            let key = visit.call(op("rotate_encryption_key")).await?.data;
            visit.done(ADDRESS, fill(t.encryption_rotated, &[&text(&key, "id")]))
        }
        _ => Err(ErrorCode::BadInput.into()),
    }
}

/// What a recount found, for the page of its task.
pub fn task_result(visit: &Visit, task: &Value) -> Markup {
    let t = Settings::of(visit.language);
    let result = &task["result"];
    let number = |name: &str| result[name].as_u64().unwrap_or_default();
    let drift = number("drift");
    let (tone, sentence) = match (drift, result["repaired"] == true) {
        (0, _) => (Tone::Ok, t.accounts_same.to_owned()),
        (_, true) => (Tone::Ok, fill(t.accounts_repaired, &[&drift])),
        (_, false) => (Tone::Warn, fill(t.accounts_differ, &[&drift])),
    };
    let counts = ["members", "organizations", "videos"].map(|name| list::grouped(number(name)));
    let counted = fill(t.counted_what, &[&counts[0], &counts[1], &counts[2]]);
    html! {
        (notice(tone, &sentence, None))
        (facts(&[(t.counted, html! { (counted) })]))
        @if drift > 0 { (differences(visit, t, list::items(result))) }
        @if drift > 0 && result["repaired"] != true && visit.may("recount_quotas") {
            form method="post" action=(visit.href(ADDRESS)) { (button_named("act", "repair", t.repair, Kind::Main)) }
        }
    }
}

fn differences(visit: &Visit, t: &Settings, items: &[Value]) -> Markup {
    let columns =
        [Column::new(t.account), Column::number(t.used), Column::number(t.by_ledger), Column::number(t.by_videos)];
    let bytes = |one: &Value, name: &str| list::grouped(one[name].as_i64().unwrap_or_default().unsigned_abs());
    let row = |one: &Value| Row {
        cells: vec![
            html! {
                @match one["id"].as_str() {
                    Some(id) => { (fields::value(text(one, "of"), visit.language)) " " code { (id) } }
                    None => (t.of_site),
                }
            },
            html! { (bytes(one, "used")) },
            html! { (bytes(one, "ledger")) },
            html! { (bytes(one, "videos")) },
        ],
        ..Row::default()
    };
    table(t.recount, &columns, items.iter().map(row).collect())
}
