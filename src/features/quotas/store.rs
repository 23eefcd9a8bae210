//! SQL of quotas, their ledger and the ceilings of organizations.

use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};

use super::{CeilingUsage, Delta, LedgerCause, LedgerReason, QuotaAccount};
use crate::features::members;
use crate::kernel::authz::permission::PLATFORM_ORG_CODE;
use crate::kernel::db::sql::{self, Parameters};
use crate::kernel::db::{Direction, List, ListPage, PageRequest, Reader, Writer};
use crate::kernel::error::Result;
use crate::kernel::ids::{MemberId, OrganizationId, ReservationId, Timestamp};

const SETTLE_MEMBER: &str = "
    insert into quotas (member_id, organization_id, created_at, updated_at)
    values (:member_id, :organization_id, :now, :now)
    on conflict (member_id) do nothing";
const SETTLE_ORGANIZATION: &str = "
    insert into organization_quotas (organization_id, created_at, updated_at)
    values (:organization_id, :now, :now)
    on conflict (organization_id) do nothing";

/// Inserts the missing account rows.
pub fn ensure_account(w: &Writer<'_>, member: MemberId, organization: Option<OrganizationId>) -> Result<()> {
    let now = w.now();
    w.execute(SETTLE_MEMBER, &[(":member_id", &member), (":organization_id", &organization), (":now", &now)])?;
    organization.map_or(Ok(()), |organization| ensure_organization_account(w, organization))
}

const MEMBERSHIP_CHANGED: &str = "
    update quotas
    set organization_id = (select iif(count(*) = 1 and max(o.org_code) <> :platform, max(s.organization_id), null)
                           from memberships s
                           join organizations o on o.id = s.organization_id
                           where s.member_id = :member_id)
    where member_id = :member_id";

/// Sets the organization of a member's account from its present memberships: its only organization, or none.
pub fn membership_changed(w: &Writer<'_>, member: MemberId) -> Result<()> {
    w.execute(MEMBERSHIP_CHANGED, &[(":platform", &PLATFORM_ORG_CODE), (":member_id", &member)]).map(drop)
}

pub fn ensure_organization_account(w: &Writer<'_>, organization: OrganizationId) -> Result<()> {
    w.execute(SETTLE_ORGANIZATION, &[(":organization_id", &organization), (":now", &w.now())]).map(drop)
}

const ADJUST_MEMBER: &str = "
    update quotas
    set used = used + :used, reserved = reserved + :reserved, updated_at = :now
    where member_id = :member_id and used <= 9223372036854775807 - max(:used, 0)
      and (:need <= 0
           or :need <= coalesce(own_size, (select member_size from organization_quotas o
                                       where o.organization_id = quotas.organization_id), :default_bytes)
                       - used - reserved
           or :need <= coalesce(own_size, (select member_size from organization_quotas o
                                       where o.organization_id = quotas.organization_id), :default_bytes)
                       - used - reserved
                       + (select coalesce(sum(r.size), 0) from quota_reservations r
                          where r.member_id = quotas.member_id and r.state = 'open' and r.expires_at <= :now))";

/// Updates a member's account; returns false if it does not fit. Bytes of expired reservations count as free, even
/// before maintenance releases them.
pub fn adjust_member(w: &Writer<'_>, member: MemberId, delta: Delta, default_bytes: i64) -> Result<bool> {
    let changed = w.execute(
        ADJUST_MEMBER,
        &[
            (":used", &delta.used),
            (":reserved", &delta.reserved),
            (":need", &delta.need),
            (":now", &w.now()),
            (":member_id", &member),
            (":default_bytes", &default_bytes),
        ],
    )?;
    Ok(changed == 1)
}

fn account_of(row: &Row<'_>) -> rusqlite::Result<QuotaAccount> {
    Ok(QuotaAccount {
        organization: row.get(0)?,
        own_size: row.get(1)?,
        size: row.get(2)?,
        used: row.get(3)?,
        reserved: row.get(4)?,
        warned_percent: row.get(5)?,
        above: None,
    })
}

