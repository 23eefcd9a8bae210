//! One plugin: what is in force and how it does, its versions, and what can be done with them.

use std::collections::HashMap;

use futures_util::future::{join_all, join3};
use maud::{Markup, html};
use serde_json::{Value, json};

use super::acts::settings_form;
use super::{activation, address, each, exports, kind, kinds, log, text, tone_of, upload, version_of};
use crate::console::chart::Series;
use crate::console::client::{encoded, op};
use crate::console::components::{
    self, Column, Kind, Row, Tone, badge, button_named, card, copyable, facts, hidden_input, link_button,
    link_button_of, meter, notice, table, time, time_ago,
};
use crate::console::form;
use crate::console::i18n::plugins::{Plugin, PluginActs, Upload};
use crate::console::i18n::{fields, fill};
use crate::console::list::grouped;
use crate::console::organization::roles::name_of;
use crate::console::statistics;
use crate::console::visit::{Content, View, Visit};
use crate::kernel::error::{Error, Result};
use crate::kernel::units::shown_bytes;

/// The most versions that the page lists without being asked for all.
const LISTED_MAX: usize = 50;
/// The most uploaders whose names are fetched.
const NAMED_MAX: usize = 4;
/// The lines of the log on the page.
const LOG_LINES: u64 = 10;

pub async fn show(visit: &Visit) -> Result<View> {
    Ok(page(visit, None).await?.into())
}

/// A plugin with everything that its page shows.
pub(super) struct Shown<'s> {
    pub visit: &'s Visit,
    pub name: &'s str,
    pub plugin: Value,
    pub etag: Option<String>,
    pub error: Option<&'s Error>,
}

impl Shown<'_> {
    /// The address of the page, with the public path.
    pub fn href(&self) -> String {
        self.visit.href(&address(self.visit, &encoded(self.name)))
    }

    fn enforced(&self) -> Option<&Value> {
        activation(&self.plugin, "enforce")
    }

    /// The version that the page is about: the chosen one, else the one in force, else the newest.
    fn chosen(&self) -> Option<&Value> {
        let named = self.visit.query("version").or_else(|| self.visit.submitted(upload::NUMBER));
        let chosen = named.and_then(|text| text.parse().ok()).and_then(|number| version_of(&self.plugin, number));
        let in_force = || self.present().and_then(|one| version_of(&self.plugin, one["version"].as_u64()?));
        chosen.or_else(in_force).or_else(|| each(&self.plugin, "versions").last())
    }
}

/// The page, with the refusal of an act.
pub(super) async fn page(visit: &Visit, error: Option<&Error>) -> Result<Content> {
    let t = Plugin::of(visit.language);
    let name = visit.path("name");
    let log_call = op("get_plugin_log").at(name).query("limit", LOG_LINES);
    let days = op("get_statistics").query("by", "day").query("plugin", name);
    let (plugin, lines, days) =
        join3(visit.call(op("get_plugin").at(name)), visit.find(log_call), visit.find(days)).await;
    let plugin = plugin?;
    let shown = Shown { visit, name, plugin: plugin.data, etag: plugin.etag, error };
    let with_status = |content: Content| match error {
        Some(error) => content.status_of(error),
        None => content,
    };
    if let Some(confirm) = super::acts::confirm(&shown) {
        return Ok(with_status(Content::new(name, confirm)));
    }
    let names = uploaders(&shown).await;
    let body = html! {
        @if let Some(error) = error { (upload::refusal(visit, error, name)) }
        (quarantine(&shown))
        (in_force(&shown, t))
        @if let Some(days) = &days { (by_day(visit, t, days)) }
        @if let Some(version) = shown.chosen() { (chosen_version(&shown, t, version, &names)) }
        (versions(&shown, t, &names))
        (upload::form(visit, Some(name), None))
        @if let Some(lines) = &lines { (log::newest(visit, &shown.href(), lines)) }
        (ending(&shown, t))
    };
    Ok(with_status(Content::new(name, body).actions(main_acts(&shown, t))))
}

