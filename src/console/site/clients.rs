//! The API clients of the site: back-office programs with a key, a secret, scopes and limits.
//!
//! **Invariant.** A secret is shown only in the answer of the form that made it.

pub mod client;

use maud::{Markup, html};
use serde_json::{Value, json};

use crate::console::client::op;
use crate::console::components::{self, Area, Column, Field, Kind, Row, Text, TextKind, Tone};
use crate::console::form::{self, Form};
use crate::console::i18n::{errors, fields, words};
use crate::console::visit::{Content, View, Visit, is_of_form};
use crate::console::{api_keys, lifetime, list};
use crate::kernel::error::{self, Error, ErrorCode, Result};
use crate::kernel::ids::Timestamp;

words! {
    Words {
        title: "API clients", "API 用戶端";
        about: "An API client is a program that manages members and rights: it signs in with a key and a secret, and may do what its scopes open. Scripts, uploads and workers use API keys instead.", "API 用戶端是管理成員與權限的程式：以代碼與密鑰登入，可做的事由範圍決定。腳本、上傳與處理程式請改用 API 金鑰。";
        to_keys: "Service keys", "服務金鑰";
        none: "No API clients yet", "還沒有 API 用戶端";
        none_text: "Create the first one below: a name, and the scopes that the program needs.", "請在下方建立：填寫名稱，並選擇程式需要的範圍。";
        found_none: "No client has this in its name or key", "沒有名稱或代碼符合的用戶端";
        found_none_text: "Search for another part of the name.", "請改搜尋名稱的其他部分。";
        show_all: "Show all", "顯示全部";
        name: "Name", "名稱";
        key: "Client key", "用戶端代碼";
        scopes: "Scopes", "範圍";
        status: "State", "狀態";
        expired: "Expired", "已過期";
        last_used: "Last used", "上次使用";
        never: "never", "從未使用";
        expires: "Expires", "到期時間";
        no_end: "does not expire", "不會到期";
        expires_hint: "Empty: it does not expire. Otherwise it works to the end of this day (UTC).", "留空代表不會到期；否則可使用到這一天結束（UTC）。";
        new: "New API client", "新增 API 用戶端";
        create: "Create the client", "建立用戶端";
        limits: "Limits", "限制";
        made: "The secret of {}", "{} 的密鑰";
        once: "Copy the secret now, and store it where the program finds it. It is shown only this once.", "請立即複製密鑰，並存放在程式能讀取的地方。密鑰只會顯示這一次。";
        former: "The old secret works until", "舊的密鑰可使用至";
        try_it: "Try it", "試試看";
        open: "To the client", "前往用戶端";
        back: "All API clients", "所有 API 用戶端";
    }
}

const OPERATION: &str = "create_api_client";
/// The lists of a client that a form writes as lines.
const LISTS: [&str; 3] = ["allowed_ips", "allowed_origins", "allowed_paths"];

/// Shows the clients, and the form for a new one.
pub async fn list(visit: &Visit) -> Result<View> {
    Ok(page(visit, html! {}, None).await?.into())
}

/// The list and the form below `above`.
async fn page(visit: &Visit, above: Markup, error: Option<&Error>) -> Result<Content> {
    let t = Words::of(visit.language);
    let call = op("list_api_clients").query_some("keyword", visit.query("keyword"));
    let data = visit.call(list::paged(visit, call)).await?.data;
    let inner = match (list::items(&data).is_empty(), visit.query("keyword").is_some()) {
        (false, _) => html! { (table(visit, list::items(&data))) (list::pager(visit, &data)) },
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
        p { (t.about) " " a href=(visit.href("/console/site/keys")) { (t.to_keys) } }
        (above)
        (components::filter_bar(&visit.here(), Some("clients"), search, visit.frame().search))
        (components::region("clients", None, inner))
        @if can_create { (components::card(t.new, new_form(visit, error)?)) }
    };
    let content = Content::new(t.title, body);
    let content = match can_create {
        true => content.actions(components::link_button_of("#name", t.new, Kind::Main, None)),
        false => content,
    };
    Ok(match error {
        Some(error) => content.status_of(error),
        None => content,
    })
}

