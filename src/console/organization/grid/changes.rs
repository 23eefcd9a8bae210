//! What a submitted grid changes: each role by a call of its own, as a dry run or for good.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use maud::{Markup, html};
use serde_json::{Value, json};

use super::{Column, Grid, Words, own_address};
use crate::console::client::{Call, encoded, op};
use crate::console::components::{self, Tone, badge, card};
use crate::console::i18n::{errors, fill};
use crate::console::layout;
use crate::console::organization::roles::{each, name_of, text};
use crate::console::visit::{Notice, Visit};
use crate::kernel::error::{Error, ErrorCode};

/// An Undo is offered while its fields fit into the notice's cookie.
const UNDO_BYTES_MAX: usize = 1_500;

/// What happened to one role of the form.
pub struct Report {
    column: usize,
    change: Change,
    outcome: Outcome,
}

struct Change {
    added: Vec<String>,
    removed: Vec<String>,
    /// Checked, but it stays implied because the role holds something below it.
    stays_implied: Vec<String>,
    /// What the role will hold.
    wanted: Vec<String>,
}

enum Outcome {
    /// Nothing to ask for.
    Unchanged,
    /// The answer of the dry run.
    Preview(Value),
    Done,
    Failed(Error),
}

impl Report {
    pub fn is_done(&self) -> bool {
        matches!(self.outcome, Outcome::Done)
    }

    pub fn is_preview(&self) -> bool {
        matches!(self.outcome, Outcome::Preview(_))
    }

    pub fn error(&self) -> Option<&Error> {
        match &self.outcome {
            Outcome::Failed(error) => Some(error),
            _ => None,
        }
    }
}

/// What the form changes of each role.
fn changes(grid: &Grid) -> Vec<(usize, Change)> {
    let changed = |(n, column): (usize, &Column)| {
        let change = Change::of(grid, column);
        let is_empty = change.added.is_empty() && change.removed.is_empty() && change.stays_implied.is_empty();
        (!is_empty).then_some((n, change))
    };
    grid.columns.iter().enumerate().filter(|(_, column)| !column.is_protected).filter_map(changed).collect()
}

impl Change {
    fn of(grid: &Grid, column: &Column) -> Self {
        let (before, after) = (grid.above(&column.held), grid.above(&column.checked));
        let (stays_implied, added): (Vec<String>, Vec<String>) = column
            .checked
            .difference(&column.held)
            .cloned()
            .partition(|name| before.contains(name.as_str()) && after.contains(name.as_str()));
        let kept: BTreeSet<&String> = stays_implied.iter().collect();
        Self {
            added,
            removed: column.held.difference(&column.checked).cloned().collect(),
            wanted: column.checked.iter().filter(|name| !kept.contains(name)).cloned().collect(),
            stays_implied,
        }
    }

    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }

    fn call(&self, column: &Column, is_dry: bool) -> Call {
        let mut body = json!({"permission_ids": self.wanted});
        if is_dry {
            body["dry_run"] = json!(true);
        }
        op("replace_role_permissions").at(&column.id).body(&body).if_match(Some(&column.version))
    }
}

/// Asks what the form would change.
pub async fn preview(visit: &Visit, grid: &Grid) -> Vec<Report> {
    let ask = |(n, change): (usize, Change)| async move {
        let outcome = match grid.columns.get(n).filter(|_| !change.is_empty()) {
            None => Outcome::Unchanged,
            Some(column) => match visit.call(change.call(column, true)).await {
                Ok(answer) => Outcome::Preview(answer.data["preview"].clone()),
                Err(error) => Outcome::Failed(error),
            },
        };
        Report { column: n, change, outcome }
    };
    join_all(changes(grid).into_iter().map(ask)).await
}

/// Changes each role. A role that cannot be changed does not keep the others from it.
pub async fn apply(visit: &Visit, grid: &Grid) -> Vec<Report> {
    let mut reports = Vec::new();
    for (n, change) in changes(grid) {
        let Some(column) = grid.columns.get(n).filter(|_| !change.is_empty()) else { continue };
        let outcome = match visit.call(change.call(column, false)).await {
            Ok(_) => Outcome::Done,
            Err(error) => Outcome::Failed(error),
        };
        reports.push(Report { column: n, change, outcome });
    }
    reports
}

