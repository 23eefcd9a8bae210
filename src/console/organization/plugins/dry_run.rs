//! Asks a version without effect: about recorded decisions, or about one made-up request.

use maud::{Markup, html};
use serde_json::{Map, Value, json};

use super::{address, each, exports, is_shown, text, upload};
use crate::console::client::{encoded, op};
use crate::console::components::{
    Area, Column, Field, Kind, Picker, Row, Select, Text, Tone, actions, badge, button_named, card, empty, facts,
    field, notice, picker_input, select_input, table, text_field, textarea_input, time,
};
use crate::console::i18n::plugins::DryRun;
use crate::console::i18n::{fields, fill};
use crate::console::list::grouped;
use crate::console::organization::why::sentence;
use crate::console::people::{self, Named};
use crate::console::visit::{Content, View, Visit};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::Timestamp;
use crate::kernel::units::shown_bytes;

/// How many decisions can be asked about.
const MOST: [&str; 4] = ["100", "500", "1000", "2000"];
const MOST_DEFAULT: &str = "1000";
const HOUR_MS: i64 = 3_600_000;

/// Shows the forms.
pub async fn show(visit: &Visit) -> Result<View> {
    Ok(page(visit, html! {}, &Value::Null, None).await?.into())
}

/// Asks.
pub async fn act(visit: &Visit) -> Result<View> {
    let name = visit.path("name");
    let body = match visit.submitted("act") {
        Some("past") => Ok(past_body(visit)),
        Some("one") => one_body(visit).await,
        _ => return Err(ErrorCode::BadInput.into()),
    };
    let asked = match body {
        Ok(body) => visit.call(op("dry_run_plugin").at(name).body(&body)).await,
        Err(error) => Err(error),
    };
    match asked {
        Ok(answer) => {
            let data = &answer.data;
            let (shown, replayed) = if data["replay"].is_object() {
                (replayed(visit, data), &data["version"])
            } else {
                (answered(visit, data), &Value::Null)
            };
            Ok(page(visit, shown, replayed, None).await?.into())
        }
        Err(error) if is_shown(&error) => Ok(page(visit, html! {}, &Value::Null, Some(&error)).await?.into()),
        Err(error) => Err(error),
    }
}

fn version(visit: &Visit) -> Option<&str> {
    visit.submitted("version").or_else(|| visit.query("version"))
}

fn number(text: &str) -> Value {
    text.trim().parse::<u64>().map_or_else(|_| json!(text), |number| json!(number))
}

fn with_version(visit: &Visit, mut body: Value) -> Value {
    if let Some(version) = version(visit) {
        body["version"] = number(version);
    }
    body
}

fn past_body(visit: &Visit) -> Value {
    let mut recorded = json!({"limit": number(visit.submitted("limit").unwrap_or(MOST_DEFAULT))});
    let hours = match visit.submitted("since") {
        Some("hour") => Some(1),
        Some("day") => Some(24),
        Some("week") => Some(7 * 24),
        _ => None,
    };
    if let Some(hours) = hours {
        recorded["from"] = json!(Timestamp::now().0 - hours * HOUR_MS);
    }
    with_version(visit, json!({"recorded": recorded}))
}

/// The request that the fields make up: of a role mapper if they name a source, else of an authorizer.
async fn one_body(visit: &Visit) -> Result<Value> {
    let sent = |name: &str| visit.submitted(name).unwrap_or_default().trim();
    let lines =
        |name: &str| -> Vec<&str> { sent(name).lines().map(str::trim).filter(|line| !line.is_empty()).collect() };
    let pairs = |name: &str| -> Map<String, Value> {
        let mut pairs: Map<String, Value> = Map::new();
        for line in lines(name) {
            let (name, value) = line.split_once('=').map_or((line, ""), |(name, value)| (name.trim(), value.trim()));
            let values = pairs.entry(name).or_insert_with(|| json!([]));
            values.as_array_mut().into_iter().for_each(|all| all.push(json!(value)));
        }
        pairs
    };
    let mut input = if visit.submitted("source").is_some() {
        json!({"source": sent("source"), "groups": lines("groups"), "claims": pairs("claims")})
    } else {
        json!({"action": sent("action"), "path": sent("path"), "roles": lines("roles"), "context": pairs("facts")})
    };
    if !sent("member").is_empty() {
        input["subject"] = match people::named(visit, sent("member")).await? {
            Named::One(uid) => json!(uid),
            other => return Err(Error::field("member", other.fault(visit).unwrap_or_default())),
        };
    }
    Ok(with_version(visit, json!({"input": input})))
}