/// The names of the members who uploaded, as far as the visitor may see them.
async fn uploaders(shown: &Shown<'_>) -> HashMap<String, String> {
    let mut uids: Vec<&str> = each(&shown.plugin, "versions")
        .iter()
        .rev()
        .filter_map(|v| text(v, "uploaded_by").strip_prefix("member "))
        .collect();
    uids.dedup();
    uids.truncate(NAMED_MAX);
    let find = |uid: &str| shown.visit.find(op("get_user").at(uid));
    let found = join_all(uids.iter().map(|uid| find(uid))).await;
    let named = uids.iter().zip(found).filter_map(|(uid, user)| Some(((*uid).to_owned(), name_of(&user?).to_owned())));
    named.collect()
}

/// Asking past decisions, and rolling back.
fn main_acts(shown: &Shown<'_>, t: &Plugin) -> Markup {
    let visit = shown.visit;
    let former = each(&shown.plugin, "history").last().filter(|_| visit.may("roll_back_plugin"));
    let chosen = shown.chosen().filter(|_| visit.may("dry_run_plugin"));
    html! {
        @if let Some(version) = chosen {
            (link_button(&format!("{}/dry-run?version={}", shown.href(), version["version"]), t.ask_past))
        }
        @if let Some(former) = former {
            form method="post" action=(shown.href()) {
                (version_field(shown))
                (button_named("act", "roll_back", &fill(t.roll_back, &[&former["version"]]), Kind::Plain))
            }
        }
    }
}

/// The hidden ETag, so that nobody acts on a plugin that somebody else has changed.
pub(super) fn version_field(shown: &Shown<'_>) -> Markup {
    html! { @if let Some(etag) = &shown.etag { (hidden_input(form::VERSION, etag)) } }
}

/// What a quarantine means now, and what to do.
fn quarantine(shown: &Shown<'_>) -> Markup {
    let (visit, t) = (shown.visit, PluginActs::of(shown.visit.language));
    let ended = |one: &&Value| one["quarantined"] == true;
    html! {
        @for one in each(&shown.plugin, "activations").iter().filter(ended) {
            @let is_enforced = one["mode"] == "enforce";
            @let version = version_of(&shown.plugin, one["version"].as_u64().unwrap_or_default());
            @let decides = version.is_none_or(|version| exports(version, "authorizer"));
            @let (meaning, to_do) = match (is_enforced, decides) {
                (true, true) => (fill(t.quarantine_denies, &[&covered(visit, one)]), t.quarantine_do),
                (true, false) => (t.quarantine_roles.to_owned(), t.quarantine_do),
                (false, _) => (t.quarantine_shadow.to_owned(), t.quarantine_do_shadow),
            };
            (notice(Tone::Bad, &format!("{} {meaning} {to_do}", fill(t.quarantine, &[&one["version"]])), None))
        }
    }
}

/// What an activation covers, in words.
pub(super) fn covered(visit: &Visit, activation: &Value) -> String {
    let filter = &activation["filter"];
    let all = ["permissions", "routes", "modules"].into_iter().flat_map(|list| each(filter, list));
    let named: Vec<&str> = all.filter_map(Value::as_str).collect();
    if named.is_empty() { Plugin::of(visit.language).everything.to_owned() } else { named.join(", ") }
}

/// The active versions with their settings and figures.
fn in_force(shown: &Shown<'_>, t: &Plugin) -> Markup {
    let active = each(&shown.plugin, "activations");
    html! {
        @if active.is_empty() { p { (t.nothing) } }
        @for one in active { (one_in_force(shown, t, one)) }
    }
}

fn one_in_force(shown: &Shown<'_>, t: &Plugin, one: &Value) -> Markup {
    let visit = shown.visit;
    let mode = text(one, "mode");
    let version = version_of(&shown.plugin, one["version"].as_u64().unwrap_or_default()).unwrap_or(&Value::Null);
    let is_authorizer = exports(version, "authorizer");
    let state = if one["quarantined"] == true { "quarantined" } else { mode };
    let mut rows = vec![
        (t.mode, html! { (badge(tone_of(state), &fields::value(state, visit.language))) }),
        (visit_since(visit), html! { (time(one["since"].as_i64().unwrap_or_default())) }),
        (t.covers, html! { @if is_authorizer { (covered(visit, one)) } @else { (t.every_sync) } }),
    ];
    if one["may_grant"] == true {
        rows.push((t.may_grant, html! { (visit.frame().yes) }));
    }
    rows.push((
        t.deadline,
        html! {
            @match one["deadline_ms"].as_u64() { Some(ms) => { (fill(t.in_ms, &[&ms])) }, None => (t.by_settings) }
        },
    ));
    rows.extend(counts(visit, t, one));
    let title = format!("v{} · {}", one["version"], fields::value(mode, visit.language));
    card(&title, html! { (facts(&rows)) (limits(visit, t, one, version)) })
}

