//! The table of the grid, the form around it, and the choice of what it shows.

use std::collections::HashSet;

use maud::{Markup, html};

use super::changes::{self, Report};
use super::{Barred, Column, Grid, PermissionRow, Words};
use crate::console::components::{
    self, Choice, Field, GridCell, Held, Icon, Kind, Select, Tone, actions, badge, button_named, empty, grid_cell,
    hidden_input, icon, link_button,
};
use crate::console::i18n::fill;
use crate::console::organization::roles::{text, title_of};
use crate::console::visit::Visit;

/// The id of the form that all boxes belong to.
const FORM: &str = "grid";
/// The most roles to choose from by checkboxes.
const CHOICES_MAX: usize = 200;
/// The most withheld applications that are named.
const WITHHELD_MAX: usize = 12;
/// Permissions are indented up to this depth.
const DEPTH_MAX: usize = 4;

// ── what is shown ──

/// Search, choice of roles, and two roles beside each other.
pub fn toolbar(visit: &Visit, t: &Words, grid: &Grid) -> Markup {
    let frame = visit.frame();
    let is_chosen = |role: &serde_json::Value| grid.columns.iter().any(|column| role["id"] == column.id.as_str());
    let choices: Vec<Choice<'_>> = grid
        .roles
        .iter()
        .filter(|role| grid.roles.len() <= CHOICES_MAX || is_chosen(role))
        .map(|role| Choice {
            value: text(role, "key"),
            label: title_of(visit, role),
            hint: Some(text(role, "key")),
            is_on: is_chosen(role),
        })
        .collect();
    let is_default = !visit.query.iter().any(|(name, _)| name == "role");
    html! {
        form class="filters" method="get" action=(visit.here()) role="search" {
            (components::search_field("q", visit.query("q").unwrap_or_default(), frame.search))
            details {
                summary { (fill(t.roles_shown, &[&grid.columns.len(), &grid.roles.len()])) }
                (components::choices_input(&Field::new("roles", t.roles), "role", true, &choices))
            }
            (components::button_plain(t.show))
            @if !is_default { (link_button(&visit.with_query(&[("role", ""), ("view", "")]), t.all_roles)) }
        }
        (one_role(visit, t, grid))
        @if grid.roles.len() > 1 { (two_roles(visit, t, grid)) }
    }
}

/// On a narrow screen the grid shows one role; this chooses it.
fn one_role(visit: &Visit, t: &Words, grid: &Grid) -> Markup {
    let options: Vec<(&str, &str)> = grid.roles.iter().map(|role| (text(role, "key"), title_of(visit, role))).collect();
    let chosen = grid.columns.first().map_or("", |column| column.key.as_str());
    let around = Field::new("one-role", t.one_role);
    let select = Select { name: "role", options: &options, chosen, is_required: true };
    html! {
        form class="filters one-role" method="get" action=(visit.here()) {
            (components::field(&around, components::select_input(&around, &select)))
            @if let Some(keyword) = visit.query("q") { (hidden_input("q", keyword)) }
            (components::button_plain(t.show))
        }
    }
}

fn two_roles(visit: &Visit, t: &Words, grid: &Grid) -> Markup {
    let options: Vec<(&str, &str)> = grid.roles.iter().map(|role| (text(role, "key"), title_of(visit, role))).collect();
    let select = |id: &'static str, label: &str, at: usize| {
        let around = Field::new(id, label);
        let chosen = grid.columns.get(at).map_or("", |column| column.key.as_str());
        let select = Select { name: "role", options: &options, chosen, is_required: true };
        components::field(&around, components::select_input(&around, &select))
    };
    html! {
        details open[visit.query("view").is_some()] {
            summary { (t.two_roles) }
            form class="filters" method="get" action=(visit.here()) {
                (select("first-role", t.first_role, 0))
                (select("second-role", t.second_role, 1))
                (button_named("view", "differences", t.differences, Kind::Plain))
                @if grid.may_change { (button_named("view", "copy", t.copy, Kind::Plain)) }
            }
        }
    }
}

// ── the form ──

