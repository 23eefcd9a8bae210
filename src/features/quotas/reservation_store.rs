//! SQL of reservations.

use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};

use super::reservations::{Reservation, ReservationState};
use crate::kernel::db::{Reader, Writer, sql};
use crate::kernel::error::Result;
use crate::kernel::ids::{MemberId, ReservationId, Timestamp};

const FIND_RESERVATION: &str = "
    select id, member_id, organization_id, size, state, video_id, expires_at, created_at
    from quota_reservations
    where id = :id";

pub fn find(r: &Reader<'_>, id: ReservationId) -> Result<Option<Reservation>> {
    r.find(FIND_RESERVATION, &[(":id", &id)], reservation_of)
}

impl FromSql for ReservationState {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

fn reservation_of(row: &Row<'_>) -> rusqlite::Result<Reservation> {
    Ok(Reservation {
        id: row.get(0)?,
        member: row.get(1)?,
        organization: row.get(2)?,
        size: row.get(3)?,
        state: row.get(4)?,
        video: row.get(5)?,
        expires_at: row.get(6)?,
        created_at: row.get(7)?,
    })
}

const LIST_OPEN: &str = "
    select id, member_id, organization_id, size, state, video_id, expires_at, created_at
    from quota_reservations
    where member_id = :member_id and state = 'open'";

/// Lists the open reservations of a member, including those past their expiry.
pub fn list_open(r: &Reader<'_>, member: MemberId) -> Result<Vec<Reservation>> {
    r.all(LIST_OPEN, &[(":member_id", &member)], reservation_of)
}

const COUNT_OPEN: &str = "
    select count(*)
    from quota_reservations
    where member_id = :member_id and state = 'open' and expires_at > :now";

pub fn count_open(r: &Reader<'_>, member: MemberId, now: Timestamp) -> Result<i64> {
    r.one(COUNT_OPEN, &[(":member_id", &member), (":now", &now)], |row| row.get(0))
}

const INSERT_RESERVATION: &str = "
    insert into quota_reservations (id, member_id, organization_id, size, state, expires_at, created_at, updated_at)
    values (:id, :member_id, :organization_id, :size, 'open', :expires_at, :now, :now)";

pub fn insert(w: &Writer<'_>, reservation: &Reservation) -> Result<()> {
    w.execute(
        INSERT_RESERVATION,
        &[
            (":id", &reservation.id),
            (":member_id", &reservation.member),
            (":organization_id", &reservation.organization),
            (":size", &reservation.size),
            (":expires_at", &reservation.expires_at),
            (":now", &w.now()),
        ],
    )
    .map(drop)
}

const SET_STATE: &str = "
    update quota_reservations
    set state = :state, video_id = :video_id, updated_at = :now
    where id = :id";

pub fn set_state(w: &Writer<'_>, id: ReservationId, state: ReservationState, video: Option<&str>) -> Result<()> {
    let state = state.as_str();
    w.execute(SET_STATE, &[(":state", &state), (":video_id", &video), (":now", &w.now()), (":id", &id)]).map(drop)
}

const FORGET: &str = "
    delete from quota_reservations
    where id in (select id from quota_reservations where state <> 'open' and expires_at <= :before limit :most)";

/// Deletes reservations that are not open and expired before this time; returns how many.
pub fn delete_old(w: &Writer<'_>, before: Timestamp, most: usize) -> Result<usize> {
    w.execute(FORGET, &[(":before", &before), (":most", &sql::limit(most))])
}