fn table(visit: &Visit, clients: &[Value]) -> Markup {
    let t = Words::of(visit.language);
    let columns = [t.name, t.key, t.scopes, t.status, t.last_used].map(Column::new);
    let row = |client: &Value| {
        let text = |name: &str| client[name].as_str().unwrap_or_default();
        Row {
            cells: vec![
                html! { (text("name")) },
                html! { code { (text("client_key")) } },
                api_keys::scopes(visit, client),
                state(visit, client),
                components::time_or(client["last_used_at"].as_i64(), t.never),
            ],
            href: Some(format!("{}/{}", visit.here(), text("client_key"))),
            ..Row::default()
        }
    };
    components::table(t.title, &columns, clients.iter().map(row).collect())
}

fn state(visit: &Visit, client: &Value) -> Markup {
    let t = Words::of(visit.language);
    let status = client["status"].as_str().unwrap_or_default();
    let is_over = client["expires_at"].as_i64().is_some_and(|at| at <= Timestamp::now().0);
    match (is_over, status) {
        (true, _) => components::badge(Tone::Bad, t.expired),
        (_, "active") => components::badge(Tone::Ok, &fields::value(status, visit.language)),
        _ => components::badge(Tone::Warn, &fields::value(status, visit.language)),
    }
}

fn new_form(visit: &Visit, error: Option<&Error>) -> Result<Markup> {
    let t = Words::of(visit.language);
    let form = Form::new(visit, OPERATION)?.error(error);
    let is_limited =
        LISTS.iter().chain(&["rate_limit_per_min", "expires_at"]).any(|name| visit.submitted(name).is_some());
    let inner = html! {
        (components::hidden_input("act", "create"))
        (form.field("name"))
        (form.field("scopes"))
        details open[is_limited] {
            summary { (t.limits) " (" (visit.frame().optional) ")" }
            (limits(visit, &form, &Value::Null, error))
        }
    };
    Ok(form.wrap(&visit.here(), inner, t.create))
}

/// The fields that restrict a client. `client` has its present values.
fn limits(visit: &Visit, form: &Form<'_>, client: &Value, error: Option<&Error>) -> Markup {
    let t = Words::of(visit.language);
    let label = fields::label("expires_at", visit.language);
    let faults = faults_at(visit, error, "expires_at");
    let about = Field::new("expires_at", &label).mark(visit.frame().optional).hint(t.expires_hint).faults(&faults);
    let end = client["expires_at"].as_i64().and_then(lifetime::day_of).filter(|_| !is_sent(visit));
    let value = end.as_deref().or_else(|| visit.submitted("expires_at")).unwrap_or_default();
    let end = Text { name: "expires_at", value, kind: TextKind::Date, ..Text::default() };
    html! {
        @for name in LISTS { (lines(visit, name, client, error)) }
        (form.field("rate_limit_per_min"))
        (components::text_field(&about, &end))
    }
}

/// A list as an area with a line for each entry.
fn lines(visit: &Visit, name: &str, client: &Value, error: Option<&Error>) -> Markup {
    let label = fields::label(name, visit.language);
    let (hint, faults) = (fields::about(name, "", visit.language), faults_at(visit, error, name));
    let about = Field::new(name, &label).mark(visit.frame().optional).faults(&faults);
    let about = hint.as_deref().map_or(about, |hint| about.hint(hint));
    let value = match is_sent(visit) {
        true => visit.submitted(name).unwrap_or_default().to_owned(),
        false => of_list(client, name).join("\n"),
    };
    let area = Area { name, value: &value, rows: 2, is_code: true, ..Area::default() };
    components::field(&about, components::textarea_input(&about, &area))
}

/// Whether the form of a client was submitted, not another one of the page.
fn is_sent(visit: &Visit) -> bool {
    matches!(visit.submitted("act"), Some("create" | "update"))
}

/// The texts of a list of a client.
fn of_list<'c>(client: &'c Value, name: &str) -> Vec<&'c str> {
    client[name].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The lines of a submitted area.
fn submitted_lines<'v>(visit: &'v Visit, name: &'v str) -> Vec<&'v str> {
    let all = visit.submitted_all(name).flat_map(str::lines).map(str::trim);
    all.filter(|line| !line.is_empty()).collect()
}

