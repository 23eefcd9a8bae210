//! The tables of the README, written by the program so that they cannot lie.

use clap::CommandFactory;

use super::{Arguments, help};
use crate::kernel::authz::permission::OWN;
use crate::kernel::config::Config;
use crate::kernel::error::{Cause, code};
use crate::kernel::outbox::Kind;

/// The scope that stands for "of the area" in the table of codes.
const OWN_AREA: u32 = 35;

/// Each table with its name.
pub fn tables() -> Vec<(&'static str, String)> {
    vec![
        ("events", events()),
        ("commands", commands()),
        ("settings", settings()),
        ("permissions", permissions()),
        ("codes", codes()),
    ]
}

fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let line = |cells: [String; N]| format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
    let head = [line(head.map(str::to_owned)), line(["---"; N].map(str::to_owned))];
    head.into_iter().chain(rows.map(line)).collect()
}

fn commands() -> String {
    let program = Arguments::command();
    let mut rows = Vec::new();
    for command in program.get_subcommands().filter(|command| !command.is_hide_set()) {
        let about = |command: &clap::Command| command.get_about().map(ToString::to_string).unwrap_or_default();
        let inner: Vec<&clap::Command> = command.get_subcommands().collect();
        if inner.is_empty() {
            rows.push([format!("`roster {}`", command.get_name()), about(command), options(command)]);
        }
        for sub in inner {
            rows.push([format!("`roster {} {}`", command.get_name(), sub.get_name()), about(sub), options(sub)]);
        }
    }
    table(["Command", "What it does", "Takes"], rows.into_iter())
}

fn options(command: &clap::Command) -> String {
    let own = command.get_arguments().filter(|argument| !argument.is_hide_set() && argument.get_id() != "help");
    let shown = own.map(|argument| match argument.get_long() {
        Some(long) => format!("`--{long}`"),
        None => format!("`{}`", help::placeholder(argument)),
    });
    shown.collect::<Vec<_>>().join(" ")
}

fn events() -> String {
    let row = |kind: &Kind| [format!("`{}`", kind.word()), kind.about().to_owned()];
    table(["Event", "When"], Kind::ALL.iter().map(row))
}

fn settings() -> String {
    let row = |s: crate::kernel::config::Described| {
        [format!("`{}`", s.name), format!("{} ({})", s.about, s.kind), format!("`{}`", s.default)]
    };
    table(["Setting", "Meaning", "Default"], Config::described().into_iter().map(row))
}

fn permissions() -> String {
    let operations = OWN.iter().filter(|own| !own.method.is_empty());
    let row = |own: &crate::kernel::authz::permission::Own| {
        let scope = own.scope.map_or_else(String::new, |scope| format!(", client scope `{scope}`"));
        let site = if own.site_only { ", by the platform" } else { "" };
        [format!("`{}`", own.name), format!("{}{site}{scope}", own.about), format!("`{} {}`", own.method, own.path)]
    };
    table(["Permission", "What it allows", "Operation"], operations.map(row))
}

fn codes() -> String {
    let row = |cause: &Cause| {
        let number = match cause.scope() {
            0 => format!("…{:06}", code(*cause, OWN_AREA) % 1_000_000),
            scope => code(*cause, scope).to_string(),
        };
        [number, format!("{} `{}`", cause.status(), cause.word()), cause.message().to_owned()]
    };
    table(["Code", "Status and word", "Message"], Cause::ALL.iter().map(row))
}
