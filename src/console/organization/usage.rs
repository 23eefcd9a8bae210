//! The usage of an organization: storage against its ceiling, its fullest members, and charts over time.

use futures_util::future::{join, join3};
use maud::{Markup, html};
use serde_json::{Value, json};

use super::members::quota::exact_bytes;
use crate::console::chart::{Part as Share, shown_count, stacked_bar};
use crate::console::client::op;
use crate::console::components::{self, Column, Field, Kind, Row, Text, Tone};
use crate::console::form::Form;
use crate::console::i18n::usage::Usage;
use crate::console::i18n::{errors, fields, fill};
use crate::console::list::items;
use crate::console::statistics::{self, Part, Range, in_bytes, part, shown};
use crate::console::visit::{Content, Notice, View, Visit, is_of_form};
use crate::kernel::error::{Error, Result};
use crate::kernel::units::{parse_bytes, shown_bytes};

/// The accounts among which the fullest are found: those that use most.
const LOOKED_AT: u64 = 200;
/// The fullest members that are shown.
const SHOWN: usize = 20;
/// A quota from here on means that there is no limit.
const NO_LIMIT_BYTES: u64 = 9_000_000_000_000_000;

/// Shows the usage.
pub async fn show(visit: &Visit) -> Result<View> {
    Ok(page(visit, None).await?.into())
}

async fn page(visit: &Visit, error: Option<&Error>) -> Result<Content> {
    let t = Usage::of(visit.language);
    let (usage, (members, jobs, oldest), over_time) = {
        let oldest = op("list_jobs").query("state", "queued").query("sort", "created_at").query("limit", 1);
        let parts = join3(
            part(visit, op("list_quotas").query("limit", LOOKED_AT)),
            part(visit, op("count_jobs")),
            part(visit, oldest),
        );
        let (usage, (parts, over_time)) =
            join(visit.call(op("get_usage").query("limit", 1)), join(parts, part(visit, Range::of(visit).call())))
                .await;
        (usage?.data, parts, over_time)
    };
    let of = &usage["organizations"][0];
    let body = html! {
        p { (t.about) }
        (statistics::ranges(visit))
        (components::tiles(html! {
            (stored(visit, of))
            (shown(visit, t.jobs, &jobs, |data| jobs_now(visit, data, oldest.as_ref())))
            (shown(visit, t.sign_ins, &over_time, |data| signed_in(visit, data)))
        }))
        @if visit.may("update_organization_quota") { (components::card(t.ceiling, ceiling_form(visit, of, error)?)) }
        (shown(visit, t.fullest, &members, |data| fullest(visit, items(data))))
        (charts(visit, &over_time, of["used"].as_u64().unwrap_or_default()))
    };
    let content = Content::new(t.title, body);
    Ok(match error {
        Some(error) => content.status_of(error),
        None => content,
    })
}

/// The charts over time, each of which stands alone.
pub fn charts(visit: &Visit, over_time: &Part, used: u64) -> Markup {
    let Some(Ok(data)) = over_time else { return html! {} };
    html! {
        (statistics::growth(visit, data, used))
        (statistics::jobs(visit, data))
        (statistics::decisions(visit, data))
        (statistics::sign_ins(visit, data))
    }
}

fn stored(visit: &Visit, of: &Value) -> Markup {
    let t = Usage::of(visit.language);
    let bytes = |key: &str| of[key].as_u64().unwrap_or_default();
    let ceiling = of["size"].as_u64();
    let text = match ceiling {
        Some(size) => fill(t.used_of, &[&in_bytes(bytes("used")), &in_bytes(size)]),
        None => t.no_ceiling.to_owned(),
    };
    let videos = format!("{} {}", shown_count(bytes("videos")), t.videos);
    let below = html! {
        (components::meter(t.stored, bytes("used"), ceiling, &text))
        @if bytes("reserved") > 0 { p { (fill(t.reserved, &[&in_bytes(bytes("reserved"))])) } }
        p {
            @match statistics::list_href(visit, "list_videos", "videos") {
                Some(href) => a href=(href) { (videos) },
                None => (videos),
            }
        }
    };
    components::tile(t.stored, &in_bytes(bytes("used")), below)
}

/// Jobs by state, and since when the oldest one waits.
pub fn jobs_now(visit: &Visit, jobs: &Value, oldest: Option<&Result<Value>>) -> Markup {
    let t = Usage::of(visit.language);
    let count = |key: &str| jobs[key].as_u64().unwrap_or_default();
    let share = |key: &'static str| (key, fields::value(key, visit.language), shown_count(count(key)));
    let named = ["queued", "held", "leased", "done", "dead"].map(share);
    let shares: Vec<Share<'_>> = named
        .iter()
        .map(|(key, name, text)| {
            let href = statistics::list_href(visit, "list_jobs", &format!("jobs?state={key}"));
            Share { name, value: count(key), text: text.clone(), href }
        })
        .collect();
    let all = shares.iter().map(|share| share.value).fold(0, u64::saturating_add);
    let waiting = count("queued").saturating_add(count("held"));
    let since =
        oldest.and_then(|oldest| oldest.as_ref().ok()).and_then(|jobs| items(jobs).first()?["created_at"].as_i64());
    let below = html! {
        @if count("dead") > 0 { (components::badge(Tone::Bad, &fill(t.given_up, &[&shown_count(count("dead"))]))) }
        @if let Some(since) = since { p { (t.oldest) " " (components::time_ago(since)) } }
        @if all > 0 { (stacked_bar(t.jobs_now, &shares, all)) }
    };
    components::tile(t.jobs, &fill(t.waiting, &[&shown_count(waiting)]), below)
}