/// The form: reports of what it would change or has changed, buttons, and the table.
pub fn form(visit: &Visit, t: &Words, grid: &Grid, reports: &[Report]) -> Markup {
    if !grid.rows.iter().any(|row| row.is_shown) {
        let (title, sentence) = match visit.query("view") {
            Some("differences") if visit.query("q").is_none() => (t.no_difference, t.no_difference_text),
            _ => (t.nothing_found, t.nothing_found_text),
        };
        let all = visit.with_query(&[("q", ""), ("view", "")]);
        return empty(title, sentence, Some(link_button(&all, t.show_all)));
    }
    let is_changed = !visit.form.is_empty() || visit.query("view") == Some("copy");
    let to_apply = reports.iter().filter(|report| report.is_preview()).count();
    html! {
        form id=(FORM) method="post" action=(visit.with_query(&[])) data-guard {
            @for column in &grid.columns {
                (hidden_input("role", &column.id))
                (hidden_input("version", &column.etag))
                (hidden_input("held", &grid.held(column)))
            }
            (hidden_input("shown", &grid.changeable().collect::<Vec<_>>().join(" ")))
            @if grid.may_change {
                (actions(html! {
                    (button_named("act", "preview", t.preview, if to_apply > 0 { Kind::Plain } else { Kind::Main }))
                    @if to_apply > 0 { (button_named("act", "apply", &apply_text(t, to_apply), Kind::Main)) }
                    @if is_changed {
                        (link_button(&visit.with_query(&[("view", visit.query("view").filter(|view| *view != "copy").unwrap_or_default())]), t.discard))
                    }
                }))
            }
            @if !visit.form.is_empty() { (changes::reports(visit, t, grid, reports)) }
            (legend(t))
            (table(t, grid))
            (left_out(visit, t, grid))
        }
    }
}

/// The way to the permissions of Roster itself, if they are left out. An unfinished change keeps the page.
fn left_out(visit: &Visit, t: &Words, grid: &Grid) -> Markup {
    let count = if visit.form.is_empty() && visit.query("q").is_none() { grid.left_out() } else { 0 };
    html! { @if count > 0 { p { a href=(visit.with_query(&[("all", "1")])) { (fill(t.show_builtin, &[&count])) } } } }
}

fn apply_text(t: &Words, count: usize) -> String {
    if count == 1 { t.apply_one.to_owned() } else { fill(t.apply, &[&count]) }
}

/// Who can give the applications of which the visitor may give nothing, such as one that was just imported.
pub fn withheld(t: &Words, grid: &Grid) -> Markup {
    let is_shown = |name: &&String| grid.rows.iter().any(|row| row.is_shown && row.name == **name);
    let all: Vec<&str> = grid.withheld.iter().filter(is_shown).map(String::as_str).collect();
    if !grid.may_change || all.is_empty() {
        return html! {};
    }
    let mut named = all.iter().copied().take(WITHHELD_MAX).collect::<Vec<_>>().join(", ");
    if all.len() > WITHHELD_MAX {
        named.push_str(", …");
    }
    html! { (components::notice(Tone::Plain, &fill(t.withheld, &[&named]), None)) }
}

fn legend(t: &Words) -> Markup {
    html! {
        p class="quiet" {
            "■ " (t.legend_held) " · ▣ " (t.legend_asleep) " · ◩ " (t.legend_implied) " · □ " (t.legend_not) " · ⬚ "
            (t.legend_locked)
        }
    }
}

fn table(t: &Words, grid: &Grid) -> Markup {
    let shown: Vec<&PermissionRow> = grid.rows.iter().filter(|row| row.is_shown).collect();
    let implied: Vec<HashSet<&str>> = grid.columns.iter().map(|column| grid.above(&column.checked)).collect();
    // The name of the boxes of each column.
    let names: Vec<String> = (0..grid.columns.len()).map(|n| format!("c{n}")).collect();
    let columns: Vec<(&Column, &HashSet<&str>, &str)> = grid
        .columns
        .iter()
        .zip(&implied)
        .zip(&names)
        .map(|((column, implied), name)| (column, implied, name.as_str()))
        .collect();
    html! {
        div class="scroll tall" role="group" aria-label=(t.title) tabindex="0" {
            table class={ "grid" @if columns.len() > 1 { " several" } } {
                caption class="visually-hidden" { (t.title) }
                thead {
                    tr {
                        th scope="col" { (t.permission) }
                        @for (column, ..) in &columns { (heading(t, column)) }
                    }
                }
                @for branch in branches(&shown) {
                    tbody { @for (n, row) in branch.iter().enumerate() { (row_of(t, grid, row, &columns, n == 0 && branch.len() > 1)) } }
                }
            }
        }
    }
}

fn heading(t: &Words, column: &Column) -> Markup {
    html! {
        th scope="col" {
            (column.name)
            @if column.is_protected { " " (icon(Icon::Lock)) }
            @if !column.is_open { br; (badge(Tone::Warn, t.closed)) }
        }
    }
}

