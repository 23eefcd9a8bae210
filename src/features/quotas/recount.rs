//! Recount: verifies for each member and organization that `used` equals the sum of the ledger and the sum of the
//! videos, and that `reserved` equals the sum of the open reservations.
//!
//! A repair takes the videos as correct: it adds the missing ledger rows and updates the accounts.

use serde_json::json;

use super::recount_store as store;
use super::{LedgerCause, LedgerReason};
use crate::kernel::app::tasks::{Progress, TaskKind};
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::db::Reader;
use crate::kernel::error::Result;
use crate::kernel::ids::{MemberId, OrganizationId};

/// An account that differs from the sums of its rows.
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
    /// The video count of the site; not bytes.
    Site,
}

/// The number of accounts and videos that were checked, and the differences.
#[derive(Debug, Default)]
pub struct RecountResult {
    pub members: i64,
    pub organizations: i64,
    pub videos: i64,
    pub differences: Vec<Difference>,
}

/// The recount as a task, which counts the members.
pub const RECOUNT: TaskKind = TaskKind { operation: "recount_quotas", steps: &["members"] };

/// Checks all accounts and, if `repairs`, corrects them.
pub async fn recount(app: &App, caller: &Identity, repairs: bool, progress: Progress) -> Result<RecountResult> {
    let told = progress.clone();
    if !repairs {
        return progress.unless_cancelled(app.read(move |r| count(r, &told))).await;
    }
    // One transaction, which is completed or not begun.
    progress.check()?;
    let change = move |t: &Transaction<'_>, caller: &Identity| {
        authz::require(t.snapshot(), caller, Permission::QUOTA_RECOUNT)?;
        repair(t, caller, &told)
    };
    Ok(app.change(caller, "quota.repair", change).await?.answer)
}

/// Checks all accounts without changing anything.
fn count(r: &Reader<'_>, progress: &Progress) -> Result<RecountResult> {
    progress.step(RECOUNT.steps[0]);
    let [members, organizations, videos, stored_count] = store::totals(r)?;
    progress.of(members.unsigned_abs());
    let mut differences = store::list_members(r)?;
    progress.advance(members.unsigned_abs());
    differences.extend(store::list_organizations(r)?);
    if videos != stored_count {
        let difference = Difference {
            whose: RecountTarget::Site,
            used: stored_count,
            ledger: videos,
            videos,
            reserved: 0,
            reservations: 0,
        };
        differences.push(difference);
    }
    Ok(RecountResult { members, organizations, videos, differences })
}

/// Checks all accounts and corrects them from the videos. Returns the differences found before the repair.
fn repair(t: &Transaction<'_>, caller: &Identity, progress: &Progress) -> Result<Changed<RecountResult>> {
    let counted = count(t, progress)?;
    if counted.differences.is_empty() {
        return Ok(Changed::unchanged(counted));
    }
    store::insert_missing_accounts(t)?;
    let reason = LedgerReason { cause: LedgerCause::Repair, video: "", request_id: &caller.context.request_id };
    for (member, organization, delta, used) in store::list_missing(t)? {
        super::store::insert_ledger(t, (member, organization), delta, used, reason)?;
    }
    store::set_all(t)?;
    let changed = counted.differences.iter().fold(Changed::unchanged(()), |changed, difference| {
        let Difference { whose, used, ledger, videos, reserved, reservations } = difference;
        let entry = match whose {
            RecountTarget::Member(id) => Entry::new("quota", id),
            RecountTarget::Organization(id) => Entry::new("organization_quota", id).within(*id),
            RecountTarget::Site => Entry::new("site", "videos"),
        };
        let before = json!({"used": used, "ledger": ledger, "reserved": reserved});
        changed.with_entry(entry.before(before).after(json!({"used": videos, "reserved": reservations})))
    });
    Ok(changed.map(|()| counted))
}
