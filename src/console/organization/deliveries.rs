//! The deliveries of events: what fails comes first, and can be delivered again, one or several at once. Also of the
//! whole site.

use std::collections::{HashMap, HashSet};

use futures_util::future::{OptionFuture, join, join4};
use maud::{Markup, html};
use serde_json::Value;

use super::parts;
use super::roles::names_of;
use crate::console::client::{Call, op};
use crate::console::components::{self, Column, Field, Row, Select, Tone};
use crate::console::i18n::connections::{failure_markup, is_without_address};
use crate::console::i18n::{Language, fields, fill, words};
use crate::console::list;
use crate::console::visit::{Content, View, Visit};
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::ids::Timestamp;
use crate::kernel::outbox::EventKind;

words! {
    Words {
        title: "Deliveries", "傳送紀錄";
        about: "Each event is sent to every webhook and system that wants it. What fails is tried again with growing waits, and given up after some days.", "每個事件都會傳送給需要它的 webhook 與系統。失敗時會以越來越長的間隔重試，數日後仍失敗則放棄。";
        failing: "Failing", "失敗中";
        others: "Others", "其他";
        more_dead: "All {} that were given up", "全部 {} 筆已放棄的傳送";
        event: "Event", "事件";
        to: "To", "對象";
        state: "State", "狀態";
        tried_again: "Failed, tried again", "失敗，會再重試";
        attempts: "Attempts", "嘗試次數";
        next: "next", "下次";
        when: "When", "時間";
        act: "Action", "操作";
        again: "Deliver again", "重新傳送";
        select: "Select {}", "選取「{}」";
        select_first: "Select at least one delivery first.", "請先選取至少一筆傳送。";
        one_again: "Queued: it is sent now.", "已排入佇列，立即傳送。";
        many_again: "Queued: {} deliveries are sent now.", "已排入佇列：立即傳送 {} 筆。";
        site_sees: "The administrators of the site see the cause.", "站台管理員可查看原因。";
        none: "No deliveries yet", "還沒有傳送紀錄";
        none_text: "Events are delivered to webhooks and connected systems. Make a webhook to receive them.", "事件會傳送給 webhook 與已連線的系統。請建立 webhook 來接收事件。";
        none_readonly: "Events are delivered to webhooks and connected systems.", "事件會傳送給 webhook 與已連線的系統。";
        to_webhooks: "Webhooks", "Webhook";
        none_fit: "No delivery fits", "沒有符合的傳送";
        none_fit_text: "Choose another filter, or show all.", "請更改篩選條件，或顯示全部。";
        show_all: "Show all", "顯示全部";
        every_webhook: "Every webhook", "所有 webhook";
        mail: "Mail", "郵件";
    }
}

/// The filters of the list, as the operation names them.
const FILTERS: [&str; 3] = ["state", "target", "kind"];
const STATES: [&str; 3] = ["pending", "delivered", "dead"];
/// The most failing deliveries of each state that stand above the others.
const FAILING_MAX: usize = 50;
/// How long the list asks again after somebody delivered again, and how often.
const WATCHED_MS: i64 = 20_000;
const POLL_MS: u32 = 1_500;

/// Shows the deliveries.
pub async fn list(visit: &Visit) -> Result<View> {
    Ok(page(visit, html! {}).await?.into())
}

/// Delivers again: the one whose button was pressed, or those that are selected.
pub async fn act(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let (act, ids) = parts::chosen(visit)?;
    if act != "retry" {
        return Err(ErrorCode::BadInput.into());
    }
    if ids.is_empty() {
        let above = components::notice(Tone::Bad, t.select_first, None);
        return Ok(page(visit, above).await?.status_of(&ErrorCode::BadInput.into()).into());
    }
    let outcomes = parts::perform(visit, &ids, |id| op("retry_delivery").at(id)).await?;
    match (outcomes.done.as_slice(), outcomes.refused.as_slice()) {
        ([_], []) => visit.done(parts::back(visit), t.one_again),
        (all, []) => visit.done(parts::back(visit), fill(t.many_again, &[&all.len()])),
        (done, refused) => {
            let content = page(visit, parts::refusals(visit, &outcomes)).await?;
            let error = refused.first().filter(|_| done.is_empty());
            Ok(match error {
                Some((_, error)) => content.status_of(error).into(),
                None => content.into(),
            })
        }
    }
}

