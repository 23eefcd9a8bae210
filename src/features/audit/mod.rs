//! Reads the audit log. `kernel::audit_log` writes it, in the transaction of the change that an entry records.

pub mod api;
mod names;
pub mod store;

use crate::kernel::audit_log::Outcome;
use crate::kernel::db::Reader;
use crate::kernel::db::buckets::Buckets;
use crate::kernel::error::Result;
use crate::kernel::ids::{OrganizationId, Timestamp};
pub use names::Names;

/// The length of a list of actions in a filter: all that there are fit.
pub const ACTIONS_CHARS_MAX: usize = 8_000;

/// An audit entry as stored; `before` and `after` are JSON.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    pub id: i64,
    pub at: Timestamp,
    pub actor_kind: String,
    pub actor: String,
    pub action: String,
    pub target: String,
    pub organization: Option<OrganizationId>,
    pub outcome: Outcome,
    pub before: Option<String>,
    pub after: Option<String>,
    pub request_id: String,
    pub address: String,
    pub hash: [u8; 32],
}

/// An action of a member, as the audit log holds it.
#[derive(Debug, Clone)]
pub struct Activity {
    pub at: Timestamp,
    pub action: String,
    pub target: String,
    pub outcome: Outcome,
    pub address: String,
}

/// The end of the hash chain.
#[derive(Debug, Clone)]
pub struct ChainHead {
    /// The id of the last entry; 0 if there is none.
    pub last_entry: i64,
    /// The hash of the last entry; empty if there is none.
    pub last_hash: String,
}

/// The filter of a list or export.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub organization: Option<OrganizationId>,
    pub actor: Option<String>,
    /// All actions if empty.
    pub actions: Vec<String>,
    /// The whole target, or only its id.
    pub target: Option<String>,
    pub outcome: Option<Outcome>,
    pub since: Option<i64>,
    pub until: Option<i64>,
}

/// Which entries are counted.
#[derive(Debug, Clone, Copy)]
pub enum CountedEntries {
    OfSite,
    /// Those about an organization.
    Of(OrganizationId),
    /// Those of the present members of an organization, whatever they are about.
    ByMembersOf(OrganizationId),
}

/// Entries in one bucket that have the same value of a fact.
#[derive(Debug, Clone)]
pub struct EntryCount {
    pub bucket: i64,
    pub value: Option<String>,
    pub number: u64,
}

/// Counts what was done by these actions, by bucket and by the value of a fact in `after`.
pub fn count_entries(
    r: &Reader<'_>,
    counted: CountedEntries,
    actions: &[&str],
    fact: &str,
    buckets: &Buckets,
) -> Result<Vec<EntryCount>> {
    store::count_entries(r, counted, actions, fact, buckets)
}
