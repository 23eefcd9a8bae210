//! SQL of the one row of `site_usage`.

use crate::kernel::db::{Reader, Writer};
use crate::kernel::error::Result;
use crate::kernel::ids::Timestamp;

const COUNT_IN: &str = "
    update site_usage
    set videos = videos + 1
    where videos < :videos_max";

/// Adds one to the site's video count; returns false at the limit.
pub fn increment_videos(w: &Writer<'_>, videos_max: i64) -> Result<bool> {
    w.execute(COUNT_IN, &[(":videos_max", &videos_max)]).map(|changed| changed == 1)
}

const COUNT_OUT: &str = "update site_usage set videos = videos - 1";

pub fn decrement_videos(w: &Writer<'_>) -> Result<()> {
    w.execute(COUNT_OUT, &[]).map(drop)
}

const SITE_USAGE: &str = "
    select used, (select coalesce(sum(size), 0) from quota_reservations where state = 'open' and expires_at > :now),
           videos, ownerless_videos, ownerless_bytes
    from site_usage";

/// Returns [bytes used, bytes reserved, videos, videos without an owner, bytes of those].
pub fn site_usage(r: &Reader<'_>, now: Timestamp) -> Result<[i64; 5]> {
    r.one(SITE_USAGE, &[(":now", &now)], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?]))
}
