//! The webhooks of an organization, or of the site: the list, and the form that makes one.

pub mod detail;

use std::collections::HashMap;

use futures_util::future::join;
use maud::{Markup, html};
use serde_json::Value;

use super::deliveries::count_failing;
use super::members::is_shown_in_form;
use super::parts;
use crate::console::client::op;
use crate::console::components::{self, Choice, Column, Field, Icon, Kind, Row, Tone};
use crate::console::form::{self, Form};
use crate::console::i18n::{Language, events, fields, fill, words};
use crate::console::list;
use crate::console::visit::{Content, View, Visit, host_of};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::outbox::EventKind;

words! {
    pub Words {
        title: "Webhooks", "Webhook";
        about: "A webhook is an address of another program that is told of events as they happen, by signed requests.", "Webhook 是其他程式的網址，事件發生時會以簽章的請求通知它。";
        about_site: "Webhooks of the site are told of the events of all organizations. Those of organizations are listed too.", "站台的 webhook 會收到所有組織的事件；各組織的 webhook 也列在這裡。";
        new: "New webhook", "新增 webhook";
        create: "Create webhook", "建立 webhook";
        name: "Name", "名稱";
        to: "To", "對象";
        events: "Events", "事件";
        every_event: "Everything", "全部";
        every_event_about: "Every kind of event, also those that later versions add.", "所有種類的事件，包含未來版本新增的種類。";
        several: "{} and {} more", "{}，另有 {} 種";
        state: "State", "狀態";
        failing: "{} failing", "{} 筆失敗";
        created: "Created", "建立時間";
        none: "No webhooks yet", "還沒有 webhook";
        none_text: "With n8n it takes three steps:", "以 n8n 為例，只需三個步驟：";
        none_readonly: "No other program is told of events.", "目前沒有通知任何程式。";
        n8n_1: "In n8n, add a Webhook node with the method POST, activate the workflow, and copy its production URL.", "在 n8n 加入 Webhook 節點，方法選 POST，啟用工作流程，並複製 Production URL。";
        n8n_2: "Paste it below as the URL, and choose the events.", "貼到下方的網址欄位，並選擇事件。";
        n8n_3: "Send a test, and keep the secret in n8n, so that the workflow can check the header X-Roster-Signature.", "傳送測試，並將密鑰存入 n8n，讓工作流程能檢查標頭 X-Roster-Signature。";
        ready: "The webhook is ready", "Webhook 已建立";
        once: "Copy the secret now: it is shown only this once. The receiver checks with it that requests come from here.", "請立即複製密鑰，它只會顯示這一次。接收端用它確認請求確實來自這裡。";
        key_id: "Id of the secret", "密鑰編號";
        open: "Open the webhook and send a test", "開啟 webhook 並傳送測試";
        sent_already: "This form was sent already: the secret was shown once. Rotate the secret of the webhook to get another.", "這份表單已送出過，密鑰只會顯示一次。如需新的密鑰，請輪替該 webhook 的密鑰。";
    }
}

/// The kind that stands for every event.
const EVERY_KIND: &str = "*";

/// What the page shows above the list.
enum Above<'e> {
    /// The form, if it is wanted, after a refused one with its error.
    Form(Option<&'e Error>),
    /// What became of the form.
    Result(Markup),
}

/// Shows the webhooks, and with `new` in the query the form.
pub async fn list(visit: &Visit) -> Result<View> {
    Ok(page(visit, Above::Form(None)).await?.into())
}

async fn page(visit: &Visit, above: Above<'_>) -> Result<Content> {
    let t = Words::of(visit.language);
    let (found, failing) = join(visit.call(list::paged(visit, op("list_webhooks"))), count_failing(visit)).await;
    let data = found?.data;
    let (webhooks, can_create) = (list::items(&data), visit.may("create_webhook"));
    let has_form = can_create
        && match &above {
            Above::Form(error) => error.is_some() || webhooks.is_empty() || visit.query("new").is_some(),
            Above::Result(_) => false,
        };
    let body = html! {
        @if let Above::Result(result) = &above { (result) }
        p { (if visit.organization().is_some() { t.about } else { t.about_site }) }
        @if webhooks.is_empty() { (empty(t, can_create)) }
        @if let (true, Above::Form(error)) = (has_form, &above) { (components::card(t.new, new_form(visit, *error)?)) }
        @if !webhooks.is_empty() { (table(visit, webhooks, &failing)) (list::pager(visit, &data)) }
    };
    let content = Content::new(t.title, body);
    if !can_create || has_form {
        return Ok(content);
    }
    let new = format!("{}?new=1", visit.here());
    Ok(content.actions(components::link_button_of(&new, t.new, Kind::Main, Some(Icon::Plus))))
}