/// The event in words.
fn event(delivery: &Value, language: Language) -> String {
    fields::value(text(delivery, "kind"), language)
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

/// Whether it failed and was not delivered since.
pub fn is_failing(delivery: &Value) -> bool {
    match text(delivery, "state") {
        "dead" => true,
        "pending" => delivery["attempts"].as_u64().unwrap_or_default() > 0,
        _ => false,
    }
}

/// Asks for those that are failing, of all that are pending or dead.
fn failing_call(state: &str, limit: usize) -> Call {
    let call = op("list_deliveries").query("state", state).query("limit", limit).query("offset", 0);
    // A pending one that was not tried yet only waits for its turn. A dead one was tried, or its webhook was paused.
    if state == "pending" { call.query("tried", true) } else { call }
}

/// The list below `above`, which tells what just happened.
async fn page(visit: &Visit, above: Markup) -> Result<Content> {
    let t = Words::of(visit.language);
    let mut call = list::paged(visit, op("list_deliveries"));
    for name in FILTERS {
        call = call.query_some(name, visit.query(name));
    }
    let is_filtered = FILTERS.iter().any(|name| visit.query(name).is_some());
    let is_first = !is_filtered && list::offset(visit) == 0;
    let of_state = |state| OptionFuture::from(is_first.then(|| visit.find(failing_call(state, FAILING_MAX))));
    let webhooks = visit.find(op("list_webhooks").query("limit", 200));
    let (found, dead, waiting, webhooks) =
        join4(visit.call(call), of_state("dead"), of_state("pending"), webhooks).await;
    let (found, dead, waiting) =
        (found?.data, dead.flatten().unwrap_or_default(), waiting.flatten().unwrap_or_default());
    let failing: Vec<&Value> = [&dead, &waiting].into_iter().flat_map(list::items).collect();
    let above_ids: HashSet<&str> = failing.iter().map(|one| text(one, "id")).collect();
    let others: Vec<&Value> = list::items(&found).iter().filter(|one| !above_ids.contains(text(one, "id"))).collect();
    let all: Vec<&Value> = failing.iter().chain(&others).copied().collect();
    let table = Table::load(visit, &all, webhooks.as_ref()).await;
    let total_dead = dead["total"].as_u64().unwrap_or_default();
    let shown = html! {
        @if !failing.is_empty() {
            h2 { (t.failing) }
            (table.of(t.failing, &failing))
            @if total_dead > FAILING_MAX as u64 {
                p { a href=(visit.with_query(&[("state", "dead")])) { (fill(t.more_dead, &[&total_dead])) } }
            }
        }
        @if all.is_empty() { (empty(visit, t, is_filtered || list::offset(visit) > 0)) }
        @else {
            @if !failing.is_empty() && !others.is_empty() { h2 { (t.others) } }
            @if !others.is_empty() { (table.of(t.title, &others)) }
            (table.bar(&visit.with_query(&[])))
            (list::pager(visit, &found))
        }
    };
    let body = html! {
        (above)
        p { (t.about) }
        (filters(visit, t, webhooks.as_ref()))
        (components::region("deliveries", is_awaited(&all).then_some(POLL_MS), shown))
    };
    Ok(Content::new(t.title, body))
}

/// Whether one was made due a moment ago, so that its end can be waited for.
fn is_awaited(deliveries: &[&Value]) -> bool {
    let now = Timestamp::now().0;
    deliveries.iter().any(|one| {
        let at = |key: &str| one[key].as_i64().unwrap_or(i64::MAX);
        one["state"] == "pending" && at("next_at") <= now && now.saturating_sub(at("updated_at")) < WATCHED_MS
    })
}

fn empty(visit: &Visit, t: &Words, is_filtered: bool) -> Markup {
    if is_filtered {
        let all = components::link_button(&visit.here(), t.show_all);
        return components::empty(t.none_fit, t.none_fit_text, Some(all));
    }
    if !visit.may("list_webhooks") {
        return components::empty(t.none, t.none_readonly, None);
    }
    let webhooks = components::link_button(&parts::href(visit, "webhooks"), t.to_webhooks);
    components::empty(t.none, t.none_text, Some(webhooks))
}

fn filters(visit: &Visit, t: &Words, webhooks: Option<&Value>) -> Markup {
    let (frame, language) = (visit.frame(), visit.language);
    let states = STATES.map(|state| (state, fields::value(state, language)));
    let kinds: Vec<(&str, String)> =
        EventKind::ALL.iter().map(|kind| (kind.as_str(), fields::value(kind.as_str(), language))).collect();
    let targets = ["webhook", "mail", "sftpgo", "wordpress"].map(|target| (target, target_text(t, target)));
    let webhooks: Vec<(&str, &str)> = webhooks
        .into_iter()
        .flat_map(list::items)
        .map(|webhook| (text(webhook, "id"), text(webhook, "name")))
        .collect();
    let select = |name: &str, label: &str, options: Vec<(&str, &str)>| {
        let chosen = visit.query(name).unwrap_or_default();
        let about = Field::new(name, label);
        let options: Vec<(&str, &str)> = std::iter::once(("", frame.all)).chain(options).collect();
        let select = Select { name, options: &options, chosen, is_required: false };
        components::field(&about, components::select_input(&about, &select))
    };
    let inner = html! {
        (select("state", t.state, states.iter().map(|(value, text)| (*value, text.as_str())).collect()))
        (select("target", t.to, targets.into_iter().chain(webhooks).collect()))
        (select("kind", t.event, kinds.iter().map(|(value, text)| (*value, text.as_str())).collect()))
        (list::kept(visit))
    };
    components::filter_bar(&visit.here(), Some("deliveries"), inner, frame.filter)
}

/// The system to which deliveries of this target go.
fn target_text<'t>(t: &'t Words, target: &'t str) -> &'t str {
    match target {
        "webhook" => t.every_webhook,
        "mail" => t.mail,
        "sftpgo" => "SFTPGo",
        "wordpress" => "WordPress",
        other => other,
    }
}

/// A table of deliveries, with the names that its rows need.
pub struct Table<'v> {
    visit: &'v Visit,
    webhooks: HashMap<String, String>,
    names: HashMap<String, String>,
    has_failing: bool,
}