/// The notice about changed roles, with the form that changes them back.
pub fn notice(visit: &Visit, grid: &Grid, reports: &[Report]) -> Notice {
    let t = Words::of(visit.language);
    let text = if reports.len() == 1 { t.applied_one.to_owned() } else { fill(t.applied, &[&reports.len()]) };
    let notice = Notice::new(text);
    let mut fields = vec![("act", "change".to_owned())];
    for report in reports {
        let Some(column) = grid.columns.get(report.column) else { continue };
        fields.push(("role", column.id.clone()));
        fields.push(("add", report.change.removed.join(" ")));
        fields.push(("remove", report.change.added.join(" ")));
    }
    if fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > UNDO_BYTES_MAX {
        return notice;
    }
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    notice.with_undo(own_address(visit), &fields)
}

/// What the form would change or has changed, role by role.
pub fn reports(visit: &Visit, t: &Words, grid: &Grid, reports: &[Report]) -> Markup {
    let is_preview = visit.submitted("act") == Some("preview");
    html! {
        section id="preview" aria-label=(if is_preview { t.preview_title } else { t.results_title }) {
            @if reports.is_empty() { (components::notice(Tone::Plain, t.no_change, None)) }
            @for report in reports {
                @if let Some(column) = grid.columns.get(report.column) { (card(&column.name, report_of(visit, t, report))) }
            }
        }
    }
}

fn report_of(visit: &Visit, t: &Words, report: &Report) -> Markup {
    let Change { added, removed, stays_implied, .. } = &report.change;
    let implied = match &report.outcome {
        Outcome::Preview(preview) => each(preview, "implied"),
        _ => &[],
    };
    html! {
        @match &report.outcome {
            Outcome::Failed(error) => {
                @if error.code == ErrorCode::VersionStale { (components::notice(Tone::Warn, t.stale, None)) }
                @else { (components::notice(Tone::Bad, &errors::sentence(error, visit.language), None)) }
                (layout::details(visit, error))
            }
            Outcome::Done => p { (badge(Tone::Ok, t.saved)) },
            Outcome::Preview(_) => p { (badge(Tone::Plain, t.not_saved)) },
            Outcome::Unchanged => {}
        }
        ul class="changes" {
            @for name in added { li { ins { "+ " (name) } } }
            @for name in implied { li { "◩ " (name.as_str().unwrap_or_default()) " (" (t.is_implied) ")" } }
            @for name in removed { li { del { "− " (name) } } }
        }
        @for name in stays_implied { p { (fill(t.stays_implied, &[name])) } }
        @if let Outcome::Preview(preview) = &report.outcome {
            @let (gain, lose) = (&preview["members_who_gain"], &preview["members_who_lose"]);
            @if count(gain) + count(lose) == 0 { p { (t.nobody) } }
            (members(visit, t, t.gain, gain, added.first()))
            (members(visit, t, t.lose, lose, removed.first()))
        }
    }
}

fn count(affected: &Value) -> u64 {
    affected["count"].as_u64().unwrap_or_default()
}

/// The members who gain or lose, each with the question why one of the permissions is as it is.
fn members(visit: &Visit, t: &Words, sentence: &str, affected: &Value, permission: Option<&String>) -> Markup {
    let total = count(affected);
    let named = each(affected, "members");
    if total == 0 {
        return html! {};
    }
    let name = |member: &Value| member["name"].as_str().unwrap_or_else(|| name_of(member)).to_owned();
    let why = |member: &Value, permission: &str| {
        let address = format!("why?uid={}&permission={}", encoded(text(member, "uid")), encoded(permission));
        visit.in_organization(&address)
    };
    html! {
        p { (fill(sentence, &[&total])) }
        ul {
            @for member in named {
                li {
                    a href=(visit.in_organization(&format!("members/{}", text(member, "uid")))) { (name(member)) }
                    @if let Some(permission) = permission { " · " a href=(why(member, permission)) { (t.why) } }
                }
            }
            @if total > named.len() as u64 { li { (fill(t.further, &[&(total - named.len() as u64)])) } }
        }
    }
}
