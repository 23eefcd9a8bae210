//! The audit log of an organization or of the site: by day, with the names of people and links to things, what changed,
//! and the state of the hash chain.

mod entries;
mod filters;
mod rows;

pub use entries::{actor, done, label, newest, outcome, target};
pub use rows::folded;

use std::collections::HashMap;

use chrono::DateTime;
use futures_util::future::join3;
use maud::{Markup, html};
use serde_json::{Value, json};

use super::client::op;
use super::components::{
    self, Column, Field, Icon, Kind, Picker, Select, Text, TextKind, Tone, facts, field, filter_bar, notice, region,
};
use super::i18n::{fields, fill, words};
use super::list;
use super::people;
use super::visit::{Content, View, Visit};
use crate::kernel::audit_log::Outcome;
use crate::kernel::error::{ErrorCode, Result};
use filters::{Acts, Filters};

words! {
    pub Words {
        title: "Audit log", "稽核紀錄";
        about: "Every change and every denied change, newest first. Entries of one request stand together.", "每一次變更與遭拒絕的變更，由新到舊。同一個請求的紀錄會合併顯示。";
        none: "Nothing was recorded", "沒有紀錄";
        none_text: "No entry fits these filters. Remove some of them.", "沒有符合篩選條件的紀錄，請減少條件。";
        none_here: "No entry fits in this part of the log. Go on with the older entries, or remove some filters.", "這一段紀錄中沒有符合的項目。請繼續查看較舊的紀錄，或減少條件。";
        no_action: "No action is called “{}”", "沒有名為「{}」的操作";
        no_action_text: "Type a part of what was done, such as “role”, or choose one of these:", "請輸入操作名稱的一部分，例如「角色」，或選擇下列操作：";
        show_all: "Show all", "顯示全部";
        who: "Who", "執行者";
        what: "What", "操作";
        target: "To what", "對象";
        action_hint: "Such as “role”", "例如「角色」";
        target_hint: "Name, e-mail or id", "名稱、電子郵件或編號";
        outcome: "Outcome", "結果";
        at: "Time", "時間";
        from: "From", "從";
        to: "Until", "到";
        organization: "Organization", "組織";
        day: "{} (UTC)", "{}（UTC）";
        changes: "What changed", "變更內容";
        property: "Property", "項目";
        before: "Before", "變更前";
        after: "After", "變更後";
        and_more: "and {} more of this request", "此請求的另外 {} 筆";
        repeated: "Repeats without an entry of their own: {}.", "未另外記錄的重複次數：{}。";
        of_request: "Request {} from {}", "請求 {}，來自 {}";
        export: "Export", "匯出";
        chain: "Hash chain", "雜湊鏈";
        chain_about: "Each entry holds the hash of the one before it, so that a changed or missing entry shows. Keep the last hash outside of Roster to notice a log that was cut off.", "每筆紀錄都包含前一筆的雜湊值，因此遭竄改或缺少的紀錄都會被發現。請將最後的雜湊值另存於 Roster 之外，才能發現遭截斷的紀錄。";
        verify: "Verify", "驗證";
        state: "State", "狀態";
        whole: "Whole up to entry {}", "到第 {} 筆為止完整無缺";
        broken: "Broken at entry {}", "在第 {} 筆中斷";
        unverified: "Not verified since the server started", "伺服器啟動後尚未驗證";
        last_entry: "Last entry", "最後一筆";
        last_hash: "Its hash", "其雜湊值";
        verified_hash: "Hash of the last valid entry", "最後一筆有效紀錄的雜湊值";
        verified_at: "Verified", "驗證時間";
        entries: "Valid entries", "有效紀錄數";
        banner: "The audit log is broken at entry {}: somebody changed or removed entries. Export it, compare it with a backup, and find out who has access to the files of this server.", "稽核紀錄在第 {} 筆中斷：有人竄改或移除了紀錄。請匯出紀錄、與備份比對，並查明誰能存取這台伺服器的檔案。";
        to_log: "To the audit log", "前往稽核紀錄";
        done: "The audit log was verified.", "已驗證稽核紀錄。";
    }
}

/// What the entries of a page need to be shown with names. Without it, roles have their keys, and targets no organization.
#[derive(Default)]
pub struct Known {
    /// The roles of the organization; null for who may not list them, and for the site.
    roles: Value,
    /// The codes of the organizations, by id.
    codes: HashMap<String, String>,
}