const ADJUST_ORGANIZATION: &str = "
    update organization_quotas
    set used = used + :used, reserved = reserved + :reserved, updated_at = :now
    where organization_id = :organization_id and used <= 9223372036854775807 - max(:used, 0)
      and (:need <= 0 or size is null or :need <= size - used - reserved
           or :need <= size - used - reserved
                       + (select coalesce(sum(r.size), 0) from quota_reservations r
                          where r.organization_id = organization_quotas.organization_id and r.state = 'open'
                            and r.expires_at <= :now))
    returning size, used, warned_percent";

/// Updates the organization's account; returns `None` if it does not fit, otherwise its ceiling after the change, if
/// any.
pub fn adjust_organization(
    w: &Writer<'_>,
    organization: OrganizationId,
    delta: Delta,
) -> Result<Option<Option<CeilingUsage>>> {
    w.find(
        ADJUST_ORGANIZATION,
        &[
            (":used", &delta.used),
            (":reserved", &delta.reserved),
            (":need", &delta.need),
            (":now", &w.now()),
            (":organization_id", &organization),
        ],
        |row| {
            let (size, used, warned_percent) = (row.get::<_, Option<i64>>(0)?, row.get(1)?, row.get(2)?);
            Ok(size.map(|size| CeilingUsage { size, used, warned_percent }))
        },
    )
}

const SET_CEILING_WARNED: &str =
    "update organization_quotas set warned_percent = :percent where organization_id = :organization_id";

pub fn set_ceiling_warned(w: &Writer<'_>, organization: OrganizationId, percent: i64) -> Result<()> {
    w.execute(SET_CEILING_WARNED, &[(":percent", &percent), (":organization_id", &organization)]).map(drop)
}

const LIST_EXPIRED: &str = "
    select id, member_id, organization_id, size
    from quota_reservations
    where state = 'open' and expires_at <= :now
    limit :most";
const FREE_OF_MEMBER: &str = "update quotas set reserved = reserved - :size where member_id = :member_id";
const FREE_OF_ORGANIZATION: &str = "
    update organization_quotas set reserved = reserved - :size where organization_id = :organization_id";
const EXPIRE: &str = "update quota_reservations set state = 'expired', updated_at = :now where id = :id";

/// Marks expired reservations and releases their bytes; returns how many.
pub fn expire(w: &Writer<'_>, most: usize) -> Result<usize> {
    type Expired = (ReservationId, MemberId, Option<OrganizationId>, i64);
    let expired: Vec<Expired> = w.all(LIST_EXPIRED, &[(":now", &w.now()), (":most", &sql::limit(most))], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    })?;
    for (id, member, organization, size) in &expired {
        w.execute(FREE_OF_MEMBER, &[(":size", size), (":member_id", member)])?;
        if let Some(organization) = organization {
            w.execute(FREE_OF_ORGANIZATION, &[(":size", size), (":organization_id", organization)])?;
        }
        w.execute(EXPIRE, &[(":now", &w.now()), (":id", id)])?;
    }
    Ok(expired.len())
}

const INSERT_LEDGER: &str = "
    insert into quota_ledger (at, member_id, organization_id, video_id, cause, delta, used_after, request_id)
    values (:at, :member_id, :organization_id, :video_id, :cause, :delta, :used_after, :request_id)";

pub fn insert_ledger(
    w: &Writer<'_>,
    (member, organization): (MemberId, Option<OrganizationId>),
    delta: i64,
    used_after: i64,
    reason: LedgerReason<'_>,
) -> Result<()> {
    let video = Some(reason.video).filter(|video| !video.is_empty());
    w.execute(
        INSERT_LEDGER,
        &[
            (":at", &w.now()),
            (":member_id", &member),
            (":organization_id", &organization),
            (":video_id", &video),
            (":cause", &reason.cause.as_str()),
            (":delta", &delta),
            (":used_after", &used_after),
            (":request_id", &reason.request_id),
        ],
    )
    .map(drop)
}

