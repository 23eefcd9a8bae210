//! Present names of the actors and targets of audit entries. The log holds ids only, because names could not be erased
//! from it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::AuditEntry;
use crate::features::members;
use crate::kernel::authz::Reach;
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::db::Reader;
use crate::kernel::error::Result;
use crate::kernel::ids::{MemberId, OrganizationId, RoleId};

/// The names of what some entries are about, as their reader may see them.
pub struct Names {
    reach: Reach,
    members: HashMap<MemberId, String>,
    snapshot: Arc<Snapshot>,
}

impl Names {
    pub fn of(r: &Reader<'_>, snapshot: Arc<Snapshot>, reach: Reach, entries: &[AuditEntry]) -> Result<Self> {
        let ids: BTreeSet<MemberId> = entries
            .iter()
            .flat_map(|entry| [MemberId::of(&entry.actor), MemberId::of(target_of(entry).1)])
            .filter(|id| !id.is_nil())
            .collect();
        let members = members::list_names(r, reach.organization(), &ids)?;
        Ok(Self { reach, members, snapshot })
    }

    /// The name of the member who acted.
    pub fn actor(&self, entry: &AuditEntry) -> Option<String> {
        self.members.get(&MemberId::of(&entry.actor)).cloned()
    }

    /// The name of a member, the key of a role, or the code of an organization.
    pub fn target(&self, entry: &AuditEntry) -> Option<String> {
        let (kind, id) = target_of(entry);
        match kind {
            "role" => {
                let tenant = self.snapshot.tenant(entry.organization?)?;
                tenant.role(RoleId::of(id)).map(|role| role.key.to_string())
            }
            "organization" | "organization_quota" => {
                let organization = Some(OrganizationId::of(id)).filter(|id| self.reach.includes(*id))?;
                self.snapshot.tenant(organization).map(|tenant| tenant.org_code.to_string())
            }
            _ => self.members.get(&MemberId::of(id)).cloned(),
        }
    }
}

/// Kind and id of the target.
fn target_of(entry: &AuditEntry) -> (&str, &str) {
    entry.target.split_once(' ').unwrap_or((entry.target.as_str(), ""))
}