/// `replayed` is the version that was asked about past decisions, or null.
async fn page(visit: &Visit, result: Markup, replayed: &Value, error: Option<&Error>) -> Result<Content> {
    let t = DryRun::of(visit.language);
    let name = visit.path("name");
    let plugin = visit.call(op("get_plugin").at(name)).await?.data;
    let chosen =
        version(visit).and_then(|text| text.parse().ok()).and_then(|number| super::version_of(&plugin, number));
    let chosen = chosen.or_else(|| default_version(&plugin)).unwrap_or(&Value::Null);
    let href = visit.href(&address(visit, &encoded(name)));
    let body = html! {
        p { a href=(href) { (name) } " · " (t.about) }
        @if let Some(error) = error { (upload::refusal(visit, error, name)) }
        (result)
        @if !replayed.is_null() && visit.may("activate_plugin") {
            (actions(upload::quick(visit, &href, replayed, &plugin)))
        }
        (past_form(visit, t, &plugin, chosen))
        (one_form(visit, t, &plugin, chosen))
    };
    let content = Content::new(fill(t.title, &[&name]), body);
    Ok(match error {
        Some(error) => content.status_of(error),
        None => content,
    })
}

/// As the operation chooses it: the enforced version, the watched one, the newest.
fn default_version(plugin: &Value) -> Option<&Value> {
    let active = each(plugin, "activations").first().and_then(|one| one["version"].as_u64());
    active.and_then(|number| super::version_of(plugin, number)).or_else(|| each(plugin, "versions").last())
}

fn version_field(t: &DryRun, id: &str, plugin: &Value, chosen: &Value) -> Markup {
    let numbers: Vec<String> = each(plugin, "versions").iter().rev().map(|one| one["version"].to_string()).collect();
    let texts: Vec<String> = numbers.iter().map(|number| format!("v{number}")).collect();
    let options: Vec<(&str, &str)> = numbers.iter().map(String::as_str).zip(texts.iter().map(String::as_str)).collect();
    let about = Field::new(id, t.version);
    let chosen = chosen["version"].to_string();
    field(
        &about,
        select_input(&about, &Select { name: "version", options: &options, chosen: &chosen, is_required: true }),
    )
}

/// The form about recorded decisions.
fn past_form(visit: &Visit, t: &DryRun, plugin: &Value, chosen: &Value) -> Markup {
    if !exports(chosen, "authorizer") {
        return card(t.past, html! { p { (t.only_authorizer) } });
    }
    if !visit.may("list_decisions") {
        return card(t.past, html! { p { (t.needs_log) } });
    }
    let most: Vec<(&str, &str)> = MOST.iter().map(|most| (*most, *most)).collect();
    let since = [("", t.any_time), ("hour", t.hour), ("day", t.day), ("week", t.week)];
    let (about_most, about_since) = (Field::new("limit", t.most), Field::new("since", t.since));
    let most = Select {
        name: "limit",
        options: &most,
        chosen: visit.submitted("limit").unwrap_or(MOST_DEFAULT),
        is_required: true,
    };
    let since = Select {
        name: "since",
        options: &since,
        chosen: visit.submitted("since").unwrap_or_default(),
        is_required: false,
    };
    let inner = html! {
        p { (t.past_about) }
        form method="post" action=(visit.here()) {
            div.row {
                (version_field(t, "version", plugin, chosen))
                (field(&about_since, select_input(&about_since, &since)))
                (field(&about_most, select_input(&about_most, &most)))
                (button_named("act", "past", t.ask, Kind::Main))
            }
        }
    };
    card(t.past, inner)
}

/// The form about one made-up request.
fn one_form(visit: &Visit, t: &DryRun, plugin: &Value, chosen: &Value) -> Markup {
    let value = |name| visit.submitted(name).unwrap_or_default();
    let line = |name: &'static str, label: &str, is_required: bool| {
        text_field(
            &Field::new(name, label),
            &Text { name, value: value(name), is_required, autocomplete: Some("off"), ..Text::default() },
        )
    };
    let lines = |name: &'static str, label: &str| {
        let about = Field::new(name, label);
        field(
            &about,
            textarea_input(&about, &Area { name, value: value(name), rows: 2, is_code: true, ..Area::default() }),
        )
    };
    let from = people::suggestions(visit, Some("member"));
    let who = Field::new("member", t.member).mark(visit.frame().optional);
    let picker = Picker { name: "member", value: value("member"), from: &from, is_required: false, placeholder: None };
    let inner = html! {
        form method="post" action=(visit.here()) {
            (version_field(t, "version-of-one", plugin, chosen))
            (field(&who, picker_input(&who, &picker)))
            @if exports(chosen, "authorizer") {
                p { (t.one_about) }
                div.row { (line("action", t.action, true)) (line("path", t.path, false)) }
                div.row { (lines("roles", t.roles)) (lines("facts", t.facts)) }
            } @else {
                (line("source", t.source, true))
                div.row { (lines("groups", t.groups)) (lines("claims", t.claims)) }
            }
            div.buttons { (button_named("act", "one", t.ask, Kind::Plain)) }
        }
    };
    card(t.one, inner)
}

// ── answers ──

