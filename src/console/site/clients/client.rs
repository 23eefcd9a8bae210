//! One API client: what it may do, its limits, a new secret, and its end.

use maud::{Markup, html};
use serde_json::{Value, json};

use super::{LISTS, is_sent, limits, of_list, read, shown_once, state};
use crate::console::api_keys;
use crate::console::client::{Answer, op};
use crate::console::components::{self, Change, Confirm, Kind, Tone, Typed};
use crate::console::form::{self, Form};
use crate::console::i18n::{errors, fields, fill, words};
use crate::console::lifetime;
use crate::console::visit::{Content, Notice, View, Visit, is_of_form};
use crate::kernel::error::{Error, ErrorCode, Result};

words! {
    Words {
        created: "Created", "建立時間";
        edit: "Scopes and limits", "範圍與限制";
        saved: "Saved. It holds from the next request on.", "已儲存，從下一個請求開始生效。";
        field: "Field", "欄位";
        theirs: "Now", "目前";
        yours: "Yours", "您的";
        access: "Secret and access", "密鑰與存取";
        disable: "Disable", "停用";
        disable_text: "It is refused from the next request on. Nothing is deleted.", "從下一個請求開始遭拒，不會刪除任何資料。";
        disabled: "{} is disabled.", "已停用 {}。";
        enable: "Enable", "啟用";
        enable_text: "It works again, with the same secret.", "可再次使用，密鑰不變。";
        enabled: "{} is enabled.", "已啟用 {}。";
        rotate: "Rotate the secret", "輪替密鑰";
        rotate_text: "Gives it a new secret.", "取得新的密鑰。";
        rotate_title: "Rotate the secret of {}?", "要輪替 {} 的密鑰嗎？";
        rotate_new: "The client gets a new secret, which is shown once.", "用戶端會取得新的密鑰，且只顯示一次。";
        rotate_old: "The old secret works for {} more hours, so that you can change the program.", "舊的密鑰還能使用 {} 小時，讓您有時間更新程式。";
        rotate_maker: "If somebody else made the client, or it is denied everything now, the old secret stops at once.", "若用戶端由他人建立，或目前一律遭拒，舊的密鑰會立即失效。";
        delete: "Delete", "刪除";
        delete_text: "Ends the client for good.", "永久移除用戶端。";
        delete_title: "Delete {}?", "要刪除 {} 嗎？";
        delete_what: "The program is refused at once: its key and secret do not work any more.", "程式會立即遭拒：代碼與密鑰不再有效。";
        delete_stays: "What it did stays, also in the audit log.", "它做過的變更與稽核紀錄都會保留。";
        delete_final: "This cannot be undone.", "這個動作無法復原。";
        delete_type: "Type {} to confirm", "請輸入 {} 以確認";
        delete_differs: "The name differs. Nothing was deleted.", "輸入的名稱不符，沒有刪除任何資料。";
        deleted: "{} is deleted.", "已刪除 {}。";
        back: "All API clients", "所有 API 用戶端";
    }
}

const OPERATION: &str = "update_api_client";

fn get_path(visit: &Visit) -> String {
    format!("/console/site/clients/{}", visit.path("client_key"))
}

async fn get(visit: &Visit) -> Result<Answer> {
    visit.call(op("get_api_client").at(visit.path("client_key"))).await
}

fn name_of(client: &Value) -> &str {
    client["name"].as_str().unwrap_or_default()
}

/// Shows the client, or the question before something that cannot be undone.
pub async fn show(visit: &Visit) -> Result<View> {
    match visit.query("confirm") {
        Some("rotate") if visit.may("rotate_api_client") => Ok(confirm_rotation(visit, &get(visit).await?.data).into()),
        Some("delete") if visit.may("delete_api_client") => confirm_deletion(visit, None).await,
        _ => Ok(page(visit, html! {}, None).await?.into()),
    }
}

/// The client below `above`; after a refused change with its error.
async fn page(visit: &Visit, above: Markup, error: Option<&Error>) -> Result<Content> {
    let (t, frame) = (Words::of(visit.language), visit.frame());
    let of_all = super::Words::of(visit.language);
    let answer = get(visit).await?;
    let client = answer.data;
    let key = client["client_key"].as_str().unwrap_or_default();
    let end = client["expires_at"].as_i64();
    let rows = [
        (of_all.key, components::copyable(key, frame.copy, frame.copied)),
        (of_all.status, state(visit, &client)),
        (of_all.scopes, api_keys::scopes(visit, &client)),
        (of_all.last_used, components::time_or(client["last_used_at"].as_i64(), of_all.never)),
        (of_all.expires, end.map_or_else(|| html! { (of_all.no_end) }, components::time)),
        (t.created, components::time(client["created_at"].as_i64().unwrap_or_default())),
    ];
    let body = html! {
        (above)
        (components::facts(&rows))
        (access(visit, &client))
        @if visit.may(OPERATION) { (components::card(t.edit, edit_form(visit, &client, answer.etag.as_deref(), error)?)) }
    };
    let back = components::link_button(&visit.href("/console/site/clients"), t.back);
    let content = Content::new(name_of(&client), body).actions(back);
    Ok(match error {
        Some(error) => content.status_of(error),
        None => content,
    })
}

