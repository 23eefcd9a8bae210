//! Parts of the pages about API keys: one's own, those of a member, and those of services.
//!
//! **Invariant.** The text of a key is shown only in the answer of the form that made it.

use maud::{Markup, html};
use serde_json::Value;

use super::client::{Answer, Call, op};
use super::components::{self, Column, Confirm, Menu, Row, Tone};
use super::form;
use super::i18n::{fields, fill, words};
use super::list;
use super::me::api_address;
use super::visit::Visit;
use crate::kernel::authz::key::ApiKeyKind;
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::ids::Timestamp;

words! {
    pub Words {
        title: "API keys", "API 金鑰";
        name: "Name", "名稱";
        service: "Service", "服務";
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
        former: "The old text works until", "舊的內容可使用至";
        more: "More about {}", "{} 的更多動作";
        rotate: "Rotate", "輪替";
        rotate_title: "Rotate {}?", "要輪替 {} 嗎？";
        rotate_new: "The key gets a new text, which is shown once. Name and scopes stay.", "金鑰會取得新的內容，且只顯示一次；名稱與範圍不變。";
        rotate_old: "The old text works for {} more hours, so that you can change the programs that use it. If somebody else made the key, it stops at once.", "舊的內容還能使用 {} 小時，讓您有時間更新程式；若金鑰由他人建立，舊的內容會立即失效。";
        delete: "Delete", "刪除";
        delete_title: "Delete {}?", "要刪除 {} 嗎？";
        delete_what: "Programs that use this key are refused at once.", "使用這把金鑰的程式會立即遭拒。";
        delete_final: "This cannot be undone.", "這個動作無法復原。";
        deleted: "{} is deleted.", "已刪除 {}。";
        made: "The new key", "新的金鑰";
        once: "Copy the key now, and store it where the program finds it. It is shown only this once.", "請立即複製金鑰，並存放在程式能讀取的地方。金鑰只會顯示這一次。";
        imported: "The key of the other system works now. Roster knows only its hash.", "其他系統的金鑰現在可以使用。Roster 只知道它的雜湊。";
        try_it: "Try it", "試試看";
        sent_already: "This form was sent already, and the secret was shown once. Rotate it if the text is lost.", "這份表單已送出過，密鑰只會顯示一次。若已遺失內容，請輪替。";
    }
}

/// The keys that a page is about: the operations, and the member in their paths.
#[derive(Debug, Clone, Copy)]
pub struct Keys<'k> {
    pub list: &'static str,
    pub rotate: &'static str,
    pub delete: &'static str,
    pub of: Option<&'k str>,
}

/// The longest page of a list.
const PAGE: u64 = 200;

impl Keys<'_> {
    fn call(&self, operation: &'static str) -> Call {
        self.of.iter().fold(op(operation), |call, owner| call.at(owner))
    }

    /// The keys that the address asks for.
    pub async fn listed(&self, visit: &Visit) -> Result<Value> {
        Ok(visit.call(list::paged(visit, self.call(self.list))).await?.data)
    }

    /// The key of this id.
    pub async fn get(&self, visit: &Visit, id: &str) -> Result<Value> {
        let mut after: Option<String> = None;
        loop {
            let call = self.call(self.list).query("limit", PAGE).query_some("after", after.as_deref());
            let data = visit.call(call).await?.data;
            if let Some(found) = list::items(&data).iter().find(|key| key["id"] == id) {
                return Ok(found.clone());
            }
            after = data["next"].as_str().map(str::to_owned);
            if after.is_none() {
                return Err(ErrorCode::ApiKeyNotFound.into());
            }
        }
    }

    /// The table of keys. `with_service` adds whose keys they are.
    pub fn table(&self, visit: &Visit, keys: &[Value], with_service: bool) -> Markup {
        let t = Words::of(visit.language);
        let mut columns: Vec<Column<'_>> =
            [t.name, t.kind, t.scopes, t.last_used, t.expires, t.state].map(Column::new).into();
        if with_service {
            columns.insert(1, Column::new(t.service));
        }
        components::table(t.title, &columns, keys.iter().map(|key| self.row(visit, key, with_service)).collect())
    }

    fn row(&self, visit: &Visit, key: &Value, with_service: bool) -> Row {
        let t = Words::of(visit.language);
        let text = |name: &str| key[name].as_str().unwrap_or_default();
        let to = |act: &str| visit.with_query(&[("confirm", act), ("key", text("id"))]);
        let can_rotate = visit.may(self.rotate) && text("type") != EMERGENCY;
        let can_delete = visit.may(self.delete);
        let items = html! {
            @if can_rotate { (components::menu_link(&to("rotate"), t.rotate)) }
            @if can_delete { (components::menu_link(&to("delete"), t.delete)) }
        };
        let mut cells = vec![
            html! { (text("name")) },
            html! { (fields::value(text("type"), visit.language)) },
            scopes(visit, key),
            html! {
                (components::time_or(key["last_used_at"].as_i64(), t.never))
                @if let Some(address) = key["last_used_address"].as_str() { " " code { (address) } }
            },
            components::time(key["expires_at"].as_i64().unwrap_or_default()),
            state(visit, key),
        ];
        if with_service {
            cells.insert(1, html! { (text("service_name")) });
        }
        let menu = (can_rotate || can_delete).then(|| Menu { label: fill(t.more, &[&text("name")]), items });
        Row { cells, menu, ..Row::default() }
    }

    /// The question that the address asks before a key is rotated or deleted, and its title. `None` for another address.
    pub async fn question(&self, visit: &Visit) -> Result<Option<(String, Markup)>> {
        let t = Words::of(visit.language);
        let (Some(act @ ("rotate" | "delete")), Some(id)) = (visit.query("confirm"), visit.query("key")) else {
            return Ok(None);
        };
        let key = self.get(visit, id).await?;
        let grace_h = ApiKeyKind::of(key["type"].as_str().unwrap_or_default()).map_or(0, |kind| kind.grace_s / 3_600);
        let (title, submit, what_goes) = match act {
            "rotate" => (t.rotate_title, t.rotate, [t.rotate_new.to_owned(), fill(t.rotate_old, &[&grace_h])]),
            _ => (t.delete_title, t.delete, [t.delete_what, t.delete_final].map(str::to_owned)),
        };
        let title = fill(title, &[&key["name"].as_str().unwrap_or_default()]);
        let body = components::confirm_box(&Confirm {
            title: &title,
            action: &visit.here(),
            what_goes: &what_goes,
            typed: None,
            sent: Some(html! {
                (components::hidden_input("act", act))
                (components::hidden_input("key", id))
                (components::hidden_input(form::ONCE, &uuid::Uuid::now_v7().to_string()))
            }),
            submit,
            cancel: visit.frame().cancel,
            cancel_href: &visit.here(),
        });
        Ok(Some((title, body)))
    }

    /// Gives the key a new text.
    pub async fn rotate(&self, visit: &Visit, id: &str) -> Result<Answer> {
        visit.call(self.call(self.rotate).at(id).once(visit.submitted(form::ONCE))).await
    }

    /// Deletes the key, and returns what is told.
    pub async fn delete(&self, visit: &Visit, id: &str) -> Result<String> {
        let key = self.get(visit, id).await?;
        visit.call(self.call(self.delete).at(id)).await?;
        Ok(fill(Words::of(visit.language).deleted, &[&key["name"].as_str().unwrap_or_default()]))
    }
}

