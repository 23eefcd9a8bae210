//! The commands for the outbox: what others are told, and what they could not be told.

use clap::Subcommand;
use poem::http::Method;

use super::commands::{ask, query, segment};
use super::{Common, Failed, output};

#[derive(Subcommand)]
pub(super) enum OutboxCommand {
    /// List deliveries, those of the newest events first
    List {
        /// pending, delivered or dead
        #[arg(long)]
        state: Option<String>,
        /// webhook, mail, sftpgo, wordpress, or the id of one webhook
        #[arg(long)]
        target: Option<String>,
        /// A kind of event, such as member.created
        #[arg(long)]
        kind: Option<String>,
    },
    /// Deliver again what was given up
    Retry {
        /// The delivery's id
        id: String,
    },
}

pub(super) async fn run(common: &Common, command: OutboxCommand) -> Result<(), Failed> {
    match command {
        OutboxCommand::List { state, target, kind } => {
            let narrowed = [
                ("limit", Some("200")),
                ("state", state.as_deref()),
                ("target", target.as_deref()),
                ("kind", kind.as_deref()),
            ];
            let page = ask(common, Method::GET, &query("/admin/deliveries", &narrowed), None).await?;
            let columns = ["id", "kind", "state", "attempts", "next_at", "last_error"];
            output::table(common.json, &page, &columns);
        }
        OutboxCommand::Retry { id } => {
            let path = format!("/admin/deliveries/{}/retry", segment(&id));
            output::line(common.json, &ask(common, Method::POST, &path, None).await?);
        }
    }
    Ok(())
}
