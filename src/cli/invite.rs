//! Commands for invitations.

use clap::Subcommand;
use poem::http::Method;
use serde_json::json;

use super::api_connection::ApiConnection;
use super::commands::{segment, without_nulls};
use super::named::{self, organization_id};
use super::{Common, Failed, output};

#[derive(Subcommand)]
pub(super) enum InviteCommand {
    /// Create a link that makes its holder a member of an organization; it is printed only once
    Create {
        /// Id or org_code
        organization: String,
        /// Key of the role that the new member gets
        #[arg(long, value_name = "KEY")]
        role: Option<String>,
        /// E-mail of the new account; its owner can choose another one
        #[arg(long)]
        email: Option<String>,
        /// When it expires: 2026-12-31 (0:00 UTC), or 90d from now
        #[arg(long, value_name = "WHEN", value_parser = named::parse_expiry)]
        expires_at: Option<i64>,
    },
    /// List an organization's invitations
    List {
        /// Id or org_code
        organization: String,
    },
    /// Withdraw an invitation that was not accepted yet
    Withdraw {
        /// Id or org_code
        organization: String,
        /// Id of the invitation, as `roster invite list` shows it
        id: String,
    },
}

pub(super) async fn run(common: &Common, command: InviteCommand) -> Result<(), Failed> {
    let organization = match &command {
        InviteCommand::Create { organization, .. }
        | InviteCommand::List { organization }
        | InviteCommand::Withdraw { organization, .. } => organization.clone(),
    };
    let mut api = ApiConnection::open(common).await?;
    let tenant = organization_id(&mut api, &organization).await?;
    let tenant = [("x-tenant-id", tenant.as_str())];
    let (method, path, body) = match &command {
        InviteCommand::Create { role, email, expires_at, .. } => {
            let body = without_nulls(json!({"role_key": role, "email": email, "expires_at": expires_at}));
            (Method::POST, "/admin/invitations".to_owned(), Some(body))
        }
        InviteCommand::List { .. } => (Method::GET, "/admin/invitations?limit=200".to_owned(), None),
        InviteCommand::Withdraw { id, .. } => (Method::DELETE, format!("/admin/invitations/{}", segment(id)), None),
    };
    let answer = api.call(method, &path, &tenant, body).await;
    api.close().await;
    let answer = answer?;
    match command {
        InviteCommand::Create { .. } => output::print_created(common.json, &answer, true),
        InviteCommand::List { .. } => {
            output::print_table(common.json, &answer, &["id", "status", "role_key", "email", "expires_at"]);
        }
        InviteCommand::Withdraw { id, .. } => output::print_object(common.json, &json!({"id": id, "withdrawn": true})),
    }
    Ok(())
}