/// What recorded decisions would have been, and the way on.
fn replayed(visit: &Visit, answer: &Value) -> Markup {
    let t = DryRun::of(visit.language);
    let replay = &answer["replay"];
    let number = |name: &str| replay[name].as_u64().unwrap_or_default();
    let [decisions, asked, changed] = ["decisions", "asked", "changed"].map(number);
    let changes = each(replay, "changes");
    let further = [(t.failed, "failed"), (t.left_out, "left_out"), (t.unreached, "unreached")];
    let [left_out, unreached] = ["left_out", "unreached"].map(number);
    let not_covered = decisions.saturating_sub(asked + left_out + unreached);
    html! {
        @if decisions == 0 { (empty(t.no_decisions, "", None)) }
        @else {
            @let tone = if changed == 0 { Tone::Ok } else { Tone::Warn };
            (notice(tone, &fill(t.result, &[&grouped(decisions), &grouped(asked), &grouped(changed)]), None))
            @if changed == 0 { p { (t.same) } }
            @if not_covered > 0 { p { (fill(t.not_covered, &[&grouped(not_covered)])) } }
        }
        @for (sentence, name) in further {
            @if number(name) > 0 { p { (fill(sentence, &[&grouped(number(name))])) } }
        }
        @if !changes.is_empty() { (changes_table(visit, t, changes)) }
        @if changed > changes.len() as u64 { p { (fill(t.first_only, &[&changes.len()])) } }
    }
}

fn changes_table(visit: &Visit, t: &DryRun, changes: &[Value]) -> Markup {
    let outcome = |is_allowed: bool, reason: &str| {
        let (tone, word) = if is_allowed { (Tone::Ok, "allow") } else { (Tone::Bad, "deny") };
        html! { (badge(tone, &fields::value(word, visit.language))) " " code title=(fill(sentence(reason, visit.language), &[&"…"])) { (reason) } }
    };
    let row = |one: &Value| {
        let uid = text(one, "uid");
        let (action, path) = (text(one, "action"), text(one, "path"));
        let question = match text(one, "kind") {
            "route" => Some(format!("method={}&path={}", encoded(action), encoded(path))),
            "permission" => Some(format!("permission={}", encoded(action))),
            _ => None,
        };
        let question = question.filter(|_| visit.may("check_permission"));
        Row {
            cells: vec![
                time(one["at"].as_i64().unwrap_or_default()),
                html! { a href=(visit.in_organization(&format!("members/{uid}"))) { (one["name"].as_str().unwrap_or(uid.get(..8).unwrap_or(uid))) } },
                html! { code { (action) " " (path) } },
                outcome(one["was_allow"] == true, text(one, "was_reason")),
                outcome(one["would_allow"] == true, text(one, "would_reason")),
                html! { (text(one, "said")) },
                html! { @if let Some(question) = question { a href=(visit.in_organization(&format!("why?uid={uid}&{question}"))) { (t.why) } } },
            ],
            ..Row::default()
        }
    };
    let columns = [
        Column::new(t.when),
        Column::new(t.who),
        Column::new(t.what),
        Column::new(t.was),
        Column::new(t.would),
        Column::new(t.said),
        Column::new(""),
    ];
    table(t.past, &columns, changes.iter().map(row).collect())
}

/// The answer to one made-up request.
fn answered(visit: &Visit, answer: &Value) -> Markup {
    let t = DryRun::of(visit.language);
    let roles: Vec<&str> = each(answer, "roles").iter().filter_map(Value::as_str).collect();
    let (tone, word) = match text(answer, "outcome") {
        "allow" => (Tone::Ok, fields::value("allow", visit.language)),
        "deny" => (Tone::Bad, fields::value("deny", visit.language)),
        "abstain" => (Tone::Plain, t.outcome_abstain.to_owned()),
        "roles" => (Tone::Ok, t.outcome_roles.to_owned()),
        _ => (Tone::Bad, t.outcome_failed.to_owned()),
    };
    let said = answer["reason"].as_str().map(str::to_owned).or_else(|| {
        let fault = &answer["fault"];
        fault.is_object().then(|| format!("{}: {}", text(fault, "kind"), text(fault, "message")))
    });
    let number = |name: &str| answer[name].as_u64().unwrap_or_default();
    let memory = shown_bytes(answer["memory_bytes"].as_i64().unwrap_or_default());
    let used = fill(t.used_text, &[&grouped(number("duration_us")), &grouped(number("fuel")), &memory]);
    let log = each(answer, "log");
    card(
        &fill(t.answer, &[&answer["version"]]),
        html! {
            p {
                (badge(tone, &word))
                @if answer["outcome"] == "roles" { " " (if roles.is_empty() { t.no_roles.to_owned() } else { roles.join(", ") }) }
                @if let Some(said) = said { " “" (said) "”" }
            }
            (facts(&[(t.used, html! { (used) })]))
            @if !log.is_empty() {
                h3 { (t.log) }
                ul { @for line in log { li { code { (text(line, "level")) } " " (text(line, "message")) } } }
            }
        },
    )
}
