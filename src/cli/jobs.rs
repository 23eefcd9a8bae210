//! The commands for jobs, and the import of members: work that is looked at, and files that are read.

use std::path::Path;

use clap::Subcommand;
use poem::http::Method;
use serde_json::Value;

use super::commands::{ask, segment};
use super::door::Door;
use super::{Common, Failed, show};

#[derive(Subcommand)]
pub(super) enum JobCommand {
    /// List jobs, the newest first
    List {
        /// queued, held, leased, done or dead
        #[arg(long)]
        state: Option<String>,
        /// Whose videos, by uid
        #[arg(long, value_name = "UID")]
        member: Option<String>,
        /// The video's id
        #[arg(long, value_name = "ID")]
        video: Option<String>,
        /// Only jobs where this processor is not over
        #[arg(long)]
        processor: Option<String>,
    },
    /// Count jobs by state
    Counts,
    /// Retry a dead job
    Retry { id: String },
}

pub(super) async fn job(common: &Common, command: JobCommand) -> Result<(), Failed> {
    let base = common.load(None)?.base_path;
    let answer = match command {
        JobCommand::List { state, member, video, processor } => {
            let mut path = format!("{base}/jobs?limit=200");
            for (name, value) in [("state", state), ("member", member), ("video", video), ("processor", processor)] {
                if let Some(value) = value {
                    path.push_str(&format!("&{name}={}", segment(&value)));
                }
            }
            let page = ask(common, Method::GET, &path, None).await?;
            let columns = ["id", "state", "path", "progress_percent", "attempts", "run_at", "last_error"];
            show::table(common.json, &page, &columns);
            return Ok(());
        }
        JobCommand::Counts => ask(common, Method::GET, &format!("{base}/jobs/counts"), None).await?,
        JobCommand::Retry { id } => {
            ask(common, Method::POST, &format!("{base}/jobs/{}/retry", segment(&id)), None).await?
        }
    };
    show::line(common.json, &answer);
    Ok(())
}

/// Imports members from a file; fails, after it has said all it did, when rows failed.
pub(super) async fn import_members(common: &Common, file: &Path, dry_run: bool, welcome: bool) -> Result<(), Failed> {
    let bytes = std::fs::read(file).map_err(|e| Failed(format!("{} cannot be read: {e}", file.display())))?;
    let is_json = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let content_type = if is_json { "application/json" } else { "text/csv" };
    let path = format!("/admin/users/import?dry_run={dry_run}&welcome={welcome}");
    let mut door = Door::open(common).await?;
    let difference = door.send(Method::POST, &path, &[], content_type, Some(bytes)).await;
    door.close().await;
    let difference = difference?;
    if common.json {
        println!("{difference}");
    } else {
        print(&difference);
    }
    match rows(&difference, "failed").len() {
        0 => Ok(()),
        failed => Err(Failed(format!("{failed} rows failed; the others are done: repair them and import again"))),
    }
}

fn rows<'v>(difference: &'v Value, kind: &str) -> &'v [Value] {
    difference[kind].as_array().map_or(&[], Vec::as_slice)
}

fn print(difference: &Value) {
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    for row in rows(difference, "created") {
        println!("+ {}", text(row, "username"));
    }
    for row in rows(difference, "changed") {
        let fields: Vec<&str> = rows(row, "fields").iter().filter_map(Value::as_str).collect();
        println!("~ {}: {}", text(row, "username"), fields.join(", "));
    }
    for row in rows(difference, "failed") {
        for fault in rows(row, "fields") {
            println!("! row {}: {}: {}", row["row"], text(fault, "field"), text(fault, "message"));
        }
    }
    let count = |kind: &str| rows(difference, kind).len();
    let (created, changed, failed) = (count("created"), count("changed"), count("failed"));
    println!("{created} created, {changed} changed, {} unchanged, {failed} failed", difference["unchanged"]);
}
