//! Commands on members, organizations, API clients, settings and the audit log, and helpers that other command modules
//! share. Each command sends requests to the API and prints the answers.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use poem::http::Method;
use serde_json::{Value, json};

use super::api_connection::{self, ApiConnection};
use super::named::{self, member_id, organization_id};
use super::password::PasswordSource;
use super::{Common, Failed, data_dir, import, open, output, sessions};
use crate::features::{members, permissions};
use crate::kernel::config::Config;

#[derive(Subcommand)]
pub(super) enum ConfigCommand {
    /// Check all sources of settings
    Check,
    /// Show every setting with its value, without secrets, which are in files
    Show,
}

#[derive(Subcommand)]
pub(super) enum MemberCommand {
    /// List members
    List {
        /// Text to find in username, e-mail and display name
        #[arg(long)]
        keyword: Option<String>,
    },
    /// Create a member, without a password unless one is given
    Create {
        /// Name for signing in: letters, digits and . _ -
        #[arg(long)]
        username: Option<String>,
        /// E-mail, for signing in and for mail
        #[arg(long)]
        email: Option<String>,
        /// Display name
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Show a member
    Show {
        /// The member, by username, e-mail or uid
        #[arg(value_name = "MEMBER")]
        uid: String,
    },
    /// Activate a member
    Activate {
        /// The member, by username, e-mail or uid
        #[arg(value_name = "MEMBER")]
        uid: String,
    },
    /// Suspend a member: its credentials are refused from the next request on
    Deactivate {
        /// The member, by username, e-mail or uid
        #[arg(value_name = "MEMBER")]
        uid: String,
    },
    /// Give a member a new password, and end its sessions
    Password {
        /// The member, by username, e-mail or uid
        #[arg(value_name = "MEMBER")]
        uid: String,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Print a one-time link with which a member sets a new password
    PasswordLink {
        /// The member, by username, e-mail or uid
        #[arg(value_name = "MEMBER")]
        uid: String,
    },
    /// Add a member to an organization, and assign roles there
    Link {
        /// The member, by username, e-mail or uid
        #[arg(value_name = "MEMBER")]
        uid: String,
        /// Id or org_code
        organization: String,
        /// Key of a role to assign; may be repeated
        #[arg(long)]
        role: Vec<String>,
    },
    /// Remove a member's second factor, and end its sessions
    ResetSecondFactor {
        /// The member, by username, e-mail or uid
        #[arg(value_name = "MEMBER")]
        uid: String,
    },
    /// List the sessions of a member: where it is signed in
    Sessions {
        /// The member, by username, e-mail or uid
        #[arg(value_name = "MEMBER")]
        uid: String,
    },
    /// Sign a member out: everywhere, or on one device
    EndSessions {
        /// The member, by username, e-mail or uid
        #[arg(value_name = "MEMBER")]
        uid: String,
        /// End only this session, by its id in `roster member sessions`
        #[arg(long, value_name = "ID")]
        session: Option<String>,
    },
    /// Import members with quotas and external names, from CSV or JSON (*.json)
    Import {
        /// The file of members. Its first line names the columns, in any order: username, and any of email,
        /// display_name, wordpress_id, quota_size, sftpgo_username and org_code
        file: PathBuf,
        /// Only show what would be done
        #[arg(long)]
        dry_run: bool,
        /// Send each new member a mail with a one-time link
        #[arg(long)]
        welcome: bool,
        /// Encoding of a CSV file, such as big5; by default UTF-8, or the one that its byte order mark names
        #[arg(long, value_name = "NAME")]
        encoding: Option<String>,
    },
    /// Erase a member's personal data permanently; asks for confirmation on a terminal
    Delete {
        /// The member, by username, e-mail or uid
        #[arg(value_name = "MEMBER")]
        uid: String,
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Subcommand)]
pub(super) enum OrgCommand {
    /// List organizations
    List {
        /// Text to find in code and name
        #[arg(long)]
        keyword: Option<String>,
    },
    /// Create an organization with its system roles
    Create {
        /// Its name in requests and commands; cannot be changed later
        org_code: String,
        /// Display name
        name: String,
        /// Tax number, for information only
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
    /// Deactivate an organization: everything in it is denied, no data is deleted
    Deactivate {
        /// Id or org_code
        organization: String,
    },
    /// Set whether an organization's members must sign in with a second factor
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
    /// Create an API client; its secret is printed only once
    Create {
        /// Display name
        name: String,
        /// Scopes, such as members:read,permissions:check; `*` stands for all
        #[arg(long, value_delimiter = ',', required = true)]
        scopes: Vec<String>,
        /// Origins that it may be used from, compared exactly
        #[arg(long, value_delimiter = ',')]
        origins: Vec<String>,
        /// Addresses or CIDR ranges that it may be used from
        #[arg(long, value_delimiter = ',')]
        ips: Vec<String>,
        /// Paths that it may be used for, such as /admin/*
        #[arg(long, value_delimiter = ',')]
        paths: Vec<String>,
        /// Requests per minute
        #[arg(long, value_name = "N")]
        rate_limit: Option<u32>,
        /// When it expires: 2026-12-31 (0:00 UTC), or 90d from now
        #[arg(long, value_name = "WHEN", value_parser = named::parse_expiry)]
        expires_at: Option<i64>,
    },
    /// Give a client a new secret; the previous one stays valid for a limited time
    Rotate {
        /// The client key, as `roster client list` shows it
        client_key: String,
    },
    /// Disable a client
    Disable {
        /// The client key, as `roster client list` shows it
        client_key: String,
    },
    /// Enable a client again
    Enable {
        /// The client key, as `roster client list` shows it
        client_key: String,
    },
    /// Delete a client
    Delete {
        /// The client key, as `roster client list` shows it
        client_key: String,
    },
}

#[derive(Subcommand)]
pub(super) enum AuditCommand {
    /// Verify the hash chain of the audit log; exits with 1 if it is broken
    Verify,
}

/// `roster init`: creates the data directory if it does not exist, and the first administrator. Also works while a server
/// runs.
pub(super) async fn init(common: &Common, admin: &str, password: &PasswordSource) -> Result<(), Failed> {
    let is_new = !data_dir::exists(&common.data)?;
    let password = password.read()?;
    // Everything is validated before anything is created.
    members::validate_first_administrator(admin, &password).map_err(|e| api_connection::invalid_input(&e, common))?;
    common.load(None)?;
    data_dir::create(&common.data)?;
    let mut api = ApiConnection::open_or_create(common).await?;
    let body = json!({"login": admin, "password": password});
    let administrator = api.call(Method::POST, "/setup/administrator", &[], Some(body)).await;
    let is_served = api.is_served();
    api.close().await;
    let administrator = administrator?;
    if common.json {
        output::print_object(true, &administrator);
        return Ok(());
    }
    let (data, uid) = (common.data.display(), administrator["uid"].as_str().unwrap_or_default());
    say!("{data} is ready. Administrator: {admin} ({uid})");
    if !is_served {
        say!("Start it with: roster serve --data {data}");
    } else if is_new {
        say!("A server is already running on it.");
    }
    Ok(())
}

pub(super) async fn setup_link(common: &Common) -> Result<(), Failed> {
    output::print_object(common.json, &call_api(common, Method::POST, "/setup/link", None).await?);
    Ok(())
}

pub(super) fn config(common: &Common, command: &ConfigCommand) -> Result<(), Failed> {
    let is_check = matches!(command, ConfigCommand::Check);
    if is_check && !common.data.is_dir() {
        let data = common.data.display();
        return Err(Failed(format!(
            "{data} is no directory: name your data directory with --data, or create it with `roster init`"
        )));
    }
    let config = common.load(None)?;
    let unknown = Config::unknown_variables();
    if is_check && !unknown.is_empty() {
        return Err(Failed(format!("these variables name no setting: {}", unknown.join(", "))));
    }
    if is_check {
        crate::server::listener::tls::check(&config).map_err(Failed)?;
    }
    match command {
        ConfigCommand::Check if common.json => say!("{}", json!({"ok": true})),
        ConfigCommand::Check => say!("The settings are valid."),
        ConfigCommand::Show if common.json => {
            // Values are rendered as TOML. Numbers, strings and lists have the same form in JSON.
            let value = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
            let shown: serde_json::Map<String, Value> =
                config.shown().into_iter().map(|(name, text)| (name.to_owned(), value(text))).collect();
            say!("{}", Value::Object(shown));
        }
        ConfigCommand::Show => {
            config.in_force().iter().for_each(|setting| say!("{} = {}", setting.name, setting.value))
        }
    }
    Ok(())
}

pub(super) async fn member(common: &Common, command: MemberCommand) -> Result<(), Failed> {
    let (named, method, rest, body) = match command {
        MemberCommand::List { keyword } => {
            let page = call_api(common, Method::GET, &list_path("/admin/members", keyword.as_deref()), None).await?;
            output::print_table(common.json, &page, &["uid", "username", "email", "display_name", "status"]);
            return Ok(());
        }
        MemberCommand::Create { username: None, email: None, .. } => {
            return Err(Failed("give the member a name to sign in with: --username or --email".into()));
        }
        MemberCommand::Create { username, email, name, password } => {
            let password = if password.is_given() { Some(password.read()?) } else { None };
            let body = without_nulls(
                json!({"username": username, "email": email, "display_name": name, "password": password}),
            );
            output::print_object(common.json, &call_api(common, Method::POST, "/admin/members", Some(body)).await?);
            return Ok(());
        }
        MemberCommand::Import { file, dry_run, welcome, encoding } => {
            return import::members(common, &file, (dry_run, welcome), encoding.as_deref()).await;
        }
        MemberCommand::Sessions { uid } => return sessions::list(common, &uid).await,
        MemberCommand::EndSessions { uid, session } => return sessions::end(common, &uid, session.as_deref()).await,
        MemberCommand::Link { uid, organization, role } => return link(common, &uid, &organization, &role).await,
        MemberCommand::Show { uid } => (uid, Method::GET, "", None),
        MemberCommand::Activate { uid } => (uid, Method::POST, "/activate", None),
        MemberCommand::Deactivate { uid } => (uid, Method::POST, "/deactivate", None),
        MemberCommand::Password { uid, password } => {
            (uid, Method::PATCH, "", Some(json!({"password": password.read()?})))
        }
        MemberCommand::PasswordLink { uid } => (uid, Method::POST, "/password-link", Some(json!({}))),
        MemberCommand::ResetSecondFactor { uid } => (uid, Method::DELETE, "/second-factor", None),
        MemberCommand::Delete { uid, yes } => {
            if !yes && !confirmed(&format!("Erase {uid} for good, with all personal data?"))? {
                return Err(Failed("nothing was done".into()));
            }
            (uid, Method::DELETE, "", None)
        }
    };
    let mut api = ApiConnection::open(common).await?;
    let answer = of_member(&mut api, &named, (method, rest), body).await;
    api.close().await;
    output::print_object(common.json, &answer?);
    Ok(())
}

/// Asks for confirmation on a terminal. Without a terminal (in a script) it is confirmed.
fn confirmed(question: &str) -> Result<bool, Failed> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Ok(true);
    }
    complain!("{question} Type yes to continue:");
    let mut line = String::new();
    input.lock().read_line(&mut line)?;
    Ok(line.trim().eq_ignore_ascii_case("yes"))
}

/// Calls an operation on a member. For operations that answer no data, returns a value that describes what was done.
async fn of_member(
    api: &mut ApiConnection,
    named: &str,
    (method, rest): (Method, &str),
    body: Option<Value>,
) -> Result<Value, Failed> {
    let uid = member_id(api, named).await?;
    let is_deletion = method == Method::DELETE;
    let answer = api.call(method, &format!("/admin/members/{}{rest}", segment(&uid)), &[], body).await?;
    Ok(match (is_deletion, rest) {
        (true, "") => json!({"uid": uid, "status": "deleted"}),
        (true, _) => json!({"uid": uid, "second_factor": false}),
        _ => answer,
    })
}

async fn link(common: &Common, named: &str, organization: &str, roles: &[String]) -> Result<(), Failed> {
    let mut api = ApiConnection::open(common).await?;
    let linked = linked(&mut api, common, (named, organization), roles).await;
    api.close().await;
    output::print_object(common.json, &linked?);
    Ok(())
}

async fn linked(
    api: &mut ApiConnection,
    common: &Common,
    (named, organization): (&str, &str),
    roles: &[String],
) -> Result<Value, Failed> {
    let id = organization_id(api, organization).await?;
    let uid = member_id(api, named).await?;
    let base = common.load(None)?.base_path;
    let tenant = [("x-tenant-id", id.as_str())];
    let known = api.call(Method::GET, &format!("{base}/permissions/roles"), &tenant, None).await?;
    let known = known["roles"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut role_ids = Vec::new();
    for key in roles {
        let role = known.iter().find(|role| role["key"] == **key).ok_or_else(|| {
            let keys = known.iter().filter_map(|role| role["key"].as_str());
            Failed(permissions::role_key_not_found_message(organization, key, keys))
        })?;
        role_ids.push(role["id"].clone());
    }
    let path = format!("/admin/members/{}/organizations/{id}", segment(&uid));
    let mut linked = api.call(Method::POST, &path, &[], None).await?;
    linked["roles"] = json!(roles);
    for role in role_ids {
        let path = format!("{base}/permissions/users/{}/roles", segment(&uid));
        api.call(Method::POST, &path, &tenant, Some(json!({"role_id": role}))).await?;
    }
    Ok(linked)
}

pub(super) async fn org(common: &Common, command: OrgCommand) -> Result<(), Failed> {
    let (method, organization, rest, body) = match command {
        OrgCommand::List { keyword } => {
            let page =
                call_api(common, Method::GET, &list_path("/admin/organizations", keyword.as_deref()), None).await?;
            output::print_table(common.json, &page, &["id", "org_code", "name", "status"]);
            return Ok(());
        }
        OrgCommand::Create { org_code, name, tax_id } => {
            let body = without_nulls(json!({"org_code": org_code, "name": name, "tax_id": tax_id}));
            output::print_object(
                common.json,
                &call_api(common, Method::POST, "/admin/organizations", Some(body)).await?,
            );
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
    let mut api = ApiConnection::open(common).await?;
    let answer = of_organization(&mut api, &organization, (method, rest), body).await;
    api.close().await;
    output::print_object(common.json, &answer?);
    Ok(())
}

/// Calls an operation on an organization.
async fn of_organization(
    api: &mut ApiConnection,
    named: &str,
    (method, rest): (Method, &str),
    body: Option<Value>,
) -> Result<Value, Failed> {
    let id = organization_id(api, named).await?;
    api.call(method, &format!("/admin/organizations/{id}{rest}"), &[], body).await
}

pub(super) async fn client(common: &Common, command: ClientCommand) -> Result<(), Failed> {
    let at = |client_key: &str, rest: &str| format!("/admin/api-clients/{}{rest}", segment(client_key));
    let has_secret = matches!(command, ClientCommand::Create { .. } | ClientCommand::Rotate { .. });
    let answer = match command {
        ClientCommand::List => {
            let page = call_api(common, Method::GET, &list_path("/admin/api-clients", None), None).await?;
            output::print_table(common.json, &page, &["client_key", "name", "status", "scopes", "last_used_at"]);
            return Ok(());
        }
        ClientCommand::Create { name, scopes, origins, ips, paths, rate_limit, expires_at } => {
            let body = without_nulls(json!({
                "name": name, "scopes": scopes, "allowed_origins": origins, "allowed_ips": ips, "allowed_paths": paths,
                "rate_limit_per_min": rate_limit, "expires_at": expires_at,
            }));
            call_api(common, Method::POST, "/admin/api-clients", Some(body)).await?
        }
        ClientCommand::Rotate { client_key } => {
            call_api(common, Method::POST, &at(&client_key, "/rotate"), None).await?
        }
        ClientCommand::Disable { client_key } => {
            call_api(common, Method::PATCH, &at(&client_key, ""), Some(json!({"status": "inactive"}))).await?
        }
        ClientCommand::Enable { client_key } => {
            call_api(common, Method::PATCH, &at(&client_key, ""), Some(json!({"status": "active"}))).await?
        }
        ClientCommand::Delete { client_key } => {
            call_api(common, Method::DELETE, &at(&client_key, ""), None).await?;
            json!({"client_key": client_key, "deleted": true})
        }
    };
    output::print_created(common.json, &answer, has_secret);
    Ok(())
}

/// Whether the file name ends in `.json`.
pub(super) fn is_json(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

pub(super) async fn audit_verify(common: &Common) -> Result<ExitCode, Failed> {
    let found = call_api(common, Method::GET, "/admin/audit/verify", None).await?;
    output::print_object(common.json, &found);
    Ok(if found["ok"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `roster openapi`. The document does not depend on data, so it is rendered from an empty temporary site.
pub(super) async fn openapi() -> Result<(), Failed> {
    let scratch = data_dir::Scratch::new()?;
    let site = open(crate::kernel::config::Config::of(scratch.path())).await?;
    let document = crate::server::documented(&site.app)?;
    site.app.close().await;
    say!("{}", serde_json::to_string_pretty(&document).map_err(|e| Failed(e.to_string()))?);
    Ok(())
}

/// Sends one request on its own connection.
pub(super) async fn call_api(
    common: &Common,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> Result<Value, Failed> {
    let mut api = ApiConnection::open(common).await?;
    let answer = api.call(method, path, &[], body).await;
    api.close().await;
    answer
}

/// A list's path with the largest page size, and the keyword if there is one.
pub(super) fn list_path(path: &str, keyword: Option<&str>) -> String {
    query(path, &[("limit", Some("200")), ("keyword", keyword)])
}

/// A path with the query parameters that have a value.
pub(super) fn query(path: &str, values: &[(&str, Option<&str>)]) -> String {
    let given = values.iter().filter_map(|(name, value)| Some(format!("{name}={}", segment((*value)?))));
    let given: Vec<String> = given.collect();
    if given.is_empty() { path.to_owned() } else { format!("{path}?{}", given.join("&")) }
}

/// The value of a query parameter that is only sent if it is set.
pub(super) fn flag(is_set: bool) -> Option<&'static str> {
    is_set.then_some("true")
}

/// Percent-encodes text as one path segment or one query value.
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
