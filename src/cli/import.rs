//! `roster member import`: imports members from a file.

use std::path::Path;

use serde_json::Value;

use super::api_connection::ApiConnection;
use super::commands::{flag, is_json, query};
use super::{Common, Failed};

/// Imports members from a file and prints the result. Fails afterwards if rows failed.
pub(super) async fn members(
    common: &Common,
    file: &Path,
    (dry_run, welcome): (bool, bool),
    encoding: Option<&str>,
) -> Result<(), Failed> {
    let bytes = std::fs::read(file).map_err(|e| Failed(format!("{} cannot be read: {e}", file.display())))?;
    let content_type = match (is_json(file), encoding) {
        (true, _) => "application/json".to_owned(),
        (false, None) => "text/csv".to_owned(),
        (false, Some(name)) => format!("text/csv; charset=\"{name}\""),
    };
    let path = query("/admin/users/import", &[("dry_run", flag(dry_run)), ("welcome", flag(welcome))]);
    let mut api = ApiConnection::open(common).await?;
    let difference = api.follow(common, &path, &[], &content_type, bytes).await;
    api.close().await;
    let difference = difference?;
    if common.json {
        say!("{difference}");
    } else {
        print(&difference, dry_run);
    }
    if welcome && !rows(&difference, "created").is_empty() && common.load(None)?.mail_host.is_empty() {
        complain!(
            "No welcome is mailed: set mail.host and mail.from in roster.toml and restart the server. \
             `roster member password-link MEMBER` prints a link that you can pass on."
        );
    }
    let failed = rows(&difference, "failed").len();
    let counted = if failed == 1 { "1 row".to_owned() } else { format!("{failed} rows") };
    match failed {
        0 => Ok(()),
        _ if dry_run => Err(Failed(format!("{counted} would fail; the others would be imported"))),
        _ => Err(Failed(format!("{counted} failed; the others are imported: correct the file and import it again"))),
    }
}

fn rows<'v>(difference: &'v Value, kind: &str) -> &'v [Value] {
    difference[kind].as_array().map_or(&[], Vec::as_slice)
}

/// The position of a row in its file, and its username: `line 3 (eve)`.
fn row_label(row: &Value) -> String {
    let at = row["line"].as_u64().map_or_else(|| format!("row {}", row["row"]), |line| format!("line {line}"));
    row["username"].as_str().map_or_else(|| at.clone(), |username| format!("{at} ({username})"))
}

fn print(difference: &Value, dry_run: bool) {
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    for row in rows(difference, "created") {
        say!("+ {}", text(row, "username"));
    }
    for row in rows(difference, "changed") {
        let fields: Vec<&str> = rows(row, "fields").iter().filter_map(Value::as_str).collect();
        say!("~ {}: {}", text(row, "username"), fields.join(", "));
    }
    for row in rows(difference, "failed") {
        for fault in rows(row, "fields") {
            say!("! {}: {}: {}", row_label(row), text(fault, "field"), text(fault, "message"));
        }
    }
    let count = |kind: &str| rows(difference, kind).len();
    let (created, changed, failed) = (count("created"), count("changed"), count("failed"));
    let unchanged = &difference["unchanged"];
    if dry_run {
        say!(
            "would be: {created} created, {changed} changed, {unchanged} unchanged, {failed} failed; nothing was done"
        );
    } else {
        say!("{created} created, {changed} changed, {unchanged} unchanged, {failed} failed");
    }
}