/// Denials and differences of the last days, if there are any.
fn by_day(visit: &Visit, t: &Plugin, days: &Value) -> Markup {
    let decisions = &days["decisions"];
    let of_plugins = each(decisions, "reasons")
        .iter()
        .filter(|one| one["allow"] == false && ["plugin_denied", "plugin_failed"].contains(&text(one, "reason")));
    let mut denied: Vec<u64> = Vec::new();
    for one in of_plugins {
        let counts = statistics::numbers(&one["counts"]);
        denied.resize(denied.len().max(counts.len()), 0);
        denied.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    let series: Vec<Series> =
        [(t.denied_by_plugins, denied), (t.differed, statistics::numbers(&decisions["differed"]))]
            .into_iter()
            .filter(|(_, values)| values.iter().any(|value| *value > 0))
            .map(|(name, values)| Series { name: name.to_owned(), values, href: None })
            .collect();
    if series.is_empty() {
        return html! {};
    }
    card(t.by_day, statistics::chart_of(visit, t.by_day, days, series))
}

fn visit_since(visit: &Visit) -> &'static str {
    crate::console::i18n::plugins::Plugins::of(visit.language).since
}

/// How often it answered what, and how often a watched version would have ended otherwise.
fn counts<'t>(visit: &Visit, t: &'t Plugin, one: &Value) -> Vec<(&'t str, Markup)> {
    let figures = &one["figures"];
    let none = serde_json::Map::new();
    let calls = figures["calls"].as_object().unwrap_or(&none);
    let mut rows = vec![(
        t.calls,
        html! {
            @if calls.is_empty() { span.quiet { (t.no_calls) } }
            @for (n, (outcome, count)) in calls.iter().enumerate() {
                @if n > 0 { ", " }
                (fields::value(outcome, visit.language)) " " span.num { (grouped(count.as_u64().unwrap_or_default())) }
            }
            @if let Some(slow) = figures["slow"].as_u64().filter(|slow| *slow > 0) { " · " (fill(t.slow, &[&grouped(slow), &in_ms(visit.config().plugin_fast_us)])) }
        },
    )];
    if one["mode"] == "shadow" {
        let differed = figures["differed"].as_u64().unwrap_or_default();
        rows.push((
            t.differed,
            html! {
                span.num { (grouped(differed)) }
                @if differed > 0 && visit.may("list_decisions") {
                    " " a href=(visit.in_organization("decisions?differed=true")) { (t.see_differed) }
                }
            },
        ));
    }
    rows
}

/// Microseconds in milliseconds.
fn in_ms(us: u64) -> String {
    format!("{}.{:02}", us / 1_000, us % 1_000 / 10)
}

/// How near its calls came to the limits.
fn limits(visit: &Visit, t: &Plugin, one: &Value, version: &Value) -> Markup {
    let figures = &one["figures"];
    if figures["calls"].as_object().is_none_or(serde_json::Map::is_empty) {
        return html! {};
    }
    let number = |name: &str| figures[name].as_u64().unwrap_or_default();
    let (ms, fuel, memory) = limits_of(visit, version);
    let ms = one["deadline_ms"].as_u64().unwrap_or(ms);
    let bytes = |bytes: u64| shown_bytes(i64::try_from(bytes).unwrap_or(i64::MAX));
    let time_text = fill(t.time_text, &[&in_ms(number("duration_us_max")), &ms, &in_ms(number("duration_us_mean"))]);
    let fuel_text = fill(t.fuel_text, &[&grouped(number("fuel_max")), &grouped(fuel), &grouped(number("fuel_mean"))]);
    let memory_text = fill(t.memory_text, &[&bytes(number("memory_bytes_max")), &bytes(memory)]);
    html! {
        h3 { (t.limits) }
        (facts(&[
            (t.time, meter(t.time, number("duration_us_max"), Some(ms.saturating_mul(1_000)), &time_text)),
            (t.fuel, meter(t.fuel, number("fuel_max"), Some(fuel), &fuel_text)),
            (t.memory, meter(t.memory, number("memory_bytes_max"), Some(memory), &memory_text)),
        ]))
    }
}