/// Shows the entries that fit the filters, or exports them.
pub async fn show(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let filters = Filters::of(visit).await?;
    if visit.query("export").is_some() {
        let place = visit.organization().map_or("site", |here| here.code.as_str());
        return visit.download(filters.on(op("export_audit")), &format!("audit-{place}.jsonl")).await;
    }
    let is_site = visit.organization().is_none();
    let beside = if is_site { op("list_organizations").query("limit", 200) } else { op("list_roles") };
    let reading = rows::read(visit, &filters, limit(visit));
    let (found, beside, head) = join3(reading, visit.find(beside), head(visit, is_site)).await;
    let ((entries, next), beside) = (found?, beside.unwrap_or_default());
    let organizations: Vec<(&str, &str, &str)> = list::items(&beside).iter().filter_map(organization).collect();
    let codes = organizations.iter().map(|(id, code, _)| ((*id).to_owned(), (*code).to_owned())).collect();
    let known = Known { roles: beside["roles"].clone(), codes };
    let requests = folded(&entries, usize::MAX).0;
    let shown = html! {
        @if requests.is_empty() { (nothing(visit, t, &filters, next.is_some())) }
        @else { (chosen(visit, &known, &filters, &entries)) (days(visit, t, &known, &requests)) }
        (list::newest_and_older(visit, t.title, &json!({"next": next})))
    };
    let body = html! {
        p { (t.about) }
        @if let Some(head) = &head { (head_card(visit, t, head)) }
        (bar(visit, t, &organizations, &filters))
        (region("entries", None, shown))
    };
    let content = Content::new(t.title, body);
    if !visit.may("export_audit") {
        return Ok(content.into());
    }
    let export = visit.with_query(&[("export", "1"), ("after", ""), ("limit", "")]);
    Ok(content.actions(components::link_button_of(&export, t.export, Kind::Plain, Some(Icon::Download))).into())
}

/// The number of entries on a page. Fewer than other lists have, since a row says more.
fn limit(visit: &Visit) -> u64 {
    if visit.query("limit").is_some() { list::limit(visit) } else { 20 }
}

/// The state of the hash chain, which concerns the site.
async fn head(visit: &Visit, is_site: bool) -> Option<Value> {
    if is_site { visit.find(op("get_audit_head")).await } else { None }
}

/// Id, code and name of an organization.
fn organization(one: &Value) -> Option<(&str, &str, &str)> {
    Some((one["id"].as_str()?, one["org_code"].as_str()?, one["name"].as_str()?))
}

/// Says why no entry is shown.
fn nothing(visit: &Visit, t: &Words, filters: &Filters, has_more: bool) -> Markup {
    if let (Some(Acts { text, codes }), false) = (&filters.acts, has_more)
        && codes.is_empty()
    {
        return no_action(visit, t, text);
    }
    let fault = filters.actor_faults.first().or(filters.target_faults.first());
    let text = match fault {
        Some(fault) => fault.as_str(),
        None if has_more => t.none_here,
        None => t.none_text,
    };
    let is_filtered = filters::NAMES.iter().any(|name| visit.query(name).is_some());
    let all = is_filtered.then(|| components::link_button(&visit.here(), t.show_all));
    components::empty(t.none, text, all)
}

/// Says that no action has this name, with actions that were perhaps meant.
fn no_action(visit: &Visit, t: &Words, text: &str) -> Markup {
    let meant = filters::meant(visit, text);
    let links = html! {
        @for label in &meant {
            (components::link_button(&visit.with_query(&[("action", label), ("after", ""), ("open", "")]), label))
        }
    };
    components::empty(&fill(t.no_action, &[&text]), t.no_action_text, Some(links))
}

/// What the filters stand for: the actions that contain the text, and the thing that has the id.
fn chosen(visit: &Visit, known: &Known, filters: &Filters, entries: &[Value]) -> Markup {
    let t = Words::of(visit.language);
    let labels = filters.acts.as_ref().map(|acts| acts.labels(visit)).unwrap_or_default();
    let is_id = visit.query("target").is_some_and(|text| uuid::Uuid::parse_str(text).is_ok());
    html! {
        @if labels.len() > 1 { p class="quiet" { (t.what) ": " (labels.join(" · ")) } }
        @if let (true, Some(entry)) = (is_id, entries.first().filter(|entry| entry["target_name"].is_string())) {
            p class="quiet" { (t.target) ": " (target(visit, known, entry)) }
        }
    }
}

/// The entries under the days on which they were made, one row for each request.
fn days(visit: &Visit, t: &Words, known: &Known, requests: &[Vec<&Value>]) -> Markup {
    let columns = [t.at, t.who, t.what, t.target, t.outcome].map(Column::new);
    let day = |request: &[&Value]| {
        let at = request[0]["at"].as_i64().and_then(DateTime::from_timestamp_millis);
        at.map(|at| at.format("%Y-%m-%d").to_string()).unwrap_or_default()
    };
    html! {
        @for of_day in requests.chunk_by(|one, other| day(one) == day(other)) {
            @let title = fill(t.day, &[&day(&of_day[0])]);
            @let rows = of_day.iter().map(|request| entries::row(visit, t, known, request));
            h2 { (title) }
            (components::table(&title, &columns, rows.collect()))
        }
    }
}

