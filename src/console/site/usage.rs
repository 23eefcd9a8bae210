//! The usage of the site: its organizations against their ceilings, the fullest members, and charts over time.

use futures_util::future::join4;
use maud::{Markup, html};
use serde_json::Value;

use crate::console::chart::shown_count;
use crate::console::client::op;
use crate::console::components::{self, Column, Row};
use crate::console::i18n::fill;
use crate::console::i18n::usage::Usage;
use crate::console::organization::usage::{charts, fullest_table, jobs_now, signed_in};
use crate::console::statistics::{self, Range, in_bytes, part, shown};
use crate::console::visit::{Content, View, Visit};
use crate::kernel::error::Result;

/// The organizations and members that are listed: those that use most.
const LISTED: u64 = 50;

/// Shows the usage.
pub async fn show(visit: &Visit) -> Result<View> {
    let t = Usage::of(visit.language);
    let oldest = op("list_jobs").query("state", "queued").query("sort", "created_at").query("limit", 1);
    let (usage, jobs, oldest, over_time) = join4(
        visit.call(op("get_usage").query("limit", LISTED)),
        part(visit, op("count_jobs")),
        part(visit, oldest),
        part(visit, Range::of(visit).call()),
    )
    .await;
    let usage = usage?.data;
    let organizations = usage["organizations"].as_array().map_or(&[][..], Vec::as_slice);
    let body = html! {
        p { (t.about) }
        (statistics::ranges(visit))
        (components::tiles(html! {
            (stored(visit, &usage["site"]))
            (shown(visit, t.jobs, &jobs, |data| jobs_now(visit, data, oldest.as_ref())))
            (shown(visit, t.sign_ins, &over_time, |data| signed_in(visit, data)))
        }))
        (components::card(t.organizations, organizations_of(visit, organizations)))
        (components::card(t.fullest, fullest(visit, &usage["top"], organizations)))
        (charts(visit, &over_time, usage["site"]["used"].as_u64().unwrap_or_default()))
    };
    Ok(Content::new(t.title, body).into())
}

/// What the whole site stores.
pub fn stored(visit: &Visit, site: &Value) -> Markup {
    let t = Usage::of(visit.language);
    let number = |key: &str| site[key].as_u64().unwrap_or_default();
    let below = html! {
        @if number("reserved") > 0 { p { (fill(t.reserved, &[&in_bytes(number("reserved"))])) } }
        p { (shown_count(number("videos"))) " " (t.videos) }
        @if number("ownerless_videos") > 0 {
            p { (fill(t.ownerless, &[&shown_count(number("ownerless_videos")), &in_bytes(number("ownerless_bytes"))])) }
        }
    };
    components::tile(t.stored, &in_bytes(number("used")), below)
}

fn organizations_of(visit: &Visit, organizations: &[Value]) -> Markup {
    let t = Usage::of(visit.language);
    if organizations.is_empty() {
        let link = components::link_button(&visit.href("/console/site/organizations"), t.to_organizations);
        return components::empty(t.no_organization, t.no_organization_text, Some(link));
    }
    let row = |of: &Value| {
        let bytes = |key: &str| of[key].as_u64().unwrap_or_default();
        let ceiling = of["size"].as_u64();
        let text = match ceiling {
            Some(size) => fill(t.used_of, &[&in_bytes(bytes("used")), &in_bytes(size)]),
            None => t.no_ceiling.to_owned(),
        };
        Row {
            cells: vec![
                html! { (of["name"].as_str().unwrap_or_default()) },
                components::meter(t.share, bytes("used"), ceiling, &text),
                html! { (in_bytes(bytes("used"))) },
                html! { (shown_count(bytes("videos"))) },
            ],
            href: of["org_code"].as_str().map(|code| visit.href(&format!("/console/o/{code}/usage"))),
            ..Row::default()
        }
    };
    let columns = [Column::new(t.organization), Column::new(t.share), Column::number(t.used), Column::number(t.videos)];
    components::table(t.organizations, &columns, organizations.iter().map(row).collect())
}

/// The fullest members, each with a link to its quota in the organization it counts under.
fn fullest(visit: &Visit, top: &Value, organizations: &[Value]) -> Markup {
    let accounts = top.as_array().map_or(&[][..], Vec::as_slice);
    let address = |account: &Value| {
        let own = &account["organization_id"];
        let of = organizations.iter().find(|of| !own.is_null() && of["organization_id"] == *own)?;
        let (code, uid) = (of["org_code"].as_str()?, account["uid"].as_str()?);
        Some(visit.href(&format!("/console/o/{code}/members/{uid}/quota")))
    };
    fullest_table(visit, accounts, address, None)
}