const SET_WARNED: &str = "update quotas set warned_percent = :percent where member_id = :member_id";

pub fn set_warned(w: &Writer<'_>, member: MemberId, percent: i64) -> Result<()> {
    w.execute(SET_WARNED, &[(":percent", &percent), (":member_id", &member)]).map(drop)
}

const LIST_FULL: &str = "
    select member_id
    from quotas
    where warned_percent = 100 and member_id > :after
    order by member_id
    limit :most";

/// Lists members whose quota counts as full, in the order of their ids.
pub fn list_full(r: &Reader<'_>, after: MemberId, most: usize) -> Result<Vec<MemberId>> {
    r.all(LIST_FULL, &[(":after", &after), (":most", &i64::try_from(most).unwrap_or(i64::MAX))], |row| row.get(0))
}

const WAS_REFUSED_SINCE: &str = "
    select 1
    from events
    where member_id = :member_id and at > :since and kind = 'quota.exceeded'
    limit 1";

pub fn was_refused_since(r: &Reader<'_>, member: MemberId, since: Timestamp) -> Result<bool> {
    r.find(WAS_REFUSED_SINCE, &[(":since", &since), (":member_id", &member)], |_| Ok(())).map(|found| found.is_some())
}

const FIND_ACCOUNT: &str = "
    select q.organization_id, q.own_size,
           coalesce(q.own_size, (select member_size from organization_quotas o
                             where o.organization_id = q.organization_id), :default_bytes),
           q.used,
           iif(q.reserved = 0, 0,
               q.reserved - (select coalesce(sum(r.size), 0) from quota_reservations r
                             where r.member_id = q.member_id and r.state = 'open' and r.expires_at <= :now)),
           q.warned_percent
    from quotas q
    where q.member_id = :member_id";

/// Returns the member's account, if it exists. Bytes of expired reservations count as free.
pub fn find_account(
    r: &Reader<'_>,
    member: MemberId,
    now: Timestamp,
    default_bytes: i64,
) -> Result<Option<QuotaAccount>> {
    r.find(FIND_ACCOUNT, &[(":member_id", &member), (":now", &now), (":default_bytes", &default_bytes)], account_of)
}

// ── sizes ──

const FIND_MEMBER_SIZE: &str = "select own_size, version from quotas where member_id = :member_id";

pub fn find_member_size(r: &Reader<'_>, member: MemberId) -> Result<Option<(Option<i64>, i64)>> {
    r.find(FIND_MEMBER_SIZE, &[(":member_id", &member)], |row| Ok((row.get(0)?, row.get(1)?)))
}

const SET_MEMBER_SIZE: &str = "
    update quotas
    set size = :size, size_by = :size_by, version = version + 1, updated_at = :now
    where member_id = :member_id";

pub fn set_member_size(
    w: &Writer<'_>,
    member: MemberId,
    (size, size_by): (Option<i64>, Option<OrganizationId>),
) -> Result<()> {
    w.execute(SET_MEMBER_SIZE, &[(":size", &size), (":size_by", &size_by), (":now", &w.now()), (":member_id", &member)])
        .map(drop)
}

/// The ceiling of an organization, with the usage of its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceiling {
    pub size: Option<i64>,
    pub member_size: Option<i64>,
    pub used: i64,
    pub reserved: i64,
    pub version: i64,
}

impl Ceiling {
    /// Returns the free bytes, or `None` if there is no ceiling.
    pub fn free(&self) -> Option<i64> {
        self.size.map(|size| super::free(size, self.used, self.reserved))
    }
}

const FIND_CEILING: &str = "
    select c.size, c.member_size, c.used,
           c.reserved - (select coalesce(sum(r.size), 0) from quota_reservations r
                         where r.organization_id = c.organization_id and r.state = 'open' and r.expires_at <= :now),
           c.version
    from organization_quotas c
    where c.organization_id = :organization_id";

