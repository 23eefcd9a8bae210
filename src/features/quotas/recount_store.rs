//! SQL of the recount. It reads whole tables on purpose.

use rusqlite::Row;

use super::recount::{Difference, RecountTarget};
use crate::kernel::db::{Reader, Writer};
use crate::kernel::error::Result;
use crate::kernel::ids::{MemberId, OrganizationId};

const RECOUNT_TOTALS: &str = "
    select (select count(*) from quotas), (select count(*) from organization_quotas), (select count(*) from videos),
           (select videos from site_usage)";

/// Counts [member accounts, organization accounts, videos, the video count stored in `site_usage`].
pub fn totals(r: &Reader<'_>) -> Result<[i64; 4]> {
    r.one(RECOUNT_TOTALS, &[], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))
}

const RECOUNT_MEMBERS: &str = "
    with
    ledger as (select member_id, sum(delta) as bytes from quota_ledger group by member_id),
    held as (select member_id, sum(size) as bytes from videos where member_id is not null group by member_id),
    promised as (select member_id, sum(size) as bytes from quota_reservations where state = 'open' group by member_id),
    everybody as (select member_id from quotas union select member_id from ledger union select member_id from held
                  union select member_id from promised)
    select e.member_id, coalesce(q.used, 0), coalesce(l.bytes, 0), coalesce(h.bytes, 0), coalesce(q.reserved, 0),
           coalesce(p.bytes, 0)
    from everybody e
    left join quotas q on q.member_id = e.member_id
    left join ledger l on l.member_id = e.member_id
    left join held h on h.member_id = e.member_id
    left join promised p on p.member_id = e.member_id
    where coalesce(q.used, 0) <> coalesce(h.bytes, 0) or coalesce(l.bytes, 0) <> coalesce(h.bytes, 0)
       or coalesce(q.reserved, 0) <> coalesce(p.bytes, 0)";

/// Lists members whose account differs from its rows.
pub fn list_members(r: &Reader<'_>) -> Result<Vec<Difference>> {
    r.all(RECOUNT_MEMBERS, &[], |row| difference(RecountTarget::Member(row.get(0)?), row))
}

const RECOUNT_ORGANIZATIONS: &str = "
    with
    ledger as (select organization_id, sum(delta) as bytes from quota_ledger where organization_id is not null
               group by organization_id),
    held as (select organization_id, sum(size) as bytes from videos
             where organization_id is not null and member_id is not null group by organization_id),
    promised as (select organization_id, sum(size) as bytes from quota_reservations
                 where state = 'open' and organization_id is not null group by organization_id),
    everybody as (select organization_id from organization_quotas union select organization_id from ledger
                  union select organization_id from held union select organization_id from promised)
    select e.organization_id, coalesce(q.used, 0), coalesce(l.bytes, 0), coalesce(h.bytes, 0),
           coalesce(q.reserved, 0), coalesce(p.bytes, 0)
    from everybody e
    left join organization_quotas q on q.organization_id = e.organization_id
    left join ledger l on l.organization_id = e.organization_id
    left join held h on h.organization_id = e.organization_id
    left join promised p on p.organization_id = e.organization_id
    where coalesce(q.used, 0) <> coalesce(h.bytes, 0) or coalesce(l.bytes, 0) <> coalesce(h.bytes, 0)
       or coalesce(q.reserved, 0) <> coalesce(p.bytes, 0)";

/// Lists organizations whose account differs from its rows.
pub fn list_organizations(r: &Reader<'_>) -> Result<Vec<Difference>> {
    r.all(RECOUNT_ORGANIZATIONS, &[], |row| difference(RecountTarget::Organization(row.get(0)?), row))
}

fn difference(whose: RecountTarget, row: &Row<'_>) -> rusqlite::Result<Difference> {
    Ok(Difference {
        whose,
        used: row.get(1)?,
        ledger: row.get(2)?,
        videos: row.get(3)?,
        reserved: row.get(4)?,
        reservations: row.get(5)?,
    })
}

const MAKE_QUOTAS: &str = "
    insert into quotas (member_id, organization_id, created_at, updated_at)
    select member_id, max(organization_id), :now, :now
    from (select member_id, organization_id from videos where member_id is not null
          union all select member_id, organization_id from quota_ledger
          union all select member_id, organization_id from quota_reservations where state = 'open')
    where true
    group by member_id
    on conflict (member_id) do nothing";
const MAKE_ORGANIZATION_QUOTAS: &str = "
    insert into organization_quotas (organization_id, created_at, updated_at)
    select distinct organization_id, :now, :now
    from (select organization_id from videos union all select organization_id from quota_ledger
          union all select organization_id from quota_reservations where state = 'open')
    where organization_id is not null and organization_id in (select id from organizations)
    on conflict (organization_id) do nothing";

/// Inserts missing account rows.
pub fn insert_missing_accounts(w: &Writer<'_>) -> Result<()> {
    w.execute(MAKE_QUOTAS, &[(":now", &w.now())])?;
    w.execute(MAKE_ORGANIZATION_QUOTAS, &[(":now", &w.now())]).map(drop)
}

const LIST_MISSING: &str = "
    select member_id, organization_id, sum(bytes),
           (select coalesce(sum(size), 0) from videos v where v.member_id = m.member_id)
    from (select member_id, organization_id, size as bytes from videos where member_id is not null
          union all select member_id, organization_id, -delta from quota_ledger) m
    group by member_id, organization_id
    having sum(bytes) <> 0";

/// Returns the bytes that the ledger lacks compared with the videos, as (member, organization, difference, bytes the
/// member uses).
#[expect(clippy::type_complexity, reason = "one row, read once")]
pub fn list_missing(r: &Reader<'_>) -> Result<Vec<(MemberId, Option<OrganizationId>, i64, i64)>> {
    r.all(LIST_MISSING, &[], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
}

const SET_MEMBERS: &str = "
    update quotas
    set used = (select coalesce(sum(size), 0) from videos v where v.member_id = quotas.member_id),
        reserved = (select coalesce(sum(size), 0) from quota_reservations r
                    where r.member_id = quotas.member_id and r.state = 'open')";
const SET_ORGANIZATIONS: &str = "
    update organization_quotas
    set used = (select coalesce(sum(size), 0) from videos v
                where v.organization_id = organization_quotas.organization_id and v.member_id is not null),
        reserved = (select coalesce(sum(size), 0) from quota_reservations r
                    where r.organization_id = organization_quotas.organization_id and r.state = 'open')";
const SET_SITE: &str = "
    update site_usage
    set videos = (select count(*) from videos), used = (select coalesce(sum(used), 0) from quotas),
        ownerless_videos = (select count(*) from videos where member_id is null),
        ownerless_bytes = (select coalesce(sum(size), 0) from videos where member_id is null)";

/// Sets all accounts from the videos and reservations.
pub fn set_all(w: &Writer<'_>) -> Result<()> {
    for statement in [SET_MEMBERS, SET_ORGANIZATIONS, SET_SITE] {
        w.execute(statement, &[])?;
    }
    Ok(())
}
