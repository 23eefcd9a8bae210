//! The API keys of services, such as workers and upload services.

use maud::{Markup, html};
use serde_json::{Value, json};

use crate::console::api_keys::{self, Keys};
use crate::console::client::op;
use crate::console::components::{self, Choice, Field, Kind, Tone};
use crate::console::form::{self, Form};
use crate::console::i18n::{errors, fields, fill, words};
use crate::console::visit::{Content, View, Visit, is_of_form};
use crate::console::{lifetime, list};
use crate::kernel::error::{Error, ErrorCode, Result};

words! {
    Words {
        title: "Service keys", "服務金鑰";
        about: "A service key lets a program act for the whole site, within its scopes. A program of one person uses a key of that member instead.", "服務金鑰讓程式能在其範圍內，以整個站台的身分操作。個人的程式請改用該成員自己的金鑰。";
        hooks: "The hooks of SFTPGo and the plugin of WordPress do not use these keys, but those in roster.toml:", "SFTPGo 的 hook 與 WordPress 外掛不使用這些金鑰，而是使用 roster.toml 中的：";
        none: "No service keys yet", "還沒有服務金鑰";
        none_text: "Create the first one below. The links above its form fill in what a kind of program needs.", "請在下方建立第一把金鑰；表單上方的連結會填入各類程式需要的範圍。";
        found_none: "No key has this in its name or service", "沒有名稱或服務符合的金鑰";
        found_none_text: "Search for another part of the name.", "請改搜尋名稱的其他部分。";
        show_all: "Show all", "顯示全部";
        new: "New service key", "新增服務金鑰";
        create: "Create the key", "建立金鑰";
        for_what: "Fill in for", "快速填入";
        worker: "a worker that processes videos", "處理影片的程式";
        uploads: "an upload service", "上傳服務";
        gateway: "a gateway that asks for decisions", "查詢判定的閘道";
        members: "a directory that reads members", "讀取成員的通訊錄";
        audit: "a log collector", "紀錄收集程式";
        kind_service: "For a program beside Roster; works for up to {} days.", "供 Roster 以外的程式使用；最多有效 {} 天。";
        kind_system: "For a part of the site itself, such as its backup; works for up to {} days.", "供站台本身使用，例如備份；最多有效 {} 天。";
        other_system: "The key was made elsewhere", "金鑰由其他系統產生";
        other_system_about: "With its SHA-256 the key of another system works here too; it is not shown again.", "填入其 SHA-256 後，其他系統的金鑰也可以在這裡使用，且不會再次顯示。";
    }
}

const OPERATION: &str = "create_api_key";
const KEYS: Keys<'static> =
    Keys { list: "list_api_keys", rotate: "rotate_api_key", delete: "delete_api_key", of: None };
const LIST: &str = "/console/site/keys";
/// Lifetimes to choose from, in days.
const LIFETIMES_D: [u32; 4] = [30, 90, 180, 365];

/// What a kind of program needs: the name of the service, which is also the value in the address, and its scopes.
struct Preset {
    service: &'static str,
    scopes: &'static [&'static str],
    text: fn(&Words) -> &'static str,
}

const PRESETS: [Preset; 5] = [
    Preset { service: "worker", scopes: &["jobs:write"], text: |t| t.worker },
    Preset { service: "uploads", scopes: &["videos:write"], text: |t| t.uploads },
    Preset { service: "gateway", scopes: &["permissions:check"], text: |t| t.gateway },
    Preset { service: "directory", scopes: &["members:read", "organizations:read"], text: |t| t.members },
    Preset { service: "logs", scopes: &["audit:read"], text: |t| t.audit },
];

/// Shows the keys, or the question before one is changed for good.
pub async fn list(visit: &Visit) -> Result<View> {
    match KEYS.question(visit).await? {
        Some((title, question)) => Ok(Content::new(title, question).into()),
        None => Ok(page(visit, html! {}, None).await?.into()),
    }
}

/// The list and the form below `above`.
async fn page(visit: &Visit, above: Markup, error: Option<&Error>) -> Result<Content> {
    let t = Words::of(visit.language);
    let call = op(KEYS.list).query_some("keyword", visit.query("keyword"));
    let data = visit.call(list::paged(visit, call)).await?.data;
    let is_searched = visit.query("keyword").is_some();
    let inner = match (list::items(&data).is_empty(), is_searched) {
        (false, _) => html! { (KEYS.table(visit, list::items(&data), true)) (list::pager(visit, &data)) },
        (true, true) => {
            components::empty(t.found_none, t.found_none_text, Some(components::link_button(&visit.here(), t.show_all)))
        }
        (true, false) => components::empty(t.none, t.none_text, None),
    };
    let search = html! {
        (components::search_field("keyword", visit.query("keyword").unwrap_or_default(), visit.frame().search))
        (list::kept(visit))
    };
    let can_create = visit.may(OPERATION);
    let body = html! {
        p { (t.about) }
        p class="hint" { (t.hooks) " " code { "hooks.sftpgo_key_file" } ", " code { "hooks.wordpress_key_file" } }
        (above)
        (components::filter_bar(&visit.here(), Some("keys"), search, visit.frame().search))
        (components::region("keys", None, inner))
        @if can_create { (components::card(t.new, new_form(visit, error)?)) }
    };
    let new = || components::link_button_of("#service_name", t.new, Kind::Main, None);
    let content = Content::new(t.title, body);
    let content = if can_create { content.actions(new()) } else { content };
    Ok(match error {
        Some(error) => content.status_of(error),
        None => content,
    })
}

