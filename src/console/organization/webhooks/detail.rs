//! One webhook: test, settings, pause, new secret, deletion, and its latest deliveries.

use futures_util::future::join;
use maud::{Markup, html};
use serde_json::{Value, json};

use super::{kinds_field, secret, state, text};
use crate::console::client::{Answer, encoded, op};
use crate::console::components::{self, Confirm, Kind, Tone, Typed};
use crate::console::form::{self, Form, VERSION};
use crate::console::i18n::connections::failure;
use crate::console::i18n::{errors, fill, words};
use crate::console::list;
use crate::console::organization::deliveries::Table;
use crate::console::organization::members::is_shown_in_form;
use crate::console::organization::parts;
use crate::console::visit::{Content, Notice, View, Visit, is_of_form};
use crate::kernel::error::{Error, ErrorCode, Result};

words! {
    Words {
        all: "All webhooks", "所有 webhook";
        state: "State", "狀態";
        key_id: "Id of the secret", "密鑰編號";
        former: "Also signed with the previous secret until", "同時以舊密鑰簽章至";
        created: "Created", "建立時間";
        test: "Send a test", "傳送測試";
        test_about: "Sends an event of the kind ping now, also if the webhook is paused.", "立即傳送種類為 ping 的事件，暫停中的 webhook 也會傳送。";
        accepted: "The receiver accepted the test: it answered {}, after {} ms.", "接收端已接受測試：回應 {}，耗時 {} 毫秒。";
        not_accepted: "The receiver did not accept the test: it answered {}, after {} ms. Only answers 200 to 299 count as received.", "接收端未接受測試：回應 {}，耗時 {} 毫秒。只有 200 到 299 的回應視為已接收。";
        no_answer: "There was no answer: {}.", "沒有回應：{}。";
        settings: "Settings", "設定";
        saved: "The webhook is saved.", "已儲存 webhook。";
        pause: "Pause", "暫停";
        pause_about: "It gets no more events. Deliveries that wait are given up, and can be delivered again later.", "不再接收事件。等待中的傳送會被放棄，之後可以重新傳送。";
        paused: "The webhook is paused.", "Webhook 已暫停。";
        resume: "Resume", "恢復";
        resume_about: "It gets events again, from now on.", "從現在起重新接收事件。";
        resumed: "The webhook gets events again.", "Webhook 已恢復接收事件。";
        rotate: "Rotate the secret", "輪替密鑰";
        rotate_about: "Makes a new secret, for example if the old one became known.", "產生新的密鑰，例如舊密鑰外洩時。";
        rotate_title: "Rotate the secret of {}?", "要輪替 {} 的密鑰嗎？";
        rotate_goes: "Requests are signed with a new secret, which is shown once.", "請求會以新的密鑰簽章，新密鑰只顯示一次。";
        rotate_overlap: "For a while they are also signed with the previous one, so that the receiver can switch over. If somebody else made that, it ends at once.", "一段時間內會同時以舊密鑰簽章，讓接收端完成切換。若舊密鑰是由其他人建立的，則立即失效。";
        rotate_yours: "From then on the webhook depends on your rights.", "之後此 webhook 的效力取決於您的權限。";
        rotated: "The new secret", "新的密鑰";
        sent_already: "This form was sent already: the secret was shown once. Rotate again to get another.", "這份表單已送出過，密鑰只會顯示一次。如需新的密鑰，請再輪替一次。";
        delete: "Delete", "刪除";
        delete_about: "Ends it for good, with the record of its deliveries.", "永久刪除，包含其傳送紀錄。";
        delete_title: "Delete {}?", "要刪除 {} 嗎？";
        delete_goes: "The receiver is told of nothing any more. Its pending deliveries and the record of past ones go.", "接收端不再收到通知；等待中的傳送與過去的紀錄都會刪除。";
        delete_pause: "To stop it for a while, pause it instead.", "若只是暫時停用，請改用暫停。";
        type_name: "Type the name {} to confirm", "請輸入名稱 {} 以確認";
        typed_wrong: "This is not the name of the webhook.", "與 webhook 的名稱不符。";
        deleted: "The webhook {} is deleted.", "已刪除 webhook {}。";
        danger: "Secret and end", "密鑰與刪除";
        deliveries: "Latest deliveries", "最近的傳送";
        no_deliveries: "No event happened yet that it is told of. Tests are not listed here.", "尚未發生需要通知的事件。測試不會列在這裡。";
        all_deliveries: "All its deliveries", "此 webhook 的所有傳送";
    }
}

/// The number of deliveries that are shown.
const SHOWN: usize = 10;
/// The fields of the form, which are also those of the difference after a conflict.
const NAMES: [&str; 3] = ["name", "url", "kinds"];

/// Shows the webhook, or the question before its secret is rotated or it is deleted.
pub async fn show(visit: &Visit) -> Result<View> {
    Ok(page(visit, html! {}, None).await?.into())
}

