//! How the accounts of SFTPGo and WordPress differ from the members, and what bringing them in line did.

use maud::{Markup, html};
use serde_json::Value;

use super::{HERE, text};
use crate::console::client::op;
use crate::console::components::{
    Column, Confirm, Kind, Row, button_named, card, confirm_box, empty, facts, hidden_input, link_button, table,
};
use crate::console::i18n::connections::Differences;
use crate::console::i18n::fill;
use crate::console::list::grouped;
use crate::console::visit::Visit;
use crate::kernel::error::Error;

/// Most rows of a table; the number of the others stands below.
const ROWS_MAX: usize = 200;

/// What the visitor asked for.
pub(super) enum Above {
    /// The drift of SFTPGo.
    Sftpgo(Value),
    /// The dry run of a comparison with WordPress.
    WordPress(Value),
    /// The question before both are brought in line.
    Confirm,
    /// The comparison failed.
    Failed(Error),
}

/// What the address asks for: a comparison, or the question before bringing in line.
pub(super) async fn asked(visit: &Visit) -> Option<Above> {
    match (visit.path("name"), visit.query("confirm"), visit.query("compare")) {
        ("sftpgo" | "wordpress", Some("bring"), _) => Some(Above::Confirm),
        ("sftpgo", _, Some(_)) => Some(match visit.call(op("get_sftpgo_drift")).await {
            Ok(found) => Above::Sftpgo(found.data),
            Err(error) => Above::Failed(error),
        }),
        _ => None,
    }
}

/// The part of the page of one connection about accounts and members.
pub(super) fn part(visit: &Visit, kind: &str, above: Option<Above>) -> Markup {
    let t = Differences::of(visit.language);
    let (compare, bring) = match kind {
        "sftpgo" => ("get_sftpgo_drift", "reconcile_sftpgo"),
        "wordpress" => ("sync_wordpress", "sync_wordpress"),
        _ => return html! {},
    };
    if !visit.may(compare) {
        return html! {};
    }
    let may_bring = visit.may(bring);
    let found = match above {
        Some(Above::Confirm) if may_bring => return confirm(visit, kind),
        Some(Above::Sftpgo(found)) => Some((sftpgo_summary(t, &found), sftpgo_rows(t, &found))),
        Some(Above::WordPress(found)) => Some((wordpress_summary(t, &found), wordpress_rows(t, &found))),
        _ => None,
    };
    let about = if kind == "sftpgo" { t.sftpgo_about } else { t.wordpress_about };
    let word = if found.is_some() { t.again } else { t.compare };
    let buttons = html! {
        div.actions {
            @if kind == "sftpgo" { (link_button(&format!("{}?compare=1", visit.here()), word)) }
            @else { form method="post" action=(visit.here()) { (button_named("act", "compare", word, Kind::Plain)) } }
            @if may_bring && found.as_ref().is_some_and(|(_, rows)| !rows.is_empty()) {
                (link_button(&format!("{}?confirm=bring", visit.here()), t.bring))
            }
        }
    };
    card(
        t.users,
        html! {
            p { (about) }
            @if let Some((summary, rows)) = found { p { (summary) } (shown(t, rows)) }
            (buttons)
        },
    )
}

fn confirm(visit: &Visit, kind: &str) -> Markup {
    let t = Differences::of(visit.language);
    let (title, sentences) = match kind {
        "sftpgo" => (t.bring_sftpgo, [t.bring_sftpgo_1, t.bring_sftpgo_2, t.bring_sftpgo_3]),
        _ => (t.bring_wordpress, [t.bring_wordpress_1, t.bring_wordpress_2, t.bring_wordpress_3]),
    };
    confirm_box(&Confirm {
        title,
        action: &visit.here(),
        what_goes: &sentences.map(str::to_owned),
        typed: None,
        sent: Some(hidden_input("act", "bring")),
        submit: t.bring,
        cancel: visit.frame().cancel,
        cancel_href: &visit.here(),
    })
}

/// One difference: account, what differs, the value here, the value there, what happens.
struct Difference {
    account: String,
    what: String,
    ours: String,
    theirs: String,
    then: &'static str,
}

impl Difference {
    fn new(account: impl Into<String>, what: impl Into<String>, then: &'static str) -> Self {
        Self { account: account.into(), what: what.into(), ours: String::new(), theirs: String::new(), then }
    }
}

fn shown(t: &Differences, differences: Vec<Difference>) -> Markup {
    if differences.is_empty() {
        return empty(t.same, t.same_text, None);
    }
    let has_values = differences.iter().any(|one| !one.ours.is_empty() || !one.theirs.is_empty());
    let more = differences.len().saturating_sub(ROWS_MAX);
    let mut columns = vec![Column::new(t.account), Column::new(t.what)];
    if has_values {
        columns.extend([Column::new(t.ours), Column::new(t.theirs)]);
    }
    columns.push(Column::new(t.then));
    let rows = differences.into_iter().take(ROWS_MAX).map(|one| {
        let mut cells = vec![html! { (one.account) }, html! { (one.what) }];
        if has_values {
            cells.extend([html! { code { (one.ours) } }, html! { code { (one.theirs) } }]);
        }
        cells.push(html! { (one.then) });
        Row { cells, ..Row::default() }
    });
    html! {
        (table(t.users, &columns, rows.collect()))
        @if more > 0 { p { (fill(t.and_more, &[&grouped(more as u64)])) } }
    }
}

