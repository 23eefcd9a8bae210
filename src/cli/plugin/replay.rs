//! `roster plugin replay`: evaluates recorded decisions again with a component that is not uploaded yet.

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

/// Decisions per request.
const PAGE_SIZE: usize = 200;
/// In effect no time limit: the user can stop the command.
const TIME_LIMIT: Duration = Duration::from_secs(86_400);

#[derive(Args)]
pub(in crate::cli) struct Replay {
    /// The decisions: a file with an answer of `GET /permissions/decisions`, or the moment since which they are
    /// fetched: 2026-12-31 (UTC), or 7d ago
    #[arg(long, value_name = "FILE|WHEN")]
    from: String,
    /// The component to evaluate
    #[arg(long, value_name = "FILE")]
    candidate: PathBuf,
    /// The organization whose decisions are fetched, by id or org_code
    #[arg(long = "org", value_name = "ORG")]
    organization: Option<String>,
    /// How many decisions to fetch at most, newest first
    #[arg(long, default_value_t = 10_000)]
    limit: usize,
    /// The plugin that the component replaces; by default all enforced plugins
    #[arg(long, value_name = "NAME")]
    in_place_of: Option<String>,
    /// Let its `allow` permit what no role permits
    #[arg(long)]
    may_grant: bool,
    #[command(flatten)]
    filter: FilterFlags,
    /// Apply the limits for big runtimes, such as Python (plugins.large)
    #[arg(long)]
    large: bool,
}

pub(super) async fn run(common: &Common, arguments: &Replay) -> Result<ExitCode, Failed> {
    let filter = arguments.filter.filter();
    require_filter(&filter)?;
    let candidate = Candidate { name: arguments.in_place_of.clone(), may_grant: arguments.may_grant, filter };
    let offline = OfflineHost::of(&arguments.candidate, arguments.large)?;
    let admitted = offline.host.admit(offline.organization, &offline.bytes, offline.tier).await?;
    if !admitted.exports.authorizer {
        return Err(Failed(format!("{} is no authorizer, so decisions do not call it", arguments.candidate.display())));
    }
    let is_file = Path::new(&arguments.from).exists();
    let items = match named::parse_since(&arguments.from) {
        Ok(from) if !is_file => fetch_decisions(common, arguments, from).await?,
        _ => read_decisions(Path::new(&arguments.from))?,
    };
    let recorded = items.into_iter().map(serde_json::from_value).collect::<Result<Vec<Recorded>, _>>();
    let recorded = recorded.map_err(|e| Failed(format!("this is not a list of recorded decisions: {e}")))?;
    let call_context = offline.call_context(&admitted);
    let found = replay(recorded, &candidate, TIME_LIMIT, &offline.host, &call_context).await;
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
                "was": change.recorded.reason.as_str(),
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
        let mut result = counts;
        result["changes"] = json!(changes);
        output::print_object(true, &result);
    } else {
        output::print_object(false, &counts);
        if !changes.is_empty() {
            say!("");
            output::print_table(
                false,
                &json!({"items": changes, "total": changes.len()}),
                &["at", "uid", "action", "path", "was", "would_be", "said"],
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Fetches the decisions since a moment (Unix milliseconds), newest first.
async fn fetch_decisions(common: &Common, arguments: &Replay, from: i64) -> Result<Vec<Value>, Failed> {
    let Some(organization) = &arguments.organization else {
        return Err(Failed("name the organization of the decisions: --org with an id or org_code".into()));
    };
    let base_path = common.load(None)?.base_path;
    // The end is fixed, because new decisions would shift the pages.
    let to = Timestamp::now().0;
    let tenant = [("x-tenant-id", organization.as_str())];
    let mut api = ApiConnection::open(common).await?;
    let mut items: Vec<Value> = Vec::new();
    let result = loop {
        let (limit, offset) = (PAGE_SIZE.min(arguments.limit - items.len()), items.len());
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
    result.map(|()| items)
}

/// Reads decisions from a file: an answer with its envelope, its `data` only, or a bare list.
fn read_decisions(file: &Path) -> Result<Vec<Value>, Failed> {
    let failed = |e: &dyn std::fmt::Display| {
        Failed(format!("{} is neither a moment nor a readable file of decisions: {e}", file.display()))
    };
    let text = std::fs::read_to_string(file).map_err(|e| failed(&e))?;
    let value: Value = serde_json::from_str(&text).map_err(|e| failed(&e))?;
    let candidates = [value.pointer("/data/items"), value.pointer("/items"), Some(&value)];
    let list = candidates.into_iter().flatten().find_map(Value::as_array);
    list.cloned().ok_or_else(|| failed(&"it contains no list of decisions"))
}
