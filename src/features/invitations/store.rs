//! SQL of invitations.

use rusqlite::Row;

use super::{Invitation, InvitationPreview};
use crate::kernel::authz::deferred_grant::Grantor;
use crate::kernel::db::{List, ListPage, PageRequest, Reader, Writer, sql};
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::ids::{InvitationId, MemberId, OrganizationId, RoleId, Timestamp};
use crate::kernel::secret::Hash;

const FIND_INVITATION: &str = "
    select i.id, i.organization_id, i.role_id, r.key, i.email, i.expires_at, i.accepted_at, i.member_id, i.created_at,
           i.maker
    from invitations i
    left join roles r on r.id = i.role_id
    where i.organization_id = :organization_id and i.id = :id";

pub fn get_invitation(r: &Reader<'_>, organization: OrganizationId, id: InvitationId) -> Result<Invitation> {
    let found = r.find(FIND_INVITATION, &[(":organization_id", &organization), (":id", &id)], invitation_of)?;
    found.ok_or_else(|| ErrorCode::InvitationNotFound.into())
}

const FIND_BY_HASH: &str = "
    select i.id, i.organization_id, i.role_id, r.key, i.email, i.expires_at, i.accepted_at, i.member_id, i.created_at,
           i.maker, o.name
    from invitations i
    join organizations o on o.id = i.organization_id
    left join roles r on r.id = i.role_id
    where i.hash = :hash";

/// Returns the invitation of a link in any status, with the name of its organization.
pub fn find_by_hash(r: &Reader<'_>, hash: &Hash) -> Result<Option<InvitationPreview>> {
    r.find(FIND_BY_HASH, &[(":hash", hash)], |row| {
        Ok(InvitationPreview { invitation: invitation_of(row)?, organization_name: row.get(10)? })
    })
}

const LIST_INVITATIONS: List = List {
    name: "invitations",
    columns: "i.id, i.organization_id, i.role_id, r.key,
              iif(i.member_id is null or exists (select 1 from memberships s
                                                 where s.organization_id = i.organization_id
                                                   and s.member_id = i.member_id), i.email, null),
              i.expires_at, i.accepted_at, i.member_id, i.created_at, i.maker",
    from: "invitations i",
    joins: "left join roles r on r.id = i.role_id",
    conditions: &["i.organization_id = :organization_id"],
    order: &["i.id desc"],
    costly: &[],
    walked: &[],
    kept: &[],
};

/// Returns the invitations of an organization, newest first. The e-mail is left out if the member who accepted has left
/// the organization.
pub fn list_invitations(
    r: &Reader<'_>,
    organization: OrganizationId,
    window: &PageRequest,
) -> Result<ListPage<Invitation>> {
    r.page(&LIST_INVITATIONS, &[(":organization_id", &organization)], window, invitation_of)
}

const COUNT_OPEN: &str = "
    select count(*)
    from invitations
    where organization_id = :organization_id and accepted_at is null and expires_at > :now";

pub fn count_open(w: &Writer<'_>, organization: OrganizationId) -> Result<u64> {
    w.one(COUNT_OPEN, &[(":organization_id", &organization), (":now", &w.now())], |row| row.get::<_, i64>(0))
        .map(i64::unsigned_abs)
}

fn invitation_of(row: &Row<'_>) -> rusqlite::Result<Invitation> {
    Ok(Invitation {
        id: row.get(0)?,
        organization: row.get(1)?,
        role: row.get(2)?,
        role_key: row.get(3)?,
        email: row.get(4)?,
        expires_at: row.get(5)?,
        accepted_at: row.get(6)?,
        member: row.get(7)?,
        created_at: row.get(8)?,
        maker: Grantor::parse(row.get::<_, Option<String>>(9)?.as_deref()),
    })
}

const INSERT_INVITATION: &str = "
    insert into invitations (id, hash, organization_id, role_id, email, expires_at, created_at, maker)
    values (:id, :hash, :organization_id, :role_id, :email, :expires_at, :now, :maker)";

pub fn insert_invitation(w: &Writer<'_>, invitation: &Invitation, hash: &Hash) -> Result<()> {
    w.execute(
        INSERT_INVITATION,
        &[
            (":id", &invitation.id),
            (":hash", hash),
            (":organization_id", &invitation.organization),
            (":role_id", &invitation.role),
            (":email", &invitation.email),
            (":expires_at", &invitation.expires_at),
            (":now", &w.now()),
            (":maker", &invitation.maker.to_text()),
        ],
    )
    .map(drop)
}

const ACCEPT_INVITATION: &str = "
    update invitations
    set accepted_at = :now, member_id = :member_id
    where id = :id and accepted_at is null";

pub fn accept_invitation(w: &Writer<'_>, id: InvitationId, member: MemberId) -> Result<()> {
    w.execute(ACCEPT_INVITATION, &[(":now", &w.now()), (":member_id", &member), (":id", &id)]).map(drop)
}

const DELETE_INVITATION: &str = "delete from invitations where id = :id and accepted_at is null";

pub fn delete_invitation(w: &Writer<'_>, id: InvitationId) -> Result<()> {
    w.execute(DELETE_INVITATION, &[(":id", &id)]).map(drop)
}

const DELETE_EXPIRED: &str = "
    delete from invitations
    where id in (select id from invitations where accepted_at is null and expires_at <= :before limit :most)";

pub fn delete_expired(w: &Writer<'_>, before: Timestamp, most: usize) -> Result<usize> {
    w.execute(DELETE_EXPIRED, &[(":before", &before), (":most", &sql::limit(most))])
}

const WITHDRAW_INVITATIONS: &str = "delete from invitations where role_id = :role_id and accepted_at is null";
const FORGET_INVITED_ROLE: &str = "update invitations set role_id = null where role_id = :role_id";

/// Deletes invitations to a role that is being deleted, and removes the role from accepted ones.
pub fn withdraw_of_role(w: &Writer<'_>, role: RoleId) -> Result<()> {
    w.execute(WITHDRAW_INVITATIONS, &[(":role_id", &role)])?;
    w.execute(FORGET_INVITED_ROLE, &[(":role_id", &role)]).map(drop)
}

const FORGET_INVITED: &str = "update invitations set email = null where member_id = :member_id";

/// Deletes the e-mail of the invitations that a member accepted.
pub fn forget_invited(w: &Writer<'_>, member: MemberId) -> Result<()> {
    w.execute(FORGET_INVITED, &[(":member_id", &member)]).map(drop)
}