pub fn find_ceiling(r: &Reader<'_>, organization: OrganizationId, now: Timestamp) -> Result<Option<Ceiling>> {
    r.find(FIND_CEILING, &[(":organization_id", &organization), (":now", &now)], |row| {
        Ok(Ceiling {
            size: row.get(0)?,
            member_size: row.get(1)?,
            used: row.get(2)?,
            reserved: row.get(3)?,
            version: row.get(4)?,
        })
    })
}

const SET_CEILING: &str = "
    update organization_quotas
    set size = :size, member_size = :member_size, warned_percent = 0, version = version + 1, updated_at = :now
    where organization_id = :organization_id";

pub fn set_ceiling(
    w: &Writer<'_>,
    organization: OrganizationId,
    (size, member_size): (Option<i64>, Option<i64>),
) -> Result<()> {
    w.execute(
        SET_CEILING,
        &[(":size", &size), (":member_size", &member_size), (":now", &w.now()), (":organization_id", &organization)],
    )
    .map(drop)
}

// ── lists ──

/// A member with its account.
#[derive(Debug)]
pub struct MemberAccount {
    pub member: MemberId,
    pub username: Option<String>,
    pub account: QuotaAccount,
}

const BY_KEYWORD: &str = "m.username_folded like :keyword escape '\\' or m.email_folded like :keyword escape '\\'
    or m.display_name like :keyword escape '\\'";
/// Members that use some bytes.
const LIST_USERS: List = List {
    name: "quotas",
    columns: "m.id, m.username, q.organization_id, q.own_size,
              coalesce(q.own_size,
                       (select member_size from organization_quotas o
                        where o.organization_id = coalesce(q.organization_id, :seen_by)), :default_bytes),
              q.used,
              q.reserved - (select coalesce(sum(r.size), 0) from quota_reservations r
                            where r.member_id = m.id and r.state = 'open' and r.expires_at <= :now),
              q.warned_percent",
    from: "quotas q cross join members m on m.id = q.member_id",
    joins: "",
    conditions: &[
        "q.used > 0",
        "q.organization_id = :organization_id",
        "q.member_id in (select unhex(value) from json_each(:among))",
        BY_KEYWORD,
    ],
    order: &["q.used desc", "q.member_id"],
    costly: &[":keyword"],
    walked: &[":keyword"],
    kept: &[
        (&[], "select count(*) from quotas where used > 0"),
        (&[":organization_id"], "select count(*) from quotas where used > 0 and organization_id = :organization_id"),
    ],
};
const IDLE_COLUMNS: &str = "m.id, m.username, q.organization_id, q.own_size,
    coalesce(q.own_size,
             (select member_size from organization_quotas o
              where o.organization_id = coalesce(q.organization_id, :seen_by)), :default_bytes),
    0,
    coalesce(q.reserved, 0) - (select coalesce(sum(r.size), 0) from quota_reservations r
                               where r.member_id = m.id and r.state = 'open' and r.expires_at <= :now),
    coalesce(q.warned_percent, 0)";
/// Members that use none.
const LIST_IDLE: List = List {
    name: "idle quotas",
    columns: IDLE_COLUMNS,
    from: "members m left join quotas q on q.member_id = m.id",
    joins: "",
    conditions: &[
        "+m.status <> 'deleted'",
        "coalesce(q.used, 0) = 0",
        "m.id in (select unhex(value) from json_each(:among))",
        BY_KEYWORD,
    ],
    order: &["m.id"],
    costly: &[":keyword"],
    walked: &[":keyword"],
    kept: &[],
};
const LIST_IDLE_IN: List = List {
    name: "idle quotas",
    columns: IDLE_COLUMNS,
    from: "memberships s
           cross join members m on m.id = s.member_id
           left join quotas q on q.member_id = s.member_id",
    joins: "",
    conditions: &[
        "s.organization_id = :organization_id",
        "q.member_id is null or (q.used = 0 and q.organization_id = s.organization_id)",
        "s.member_id in (select unhex(value) from json_each(:among))",
        BY_KEYWORD,
    ],
    order: &["s.member_id"],
    costly: &[":keyword"],
    walked: &[":keyword"],
    kept: &[],
};