impl<'v> Table<'v> {
    /// Asks for the names of the members of these deliveries. `webhooks` is an answer of `list_webhooks`.
    pub async fn load(visit: &'v Visit, deliveries: &[&Value], webhooks: Option<&Value>) -> Self {
        let mut uids: Vec<&str> = deliveries.iter().filter_map(|one| one["member_id"].as_str()).collect();
        uids.sort_unstable();
        uids.dedup();
        let names = names_of(visit, &uids).await;
        let webhooks = webhooks.into_iter().flat_map(list::items);
        let webhooks = webhooks.map(|one| (text(one, "id").to_owned(), text(one, "name").to_owned())).collect();
        Self { visit, webhooks, names, has_failing: deliveries.iter().any(|one| is_failing(one)) }
    }

    /// The table of some of them.
    pub fn of(&self, caption: &str, deliveries: &[&Value]) -> Markup {
        let t = Words::of(self.visit.language);
        let columns = [
            Column::new(t.event),
            Column::new(t.to),
            Column::new(t.state),
            Column::number(t.attempts),
            Column::new(t.when),
            Column::new(if self.can_retry() { t.act } else { "" }),
        ];
        let count = if self.can_retry() { columns.len() } else { columns.len() - 1 };
        components::table(caption, &columns[..count], deliveries.iter().map(|one| self.row(t, one)).collect())
    }

