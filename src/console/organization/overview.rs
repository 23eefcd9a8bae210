//! The overview of an organization: what it stores, what runs, and what happened last. Each part is shown to those who
//! may see it, and fails alone.

use futures_util::future::{join, join3, join4};
use maud::{Markup, html};
use serde_json::Value;

use super::decisions;
use crate::console::audit;
use crate::console::chart::shown_count;
use crate::console::client::op;
use crate::console::components::{self, Column, Row, State, Step, Tone};
use crate::console::i18n::fill;
use crate::console::i18n::usage::{Overview, Usage};
use crate::console::list::items;
use crate::console::statistics::{self, Part, Range, part, shown};
use crate::console::visit::{Content, View, Visit};
use crate::kernel::error::Result;

/// How many denials and changes are listed.
const LISTED: usize = 5;
/// The entries among which the newest changes are found: one request can make many.
pub const LOOKED_AT: u64 = 200;

/// The operations of the parts. Who may use none of them has no overview.
pub const PARTS: &[&str] =
    &["list_users", "get_usage", "count_jobs", "list_plugins", "get_statistics", "list_decisions", "list_audit"];

/// Shows the overview, or leads to the visitor's own page.
pub async fn show(visit: &Visit) -> Result<View> {
    if !PARTS.iter().any(|operation| visit.may(operation)) {
        return Ok(View::Redirect("/console/me".to_owned(), None));
    }
    let t = Overview::of(visit.language);
    let figures = join4(
        part(visit, op("list_users").query("limit", 1)),
        part(visit, op("get_usage").query("limit", 1)),
        part(visit, op("count_jobs")),
        part(visit, op("list_plugins").query("limit", 200)),
    );
    let history = join3(
        part(visit, Range::Week.call()),
        part(visit, op("list_decisions").query("allow", false).query("limit", LISTED)),
        part(visit, op("list_audit").query("limit", LOOKED_AT)),
    );
    let ((users, usage, jobs, plugins), (week, denials, changes)) = join(figures, history).await;
    let usage_page = visit.in_organization("usage");
    let body = html! {
        @if let Some(Ok(users)) = &users { (first_steps(visit, users)) }
        (components::tiles(html! {
            (shown(visit, t.members, &users, |data| members(visit, data)))
            (shown(visit, Usage::of(visit.language).stored, &usage, |data| stored(visit, data)))
            (shown(visit, Usage::of(visit.language).jobs, &jobs, |data| jobs_of(visit, data)))
            (shown(visit, t.plugins, &plugins, |data| plugins_of(visit, data)))
            (shown(visit, Usage::of(visit.language).sign_ins, &week, |data| week_of(visit, data, &usage_page)))
        }))
        (listed(visit, t.denials, &denials, |data| denials_of(visit, data)))
        (listed(visit, t.audit, &changes, |data| newest_changes(visit, data, &visit.in_organization("audit"))))
    };
    Ok(Content::new(t.title, body).into())
}

/// A list below the tiles. A failure is a tile of its own.
fn listed(visit: &Visit, title: &str, part: &Part, show: impl FnOnce(&Value) -> Markup) -> Markup {
    shown(visit, title, part, |data| components::card(title, show(data)))
}

/// What to do while nobody else belongs to the organization.
fn first_steps(visit: &Visit, users: &Value) -> Markup {
    let t = Overview::of(visit.language);
    if users["total"].as_u64().is_none_or(|total| total > 1) {
        return html! {};
    }
    let all = [
        (t.step_invite, "create_invitation", "invitations"),
        (t.step_roles, "list_role_permissions", "grid"),
        (t.step_ask, "check_permission", "why"),
    ];
    let steps: Vec<Step<'_>> = all
        .into_iter()
        .filter(|(_, operation, _)| visit.may(operation))
        .map(|(text, _, rest)| Step {
            text,
            state: State::Waiting,
            state_text: t.open,
            note: None,
            href: Some(visit.in_organization(rest)),
        })
        .collect();
    html! {
        @if !steps.is_empty() {
            (components::card(t.first_steps, html! { p { (t.first_steps_about) } (components::rail(&steps)) }))
        }
    }
}

fn members(visit: &Visit, users: &Value) -> Markup {
    let t = Overview::of(visit.language);
    let link = html! { p { a href=(visit.in_organization("members")) { (t.to_members) } } };
    components::tile(t.members, &shown_count(users["total"].as_u64().unwrap_or_default()), link)
}