/// Divides the rows into what folds together: a category of the first two levels with everything below it.
fn branches<'r>(rows: &[&'r PermissionRow]) -> Vec<Vec<&'r PermissionRow>> {
    let mut branches: Vec<Vec<&PermissionRow>> = Vec::new();
    for &row in rows {
        let is_head = row.has_children && row.depth < 2;
        match branches.last_mut() {
            Some(branch) if !is_head && branch.first().is_some_and(|head| holds_together(head, row)) => {
                branch.push(row)
            }
            _ => branches.push(vec![row]),
        }
    }
    branches
}

fn holds_together(head: &PermissionRow, row: &PermissionRow) -> bool {
    if head.has_children { row.depth > head.depth } else { row.depth >= head.depth }
}

fn row_of(
    t: &Words,
    grid: &Grid,
    row: &PermissionRow,
    columns: &[(&Column, &HashSet<&str>, &str)],
    is_folding: bool,
) -> Markup {
    let depth = row.depth.min(DEPTH_MAX);
    let class = if depth == 0 { None } else { Some(format!("depth-{depth}")) };
    html! {
        tr class=[row.has_children.then_some("group")] {
            th scope="row" class=[class] {
                @if is_folding && row.has_children {
                    input type="checkbox" class="fold" autocomplete="off" aria-label=(fill(t.fold, &[&row.name]));
                }
                (row.name)
                @if row.is_asleep { " " (badge(Tone::Warn, t.asleep)) }
                @if let Some(meaning) = row.meaning { br; small class="quiet" { (meaning) } }
                @else if !row.request.is_empty() { br; small class="quiet" { (row.request) } }
            }
            @for (column, implied, name) in columns { (cell(t, grid, row, column, implied, name)) }
        }
    }
}

fn cell(t: &Words, grid: &Grid, row: &PermissionRow, column: &Column, implied: &HashSet<&str>, name: &str) -> Markup {
    let is_on = column.checked.contains(&row.name);
    let held = match is_on {
        true if row.is_asleep => Held::Asleep,
        true => Held::Yes,
        false if implied.contains(row.name.as_str()) => Held::Implied,
        false => Held::No,
    };
    let locked = if column.is_protected {
        Some(t.lock_protected)
    } else if !grid.may_change {
        Some(t.lock_read_only)
    } else if let Some(barred) = row.barred {
        Some(match barred {
            Barred::Site => t.lock_of_site,
            Barred::Application => t.lock_of_application,
        })
    } else {
        (!row.may_give).then_some(t.lock_not_held)
    };
    let mut label = fill(t.cell, &[&row.name, &column.name]);
    let state = match held {
        Held::Asleep => Some(t.asleep),
        Held::Implied => Some(t.implied),
        Held::Yes | Held::No => None,
    };
    for part in state.map(str::to_owned).into_iter().chain(locked.map(|why| fill(t.locked, &[&why]))) {
        label.push_str(", ");
        label.push_str(&part);
    }
    grid_cell(&GridCell {
        form: FORM,
        name,
        value: &row.name,
        label: &label,
        held,
        is_locked: locked.is_some(),
        is_changed: is_on != column.held.contains(&row.name),
    })
}

#[cfg(test)]
mod tests {
    use super::{PermissionRow, branches};

    #[test]
    fn categories_fold_with_what_is_below_them() {
        let row = |name: &str, depth, has_children| PermissionRow {
            name: name.to_owned(),
            depth,
            has_children,
            is_asleep: false,
            request: String::new(),
            meaning: None,
            may_give: true,
            barred: None,
            is_shown: true,
        };
        let rows = [
            row("video", 0, true),
            row("video.list", 1, false),
            row("video.item", 1, true),
            row("video.item.delete", 2, false),
            row("video.item.share", 2, true),
            row("video.item.share.end", 3, false),
            row("video.upload", 1, false),
            row("single", 0, false),
            row("other", 0, false),
        ];
        let rows: Vec<&PermissionRow> = rows.iter().collect();
        let names: Vec<Vec<&str>> =
            branches(&rows).iter().map(|branch| branch.iter().map(|row| row.name.as_str()).collect()).collect();
        assert_eq!(
            names,
            [
                vec!["video", "video.list"],
                vec!["video.item", "video.item.delete", "video.item.share", "video.item.share.end"],
                vec!["video.upload"],
                vec!["single", "other"],
            ]
        );
    }
}