/// The type of keys that work once and are not rotated.
const EMERGENCY: &str = "memg";

/// The scopes of a key or client, in words.
pub fn scopes(visit: &Visit, held: &Value) -> Markup {
    let all = held["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let all: Vec<String> = all.map(|scope| fields::value(scope, visit.language)).collect();
    html! { (all.join(visit.language.pick(", ", "、"))) }
}

fn state(visit: &Visit, key: &Value) -> Markup {
    let t = Words::of(visit.language);
    let is_over = key["expires_at"].as_i64().is_some_and(|at| at <= Timestamp::now().0);
    let (tone, text) = match () {
        () if key["spent"] == true => (Tone::Bad, t.spent),
        () if is_over => (Tone::Bad, t.expired),
        () if key["expires_soon"] == true => (Tone::Warn, t.soon),
        () => (Tone::Ok, t.works),
    };
    html! {
        (components::badge(tone, text))
        @if let Some(until) = key["former_valid_until"].as_i64() {
            br;
            small { (t.former) " " (components::time(until)) }
        }
    }
}

/// The text of a new key, in this answer only, with its facts and a first request.
pub fn made(visit: &Visit, key: &Value, path: &str, way_back: &str) -> Markup {
    let (t, frame) = (Words::of(visit.language), visit.frame());
    let text = |name: &str| key[name].as_str().unwrap_or_default();
    let secret = key["api_key"].as_str();
    html! {
        @match secret {
            Some(secret) => (components::secret_once(secret, t.once, frame.copy, frame.copied)),
            None => (components::notice(Tone::Ok, t.imported, None)),
        }
        (components::facts(&[
            (t.name, html! { (text("name")) }),
            (t.scopes, scopes(visit, key)),
            (t.expires, components::time(key["expires_at"].as_i64().unwrap_or_default())),
        ]))
        @if let Some(until) = key["former_valid_until"].as_i64() { p { (t.former) " " (components::time(until)) } }
        @if let Some(secret) = secret {
            h2 { (t.try_it) }
            (first_request(visit, secret, path))
        }
        (components::actions(components::link_button(way_back, frame.back)))
    }
}

/// A request with this key, for a shell.
pub fn first_request(visit: &Visit, secret: &str, path: &str) -> Markup {
    let frame = visit.frame();
    let command = format!("curl -H 'X-API-Key: {secret}' '{}{path}'", api_address(visit));
    components::copyable_block(&command, frame.copy, frame.copied)
}

/// A list that this scope opens, to try a key or client with.
pub fn path_of(scope: &str) -> &'static str {
    match scope.split(':').next().unwrap_or_default() {
        "members" | "*" => "/admin/members?limit=1",
        "organizations" => "/admin/organizations?limit=1",
        "videos" => "/videos?limit=1",
        "quotas" => "/admin/quotas?limit=1",
        "jobs" => "/jobs?limit=1",
        "audit" => "/admin/audit?limit=1",
        "me" => "/me",
        _ => "/version",
    }
}
