//! `roster catalog`: imports, compares and exports the catalog of permissions.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use poem::http::Method;
use serde_json::{Value, json};

use super::api_connection::ApiConnection;
use super::commands::{call_api, flag, is_json, query};
use super::{Common, Failed};

#[derive(Subcommand)]
pub(super) enum CatalogCommand {
    /// Import a catalog, or the OpenAPI document of any service (JSON or YAML)
    Import(Document),
    /// Show what an import would do; exits with 1 if it would change something
    Diff(Document),
    /// Print the catalog of one application in Roster's own format
    Export {
        /// The application
        #[arg(long, default_value = "main")]
        app: String,
    },
}

#[derive(Args)]
pub(super) struct Document {
    /// A catalog in Roster's own format, or an OpenAPI document
    file: PathBuf,
    /// The application that the entries belong to
    #[arg(long)]
    app: Option<String>,
    /// Prefix of the permission names
    #[arg(long)]
    prefix: Option<String>,
    /// Base path of an OpenAPI document, instead of the path of its first server
    #[arg(long)]
    base: Option<String>,
    /// Parameters of an OpenAPI document that match several segments, such as 'path,ref'
    #[arg(long, value_name = "NAMES")]
    multi_segment: Option<String>,
    /// Refuse an OpenAPI document if an entry would be skipped
    #[arg(long)]
    strict: bool,
    /// Also orphan and change entries of another document
    #[arg(long)]
    replace: bool,
    /// Import new entries closed: nobody holds them until an import says `status: open`
    #[arg(long)]
    closed: bool,
    /// The organizations that have the application, such as 'acme,bolt'; '*' for all
    #[arg(long, value_name = "CODES")]
    organizations: Option<String>,
}

pub(super) async fn catalog(common: &Common, command: CatalogCommand) -> Result<ExitCode, Failed> {
    let base = common.load(None)?.base_path;
    let (document, dry_run) = match command {
        CatalogCommand::Import(document) => (document, false),
        CatalogCommand::Diff(document) => (document, true),
        CatalogCommand::Export { app } => return export(common, &base, &app).await,
    };
    let bytes = std::fs::read(&document.file)
        .map_err(|e| Failed(format!("{} cannot be read: {e}", document.file.display())))?;
    let content_type = if is_json(&document.file) { "application/json" } else { "application/yaml" };
    let options = [
        ("dry_run", flag(dry_run)),
        ("app", document.app.as_deref()),
        ("prefix", document.prefix.as_deref()),
        ("base", document.base.as_deref()),
        ("multi_segment", document.multi_segment.as_deref()),
        ("strict", flag(document.strict)),
        ("replace", flag(document.replace)),
        ("closed", flag(document.closed)),
        ("organizations", document.organizations.as_deref()),
    ];
    let path = query(&format!("{base}/permissions/catalog"), &options);
    let mut api = ApiConnection::open(common).await?;
    let difference = api.send(Method::PUT, &path, &[], content_type, Some(bytes)).await;
    api.close().await;
    let difference = difference?;
    if common.json {
        say!("{difference}");
    } else {
        print_difference(&difference);
    }
    let differs = ["added", "changed", "renamed", "orphaned"]
        .iter()
        .any(|kind| difference[kind].as_array().is_some_and(|names| !names.is_empty()));
    Ok(if dry_run && differs { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print_difference(difference: &Value) {
    let rows = |kind: &str| difference[kind].as_array().cloned().unwrap_or_default();
    for (kind, sign) in [("added", '+'), ("changed", '~'), ("orphaned", '-')] {
        rows(kind).iter().filter_map(Value::as_str).for_each(|name| say!("{sign} {name}"));
    }
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    for row in rows("renamed") {
        say!("= {} -> {}", text(&row, "from"), text(&row, "to"));
    }
    for row in rows("skipped") {
        let line = row["line"].as_u64().map_or_else(String::new, |line| format!("line {line}: "));
        let operation = [text(&row, "method"), text(&row, "path")].join(" ");
        say!("! {line}{}: {}", operation.trim_start(), text(&row, "reason"));
    }
    let [added, changed, renamed, orphaned, skipped] =
        ["added", "changed", "renamed", "orphaned", "skipped"].map(|kind| rows(kind).len());
    say!("{added} added, {changed} changed, {renamed} renamed, {orphaned} orphaned, {skipped} skipped");
    if let Some(replaced) = difference["replaces"].as_str() {
        say!(
            "this orphans or changes entries of {replaced}: name the application of this document with --app, or use --replace"
        );
    }
    let codes: Vec<String> = rows("organizations").iter().filter_map(|code| Some(code.as_str()?.to_owned())).collect();
    if !codes.is_empty() {
        say!("only for {}", codes.join(", "));
    }
    for role in rows("losing_roles") {
        let (count, members) = (role["count"].as_u64().unwrap_or(0), role["members"].as_u64().unwrap_or(0));
        say!(
            "the role {} of {} loses {count} permissions ({members} members)",
            text(&role, "key"),
            text(&role, "org_code")
        );
    }
    rows("notes").iter().filter_map(Value::as_str).for_each(|note| say!("note: {note}"));
}

async fn export(common: &Common, base: &str, app: &str) -> Result<ExitCode, Failed> {
    let path = query(&format!("{base}/permissions/catalog"), &[("app", Some(app))]);
    let answer = call_api(common, Method::GET, &path, None).await?;
    let entries = answer["list"].as_array().cloned().unwrap_or_default().into_iter().map(|mut node| {
        if let Some(map) = node.as_object_mut() {
            map.remove("id");
        }
        node
    });
    let document = json!({"app": app, "permissions": entries.collect::<Vec<_>>()});
    if common.json {
        say!("{document}");
    } else {
        say!("{}", serde_norway::to_string(&document).map_err(|e| Failed(e.to_string()))?.trim_end());
    }
    Ok(ExitCode::SUCCESS)
}
