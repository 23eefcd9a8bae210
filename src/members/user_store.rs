//! SQL of what belongs to a member besides itself: its names elsewhere, and its quota.

use crate::db::{Reader, Writer};
use crate::error::{Cause, Result};
use crate::ids::{MemberId, OrganizationId};

const FIND_SUBJECT_AT: &str = "
    select subject
    from identities
    where member_id = :member_id and provider = :provider
    order by created_at, subject
    limit 1";

/// The name by which a provider knows a member.
pub(super) fn find_subject_at(r: &Reader<'_>, member: MemberId, provider: &str) -> Result<Option<String>> {
    r.find(FIND_SUBJECT_AT, &[(":member_id", &member), (":provider", &provider)], |row| row.get(0))
}

const DELETE_SUBJECT_AT: &str = "
    delete from identities
    where member_id = :member_id and provider = :provider";

pub(super) fn delete_subject_at(w: &Writer<'_>, member: MemberId, provider: &str) -> Result<()> {
    w.execute(DELETE_SUBJECT_AT, &[(":member_id", &member), (":provider", &provider)]).map(drop)
}

const FIND_STATUS_REASON: &str = "select status_reason from members where id = :id";

pub(super) fn find_status_reason(r: &Reader<'_>, member: MemberId) -> Result<Option<String>> {
    r.find(FIND_STATUS_REASON, &[(":id", &member)], |row| row.get(0)).map(Option::flatten)
}

const SET_STATUS_REASON: &str = "update members set status_reason = :status_reason where id = :id";

pub(super) fn set_status_reason(w: &Writer<'_>, member: MemberId, reason: Option<&str>) -> Result<()> {
    w.execute(SET_STATUS_REASON, &[(":status_reason", &reason), (":id", &member)]).map(drop)
}

const TOUCH_MEMBER: &str = "update members set version = version + 1, updated_at = :now where id = :id";

/// Something that belongs to the member changed: who holds an older ETag reads again.
pub(super) fn touch(w: &Writer<'_>, member: MemberId) -> Result<()> {
    w.execute(TOUCH_MEMBER, &[(":now", &w.now()), (":id", &member)]).map(drop)
}

/// A member's room: its own size where it has one, what counts, and what is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub own: Option<i64>,
    pub size: i64,
    pub used: i64,
}

const FIND_ROOM: &str = "
    select q.size, coalesce(q.size, o.member_size, :default_bytes), coalesce(q.used, 0)
    from members m
    left join quotas q on q.member_id = m.id
    left join organization_quotas o on o.organization_id = coalesce(q.organization_id, :organization_id)
    where m.id = :member_id";

pub(super) fn room(
    r: &Reader<'_>,
    member: MemberId,
    organization: Option<OrganizationId>,
    default_bytes: i64,
) -> Result<Room> {
    let found = r.find(
        FIND_ROOM,
        &[(":default_bytes", &default_bytes), (":organization_id", &organization), (":member_id", &member)],
        |row| Ok(Room { own: row.get(0)?, size: row.get(1)?, used: row.get(2)? }),
    )?;
    found.ok_or_else(|| Cause::MemberNotFound.into())
}

const SET_SIZE: &str = "
    insert into quotas (member_id, organization_id, size, created_at, updated_at)
    values (:member_id, :organization_id, :size, :now, :now)
    on conflict (member_id) do update
    set size = excluded.size, version = version + 1, updated_at = excluded.updated_at";

/// What a member may store; null takes the default. The organization is that of a member that has stored nothing yet.
pub(super) fn set_size(
    w: &Writer<'_>,
    member: MemberId,
    organization: Option<OrganizationId>,
    size: Option<i64>,
) -> Result<()> {
    w.execute(
        SET_SIZE,
        &[(":member_id", &member), (":organization_id", &organization), (":size", &size), (":now", &w.now())],
    )
    .map(drop)
}
