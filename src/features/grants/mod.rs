//! Direct grants: scoped rights of members, (scope_type, scope_id, module, action). They belong to the site and can
//! only allow, never deny.

pub mod api;
mod store;

use crate::kernel::app::{Occurrence, Transaction};
use crate::kernel::authz::Reach;
use crate::kernel::authz::decide::{is_in_other_organization, is_of_inactive_organization};
use crate::kernel::authz::snapshot::{Change, Right, Snapshot};
use crate::kernel::db::{ListPage, PageRequest, Reader, Writer};
use crate::kernel::error::Result;
use crate::kernel::ids::{GrantId, MemberId, Timestamp};

/// A right that owns its strings.
#[derive(Debug, Clone)]
pub struct OwnedRight {
    pub scope_type: String,
    pub scope_id: String,
    pub module: String,
    pub action: String,
}

impl OwnedRight {
    pub fn as_right(&self) -> Right<'_> {
        Right { scope_type: &self.scope_type, scope_id: &self.scope_id, module: &self.module, action: &self.action }
    }
}

/// A direct grant as stored.
#[derive(Debug, Clone)]
pub struct Grant {
    pub id: GrantId,
    pub right: OwnedRight,
    pub created_at: Timestamp,
}

/// Grants the right, unless the member has it already. Returns the id of the grant, and the change if there was one.
pub fn grant(w: &Writer<'_>, member: MemberId, right: &Right<'_>) -> Result<(GrantId, Option<Change>)> {
    if let Some(id) = store::find_grant(w, member, right)? {
        return Ok((id, None));
    }
    let id = GrantId::new();
    store::insert_grant(w, id, member, right)?;
    Ok((id, Some(Change::Grant(right.key(member), Some(id)))))
}

/// Revokes the right. Returns the id of the grant and the change, or `None` if the member did not have it.
pub fn revoke(w: &Writer<'_>, member: MemberId, right: &Right<'_>) -> Result<Option<(GrantId, Change)>> {
    let Some(id) = store::find_grant(w, member, right)? else { return Ok(None) };
    store::delete_grant(w, id)?;
    Ok(Some((id, Change::Grant(right.key(member), None))))
}

/// Returns the member's effective grants within the reach. The reach of a tenant excludes grants in other
/// organizations.
pub fn list_effective(
    r: &Reader<'_>,
    snapshot: &Snapshot,
    (member, reach): (MemberId, Reach),
    scope_type: Option<&str>,
    module: Option<&str>,
) -> Result<Vec<OwnedRight>> {
    let rows = store::list_grants(r, member, scope_type, module)?;
    let rights = rows.into_iter().map(|[scope_type, scope_id, module, action]| OwnedRight {
        scope_type,
        scope_id,
        module,
        action,
    });
    let is_shown = |right: &OwnedRight| {
        let right = right.as_right();
        let is_beyond = reach.organization().is_some_and(|tenant| is_in_other_organization(snapshot, tenant, &right));
        !is_beyond && !is_of_inactive_organization(snapshot, &right)
    };
    Ok(rights.filter(is_shown).collect())
}

/// Returns a page of the grants of a member as stored, of this scope type and module if they are given.
pub fn list(
    r: &Reader<'_>,
    member: MemberId,
    filters: (Option<&str>, Option<&str>),
    window: &PageRequest,
) -> Result<ListPage<Grant>> {
    store::page_of_member(r, member, filters, window)
}

/// Returns the policy changes that remove all grants of a member.
fn removed_grants(r: &Reader<'_>, member: MemberId) -> Result<Vec<Change>> {
    let rights = store::list_grants(r, member, None, None)?;
    let key = |[scope_type, scope_id, module, action]: [String; 4]| {
        Right { scope_type: &scope_type, scope_id: &scope_id, module: &module, action: &action }.key(member)
    };
    Ok(rights.into_iter().map(|right| Change::Grant(key(right), None)).collect())
}

/// Reacts to occurrences of other features.
pub fn react(t: &Transaction<'_>, what: &Occurrence<'_>) -> Result<Vec<Change>> {
    match what {
        Occurrence::MemberErased(member) => {
            let changes = removed_grants(t, *member)?;
            store::delete_of_member(t, *member)?;
            Ok(changes)
        }
        _ => Ok(Vec::new()),
    }
}
