//! SQL of a member's identities and of the reason of its status.

use crate::kernel::db::{Reader, Writer};
use crate::kernel::error::Result;
use crate::kernel::ids::MemberId;

const DELETE_SUBJECT_AT: &str = "
    delete from identities
    where member_id = :member_id and provider = :provider";

pub fn delete_subject_at(w: &Writer<'_>, member: MemberId, provider: &str) -> Result<()> {
    w.execute(DELETE_SUBJECT_AT, &[(":member_id", &member), (":provider", &provider)]).map(drop)
}

const FIND_STATUS_REASON: &str = "select status_reason from members where id = :id";

pub fn find_status_reason(r: &Reader<'_>, member: MemberId) -> Result<Option<String>> {
    r.find(FIND_STATUS_REASON, &[(":id", &member)], |row| row.get(0)).map(Option::flatten)
}

const SET_STATUS_REASON: &str = "update members set status_reason = :status_reason where id = :id";

pub fn set_status_reason(w: &Writer<'_>, member: MemberId, reason: Option<&str>) -> Result<()> {
    w.execute(SET_STATUS_REASON, &[(":status_reason", &reason), (":id", &member)]).map(drop)
}

const TOUCH_MEMBER: &str = "update members set version = version + 1, updated_at = :now where id = :id";

/// Increments the version of a member after a change of data that belongs to it, so that older ETags are no longer
/// valid.
pub fn touch(w: &Writer<'_>, member: MemberId) -> Result<()> {
    w.execute(TOUCH_MEMBER, &[(":now", &w.now()), (":id", &member)]).map(drop)
}