    /// The bar that delivers the selected ones again. It is needed also for the buttons of the rows.
    pub fn bar(&self, action: &str) -> Markup {
        if !self.can_retry() {
            return html! {};
        }
        let t = Words::of(self.visit.language);
        parts::bar(self.visit, action, components::button_named("act", "retry", t.again, components::Kind::Plain))
    }

    fn can_retry(&self) -> bool {
        self.has_failing && self.visit.may("retry_delivery")
    }

    fn row(&self, t: &Words, one: &Value) -> Row {
        let id = text(one, "id");
        let (at, attempts) = (one["at"].as_i64().unwrap_or_default(), one["attempts"].as_u64().unwrap_or_default());
        let next = one["next_at"].as_i64().filter(|_| attempts > 0);
        let mut cells = vec![
            self.event(one),
            self.target(t, one),
            self.state(t, one),
            html! { (attempts) @if let Some(next) = next { br; small { (t.next) " " (components::time_ago(next)) } } },
            components::time_ago(at),
        ];
        let is_offered = self.can_retry() && is_failing(one);
        if self.can_retry() {
            let button = is_offered.then(|| components::menu_act(parts::SELECTED, "retry", id, t.again));
            cells.push(html! { @if let Some(button) = button { (button) } });
        }
        let label = || fill(t.select, &[&event(one, self.visit.language)]);
        Row { cells, select: is_offered.then(|| parts::select(id, label())), ..Row::default() }
    }

    /// What happened, and to whom.
    fn event(&self, one: &Value) -> Markup {
        let uid = text(one, "member_id");
        html! {
            (event(one, self.visit.language))
            @if let Some(name) = self.names.get(uid) {
                " · "
                @if self.visit.organization().is_some() {
                    a href=(self.visit.in_organization(&format!("members/{uid}"))) { (name) }
                } @else { (name) }
            }
        }
    }

    fn target(&self, t: &Words, one: &Value) -> Markup {
        let target = text(one, "target");
        match one["webhook_id"].as_str() {
            Some(id) if self.visit.may("get_webhook") => {
                let name = self.webhooks.get(id).map_or("Webhook", String::as_str);
                html! { a href=(parts::href(self.visit, &format!("webhooks/{id}"))) { (name) } }
            }
            Some(_) => html! { "Webhook" },
            None => html! { (target_text(t, target)) },
        }
    }

    /// The state, and the last failure. An organization can do nothing about a system of the site, and is not told its
    /// address.
    fn state(&self, t: &Words, one: &Value) -> Markup {
        let state = text(one, "state");
        let badge = match state {
            "dead" => components::badge(Tone::Bad, &fields::value(state, self.visit.language)),
            "delivered" => components::badge(Tone::Ok, &fields::value(state, self.visit.language)),
            _ if is_failing(one) => components::badge(Tone::Warn, t.tried_again),
            _ => components::badge(Tone::Plain, &fields::value(state, self.visit.language)),
        };
        let is_of_site = self.visit.organization().is_some() && one["webhook_id"].is_null();
        html! {
            (badge)
            @if let Some(error) = one["last_error"].as_str() {
                @let is_shown = !is_of_site || is_without_address(error);
                @if is_shown { p { (failure_markup(error, self.visit.language)) } }
                @if is_of_site && (is_failing(one) || !is_shown) { p { (t.site_sees) } }
            }
        }
    }
}

/// How many deliveries of webhooks are failing, by webhook.
pub async fn count_failing(visit: &Visit) -> HashMap<String, usize> {
    let of = |state| visit.find(failing_call(state, 200).query("target", "webhook"));
    let (dead, waiting) = join(of("dead"), of("pending")).await;
    let mut counts = HashMap::new();
    for one in dead.iter().chain(&waiting).flat_map(list::items) {
        if let Some(id) = one["webhook_id"].as_str() {
            *counts.entry(id.to_owned()).or_default() += 1;
        }
    }
    counts
}
