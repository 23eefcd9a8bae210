//! SQL of deliveries, and of events as far as they are delivered.

use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};

use super::EventKind;
use super::delivery::{Delivery, DeliveryState, Filter, TargetKind};
use crate::kernel::authz::deferred_grant::Grantor;
use crate::kernel::db::sql::{self, Parameters};
use crate::kernel::db::{List, ListPage, PageRequest, Reader, Writer};
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::ids::{OrganizationId, Timestamp};

/// A loose index scan: one step per target, however many events wait for one of them.
const LIST_HEADS: &str = "
    with recursive waiting (target) as (
        select (select target from deliveries where state = 'pending' order by target limit 1)
        union all
        select (select target from deliveries where state = 'pending' and target > waiting.target order by target limit 1)
        from waiting
        where waiting.target is not null)
    select d.target, h.organization_id, d.next_at
    from waiting
    join deliveries d on d.target = waiting.target
        and d.event_id = (select event_id from deliveries where state = 'pending' and target = waiting.target
                          order by event_id limit 1)
    left join webhooks h on d.target like 'webhook %' and h.id = unhex(substr(d.target, 9))
    where d.target not like 'webhook %' or h.id is not null";

/// A target with pending deliveries.
pub struct PendingTarget {
    pub target: String,
    /// The organization of the webhook.
    pub organization: Option<OrganizationId>,
    /// The earliest time of the next attempt.
    pub next_at: Timestamp,
}

/// Every target with pending deliveries.
pub fn list_heads(r: &Reader<'_>) -> Result<Vec<PendingTarget>> {
    r.all(LIST_HEADS, &[], |row| {
        Ok(PendingTarget { target: row.get(0)?, organization: row.get(1)?, next_at: row.get(2)? })
    })
}

const FIND_HEAD: &str = "
    select d.target, d.event_id, e.kind, e.at, e.organization_id, e.member_id, e.data, d.state, d.attempts, d.next_at,
           d.last_error, d.updated_at, e.maker
    from deliveries d
    join events e on e.id = d.event_id
    where d.target = :target and d.state = 'pending'
    order by d.event_id
    limit 1";

/// The oldest pending delivery of a target.
pub fn find_head(r: &Reader<'_>, target: &str) -> Result<Option<Delivery>> {
    r.find(FIND_HEAD, &[(":target", &target)], delivery_of)
}

const SETTLE: &str = "
    update deliveries
    set state = :state, attempts = attempts + 1, next_at = :next_at, last_error = :last_error, updated_at = :now
    where target = :target and event_id = :event_id and state = 'pending'";

/// Records the outcome of an attempt.
pub fn record_outcome(
    w: &Writer<'_>,
    delivery: &Delivery,
    state: DeliveryState,
    next_at: Timestamp,
    error: Option<&str>,
) -> Result<()> {
    w.execute(
        SETTLE,
        &[
            (":state", &state.as_str()),
            (":next_at", &next_at),
            (":last_error", &error),
            (":now", &w.now()),
            (":target", &delivery.target),
            (":event_id", &delivery.event),
        ],
    )
    .map(drop)
}

const BURY: &str = "
    update deliveries
    set state = 'dead', last_error = :last_error, updated_at = :now
    where (target, event_id) in (select target, event_id from deliveries indexed by deliveries_pending
                                 where target = :target and state = 'pending' limit :most)";

/// Gives up pending deliveries of a target, at most `most`; returns their number.
pub fn give_up(w: &Writer<'_>, target: &str, why: &str, most: usize) -> Result<usize> {
    let values: [(&str, &dyn rusqlite::ToSql); 4] =
        [(":last_error", &why), (":now", &w.now()), (":target", &target), (":most", &sql::limit(most))];
    w.execute(BURY, &values)
}

const RETRY: &str = "
    update deliveries
    set attempts = case state when 'dead' then 0 else attempts end, state = 'pending', next_at = :now, updated_at = :now
    where target = :target and event_id = :event_id and state <> 'delivered'";