fn each<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn sftpgo_summary(t: &Differences, drift: &Value) -> String {
    let number = |key: &str| grouped(drift[key].as_u64().unwrap_or(0));
    fill(t.counted, &[&number("members"), &number("users")])
}

fn sftpgo_rows(t: &'static Differences, drift: &Value) -> Vec<Difference> {
    let named = |key: &str, what: &'static str, then: &'static str| {
        each(drift, key).iter().map(move |one| Difference::new(text(one, "username"), what, then)).collect::<Vec<_>>()
    };
    let differing = each(drift, "differing").iter().map(|one| {
        let then = if one["field"] == "used_quota_size" { t.scan_then } else { t.differs_then };
        Difference {
            ours: short(&one["ours"]),
            theirs: short(&one["theirs"]),
            ..Difference::new(text(one, "username"), text(one, "field"), then)
        }
    });
    let foreign = each(drift, "foreign").iter();
    let foreign = foreign.map(|name| Difference::new(name.as_str().unwrap_or_default(), t.foreign, t.stays));
    let mut all = named("missing", t.missing, t.missing_then);
    all.extend(differing);
    all.extend(named("orphaned", t.orphaned, t.orphaned_then));
    all.extend(named("conflicts", t.conflict, t.stays));
    all.extend(foreign);
    all
}

/// A value in one line.
fn short(value: &Value) -> String {
    const CHARS_MAX: usize = 80;
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if text.chars().count() <= CHARS_MAX { text } else { text.chars().take(CHARS_MAX).chain(['…']).collect() }
}

fn wordpress_summary(t: &Differences, found: &Value) -> String {
    let read = fill(t.looked_at, &[&grouped(found["looked_at"].as_u64().unwrap_or(0))]);
    if found["next"].is_null() { read } else { format!("{read} {}", t.more_pages) }
}

fn wordpress_rows(t: &'static Differences, found: &Value) -> Vec<Difference> {
    let account = |one: &Value| match (one["wordpress_id"].as_u64(), one["name"].as_str()) {
        (_, Some(name)) => name.to_owned(),
        (Some(id), None) => format!("#{id}"),
        (None, None) => String::new(),
    };
    let simple = |key: &str, what: &'static str, then: &'static str| {
        each(found, key).iter().map(|one| Difference::new(account(one), what, then)).collect::<Vec<_>>()
    };
    let mut all = simple("new", t.new, t.new_then);
    for one in each(found, "changed") {
        let fields: Vec<&str> = each(one, "fields").iter().filter_map(Value::as_str).collect();
        if !fields.is_empty() {
            all.push(Difference::new(account(one), fill(t.changed, &[&fields.join(", ")]), t.changed_then));
        }
    }
    all.extend(simple("gone", t.gone, t.gone_then));
    all.extend(simple("unlinked", t.unlinked, t.unlinked_then));
    all.extend(each(found, "left").iter().map(|one| Difference::new(account(one), text(one, "why"), t.stays)));
    let odd = each(found, "odd").iter();
    all.extend(odd.map(|one| Difference::new(account(one), fill(t.odd, &[&text(one, "why")]), t.stays)));
    all
}

/// In what a user of SFTPGo differed.
fn differed(t: &Differences, drift: &Value, username: &str) -> String {
    let is_it = |one: &&Value| one["username"] == username;
    let fields: Vec<&str> = each(drift, "differing").iter().filter(is_it).map(|one| text(one, "field")).collect();
    match () {
        () if !fields.is_empty() => fields.join(", "),
        () if each(drift, "missing").iter().any(|one| is_it(&one)) => t.missing.to_owned(),
        () => t.orphaned.to_owned(),
    }
}

/// What a task that brought accounts and members in line did; empty for other tasks.
pub fn task_result(visit: &Visit, task: &Value) -> Markup {
    let t = Differences::of(visit.language);
    let result = &task["result"];
    let (name, summary, rows, facts_shown) = match task["operation"].as_str() {
        Some("reconcile_sftpgo") => {
            let failed = each(result, "failed").iter();
            let failed = failed.map(|one| Difference::new(text(one, "username"), text(one, "error"), t.not_mended));
            let mended = each(result, "mended").iter();
            let mut rows: Vec<Difference> = failed.collect();
            rows.extend(mended.map(|one| {
                let name = text(one, "username");
                Difference::new(name, differed(t, &result["drift"], name), t.mended)
            }));
            let count = |key: &str| html! { (grouped(each(result, key).len() as u64)) };
            let scans = html! { (grouped(result["scans"].as_u64().unwrap_or(0))) };
            let shown = vec![(t.mended, count("mended")), (t.not_mended, count("failed")), (t.scans, scans)];
            ("sftpgo", sftpgo_summary(t, &result["drift"]), rows, shown)
        }
        Some("sync_wordpress") => ("wordpress", wordpress_summary(t, result), wordpress_rows(t, result), Vec::new()),
        _ => return html! {},
    };
    html! {
        p { (summary) }
        @if !facts_shown.is_empty() { (facts(&facts_shown)) }
        (shown(t, rows))
        p { a href=(visit.href(&format!("{HERE}/{name}"))) { (t.again) } }
    }
}
