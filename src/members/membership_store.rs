//! SQL of the list of a member's organizations.

use crate::db::{List, Listed, Reader, Window};
use crate::error::Result;
use crate::ids::{MemberId, OrganizationId, Timestamp};

/// An organization that a member belongs to.
#[derive(Debug, Clone)]
pub struct Membership {
    pub organization: OrganizationId,
    pub org_code: String,
    pub name: String,
    pub status: String,
    pub created_at: Timestamp,
}

const LIST_MEMBERSHIPS: List = List {
    name: "memberships",
    columns: "o.id, o.org_code, o.name, o.status, s.created_at",
    from: "memberships s cross join organizations o on o.id = s.organization_id",
    joins: "",
    conditions: &["s.member_id = :member_id", "s.organization_id = :only"],
    order: &["o.org_code"],
    costly: &[],
    walked: &[],
    kept: &[],
};

/// The same for a member of many organizations: these are passed in their order, and most are its own.
const LIST_MEMBERSHIPS_OF_MANY: List = List {
    name: "memberships",
    columns: "o.id, o.org_code, o.name, o.status, s.created_at",
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
    window: &Window,
) -> Result<Listed<Membership>> {
    /// As many are sorted in a millisecond.
    const FEW: i64 = 500;
    let is_of_many = only.is_none() && r.one(HAS_MANY, &[(":few", &FEW), (":member_id", &member)], |row| row.get(0))?;
    let list = if is_of_many { &LIST_MEMBERSHIPS_OF_MANY } else { &LIST_MEMBERSHIPS };
    r.page(list, &[(":member_id", &member), (":only", &only)], window, |row| {
        Ok(Membership {
            organization: row.get(0)?,
            org_code: row.get(1)?,
            name: row.get(2)?,
            status: row.get(3)?,
            created_at: row.get(4)?,
        })
    })
}
