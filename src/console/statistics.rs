//! What overviews and pages of usage share: parts that fail alone, the period, and the charts of `get_statistics`.

use maud::{Markup, html};
use serde_json::Value;

use super::chart::{self, Chart, Series, shown_count};
use super::client::{Call, op};
use super::components::{self, Tab, Tone};
use super::i18n::usage::Usage;
use super::i18n::{errors, fields, fill};
use super::visit::Visit;
use crate::kernel::error::{Error, Result};
use crate::kernel::ids::Timestamp;
use crate::kernel::units::{shown_bytes, shown_moment};

const DAY_MS: i64 = 86_400_000;
/// The series that a chart can tell apart.
const SERIES_MAX: usize = 6;

/// A part of a page: `None` if the visitor may not see it.
pub type Part = Option<Result<Value>>;

/// Calls an operation for a part of a page.
pub async fn part(visit: &Visit, call: Call) -> Part {
    if !visit.may(call.operation) {
        return None;
    }
    Some(visit.call(call).await.map(|answer| answer.data))
}

/// A part with its data, or the sentence why it has none.
pub fn shown(visit: &Visit, title: &str, part: &Part, show: impl FnOnce(&Value) -> Markup) -> Markup {
    match part {
        None => html! {},
        Some(Ok(data)) => show(data),
        Some(Err(error)) => failed(visit, title, error),
    }
}

/// A part that cannot be shown now. The rest of the page stays.
pub fn failed(visit: &Visit, title: &str, error: &Error) -> Markup {
    let t = Usage::of(visit.language);
    html! {
        section class="tile failed" {
            h2 { (title) }
            p { (components::badge(Tone::Bad, t.unavailable)) }
            p class="hint" { (errors::sentence_markup(error, visit.language)) }
        }
    }
}

/// The period that a page shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// The last day, by hour.
    Now,
    Week,
    Month,
}

impl Range {
    const ALL: [Self; 3] = [Self::Now, Self::Week, Self::Month];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Week => "7d",
            Self::Month => "30d",
        }
    }

    const fn text(self, t: &'static Usage) -> &'static str {
        match self {
            Self::Now => t.now,
            Self::Week => t.week,
            Self::Month => t.month,
        }
    }

    /// The period that the address names; a week if it names none.
    pub fn of(visit: &Visit) -> Self {
        let named = visit.query("range");
        Self::ALL.into_iter().find(|range| named == Some(range.as_str())).unwrap_or(Self::Week)
    }

    pub fn call(self) -> Call {
        let call = op("get_statistics");
        match self {
            Self::Now => call.query("by", "hour"),
            Self::Week => call.query("by", "day"),
            Self::Month => call.query("by", "day").query("from", Timestamp::now().0 - 29 * DAY_MS),
        }
    }
}

/// Links to the periods.
pub fn ranges(visit: &Visit) -> Markup {
    let (t, chosen) = (Usage::of(visit.language), Range::of(visit));
    let tabs = Range::ALL.map(|range| Tab {
        href: visit.with_query(&[("range", range.as_str())]),
        text: range.text(t),
        is_current: range == chosen,
    });
    components::tabs(t.period, &tabs)
}

/// A list of numbers of an answer.
pub fn numbers(list: &Value) -> Vec<u64> {
    list.as_array().into_iter().flatten().map(|number| number.as_u64().unwrap_or_default()).collect()
}

/// The sum of a list of numbers.
pub fn sum(list: &Value) -> u64 {
    numbers(list).into_iter().fold(0, u64::saturating_add)
}

/// The number of sign-ins, of all ways.
pub fn signed_in(statistics: &Value) -> u64 {
    let ways = statistics["sign_ins"]["ways"].as_array().into_iter().flatten();
    ways.map(|way| sum(&way["counts"])).fold(0, u64::saturating_add)
}

/// The number of denials; `None` if the decision log cannot be read.
pub fn denied(statistics: &Value) -> Option<u64> {
    let reasons = statistics["decisions"]["reasons"].as_array()?;
    let denials = reasons.iter().filter(|one| one["allow"] == false);
    Some(denials.map(|one| sum(&one["counts"])).fold(0, u64::saturating_add))
}

/// A link to a list of this place, if the visitor may see the list.
pub fn list_href(visit: &Visit, operation: &str, rest: &str) -> Option<String> {
    let here = visit.organization().map(|_| visit.in_organization(rest));
    here.filter(|_| visit.may(operation))
}

