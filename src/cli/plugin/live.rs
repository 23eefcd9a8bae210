//! The commands for the plugins of an organization: each is a request to an operation.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use poem::http::Method;
use serde_json::{Value, json};

use super::FilterFlags;
use crate::cli::api_connection::ApiConnection;
use crate::cli::commands::{segment, without_nulls};
use crate::cli::{Common, Failed, output};

/// Whose plugins.
#[derive(Args)]
pub(in crate::cli) struct Place {
    /// The organization, by id or org_code
    #[arg(long = "org", value_name = "ORG")]
    organization: String,
}

/// Is a version only watched, or does it decide?
#[derive(Clone, Copy, ValueEnum)]
pub(in crate::cli) enum Mode {
    Shadow,
    Enforce,
}

#[derive(Args)]
pub(in crate::cli) struct Activate {
    /// The plugin
    name: String,
    /// Which of its versions, as `roster plugin show` numbers them
    version: u32,
    /// `shadow` asks it without effect, `enforce` puts it in force
    #[arg(long, value_enum)]
    mode: Mode,
    /// Its `allow` opens what no role does
    #[arg(long)]
    may_grant: bool,
    #[command(flatten)]
    filter: FilterFlags,
    /// How long a call may run, in milliseconds; what the settings say when absent
    #[arg(long, value_name = "MS")]
    deadline_ms: Option<u32>,
    #[command(flatten)]
    place: Place,
}

