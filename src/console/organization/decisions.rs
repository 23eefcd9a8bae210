//! The decision log of an organization. Each decision leads to *Why?*, which asks the same again.

use maud::{Markup, html};
use serde_json::Value;

use super::why::sentence;
use crate::console::client::{encoded, op};
use crate::console::components::{
    Column, Field, Row, Select, Text, Tone, badge, checkbox, empty, field, filter_bar, region, select_input, table,
    text_input, time,
};
use crate::console::i18n::fill;
use crate::console::i18n::why::Decisions;
use crate::console::list;
use crate::console::visit::{Content, View, Visit};
use crate::kernel::authz::decide::Reason;
use crate::kernel::error::Result;

/// The filters of the list, as the operation names them.
const FILTERS: [&str; 4] = ["uid", "allow", "reason", "differed"];

/// Shows the newest decisions that fit the filters.
pub async fn list(visit: &Visit) -> Result<View> {
    let t = Decisions::of(visit.language);
    let mut call = op("list_decisions").query("limit", list::limit(visit));
    for name in FILTERS {
        call = call.query_some(name, visit.query(name));
    }
    let found = visit.call(call.query_some("after", visit.query("after"))).await?.data;
    let rows: Vec<Row> = found["items"].as_array().into_iter().flatten().map(|one| row(visit, t, one)).collect();
    let is_filtered = FILTERS.iter().any(|name| visit.query(name).is_some());
    let shown = if rows.is_empty() {
        empty(t.empty_title, if is_filtered { t.empty_filtered } else { t.empty_text }, None)
    } else {
        let columns = [
            Column::new(t.when),
            Column::new(t.who),
            Column::new(t.what),
            Column::new(t.outcome),
            Column::new(t.reason),
        ];
        table(t.title, &columns, rows)
    };
    let body = html! {
        p { (t.about) }
        (filters(visit, t))
        (region("list", None, html! { (shown) (newer_and_older(visit, t, &found)) }))
    };
    Ok(Content::new(t.title, body).into())
}

fn filters(visit: &Visit, t: &Decisions) -> Markup {
    let frame = visit.frame();
    let value = |name| visit.query(name).unwrap_or_default();
    let outcomes = [("", frame.all), ("true", t.allowed), ("false", t.denied)];
    let reasons: Vec<(&str, &str)> = std::iter::once(("", frame.all))
        .chain(Reason::ALL.iter().map(|reason| (reason.as_str(), reason.as_str())))
        .collect();
    let (member, outcome, reason) =
        (Field::new("uid", t.member_filter), Field::new("allow", t.outcome), Field::new("reason", t.reason));
    filter_bar(
        &visit.here(),
        Some("list"),
        html! {
            (field(&member, text_input(&member, &Text { name: "uid", value: value("uid"), ..Text::default() })))
            (field(&outcome, select_input(&outcome, &Select { name: "allow", options: &outcomes, chosen: value("allow"), is_required: false })))
            (field(&reason, select_input(&reason, &Select { name: "reason", options: &reasons, chosen: value("reason"), is_required: false })))
            (checkbox(&Field::new("differed", t.differed), "differed", "true", value("differed") == "true"))
        },
        frame.filter,
    )
}

fn row(visit: &Visit, t: &Decisions, one: &Value) -> Row {
    let (uid, input) = (one["uid"].as_str().unwrap_or_default(), &one["input"]);
    let (is_allowed, reason) = (one["allow"] == true, one["reason"].as_str().unwrap_or_default());
    let (action, path) = (input["action"].as_str().unwrap_or_default(), input["path"].as_str().unwrap_or_default());
    let question = match one["kind"].as_str() {
        Some("route") => Some(format!("method={}&path={}", encoded(action), encoded(path))),
        Some("permission") => {
            fact(input, "permission").or(Some(path)).map(|name| format!("permission={}", encoded(name)))
        }
        _ => None,
    };
    Row {
        cells: vec![
            time(one["at"].as_i64().unwrap_or_default()),
            html! { a href=(visit.in_organization(&format!("members/{uid}"))) { code { (uid.get(..8).unwrap_or(uid)) } } },
            html! { code { (action) " " (path) } },
            html! {
                (badge(if is_allowed { Tone::Ok } else { Tone::Bad }, if is_allowed { t.allowed } else { t.denied }))
                @if let Some(question) = question {
                    " " a href=(visit.in_organization(&format!("why?uid={uid}&{question}"))) { (t.why) }
                }
            },
            html! { code title=(fill(sentence(reason, visit.language), &[&uid])) { (reason) } },
        ],
        ..Row::default()
    }
}

/// A fact that the request had.
fn fact<'i>(input: &'i Value, name: &str) -> Option<&'i str> {
    let facts = input["context"].as_array()?;
    facts.iter().find(|fact| fact["name"] == name)?["values"].get(0)?.as_str()
}

/// The log is read from the newest on; each page continues where the former one ended.
fn newer_and_older(visit: &Visit, t: &Decisions, found: &Value) -> Markup {
    html! {
        nav.pager aria-label=(t.title) {
            div.pages {
                @if visit.query("after").is_some() { a.button href=(visit.with_query(&[("after", "")])) { (t.newest) } }
                @if let Some(next) = found["next"].as_str() {
                    a.button rel="next" href=(visit.with_query(&[("after", next)])) { (t.older) }
                }
            }
        }
    }
}
