//! The log of a plugin.

use maud::{Markup, html};
use serde_json::Value;

use super::{address, text};
use crate::console::client::{encoded, op};
use crate::console::components::{
    Column, Field, Row, Select, Tone, badge, empty, field, filter_bar, region, select_input, table, time,
};
use crate::console::i18n::fields;
use crate::console::i18n::plugins::Plugin;
use crate::console::list;
use crate::console::visit::{Content, View, Visit};
use crate::kernel::error::Result;

const LEVELS: [&str; 4] = ["debug", "info", "warn", "error"];

/// The whole log, by level and page.
pub async fn show(visit: &Visit) -> Result<View> {
    let (t, name, frame) = (Plugin::of(visit.language), visit.path("name"), visit.frame());
    let level = visit.query("level").filter(|level| LEVELS.contains(level));
    let call = op("get_plugin_log").at(name).query_some("level", level);
    let lines = visit.call(list::paged(visit, call)).await?.data;
    let levels: Vec<(&str, &str)> =
        std::iter::once(("", frame.all)).chain(LEVELS.map(|level| (level, level))).collect();
    let about = Field::new("level", t.level);
    let select = Select { name: "level", options: &levels, chosen: level.unwrap_or_default(), is_required: false };
    let body = html! {
        p { a href=(visit.href(&address(visit, &encoded(name)))) { (name) } }
        p { (t.log_about) }
        (filter_bar(&visit.here(), Some("list"), html! { (field(&about, select_input(&about, &select))) (list::kept(visit)) }, frame.filter))
        (region("list", None, html! {
            @if list::items(&lines).is_empty() { (empty(if level.is_some() { t.log_filtered } else { t.log_empty }, "", None)) }
            @else { (rows(visit, t, &lines)) (list::pager(visit, &lines)) }
        }))
    };
    Ok(Content::new(format!("{} · {name}", t.log), body).into())
}

/// The newest lines, on the page of the plugin at this address.
pub(super) fn newest(visit: &Visit, page: &str, lines: &Value) -> Markup {
    let t = Plugin::of(visit.language);
    let more = lines["total"].as_u64().unwrap_or_default() > list::items(lines).len() as u64;
    html! {
        h2 id="log" { (t.log) }
        @if list::items(lines).is_empty() { p.quiet { (t.log_empty) } }
        @else { (rows(visit, t, lines)) }
        @if more { p { a href={ (page) "/log" } { (t.log_all) } } }
    }
}

fn rows(visit: &Visit, t: &Plugin, lines: &Value) -> Markup {
    let row = |line: &Value| {
        let level = text(line, "level");
        let tone = match level {
            "error" => Tone::Bad,
            "warn" => Tone::Warn,
            _ => Tone::Plain,
        };
        Row {
            cells: vec![
                time(line["at"].as_i64().unwrap_or_default()),
                badge(tone, level),
                html! { (text(line, "message")) },
                html! { "v" (line["version"]) " " (fields::value(text(line, "mode"), visit.language)) },
            ],
            ..Row::default()
        }
    };
    let columns = [Column::new(t.at), Column::new(t.level), Column::new(t.message), Column::new(t.version)];
    table(t.log, &columns, list::items(lines).iter().map(row).collect())
}