/// Makes a delivery due now and resets the attempts of a dead one. Returns false if it was delivered already.
pub fn retry(w: &Writer<'_>, target: &str, event: i64) -> Result<bool> {
    Ok(w.execute(RETRY, &[(":now", &w.now()), (":target", &target), (":event_id", &event)])? == 1)
}

const DELIVERY_COLUMNS: &str = "d.target, d.event_id, e.kind, e.at, e.organization_id, e.member_id, e.data, d.state,
    d.attempts, d.next_at, d.last_error, d.updated_at, e.maker";
// Deliveries of a deleted webhook are not listed, until maintenance deletes them.
const LIST_DELIVERIES: List = List {
    name: "deliveries",
    columns: DELIVERY_COLUMNS,
    from: "deliveries d
           cross join events e on e.id = d.event_id
           left join webhooks h on d.target like 'webhook %' and h.id = unhex(substr(d.target, 9))",
    joins: "",
    conditions: &[
        "d.target not like 'webhook %' or h.id is not null",
        "e.organization_id = :within and (d.target not like 'webhook %' or h.organization_id = :within)",
        "d.target = :target",
        "+d.state = :its_state",
        "d.state = 'pending' and :is_pending",
        "d.state = 'dead' and :is_dead",
        "+d.state = 'delivered' and :is_delivered",
        "(+d.attempts > 0) = :is_tried",
        "substr(d.target, 1, length(:target_kind) + 1) = :target_kind || ' '",
        "e.kind = :kind",
        "e.at >= :since",
        "e.at < :until",
    ],
    order: &["d.event_id desc", "d.target"],
    costly: &[":within", ":its_state", ":is_tried", ":target_kind", ":kind", ":since", ":until"],
    walked: &[":within", ":its_state", ":is_delivered", ":is_tried", ":target_kind", ":kind", ":since", ":until"],
    kept: &[
        (&[], "select count(*) from (select 1 from deliveries limit :counted_max)"),
        (
            &[":target"],
            "select count(*)
             from (select 1
                   from deliveries
                   where target = :target
                     and (:target not like 'webhook %'
                          or exists (select 1 from webhooks where id = unhex(substr(:target, 9))))
                   limit :counted_max)",
        ),
    ],
};
const LIST_DELIVERIES_IN: List = List {
    name: "deliveries",
    columns: DELIVERY_COLUMNS,
    from: "events e
           cross join deliveries d on d.event_id = e.id
           left join webhooks h on d.target like 'webhook %' and h.id = unhex(substr(d.target, 9))",
    joins: "",
    conditions: &[
        "e.organization_id = :organization_id
         and (d.target not like 'webhook %' or h.organization_id = :organization_id)",
        "d.state = 'delivered' and :is_delivered",
        "(+d.attempts > 0) = :is_tried",
        "substr(d.target, 1, length(:target_kind) + 1) = :target_kind || ' '",
        "e.kind = :kind",
        "e.at >= :since",
        "e.at < :until",
    ],
    order: &["e.id desc", "d.target"],
    costly: &[":organization_id"],
    walked: &[":is_delivered", ":is_tried", ":target_kind", ":kind", ":since", ":until"],
    kept: &[],
};

/// Lists deliveries, newest events first. Those of one target, and those that are pending or dead, are few and are read
/// from their own index. Otherwise the list of an organization starts from its events.
pub fn list_deliveries(r: &Reader<'_>, filter: &Filter, window: &PageRequest) -> Result<ListPage<Delivery>> {
    let Filter { organization, state, is_tried, target, kind, since, until } = filter;
    let (whole, target_kind) = match target {
        Some(text) if text.contains(' ') => (Some(text), None),
        other => (None, other.as_ref()),
    };
    let is = |wanted: DeliveryState| (whole.is_none() && *state == Some(wanted)).then_some(true);
    let is_few = whole.is_some() || is(DeliveryState::Pending).is_some() || is(DeliveryState::Dead).is_some();
    let list = if organization.is_some() && !is_few { &LIST_DELIVERIES_IN } else { &LIST_DELIVERIES };
    let parameters: Parameters<'_> = &[
        (":organization_id", &organization.filter(|_| !is_few)),
        (":within", &organization.filter(|_| is_few)),
        (":target", &whole),
        (":its_state", &state.filter(|_| whole.is_some()).map(DeliveryState::as_str)),
        (":is_pending", &is(DeliveryState::Pending)),
        (":is_dead", &is(DeliveryState::Dead)),
        (":is_delivered", &is(DeliveryState::Delivered)),
        (":is_tried", is_tried),
        (":target_kind", &target_kind),
        (":kind", kind),
        (":since", since),
        (":until", until),
    ];
    r.page(list, parameters, window, delivery_of)
}