/// The page below `above`, after a refused change with its error.
async fn page(visit: &Visit, above: Markup, error: Option<&Error>) -> Result<Content> {
    let t = Words::of(visit.language);
    let id = visit.path("id");
    let deliveries = op("list_deliveries").query("target", id).query("limit", SHOWN);
    let (found, deliveries) = join(visit.call(op("get_webhook").at(id)), visit.find(deliveries)).await;
    let found = found?;
    let webhook = &found.data;
    let question = visit.query("confirm");
    let body = html! {
        (above)
        @if question == Some("rotate") { (rotate_question(visit, &found)) }
        @else if question == Some("delete") { (delete_question(visit, &found)) }
        (facts(visit, webhook))
        @if visit.may("test_webhook") { (parts::act_form(visit, "test", t.test, t.test_about)) }
        @if visit.may("update_webhook") {
            (components::card(t.settings, html! {
                (settings(visit, &found, error)?)
                @if text(webhook, "status") == "active" { (parts::act_form(visit, "pause", t.pause, t.pause_about)) }
                @else { (parts::act_form(visit, "resume", t.resume, t.resume_about)) }
            }))
        }
        @if let Some(deliveries) = &deliveries { (latest(visit, webhook, deliveries).await) }
        (endings(visit))
    };
    let all = components::link_button(&parts::href(visit, "webhooks"), t.all);
    Ok(Content::new(text(webhook, "name"), body).actions(all))
}

fn facts(visit: &Visit, webhook: &Value) -> Markup {
    let t = Words::of(visit.language);
    let mut rows = vec![
        (t.state, state(visit, webhook)),
        (t.key_id, html! { code { (text(webhook, "key_id")) } }),
        (t.created, components::time(webhook["created_at"].as_i64().unwrap_or_default())),
    ];
    if let Some(until) = webhook["former_signed_until"].as_i64() {
        rows.push((t.former, components::time(until)));
    }
    components::facts(&rows)
}

fn settings(visit: &Visit, found: &Answer, error: Option<&Error>) -> Result<Markup> {
    let is_stale = error.is_some_and(|error| error.code == ErrorCode::VersionStale);
    // After a conflict the form holds the new version: saving it again is a decision made with both states in view.
    let version = found.etag.as_deref().filter(|_| error.is_none() || is_stale);
    // The rules of a new webhook, because nothing of it can be removed.
    let form = Form::new(visit, "create_webhook")?.version(version).error(error);
    let form = if error.is_none() { form.present(&found.data) } else { form };
    let kinds = found.data["kinds"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let chosen: Vec<&str> = if error.is_none() { kinds.collect() } else { visit.submitted_all("kinds").collect() };
    let inner = html! {
        (components::hidden_input("act", "update"))
        (form.field("name"))
        (form.text("url", "url"))
        (kinds_field(visit, &form, &chosen))
    };
    Ok(html! {
        @if is_stale { (parts::conflict(visit, &found.data, &NAMES)) }
        (form.wrap(&visit.here(), inner, visit.frame().save))
    })
}

async fn latest(visit: &Visit, webhook: &Value, deliveries: &Value) -> Markup {
    let t = Words::of(visit.language);
    let rows: Vec<&Value> = list::items(deliveries).iter().collect();
    let webhooks = json!({"items": [webhook]});
    let table = Table::load(visit, &rows, Some(&webhooks)).await;
    let all = format!("{}?target={}", parts::href(visit, "deliveries"), encoded(visit.path("id")));
    html! {
        h2 { (t.deliveries) }
        @if rows.is_empty() { p { (t.no_deliveries) } } @else {
            (table.of(t.deliveries, &rows))
            (table.bar(&all))
            p { a href=(all) { (t.all_deliveries) } }
        }
    }
}

fn endings(visit: &Visit) -> Markup {
    let t = Words::of(visit.language);
    let (can_rotate, can_delete) = (visit.may("rotate_webhook"), visit.may("delete_webhook"));
    if !can_rotate && !can_delete {
        return html! {};
    }
    let body = html! {
        @if can_rotate { (parts::act_link(visit, "rotate", t.rotate, t.rotate_about, Kind::Plain)) }
        @if can_delete { (parts::act_link(visit, "delete", t.delete, t.delete_about, Kind::Danger)) }
    };
    components::card(t.danger, body)
}

fn rotate_question(visit: &Visit, found: &Answer) -> Markup {
    let t = Words::of(visit.language);
    let once = visit.submitted(form::ONCE).map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned);
    let sent = html! {
        (components::hidden_input("act", "rotate"))
        (components::hidden_input(form::ONCE, &once))
        (components::hidden_input(VERSION, found.etag.as_deref().unwrap_or_default()))
    };
    components::confirm_box(&Confirm {
        title: &fill(t.rotate_title, &[&text(&found.data, "name")]),
        action: &visit.here(),
        what_goes: &[t.rotate_goes, t.rotate_overlap, t.rotate_yours].map(str::to_owned),
        typed: None,
        sent: Some(sent),
        submit: t.rotate,
        cancel: visit.frame().cancel,
        cancel_href: &visit.here(),
    })
}

