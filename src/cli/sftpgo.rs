//! The commands for SFTPGo's users.

use clap::Subcommand;
use poem::http::Method;
use serde_json::json;

use super::commands::ask;
use super::{Common, Failed, output};

#[derive(Subcommand)]
pub(super) enum SftpgoCommand {
    /// Show how SFTPGo's users differ from the members
    Drift,
    /// Bring SFTPGo's users in line with the members; users of nobody here are left alone
    Reconcile {
        /// Only say what would happen
        #[arg(long)]
        dry_run: bool,
    },
}

pub(super) async fn run(common: &Common, command: &SftpgoCommand) -> Result<(), Failed> {
    let found = match command {
        SftpgoCommand::Drift => ask(common, Method::GET, "/admin/sftpgo/drift", None).await?,
        SftpgoCommand::Reconcile { dry_run } => {
            let body = json!({"dry_run": dry_run});
            ask(common, Method::POST, "/admin/sftpgo/reconcile", Some(body)).await?
        }
    };
    output::line(common.json, &found);
    Ok(())
}
