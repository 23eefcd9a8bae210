//! The member's own API keys.
//!
//! **Invariant.** The text of a key is shown only in the answer of the form that made it.

use chrono::NaiveDate;
use maud::{Markup, html};
use serde_json::{Value, json};

use super::{api_address, items, moment, once, text};
use crate::console::client::op;
use crate::console::components::{self, Column, Confirm, Kind, Menu, Row, Tone};
use crate::console::form::{self, Form};
use crate::console::i18n::{fields, fill, words};
use crate::console::list;
use crate::console::visit::{self, Content, View, Visit};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::Timestamp;

words! {
    Keys {
        title: "API keys", "API 金鑰";
        about: "A key lets a program act for you, without your password.", "金鑰讓程式能代表您操作，不需要您的密碼。";
        empty: "No API key yet", "尚無 API 金鑰";
        empty_text: "Create one for a program of yours, and choose only what it needs. Its first request:", "為您的程式建立一把金鑰，並只選擇需要的範圍。第一個請求：";
        new: "Create a key", "建立金鑰";
        name: "Name", "名稱";
        kind: "Type", "類型";
        scopes: "Scopes", "範圍";
        last_used: "Last used", "上次使用";
        never: "never", "從未使用";
        expires: "Expires", "到期時間";
        state: "State", "狀態";
        works: "Works", "可使用";
        expired: "Expired", "已過期";
        soon: "Expires soon", "即將到期";
        spent: "Used up", "已使用";
        more: "More about {}", "{} 的更多動作";
        rotate: "Rotate", "輪替";
        rotate_title: "Rotate {}", "輪替 {}";
        rotate_new: "The key gets a new text, which is shown once.", "金鑰會取得新的內容，且只顯示一次。";
        rotate_old: "The old text keeps working for a day, so that you can change your programs.", "舊的內容還能使用一天，讓您有時間更新程式。";
        delete: "Delete", "刪除";
        delete_title: "Delete {}", "刪除 {}";
        delete_what: "Programs that use this key are refused at once.", "使用這把金鑰的程式會立即遭拒。";
        delete_final: "This cannot be undone.", "這個動作無法復原。";
        deleted: "{} is deleted.", "已刪除 {}。";
        made: "Your new key", "您的新金鑰";
        once: "This is the only time that the key is shown. Store it where your program finds it.", "金鑰只顯示這一次，請存放在您的程式能讀取的地方。";
        try_it: "Try it", "試試看";
        former: "The old text works until", "舊的內容可使用至";
        back: "To your keys", "回到您的金鑰";
    }
}

const OPERATION: &str = "create_my_api_key";
/// The type of keys that work once and are not rotated.
const EMERGENCY: &str = "memg";

pub async fn list(visit: &Visit) -> Result<View> {
    let t = Keys::of(visit.language);
    if visit.query("new").is_some() {
        return Ok(new_form(visit, t, None)?.into());
    }
    for act in ["rotate", "delete"] {
        if let Some(id) = visit.query(act) {
            return Ok(confirm(visit, t, act, &find(visit, id).await?).into());
        }
    }
    let found = visit.call(list::paged(visit, op("list_my_api_keys"))).await?.data;
    let new = format!("{}?new=1", visit.here());
    let new = components::link_button_of(&new, t.new, Kind::Main, None);
    let body = html! {
        @if items(&found).is_empty() {
            (components::empty(t.empty, t.empty_text, Some(new.clone())))
            (first_request(visit, "…"))
        } @else {
            p { (t.about) }
            (components::table(t.title, &columns(t), items(&found).iter().map(|key| row(visit, t, key)).collect()))
            (list::pager(visit, &found))
        }
    };
    let content = Content::new(t.title, body);
    Ok(if items(&found).is_empty() { content } else { content.actions(new) }.into())
}

fn columns(t: &Keys) -> [Column<'_>; 6] {
    [t.name, t.kind, t.scopes, t.last_used, t.expires, t.state].map(Column::new)
}

fn row(visit: &Visit, t: &Keys, key: &Value) -> Row {
    let (id, name) = (text(key, "id"), text(key, "name"));
    let to = |act: &str| format!("{}?{act}={id}", visit.here());
    let menu = html! {
        @if text(key, "type") != EMERGENCY { (components::link_button_of(&to("rotate"), t.rotate, Kind::Quiet, None)) }
        (components::link_button_of(&to("delete"), t.delete, Kind::Quiet, None))
    };
    Row {
        cells: vec![
            html! { (name) },
            html! { (fields::value(text(key, "type"), visit.language)) },
            scopes(visit, key),
            components::time_or(key["last_used_at"].as_i64(), t.never),
            components::time(moment(key, "expires_at")),
            state(t, key),
        ],
        menu: Some(Menu { label: fill(t.more, &[&name]), items: menu }),
        ..Row::default()
    }
}