fn bar(visit: &Visit, t: &Words, organizations: &[(&str, &str, &str)], filters: &Filters) -> Markup {
    let frame = visit.frame();
    let value = |name: &str| visit.query(name).unwrap_or_default();
    let select = |name: &'static str, label: &str, mut options: Vec<(&str, &str)>| {
        options.insert(0, ("", frame.all));
        let about = Field::new(name, label);
        let select = Select { name, options: &options, chosen: value(name), is_required: false };
        field(&about, components::select_input(&about, &select))
    };
    let date = |name: &'static str, label: &str| {
        let about = Field::new(name, label);
        let text = Text { name, value: value(name), kind: TextKind::Date, ..Text::default() };
        field(&about, components::text_input(&about, &text))
    };
    let outcomes: Vec<(&str, String)> =
        Outcome::ALL.iter().map(|one| (one.as_str(), fields::value(one.as_str(), visit.language))).collect();
    let picker = |(name, label): (&'static str, &str), value: &str, kind, placeholder, faults: &[String]| {
        let (about, from) = (Field::new(name, label).faults(faults), people::suggestions(visit, kind));
        let picker = Picker { name, value, from: &from, is_required: false, placeholder: Some(placeholder) };
        field(&about, components::picker_input(&about, &picker))
    };
    // An action is shown by its words, which the field takes too.
    let action = filters.acts.as_ref().map(|acts| acts.shown(visit)).unwrap_or_default();
    filter_bar(
        &visit.here(),
        Some("entries"),
        html! {
            (people::field(visit, "actor", t.who, &filters.actor_faults))
            (picker(("action", t.what), &action, Some("action"), t.action_hint, &[]))
            (picker(("target", t.target), value("target"), None, t.target_hint, &filters.target_faults))
            @if !organizations.is_empty() {
                (select("organization", t.organization, organizations.iter().map(|(id, _, name)| (*id, *name)).collect()))
            }
            (select("outcome", t.outcome, outcomes.iter().map(|(name, text)| (*name, text.as_str())).collect()))
            (date("from", t.from))
            (date("to", t.to))
        },
        frame.filter,
    )
}

// ── the hash chain ──

fn head_card(visit: &Visit, t: &Words, head: &Value) -> Markup {
    let last = head["verification"].as_object().map(|_| &head["verification"]);
    let state = match last {
        None => html! { (components::badge(Tone::Plain, t.unverified)) },
        Some(found) => {
            html! { (verdict(t, found)) " " (components::time_ago(found["at"].as_i64().unwrap_or_default())) }
        }
    };
    let rows = [
        (t.state, state),
        (t.last_entry, html! { span class="num" { (list::grouped(head["last_entry"].as_u64().unwrap_or_default())) } }),
        (t.last_hash, hash(visit, &head["last_hash"])),
    ];
    components::card(
        t.chain,
        html! {
            p { (t.chain_about) }
            (facts(&rows))
            @if visit.may("verify_audit") {
                form method="post" action=(visit.here()) {
                    (components::actions(components::button_named("act", "verify", t.verify, Kind::Plain)))
                }
            }
        },
    )
}

/// Whether the chain was whole.
fn verdict(t: &Words, found: &Value) -> Markup {
    let entries = list::grouped(found["entries"].as_u64().unwrap_or_default());
    match found["broken_at"].as_u64() {
        Some(at) => components::badge(Tone::Bad, &fill(t.broken, &[&list::grouped(at)])),
        None => components::badge(Tone::Ok, &fill(t.whole, &[&entries])),
    }
}

fn hash(visit: &Visit, hash: &Value) -> Markup {
    let frame = visit.frame();
    match hash.as_str().filter(|hash| !hash.is_empty()) {
        Some(hash) => components::copyable(hash, frame.copy, frame.copied),
        None => html! { (frame.none) },
    }
}

/// Verifies the hash chain, and leads to the task that does it.
pub async fn act(visit: &Visit) -> Result<View> {
    if visit.submitted("act") != Some("verify") {
        return Err(ErrorCode::BadInput.into());
    }
    let started = visit.call(op("verify_audit").query("background", "true")).await?.data;
    match started["id"].as_str() {
        Some(id) => Ok(View::Redirect(format!("/console/me/tasks/{id}"), None)),
        None => visit.done(visit.address.clone(), Words::of(visit.language).done),
    }
}

/// The result of a verification, for the page of its task.
pub fn task_result(visit: &Visit, task: &Value) -> Markup {
    let (t, found) = (Words::of(visit.language), &task["result"]);
    let rows = [
        (t.state, verdict(t, found)),
        (t.entries, html! { span class="num" { (list::grouped(found["entries"].as_u64().unwrap_or_default())) } }),
        (t.verified_hash, hash(visit, &found["last_hash"])),
    ];
    html! {
        (facts(&rows))
        (components::actions(components::link_button(&visit.href("/console/site/audit"), t.to_log)))
    }
}

/// What every page of the site says while the chain is known to be broken, which the last verification found.
pub fn banner(visit: &Visit) -> Option<Markup> {
    let verified = visit.console.app.last_audit_verification()?;
    let at = verified.1.broken_at?;
    let t = Words::of(visit.language);
    Some(html! { (notice(Tone::Bad, &fill(t.banner, &[&at]), None)) })
}
