//! Commands for the plugins of an organization. Each calls an operation of the API.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use poem::http::Method;
use serde_json::{Value, json};

use super::FilterFlags;
use crate::cli::api_connection::ApiConnection;
use crate::cli::commands::{segment, without_nulls};
use crate::cli::{Common, Failed, output};

/// The organization that owns the plugins.
#[derive(Args)]
pub(in crate::cli) struct OrganizationFlag {
    /// The organization, by id or org_code
    #[arg(id = "organization", long = "org", value_name = "ORG")]
    id_or_code: String,
}

/// Whether a version is called without effect, or takes part in decisions.
#[derive(Clone, Copy, ValueEnum)]
pub(in crate::cli) enum Mode {
    Shadow,
    Enforce,
}

#[derive(Args)]
pub(in crate::cli) struct Activate {
    /// The plugin
    name: String,
    /// The number of the version, as `roster plugin show` lists it
    version: u32,
    /// `shadow` calls it without effect; with `enforce` it takes part in decisions
    #[arg(long, value_enum)]
    mode: Mode,
    /// Let its `allow` permit what no role permits
    #[arg(long)]
    may_grant: bool,
    #[command(flatten)]
    filter: FilterFlags,
    /// Deadline of a call in milliseconds; by default as in the settings
    #[arg(long, value_name = "MS")]
    deadline_ms: Option<u32>,
    #[command(flatten)]
    organization: OrganizationFlag,
}

#[derive(Subcommand)]
pub(in crate::cli) enum LiveCommand {
    /// Upload a component as the first or next version of a plugin
    Upload {
        /// The component
        file: PathBuf,
        /// Name of the plugin: a-z 0-9 -, beginning with a letter
        #[arg(long)]
        name: String,
        #[command(flatten)]
        organization: OrganizationFlag,
    },
    /// List the plugins of an organization
    List {
        #[command(flatten)]
        organization: OrganizationFlag,
    },
    /// Show a plugin: its versions, its active versions, and their metrics
    Show {
        /// The plugin
        name: String,
        #[command(flatten)]
        organization: OrganizationFlag,
    },
    /// Show the log of a plugin
    Log {
        /// The plugin
        name: String,
        /// Only lines of this level
        #[arg(long, value_parser = ["debug", "info", "warn", "error"])]
        level: Option<String>,
        #[command(flatten)]
        organization: OrganizationFlag,
    },
    /// Call a plugin without effect, with an input or with recorded decisions
    DryRun {
        /// The plugin
        name: String,
        /// The input, a JSON file, or - for standard input
        #[arg(required_unless_present = "recorded", conflicts_with = "recorded")]
        input: Option<PathBuf>,
        /// Instead of an input: show which recorded decisions the plugin would change
        #[arg(long)]
        recorded: bool,
        /// Only decisions since this moment: 2026-12-31 (UTC), or 7d ago
        #[arg(long, value_name = "WHEN", requires = "recorded", value_parser = crate::cli::named::parse_since)]
        from: Option<i64>,
        /// How many decisions at most, newest first
        #[arg(long, requires = "recorded")]
        limit: Option<u32>,
        /// The version; by default the enforced one, else the one in shadow mode, else the newest
        #[arg(long)]
        version: Option<u32>,
        #[command(flatten)]
        organization: OrganizationFlag,
    },
    /// Activate a version, in mode enforce or shadow
    Activate(Activate),
    /// Deactivate a plugin
    Deactivate {
        /// The plugin
        name: String,
        #[command(flatten)]
        organization: OrganizationFlag,
    },
    /// Activate the previously enforced version again
    Rollback {
        /// The plugin
        name: String,
        #[command(flatten)]
        organization: OrganizationFlag,
    },
    /// Delete a plugin, or one of its versions
    Delete {
        /// The plugin
        name: String,
        /// Only this version
        #[arg(long)]
        version: Option<u32>,
        #[command(flatten)]
        organization: OrganizationFlag,
    },
}