fn empty(t: &Words, can_create: bool) -> Markup {
    if !can_create {
        return components::empty(t.none, t.none_readonly, None);
    }
    html! {
        (components::empty(t.none, t.none_text, None))
        ol { @for step in [t.n8n_1, t.n8n_2, t.n8n_3] { li { (step) } } }
    }
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

fn table(visit: &Visit, webhooks: &[Value], failing: &HashMap<String, usize>) -> Markup {
    let t = Words::of(visit.language);
    let columns =
        [Column::new(t.name), Column::new(t.to), Column::new(t.events), Column::new(t.state), Column::new(t.created)];
    let can_open = visit.may("get_webhook");
    let row = |one: &Value| {
        let id = text(one, "id");
        let failing = failing.get(id).copied().unwrap_or_default();
        Row {
            cells: vec![
                html! { (text(one, "name")) },
                // The rest of the address is often secret.
                html! { code { (host(text(one, "url"))) } },
                html! { (kinds_text(visit.language, one)) },
                html! {
                    (state(visit, one))
                    @if failing > 0 { " " (components::badge(Tone::Bad, &fill(t.failing, &[&failing]))) }
                },
                components::time(one["created_at"].as_i64().unwrap_or_default()),
            ],
            href: can_open.then(|| parts::href(visit, &format!("webhooks/{id}"))),
            ..Row::default()
        }
    };
    components::table(t.title, &columns, webhooks.iter().map(row).collect())
}

/// The host of the URL.
fn host(url: &str) -> &str {
    host_of(url.split_once("://").map_or(url, |(_, rest)| rest))
}

/// Whether the webhook is active, as a badge.
fn state(visit: &Visit, webhook: &Value) -> Markup {
    let status = text(webhook, "status");
    let tone = if status == "active" { Tone::Ok } else { Tone::Warn };
    components::badge(tone, &fields::value(status, visit.language))
}

/// The first of its events, and how many more there are.
fn kinds_text(language: Language, webhook: &Value) -> String {
    let t = Words::of(language);
    let kinds: Vec<&str> = webhook["kinds"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match kinds.as_slice() {
        all if all.contains(&EVERY_KIND) => t.every_event.to_owned(),
        [] => String::new(),
        [only] => fields::value(only, language),
        [first, rest @ ..] => fill(t.several, &[&fields::value(first, language), &rest.len()]),
    }
}

// ── creation ──

fn new_form(visit: &Visit, error: Option<&Error>) -> Result<Markup> {
    let t = Words::of(visit.language);
    let form = Form::new(visit, "create_webhook")?.error(error);
    let chosen: Vec<&str> = visit.submitted_all("kinds").collect();
    let inner = html! {
        (components::hidden_input("act", "create"))
        (form.field("name"))
        (form.text("url", "url"))
        (kinds_field(visit, &form, &chosen))
    };
    Ok(form.wrap(&visit.here(), inner, t.create))
}

/// A checkbox for each kind of event, with when it happens.
fn kinds_field(visit: &Visit, form: &Form<'_>, chosen: &[&str]) -> Markup {
    let (t, language) = (Words::of(visit.language), visit.language);
    let texts: Vec<(&str, String, String)> = EventKind::ALL
        .iter()
        .map(|kind| (kind.as_str(), fields::value(kind.as_str(), language), events::about(*kind, language)))
        .chain([(EVERY_KIND, t.every_event.to_owned(), t.every_event_about.to_owned())])
        .collect();
    let choices: Vec<Choice<'_>> = texts
        .iter()
        .map(|(value, label, hint)| Choice { value, label, hint: Some(hint), is_on: chosen.contains(value) })
        .collect();
    let (label, about, faults) =
        (fields::label("kinds", language), fields::about("kinds", "", language), form.faults("kinds"));
    let field = Field { hint: about.as_deref(), ..Field::new("kinds", &label).faults(&faults) };
    components::choices_input(&field, "kinds", true, &choices)
}

/// Creates a webhook and shows its secret.
pub async fn act(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    if visit.submitted("act") != Some("create") {
        return Err(ErrorCode::BadInput.into());
    }
    let body = form::read(visit.operation("create_webhook")?, visit);
    let made = match visit.call(op("create_webhook").body(&body).once(visit.submitted(form::ONCE))).await {
        Ok(made) => made.data,
        Err(error) if matches!(error.code, ErrorCode::SecretNotKept | ErrorCode::IdempotencyKeyReused) => {
            let above = Above::Result(components::notice(Tone::Bad, t.sent_already, None));
            return Ok(page(visit, above).await?.status_of(&error).into());
        }
        Err(error) if is_shown_in_form(visit, "create_webhook", &error) => {
            return Ok(page(visit, Above::Form(Some(&error))).await?.status_of(&error).into());
        }
        Err(error) => return Err(error),
    };
    let open = visit.may("get_webhook").then(|| {
        let href = parts::href(visit, &format!("webhooks/{}", text(&made, "id")));
        components::actions(components::link_button(&href, t.open))
    });
    let shown = html! { (secret(visit, &made)) @if let Some(open) = open { (open) } };
    Ok(page(visit, Above::Result(components::card(t.ready, shown))).await?.into())
}

/// The secret of an answer, which is shown only there, and its id.
fn secret(visit: &Visit, made: &Value) -> Markup {
    let (t, frame) = (Words::of(visit.language), visit.frame());
    html! {
        (components::secret_once(text(made, "secret"), t.once, frame.copy, frame.copied))
        (components::facts(&[(t.key_id, html! { code { (text(made, "key_id")) } })]))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{host, kinds_text};
    use crate::console::i18n::Language;

    #[test]
    fn a_list_shows_the_host_of_a_url_only() {
        for (url, shown) in [
            ("https://n8n.example.org/webhook/secret?token=x", "n8n.example.org"),
            ("http://n8n.lan:5678/x", "n8n.lan"),
            ("https://[2001:db8::1]:8443/", "[2001:db8::1]"),
            ("", ""),
        ] {
            assert_eq!(host(url), shown, "{url}");
        }
    }

    #[test]
    fn many_events_are_shortened() {
        for (kinds, shown) in [
            (json!(["job.dead"]), "Job given up"),
            (json!(["job.dead", "quota.full", "quota.freed"]), "Job given up and 2 more"),
            (json!(["*", "job.dead"]), "Everything"),
            (json!([]), ""),
        ] {
            assert_eq!(kinds_text(Language::English, &json!({"kinds": kinds})), shown);
        }
    }
}
