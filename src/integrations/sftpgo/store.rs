//! SQL of what is remembered of SFTPGo's events: which came already, and what last happened at a path.

use crate::kernel::db::{Reader, Writer};
use crate::kernel::error::Result;
use crate::kernel::ids::{MemberId, Timestamp};
use crate::kernel::secret::Hash;

const NOTE: &str = "
    insert or replace into one_time_tokens (hash, purpose, member_id, data, expires_at, created_at)
    values (:hash, 'used', :member_id, :data, :expires_at, :now)";

/// Remembers what happened at a path. Who erases the member erases this too.
pub fn note(w: &Writer<'_>, hash: &Hash, member: MemberId, data: &str, until: Timestamp) -> Result<()> {
    w.execute(
        NOTE,
        &[(":hash", hash), (":member_id", &member), (":data", &data), (":expires_at", &until), (":now", &w.now())],
    )
    .map(drop)
}

const FIND_NOTE: &str = "
    select data
    from one_time_tokens
    where hash = :hash and purpose = 'used' and data is not null and expires_at > :now";

pub fn find_note(r: &Reader<'_>, hash: &Hash, now: Timestamp) -> Result<Option<String>> {
    r.find(FIND_NOTE, &[(":hash", hash), (":now", &now)], |row| row.get(0))
}