fn scopes(visit: &Visit, key: &Value) -> Markup {
    let all = key["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let all: Vec<String> = all.map(|scope| fields::value(scope, visit.language)).collect();
    html! { (all.join(visit.language.pick(", ", "、"))) }
}

fn state(t: &Keys, key: &Value) -> Markup {
    if key["spent"] == true {
        components::badge(Tone::Bad, t.spent)
    } else if moment(key, "expires_at") <= Timestamp::now().0 {
        components::badge(Tone::Bad, t.expired)
    } else if key["expires_soon"] == true {
        components::badge(Tone::Warn, t.soon)
    } else {
        components::badge(Tone::Ok, t.works)
    }
}

/// One of the visitor's keys.
async fn find(visit: &Visit, id: &str) -> Result<Value> {
    let all = visit.call(op("list_my_api_keys").query("limit", 200)).await?.data;
    items(&all).iter().find(|key| text(key, "id") == id).cloned().ok_or_else(|| ErrorCode::ApiKeyNotFound.into())
}

fn confirm(visit: &Visit, t: &Keys, act: &str, key: &Value) -> Content {
    let name = text(key, "name");
    let is_rotation = act == "rotate";
    let title = fill(if is_rotation { t.rotate_title } else { t.delete_title }, &[&name]);
    let sentences = if is_rotation { [t.rotate_new, t.rotate_old] } else { [t.delete_what, t.delete_final] };
    let body = components::confirm_box(&Confirm {
        title: &title,
        action: &visit.here(),
        what_goes: &sentences.map(str::to_owned),
        typed: None,
        sent: Some(html! {
            (components::hidden_input("act", act))
            (components::hidden_input("id", text(key, "id")))
            (components::hidden_input(form::ONCE, &once(visit)))
        }),
        submit: if is_rotation { t.rotate } else { t.delete },
        cancel: visit.frame().cancel,
        cancel_href: &visit.here(),
    });
    Content::new(title.clone(), body)
}

fn new_form(visit: &Visit, t: &Keys, error: Option<&Error>) -> Result<Content> {
    let form = Form::new(visit, OPERATION)?.error(error);
    let inner = html! {
        (components::hidden_input("act", "create"))
        (form.field("name"))
        (form.field("type"))
        (form.field("scopes"))
        (form.text("expires_at", "date"))
    };
    let body = html! {
        (form.wrap(&visit.here(), inner, t.new))
        p { a href=(visit.here()) { (visit.frame().cancel) } }
    };
    Ok(Content::new(t.new, body))
}

pub async fn act(visit: &Visit) -> Result<View> {
    let t = Keys::of(visit.language);
    let once = visit.submitted(form::ONCE);
    let id = visit.submitted("id").unwrap_or_default();
    match visit.submitted("act") {
        Some("create") => create(visit, t).await,
        Some("rotate") => {
            let made = visit.call(op("rotate_my_api_key").at(id).once(once)).await?;
            Ok(secret(visit, t, &made.data).into())
        }
        Some("delete") => {
            let key = find(visit, id).await?;
            visit.call(op("delete_my_api_key").at(id)).await?;
            visit.done("/console/me/keys", fill(t.deleted, &[&text(&key, "name")]))
        }
        _ => Err(ErrorCode::BadInput.into()),
    }
}

async fn create(visit: &Visit, t: &Keys) -> Result<View> {
    let mut body = form::read(visit.operation(OPERATION)?, visit);
    let made = match visit.submitted("expires_at").map(end_of_day) {
        Some(None) => Err(Error::field("expires_at", "must be a date")),
        // The API gives a key without scopes all of them; here that is a choice of its own.
        _ if body["scopes"].is_null() => Err(Error::field("scopes", "choose at least one")),
        day => {
            if let Some(Some(ms)) = day {
                body["expires_at"] = json!(ms);
            }
            visit.call(op(OPERATION).body(&body).once(visit.submitted(form::ONCE))).await
        }
    };
    match made {
        Ok(made) => Ok(secret(visit, t, &made.data).into()),
        Err(error) if visit::is_of_form(&error) => Ok(new_form(visit, t, Some(&error))?.status_of(&error).into()),
        Err(error) => Err(error),
    }
}

/// The last millisecond of a day such as `2026-12-31`, in UTC.
fn end_of_day(text: &str) -> Option<i64> {
    let day = text.parse::<NaiveDate>().ok()?;
    Some(day.and_hms_milli_opt(23, 59, 59, 999)?.and_utc().timestamp_millis())
}

/// The new text of a key, once.
fn secret(visit: &Visit, t: &Keys, made: &Value) -> Content {
    let (f, key) = (visit.frame(), text(made, "api_key"));
    let body = html! {
        (components::secret_once(key, t.once, f.copy, f.copied))
        (components::facts(&[
            (t.name, html! { (text(made, "name")) }),
            (t.scopes, scopes(visit, made)),
            (t.expires, components::time(moment(made, "expires_at"))),
        ]))
        @if let Some(until) = made["former_valid_until"].as_i64() { p { (t.former) " " (components::time(until)) } }
        h2 { (t.try_it) }
        (first_request(visit, key))
        (components::actions(components::link_button(&visit.here(), t.back)))
    };
    Content::new(t.made, body)
}

fn first_request(visit: &Visit, key: &str) -> Markup {
    let f = visit.frame();
    components::copyable_block(&format!("curl -H 'X-API-Key: {key}' {}/me", api_address(visit)), f.copy, f.copied)
}

#[cfg(test)]
mod tests {
    use super::end_of_day;

    #[test]
    fn a_key_lasts_to_the_end_of_its_day() {
        assert_eq!(end_of_day("2026-11-30"), Some(1_796_083_199_999));
        assert_eq!(end_of_day("30.11.2026"), None);
        assert_eq!(end_of_day("2026-02-30"), None);
    }
}
