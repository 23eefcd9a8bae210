//! The settings of an organization, for its owners.

use futures_util::future::join;
use maud::{Markup, html};
use serde_json::Value;

use super::members::is_shown_in_form;
use super::parts;
use crate::console::client::{Answer, op};
use crate::console::components;
use crate::console::form::{Form, VERSION};
use crate::console::i18n::{fields, fill, words};
use crate::console::list::grouped;
use crate::console::visit::{Content, Notice, View, Visit};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::units::shown_bytes;

words! {
    Words {
        title: "Organization settings", "組織設定";
        code: "Code", "代碼";
        code_about: "It is part of addresses and cannot change.", "代碼是網址的一部分，無法變更。";
        status: "Status", "狀態";
        created: "Created", "建立時間";
        settings: "Settings", "設定";
        factor_about: "Sessions of members without a second factor are refused from their next request on, yours too: set yours up first.", "沒有第二因素驗證的成員，其工作階段從下一個請求起會被拒絕，包含您本人；請先完成自己的設定。";
        to_security: "Your second factor", "您的第二因素驗證";
        saved: "The settings are saved.", "已儲存設定。";
        storage: "Storage", "儲存空間";
        used_of: "{} of {}", "{} / {}";
        used: "{}, without a ceiling", "{}，沒有上限";
        videos: "Videos", "影片";
        ceiling_about: "The ceiling is for all members together. Only administrators of the site change it.", "上限由所有成員共用，只有站台管理員能變更。";
        to_usage: "Usage in detail", "用量明細";
    }
}

/// The fields of the form, which are also those of the difference after a conflict.
const NAMES: [&str; 3] = ["name", "tax_id", "second_factor_required"];

/// Shows the settings, and the ceiling of the storage.
pub async fn show(visit: &Visit) -> Result<View> {
    Ok(page(visit, None).await?.into())
}

fn organization_id(visit: &Visit) -> &str {
    visit.organization().map_or("", |here| here.id.as_str())
}

async fn page(visit: &Visit, error: Option<&Error>) -> Result<Content> {
    let t = Words::of(visit.language);
    let get = visit.call(op("get_organization").at(organization_id(visit)));
    let (found, usage) = join(get, visit.find(op("get_usage"))).await;
    let found = found?;
    let text = |key: &str| found.data[key].as_str().unwrap_or_default();
    let facts = [
        (t.code, html! { code { (text("org_code")) } " " span class="quiet" { (t.code_about) } }),
        (t.status, html! { (fields::value(text("status"), visit.language)) }),
        (t.created, components::time(found.data["created_at"].as_i64().unwrap_or_default())),
    ];
    let body = html! {
        (components::facts(&facts))
        (components::card(t.settings, form(visit, &found, error)?))
        @if let Some(storage) = usage.and_then(|usage| storage(visit, &usage)) { (components::card(t.storage, storage)) }
    };
    Ok(Content::new(t.title, body))
}

fn form(visit: &Visit, found: &Answer, error: Option<&Error>) -> Result<Markup> {
    let t = Words::of(visit.language);
    let is_stale = error.is_some_and(|error| error.code == ErrorCode::VersionStale);
    // After a conflict the form holds the new version: saving it again is a decision made with both states in view.
    let version = found.etag.as_deref().filter(|_| error.is_none() || is_stale);
    // The rules of a new organization, because its name cannot be removed.
    let form = Form::new(visit, "create_organization")?.values(&found.data).version(version).error(error);
    let inner = html! {
        (components::hidden_input("act", "update"))
        (form.field("name"))
        (form.field("tax_id"))
        (form.field("second_factor_required"))
        p class="hint" { (t.factor_about) " " a href=(visit.href("/console/me/security")) { (t.to_security) } }
    };
    Ok(html! {
        @if is_stale { (parts::conflict(visit, &found.data, &NAMES)) }
        (form.wrap(&visit.here(), inner, visit.frame().save))
    })
}

/// What the organization stores, of how much.
fn storage(visit: &Visit, usage: &Value) -> Option<Markup> {
    let t = Words::of(visit.language);
    let all = usage["organizations"].as_array()?;
    let own = all.iter().find(|one| one["organization_id"] == organization_id(visit))?;
    let (used, size) = (own["used"].as_i64().unwrap_or_default(), own["size"].as_i64());
    let figure = match size {
        Some(size) => fill(t.used_of, &[&shown_bytes(used), &shown_bytes(size)]),
        None => fill(t.used, &[&shown_bytes(used)]),
    };
    let meter = components::meter(t.storage, used.unsigned_abs(), size.map(i64::unsigned_abs), &figure);
    Some(html! {
        p { (meter) }
        p { (t.videos) ": " (grouped(own["videos"].as_u64().unwrap_or_default())) }
        p class="hint" { (t.ceiling_about) }
        p { a href=(visit.in_organization("usage")) { (t.to_usage) } }
    })
}

/// Saves the settings; the Undo restores what they were.
pub async fn act(visit: &Visit) -> Result<View> {
    if visit.submitted("act") != Some("update") {
        return Err(ErrorCode::BadInput.into());
    }
    let id = organization_id(visit);
    let body = parts::read_update(visit, "update_organization")?;
    let former = visit.call(op("get_organization").at(id)).await?.data;
    match visit.call(op("update_organization").at(id).body(&body).if_match(visit.submitted(VERSION))).await {
        Ok(_) => {
            let address = visit.of_organization("settings");
            let text = |key: &str| former[key].as_str().unwrap_or_default();
            let was_required = if former["second_factor_required"] == true { "true" } else { "" };
            let fields = [
                ("act", "update"),
                ("name", text("name")),
                ("tax_id", text("tax_id")),
                ("second_factor_required.shown", "1"),
                ("second_factor_required", was_required),
            ];
            let notice = Notice::new(Words::of(visit.language).saved).with_undo(address.clone(), &fields);
            Ok(View::Redirect(address, Some(notice)))
        }
        Err(error) if is_shown_in_form(visit, "update_organization", &error) => {
            Ok(page(visit, Some(&error)).await?.status_of(&error).into())
        }
        Err(error) => Err(error),
    }
}
