//! Webhooks: receivers of events by HTTP.

pub mod address;
pub mod api;
pub mod sender;
pub mod store;

use crate::kernel::app::{App, Occurrence, Transaction, backoff};
use crate::kernel::authz::snapshot::Change;
use crate::kernel::config::Config;
use crate::kernel::db::{PageRequest, Reader};
use crate::kernel::error::Result;
use crate::kernel::ids::{OrganizationId, Timestamp, WebhookId};
use crate::kernel::outbound::connection::{Connection, ConnectionKind};
use crate::kernel::outbox::{EventKind, delivery_store};
pub use store::list_webhooks;

/// The wait after this many failed attempts, in milliseconds, before jitter.
pub fn backoff_ms(attempts: u64, first_s: u64, most_s: u64) -> u64 {
    backoff(attempts, first_s, most_s).saturating_mul(1_000)
}

/// A receiver of events by HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    pub id: WebhookId,
    /// `None` receives the events of the whole site.
    pub organization: Option<OrganizationId>,
    pub name: String,
    pub url: String,
    /// Names of [`EventKind`]s, or `*`.
    pub kinds: Vec<String>,
    pub is_active: bool,
    pub generation: i64,
    pub previous_until: Option<Timestamp>,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The name of the connection that stands for all webhooks.
pub const CONNECTION: &str = "webhooks";

/// All webhooks as one connection. Each has a URL and a test of its own.
pub fn connection(config: &Config, has_webhooks: bool) -> Connection {
    let connection = Connection::new(CONNECTION, ConnectionKind::Webhooks, "");
    Connection { is_configured: has_webhooks, ..connection }
        .setting("webhooks.private_hosts", !config.webhook_private_hosts.is_empty())
}

/// Whether there is any webhook.
pub fn has_webhooks(r: &Reader<'_>) -> Result<bool> {
    let first = PageRequest::new(Some(1), None, None)?;
    Ok(!store::list_webhooks(r, None, &first)?.items.is_empty())
}

/// Subscribes to all events.
const EVERY_KIND: &str = "*";

/// Returns the faults of an entry of a webhook's `kinds`.
pub fn kind_faults(text: &str) -> Vec<String> {
    if text == EVERY_KIND || EventKind::parse(text).is_some() {
        return Vec::new();
    }
    let known: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
    vec![format!("is not a kind of event: must be one of {}, or *", known.join(", "))]
}

/// Deletes the deliveries of a webhook that was deleted.
pub async fn delete_target_deliveries(app: &App, target: String) -> Result<()> {
    app.write_in_batches(move |w, most| delivery_store::delete_deliveries(w, &target, most)).await.map(drop)
}

/// Deactivates a webhook whose maker lost the right to create it.
pub fn react(t: &Transaction<'_>, what: &Occurrence<'_>) -> Result<Vec<Change>> {
    match what {
        Occurrence::WebhookWithdrawn(id) => store::deactivate(t, *id).map(|()| Vec::new()),
        _ => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn retries_last_longer_than_a_day_and_less_than_a_week() {
        const HOUR_MS: u64 = 3_600_000;
        let config = Config::of(Path::new("data"));
        let wait_ms = |attempts| backoff_ms(attempts, config.outbox_backoff_s, config.outbox_backoff_max_s);
        let all_ms: u64 = (1..config.outbox_attempts_max).map(wait_ms).sum();
        // The jitter subtracts or adds at most a fifth.
        assert!(all_ms * 4 / 5 > 24 * HOUR_MS, "{all_ms}");
        assert!(all_ms * 6 / 5 < 7 * 24 * HOUR_MS, "{all_ms}");
        // Given-up deliveries are kept long enough to be examined.
        assert!(config.outbox_ttl_s * 1_000 > 2 * all_ms);
    }

    #[test]
    fn the_wait_doubles_up_to_its_limit() {
        let waits = [1, 2, 3, 4, 13, 14, 100, u64::MAX].map(|attempts| backoff_ms(attempts, 5, 21_600));
        assert_eq!(waits, [5_000, 10_000, 20_000, 40_000, 20_480_000, 21_600_000, 21_600_000, 21_600_000]);
        assert_eq!(backoff_ms(7, 0, 21_600), 0);
        assert_eq!(backoff_ms(1, 100, 1), 1_000);
    }
}
