//! Prints answers: as one line of JSON, as a table, or as lines of names and values. All output goes through this
//! module, so that a closed or full standard output or standard error causes no panic.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::sync::OnceLock;

use serde_json::Value;

use crate::features::quotas::SIZE_MAX;
use crate::kernel::units;

/// The first failure of writing to standard output.
static FAILURE: OnceLock<std::io::Error> = OnceLock::new();

/// Prints a line to standard output.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::output::say(format_args!($($text)*)) };
}

/// Prints a line to standard error.
macro_rules! complain {
    ($($text:tt)*) => { $crate::cli::output::complain(format_args!($($text)*)) };
}

/// Prints a line to standard output. A closed pipe is not a failure. Other failures are kept for the exit status.
pub fn say(text: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    if let Err(e) = writeln!(out, "{text}").and_then(|()| out.flush())
        && e.kind() != ErrorKind::BrokenPipe
    {
        let _ = FAILURE.set(e);
    }
}

/// Writes bytes to standard output unchanged.
pub fn write_raw(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if let Err(e) = out.write_all(bytes).and_then(|()| out.flush())
        && e.kind() != ErrorKind::BrokenPipe
    {
        let _ = FAILURE.set(e);
    }
}

/// Prints a line to standard error. Failures are ignored, because there is no other place to report them.
pub fn complain(text: Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Writes the line of progress to standard error, a terminal, in place of the former one. An empty text removes it.
pub fn progress(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = write!(out, "\r\x1b[K{text}").and_then(|()| out.flush());
}

/// The first failure of writing to standard output, if any.
pub fn failure() -> Option<&'static std::io::Error> {
    FAILURE.get()
}

/// Prints an object, one line per field.
pub fn print_object(as_json: bool, value: &Value) {
    if as_json {
        say!("{value}");
        return;
    }
    let pairs: Vec<(&String, String)> =
        value.as_object().into_iter().flatten().map(|(name, value)| (name, cell(name, value))).collect();
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in pairs {
        say!("{name:width$}  {value}");
    }
}

/// Prints a created object. Outside of JSON, also warns that its secret is shown only once.
pub fn print_created(as_json: bool, value: &Value, has_secret: bool) {
    print_object(as_json, value);
    if has_secret && !as_json {
        complain!("This is shown only once: keep it in a safe place.");
    }
}

/// Prints the `items` of a page with these columns. The column `a|b` shows `b` if `a` is null.
pub fn print_table(as_json: bool, page: &Value, columns: &[&str]) {
    if as_json {
        say!("{page}");
        return;
    }
    let rows: Vec<Vec<String>> = page["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| columns.iter().map(|column| either(item, column)).collect())
        .collect();
    let width =
        |n: usize| rows.iter().map(|row| row[n].chars().count()).chain([head(columns[n]).len()]).max().unwrap_or(0);
    let print = |cells: &[String]| {
        let padded: Vec<String> = cells.iter().enumerate().map(|(n, cell)| format!("{cell:0$}", width(n))).collect();
        say!("{}", padded.join("  ").trim_end());
    };
    print(&columns.iter().map(|column| head(column).to_owned()).collect::<Vec<_>>());
    rows.iter().for_each(|row| print(row));
    let total = page["total"].as_u64().unwrap_or_default();
    if total > rows.len() as u64 {
        say!("… {} of {total}: narrow the list with --keyword", rows.len());
    }
}

fn head(column: &str) -> &str {
    column.split('|').next().unwrap_or(column)
}

fn either(item: &Value, column: &str) -> String {
    let name = column.split('|').find(|name| !item[*name].is_null()).unwrap_or_else(|| head(column));
    cell(name, &item[name])
}

/// Formats a field: moments as dates in UTC, bytes as sizes.
fn cell(name: &str, value: &Value) -> String {
    const SIZES: [&str; 6] = ["size", "used", "reserved", "free", "bytes", "quota"];
    let is_size = SIZES.contains(&name) || name.ends_with("_bytes") || name.ends_with("_size");
    // Smaller numbers are counts: `looked_at` is one. No stored moment is that early.
    const MOMENT_MIN: i64 = 100_000_000_000;
    let is_moment = name == "at" || name.ends_with("_at") || name.ends_with("_until");
    match value.as_i64() {
        Some(SIZE_MAX) if is_size => "unlimited".into(),
        Some(bytes) if is_size => units::shown_bytes(bytes),
        Some(ms) if is_moment && ms >= MOMENT_MIN => units::shown_moment(ms),
        _ => text(value),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.is_empty() => "-".into(),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
