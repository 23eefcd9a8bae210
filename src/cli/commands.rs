//! The commands besides `serve`: each is a request to an operation, and a way to print its answer.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use poem::http::Method;
use serde_json::{Value, json};

use super::door::Door;
use super::{Common, Failed, directory, import, open, show};
use crate::config::Config;
use crate::members;

/// Where a password comes from: a prompt, unless one of these says otherwise. Never an argument.
#[derive(Args)]
pub(super) struct PasswordSource {
    /// Read the password from the first line of standard input
    #[arg(long)]
    password_stdin: bool,
    /// Read the password from the first line of this file
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    password_file: Option<PathBuf>,
}

impl PasswordSource {
    fn is_given(&self) -> bool {
        self.password_stdin || self.password_file.is_some()
    }

    fn read(&self) -> Result<String, Failed> {
        if let Some(path) = &self.password_file {
            let text =
                std::fs::read_to_string(path).map_err(|e| Failed(format!("{} cannot be read: {e}", path.display())))?;
            return Ok(text.lines().next().unwrap_or_default().to_owned());
        }
        if self.password_stdin {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line)?;
            return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
        }
        if !std::io::stdin().is_terminal() {
            return Err(Failed(
                "there is no terminal to ask for the password on: use --password-stdin or --password-file".into(),
            ));
        }
        let first = rpassword::prompt_password("Password: ")?;
        let second = rpassword::prompt_password("Once more: ")?;
        if first == second { Ok(first) } else { Err(Failed("the two passwords differ".into())) }
    }
}

#[derive(Subcommand)]
pub(super) enum ConfigCommand {
    /// Check all sources of settings
    Check,
    /// Show every setting with its value; secrets are files, so none shows
    Show,
}

