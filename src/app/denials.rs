//! Refused changes in the audit: each kind once a minute, the repeats in between only counted.

use std::collections::HashMap;
use std::sync::Mutex;

use super::App;
use crate::access::caller::Exchange;
use crate::error::Result;
use crate::ids::{OrganizationId, Timestamp};
use crate::journal::{self, Entry, Outcome};

/// Caller, operation and tenant. What a caller can choose freely is not among them.
pub(super) type Denied = (String, String, Option<OrganizationId>);
pub(super) struct Repeats {
    since: Timestamp,
    count: u64,
}

/// Denials of one caller, operation and path within this time are one audit row.
const DENIALS_COALESCED_MS: i64 = 60_000;
/// More kinds of denials than this at a time are only counted, in one entry for all.
const DENIALS_REMEMBERED_MAX: usize = 4_096;

pub(super) type Denials = Mutex<HashMap<Denied, Repeats>>;

impl App {
    /// Records that a caller was refused a change; repeats within a minute are one row.
    pub async fn record_denial(&self, exchange: &Exchange, action: &str, word: &str) -> Result<()> {
        let (kind, name) = exchange.actor();
        let tenant = exchange.tenant.get().copied();
        let Some(repeats) = self.coalesced((format!("{kind} {name}"), action.to_owned(), tenant)) else {
            return Ok(());
        };
        let (request_id, action) = (exchange.request_id.clone(), action.to_owned());
        let address = exchange.address.map_or_else(|| "unknown".into(), |address| address.to_string());
        let after = serde_json::json!({"detail": word, "repeats_before": repeats});
        let entry = Entry::new("path", &exchange.path).within(tenant).after(after);
        self.tend(move |w| journal::record(w, (kind, &name), (&request_id, &address), &action, Outcome::Denied, &entry))
            .await
    }

    /// Records how often denials were repeated whose minute is over, so that none is forgotten.
    pub async fn flush_denials(&self) -> Result<()> {
        let now = Timestamp::now();
        let over: Vec<(Denied, u64)> = match self.denials.lock() {
            Ok(mut known) => {
                let is_over = |r: &Repeats| r.since.plus_ms(DENIALS_COALESCED_MS) <= now;
                let counted = known
                    .iter()
                    .filter(|(_, r)| r.count > 0 && is_over(r))
                    .map(|(d, r)| (d.clone(), r.count))
                    .collect();
                known.retain(|_, repeats| !is_over(repeats));
                counted
            }
            Err(_) => Vec::new(),
        };
        if over.is_empty() {
            return Ok(());
        }
        self.tend(move |w| {
            over.iter().try_for_each(|((actor, action, tenant), count)| {
                let (kind, name) = actor.split_once(' ').unwrap_or((actor, ""));
                let after = serde_json::json!({"repeats": count});
                let entry = Entry::new("denials", "repeated").within(*tenant).after(after);
                journal::record(w, (kind, name), ("", "unknown"), action, Outcome::Denied, &entry)
            })
        })
        .await
    }

    /// How many denials of this kind went by unrecorded before this one; `None` when this one does too.
    fn coalesced(&self, denied: Denied) -> Option<u64> {
        let now = Timestamp::now();
        let mut known = self.denials.lock().ok()?;
        if known.len() >= DENIALS_REMEMBERED_MAX {
            known.retain(|_, repeats| repeats.count > 0 || repeats.since.plus_ms(DENIALS_COALESCED_MS) > now);
        }
        if !known.contains_key(&denied) && known.len() >= DENIALS_REMEMBERED_MAX {
            // Beyond the limit they all count as one.
            let rest = ("others".to_owned(), String::new(), None);
            known.entry(rest).or_insert(Repeats { since: now, count: 0 }).count += 1;
            return None;
        }
        let repeats = known.entry(denied).or_insert(Repeats { since: Timestamp(i64::MIN), count: 0 });
        if repeats.since.plus_ms(DENIALS_COALESCED_MS) > now {
            repeats.count += 1;
            return None;
        }
        repeats.since = now;
        Some(std::mem::take(&mut repeats.count))
    }
}