pub(super) async fn run(common: &Common, command: LiveCommand) -> Result<ExitCode, Failed> {
    let plugin_path = |name: &str, rest: &str| format!("/plugins/{}{rest}", segment(name));
    let (organization, method, path, body) = match command {
        LiveCommand::Upload { file, name, organization } => {
            output::print_object(common.json, &upload(common, &file, &name, &organization).await?);
            return Ok(ExitCode::SUCCESS);
        }
        LiveCommand::List { organization } => {
            let columns = ["name", "version", "exports", "enforced_version", "shadow_version", "quarantined"];
            return print_list(common, &organization, "/plugins?limit=200", &columns).await;
        }
        LiveCommand::Log { name, level, organization } => {
            let level = level.map(|level| format!("&level={level}")).unwrap_or_default();
            return print_list(
                common,
                &organization,
                &plugin_path(&name, &format!("/log?limit=200{level}")),
                &["at", "version", "level", "message"],
            )
            .await;
        }
        LiveCommand::Show { name, organization } => (organization, Method::GET, plugin_path(&name, ""), None),
        LiveCommand::DryRun { name, input, recorded, from, limit, version, organization } => {
            let input = input.as_deref().map(read).transpose()?;
            let recorded = recorded.then(|| without_nulls(json!({"from": from, "limit": limit})));
            let body = without_nulls(json!({"version": version, "input": input, "recorded": recorded}));
            (organization, Method::POST, plugin_path(&name, "/dry-run"), Some(body))
        }
        LiveCommand::Activate(activate) => {
            let path = plugin_path(&activate.name, "/activate");
            let body = activate.body();
            (activate.organization, Method::POST, path, Some(body))
        }
        LiveCommand::Deactivate { name, organization } => {
            (organization, Method::POST, plugin_path(&name, "/deactivate"), None)
        }
        LiveCommand::Rollback { name, organization } => {
            (organization, Method::POST, plugin_path(&name, "/rollback"), None)
        }
        LiveCommand::Delete { name, version, organization } => {
            let path = version
                .map_or_else(|| plugin_path(&name, ""), |version| plugin_path(&name, &format!("/versions/{version}")));
            call_api(common, &organization, Method::DELETE, &path, None).await?;
            output::print_object(
                common.json,
                &without_nulls(json!({"name": name, "version": version, "deleted": true})),
            );
            return Ok(ExitCode::SUCCESS);
        }
    };
    let answer = call_api(common, &organization, method, &path, body).await?;
    match answer.get("versions") {
        Some(_) if !common.json => show_plugin(&answer),
        _ => output::print_object(common.json, &answer),
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a plugin: a table of its activations with their metrics, and a table of its versions.
fn show_plugin(plugin: &Value) {
    let rows = |list: &str| plugin[list].as_array().cloned().unwrap_or_default();
    let activations = rows("activations").into_iter().map(|mut row| {
        let figures = row["figures"].take();
        let calls = figures["calls"].as_object().into_iter().flatten();
        row["calls"] = calls.map(|(outcome, count)| json!(format!("{outcome} {count}"))).collect();
        row["differed"] = figures["differed"].clone();
        row["mean_us"] = figures["duration_us_mean"].clone();
        row
    });
    let versions = rows("versions").into_iter().map(|mut row| {
        row["sha256"] = json!(row["sha256"].as_str().and_then(|digest| digest.get(..12)));
        row
    });
    say!("{}\n", plugin["name"].as_str().unwrap_or_default());
    let columns = ["mode", "version", "may_grant", "deadline_ms", "quarantined", "calls", "differed", "mean_us"];
    output::print_table(false, &json!({"items": activations.collect::<Vec<_>>()}), &columns);
    say!("");
    let columns = ["version", "state", "exports", "size_bytes", "sha256", "uploaded_by", "created_at"];
    output::print_table(false, &json!({"items": versions.collect::<Vec<_>>()}), &columns);
}

impl Activate {
    fn body(&self) -> Value {
        let mode = match self.mode {
            Mode::Shadow => "shadow",
            Mode::Enforce => "enforce",
        };
        without_nulls(json!({
            "version": self.version, "mode": mode, "may_grant": self.may_grant, "deadline_ms": self.deadline_ms,
            "filter": self.filter.filter(),
        }))
    }
}

async fn print_list(
    common: &Common,
    organization: &OrganizationFlag,
    path: &str,
    columns: &[&str],
) -> Result<ExitCode, Failed> {
    output::print_table(common.json, &call_api(common, organization, Method::GET, path, None).await?, columns);
    Ok(ExitCode::SUCCESS)
}

async fn upload(common: &Common, file: &Path, name: &str, organization: &OrganizationFlag) -> Result<Value, Failed> {
    let bytes = std::fs::read(file).map_err(|e| Failed(format!("{} cannot be read: {e}", file.display())))?;
    let path = format!("{}/plugins?name={}", common.load(None)?.base_path, segment(name));
    let tenant = [("x-tenant-id", organization.id_or_code.as_str())];
    let mut api = ApiConnection::open(common).await?;
    let answer = api.follow(common, &path, &tenant, "application/wasm", bytes).await;
    api.close().await;
    answer
}

/// Reads JSON from a file, or from standard input for `-`.
fn read(file: &Path) -> Result<Value, Failed> {
    let failed = |e: &dyn std::fmt::Display| Failed(format!("{} cannot be read: {e}", file.display()));
    let text = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin()).map_err(|e| failed(&e))?
    } else {
        std::fs::read_to_string(file).map_err(|e| failed(&e))?
    };
    serde_json::from_str(&text).map_err(|e| failed(&e))
}

async fn call_api(
    common: &Common,
    organization: &OrganizationFlag,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> Result<Value, Failed> {
    let path = format!("{}{path}", common.load(None)?.base_path);
    let tenant = [("x-tenant-id", organization.id_or_code.as_str())];
    let mut api = ApiConnection::open(common).await?;
    let answer = api.call(method, &path, &tenant, body).await;
    api.close().await;
    answer
}
