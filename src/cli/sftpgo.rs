//! Commands that compare users at SFTPGo with the members.

use clap::Subcommand;
use poem::http::Method;
use serde_json::json;

use super::api_connection::ApiConnection;
use super::commands::call_api;
use super::{Common, Failed, output};

#[derive(Subcommand)]
pub(super) enum SftpgoCommand {
    /// Show how users at SFTPGo differ from the members
    Drift,
    /// Update users at SFTPGo to match the members; users without a member are not changed
    Reconcile {
        /// Only show what would change
        #[arg(long)]
        dry_run: bool,
    },
}

pub(super) async fn run(common: &Common, command: &SftpgoCommand) -> Result<(), Failed> {
    let report = match command {
        SftpgoCommand::Drift => call_api(common, Method::GET, "/admin/sftpgo/drift", None).await?,
        SftpgoCommand::Reconcile { dry_run } => {
            let body = json!({"dry_run": dry_run}).to_string().into_bytes();
            let mut api = ApiConnection::open(common).await?;
            let report = api.follow(common, "/admin/sftpgo/reconcile", &[], "application/json", body).await;
            api.close().await;
            report?
        }
    };
    output::print_object(common.json, &report);
    Ok(())
}
