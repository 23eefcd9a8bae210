//! Parts that pages of an organization share: addresses, buttons with their sentence, the difference after a conflict,
//! and acts on several rows of a list.

use futures_util::future::join_all;
use maud::{Markup, html};
use serde_json::{Value, json};

use crate::console::client::Call;
use crate::console::components::{self, Bulk, Change, Kind, RowSelect, Tone};
use crate::console::form;
use crate::console::i18n::{errors, fields, fill, words};
use crate::console::schema::{FieldInfo, FieldKind};
use crate::console::visit::Visit;
use crate::kernel::error::{Error, ErrorCode, Result};

words! {
    Words {
        with_selected: "With the selected ones", "對已選取的項目";
        all_here: "All on this page", "本頁全選";
        some_refused: "{} done, {} not done:", "{} 筆完成，{} 筆未完成：";
        none_done: "Nothing was done:", "沒有變更任何內容：";
        field: "Field", "欄位";
        theirs: "Now", "目前";
        yours: "Yours", "您的";
    }
}

/// The address of a page without the public path: of this organization, or of the site if the address names none.
pub fn address(visit: &Visit, rest: &str) -> String {
    match visit.organization() {
        Some(_) => visit.of_organization(rest),
        None => format!("/console/site/{rest}"),
    }
}

/// The same for links.
pub fn href(visit: &Visit, rest: &str) -> String {
    visit.href(&address(visit, rest))
}

/// This page with its query, for a redirect back to it.
pub fn back(visit: &Visit) -> String {
    let address = visit.with_query(&[("confirm", "")]);
    address.strip_prefix(&visit.href("")).unwrap_or(&address).to_owned()
}

/// A form with one button that sends `act`, and what it does.
pub fn act_form(visit: &Visit, act: &str, text: &str, sentence: &str) -> Markup {
    html! {
        form class="act" method="post" action=(visit.here()) {
            (components::hidden_input(form::ONCE, &uuid::Uuid::now_v7().to_string()))
            (components::button_named("act", act, text, Kind::Plain))
            p class="hint" { (sentence) }
        }
    }
}

/// A link to the question before an act, and what it does.
pub fn act_link(visit: &Visit, confirm: &str, text: &str, sentence: &str, kind: Kind) -> Markup {
    let href = visit.with_query(&[("confirm", confirm)]);
    html! { div class="act" { (components::link_button_of(&href, text, kind, None)) p class="hint" { (sentence) } } }
}

/// What somebody else saved meanwhile beside what was submitted.
pub fn conflict(visit: &Visit, present: &Value, names: &[&str]) -> Markup {
    let (t, frame) = (Words::of(visit.language), visit.frame());
    let shown = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(all) => Some(all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")),
        other => Some(other.to_string()),
    };
    let change = |name: &&str| {
        let sent: Vec<&str> = visit.submitted_all(name).filter(|text| !text.is_empty()).collect();
        let after = match &present[*name] {
            Value::Bool(_) => Some(sent.contains(&"true").to_string()),
            _ if sent.is_empty() => None,
            _ => Some(sent.join(", ")),
        };
        let before = shown(&present[*name]);
        (before != after).then(|| Change { name: fields::label(name, visit.language), before, after })
    };
    let changes: Vec<Change> = names.iter().filter_map(change).collect();
    html! {
        p { (frame.conflict_text) }
        (components::difference(frame.conflict_title, [t.field, t.theirs, t.yours], &changes))
    }
}

/// The body of an update from a form. Empty texts that cannot be removed are sent, so that the operation refuses them.
pub fn read_update(visit: &Visit, operation: &str) -> Result<Value> {
    let operation = visit.operation(operation)?;
    let mut body = form::read(operation, visit);
    let is_text = |field: &&FieldInfo| field.kind == FieldKind::Text && !field.is_nullable;
    for field in operation.fields.iter().filter(is_text) {
        if visit.submitted_all(&field.name).next() == Some("") {
            body[&field.name] = json!("");
        }
    }
    Ok(body)
}

// ── several rows ──

/// The id of the form that acts on the selected rows.
pub const SELECTED: &str = "selected";
/// The most rows that one form acts on: a page of the list.
const SELECTED_MAX: usize = 200;
/// Calls that run at once: as many as one commit takes.
const AT_ONCE: usize = 64;

/// The checkbox of a row. `label` is for screen readers.
pub fn select(id: &str, label: String) -> RowSelect {
    RowSelect { form: SELECTED, name: "id", value: id.to_owned(), label }
}

/// The bar below a list with the acts on the selected rows. It is sent to `action`.
pub fn bar(visit: &Visit, action: &str, buttons: Markup) -> Markup {
    let t = Words::of(visit.language);
    let counted = visit.frame().selected;
    components::bulk_bar(&Bulk { form: SELECTED, action, text: t.with_selected, counted, all: t.all_here }, buttons)
}

/// The act that was submitted, and the rows: that of the button in a row, else the selected ones.
pub fn chosen(visit: &Visit) -> Result<(&str, Vec<&str>)> {
    let sent = visit.submitted("act").unwrap_or_default();
    let (act, of_row) = sent.split_once(' ').map_or((sent, None), |(act, id)| (act, Some(id)));
    let mut ids: Vec<&str> = match of_row {
        Some(id) => vec![id],
        None => visit.submitted_all("id").filter(|id| !id.is_empty()).collect(),
    };
    ids.sort_unstable();
    ids.dedup();
    if ids.len() > SELECTED_MAX { Err(ErrorCode::TooLarge.into()) } else { Ok((act, ids)) }
}

/// What became of several rows.
pub struct Outcomes {
    /// The answers of those that were done.
    pub done: Vec<Value>,
    /// The ids of the others, with the reasons.
    pub refused: Vec<(String, Error)>,
}

/// Calls the operation for each row. Fails only if the session had ended before anything was done.
pub async fn perform(visit: &Visit, ids: &[&str], call: impl Fn(&str) -> Call + Send + Sync) -> Result<Outcomes> {
    let mut outcomes = Outcomes { done: Vec::new(), refused: Vec::new() };
    for some in ids.chunks(AT_ONCE) {
        for (id, result) in join_all(some.iter().map(async |id| (*id, visit.call(call(id)).await))).await {
            match result {
                Ok(answer) => outcomes.done.push(answer.data),
                Err(error) => outcomes.refused.push((id.to_owned(), error)),
            }
        }
    }
    let ended = outcomes.refused.iter().find(|(_, error)| error.code.status() == 401);
    match ended {
        Some((_, error)) if outcomes.done.is_empty() => Err(error.clone()),
        _ => Ok(outcomes),
    }
}

/// Tells which rows were refused, and why.
pub fn refusals(visit: &Visit, outcomes: &Outcomes) -> Markup {
    let t = Words::of(visit.language);
    let (tone, text) = match outcomes.done.len() {
        0 => (Tone::Bad, t.none_done.to_owned()),
        done => (Tone::Warn, fill(t.some_refused, &[&done, &outcomes.refused.len()])),
    };
    html! {
        (components::notice(tone, &text, None))
        ul class="results" {
            @for (id, error) in &outcomes.refused { li { code { (id) } " – " (errors::sentence(error, visit.language)) } }
        }
    }
}