fn access(visit: &Visit, client: &Value) -> Markup {
    let t = Words::of(visit.language);
    if ["rotate_api_client", OPERATION, "delete_api_client"].iter().all(|operation| !visit.may(operation)) {
        return html! {};
    }
    let is_active = client["status"] == "active";
    let (act, word, about) = match is_active {
        true => ("disable", t.disable, t.disable_text),
        false => ("enable", t.enable, t.enable_text),
    };
    let link = |confirm: &str, text: &str, about: &str, kind| {
        let href = visit.with_query(&[("confirm", confirm)]);
        html! { div class="act" { (components::link_button_of(&href, text, kind, None)) p class="hint" { (about) } } }
    };
    let body = html! {
        @if visit.may("rotate_api_client") { (link("rotate", t.rotate, t.rotate_text, Kind::Plain)) }
        @if visit.may(OPERATION) {
            form class="act" method="post" action=(visit.here()) {
                (components::button_named("act", act, word, Kind::Plain))
                p class="hint" { (about) }
            }
        }
        @if visit.may("delete_api_client") { (link("delete", t.delete, t.delete_text, Kind::Danger)) }
    };
    components::card(t.access, body)
}

fn edit_form(visit: &Visit, client: &Value, etag: Option<&str>, error: Option<&Error>) -> Result<Markup> {
    let t = Words::of(visit.language);
    let frame = visit.frame();
    let is_stale = error.is_some_and(|error| error.code == ErrorCode::VersionStale);
    // After a conflict the form holds the new version: saving it again is a decision made with both states in view.
    let version = etag.filter(|_| error.is_none() || is_stale);
    let form = Form::new(visit, OPERATION)?;
    let form = if is_sent(visit) { form.values(client) } else { form.present(client) };
    let form = form.version(version).error(error);
    let inner = html! {
        (components::hidden_input("act", "update"))
        (form.field("name"))
        (form.field("scopes"))
        (limits(visit, &form, client, error))
    };
    Ok(html! {
        @if is_stale {
            p { (frame.conflict_text) }
            (components::difference(frame.conflict_title, [t.field, t.theirs, t.yours], &changes(visit, client)))
        }
        (form.wrap(&visit.here(), inner, frame.save))
    })
}

/// What the submitted form has otherwise than the client has now.
fn changes(visit: &Visit, client: &Value) -> Vec<Change> {
    let scopes: Vec<&str> = visit.submitted_all("scopes").collect();
    let day = client["expires_at"].as_i64().and_then(lifetime::day_of);
    let text = |name: &str| visit.submitted(name).unwrap_or_default().to_owned();
    let mut all = vec![
        ("name", name_of(client).to_owned(), text("name")),
        ("scopes", of_list(client, "scopes").join(", "), scopes.join(", ")),
        (
            "rate_limit_per_min",
            client["rate_limit_per_min"].as_u64().map(|rate| rate.to_string()).unwrap_or_default(),
            text("rate_limit_per_min"),
        ),
        ("expires_at", day.unwrap_or_default(), text("expires_at")),
    ];
    for name in LISTS {
        all.push((name, of_list(client, name).join(", "), super::submitted_lines(visit, name).join(", ")));
    }
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let changed = all.into_iter().filter(|(_, now, yours)| now != yours);
    let change = |(name, now, yours): (&str, String, String)| Change {
        name: fields::label(name, visit.language),
        before: some(now),
        after: some(yours),
    };
    changed.map(change).collect()
}

fn confirm_rotation(visit: &Visit, client: &Value) -> Content {
    let t = Words::of(visit.language);
    let grace_h = visit.config().client_rotation_overlap_s / 3_600;
    let title = fill(t.rotate_title, &[&name_of(client)]);
    let body = components::confirm_box(&Confirm {
        title: &title,
        action: &visit.here(),
        what_goes: &[t.rotate_new.to_owned(), fill(t.rotate_old, &[&grace_h]), t.rotate_maker.to_owned()],
        typed: None,
        sent: Some(html! {
            (components::hidden_input("act", "rotate"))
            (components::hidden_input(form::ONCE, &uuid::Uuid::now_v7().to_string()))
        }),
        submit: t.rotate,
        cancel: visit.frame().cancel,
        cancel_href: &visit.here(),
    });
    Content::new(title.clone(), body)
}

