//! The API keys of a member.

use maud::{Markup, html};
use serde_json::{Value, json};

use super::{MemberTab, address_of, get_user, is_shown_in_form, member_page, name_of, refused};
use crate::console::client::op;
use crate::console::components::{self, Column, Confirm, Kind, Menu, Row, Tone};
use crate::console::form::{self, Form};
use crate::console::i18n::{fields, fill, words};
use crate::console::list;
use crate::console::visit::{Content, View, Visit, is_of_form};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::Timestamp;
use crate::kernel::units::{Direction, parse_time};

words! {
    Words {
        title: "API keys", "API 金鑰";
        name: "Name", "名稱";
        kind: "Type", "類型";
        scopes: "May", "範圍";
        expires: "Ends", "到期";
        used: "Last used", "上次使用";
        never: "never", "從未";
        soon: "soon", "即將到期";
        spent: "used up", "已使用";
        former_until: "Former text until", "舊金鑰有效至";
        none: "No keys", "還沒有金鑰";
        none_text: "A key lets a program act as this member, within the scopes that it has. Create one below.", "金鑰讓程式能以此成員的身分、在其範圍內操作。可以在下方建立。";
        new: "New key", "新增金鑰";
        create: "Create the key", "建立金鑰";
        more: "More about the key {}", "金鑰 {} 的其他操作";
        rotate: "New text", "更換金鑰";
        rotate_title: "Give the key {} a new text?", "要更換金鑰 {} 嗎？";
        rotate_goes: "Programs with the former text must get the new one. It works on for the grace period of its type.", "使用舊金鑰的程式需要換成新金鑰。舊金鑰在寬限期內仍然有效。";
        rotate_stays: "Name, scopes and end stay.", "名稱、範圍與到期時間不變。";
        delete: "Delete", "刪除";
        delete_title: "Delete the key {}?", "要刪除金鑰 {} 嗎？";
        delete_goes: "Programs that use it are refused at once. This cannot be undone.", "使用此金鑰的程式會立即被拒絕。此操作無法復原。";
        deleted: "The key {} was deleted.", "已刪除金鑰 {}。";
        once: "Copy the key now and give it to who runs the program. It is shown only this once.", "請立即複製金鑰並交給程式的負責人。金鑰只會顯示這一次。";
        once_title: "The key {}", "金鑰 {}";
        days: "{} days", "{} 天";
    }
}

const TAB: MemberTab = MemberTab::Keys;

/// Lifetimes to choose from, in days.
const LIFETIMES_D: [u32; 4] = [7, 30, 90, 365];

/// Shows the keys, or the question before one is changed for good.
pub async fn show(visit: &Visit) -> Result<View> {
    match (visit.query("confirm"), visit.query("key")) {
        (Some(kind @ ("rotate" | "delete")), Some(key)) => confirm(visit, kind, key).await,
        _ => match page(visit, None).await {
            Ok(content) => Ok(content.into()),
            // The keys of a member of several organizations are a matter of the site.
            Err(error) => refusal(visit, error).await,
        },
    }
}

async fn page(visit: &Visit, error: Option<&Error>) -> Result<Content> {
    let t = Words::of(visit.language);
    let user = get_user(visit).await?;
    let data = visit.call(list::paged(visit, op("list_member_api_keys").at(visit.path("uid")))).await?.data;
    let body = html! {
        @if list::items(&data).is_empty() { (components::empty(t.none, t.none_text, None)) } @else {
            (table(visit, list::items(&data))) (list::pager(visit, &data))
        }
        @if visit.may("create_member_api_key") { (components::card(t.new, new_form(visit, error)?)) }
    };
    let content = member_page(visit, &user, TAB, body);
    Ok(match error {
        Some(error) => content.status_of(error),
        None => content,
    })
}

fn new_form(visit: &Visit, error: Option<&Error>) -> Result<Markup> {
    let t = Words::of(visit.language);
    let form = Form::new(visit, "create_member_api_key")?.error(error);
    let lives: Vec<(String, String)> =
        LIFETIMES_D.iter().map(|days| (format!("{days}d"), fill(t.days, &[days]))).collect();
    let choices: Vec<(&str, String)> = lives.iter().map(|(value, text)| (value.as_str(), text.clone())).collect();
    let inner = html! {
        (components::hidden_input("act", "create"))
        (form.field("name"))
        (form.field("type"))
        (form.field("scopes"))
        (form.choice("expires_at", &choices))
    };
    Ok(form.wrap(&visit.here(), inner, t.create))
}

