//! The connections to external systems: how each is, what to do about it, and its test.

mod differences;
pub mod health;
pub mod one;
pub mod setup;

use futures_util::future::join_all;
use maud::{Markup, html};
use serde_json::Value;

use crate::console::client::op;
use crate::console::components::{
    self, Kind, Tone, badge, button_named, card, facts, hidden_input, link_button, time, time_ago,
};
use crate::console::i18n::connections::{Connections, failure, failure_markup, remedies};
use crate::console::i18n::fill;
use crate::console::list;
use crate::console::visit::{Content, Notice, View, Visit};
use crate::kernel::error::{ErrorCode, Result};

pub use differences::task_result;

/// The address of the list.
const HERE: &str = "/console/site/connections";

/// Shows all connections.
pub async fn show(visit: &Visit) -> Result<View> {
    let t = Connections::of(visit.language);
    let found = visit.call(op("list_connections")).await?.data;
    let items = list::items(&found);
    let body = html! {
        p { (t.about) }
        @for one in items { (card(&title(visit, one), html! { (status(visit, one)) (below(visit, one)) })) }
    };
    let has_test = visit.may("test_connection") && items.iter().any(|one| one["is_testable"] == true);
    let test_all = html! {
        @if has_test {
            form method="post" action=(visit.here()) { (button_named("act", "test_all", t.test_all, Kind::Main)) }
        }
    };
    Ok(Content::new(t.title, body).actions(test_all).into())
}

/// Tests one connection, or all of them.
pub async fn act(visit: &Visit) -> Result<View> {
    match (visit.submitted("act"), visit.submitted("name")) {
        (Some("test"), Some(name)) => test(visit, name, HERE).await,
        (Some("test_all"), _) => test_all(visit).await,
        _ => Err(ErrorCode::BadInput.into()),
    }
}

/// Tests a connection, and leads to `address` with the result.
async fn test(visit: &Visit, name: &str, address: &str) -> Result<View> {
    let t = Connections::of(visit.language);
    let tested = visit.call(op("test_connection").at(name)).await?.data;
    let connection = &tested["connection"];
    let title = title(visit, connection);
    let notice = match tested["ok"].as_bool() {
        Some(true) => Notice::new(fill(t.worked, &[&title, &tested["duration_ms"]])),
        _ => {
            let said = failure(text(connection, "last_error"), visit.language);
            Notice::new(fill(t.failed, &[&title, &said])).bad()
        }
    };
    Ok(View::Redirect(address.to_owned(), Some(notice)))
}