async fn confirm_deletion(visit: &Visit, fault: Option<&str>) -> Result<View> {
    let t = Words::of(visit.language);
    let answer = get(visit).await?;
    let name = name_of(&answer.data);
    let title = fill(t.delete_title, &[&name]);
    let question = components::confirm_box(&Confirm {
        title: &title,
        action: &visit.here(),
        what_goes: &[t.delete_what, t.delete_stays, t.delete_final].map(str::to_owned),
        typed: Some(Typed { name: "typed", label: &fill(t.delete_type, &[&name]), must_equal: name }),
        sent: Some(html! {
            (components::hidden_input("act", "delete"))
            (components::hidden_input(form::VERSION, answer.etag.as_deref().unwrap_or_default()))
        }),
        submit: t.delete,
        cancel: visit.frame().cancel,
        cancel_href: &visit.here(),
    });
    let body = html! { @if let Some(fault) = fault { (components::notice(Tone::Bad, fault, None)) } (question) };
    let content = Content::new(title.clone(), body);
    Ok(if fault.is_some() { content.status_of(&ErrorCode::BadInput.into()).into() } else { content.into() })
}

/// Performs what the submitted button says.
pub async fn act(visit: &Visit) -> Result<View> {
    match visit.submitted("act") {
        Some("update") => update(visit).await,
        Some("disable") => set_status(visit, "inactive").await,
        Some("enable") => set_status(visit, "active").await,
        Some("rotate") => rotate(visit).await,
        Some("delete") => delete(visit).await,
        _ => Err(ErrorCode::BadInput.into()),
    }
}

async fn update(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let present = get(visit).await?.data["expires_at"].as_i64();
    let call = op(OPERATION).at(visit.path("client_key")).if_match(visit.submitted(form::VERSION));
    let saved = match read(visit, OPERATION, present) {
        Ok(body) => visit.call(call.body(&body)).await,
        Err(error) => Err(error),
    };
    match saved {
        Ok(_) => visit.done(get_path(visit), t.saved),
        Err(error) if is_of_form(&error) && visit.may(OPERATION) => {
            Ok(page(visit, html! {}, Some(&error)).await?.into())
        }
        Err(error) => Err(error),
    }
}

/// Enables or disables the client; the notice has the inverse.
async fn set_status(visit: &Visit, status: &str) -> Result<View> {
    let t = Words::of(visit.language);
    let call = op(OPERATION).at(visit.path("client_key")).body(&json!({"status": status}));
    let (sentence, inverse) = if status == "active" { (t.enabled, "disable") } else { (t.disabled, "enable") };
    match visit.call(call).await {
        Ok(answer) => {
            let notice = Notice::new(fill(sentence, &[&name_of(&answer.data)]));
            Ok(View::Redirect(get_path(visit), Some(notice.with_undo(get_path(visit), &[("act", inverse)]))))
        }
        Err(error) => refused(visit, error).await,
    }
}

async fn rotate(visit: &Visit) -> Result<View> {
    let call = op("rotate_api_client").at(visit.path("client_key")).once(visit.submitted(form::ONCE));
    match visit.call(call).await {
        Ok(made) => Ok(shown_once(visit, &made.data).into()),
        Err(error) => refused(visit, error).await,
    }
}

/// Deletes the client, if its name was typed.
async fn delete(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let client = get(visit).await?.data;
    if visit.submitted("typed").map(str::trim) != Some(name_of(&client).trim()) {
        return confirm_deletion(visit, Some(t.delete_differs)).await;
    }
    let call = op("delete_api_client").at(visit.path("client_key")).if_match(visit.submitted(form::VERSION));
    match visit.call(call).await {
        Ok(_) => visit.done("/console/site/clients", fill(t.deleted, &[&name_of(&client)])),
        Err(error) if error.code == ErrorCode::VersionStale => {
            confirm_deletion(visit, Some(&errors::sentence(&error, visit.language))).await
        }
        Err(error) => refused(visit, error).await,
    }
}

/// The client with what was refused above it.
async fn refused(visit: &Visit, error: Error) -> Result<View> {
    if !is_of_form(&error) {
        return Err(error);
    }
    let sentence = match error.code {
        ErrorCode::SecretNotKept | ErrorCode::IdempotencyKeyReused => {
            api_keys::Words::of(visit.language).sent_already.to_owned()
        }
        _ => errors::sentence(&error, visit.language),
    };
    let above = components::notice(Tone::Bad, &sentence, None);
    Ok(page(visit, above, None).await?.status_of(&error).into())
}