/// The limits of one call of a version: milliseconds, fuel, bytes of memory.
fn limits_of(visit: &Visit, version: &Value) -> (u64, u64, u64) {
    let c = visit.config();
    let (authorize, map_roles, memory) = if version["large"] == true {
        (
            (c.plugin_large_authorize_ms, c.plugin_large_authorize_fuel),
            (c.plugin_large_map_roles_ms, c.plugin_large_map_roles_fuel),
            c.plugin_large_memory_bytes,
        )
    } else {
        (
            (c.plugin_authorize_ms, c.plugin_authorize_fuel),
            (c.plugin_map_roles_ms, c.plugin_map_roles_fuel),
            c.plugin_memory_bytes,
        )
    };
    // The figures of a version that is both are of both kinds of calls.
    let (ms, fuel) = if exports(version, "role-mapper") { map_roles } else { authorize };
    (ms, fuel, memory)
}

/// One version, with what can be done with it.
fn chosen_version(shown: &Shown<'_>, t: &Plugin, version: &Value, names: &HashMap<String, String>) -> Markup {
    let (visit, frame) = (shown.visit, shown.visit.frame());
    let report = &version["report"];
    let failed = each(report, "vectors_failed");
    let state = text(version, "state");
    let tried = each(report, "dry_run").iter().map(|one| {
        let outcome = fields::value(text(one, "outcome"), visit.language);
        let failure = one["failure"].as_str().map(|failure| format!(" ({failure})")).unwrap_or_default();
        format!("{}: {outcome}{failure}", kind(text(one, "export"), visit.language))
    });
    let size = shown_bytes(version["size_bytes"].as_i64().unwrap_or_default());
    let rows = [
        (t.state, badge(tone_of(state), &fields::value(state, visit.language))),
        (t.kind, html! { (kinds(version, visit.language)) }),
        (t.digest, copyable(text(version, "sha256"), frame.copy, frame.copied)),
        (t.by, uploader(visit, version, names)),
        (t.when, time(version["created_at"].as_i64().unwrap_or_default())),
        (t.size, html! { (size) @if version["large"] == true { " · " (t.large) } }),
        (
            t.imports,
            html! { @for import in each(version, "imports") { code { (import.as_str().unwrap_or_default()) } " " } },
        ),
        (t.vectors, vectors(t, report)),
        (t.compiled_in, html! { (fill(t.in_ms, &[&report["compile_ms"].as_u64().unwrap_or_default()])) }),
        (t.tried, html! { (tried.collect::<Vec<_>>().join(", ")) }),
    ];
    let newest = &each(&shown.plugin, "versions").last().unwrap_or(&Value::Null)["version"];
    let inner = html! {
        @if newest != &version["version"] {
            p { (fill(t.newest, &[newest])) " " a href={ (shown.href()) "?version=" (newest) } { (t.show_newest) } }
        }
        @if !failed.is_empty() {
            (notice(Tone::Warn, &fill(Upload::of(visit.language).failed_vectors, &[&shown.name, &version["version"], &failed.len()]), None))
            (upload::failed_vectors(visit, failed))
        } @else if visit.may("activate_plugin") {
            (settings_form(shown, version))
        }
        (facts(&rows))
        @if visit.may("delete_plugin_version") && !is_needed(&shown.plugin, version) {
            @let address = format!("{}?version={}&confirm=version", shown.href(), version["version"]);
            (components::actions(link_button_of(&address, &fill(t.delete_version, &[&version["version"]]), Kind::Danger, None)))
        }
    };
    card(&fill(t.version_n, &[&version["version"]]), inner)
}