/// The messages about a field; those about an entry of a list name it.
fn faults_at(visit: &Visit, error: Option<&Error>, name: &str) -> Vec<String> {
    let all = error.iter().flat_map(|error| &error.fields);
    let of_field = all.filter(|field| field.location.get(1).is_some_and(|at| at == name));
    let text = |field: &error::Field| {
        let message = errors::field_message(&field.message, visit.language);
        let entry = field.location.get(2).and_then(|index| index.parse::<usize>().ok());
        match entry.and_then(|index| submitted_lines(visit, name).get(index).map(|line| (*line).to_owned())) {
            Some(line) => format!("{line}: {message}"),
            None => message,
        }
    };
    of_field.map(text).collect()
}

/// Reads the submitted fields. `present` is the end that the client has, which a form shows as a day.
fn read(visit: &Visit, operation: &str, present: Option<i64>) -> Result<Value> {
    let mut body = form::read(visit.operation(operation)?, visit);
    for name in LISTS {
        body[name] = json!(submitted_lines(visit, name));
    }
    if let Some(day) = visit.submitted("expires_at") {
        let is_kept = present.and_then(lifetime::day_of).as_deref() == Some(day);
        let end = if is_kept { present } else { lifetime::end_of_day(day) };
        body["expires_at"] = json!(end.ok_or_else(|| Error::field("expires_at", "must be a date"))?);
    }
    match body["scopes"].is_null() {
        true => Err(Error::field("scopes", "choose at least one")),
        false => Ok(body),
    }
}

/// Creates a client.
pub async fn act(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    if visit.submitted("act") != Some("create") {
        return Err(ErrorCode::BadInput.into());
    }
    let made = match read(visit, OPERATION, None) {
        Ok(body) => visit.call(op(OPERATION).body(&body).once(visit.submitted(form::ONCE))).await,
        // Who may not create one sees no form.
        Err(_) if !visit.may(OPERATION) => Err(ErrorCode::Forbidden.into()),
        Err(error) => Err(error),
    };
    match made {
        Ok(made) => Ok(shown_once(visit, &made.data).into()),
        Err(error) if matches!(error.code, ErrorCode::SecretNotKept | ErrorCode::IdempotencyKeyReused) => {
            let sentence = api_keys::Words::of(visit.language).sent_already;
            let above = html! {
                (components::notice(Tone::Bad, sentence, None))
                (components::actions(components::link_button(&visit.here(), t.back)))
            };
            Ok(Content::new(t.title, above).status_of(&error).into())
        }
        Err(error) if is_of_form(&error) => Ok(page(visit, html! {}, Some(&error)).await?.into()),
        Err(error) => Err(error),
    }
}

/// The secret of a client, in this answer only, with a first request.
fn shown_once(visit: &Visit, made: &Value) -> Content {
    let (t, frame) = (Words::of(visit.language), visit.frame());
    let text = |name: &str| made[name].as_str().unwrap_or_default();
    let (key, secret) = (text("client_key"), text("api_key"));
    let path = api_keys::path_of(made["scopes"][0].as_str().unwrap_or_default());
    let command = format!(
        "curl -H 'X-Client-Key: {key}' -H 'X-API-Key: {secret}' '{}{path}'",
        crate::console::me::api_address(visit)
    );
    let client = visit.href(&format!("/console/site/clients/{key}"));
    let body = html! {
        (components::secret_once(secret, t.once, frame.copy, frame.copied))
        (components::facts(&[
            (t.key, components::copyable(key, frame.copy, frame.copied)),
            (t.scopes, api_keys::scopes(visit, made)),
        ]))
        @if let Some(until) = made["former_valid_until"].as_i64() { p { (t.former) " " (components::time(until)) } }
        h2 { (t.try_it) }
        (components::copyable_block(&command, frame.copy, frame.copied))
        (components::actions(html! {
            (components::link_button(&client, t.open))
            (components::link_button(&visit.href("/console/site/clients"), t.back))
        }))
    };
    Content::new(crate::console::i18n::fill(t.made, &[&text("name")]), body)
}