#[derive(Subcommand)]
pub(super) enum MemberCommand {
    /// List members
    List {
        /// Found in username, e-mail and display name
        #[arg(long)]
        keyword: Option<String>,
    },
    /// Create a member; with a password only if one is given
    Create {
        #[arg(long)]
        username: Option<String>,
        #[arg(long)]
        email: Option<String>,
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Show a member
    Show { uid: String },
    /// Activate a member
    Activate { uid: String },
    /// Suspend a member: nothing of it is accepted from the next request on
    Deactivate { uid: String },
    /// Give a member a new password; everything it was signed in to ends
    Password {
        uid: String,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Print a link that works once, with which a member sets a new password
    PasswordLink { uid: String },
    /// Link a member to an organization, and give it roles there
    Link {
        uid: String,
        /// Id or org_code
        organization: String,
        /// Key of a role to assign; may be repeated
        #[arg(long)]
        role: Vec<String>,
    },
    /// Take a member's second factor away; everything it was signed in to ends
    ResetSecondFactor { uid: String },
    /// Import members with quotas and names elsewhere, from CSV or (*.json) JSON
    Import {
        file: PathBuf,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
        /// Send each new member a letter with a link that works once
        #[arg(long)]
        welcome: bool,
        /// What the text of a CSV file is, such as big5; UTF-8, or what its byte order mark says, when absent
        #[arg(long, value_name = "NAME")]
        encoding: Option<String>,
    },
    /// Erase a member's personal data for good
    Delete { uid: String },
}

#[derive(Subcommand)]
pub(super) enum OrgCommand {
    /// List organizations
    List {
        /// Found in code and name
        #[arg(long)]
        keyword: Option<String>,
    },
    /// Create an organization with its system roles
    Create {
        org_code: String,
        name: String,
        #[arg(long)]
        tax_id: Option<String>,
    },
    /// Show an organization
    Show {
        /// Id or org_code
        organization: String,
    },
    /// Activate an organization
    Activate {
        /// Id or org_code
        organization: String,
    },
    /// Deactivate an organization: everything in it is denied, nothing is lost
    Deactivate {
        /// Id or org_code
        organization: String,
    },
    /// Say whether an organization's members must sign in with a second factor
    SecondFactor {
        /// Id or org_code
        organization: String,
        /// on or off
        #[arg(value_enum)]
        switch: Switch,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Switch {
    On,
    Off,
}

#[derive(Subcommand)]
pub(super) enum ClientCommand {
    /// List API clients
    List,
    /// Create an API client; its secret is printed this once
    Create {
        name: String,
        /// Such as members:read,permissions:check; `*` is all of them
        #[arg(long, value_delimiter = ',', required = true)]
        scopes: Vec<String>,
        /// Exact origins it may be used from
        #[arg(long, value_delimiter = ',')]
        origins: Vec<String>,
        /// Addresses or CIDR ranges it may be used from
        #[arg(long, value_delimiter = ',')]
        ips: Vec<String>,
        /// Paths it may be used for, like /admin/*
        #[arg(long, value_delimiter = ',')]
        paths: Vec<String>,
        /// Requests a minute
        #[arg(long, value_name = "N")]
        rate_limit: Option<u32>,
        /// When it ends, in Unix milliseconds
        #[arg(long, value_name = "MS")]
        expires_at: Option<i64>,
    },
    /// Give a client a new secret; the former one works on for a while
    Rotate { client_key: String },
    /// Switch a client off
    Disable { client_key: String },
    /// Switch a client on again
    Enable { client_key: String },
    /// Delete a client
    Delete { client_key: String },
}

#[derive(Subcommand)]
pub(super) enum CatalogCommand {
    /// Import a catalog or any service's OpenAPI document (JSON or YAML)
    Import(Document),
    /// Say what an import would do; exits with 1 when it would change something
    Diff(Document),
    /// Print the catalog of one application in our own form
    Export {
        #[arg(long, default_value = "main")]
        app: String,
    },
}

#[derive(Args)]
pub(super) struct Document {
    file: PathBuf,
    /// The application whose entries these are
    #[arg(long)]
    app: Option<String>,
    /// What the names begin with
    #[arg(long)]
    prefix: Option<String>,
    /// The path before every path of an OpenAPI document, instead of its first server's
    #[arg(long)]
    base: Option<String>,
    /// Parameters of an OpenAPI document that stand for many segments, such as 'path,ref'
    #[arg(long, value_name = "NAMES")]
    multi_segment: Option<String>,
    /// Refuse an OpenAPI document of which something would be skipped
    #[arg(long)]
    strict: bool,
    /// Orphan and change entries of another document, too
    #[arg(long)]
    replace: bool,
    /// New entries are closed until an import says `status: open`
    #[arg(long)]
    closed: bool,
    /// The organizations that have the application, such as 'acme,bolt'; '*' for all
    #[arg(long, value_name = "CODES")]
    organizations: Option<String>,
}

#[derive(Subcommand)]
pub(super) enum AuditCommand {
    /// Walk the chain of the audit; exits with 1 when it is broken
    Verify,
}

pub(super) async fn init(common: &Common, admin: &str, password: &PasswordSource) -> Result<(), Failed> {
    if directory::exists(&common.data) {
        let data = common.data.display();
        return Err(Failed(format!(
            "{data} is a Roster data directory already: use `roster setup-link --data {data}` for its first administrator"
        )));
    }
    let password = password.read()?;
    // Everything that can be wrong is found before anything is made.
    members::require_first(admin, &password)?;
    let config = common.load(None)?;
    directory::create(&common.data)?;
    let directory::Owner::Us(_lock) = directory::lock(&common.data)? else {
        return Err(Failed(format!("another Roster uses {}", common.data.display())));
    };
    let site = open(config).await?;
    let made = members::create_first_administrator(&site.app, admin, password, None).await;
    site.app.close().await;
    let uid = made?;
    if common.json {
        show::line(true, &json!({"uid": uid}));
    } else {
        say!("{} is ready. Administrator: {admin} ({uid})", common.data.display());
        say!("Start it with: roster serve --data {}", common.data.display());
    }
    Ok(())
}

pub(super) async fn setup_link(common: &Common) -> Result<(), Failed> {
    show::line(common.json, &ask(common, Method::POST, "/setup/link", None).await?);
    Ok(())
}

pub(super) fn config(common: &Common, command: &ConfigCommand) -> Result<(), Failed> {
    let config = common.load(None)?;
    let unknown = Config::unknown_variables();
    if matches!(command, ConfigCommand::Check) && !unknown.is_empty() {
        return Err(Failed(format!("no setting has these variables: {}", unknown.join(", "))));
    }
    match command {
        ConfigCommand::Check if common.json => say!("{}", json!({"ok": true})),
        ConfigCommand::Check => say!("The settings are right."),
        ConfigCommand::Show if common.json => {
            // A value is written as TOML; numbers, text and lists read the same as JSON.
            let value = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
            let shown: serde_json::Map<String, Value> =
                config.shown().into_iter().map(|(name, text)| (name.to_owned(), value(text))).collect();
            say!("{}", Value::Object(shown));
        }
        ConfigCommand::Show => config.shown().iter().for_each(|(name, value)| say!("{name} = {value}")),
    }
    Ok(())
}

pub(super) async fn member(common: &Common, command: MemberCommand) -> Result<(), Failed> {
    let at = |uid: &str, rest: &str| format!("/admin/members/{}{rest}", segment(uid));
    let member = match command {
        MemberCommand::List { keyword } => {
            let page = ask(common, Method::GET, &listed("/admin/members", keyword.as_deref()), None).await?;
            show::table(common.json, &page, &["uid", "username", "email", "display_name", "status"]);
            return Ok(());
        }
        MemberCommand::Create { username, email, name, password } => {
            let password = if password.is_given() { Some(password.read()?) } else { None };
            let body = without_nulls(
                json!({"username": username, "email": email, "display_name": name, "password": password}),
            );
            ask(common, Method::POST, "/admin/members", Some(body)).await?
        }
        MemberCommand::Show { uid } => ask(common, Method::GET, &at(&uid, ""), None).await?,
        MemberCommand::Activate { uid } => ask(common, Method::POST, &at(&uid, "/activate"), None).await?,
        MemberCommand::Deactivate { uid } => ask(common, Method::POST, &at(&uid, "/deactivate"), None).await?,
        MemberCommand::Password { uid, password } => {
            let password = password.read()?;
            ask(common, Method::PATCH, &at(&uid, ""), Some(json!({"password": password}))).await?
        }
        MemberCommand::PasswordLink { uid } => {
            ask(common, Method::POST, &at(&uid, "/password-link"), Some(json!({}))).await?
        }
        MemberCommand::Import { file, dry_run, welcome, encoding } => {
            return import::members(common, &file, (dry_run, welcome), encoding.as_deref()).await;
        }
        MemberCommand::Link { uid, organization, role } => return link(common, &uid, &organization, &role).await,
        MemberCommand::ResetSecondFactor { uid } => {
            ask(common, Method::DELETE, &at(&uid, "/second-factor"), None).await?;
            json!({"uid": uid, "second_factor": false})
        }
        MemberCommand::Delete { uid } => {
            ask(common, Method::DELETE, &at(&uid, ""), None).await?;
            json!({"uid": uid, "status": "deleted"})
        }
    };
    show::line(common.json, &member);
    Ok(())
}

async fn link(common: &Common, uid: &str, organization: &str, roles: &[String]) -> Result<(), Failed> {
    let mut door = Door::open(common).await?;
    let id = organization_id(&mut door, organization).await?;
    let path = format!("/admin/members/{}/organizations/{id}", segment(uid));
    let linked = door.call(Method::POST, &path, &[], None).await?;
    let tenant = [("x-tenant-id", id.as_str())];
    let base = common.load(None)?.base_path;
    let known = door.call(Method::GET, &format!("{base}/permissions/roles"), &tenant, None).await?;
    for key in roles {
        let role = known["roles"].as_array().into_iter().flatten().find(|role| role["key"] == **key);
        let role = role.ok_or_else(|| Failed(format!("{organization} has no role {key}")))?;
        let path = format!("{base}/permissions/users/{}/roles", segment(uid));
        door.call(Method::POST, &path, &tenant, Some(json!({"role_id": role["id"]}))).await?;
    }
    door.close().await;
    show::line(common.json, &linked);
    Ok(())
}

pub(super) async fn org(common: &Common, command: OrgCommand) -> Result<(), Failed> {
    let (method, organization, rest, body) = match command {
        OrgCommand::List { keyword } => {
            let page = ask(common, Method::GET, &listed("/admin/organizations", keyword.as_deref()), None).await?;
            show::table(common.json, &page, &["id", "org_code", "name", "status"]);
            return Ok(());
        }
        OrgCommand::Create { org_code, name, tax_id } => {
            let body = without_nulls(json!({"org_code": org_code, "name": name, "tax_id": tax_id}));
            show::line(common.json, &ask(common, Method::POST, "/admin/organizations", Some(body)).await?);
            return Ok(());
        }
        OrgCommand::Show { organization } => (Method::GET, organization, "", None),
        OrgCommand::Activate { organization } => (Method::POST, organization, "/activate", None),
        OrgCommand::Deactivate { organization } => (Method::POST, organization, "/deactivate", None),
        OrgCommand::SecondFactor { organization, switch } => {
            let body = json!({"second_factor_required": matches!(switch, Switch::On)});
            (Method::PATCH, organization, "", Some(body))
        }
    };
    let mut door = Door::open(common).await?;
    let id = organization_id(&mut door, &organization).await?;
    let answer = door.call(method, &format!("/admin/organizations/{id}{rest}"), &[], body).await?;
    door.close().await;
    show::line(common.json, &answer);
    Ok(())
}

/// The id of an organization that is named by id or code.
pub(super) async fn organization_id(door: &mut Door, named: &str) -> Result<String, Failed> {
    if !crate::ids::OrganizationId::of(named).is_nil() {
        return Ok(named.to_owned());
    }
    let found =
        door.call(Method::GET, &format!("/internal/organizations/by-code/{}", segment(named)), &[], None).await?;
    Ok(found["id"].as_str().unwrap_or_default().to_owned())
}

pub(super) async fn client(common: &Common, command: ClientCommand) -> Result<(), Failed> {
    let at = |client_key: &str, rest: &str| format!("/admin/api-clients/{}{rest}", segment(client_key));
    let answer = match command {
        ClientCommand::List => {
            let page = ask(common, Method::GET, &listed("/admin/api-clients", None), None).await?;
            show::table(common.json, &page, &["client_key", "name", "status", "scopes", "last_used_at"]);
            return Ok(());
        }
        ClientCommand::Create { name, scopes, origins, ips, paths, rate_limit, expires_at } => {
            let body = without_nulls(json!({
                "name": name, "scopes": scopes, "allowed_origins": origins, "allowed_ips": ips, "allowed_paths": paths,
                "rate_limit_per_min": rate_limit, "expires_at": expires_at,
            }));
            ask(common, Method::POST, "/admin/api-clients", Some(body)).await?
        }
        ClientCommand::Rotate { client_key } => ask(common, Method::POST, &at(&client_key, "/rotate"), None).await?,
        ClientCommand::Disable { client_key } => {
            ask(common, Method::PATCH, &at(&client_key, ""), Some(json!({"status": "inactive"}))).await?
        }
        ClientCommand::Enable { client_key } => {
            ask(common, Method::PATCH, &at(&client_key, ""), Some(json!({"status": "active"}))).await?
        }
        ClientCommand::Delete { client_key } => {
            ask(common, Method::DELETE, &at(&client_key, ""), None).await?;
            json!({"client_key": client_key, "deleted": true})
        }
    };
    show::line(common.json, &answer);
    Ok(())
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
    let word = |wish: bool| wish.then_some("true");
    let wish = [
        ("dry_run", word(dry_run)),
        ("app", document.app.as_deref()),
        ("prefix", document.prefix.as_deref()),
        ("base", document.base.as_deref()),
        ("multi_segment", document.multi_segment.as_deref()),
        ("strict", word(document.strict)),
        ("replace", word(document.replace)),
        ("closed", word(document.closed)),
        ("organizations", document.organizations.as_deref()),
    ];
    let path = query(&format!("{base}/permissions/catalog"), &wish);
    let mut door = Door::open(common).await?;
    let difference = door.send(Method::PUT, &path, &[], content_type, Some(bytes)).await;
    door.close().await;
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
        let place = [text(&row, "method"), text(&row, "path")].join(" ");
        say!("! {line}{}: {}", place.trim_start(), text(&row, "reason"));
    }
    let [added, changed, renamed, orphaned, skipped] =
        ["added", "changed", "renamed", "orphaned", "skipped"].map(|kind| rows(kind).len());
    say!("{added} added, {changed} changed, {renamed} renamed, {orphaned} orphaned, {skipped} skipped");
    if let Some(replaced) = difference["replaces"].as_str() {
        say!(
            "this orphans or changes entries of {replaced}: name this document's own application (--app), or say --replace"
        );
    }
    let codes: Vec<String> = rows("organizations").iter().filter_map(|code| Some(code.as_str()?.to_owned())).collect();
    if !codes.is_empty() {
        say!("only for {}", codes.join(", "));
    }
    rows("notes").iter().filter_map(Value::as_str).for_each(|note| say!("note: {note}"));
}

/// Does its name say that it holds JSON?
pub(super) fn is_json(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

async fn export(common: &Common, base: &str, app: &str) -> Result<ExitCode, Failed> {
    let path = query(&format!("{base}/permissions/catalog"), &[("app", Some(app))]);
    let answer = ask(common, Method::GET, &path, None).await?;
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

pub(super) async fn audit_verify(common: &Common) -> Result<ExitCode, Failed> {
    let found = ask(common, Method::GET, "/admin/audit/verify", None).await?;
    show::line(common.json, &found);
    Ok(if found["ok"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The document is the program's own, whatever the data: it is read off an empty site that lives for a moment.
pub(super) async fn openapi() -> Result<(), Failed> {
    let scratch = directory::Scratch::new()?;
    let site = open(crate::config::Config::of(scratch.path())).await?;
    let document = crate::routes::documented(&site.app)?;
    site.app.close().await;
    say!("{}", serde_json::to_string_pretty(&document).map_err(|e| Failed(e.to_string()))?);
    Ok(())
}

/// One request on a door of its own.
pub(super) async fn ask(common: &Common, method: Method, path: &str, body: Option<Value>) -> Result<Value, Failed> {
    let mut door = Door::open(common).await?;
    let answer = door.call(method, path, &[], body).await;
    door.close().await;
    answer
}

pub(super) fn listed(path: &str, keyword: Option<&str>) -> String {
    query(path, &[("limit", Some("200")), ("keyword", keyword)])
}

/// A path with those values of its query that there are.
pub(super) fn query(path: &str, values: &[(&str, Option<&str>)]) -> String {
    let given = values.iter().filter_map(|(name, value)| Some(format!("{name}={}", segment((*value)?))));
    let given: Vec<String> = given.collect();
    if given.is_empty() { path.to_owned() } else { format!("{path}?{}", given.join("&")) }
}

/// Text as one segment of a path or one value of a query.
pub(super) fn segment(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escape).collect()
}

pub(super) fn without_nulls(mut value: Value) -> Value {
    if let Some(map) = value.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
    value
}
