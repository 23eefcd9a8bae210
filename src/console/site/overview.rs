//! The overview of the site: what it stores, what runs, and what happened last. Each part fails alone.

use futures_util::future::{join, join3};
use maud::{Markup, html};
use serde_json::Value;

use super::connections;
use super::usage::stored;
use crate::console::chart::shown_count;
use crate::console::client::op;
use crate::console::components;
use crate::console::i18n::usage::{Overview, Usage};
use crate::console::list::items;
use crate::console::organization::overview::{LOOKED_AT, newest_changes, week_of};
use crate::console::organization::usage::jobs_now;
use crate::console::statistics::{Range, part, shown};
use crate::console::visit::{Content, View, Visit};
use crate::kernel::error::Result;

/// Shows the overview.
pub async fn show(visit: &Visit) -> Result<View> {
    let (t, usage_words) = (Overview::of(visit.language), Usage::of(visit.language));
    let present = join3(
        part(visit, op("list_organizations").query("limit", 2)),
        part(visit, op("get_usage").query("limit", 1)),
        part(visit, op("count_jobs")),
    );
    let history = join3(
        part(visit, Range::Week.call()),
        connections::health::load(visit),
        part(visit, op("list_audit").query("limit", LOOKED_AT)),
    );
    let ((organizations, usage, jobs), (week, deliveries, audit)) = join(present, history).await;
    let usage_page = visit.href("/console/site/usage");
    let body = html! {
        @if let Some(Ok(found)) = &organizations { (first_steps(visit, found)) }
        (components::tiles(html! {
            (shown(visit, t.organizations, &organizations, |data| organizations_of(visit, data)))
            (shown(visit, usage_words.stored, &usage, |data| stored(visit, &data["site"])))
            (shown(visit, usage_words.jobs, &jobs, |data| jobs_now(visit, data, None)))
            (shown(visit, usage_words.sign_ins, &week, |data| week_of(visit, data, &usage_page)))
            (connections::health::tile(visit, &deliveries))
        }))
        (shown(visit, t.audit, &audit, |data| {
            components::card(t.audit, newest_changes(visit, data, &visit.href("/console/site/audit")))
        }))
    };
    Ok(Content::new(t.title, body).into())
}

/// A link to the first steps while there is no organization but `platform`.
fn first_steps(visit: &Visit, organizations: &Value) -> Markup {
    let t = Overview::of(visit.language);
    let is_first = items(organizations).iter().all(|one| one["org_code"] == "platform");
    html! {
        @if is_first {
            (components::card(t.first_steps, html! {
                p { (t.first_organization) }
                (components::link_button(&visit.href("/console/site/first-steps"), t.first_steps))
            }))
        }
    }
}

fn organizations_of(visit: &Visit, organizations: &Value) -> Markup {
    let t = Overview::of(visit.language);
    let link = html! { p { a href=(visit.href("/console/site/organizations")) { (t.to_organizations) } } };
    components::tile(t.organizations, &shown_count(organizations["total"].as_u64().unwrap_or_default()), link)
}
