//! One connection: its state, the deliveries that wait for it, and how its accounts differ from the members.

use futures_util::future::{OptionFuture, join};
use maud::{Markup, html};
use serde_json::{Value, json};

use super::differences::{self, Above};
use super::{HERE, settings, status, test, test_form, text, title};
use crate::console::client::op;
use crate::console::components::{
    Column, Kind, Row, Tab, Tone, button_named, card, empty, hidden_input, link_button, notice, table, tabs, time,
    time_or,
};
use crate::console::i18n::connections::{Connections, failure_markup};
use crate::console::i18n::{errors, fields, fill};
use crate::console::list;
use crate::console::organization::deliveries::is_failing;
use crate::console::visit::{Content, View, Visit};
use crate::kernel::error::{ErrorCode, Result};

/// Shows the connection that the address names.
pub async fn show(visit: &Visit) -> Result<View> {
    let above = differences::asked(visit).await;
    Ok(page(visit, above).await?.into())
}

/// Tests the connection, delivers again, compares accounts and brings them in line.
pub async fn act(visit: &Visit) -> Result<View> {
    let name = visit.path("name");
    let here = format!("{HERE}/{name}");
    match visit.submitted("act") {
        Some("test") => test(visit, name, &here).await,
        Some("retry") => {
            let id = visit.submitted("id").ok_or(ErrorCode::BadInput)?;
            visit.call(op("retry_delivery").at(id)).await?;
            visit.done(with_state(&here, visit.submitted("state")), Connections::of(visit.language).retried)
        }
        Some("compare") if name == "wordpress" => {
            let found = visit.call(op("sync_wordpress").body(&json!({"dry_run": true}))).await;
            let above = match found {
                Ok(found) => Above::WordPress(found.data),
                Err(error) => Above::Failed(error),
            };
            Ok(page(visit, Some(above)).await?.into())
        }
        Some("bring") if name == "wordpress" => in_background(visit, "sync_wordpress").await,
        Some("bring") if name == "sftpgo" => in_background(visit, "reconcile_sftpgo").await,
        _ => Err(ErrorCode::BadInput.into()),
    }
}

/// Starts an operation as a task, and leads to the page that shows it.
async fn in_background(visit: &Visit, operation: &'static str) -> Result<View> {
    let started = visit.call(op(operation).query("background", true).body(&json!({"dry_run": false}))).await?.data;
    Ok(View::Redirect(format!("/console/me/tasks/{}", text(&started, "id")), None))
}

fn with_state(address: &str, state: Option<&str>) -> String {
    match state {
        Some("dead") => format!("{address}?state=dead"),
        _ => address.to_owned(),
    }
}

async fn page(visit: &Visit, above: Option<Above>) -> Result<Content> {
    let t = Connections::of(visit.language);
    let found = visit.call(op("list_connections")).await?.data;
    let name = visit.path("name");
    let one = list::items(&found).iter().find(|one| one["name"] == name).ok_or(ErrorCode::ConnectionNotFound)?;
    let deliveries = deliveries(visit, one).await?;
    let accounts = match above {
        Some(Above::Failed(error)) => {
            let sentence = errors::sentence(&error, visit.language);
            let form = differences::part(visit, text(one, "kind"), None);
            let body = html! { (notice(Tone::Bad, &sentence, None)) (form) };
            let mut content = Content::new(title(visit, one), whole(visit, one, &body, &deliveries));
            content = content.status_of(&error);
            return Ok(content.actions(link_button(&visit.href(HERE), t.all_connections)));
        }
        above => differences::part(visit, text(one, "kind"), above),
    };
    let accounts = if one["state"] == "not_configured" {
        html! {}
    } else {
        accounts
    };
    let content = Content::new(title(visit, one), whole(visit, one, &accounts, &deliveries));
    Ok(content.actions(link_button(&visit.href(HERE), t.all_connections)))
}

fn whole(visit: &Visit, one: &Value, accounts: &Markup, deliveries: &Markup) -> Markup {
    html! {
        (card("", html! { (status(visit, one)) (settings(visit, one)) (test_form(visit, one)) }))
        (accounts)
        (deliveries)
    }
}

/// The deliveries to this connection that wait, or that were given up.
async fn deliveries(visit: &Visit, one: &Value) -> Result<Markup> {
    let t = Connections::of(visit.language);
    let target = match text(one, "kind") {
        kind @ ("wordpress" | "sftpgo" | "mail") => kind,
        "webhooks" => "webhook",
        _ => return Ok(html! {}),
    };
    if !visit.may("list_deliveries") {
        return Ok(html! {});
    }
    let is_dead = visit.query("state") == Some("dead") || visit.submitted("state") == Some("dead");
    let state = if is_dead { "dead" } else { "pending" };
    let call = || op("list_deliveries").query("target", target).query("state", state);
    // What fails holds up what comes after it, so it stands above the newest.
    let is_first = !is_dead && list::offset(visit) == 0;
    let of_failing = || visit.find(call().query("tried", true).query("limit", list::limit(visit)));
    let failing = OptionFuture::from(is_first.then(of_failing));
    let (found, failing) = join(visit.call(list::paged(visit, call())), failing).await;
    let (found, failing) = (found?.data, failing.flatten().unwrap_or_default());
    let above = list::items(&failing);
    let others = list::items(&found).iter().filter(|one| above.iter().all(|known| known["id"] != one["id"]));
    let tab = |text, state: &str, is_current| Tab {
        href: visit.with_query(&[("state", state), ("offset", ""), ("compare", ""), ("confirm", "")]),
        text,
        is_current,
    };
    let rows: Vec<Row> = above.iter().chain(others).map(|delivery| row(visit, t, delivery, state)).collect();
    let columns = [
        Column::new(t.event),
        Column::new(t.at),
        Column::number(t.attempts),
        Column::new(t.next_at),
        Column::new(t.error),
        Column::new(""),
    ];
    Ok(html! {
        section {
            h2 { (t.deliveries) }
            (tabs(t.deliveries, &[tab(t.state_pending, "", !is_dead), tab(t.state_dead, "dead", is_dead)]))
            @if rows.is_empty() { (empty(t.no_deliveries, t.no_deliveries_text, None)) }
            @else { (table(t.deliveries, &columns, rows)) (list::pager(visit, &found)) }
        }
    })
}

fn row(visit: &Visit, t: &Connections, delivery: &Value, state: &str) -> Row {
    // One that was not tried yet waits for its turn.
    let may_retry = visit.may("retry_delivery") && is_failing(delivery);
    let event = fields::value(text(delivery, "kind"), visit.language);
    let label = fill("{}: {}", &[&t.retry, &event]);
    let retry = html! {
        @if may_retry {
            form method="post" action=(visit.here()) aria-label=(label) {
                (hidden_input("id", text(delivery, "id")))
                (hidden_input("state", state))
                (button_named("act", "retry", t.retry, Kind::Quiet))
            }
        }
    };
    Row {
        cells: vec![
            html! { (event) },
            time(delivery["at"].as_i64().unwrap_or_default()),
            html! { (delivery["attempts"]) },
            time_or(delivery["next_at"].as_i64(), "–"),
            html! { @if let Some(error) = delivery["last_error"].as_str() { (failure_markup(error, visit.language)) } },
            retry,
        ],
        ..Row::default()
    }
}
