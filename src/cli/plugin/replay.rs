//! `roster plugin replay`: recorded decisions, asked again of a component that nobody has uploaded yet.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use poem::http::Method;
use serde_json::{Value, json};

use super::offline::OfflineHost;
use super::{Common, Failed, FilterFlags};
use crate::cli::api_connection::ApiConnection;
use crate::cli::{named, output};
use crate::features::plugins::replay::{Candidate, Recorded, replay};
use crate::features::plugins::require_filter;
use crate::kernel::ids::Timestamp;

/// Decisions that are fetched at a time.
const PAGE: usize = 200;
/// Longer than anybody waits; who does not want to, stops it.
const PATIENCE: Duration = Duration::from_secs(86_400);

#[derive(Args)]
pub(in crate::cli) struct Replay {
    /// The decisions: a file with what `GET /permissions/decisions` answered, or the moment from which on they are fetched:
    /// 2026-12-31 (UTC), or 7d ago
    #[arg(long, value_name = "FILE|WHEN")]
    from: String,
    /// The component
    #[arg(long, value_name = "FILE")]
    candidate: PathBuf,
    /// The organization, by id or org_code, whose decisions are fetched
    #[arg(long = "org", value_name = "ORG")]
    organization: Option<String>,
    /// How many decisions at most are fetched, the newest first
    #[arg(long, default_value_t = 10_000)]
    limit: usize,
    /// The plugin whose place it takes; that of all in force when absent
    #[arg(long, value_name = "NAME")]
    in_place_of: Option<String>,
    /// Its `allow` opens what no role does
    #[arg(long)]
    may_grant: bool,
    #[command(flatten)]
    filter: FilterFlags,
    /// Under the limits for big runtimes, such as Python (plugins.large)
    #[arg(long)]
    large: bool,
}

pub(super) async fn run(common: &Common, asked: &Replay) -> Result<ExitCode, Failed> {
    let filter = asked.filter.filter();
    require_filter(&filter)?;
    let candidate = Candidate { name: asked.in_place_of.clone(), may_grant: asked.may_grant, filter };
    let stand = OfflineHost::of(&asked.candidate, asked.large)?;
    let admitted = stand.host.admit(stand.organization, &stand.bytes, stand.tier).await?;
    if !admitted.exports.authorizer {
        return Err(Failed(format!("{} is no authorizer, so that no decision asks it", asked.candidate.display())));
    }
    let is_file = Path::new(&asked.from).exists();
    let items = match named::ago(&asked.from) {
        Ok(from) if !is_file => fetched(common, asked, from).await?,
        _ => of_file(Path::new(&asked.from))?,
    };
    let recorded = items.into_iter().map(serde_json::from_value).collect::<Result<Vec<Recorded>, _>>();
    let recorded = recorded.map_err(|e| Failed(format!("this is no list of recorded decisions: {e}")))?;
    let turn = stand.turn(&admitted);
    let found = replay(recorded, &candidate, PATIENCE, &stand.host, &turn).await;
    let changes: Vec<Value> = found
        .changes
        .iter()
        .map(|change| {
            json!({
                "id": change.recorded.id,
                "at": change.recorded.at,
                "uid": change.recorded.input.subject,
                "action": change.recorded.input.action,
                "path": change.recorded.input.path,
                "was": change.recorded.reason,
                "would_be": change.reason.as_str(),
                "said": change.said,
            })
        })
        .collect();
    let counts = json!({
        "decisions": found.decisions, "asked": found.asked, "left_out": found.left_out, "failed": found.failed,
        "unreached": found.unreached, "changed": found.changed,
    });
    if common.json {
        let mut shown = counts;
        shown["changes"] = json!(changes);
        output::line(true, &shown);
    } else {
        output::line(false, &counts);
        if !changes.is_empty() {
            say!("");
            output::table(
                false,
                &json!({"items": changes, "total": changes.len()}),
                &["at", "uid", "action", "path", "was", "would_be", "said"],
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The decisions from a moment on, the newest first.
async fn fetched(common: &Common, asked: &Replay, from: i64) -> Result<Vec<Value>, Failed> {
    let Some(organization) = &asked.organization else {
        return Err(Failed("say whose decisions: --org with an id or org_code".into()));
    };
    let base_path = common.load(None)?.base_path;
    // What is decided from now on would shift the pages.
    let to = Timestamp::now().0;
    let tenant = [("x-tenant-id", organization.as_str())];
    let mut api = ApiConnection::open(common).await?;
    let mut items: Vec<Value> = Vec::new();
    let outcome = loop {
        let (limit, offset) = (PAGE.min(asked.limit - items.len()), items.len());
        if limit == 0 {
            break Ok(());
        }
        let path = format!("{base_path}/permissions/decisions?from={from}&to={to}&limit={limit}&offset={offset}");
        match api.call(Method::GET, &path, &tenant, None).await {
            Ok(mut page) => match page["items"].take() {
                Value::Array(list) if !list.is_empty() => items.extend(list),
                _ => break Ok(()),
            },
            Err(failed) => break Err(failed),
        }
    };
    api.close().await;
    outcome.map(|()| items)
}

/// A page as it was answered, with or without its envelope, or a bare list.
fn of_file(file: &Path) -> Result<Vec<Value>, Failed> {
    let failed = |e: &dyn std::fmt::Display| {
        Failed(format!("{} is no moment in Unix milliseconds, and no file that can be read: {e}", file.display()))
    };
    let text = std::fs::read_to_string(file).map_err(|e| failed(&e))?;
    let value: Value = serde_json::from_str(&text).map_err(|e| failed(&e))?;
    let places = [value.pointer("/data/items"), value.pointer("/items"), Some(&value)];
    let list = places.into_iter().flatten().find_map(Value::as_array);
    list.cloned().ok_or_else(|| failed(&"it holds no list of decisions"))
}
