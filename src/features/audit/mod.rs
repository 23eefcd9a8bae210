//! Reads the audit log. `kernel::audit_log` writes it, in the transaction of the change that an entry records.

pub mod api;
pub mod store;

use crate::kernel::audit_log::Outcome;
use crate::kernel::ids::{OrganizationId, Timestamp};

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

/// The filter of a list or export.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub organization: Option<OrganizationId>,
    pub actor: Option<String>,
    pub action: Option<String>,
    /// The whole target, or only its id.
    pub target: Option<String>,
    pub outcome: Option<Outcome>,
    pub since: Option<i64>,
    pub until: Option<i64>,
}