/// The chart of these series, or a sentence if all of it is zero.
pub fn chart_of(visit: &Visit, title: &str, statistics: &Value, series: Vec<Series>) -> Markup {
    let t = Usage::of(visit.language);
    let totals = || series.iter().flat_map(|series| series.values.iter().copied());
    let all = totals().fold(0, u64::saturating_add);
    if all == 0 {
        return html! { p class="quiet" { (t.nothing) } };
    }
    let count = series.first().map_or(0, |series| series.values.len());
    let at = |n: usize| series.iter().filter_map(|series| series.values.get(n)).copied().fold(0, u64::saturating_add);
    let most = (0..count).map(at).max().unwrap_or_default();
    let about = fill(t.sum_about, &[&shown_count(all), &shown_count(most)]);
    chart::columns(&Chart {
        title,
        about: &about,
        label: label(t, statistics),
        labels: labels(statistics),
        series,
        as_table: t.as_table,
        shown: shown_count,
    })
}

/// What the buckets are.
fn label(t: &'static Usage, statistics: &Value) -> &'static str {
    if statistics["by"] == "hour" { t.hour } else { t.day }
}

/// The start of each bucket: a day, or an hour with its day.
fn labels(statistics: &Value) -> Vec<String> {
    let is_hour = statistics["by"] == "hour";
    let starts = statistics["buckets"].as_array().into_iter().flatten().map(|start| start.as_i64().unwrap_or_default());
    let text = |start: i64| {
        let moment = shown_moment(start);
        let part = if is_hour { moment.get(5..) } else { moment.get(..10) };
        part.unwrap_or(&moment).to_owned()
    };
    starts.map(text).collect()
}

/// A heading and what stands below it.
fn card(title: &str, body: Markup) -> Markup {
    components::card(title, body)
}

/// Storage at the end of each bucket, computed back from the present usage.
pub fn growth(visit: &Visit, statistics: &Value, used: u64) -> Markup {
    let (t, storage) = (Usage::of(visit.language), &statistics["storage"]);
    let (added, removed) = (numbers(&storage["added_bytes"]), numbers(&storage["removed_bytes"]));
    let transferred: Vec<i64> = storage["transferred_bytes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|bytes| bytes.as_i64().unwrap_or_default())
        .collect();
    let mut level = i128::from(used);
    let mut levels = Vec::with_capacity(added.len());
    for ((added, removed), transferred) in added.iter().zip(&removed).zip(&transferred).rev() {
        levels.push(u64::try_from(level.max(0)).unwrap_or(u64::MAX));
        level -= i128::from(*added) - i128::from(*removed) + i128::from(*transferred);
    }
    levels.reverse();
    let bytes = |list: &Value| in_bytes(sum(list));
    let mut about = fill(t.growth_about, &[&bytes(&storage["added_bytes"]), &bytes(&storage["removed_bytes"])]);
    let moved: i64 = transferred.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes));
    if moved != 0 {
        about.push(' ');
        about.push_str(&fill(t.transferred, &[&shown_bytes(moved)]));
    }
    let drawn = chart::line(&Chart {
        title: t.growth,
        about: &about,
        label: label(t, statistics),
        labels: labels(statistics),
        series: vec![Series {
            name: t.stored.to_owned(),
            values: levels,
            href: list_href(visit, "list_videos", "videos"),
        }],
        as_table: t.as_table,
        shown: in_bytes,
    });
    card(t.growth, html! { p { (about) } (drawn) })
}

/// A size for people.
pub fn in_bytes(bytes: u64) -> String {
    shown_bytes(i64::try_from(bytes).unwrap_or(i64::MAX))
}

/// Jobs created, done and given up.
pub fn jobs(visit: &Visit, statistics: &Value) -> Markup {
    let (t, jobs) = (Usage::of(visit.language), &statistics["jobs"]);
    let series =
        [("created", t.created, "jobs"), ("done", t.done, "jobs?state=done"), ("dead", t.dead, "jobs?state=dead")].map(
            |(key, name, rest)| Series {
                name: name.to_owned(),
                values: numbers(&jobs[key]),
                href: list_href(visit, "list_jobs", rest),
            },
        );
    card(t.jobs, chart_of(visit, t.jobs, statistics, series.into()))
}