fn table(visit: &Visit, keys: &[Value]) -> Markup {
    let t = Words::of(visit.language);
    let columns =
        [Column::new(t.name), Column::new(t.kind), Column::new(t.scopes), Column::new(t.expires), Column::new(t.used)];
    let (can_rotate, can_delete) = (visit.may("rotate_member_api_key"), visit.may("delete_member_api_key"));
    let row = |key: &Value| {
        let text = |name: &str| key[name].as_str().unwrap_or_default();
        let scopes = key["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let scopes: Vec<&str> = scopes.collect();
        let href = |kind: &str| visit.with_query(&[("confirm", kind), ("key", text("id"))]);
        let items = html! {
            @if can_rotate { (components::link_button_of(&href("rotate"), t.rotate, Kind::Quiet, None)) }
            @if can_delete { (components::link_button_of(&href("delete"), t.delete, Kind::Quiet, None)) }
        };
        Row {
            cells: vec![
                html! { (text("name")) },
                html! { (fields::value(text("type"), visit.language)) },
                html! { code { (scopes.join(" ")) } },
                ends(visit, key),
                html! {
                    (components::time_or(key["last_used_at"].as_i64(), t.never))
                    @if let Some(address) = key["last_used_address"].as_str() { " " code { (address) } }
                },
            ],
            menu: (can_rotate || can_delete).then(|| Menu { label: fill(t.more, &[&text("name")]), items }),
            ..Row::default()
        }
    };
    components::table(t.title, &columns, keys.iter().map(row).collect())
}

/// When the key ends, and until when its former text works.
fn ends(visit: &Visit, key: &Value) -> Markup {
    let t = Words::of(visit.language);
    html! {
        (components::time(key["expires_at"].as_i64().unwrap_or_default()))
        @if key["spent"] == true { " " (components::badge(Tone::Plain, t.spent)) }
        @else if key["expires_soon"] == true { " " (components::badge(Tone::Warn, t.soon)) }
        @if let Some(until) = key["former_valid_until"].as_i64() {
            br;
            small { (t.former_until) " " (components::time(until)) }
        }
    }
}

/// The key of this id, which the page lists.
async fn get_key(visit: &Visit, id: &str) -> Result<Value> {
    let call = op("list_member_api_keys").at(visit.path("uid")).query("limit", 200);
    let data = visit.call(call).await?.data;
    list::items(&data).iter().find(|key| key["id"] == id).cloned().ok_or_else(|| ErrorCode::ApiKeyNotFound.into())
}

async fn confirm(visit: &Visit, kind: &str, key: &str) -> Result<View> {
    let t = Words::of(visit.language);
    let (user, key) = (get_user(visit).await?, get_key(visit, key).await?);
    let (title, what_goes, submit) = match kind {
        "rotate" => (t.rotate_title, vec![t.rotate_goes.to_owned(), t.rotate_stays.to_owned()], t.rotate),
        _ => (t.delete_title, vec![t.delete_goes.to_owned()], t.delete),
    };
    let sent = html! {
        (components::hidden_input("act", kind))
        (components::hidden_input("key", key["id"].as_str().unwrap_or_default()))
        (components::hidden_input(form::ONCE, &uuid::Uuid::now_v7().to_string()))
    };
    let body = components::confirm_box(&Confirm {
        title: &fill(title, &[&key["name"].as_str().unwrap_or_default()]),
        action: &visit.here(),
        what_goes: &what_goes,
        typed: None,
        sent: Some(sent),
        submit,
        cancel: visit.frame().cancel,
        cancel_href: &visit.here(),
    });
    Ok(member_page(visit, &user, TAB, body).into())
}

/// Creates, rotates or deletes a key.
pub async fn act(visit: &Visit) -> Result<View> {
    match (visit.submitted("act"), visit.submitted("key")) {
        (Some("create"), _) => create(visit).await,
        (Some("rotate"), Some(key)) => rotate(visit, key).await,
        (Some("delete"), Some(key)) => delete(visit, key).await,
        _ => Err(ErrorCode::BadInput.into()),
    }
}

async fn create(visit: &Visit) -> Result<View> {
    let mut body = form::read(visit.operation("create_member_api_key")?, visit);
    // Chosen is a lifetime, and the operation takes a time.
    if let Some(at) = body["expires_at"].as_str().and_then(end_of) {
        body["expires_at"] = json!(at);
    }
    let call = op("create_member_api_key").at(visit.path("uid")).body(&body).once(visit.submitted(form::ONCE));
    match visit.call(call).await {
        Ok(made) => shown_once(visit, &made.data).await,
        Err(error) if is_shown_in_form(visit, "create_member_api_key", &error) => {
            Ok(page(visit, Some(&error)).await?.into())
        }
        Err(error) => Err(error),
    }
}

/// The end of a lifetime that begins now, such as `30d`.
fn end_of(lifetime: &str) -> Option<i64> {
    parse_time(lifetime, Timestamp::now(), Direction::Ahead)
}

async fn rotate(visit: &Visit, key: &str) -> Result<View> {
    let call = op("rotate_member_api_key").at(visit.path("uid")).at(key).once(visit.submitted(form::ONCE));
    match visit.call(call).await {
        Ok(made) => shown_once(visit, &made.data).await,
        Err(error) => refusal(visit, error).await,
    }
}

async fn delete(visit: &Visit, key: &str) -> Result<View> {
    let t = Words::of(visit.language);
    let name = get_key(visit, key).await?["name"].as_str().unwrap_or_default().to_owned();
    match visit.call(op("delete_member_api_key").at(visit.path("uid")).at(key)).await {
        Ok(_) => visit.done(address_of(visit, TAB), fill(t.deleted, &[&name])),
        Err(error) => refusal(visit, error).await,
    }
}

async fn refusal(visit: &Visit, error: Error) -> Result<View> {
    if !is_of_form(&error) && !error.is_denial() {
        return Err(error);
    }
    Ok(refused(visit, &get_user(visit).await?, TAB, &error))
}

/// The text of a new key, in this answer only.
async fn shown_once(visit: &Visit, made: &Value) -> Result<View> {
    let (t, frame) = (Words::of(visit.language), visit.frame());
    let user = get_user(visit).await?;
    let title = format!("{} – {}", fill(t.once_title, &[&made["name"].as_str().unwrap_or_default()]), name_of(&user));
    let body = html! {
        section class="card" {
            h2 { (title) }
            (components::secret_once(made["api_key"].as_str().unwrap_or_default(), t.once, frame.copy, frame.copied))
            p { (t.expires) " " (components::time(made["expires_at"].as_i64().unwrap_or_default())) }
            (components::actions(components::link_button(&visit.here(), frame.back)))
        }
    };
    Ok(member_page(visit, &user, TAB, body).into())
}
