//! Writes of members that report an `Occurrence`, to which other features react in the same transaction: they end
//! sessions, delete keys, or release jobs.

use serde_json::json;

use super::{Member, erased, folded, store};
use crate::features::permissions;
use crate::kernel::app::{Changed, Occurrence, Transaction, mark_erased};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz::deferred_grant::Grantor;
use crate::kernel::authz::snapshot::{Change, MemberStatus};
use crate::kernel::authz::{self, Reach};
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId, SessionId, Timestamp};

/// Updates the names of a member: username, e-mail, display name. A new e-mail invalidates what was sent to the former
/// one.
pub fn update_names(t: &Transaction<'_>, member: &Member) -> Result<()> {
    let former = store::get_member(t, member.id)?.email;
    store::update_names(t, member)?;
    let is_other = former.as_deref().map(folded) != member.email.as_deref().map(folded);
    if is_other { t.react_to(&Occurrence::EmailChanged(member.id)) } else { Ok(()) }
}

pub fn set_status(t: &Transaction<'_>, id: MemberId, status: MemberStatus) -> Result<()> {
    store::set_status(t, id, status)?;
    match status {
        MemberStatus::Active => t.react_to(&Occurrence::MemberActivated(id)),
        MemberStatus::Suspended => t.react_to(&Occurrence::MemberSuspended(id)),
        MemberStatus::Pending | MemberStatus::Deleted => Ok(()),
    }
}

pub fn insert_membership(t: &Transaction<'_>, organization: OrganizationId, member: MemberId) -> Result<()> {
    store::insert_membership(t, organization, member)?;
    t.react_to(&Occurrence::MembershipsChanged(member))
}

pub fn delete_membership(t: &Transaction<'_>, organization: OrganizationId, member: MemberId) -> Result<usize> {
    let deleted = store::delete_membership(t, organization, member)?;
    t.react_to(&Occurrence::MembershipsChanged(member))?;
    Ok(deleted)
}

/// Sets a member's password; `maker` is who chose it, if it was not the member. All sessions end except `kept`, the
/// session in which the member proved the former password. Without `kept`, the member's keys end too, because anyone
/// who knew the former password could have created them. A first password ends no keys.
pub fn set_password(
    t: &Transaction<'_>,
    id: MemberId,
    (hash, maker): (&str, Option<&Grantor>),
    kept: Option<SessionId>,
) -> Result<()> {
    let is_reset = kept.is_none() && store::find_password(t, id)?.is_some();
    store::set_password(t, id, hash, maker)?;
    t.react_to(&Occurrence::PasswordSet { member: id, kept, is_reset })
}

/// Reacts to occurrences of other features: deletes a password whose maker may no longer choose it.
pub fn react(t: &Transaction<'_>, what: &Occurrence<'_>) -> Result<Vec<Change>> {
    match what {
        Occurrence::PasswordWithdrawn(member) => store::end_password(t, *member).map(|()| Vec::new()),
        _ => Ok(Vec::new()),
    }
}

/// Replaces the password of a pending registration, when the user registers again.
pub fn replace_pending(t: &Transaction<'_>, id: MemberId, hash: &str) -> Result<()> {
    store::replace_pending(t, id, hash)?;
    t.react_to(&Occurrence::RegistrationDeleted(id))
}

/// Deletes those of the listed registrations that are still not completed. Returns their ids.
pub fn delete_lapsed(t: &Transaction<'_>, before: Timestamp, listed: &[MemberId]) -> Result<Vec<MemberId>> {
    let mut lapsed = Vec::new();
    for id in listed.iter().copied() {
        if store::is_lapsed(t, id, before)? {
            t.react_to(&Occurrence::RegistrationDeleted(id))?;
            store::delete_lapsed(t, id)?;
            lapsed.push(id);
        }
    }
    Ok(lapsed)
}

/// Deletes all personal data, memberships, roles, grants, sessions and keys of a member. The id stays, for the audit
/// log.
pub fn erase(t: &Transaction<'_>, reach: Reach, former: &Member) -> Result<Changed<()>> {
    let id = former.id;
    // The event is created before the names are deleted, because external systems need them.
    let deleted = erased(t, id)?;
    let held: Vec<OrganizationId> =
        t.snapshot().tenants().filter(|tenant| tenant.set_of(id).is_some()).map(|tenant| tenant.id).collect();
    let mut changes: Vec<Change> = Vec::new();
    let mut lost = Vec::new();
    for organization in held {
        let roles = permissions::held_keys(t.snapshot(), organization, id);
        lost.push(json!({"organization": organization, "roles": roles}));
        permissions::delete_all_roles(t, organization, id)?;
        delete_membership(t, organization, id)?;
        changes.push(authz::store::membership(t, organization, id)?);
    }
    let before = json!({"status": former.status.as_str(), "memberships": lost, "grants": store::count_grants(t, id)?});
    t.react_to(&Occurrence::MemberErased(id))?;
    store::erase_member(t, id)?;
    mark_erased(t, id)?;
    changes.push(authz::store::member_state(t, id)?);
    let after = json!({"status": MemberStatus::Deleted.as_str()});
    let entry = Entry::new("member", id).within(reach.organization()).before(before).after(after);
    Ok(Changed::new((), entry).with_policy_changes(changes).with_events([deleted]))
}

/// Returns a member that was not erased. Fails with `MemberDeleted` for an erased one.
pub fn get_not_erased(t: &Transaction<'_>, id: MemberId) -> Result<Member> {
    let member = store::get_member(t, id)?;
    if member.is_erased() { Err(ErrorCode::MemberDeleted.into()) } else { Ok(member) }
}