/// Sign-ins by way, and those that failed.
pub fn sign_ins(visit: &Visit, statistics: &Value) -> Markup {
    let (t, sign_ins) = (Usage::of(visit.language), &statistics["sign_ins"]);
    let href = list_href(visit, "list_audit", "audit?action=session.create");
    let ways = sign_ins["ways"].as_array().into_iter().flatten().map(|way| {
        let values = numbers(&way["counts"]);
        Series { name: way_text(visit, way["way"].as_str().unwrap_or_default()), values, href: href.clone() }
    });
    let mut series = merged(ways.collect(), SERIES_MAX - 1, t.other_ways);
    series.push(Series { name: t.failed.to_owned(), values: numbers(&sign_ins["failed"]), href: None });
    let drawn = chart_of(visit, t.sign_ins, statistics, series);
    card(
        t.sign_ins,
        html! {
            @if !statistics["organization_id"].is_null() { p { (t.of_members) } }
            (drawn)
            p class="hint" { (t.failed_since) " " (components::time(sign_ins["failed_since"].as_i64().unwrap_or_default())) }
        },
    )
}

/// A way to sign in: a kind, and the name of the provider if it has one.
fn way_text(visit: &Visit, way: &str) -> String {
    match way.split_once(' ') {
        Some((kind, provider)) => format!("{} {provider}", fields::value(kind, visit.language)),
        None => fields::value(way, visit.language),
    }
}

/// The largest series, and the sum of the others as the last one.
fn merged(mut series: Vec<Series>, most: usize, others: &str) -> Vec<Series> {
    let total = |series: &Series| series.values.iter().copied().fold(0, u64::saturating_add);
    series.sort_by_key(|series| std::cmp::Reverse(total(series)));
    if series.len() <= most {
        return series;
    }
    let rest = series.split_off(most.saturating_sub(1));
    let count = rest.iter().map(|series| series.values.len()).max().unwrap_or_default();
    let at = |n: usize| rest.iter().filter_map(|series| series.values.get(n)).copied().fold(0, u64::saturating_add);
    series.push(Series { name: others.to_owned(), values: (0..count).map(at).collect(), href: None });
    series
}

/// Denials by reason, and how much of all decisions the log holds.
pub fn decisions(visit: &Visit, statistics: &Value) -> Markup {
    let (t, decisions) = (Usage::of(visit.language), &statistics["decisions"]);
    let Some(reasons) = decisions["reasons"].as_array() else {
        return card(t.decisions, html! { p { (components::badge(Tone::Bad, t.unavailable)) } });
    };
    let denials = reasons.iter().filter(|one| one["allow"] == false).map(|one| {
        let reason = one["reason"].as_str().unwrap_or_default();
        let href = list_href(visit, "list_decisions", &format!("decisions?reason={reason}"));
        Series { name: fields::value(reason, visit.language), values: numbers(&one["counts"]), href }
    });
    let drawn = chart_of(visit, t.decisions, statistics, merged(denials.collect(), SERIES_MAX, t.other_reasons));
    let allowed = reasons.iter().filter(|one| one["allow"] == true).map(|one| sum(&one["counts"]));
    let allowed = allowed.fold(0, u64::saturating_add);
    let dropped = decisions["dropped"].as_u64().unwrap_or_default();
    card(
        t.decisions,
        html! {
            (drawn)
            p class="hint" {
                @match decisions["allow_every"].as_u64().unwrap_or_default() {
                    0 => (t.allowed_none),
                    every => (fill(t.allowed_every, &[&shown_count(allowed), &shown_count(every)])),
                }
                @if let Some(since) = decisions["since"].as_i64() { " " (t.logged_since) " " (components::time(since)) }
                @if dropped > 0 { " " (fill(t.dropped, &[&shown_count(dropped)])) }
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_series_become_one() {
        let series = |name: &str, values: [u64; 2]| Series { name: name.into(), values: values.into(), href: None };
        let all = vec![series("a", [1, 0]), series("b", [5, 5]), series("c", [0, 2]), series("d", [3, 0])];
        let shown = |series: Vec<Series>| -> Vec<(String, Vec<u64>)> {
            series.into_iter().map(|series| (series.name, series.values)).collect()
        };
        let named = |name: &str, values: [u64; 2]| (name.to_owned(), values.to_vec());
        assert_eq!(
            shown(merged(all.clone(), 3, "others")),
            [named("b", [5, 5]), named("d", [3, 0]), named("others", [1, 2])]
        );
        assert_eq!(merged(all, 4, "others").len(), 4);
    }
}