#[derive(Subcommand)]
pub(in crate::cli) enum LiveCommand {
    /// Upload a component: the first version of a plugin, or its next one
    Upload {
        /// The component
        file: PathBuf,
        /// The plugin: a-z 0-9 -, beginning with a letter
        #[arg(long)]
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// List the plugins of an organization
    List {
        #[command(flatten)]
        place: Place,
    },
    /// See a plugin: its versions, what is in force, and what that has done
    Show {
        /// The plugin
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// Read what a plugin logged
    Log {
        /// The plugin
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// Ask a plugin something without effect, or recorded decisions again
    DryRun {
        /// The plugin
        name: String,
        /// The question, a file of JSON, or - for standard input
        #[arg(required_unless_present = "recorded", conflicts_with = "recorded")]
        input: Option<PathBuf>,
        /// Instead: which recorded decisions would end otherwise
        #[arg(long)]
        recorded: bool,
        /// Decisions from this moment on: 2026-12-31 (UTC), or 7d ago
        #[arg(long, value_name = "WHEN", requires = "recorded", value_parser = crate::cli::named::ago)]
        from: Option<i64>,
        /// How many decisions at most, the newest first
        #[arg(long, requires = "recorded")]
        limit: Option<u32>,
        /// The one in force when absent, else the one that is watched, else the newest
        #[arg(long)]
        version: Option<u32>,
        #[command(flatten)]
        place: Place,
    },
    /// Put a version in force, or have it watched
    Activate(Activate),
    /// Take a plugin out of force
    Deactivate {
        /// The plugin
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// Put the version before in force again
    Rollback {
        /// The plugin
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// Delete a plugin, or one of its versions
    Delete {
        /// The plugin
        name: String,
        /// Only this version
        #[arg(long)]
        version: Option<u32>,
        #[command(flatten)]
        place: Place,
    },
}

pub(super) async fn run(common: &Common, command: LiveCommand) -> Result<ExitCode, Failed> {
    let at = |name: &str, rest: &str| format!("/plugins/{}{rest}", segment(name));
    let (place, method, path, body) = match command {
        LiveCommand::Upload { file, name, place } => {
            output::line(common.json, &upload(common, &file, &name, &place).await?);
            return Ok(ExitCode::SUCCESS);
        }
        LiveCommand::List { place } => {
            let columns = ["name", "version", "exports", "enforced_version", "shadow_version", "quarantined"];
            return listed(common, &place, "/plugins?limit=200", &columns).await;
        }
        LiveCommand::Log { name, place } => {
            return listed(common, &place, &at(&name, "/log?limit=200"), &["at", "version", "level", "message"]).await;
        }
        LiveCommand::Show { name, place } => (place, Method::GET, at(&name, ""), None),
        LiveCommand::DryRun { name, input, recorded, from, limit, version, place } => {
            let input = input.as_deref().map(read).transpose()?;
            let recorded = recorded.then(|| without_nulls(json!({"from": from, "limit": limit})));
            let body = without_nulls(json!({"version": version, "input": input, "recorded": recorded}));
            (place, Method::POST, at(&name, "/dry-run"), Some(body))
        }
        LiveCommand::Activate(activate) => {
            let path = at(&activate.name, "/activate");
            let body = activate.body();
            (activate.place, Method::POST, path, Some(body))
        }
        LiveCommand::Deactivate { name, place } => (place, Method::POST, at(&name, "/deactivate"), None),
        LiveCommand::Rollback { name, place } => (place, Method::POST, at(&name, "/rollback"), None),
        LiveCommand::Delete { name, version, place } => {
            let path = version.map_or_else(|| at(&name, ""), |version| at(&name, &format!("/versions/{version}")));
            ask(common, &place, Method::DELETE, &path, None).await?;
            output::line(common.json, &without_nulls(json!({"name": name, "version": version, "deleted": true})));
            return Ok(ExitCode::SUCCESS);
        }
    };
    let answer = ask(common, &place, method, &path, body).await?;
    match answer.get("versions") {
        Some(_) if !common.json => show_plugin(&answer),
        _ => output::line(common.json, &answer),
    }
    Ok(ExitCode::SUCCESS)
}

/// A plugin for people: what is in force and what that has done, and the versions.
fn show_plugin(plugin: &Value) {
    let rows = |list: &str| plugin[list].as_array().cloned().unwrap_or_default();
    let in_force = rows("activations").into_iter().map(|mut row| {
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
    output::table(false, &json!({"items": in_force.collect::<Vec<_>>()}), &columns);
    say!("");
    let columns = ["version", "state", "exports", "size_bytes", "sha256", "uploaded_by", "created_at"];
    output::table(false, &json!({"items": versions.collect::<Vec<_>>()}), &columns);
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

async fn listed(common: &Common, place: &Place, path: &str, columns: &[&str]) -> Result<ExitCode, Failed> {
    output::table(common.json, &ask(common, place, Method::GET, path, None).await?, columns);
    Ok(ExitCode::SUCCESS)
}

async fn upload(common: &Common, file: &Path, name: &str, place: &Place) -> Result<Value, Failed> {
    let bytes = std::fs::read(file).map_err(|e| Failed(format!("{} cannot be read: {e}", file.display())))?;
    let path = format!("{}/plugins?name={}", common.load(None)?.base_path, segment(name));
    let tenant = [("x-tenant-id", place.organization.as_str())];
    let mut api = ApiConnection::open(common).await?;
    let answer = api.send(Method::POST, &path, &tenant, "application/wasm", Some(bytes)).await;
    api.close().await;
    answer
}

/// A question as JSON.
fn read(file: &Path) -> Result<Value, Failed> {
    let failed = |e: &dyn std::fmt::Display| Failed(format!("{} cannot be read: {e}", file.display()));
    let text = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin()).map_err(|e| failed(&e))?
    } else {
        std::fs::read_to_string(file).map_err(|e| failed(&e))?
    };
    serde_json::from_str(&text).map_err(|e| failed(&e))
}

async fn ask(common: &Common, place: &Place, method: Method, path: &str, body: Option<Value>) -> Result<Value, Failed> {
    let path = format!("{}{path}", common.load(None)?.base_path);
    let tenant = [("x-tenant-id", place.organization.as_str())];
    let mut api = ApiConnection::open(common).await?;
    let answer = api.call(method, &path, &tenant, body).await;
    api.close().await;
    answer
}