const FIND_DELIVERY: &str = "
    select d.target, d.event_id, e.kind, e.at, e.organization_id, e.member_id, e.data, d.state, d.attempts, d.next_at,
           d.last_error, d.updated_at, e.maker
    from deliveries d
    join events e on e.id = d.event_id
    left join webhooks h on d.target like 'webhook %' and h.id = unhex(substr(d.target, 9))
    where d.target = :target and d.event_id = :event_id
      and (d.target not like 'webhook %' or h.id is not null)
      and (:organization_id is null or e.organization_id = :organization_id
           and (d.target not like 'webhook %' or h.organization_id = :organization_id))";

/// Returns a delivery that is visible to the organization; without one, any delivery. Fails with `delivery_not_found`.
pub fn get_delivery(
    r: &Reader<'_>,
    organization: Option<OrganizationId>,
    (event, target): (i64, &str),
) -> Result<Delivery> {
    let parameters: &[(&str, &dyn rusqlite::ToSql)] =
        &[(":target", &target), (":event_id", &event), (":organization_id", &organization)];
    r.find(FIND_DELIVERY, parameters, delivery_of)?.ok_or_else(|| ErrorCode::DeliveryNotFound.into())
}

const FORGET_DELIVERIES: &str = "
    delete from deliveries
    where (target, event_id) in (select target, event_id from deliveries where state = :state and updated_at <= :before
                                 limit :most)";

/// Deletes deliveries in this state whose last update is at or before this time; returns their number.
pub fn forget(w: &Writer<'_>, state: DeliveryState, before: Timestamp, most: usize) -> Result<usize> {
    let state = state.as_str();
    w.execute(FORGET_DELIVERIES, &[(":state", &state), (":before", &before), (":most", &sql::limit(most))])
}

// A loose index scan: one step per target, however many deliveries it has. In ASCII, `!` follows the space.
const LIST_TARGETS_OF_DELETED: &str = "
    with recursive hooks (target) as (
        select (select target from deliveries where target > 'webhook ' and target < 'webhook!' order by target limit 1)
        union all
        select (select target from deliveries where target > hooks.target and target < 'webhook!' order by target limit 1)
        from hooks
        where hooks.target is not null)
    select target
    from hooks
    where target is not null and not exists (select 1 from webhooks where id = unhex(substr(hooks.target, 9)))
    limit :most";

/// Targets with deliveries whose webhook was deleted.
pub fn list_targets_of_deleted(r: &Reader<'_>, most: usize) -> Result<Vec<String>> {
    r.all(LIST_TARGETS_OF_DELETED, &[(":most", &sql::limit(most))], |row| row.get(0))
}

const DELETE_DELIVERIES: &str = "
    delete from deliveries
    where (target, event_id) in (select target, event_id from deliveries where target = :target limit :most)";

/// Deletes deliveries of a target, at most `most`; returns their number.
pub fn delete_deliveries(w: &Writer<'_>, target: &str, most: usize) -> Result<usize> {
    w.execute(DELETE_DELIVERIES, &[(":target", &target), (":most", &sql::limit(most))])
}

const LIST_OLD_EVENTS: &str = "
    select e.id
    from events e
    where e.id < coalesce((select id from events where at > :before order by id limit 1), 9223372036854775807)
      and e.id < (select max(id) from events)
      and not exists (select 1 from deliveries where event_id = e.id)
    limit :most";
