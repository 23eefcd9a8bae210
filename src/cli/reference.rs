//! Generates the tables of the manual's reference from the program, so that they are always up to date.

use super::help;
use crate::kernel::app::metrics;
use crate::kernel::authz::permission::BUILTIN_PERMISSIONS;
use crate::kernel::config::Config;
use crate::kernel::error::{ErrorCode, Result, code};
use crate::kernel::outbox::EventKind;

/// An arbitrary scope for codes whose scope depends on the path: their table shows only the last six digits.
const PLACEHOLDER_SCOPE: u32 = 35;

/// Each table, with the name of its page.
pub fn tables() -> Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("commands", commands()),
        ("settings", settings()),
        ("permissions", permissions()),
        ("error-codes", codes()),
        ("events", events()),
        ("metrics", metrics()?),
    ])
}

fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let line = |cells: [String; N]| format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
    let head = [line(head.map(str::to_owned)), line(["---"; N].map(str::to_owned))];
    head.into_iter().chain(rows.map(line)).collect()
}

/// A heading and a table for each group of consecutive rows.
fn grouped<const N: usize>(head: [&str; N], rows: Vec<(String, [String; N])>) -> String {
    let groups = rows.chunk_by(|(one, _), (other, _)| one == other);
    let parts = groups.map(|group| {
        let rows = group.iter().map(|(_, row)| row.clone());
        format!("## {}\n\n{}", group.first().map_or("", |(name, _)| name), table(head, rows))
    });
    parts.collect::<Vec<_>>().join("\n")
}

/// Sorts rows so that those of one group are consecutive. Groups keep the order of their first row, and rows theirs.
fn in_groups<T>(rows: &mut [(String, T)]) {
    let mut order: Vec<String> = Vec::new();
    for (group, _) in rows.iter() {
        if !order.contains(group) {
            order.push(group.clone());
        }
    }
    rows.sort_by_key(|(group, _)| order.iter().position(|known| known == group));
}

fn commands() -> String {
    const ALONE: &str = "The program";
    let program = help::command();
    let mut rows = Vec::new();
    for command in program.get_subcommands().filter(|command| !command.is_hide_set()) {
        let about = |command: &clap::Command| command.get_about().map(ToString::to_string).unwrap_or_default();
        let inner: Vec<&clap::Command> = command.get_subcommands().filter(|inner| !inner.is_hide_set()).collect();
        if inner.is_empty() {
            let row = [format!("`roster {}`", command.get_name()), about(command), options(command)];
            rows.push((ALONE.to_owned(), row));
        }
        for sub in inner {
            let row = [format!("`roster {} {}`", command.get_name(), sub.get_name()), about(sub), options(sub)];
            rows.push((format!("`roster {}`", command.get_name()), row));
        }
    }
    // Commands without a group are at the beginning and the end of the list: put them first.
    rows.sort_by_key(|(group, _)| group != ALONE);
    grouped(["Command", "What it does", "Arguments"], rows)
}

/// The flags and arguments of a command.
fn options(command: &clap::Command) -> String {
    let own = command.get_arguments().filter(|argument| !argument.is_hide_set() && argument.get_id() != "help");
    let shown = own.map(|argument| match argument.get_long() {
        Some(long) => format!("`--{long}`"),
        None => format!("`{}`", help::placeholder(argument)),
    });
    shown.collect::<Vec<_>>().join(" ")
}

fn events() -> String {
    let row = |kind: &EventKind| [format!("`{}`", kind.as_str()), kind.about().to_owned()];
    table(["Event", "When"], EventKind::ALL.iter().map(row))
}

fn settings() -> String {
    let row = |s: crate::kernel::config::SettingInfo| {
        let group = s.name.split_once('.').map_or("The server".to_owned(), |(group, _)| format!("`{group}.*`"));
        (group, [format!("`{}`", s.name), format!("{} ({})", s.about, s.kind), format!("`{}`", s.default)])
    };
    let mut rows: Vec<_> = Config::described().into_iter().map(row).collect();
    in_groups(&mut rows);
    grouped(["Setting", "Meaning", "Default"], rows)
}

fn permissions() -> String {
    let operations = BUILTIN_PERMISSIONS.iter().filter(|own| !own.method.is_empty());
    let row = |own: &crate::kernel::authz::permission::BuiltinPermission| {
        let scope = own.scope.map_or_else(String::new, |scope| format!(", client scope `{scope}`"));
        let site = if own.site_only { ", by the platform" } else { "" };
        let group = own.name.rsplit_once('.').map_or(own.name, |(group, _)| group);
        let group = format!("`{group}.*`");
        let about = format!("{}{site}{scope}", own.about);
        (group, [format!("`{}`", own.name), about, format!("`{} {}`", own.method, own.path)])
    };
    let mut rows: Vec<_> = operations.map(row).collect();
    in_groups(&mut rows);
    grouped(["Permission", "What it allows", "Operation"], rows)
}

fn codes() -> String {
    let row = |cause: &ErrorCode| {
        let number = match cause.scope() {
            0 => format!("…{:06}", code(*cause, PLACEHOLDER_SCOPE) % 1_000_000),
            scope => code(*cause, scope).to_string(),
        };
        [number, format!("{} `{}`", cause.status(), cause.as_str()), cause.message().to_owned()]
    };
    table(["Code", "Status and word", "Message"], ErrorCode::ALL.iter().map(row))
}

fn metrics() -> Result<String> {
    let row = |metric: metrics::MetricDescription| {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        [format!("`{}`", metric.name), metric.kind.to_owned(), labels.join(", "), metric.about]
    };
    Ok(table(["Metric", "Type", "Labels", "Meaning"], metrics::descriptions()?.into_iter().map(row)))
}