fn stored(visit: &Visit, usage: &Value) -> Markup {
    let t = Usage::of(visit.language);
    let of = &usage["organizations"][0];
    let bytes = |key: &str| of[key].as_u64().unwrap_or_default();
    let used = statistics::in_bytes(bytes("used"));
    let ceiling = of["size"].as_u64();
    let text =
        ceiling.map_or_else(|| t.no_ceiling.to_owned(), |size| fill(t.used_of, &[&used, &statistics::in_bytes(size)]));
    let below = html! {
        (components::meter(t.stored, bytes("used"), ceiling, &text))
        p { a href=(visit.in_organization("usage")) { (t.title) } }
    };
    components::tile(t.stored, &used, below)
}

fn jobs_of(visit: &Visit, jobs: &Value) -> Markup {
    let t = Usage::of(visit.language);
    let count = |key: &str| jobs[key].as_u64().unwrap_or_default();
    let waiting = fill(t.waiting, &[&shown_count(count("queued").saturating_add(count("held")))]);
    let below = html! {
        @if count("dead") > 0 { (components::badge(Tone::Bad, &fill(t.given_up, &[&shown_count(count("dead"))]))) }
        @if let Some(href) = statistics::list_href(visit, "list_jobs", "jobs") { p { a href=(href) { (t.jobs) } } }
    };
    components::tile(t.jobs, &waiting, below)
}

fn plugins_of(visit: &Visit, plugins: &Value) -> Markup {
    let t = Overview::of(visit.language);
    let in_force = items(plugins).iter().filter(|plugin| !plugin["mode"].is_null()).count();
    let quarantined: Vec<&str> = items(plugins)
        .iter()
        .filter(|plugin| plugin["quarantined"] == true)
        .filter_map(|plugin| plugin["name"].as_str())
        .collect();
    let below = html! {
        @if !quarantined.is_empty() {
            (components::badge(Tone::Bad, &fill(t.quarantined, &[&quarantined.join(", ")])))
            p { (t.quarantined_text) }
        } @else if items(plugins).is_empty() { p { (t.no_plugin) } }
        p { a href=(visit.in_organization("plugins")) { (t.to_plugins) } }
    };
    components::tile(t.plugins, &fill(t.plugins_text, &[&in_force]), below)
}

/// The sign-ins and the denials of the last 7 days. `usage_page` has more of both.
pub fn week_of(visit: &Visit, week: &Value, usage_page: &str) -> Markup {
    let (t, usage) = (Overview::of(visit.language), Usage::of(visit.language));
    let failed = statistics::sum(&week["sign_ins"]["failed"]);
    let to_usage = html! { p { a href=(usage_page) { (t.to_usage) } } };
    let sign_ins = html! {
        p { (t.week) }
        @if failed > 0 { p { (fill(usage.failed_count, &[&shown_count(failed)])) } }
        (to_usage)
    };
    let denials = html! {
        p { (t.week) }
        @match statistics::list_href(visit, "list_decisions", "decisions?allow=false") {
            Some(href) => p { a href=(href) { (t.to_denied) } },
            None => (to_usage),
        }
    };
    html! {
        (components::tile(usage.sign_ins, &shown_count(statistics::signed_in(week)), sign_ins))
        @if let Some(denied) = statistics::denied(week) {
            (components::tile(t.denied, &shown_count(denied), denials))
        }
    }
}

fn denials_of(visit: &Visit, denials: &Value) -> Markup {
    let t = Overview::of(visit.language);
    let row = |one: &Value| {
        let part = |key: &str| one["input"][key].as_str().unwrap_or_default();
        Row {
            cells: vec![
                components::time_ago(one["at"].as_i64().unwrap_or_default()),
                decisions::who(visit, one),
                html! { code { (part("action")) " " (part("path")) } },
                decisions::reason(visit, one),
            ],
            ..Row::default()
        }
    };
    let columns = [Column::new(t.when), Column::new(t.who), Column::new(t.what), Column::new(t.reason)];
    html! {
        @if items(denials).is_empty() { p { (t.no_denials) } }
        @else { (components::table(t.denials, &columns, items(denials).iter().map(row).collect())) }
        p { a href=(visit.in_organization("decisions")) { (t.all_decisions) } }
    }
}

/// The newest changes, as a table. `href` leads to the whole audit log.
pub fn newest_changes(visit: &Visit, changes: &Value, href: &str) -> Markup {
    let t = Overview::of(visit.language);
    html! {
        @if items(changes).is_empty() { p { (t.no_audit) } }
        @else { (audit::newest(visit, t.audit, items(changes), LISTED)) }
        p { a href=(href) { (t.all_audit) } }
    }
}
