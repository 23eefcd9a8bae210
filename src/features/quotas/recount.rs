//! The proof of all accounts: what a member uses is the sum of its ledger and the sum of its videos, and so for each
//! organization; what is reserved is the sum of the open reservations.
//!
//! A repair believes the videos: the ledger gets a row for what it lacks, and the accounts follow.

use serde_json::json;

use super::Reason;
use super::recount_store as store;
use crate::kernel::app::{Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz::principal::Identity;
use crate::kernel::db::Reader;
use crate::kernel::error::Result;
use crate::kernel::ids::{MemberId, OrganizationId};

/// An account that is not what its rows say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub whose: RecountTarget,
    pub used: i64,
    pub ledger: i64,
    pub videos: i64,
    pub reserved: i64,
    pub reservations: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecountTarget {
    Member(MemberId),
    Organization(OrganizationId),
    /// How many videos the site counts; no bytes.
    Site,
}

/// What was looked at, and what differs.
#[derive(Debug, Default)]
pub struct Counted {
    pub members: i64,
    pub organizations: i64,
    pub videos: i64,
    pub differences: Vec<Difference>,
}

/// Looks at everything; changes nothing.
pub fn count(r: &Reader<'_>) -> Result<Counted> {
    let [members, organizations, videos, known] = store::totals(r)?;
    let mut differences = store::list_members(r)?;
    differences.extend(store::list_organizations(r)?);
    if videos != known {
        let none = Difference {
            whose: RecountTarget::Site,
            used: known,
            ledger: videos,
            videos,
            reserved: 0,
            reservations: 0,
        };
        differences.push(none);
    }
    Ok(Counted { members, organizations, videos, differences })
}

/// The same, and brings everything in line with the videos. Answers what differed.
pub fn repair(t: &Transaction<'_>, caller: &Identity) -> Result<Changed<Counted>> {
    let counted = count(t)?;
    if counted.differences.is_empty() {
        return Ok(Changed::nothing(counted));
    }
    store::make_rows(t)?;
    let reason = Reason { cause: "repair", video: "", request_id: &caller.context.request_id };
    for (member, organization, delta, used) in store::list_missing(t)? {
        super::store::insert_ledger(t, (member, organization), delta, used, reason)?;
    }
    store::set_all(t)?;
    let changed = counted.differences.iter().fold(Changed::nothing(()), |changed, difference| {
        let Difference { whose, used, ledger, videos, reserved, reservations } = difference;
        let entry = match whose {
            RecountTarget::Member(id) => Entry::new("quota", id),
            RecountTarget::Organization(id) => Entry::new("organization_quota", id).within(*id),
            RecountTarget::Site => Entry::new("site", "videos"),
        };
        let before = json!({"used": used, "ledger": ledger, "reserved": reserved});
        changed.also(entry.before(before).after(json!({"used": videos, "reserved": reservations})))
    });
    Ok(changed.map(|()| counted))
}