fn delete_question(visit: &Visit, found: &Answer) -> Markup {
    let t = Words::of(visit.language);
    let name = text(&found.data, "name");
    let sent = html! {
        (components::hidden_input("act", "delete"))
        (components::hidden_input(VERSION, found.etag.as_deref().unwrap_or_default()))
    };
    components::confirm_box(&Confirm {
        title: &fill(t.delete_title, &[&name]),
        action: &visit.with_query(&[]),
        what_goes: &[t.delete_goes, t.delete_pause].map(str::to_owned),
        typed: Some(Typed { name: "typed", label: &fill(t.type_name, &[&name]), must_equal: name }),
        sent: Some(sent),
        submit: t.delete,
        cancel: visit.frame().cancel,
        cancel_href: &visit.here(),
    })
}

/// Tests, changes, pauses, rotates or deletes the webhook.
pub async fn act(visit: &Visit) -> Result<View> {
    match visit.submitted("act") {
        Some("test") => test(visit).await,
        Some("update") => update(visit).await,
        Some("pause") => switch(visit, false).await,
        Some("resume") => switch(visit, true).await,
        Some("rotate") => rotate(visit).await,
        Some("delete") => delete(visit).await,
        _ => Err(ErrorCode::BadInput.into()),
    }
}

/// The address of this page, for redirects.
fn own_address(visit: &Visit) -> String {
    parts::address(visit, &format!("webhooks/{}", visit.path("id")))
}

/// The page with an error that belongs to no field.
async fn refused(visit: &Visit, error: &Error) -> Result<View> {
    let above = components::notice(Tone::Bad, &errors::sentence(error, visit.language), None);
    Ok(page(visit, above, None).await?.status_of(error).into())
}

async fn test(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let trial = visit.call(op("test_webhook").at(visit.path("id"))).await?.data;
    let (status, ms) = (trial["status"].as_u64(), trial["duration_ms"].as_u64().unwrap_or_default());
    let notice = match (status, trial["ok"] == true) {
        (Some(status), true) => Notice::new(fill(t.accepted, &[&status, &ms])),
        (Some(status), false) => Notice::new(fill(t.not_accepted, &[&status, &ms])).bad(),
        (None, _) => Notice::new(fill(t.no_answer, &[&failure(text(&trial, "error"), visit.language)])).bad(),
    };
    // Loading the page again does not send another test.
    Ok(View::Redirect(own_address(visit), Some(notice)))
}

async fn update(visit: &Visit) -> Result<View> {
    let mut body = parts::read_update(visit, "update_webhook")?;
    if visit.submitted("kinds").is_none() {
        body["kinds"] = json!([]);
    }
    let call = op("update_webhook").at(visit.path("id")).body(&body).if_match(visit.submitted(VERSION));
    match visit.call(call).await {
        Ok(_) => visit.done(own_address(visit), Words::of(visit.language).saved),
        Err(error) if is_shown_in_form(visit, "update_webhook", &error) => {
            Ok(page(visit, html! {}, Some(&error)).await?.status_of(&error).into())
        }
        Err(error) => Err(error),
    }
}

/// Pauses or resumes it; the Undo does the opposite.
async fn switch(visit: &Visit, is_on: bool) -> Result<View> {
    let t = Words::of(visit.language);
    let (status, text, inverse) = if is_on { ("active", t.resumed, "pause") } else { ("inactive", t.paused, "resume") };
    match visit.call(op("update_webhook").at(visit.path("id")).body(&json!({"status": status}))).await {
        Ok(_) => {
            let address = own_address(visit);
            let notice = Notice::new(text).with_undo(address.clone(), &[("act", inverse)]);
            Ok(View::Redirect(address, Some(notice)))
        }
        Err(error) if is_of_form(&error) => refused(visit, &error).await,
        Err(error) => Err(error),
    }
}

async fn rotate(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let call = op("rotate_webhook").at(visit.path("id")).if_match(visit.submitted(VERSION));
    match visit.call(call.once(visit.submitted(form::ONCE))).await {
        Ok(rotated) => {
            let shown = components::card(t.rotated, secret(visit, &rotated.data));
            Ok(page(visit, shown, None).await?.into())
        }
        Err(error) if matches!(error.code, ErrorCode::SecretNotKept | ErrorCode::IdempotencyKeyReused) => {
            let above = components::notice(Tone::Bad, t.sent_already, None);
            Ok(page(visit, above, None).await?.status_of(&error).into())
        }
        Err(error) if is_of_form(&error) => refused(visit, &error).await,
        Err(error) => Err(error),
    }
}

async fn delete(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let id = visit.path("id");
    let webhook = visit.call(op("get_webhook").at(id)).await?.data;
    let name = text(&webhook, "name");
    if visit.submitted("typed").map(str::trim) != Some(name.trim()) {
        let above = components::notice(Tone::Bad, t.typed_wrong, None);
        return Ok(page(visit, above, None).await?.status_of(&ErrorCode::BadInput.into()).into());
    }
    match visit.call(op("delete_webhook").at(id).if_match(visit.submitted(VERSION))).await {
        Ok(_) => visit.done(parts::address(visit, "webhooks"), fill(t.deleted, &[&name])),
        Err(error) if is_of_form(&error) => refused(visit, &error).await,
        Err(error) => Err(error),
    }
}