const FORGET_EVENT: &str = "
    delete from events
    where id = :id and id < (select max(id) from events)
      and not exists (select 1 from deliveries where event_id = :id)";

/// Events at or before this time without deliveries. Reads from the oldest and stops at the first younger one.
pub fn list_old_events(r: &Reader<'_>, before: Timestamp, most: usize) -> Result<Vec<i64>> {
    r.all(LIST_OLD_EVENTS, &[(":before", &before), (":most", &sql::limit(most))], |row| row.get(0))
}

pub fn forget_event(w: &Writer<'_>, id: i64) -> Result<()> {
    w.execute(FORGET_EVENT, &[(":id", &id)]).map(drop)
}

const COUNT_BY_TARGET: &str = "
    select substr(d.target, 1, instr(d.target || ' ', ' ') - 1), count(*), min(d.event_id)
    from deliveries d
    where d.state = :state
    group by 1";
const FIND_EVENT_TIME: &str = "select at from events where id = :id";

/// The number of deliveries in one state.
#[derive(Debug)]
pub struct DeliveryCounts {
    /// By kind of target.
    pub counts: Vec<(String, i64)>,
    /// The time of the oldest of their events.
    pub oldest: Option<Timestamp>,
}

pub fn count(r: &Reader<'_>, state: DeliveryState) -> Result<DeliveryCounts> {
    let counts: Vec<(String, i64, i64)> =
        r.all(COUNT_BY_TARGET, &[(":state", &state.as_str())], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let oldest = match counts.iter().map(|(.., event)| *event).min() {
        Some(event) => r.find(FIND_EVENT_TIME, &[(":id", &event)], |row| row.get(0))?,
        None => None,
    };
    Ok(DeliveryCounts { counts: counts.into_iter().map(|(kind, count, _)| (kind, count)).collect(), oldest })
}

const FIND_LAST_FAILURE: &str = "
    select d.last_error, d.updated_at
    from deliveries d
    where d.state = 'pending' and d.attempts > 0 and substr(d.target, 1, length(:target_kind) + 1) = :target_kind || ' '
    order by d.updated_at desc
    limit 1";
const FIND_FAILING_SINCE: &str = "
    select e.at
    from deliveries d
    join events e on e.id = d.event_id
    where d.state = 'pending' and d.attempts > 0 and substr(d.target, 1, length(:target_kind) + 1) = :target_kind || ' '
    order by d.event_id
    limit 1";

/// Deliveries to one kind of target that have failed and are tried again.
#[derive(Debug, Clone)]
pub struct FailingDeliveries {
    /// The time of the oldest of their events.
    pub since: Timestamp,
    /// The last failed attempt.
    pub failed_at: Timestamp,
    pub last_error: Option<String>,
}

/// The failing deliveries to this kind of target, if there are any.
pub fn find_failing(r: &Reader<'_>, kind: TargetKind) -> Result<Option<FailingDeliveries>> {
    let kind: Parameters<'_> = &[(":target_kind", &kind.as_str())];
    let last: Option<(Option<String>, Timestamp)> =
        r.find(FIND_LAST_FAILURE, kind, |row| Ok((row.get(0)?, row.get(1)?)))?;
    let since: Option<Timestamp> = r.find(FIND_FAILING_SINCE, kind, |row| row.get(0))?;
    let failing = last.zip(since);
    Ok(failing.map(|((last_error, failed_at), since)| FailingDeliveries { since, failed_at, last_error }))
}

impl FromSql for EventKind {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

impl FromSql for DeliveryState {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

fn delivery_of(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        target: row.get(0)?,
        event: row.get(1)?,
        kind: row.get(2)?,
        at: row.get(3)?,
        organization: row.get(4)?,
        member: row.get(5)?,
        data: row.get(6)?,
        state: row.get(7)?,
        attempts: row.get::<_, i64>(8)?.unsigned_abs(),
        next_at: row.get(9)?,
        last_error: row.get(10)?,
        updated_at: row.get(11)?,
        maker: Grantor::parse(row.get::<_, Option<String>>(12)?.as_deref()),
    })
}