// The total of both lists if no keyword narrows them. An account counts under the only membership of its member.
const COUNT_QUOTAS: &str = "
    select (select count(*) from members where status <> 'deleted')
         + (select count(*) from members d
            cross join quotas q on q.member_id = d.id and q.used > 0
            where d.status = 'deleted')";
const COUNT_QUOTAS_IN: &str = "
    select (select count(*) from memberships where organization_id = :organization_id)
         - (select count(*) from quotas q
            cross join memberships s on s.organization_id = :organization_id and s.member_id = q.member_id
            where q.organization_id is null)";

/// Lists accounts by usage, highest first, then members that have stored nothing yet; or all of it in the opposite
/// order.
pub fn list_quotas(
    r: &Reader<'_>,
    (organization, keyword): (Option<OrganizationId>, Option<&str>),
    (now, default_bytes): (Timestamp, i64),
    window: &PageRequest,
) -> Result<ListPage<MemberAccount>> {
    let among = keyword.map(|keyword| members::find_among(r, keyword)).transpose()?.flatten();
    let keyword = keyword.map(str::to_lowercase);
    let parameters: Parameters<'_> = &[
        (":organization_id", &organization),
        (":keyword", &keyword),
        (":among", &among),
        (":seen_by", &organization),
        (":now", &now),
        (":default_bytes", &default_bytes),
    ];
    let mut lists = if organization.is_some() { [&LIST_USERS, &LIST_IDLE_IN] } else { [&LIST_USERS, &LIST_IDLE] };
    if window.direction == Direction::Backward {
        lists.reverse();
    }
    let listed = r.page_of_two(lists, parameters, window, held_of)?;
    let counted = |statement: &str, narrowed: Parameters<'_>| {
        r.one(statement, narrowed, |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
    };
    let total = match (keyword.is_some(), organization) {
        (true, _) => r.total(lists[0], parameters, window)?.saturating_add(r.total(lists[1], parameters, window)?),
        (false, None) => counted(COUNT_QUOTAS, &[])?,
        (false, Some(_)) => counted(COUNT_QUOTAS_IN, &[(":organization_id", &organization)])?,
    };
    Ok(ListPage { total: total.max(listed.total), ..listed })
}

/// Lists the accounts with the highest usage.
pub fn list_top(
    r: &Reader<'_>,
    organization: Option<OrganizationId>,
    (now, default_bytes): (Timestamp, i64),
    limit: u64,
) -> Result<Vec<MemberAccount>> {
    let parameters: Parameters<'_> = &[
        (":organization_id", &organization),
        (":seen_by", &organization),
        (":now", &now),
        (":default_bytes", &default_bytes),
    ];
    let lists = if organization.is_some() { [&LIST_USERS, &LIST_IDLE_IN] } else { [&LIST_USERS, &LIST_IDLE] };
    Ok(r.page_of_two(lists, parameters, &PageRequest::first(limit), held_of)?.items)
}

fn held_of(row: &Row<'_>) -> rusqlite::Result<MemberAccount> {
    let account = QuotaAccount {
        organization: row.get(2)?,
        own_size: row.get(3)?,
        size: row.get(4)?,
        used: row.get(5)?,
        reserved: row.get(6)?,
        warned_percent: row.get(7)?,
        above: None,
    };
    Ok(MemberAccount { member: row.get(0)?, username: row.get(1)?, account })
}

/// A row of the ledger.
#[derive(Debug)]
pub struct LedgerRow {
    pub id: i64,
    pub at: Timestamp,
    pub organization: Option<OrganizationId>,
    pub video: Option<String>,
    pub cause: LedgerCause,
    pub delta: i64,
    pub used_after: i64,
    pub request_id: String,
}

