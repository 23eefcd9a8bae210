//! SQL of what is remembered of SFTPGo's events: which came already, and what last happened at a path.

use crate::access::secret::Hash;
use crate::db::{Reader, Writer};
use crate::error::Result;
use crate::ids::{MemberId, Timestamp};

const USE_UP: &str = "
    insert into one_time_tokens (hash, purpose, member_id, expires_at, created_at)
    values (:hash, 'used', :member_id, :expires_at, :now)
    on conflict (hash) do nothing";

/// Remembers that an event came.
pub fn use_up(w: &Writer<'_>, hash: &Hash, member: MemberId, until: Timestamp) -> Result<()> {
    w.execute(USE_UP, &[(":hash", hash), (":member_id", &member), (":expires_at", &until), (":now", &w.now())])
        .map(drop)
}

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

const FIND_USE: &str = "select 1 from one_time_tokens where hash = :hash and expires_at > :now";

/// Came this event before?
pub fn find_use(w: &Writer<'_>, hash: &Hash) -> Result<bool> {
    w.find(FIND_USE, &[(":hash", hash), (":now", &w.now())], |_| Ok(())).map(|found| found.is_some())
}