fn new_form(visit: &Visit, error: Option<&Error>) -> Result<Markup> {
    let t = Words::of(visit.language);
    let preset = PRESETS.iter().find(|preset| visit.query("for") == Some(preset.service));
    let values = preset.map_or(Value::Null, |preset| json!({"service_name": preset.service, "scopes": preset.scopes}));
    let form = Form::new(visit, OPERATION)?.values(&values).error(error);
    let lives = lifetime::choices(visit, &LIFETIMES_D);
    let lives: Vec<(&str, String)> = lives.iter().map(|(value, text)| (value.as_str(), text.clone())).collect();
    let is_imported = visit.submitted("key_hash").is_some();
    let inner = html! {
        (components::hidden_input("act", "create"))
        (form.field("service_name"))
        (form.field("name"))
        (kinds(visit))
        (form.field("scopes"))
        (form.choice("expires_at", &lives))
        details open[is_imported] {
            summary { (t.other_system) }
            p class="hint" { (t.other_system_about) }
            (form.field("key_hash"))
        }
    };
    Ok(html! {
        p {
            (t.for_what) ": "
            @for (n, preset) in PRESETS.iter().enumerate() {
                @if n > 0 { " · " }
                a href={ (visit.here()) "?for=" (preset.service) "#service_name" } { ((preset.text)(t)) }
            }
        }
        (form.wrap(&visit.here(), inner, t.create))
    })
}

/// The choice of the type. What the form of a member says about types does not hold for services.
fn kinds(visit: &Visit) -> Markup {
    use crate::kernel::authz::key::{ApiKeyKind, DAY, SERVICE, SYSTEM};
    let t = Words::of(visit.language);
    let about = |kind: &ApiKeyKind, text| fill(text, &[&(kind.ttl_s / DAY)]);
    let hints = [about(&SERVICE, t.kind_service), about(&SYSTEM, t.kind_system)];
    let names = [SERVICE, SYSTEM].map(|kind| fields::value(kind.prefix, visit.language));
    let chosen = visit.submitted("type").unwrap_or(SERVICE.prefix);
    let choices: Vec<Choice<'_>> = [SERVICE.prefix, SYSTEM.prefix]
        .into_iter()
        .zip(names.iter().zip(&hints))
        .map(|(value, (label, hint))| Choice { value, label, hint: Some(hint), is_on: chosen == value })
        .collect();
    let label = fields::label("type", visit.language);
    components::choices_input(&Field::new("type", &label), "type", false, &choices)
}

/// Creates, rotates or deletes a key.
pub async fn act(visit: &Visit) -> Result<View> {
    match (visit.submitted("act"), visit.submitted("key")) {
        (Some("create"), _) => create(visit).await,
        (Some("rotate"), Some(key)) => match KEYS.rotate(visit, key).await {
            Ok(made) => Ok(shown_once(visit, &made.data)),
            Err(error) => refused(visit, error).await,
        },
        (Some("delete"), Some(key)) => match KEYS.delete(visit, key).await {
            Ok(text) => visit.done(LIST, text),
            Err(error) => refused(visit, error).await,
        },
        _ => Err(ErrorCode::BadInput.into()),
    }
}

async fn create(visit: &Visit) -> Result<View> {
    let mut body = form::read(visit.operation(OPERATION)?, visit);
    let once = visit.submitted(form::ONCE);
    // Chosen is a lifetime, and the operation takes a time.
    if let Some(at) = body["expires_at"].as_str().and_then(|text| lifetime::end_of(text, once)) {
        body["expires_at"] = json!(at);
    }
    if body["scopes"].is_null() && visit.may(OPERATION) {
        return Ok(page(visit, html! {}, Some(&Error::field("scopes", "choose at least one"))).await?.into());
    }
    match visit.call(op(OPERATION).body(&body).once(once)).await {
        Ok(made) => Ok(shown_once(visit, &made.data)),
        Err(error) if matches!(error.code, ErrorCode::SecretNotKept | ErrorCode::IdempotencyKeyReused) => {
            refused(visit, error).await
        }
        Err(error) if is_of_form(&error) => Ok(page(visit, html! {}, Some(&error)).await?.into()),
        Err(error) => Err(error),
    }
}

/// The list with what was refused above it.
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

/// The text of a new key, in this answer only.
fn shown_once(visit: &Visit, made: &Value) -> View {
    let scope = made["scopes"][0].as_str().unwrap_or_default();
    let body = api_keys::made(visit, made, api_keys::path_of(scope), &visit.here());
    Content::new(api_keys::Words::of(visit.language).made, body).into()
}

#[cfg(test)]
mod tests {
    use super::PRESETS;
    use crate::console::i18n::{Language, scopes};

    #[test]
    fn presets_name_scopes_that_exist() {
        for preset in &PRESETS {
            for scope in preset.scopes {
                assert!(scopes::about(scope, Language::English).is_some(), "{scope}");
            }
        }
    }
}
