//! The command line. Commands call operations of the API: over the local socket if a server runs, otherwise in this
//! process. Both use the same code path.

// First, because the modules below use its macros.
#[macro_use]
mod output;

mod api_connection;
mod catalog;
mod commands;
mod connections;
pub mod data_dir;
mod help;
mod import;
mod invite;
mod jobs;
mod keys;
mod memory;
mod named;
mod outbox;
mod password;
mod plugin;
mod process;
mod reference;
mod search;
mod serve;
mod sessions;
mod sftpgo;
mod statistics;
mod sync;
mod tasks;
mod tls;
mod videos;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, FromArgMatches, Parser, Subcommand};
use poem::endpoint::BoxEndpoint;

use crate::features::{members, organizations, permissions};
use crate::kernel::app::App;
use crate::kernel::config::{Config, Sources};
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::outbound::mail;
use crate::kernel::runtime::log;
use crate::kernel::sandbox::compile;
use crate::server;
pub use help::command;
pub use reference::tables;

/// The member centre of a small site.
///
/// Keeps members, organizations, roles and API clients in one SQLite file and answers "may this member do that?" over
/// REST. Without a command it serves ./roster-data.
#[derive(Parser)]
#[command(name = "roster", version, after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  roster                                            serve ./roster-data on 127.0.0.1:8480
  roster init --data /srv/roster --admin kim@example.org
  roster org create acme 'Acme Studios'
  roster client create portal --scopes members:read,permissions:check
  roster key create upload-station --service transcoder --scopes jobs:write
  roster catalog import gitea.yaml --app gitea --prefix gitea
  roster plugin upload hours.wasm --name hours --org acme
  roster audit verify

Every command works while the server runs (over its local socket) and while it does not.
`roster help TOPIC` prints a page of the manual, and `roster help` lists them.";

#[derive(Args, Clone)]
struct Common {
    /// The data directory
    #[arg(long, global = true, env = "ROSTER_DATA", default_value = "roster-data", value_name = "DIR")]
    data: PathBuf,
    /// Settings file, instead of roster.toml in the data directory
    #[arg(long, global = true, env = "ROSTER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one line of JSON
    #[arg(long, global = true)]
    json: bool,
    /// How the arguments of the command are written.
    #[arg(skip)]
    spelling: help::Spelling,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server
    Serve {
        /// Address and port to listen on; port 0 takes a free port
        #[arg(long, value_name = "ADDR")]
        listen: Option<SocketAddr>,
    },
    /// Create a data directory and the first administrator
    Init {
        /// E-mail or username of the first administrator
        #[arg(long, value_name = "LOGIN")]
        admin: String,
        #[command(flatten)]
        password: password::PasswordSource,
    },
    /// Print a new one-time link for creating the first administrator in a browser
    SetupLink,
    /// Check or show the settings
    #[command(subcommand)]
    Config(commands::ConfigCommand),
    /// Members
    #[command(subcommand)]
    Member(commands::MemberCommand),
    /// Organizations
    #[command(subcommand)]
    Org(commands::OrgCommand),
    /// Invitations: links for joining an organization
    #[command(subcommand)]
    Invite(invite::InviteCommand),
    /// API clients
    #[command(subcommand)]
    Client(commands::ClientCommand),
    /// API keys of members and services
    #[command(subcommand)]
    Key(keys::KeyCommand),
    /// Jobs: work on videos
    #[command(subcommand)]
    Job(jobs::JobCommand),
    /// Keys that sign access tokens
    #[command(subcommand)]
    SigningKey(keys::SigningKeyCommand),
    /// The key that encrypts secrets in the database
    #[command(subcommand)]
    EncryptionKey(keys::EncryptionKeyCommand),
    /// Events for external systems, and their deliveries
    #[command(subcommand)]
    Outbox(outbox::OutboxCommand),
    /// Connections to external systems
    #[command(subcommand)]
    Connection(connections::ConnectionCommand),
    /// Work in the background of the running server
    #[command(subcommand)]
    Task(tasks::TaskCommand),
    /// Compare accounts at external systems with the members
    #[command(subcommand)]
    Sync(sync::SyncCommand),
    /// Compare users at SFTPGo with the members
    #[command(subcommand)]
    Sftpgo(sftpgo::SftpgoCommand),
    /// The catalog of permissions
    #[command(subcommand)]
    Catalog(catalog::CatalogCommand),
    /// Videos
    #[command(subcommand)]
    Video(videos::VideoCommand),
    /// Quotas of members and organizations, and their usage
    #[command(subcommand)]
    Quota(videos::QuotaCommand),
    /// Search members, organizations, permissions, videos, webhooks and API clients; with --org also roles and plugins
    Search {
        /// A part of a name, e-mail, key, path or address; at least 2 characters
        text: String,
        /// Only in this organization: id or org_code
        #[arg(long, value_name = "ORG")]
        org: Option<String>,
    },
    /// Sign-ins, denials, jobs and storage by hour or day
    Statistics(statistics::StatisticsArguments),
    /// Certificates for TLS without a proxy
    #[command(subcommand)]
    Tls(tls::TlsCommand),
    /// The audit log
    #[command(subcommand)]
    Audit(commands::AuditCommand),
    /// Plugins: rules of an organization, which run in a sandbox
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Compiles a component from standard input. The server starts this command as a child process.
    #[command(name = compile::COMMAND, hide = true)]
    CompilePlugin { cpu_s: u64, data_bytes: u64, artifact_bytes: u64, space: String },
    /// Print the OpenAPI document
    Openapi,
    /// Print the version
    Version,
}

