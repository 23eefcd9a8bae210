//! Commands for the outbox: deliveries of events, and those that failed.

use clap::builder::PossibleValue;
use clap::{Subcommand, ValueEnum};
use poem::http::Method;

use super::commands::{call_api, query, segment};
use super::{Common, Failed, output};
use crate::kernel::outbox::delivery::DeliveryState;

impl ValueEnum for DeliveryState {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()))
    }
}

#[derive(Subcommand)]
pub(super) enum OutboxCommand {
    /// List deliveries, newest events first
    List {
        /// Only deliveries in this state
        #[arg(long, value_enum)]
        state: Option<DeliveryState>,
        /// Only this target: webhook, mail, sftpgo, wordpress, or the id of a webhook
        #[arg(long)]
        target: Option<String>,
        /// Only deliveries that were attempted; with --state pending, those that are failing now
        #[arg(long)]
        tried: bool,
        /// Only events of this kind, such as member.created
        #[arg(long)]
        kind: Option<String>,
    },
    /// Retry a dead delivery
    Retry {
        /// The delivery's id
        id: String,
    },
}

pub(super) async fn run(common: &Common, command: OutboxCommand) -> Result<(), Failed> {
    match command {
        OutboxCommand::List { state, target, tried, kind } => {
            let filters = [
                ("limit", Some("200")),
                ("state", state.map(DeliveryState::as_str)),
                ("target", target.as_deref()),
                ("tried", tried.then_some("true")),
                ("kind", kind.as_deref()),
            ];
            let page = call_api(common, Method::GET, &query("/admin/deliveries", &filters), None).await?;
            let columns = ["id", "kind", "state", "attempts", "next_at", "last_error"];
            output::print_table(common.json, &page, &columns);
        }
        OutboxCommand::Retry { id } => {
            let path = format!("/admin/deliveries/{}/retry", segment(&id));
            output::print_object(common.json, &call_api(common, Method::POST, &path, None).await?);
        }
    }
    Ok(())
}