/// The sign-ins of the period, and how many failed.
pub fn signed_in(visit: &Visit, over_time: &Value) -> Markup {
    let t = Usage::of(visit.language);
    let failed = statistics::sum(&over_time["sign_ins"]["failed"]);
    let below = html! { p { (fill(t.failed_count, &[&shown_count(failed)])) } };
    components::tile(t.sign_ins, &shown_count(statistics::signed_in(over_time)), below)
}

/// Members by how full their quota is.
fn fullest(visit: &Visit, accounts: &[Value]) -> Markup {
    let t = Usage::of(visit.language);
    let address = |account: &Value| {
        let uid = account["uid"].as_str().unwrap_or_default();
        Some(visit.in_organization(&format!("members/{uid}/quota"))).filter(|_| visit.may("get_user"))
    };
    let videos = statistics::list_href(visit, "list_videos", "videos")
        .map(|href| components::link_button_of(&href, t.all_videos, Kind::Plain, None));
    components::card(t.fullest, fullest_table(visit, accounts, address, videos))
}

/// The fullest of these accounts. `address` leads to where the quota of a member can be changed.
pub fn fullest_table(
    visit: &Visit,
    accounts: &[Value],
    address: impl Fn(&Value) -> Option<String>,
    first_step: Option<Markup>,
) -> Markup {
    let t = Usage::of(visit.language);
    let mut used: Vec<&Value> = accounts.iter().filter(|account| account["used"].as_u64() > Some(0)).collect();
    if used.is_empty() {
        return components::empty(t.nobody, t.nobody_text, first_step);
    }
    // The order of the same share is that of the list: who uses most comes first.
    used.sort_by_key(|account| std::cmp::Reverse(account["percent"].as_u64()));
    let row = |account: &&Value| {
        let bytes = |key: &str| account[key].as_u64().unwrap_or_default();
        let uid = account["uid"].as_str().unwrap_or_default();
        let limit = Some(bytes("size")).filter(|size| *size < NO_LIMIT_BYTES);
        let share = format!("{} %", account["percent"].as_u64().unwrap_or_default());
        Row {
            cells: vec![
                html! {
                    @match account["username"].as_str() {
                        Some(name) => (name),
                        None => code { (uid.get(..8).unwrap_or(uid)) },
                    }
                },
                components::meter(t.share, bytes("used"), limit, if limit.is_some() { &share } else { t.no_limit }),
                html! { (in_bytes(bytes("used"))) },
                html! { @if let Some(limit) = limit { (in_bytes(limit)) } @else { (t.no_limit) } },
            ],
            href: address(account),
            ..Row::default()
        }
    };
    let columns = [Column::new(t.member), Column::new(t.share), Column::number(t.used), Column::number(t.size)];
    html! {
        p { (t.fullest_about) }
        (components::table(t.fullest, &columns, used.iter().take(SHOWN).map(row).collect()))
    }
}

fn ceiling_form(visit: &Visit, of: &Value, error: Option<&Error>) -> Result<Markup> {
    let t = Usage::of(visit.language);
    let form = Form::new(visit, "update_organization_quota")?.error(error);
    // Not a number of bytes, as the operation takes it, but a size with a unit.
    let of_size = error.into_iter().flat_map(|error| &error.fields).filter(|field| field.name() == "size");
    let faults: Vec<String> = of_size.map(|field| errors::field_message(&field.message, visit.language)).collect();
    let present = of["size"].as_i64().map(exact_bytes).unwrap_or_default();
    let value = if error.is_some() { visit.submitted("size").unwrap_or_default() } else { &present };
    let label = fields::label("size", visit.language);
    let about = Field::new("size", &label).mark(visit.frame().optional).hint(t.ceiling_hint).faults(&faults);
    let text = Text { name: "size", value, autocomplete: Some("off"), maxlength: Some(40), ..Text::default() };
    Ok(form.wrap(&visit.here(), components::text_field(&about, &text), t.save))
}

/// Changes the ceiling; its Undo sets the former one.
pub async fn act(visit: &Visit) -> Result<View> {
    let t = Usage::of(visit.language);
    let Some(here) = visit.organization() else { return show(visit).await };
    let size = match visit.submitted("size").map(str::trim) {
        None | Some("") => Value::Null,
        Some(text) => match parse_bytes(text) {
            Some(bytes) => json!(bytes),
            None => return Ok(page(visit, Some(&Error::field("size", t.not_a_size))).await?.into()),
        },
    };
    let former = visit.find(op("get_usage").query("limit", 1)).await;
    let call = op("update_organization_quota").at(&here.id).body(&json!({"size": size}));
    match visit.call(call).await {
        Ok(answer) => {
            let text = match answer.data["size"].as_i64() {
                Some(bytes) => fill(t.saved, &[&here.name, &shown_bytes(bytes)]),
                None => fill(t.removed, &[&here.name]),
            };
            let address = visit.of_organization("usage");
            let undo = former.map(|usage| {
                usage["organizations"][0]["size"].as_i64().map(|bytes| bytes.to_string()).unwrap_or_default()
            });
            let notice = Notice::new(text);
            Ok(View::Redirect(
                address.clone(),
                Some(match undo {
                    Some(size) => notice.with_undo(address, &[("size", &size)]),
                    None => notice,
                }),
            ))
        }
        Err(error) if is_of_form(&error) => Ok(page(visit, Some(&error)).await?.into()),
        Err(error) => Err(error),
    }
}