/// The failure of a command, as the message for the user.
#[derive(Debug)]
pub struct Failed(pub String);

impl From<crate::kernel::error::Error> for Failed {
    fn from(error: crate::kernel::error::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let matches = help::command().get_matches();
    if let Some(words) = help::requested_topic(&matches) {
        help::print(&words);
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    arguments.common.spelling = help::Spelling::of(&matches);
    let as_json = arguments.common.json;
    if let Some(Command::CompilePlugin { cpu_s, data_bytes, artifact_bytes, space }) = &arguments.command {
        return compile::run_child(*cpu_s, *data_bytes, *artifact_bytes, space);
    }
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    let runtime = match threads.enable_all().on_thread_park(memory::before_sleep).build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&Failed(format!("the runtime did not start: {e}")), as_json),
    };
    let result = runtime.block_on(run(arguments));
    log::flush();
    match (result, output::failure()) {
        (Ok(_), Some(e)) => fail(&Failed(format!("standard output cannot be written: {e}")), as_json),
        (Ok(code), None) => code,
        (Err(failed), _) => fail(&failed, as_json),
    }
}

/// The exit status if a restart cannot help and the operator must inspect the data directory.
const EXIT_NEEDS_OPERATOR: u8 = 78;

fn fail(failed: &Failed, as_json: bool) -> ExitCode {
    if as_json {
        complain!("{}", serde_json::json!({"error": failed.0}));
    } else {
        complain!("roster: {}", failed.0);
    }
    ExitCode::FAILURE
}

async fn run(arguments: Arguments) -> Result<ExitCode, Failed> {
    let common = arguments.common;
    match arguments.command.unwrap_or(Command::Serve { listen: None }) {
        Command::Serve { listen } => return serve::run(&common, listen).await,
        Command::Init { admin, password } => commands::init(&common, &admin, &password).await?,
        Command::SetupLink => commands::setup_link(&common).await?,
        Command::Config(command) => commands::config(&common, &command)?,
        Command::Member(command) => commands::member(&common, command).await?,
        Command::Org(command) => commands::org(&common, command).await?,
        Command::Invite(command) => invite::run(&common, command).await?,
        Command::Client(command) => commands::client(&common, command).await?,
        Command::Key(command) => keys::key(&common, command).await?,
        Command::Job(command) => jobs::job(&common, command).await?,
        Command::SigningKey(command) => keys::signing_key(&common, &command).await?,
        Command::EncryptionKey(command) => keys::encryption_key(&common, &command).await?,
        Command::Outbox(command) => outbox::run(&common, command).await?,
        Command::Connection(command) => return connections::run(&common, command).await,
        Command::Task(command) => tasks::run(&common, command).await?,
        Command::Sync(command) => sync::run(&common, command).await?,
        Command::Sftpgo(command) => sftpgo::run(&common, &command).await?,
        Command::Catalog(command) => return catalog::catalog(&common, command).await,
        Command::Video(command) => videos::video(&common, command).await?,
        Command::Quota(command) => return videos::quota(&common, command).await,
        Command::Search { text, org } => search::run(&common, &text, org.as_deref()).await?,
        Command::Statistics(arguments) => statistics::run(&common, &arguments).await?,
        Command::Tls(command) => tls::run(&common, command)?,
        Command::Audit(commands::AuditCommand::Verify) => return commands::audit_verify(&common).await,
        Command::Plugin(command) => return plugin::run(&common, command).await,
        // Handled in `main`, before the runtime starts.
        Command::CompilePlugin { .. } => return Ok(ExitCode::FAILURE),
        Command::Openapi => commands::openapi().await?,
        Command::Version => output::print_object(
            common.json,
            &serde_json::json!({"name": "roster", "version": env!("CARGO_PKG_VERSION")}),
        ),
    }
    Ok(ExitCode::SUCCESS)
}

impl Common {
    fn load(&self, listen: Option<SocketAddr>) -> Result<Config, Failed> {
        let sources = Sources { data: self.data.clone(), file: self.config.clone(), listen };
        let loaded = Config::load(&sources).and_then(|config| match mail::faults(&config) {
            faults if faults.is_empty() => Ok(config),
            faults => Err(faults),
        });
        loaded.map_err(|faults| Failed(format!("the settings are not valid:\n  {}", faults.join("\n  "))))
    }
}

/// A site that this process has opened.
pub struct Site {
    pub app: Arc<App>,
    pub endpoint: BoxEndpoint<'static, poem::Response>,
}

/// Opens a data directory that this process has locked: opens the database, writes the built-in rows, and builds the
/// endpoint.
pub async fn open(config: Config) -> Result<Site> {
    let app = App::open(config, &server::features::FEATURES).await?;
    let seeded = [
        members::password::reload_hash_kinds(&app).await,
        permissions::seed(&app).await,
        organizations::found_platform(&app).await,
    ];
    for result in seeded {
        match result {
            // With a full disk, an existing site is served without the new rows.
            Err(e) if e.code == ErrorCode::DatabaseFull && app.snapshot().platform().is_some() => {
                tracing::warn!(error = %e, "the built-in rows of this version were not written: restart the server when there is space");
            }
            result => result?,
        }
    }
    let endpoint = server::endpoint(&app)?;
    Ok(Site { app, endpoint })
}