async fn test_all(visit: &Visit) -> Result<View> {
    let t = Connections::of(visit.language);
    let found = visit.call(op("list_connections")).await?.data;
    let names = list::items(&found).iter().filter(|one| one["is_testable"] == true).map(|one| text(one, "name"));
    let tests = names.map(|name| visit.call(op("test_connection").at(name)));
    let tested = join_all(tests).await.into_iter().collect::<Result<Vec<_>>>()?;
    let working = tested.iter().filter(|answer| answer.data["ok"] == true).count();
    let notice = match tested.len() {
        0 => Notice::new(t.nothing_to_test),
        all => Notice::new(fill(t.tested, &[&all, &working, &(all - working)])),
    };
    let notice = if working < tested.len() { notice.bad() } else { notice };
    Ok(View::Redirect(HERE.to_owned(), Some(notice)))
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

/// The name of a connection for people.
fn title(visit: &Visit, one: &Value) -> String {
    title_of(visit, text(one, "kind"), text(one, "name"))
}

/// The name for people, by kind and name.
pub fn title_of(visit: &Visit, kind: &str, name: &str) -> String {
    let t = Connections::of(visit.language);
    match (kind, name.strip_prefix("oidc-")) {
        ("wordpress", _) => "WordPress".to_owned(),
        ("sftpgo", _) => "SFTPGo".to_owned(),
        ("oidc", Some(name)) => format!("OpenID Connect: {name}"),
        ("oidc", None) => "OpenID Connect".to_owned(),
        ("authentik", _) => "Authentik".to_owned(),
        ("mail", _) => t.mail.to_owned(),
        _ => t.webhooks.to_owned(),
    }
}

/// How a connection is: its state, what it says, and what to do.
fn status(visit: &Visit, one: &Value) -> Markup {
    let t = Connections::of(visit.language);
    let (tone, word) = match text(one, "state") {
        "working" => (Tone::Ok, t.working),
        "failing" => (Tone::Bad, t.failing),
        "paused" => (Tone::Bad, t.paused),
        "not_configured" => (Tone::Plain, t.not_configured),
        _ => (Tone::Plain, t.unknown),
    };
    let is_configured = one["state"] != "not_configured";
    let is_bad = tone == Tone::Bad;
    let todo = remedies(text(one, "kind"), text(one, "state"), one["remedy"].as_str(), visit.language);
    let mut rows: Vec<(&str, Markup)> = Vec::new();
    if let Some(address) = one["address"].as_str() {
        rows.push((t.address, html! { code { (address) } }));
    }
    if is_configured {
        rows.push((t.last_success, components::time_or(one["last_success_at"].as_i64(), t.never)));
    }
    if let Some(since) = one["failing_since"].as_i64() {
        rows.push((t.failing_since, time(since)));
    }
    if let Some(until) = one["paused_until"].as_i64() {
        rows.push((t.paused_until, time_ago(until)));
    }
    if let (Some(error), true) = (one["last_error"].as_str(), is_bad) {
        rows.push((t.said, html! { q { (failure_markup(error, visit.language)) } }));
    }
    if !todo.is_empty() {
        rows.push((t.todo, html! { @for sentence in &todo { p { (sentence) } } }));
    }
    let (waiting, given_up) = (one["waiting"].as_u64().unwrap_or(0), one["given_up"].as_u64().unwrap_or(0));
    if waiting + given_up > 0 {
        let counted = html! {
            @if waiting > 0 { (fill(t.waiting, &[&list::grouped(waiting)])) }
            @if waiting > 0 && given_up > 0 { " · " }
            @if given_up > 0 { (fill(t.given_up, &[&list::grouped(given_up)])) }
        };
        rows.push((t.deliveries, counted));
    }
    html! { p { (badge(tone, word)) } (facts(&rows)) }
}

/// What can be done with a connection of the list, and its settings.
fn below(visit: &Visit, one: &Value) -> Markup {
    let t = Connections::of(visit.language);
    html! {
        (settings(visit, one))
        @if one["state"] != "not_configured" {
            div.actions {
                (test_form(visit, one))
                (link_button(&visit.href(&format!("{HERE}/{}", text(one, "name"))), visit.frame().details))
            }
        } @else if one["kind"] == "webhooks" { p.quiet { (t.no_webhooks) } }
    }
}

fn test_form(visit: &Visit, one: &Value) -> Markup {
    let t = Connections::of(visit.language);
    let label = fill(t.test_one, &[&title(visit, one)]);
    html! {
        @if one["is_testable"] == true && visit.may("test_connection") {
            form method="post" action=(visit.here()) aria-label=(label) {
                (hidden_input("name", text(one, "name")))
                (button_named("act", "test", t.test, Kind::Plain))
            }
        }
    }
}

/// The settings by name, or the steps that set the connection up.
fn settings(visit: &Visit, one: &Value) -> Markup {
    let t = Connections::of(visit.language);
    if one["state"] == "not_configured" {
        let steps = setup::steps(visit, text(one, "kind"));
        return html! { @if let Some(steps) = steps { details { summary { (t.steps) } (steps) } } };
    }
    let all = one["settings"].as_array().map_or(&[][..], Vec::as_slice);
    html! {
        details {
            summary { (t.settings) }
            ul {
                @for setting in all {
                    li { code { (text(setting, "name")) } " " span.quiet { (if setting["is_set"] == true { t.is_set } else { t.is_not_set }) } }
                }
            }
        }
    }
}
