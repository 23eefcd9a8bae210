//! SQL of the list of a member's organizations, and of the members that an organization created.

use crate::kernel::db::{List, ListPage, PageRequest, Reader, Writer};
use crate::kernel::error::Result;
use crate::kernel::ids::{MemberId, OrganizationId, Timestamp};

/// An organization that a member belongs to.
#[derive(Debug, Clone)]
pub struct Membership {
    pub organization: OrganizationId,
    pub org_code: String,
    pub name: String,
    pub is_active: bool,
    pub created_at: Timestamp,
}

const LIST_MEMBERSHIPS: List = List {
    name: "memberships",
    columns: "o.id, o.org_code, o.name, o.status = 'active', s.created_at",
    from: "memberships s cross join organizations o on o.id = s.organization_id",
    joins: "",
    conditions: &["s.member_id = :member_id", "s.organization_id = :only"],
    order: &["o.org_code"],
    costly: &[],
    walked: &[],
    kept: &[],
};

/// The same for a member of many organizations: scans the organizations in list order, because most of them match.
const LIST_MEMBERSHIPS_OF_MANY: List = List {
    name: "memberships",
    columns: "o.id, o.org_code, o.name, o.status = 'active', s.created_at",
    from: "organizations o cross join memberships s on s.organization_id = o.id",
    joins: "",
    conditions: &["s.member_id = :member_id"],
    order: &["o.org_code"],
    costly: &[],
    walked: &[],
    kept: &[(&[":member_id"], "select count(*) from memberships where member_id = :member_id")],
};

const HAS_MANY: &str = "
    select count(*) > :few
    from (select 1 from memberships where member_id = :member_id limit :few + 1)";

pub fn list_memberships(
    r: &Reader<'_>,
    member: MemberId,
    only: Option<OrganizationId>,
    window: &PageRequest,
) -> Result<ListPage<Membership>> {
    /// The most memberships that are sorted; that takes about a millisecond.
    const FEW: i64 = 500;
    let is_of_many = only.is_none() && r.one(HAS_MANY, &[(":few", &FEW), (":member_id", &member)], |row| row.get(0))?;
    let list = if is_of_many { &LIST_MEMBERSHIPS_OF_MANY } else { &LIST_MEMBERSHIPS };
    r.page(list, &[(":member_id", &member), (":only", &only)], window, |row| {
        Ok(Membership {
            organization: row.get(0)?,
            org_code: row.get(1)?,
            name: row.get(2)?,
            is_active: row.get(3)?,
            created_at: row.get(4)?,
        })
    })
}

const HAS_MADE: &str = "
    select count(*) >= :many
    from (select 1 from made_members where organization_id = :organization_id limit :many)";

/// Whether the organization created at least this many members that were not erased.
pub fn has_created(r: &Reader<'_>, organization: OrganizationId, many: u64) -> Result<bool> {
    let many = i64::try_from(many).unwrap_or(i64::MAX);
    r.one(HAS_MADE, &[(":many", &many), (":organization_id", &organization)], |row| row.get(0))
}

const INSERT_MADE: &str = "
    insert into made_members (organization_id, member_id)
    values (:organization_id, :member_id)";

pub fn insert_created(w: &Writer<'_>, organization: OrganizationId, member: MemberId) -> Result<()> {
    w.execute(INSERT_MADE, &[(":organization_id", &organization), (":member_id", &member)]).map(drop)
}

const DELETE_MADE: &str = "delete from made_members where member_id = :member_id";

pub fn delete_made(w: &Writer<'_>, member: MemberId) -> Result<()> {
    w.execute(DELETE_MADE, &[(":member_id", &member)]).map(drop)
}
