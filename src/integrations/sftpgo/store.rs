//! SQL of the SFTPGo history: the events that were handled, and the last event of each path.

use crate::kernel::db::{Reader, Writer, sql};
use crate::kernel::error::Result;
use crate::kernel::ids::{MemberId, Timestamp};
use crate::kernel::secret::Hash;

const NOTE: &str = "
    insert or replace into sftpgo_history (hash, member_id, data, expires_at, created_at)
    values (:hash, :member_id, :data, :expires_at, :now)";

/// Stores the last event of a path.
pub fn set_path_history(w: &Writer<'_>, hash: &Hash, member: MemberId, data: &str, until: Timestamp) -> Result<()> {
    w.execute(
        NOTE,
        &[(":hash", hash), (":member_id", &member), (":data", &data), (":expires_at", &until), (":now", &w.now())],
    )
    .map(drop)
}

const FIND_NOTE: &str = "
    select data
    from sftpgo_history
    where hash = :hash and data is not null and expires_at > :now";

pub fn find_path_history(r: &Reader<'_>, hash: &Hash, now: Timestamp) -> Result<Option<String>> {
    r.find(FIND_NOTE, &[(":hash", hash), (":now", &now)], |row| row.get(0))
}

const MARK: &str = "
    insert into sftpgo_history (hash, member_id, expires_at, created_at)
    values (:hash, :member_id, :expires_at, :now)
    on conflict (hash) do nothing";

/// Stores that an event was handled.
pub fn insert_event(w: &Writer<'_>, hash: &Hash, member: MemberId, until: Timestamp) -> Result<()> {
    w.execute(MARK, &[(":hash", hash), (":member_id", &member), (":expires_at", &until), (":now", &w.now())]).map(drop)
}

const IS_MARKED: &str = "select 1 from sftpgo_history where hash = :hash";

/// Whether this event was handled before.
pub fn has_event(r: &Reader<'_>, hash: &Hash) -> Result<bool> {
    Ok(r.find(IS_MARKED, &[(":hash", hash)], |_| Ok(()))?.is_some())
}

const FORGET: &str = "
    delete from sftpgo_history
    where hash in (select hash from sftpgo_history where expires_at <= :now limit :most)";

/// Deletes expired rows; returns how many.
pub fn forget(w: &Writer<'_>, most: usize) -> Result<usize> {
    w.execute(FORGET, &[(":now", &w.now()), (":most", &sql::limit(most))])
}

const DELETE_OF_MEMBER: &str = "delete from sftpgo_history where member_id = :member_id";

pub fn delete_of_member(w: &Writer<'_>, member: MemberId) -> Result<()> {
    w.execute(DELETE_OF_MEMBER, &[(":member_id", &member)]).map(drop)
}
