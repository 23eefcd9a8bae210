//! How the deliveries and connections of the site are, for its overview.

use futures_util::future::join3;
use maud::{Markup, html};
use serde_json::Value;

use super::{HERE, text, title};
use crate::console::chart::shown_count;
use crate::console::client::op;
use crate::console::components::{self, Tone, badge, time};
use crate::console::i18n::connections::Health as Words;
use crate::console::i18n::fill;
use crate::console::list::{grouped, items};
use crate::console::statistics::{Part, part, shown};
use crate::console::visit::Visit;

/// What the tile is made from. Each part fails alone.
pub struct Health {
    dead: Part,
    failing: Part,
    connections: Part,
}

/// Asks for what was given up, what fails, and the connections.
pub async fn load(visit: &Visit) -> Health {
    let deliveries = |state: &str| op("list_deliveries").query("state", state).query("limit", 1);
    let (dead, failing, connections) = join3(
        part(visit, deliveries("dead")),
        part(visit, deliveries("pending").query("tried", true)),
        part(visit, op("list_connections")),
    )
    .await;
    Health { dead, failing, connections }
}

/// The tile of the deliveries, with the connections that fail.
pub fn tile(visit: &Visit, health: &Health) -> Markup {
    let t = Words::of(visit.language);
    let connections = health.connections.as_ref().and_then(|found| found.as_ref().ok());
    let bad: Vec<&Value> = connections.into_iter().flat_map(items).filter(|one| is_bad(one)).collect();
    let failing = health.failing.as_ref().and_then(|found| found.as_ref().ok());
    let failing = failing.and_then(|found| found["total"].as_u64()).unwrap_or_default();
    let below = |given_up: u64| {
        html! {
            @if given_up > 0 { (badge(Tone::Bad, t.given_up)) }
            @if failing > 0 { (badge(Tone::Warn, &fill(t.failing, &[&grouped(failing)]))) }
            @for one in &bad { (line(visit, t, one)) }
            @if given_up + failing == 0 && bad.is_empty() { p { (t.all_well) } }
        }
    };
    let total = |found: &Value| found["total"].as_u64().unwrap_or_default();
    html! {
        (shown(visit, t.given_up, &health.dead, |found| {
            components::tile(t.given_up, &shown_count(total(found)), below(total(found)))
        }))
        @if connections.is_none() { (shown(visit, t.connections, &health.connections, |_| html! {})) }
    }
}

fn is_bad(one: &Value) -> bool {
    matches!(text(one, "state"), "failing" | "paused")
}

/// A connection that fails: since when, and how many deliveries wait for it.
fn line(visit: &Visit, t: &Words, one: &Value) -> Markup {
    let since = one["failing_since"].as_i64().or(one["last_success_at"].as_i64());
    let waiting = one["waiting"].as_u64().unwrap_or_default();
    html! {
        p {
            (badge(Tone::Bad, t.fails)) " "
            a href=(visit.href(&format!("{HERE}/{}", text(one, "name")))) { (title(visit, one)) }
            @if let Some(since) = since { ": " (t.no_success_since) " " (time(since)) }
            @if waiting == 1 { ", " (t.one_waits) } @else if waiting > 1 { ", " (fill(t.many_wait, &[&grouped(waiting)])) }
        }
    }
}