impl FromSql for LedgerCause {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

const LIST_LEDGER: List = List {
    name: "ledger",
    columns: "id, at, organization_id, video_id, cause, delta, used_after, request_id",
    from: "quota_ledger",
    joins: "",
    conditions: &["member_id = :member_id", "organization_id = :within"],
    order: &["id desc"],
    costly: &[":within"],
    walked: &[":within"],
    kept: &[],
};

/// Lists a member's ledger, newest first.
pub fn list_ledger(
    r: &Reader<'_>,
    member: MemberId,
    organization: Option<OrganizationId>,
    window: &PageRequest,
) -> Result<ListPage<LedgerRow>> {
    r.page(&LIST_LEDGER, &[(":member_id", &member), (":within", &organization)], window, |row| {
        Ok(LedgerRow {
            id: row.get(0)?,
            at: row.get(1)?,
            organization: row.get(2)?,
            video: row.get(3)?,
            cause: row.get(4)?,
            delta: row.get(5)?,
            used_after: row.get(6)?,
            request_id: row.get(7)?,
        })
    })
}

/// An organization's usage.
#[derive(Debug)]
pub struct Usage {
    pub organization: OrganizationId,
    pub org_code: String,
    pub name: String,
    pub size: Option<i64>,
    pub used: i64,
    pub reserved: i64,
    pub videos: i64,
}

/// Organizations that use some bytes.
const LIST_USAGE: &str = "
    select o.id, o.org_code, o.name, c.size, c.used,
           (select coalesce(sum(r.size), 0) from quota_reservations r
            where r.organization_id = o.id and r.state = 'open' and r.expires_at > :now),
           c.videos
    from organization_quotas c
    cross join organizations o on o.id = c.organization_id
    where c.used > 0
    order by c.used desc, o.org_code
    limit :limit";
/// Organizations that use none. It only fills up the page after the first list, so it reads no more rows than were
/// requested.
const LIST_IDLE_USAGE: &str = "
    select o.id, o.org_code, o.name, c.size, 0,
           (select coalesce(sum(r.size), 0) from quota_reservations r
            where r.organization_id = o.id and r.state = 'open' and r.expires_at > :now),
           coalesce(c.videos, 0)
    from organizations o
    left join organization_quotas c on c.organization_id = o.id
    where coalesce(c.used, 0) = 0
    order by o.org_code
    limit :limit";
const FIND_USAGE: &str = "
    select o.id, o.org_code, o.name, c.size, coalesce(c.used, 0),
           (select coalesce(sum(r.size), 0) from quota_reservations r
            where r.organization_id = o.id and r.state = 'open' and r.expires_at > :now),
           coalesce(c.videos, 0)
    from organizations o
    left join organization_quotas c on c.organization_id = o.id
    where o.id = :only";

/// Lists the usage of organizations, highest first.
pub fn list_usage(r: &Reader<'_>, only: Option<OrganizationId>, now: Timestamp, limit: u64) -> Result<Vec<Usage>> {
    if only.is_some() {
        return r.all(FIND_USAGE, &[(":only", &only), (":now", &now)], usage_of);
    }
    let mut usage = r.all(LIST_USAGE, &[(":now", &now), (":limit", &(limit as i64))], usage_of)?;
    let rest = limit.saturating_sub(usage.len() as u64) as i64;
    if rest > 0 {
        usage.extend(r.all(LIST_IDLE_USAGE, &[(":now", &now), (":limit", &rest)], usage_of)?);
    }
    Ok(usage)
}

fn usage_of(row: &Row<'_>) -> rusqlite::Result<Usage> {
    Ok(Usage {
        organization: row.get(0)?,
        org_code: row.get(1)?,
        name: row.get(2)?,
        size: row.get(3)?,
        used: row.get(4)?,
        reserved: row.get(5)?,
        videos: row.get(6)?,
    })
}
