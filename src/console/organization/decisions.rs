//! The decision log of an organization. Each decision leads to *Why?*, which asks the same again.

use maud::{Markup, html};
use serde_json::Value;

use crate::console::client::{Call, encoded, op};
use crate::console::components::{
    Column, Field, Row, Select, Tone, badge, checkbox, empty, field, filter_bar, region, select_input, table, time,
};
use crate::console::i18n::fields;
use crate::console::i18n::why::Decisions;
use crate::console::list;
use crate::console::people::{self, Named};
use crate::console::visit::{Content, View, Visit};
use crate::kernel::authz::decide::Reason;
use crate::kernel::error::Result;

/// The filters of the list, as the operation names them.
const FILTERS: [&str; 4] = ["uid", "allow", "reason", "differed"];

/// Shows the newest decisions that fit the filters.
pub async fn list(visit: &Visit) -> Result<View> {
    let t = Decisions::of(visit.language);
    let who = match visit.query("uid") {
        Some(text) => Some(people::named(visit, text).await?),
        None => None,
    };
    let faults: Vec<String> = who.iter().filter_map(|who| who.fault(visit)).map(str::to_owned).collect();
    let found = match &who {
        Some(Named::Nobody | Named::Several) => Value::Null,
        Some(Named::One(uid)) => visit.call(asked(visit).query("uid", uid)).await?.data,
        None => visit.call(asked(visit)).await?.data,
    };
    let rows: Vec<Row> = found["items"].as_array().into_iter().flatten().map(|one| row(visit, t, one)).collect();
    let is_filtered = FILTERS.iter().any(|name| visit.query(name).is_some());
    let shown = if rows.is_empty() {
        let text = if is_filtered { t.empty_filtered } else { t.empty_text };
        empty(t.empty_title, faults.first().map_or(text, String::as_str), None)
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
        (filters(visit, t, &faults))
        (region("list", None, html! { (shown) (list::newest_and_older(visit, t.title, &found)) }))
    };
    Ok(Content::new(t.title, body).into())
}

/// The list with the other filters of the address.
fn asked(visit: &Visit) -> Call {
    let call = op("list_decisions").query("limit", list::limit(visit)).query_some("after", visit.query("after"));
    FILTERS[1..].iter().fold(call, |call, name| call.query_some(name, visit.query(name)))
}

fn filters(visit: &Visit, t: &Decisions, faults: &[String]) -> Markup {
    let frame = visit.frame();
    let value = |name| visit.query(name).unwrap_or_default();
    let outcomes = [("", frame.all), ("true", t.allowed), ("false", t.denied)];
    let named: Vec<(&str, String)> =
        Reason::ALL.iter().map(|one| (one.as_str(), fields::value(one.as_str(), visit.language))).collect();
    let reasons: Vec<(&str, &str)> =
        std::iter::once(("", frame.all)).chain(named.iter().map(|(code, text)| (*code, text.as_str()))).collect();
    let (outcome, reason) = (Field::new("allow", t.outcome), Field::new("reason", t.reason));
    filter_bar(
        &visit.here(),
        Some("list"),
        html! {
            (people::field(visit, "uid", t.who, faults))
            (field(&outcome, select_input(&outcome, &Select { name: "allow", options: &outcomes, chosen: value("allow"), is_required: false })))
            (field(&reason, select_input(&reason, &Select { name: "reason", options: &reasons, chosen: value("reason"), is_required: false })))
            (checkbox(&Field::new("differed", t.differed), "differed", "true", value("differed") == "true"))
        },
        frame.filter,
    )
}

fn row(visit: &Visit, t: &Decisions, one: &Value) -> Row {
    let (uid, input) = (one["uid"].as_str().unwrap_or_default(), &one["input"]);
    let is_allowed = one["allow"] == true;
    let (action, path) = (input["action"].as_str().unwrap_or_default(), input["path"].as_str().unwrap_or_default());
    let question = match one["kind"].as_str() {
        Some("route") => Some(format!("method={}&path={}", encoded(action), encoded(path))),
        Some("permission") => {
            fact(input, "permission").or(Some(path)).map(|name| format!("permission={}", encoded(name)))
        }
        Some("grant") => {
            let named = ["scope_type", "scope_id", "module"].map(|name| (name, fact(input, name).unwrap_or_default()));
            let parts = named.into_iter().chain([("action", action)]);
            Some(parts.map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&"))
        }
        _ => None,
    };
    Row {
        cells: vec![
            time(one["at"].as_i64().unwrap_or_default()),
            who(visit, one),
            html! { code { (action) " " (path) } },
            html! {
                (badge(if is_allowed { Tone::Ok } else { Tone::Bad }, if is_allowed { t.allowed } else { t.denied }))
                @if let Some(question) = question {
                    " " a href=(visit.in_organization(&format!("why?uid={uid}&{question}"))) { (t.why) }
                }
            },
            reason(visit, one),
        ],
        ..Row::default()
    }
}

/// About whom it was decided, by name if the member is still known.
pub fn who(visit: &Visit, one: &Value) -> Markup {
    let uid = one["uid"].as_str().unwrap_or_default();
    html! {
        @match one["name"].as_str() {
            Some(name) => a href=(visit.in_organization(&format!("members/{uid}"))) { (name) },
            None => code title=(uid) { (uid.get(..8).unwrap_or(uid)) },
        }
    }
}

/// The reason of a decision in words, with its code for pointers.
pub fn reason(visit: &Visit, one: &Value) -> Markup {
    let code = one["reason"].as_str().unwrap_or_default();
    html! { span title=(code) { (fields::value(code, visit.language)) } }
}

/// A fact that the request had.
fn fact<'i>(input: &'i Value, name: &str) -> Option<&'i str> {
    let facts = input["context"].as_array()?;
    facts.iter().find(|fact| fact["name"] == name)?["values"].get(0)?.as_str()
}