/// Whether a version is active or kept for a rollback, so that it cannot be deleted.
fn is_needed(plugin: &Value, version: &Value) -> bool {
    let all = each(plugin, "activations").iter().chain(each(plugin, "history"));
    all.into_iter().any(|one| one["version"] == version["version"])
}

fn vectors(t: &Plugin, report: &Value) -> Markup {
    let (passed, failed) =
        (report["vectors_passed"].as_u64().unwrap_or_default(), each(report, "vectors_failed").len() as u64);
    html! {
        @if passed + failed == 0 { span.quiet { (t.no_vectors) } }
        @else { (fill(t.vectors_of, &[&passed, &(passed + failed)])) }
    }
}

fn uploader(visit: &Visit, version: &Value, names: &HashMap<String, String>) -> Markup {
    let by = text(version, "uploaded_by");
    let Some(uid) = by.strip_prefix("member ") else { return html! { (by) } };
    let shown = names.get(uid).map_or(uid.get(..8).unwrap_or(uid), String::as_str);
    html! {
        @if visit.may("get_user") { a href=(visit.in_organization(&format!("members/{uid}"))) { (shown) } } @else { (shown) }
    }
}

/// All versions, the newest first.
fn versions(shown: &Shown<'_>, t: &Plugin, names: &HashMap<String, String>) -> Markup {
    let visit = shown.visit;
    let all = each(&shown.plugin, "versions");
    let most = if visit.query("all").is_some() { all.len() } else { LISTED_MAX };
    let row = |version: &Value| {
        let state = text(version, "state");
        let digest = text(version, "sha256");
        Row {
            cells: vec![
                html! { "v" (version["version"]) },
                badge(tone_of(state), &fields::value(state, visit.language)),
                html! { (kinds(version, visit.language)) },
                html! { code { (digest.get(..12).unwrap_or(digest)) } },
                uploader(visit, version, names),
                time_ago(version["created_at"].as_i64().unwrap_or_default()),
                vectors(t, &version["report"]),
            ],
            href: Some(format!("{}?version={}", shown.href(), version["version"])),
            ..Row::default()
        }
    };
    let columns = [
        Column::new(t.version),
        Column::new(t.state),
        Column::new(t.kind),
        Column::new(t.digest_short),
        Column::new(t.by),
        Column::new(t.when),
        Column::new(t.vectors_short),
    ];
    html! {
        h2 { (t.versions) }
        (table(t.versions, &columns, all.iter().rev().take(most).map(row).collect()))
        @if all.len() > most {
            p { (fill(t.older, &[&(all.len() - most)])) " " a href={ (shown.href()) "?all=1" } { (t.show_all) } }
        }
    }
}

/// Deactivating and deleting.
fn ending(shown: &Shown<'_>, t: &Plugin) -> Markup {
    let visit = shown.visit;
    let is_active = !each(&shown.plugin, "activations").is_empty();
    html! {
        div.actions {
            @if is_active && visit.may("deactivate_plugin") {
                form method="post" action=(shown.href()) {
                    (version_field(shown))
                    (button_named("act", "deactivate", t.deactivate, Kind::Plain))
                }
            }
            @if visit.may("delete_plugin") {
                @let title = fill(PluginActs::of(visit.language).delete_title, &[&shown.name]);
                (link_button_of(&format!("{}?confirm=delete", shown.href()), &title, Kind::Danger, None))
            }
        }
    }
}

/// The settings of an activation as the body of a new one. Without an activation it covers everything.
pub(super) fn settings_of(activation: Option<&Value>) -> Value {
    let filter = |list: &str| activation.map_or_else(|| json!([]), |one| one["filter"][list].clone());
    let mut body = json!({
        "may_grant": activation.is_some_and(|one| one["may_grant"] == true),
        "filter": {"permissions": filter("permissions"), "routes": filter("routes"), "modules": filter("modules")},
    });
    if let Some(ms) = activation.and_then(|one| one["deadline_ms"].as_u64()) {
        body["deadline_ms"] = json!(ms);
    }
    body
}

impl Shown<'_> {
    /// The activation whose settings a new one takes over: the enforced one, else the watched one.
    pub fn present(&self) -> Option<&Value> {
        self.enforced().or_else(|| activation(&self.plugin, "shadow"))
    }
}
