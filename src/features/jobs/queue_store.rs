//! SQL of job queues, which claims select from.
//!
//! Every statement here finds its rows through an index, regardless of the number of jobs.

use super::ClaimRequest;
use super::queue::{Queue, Ready};
use crate::kernel::db::{Reader, Writer, sql};
use crate::kernel::error::Result;
use crate::kernel::ids::{JobId, LeaseId, MemberId, OrganizationId, Timestamp};

const FIND_SINCE: &str = "
    select since
    from job_queues
    where member_id = coalesce(:member_id, x'') and organization_id = coalesce(:organization_id, x'')
      and ready = :ready";
const ENQUEUE: &str = "
    insert into job_queues (member_id, organization_id, ready, state, turn, since)
    values (coalesce(:member_id, x''), coalesce(:organization_id, x''), :ready,
            iif(:since > :now, 'later', 'open'),
            coalesce((select max(turn) from job_queues where member_id = coalesce(:member_id, x'')),
                     1000 * (select max(leased_at) from jobs where member_id is :member_id and leased_at is not null), 0),
            :since)
    on conflict (member_id, organization_id, ready) do update
    set since = excluded.since, state = iif(state in ('open', 'later'), excluded.state, state)
    where excluded.since < since";

/// Ensures that a queue row exists and that its `since` is not later than this job; usually that is already the case. A
/// new row takes its `turn` from the member's other queues, or from the time when the member last got a job.
pub fn enqueue(w: &Writer<'_>, queue: Queue, since: Timestamp) -> Result<()> {
    let Queue { member, organization, ready } = queue;
    let key: sql::Parameters<'_> = &[(":member_id", &member), (":organization_id", &organization), (":ready", &ready)];
    let known: Option<Timestamp> = w.find(FIND_SINCE, key, |row| row.get(0))?;
    if known.is_some_and(|known| known <= since) {
        return Ok(());
    }
    w.execute(
        ENQUEUE,
        &[
            (":member_id", &member),
            (":organization_id", &organization),
            (":ready", &ready),
            (":since", &since),
            (":now", &w.now()),
        ],
    )
    .map(drop)
}

// ── reads ──

const LIST_READY: &str = "
    with recursive found (ready) as (
        select min(ready) from job_queues where state = 'open'
        union all
        select (select min(q.ready) from job_queues q where q.state = 'open' and q.ready > found.ready)
        from found
        where found.ready is not null
    )
    select ready from found where ready is not null";

/// Lists the distinct sets of ready processors of open queues, with one index seek for each.
pub fn list_ready(r: &Reader<'_>) -> Result<Vec<Ready>> {
    r.all(LIST_READY, &[], |row| row.get(0))
}

const HAS_DUE: &str = "
    select exists (select 1 from job_queues where state = 'later' and since <= :now)
        or exists (select 1 from jobs where state = 'leased' and leased_until <= :now)";

/// Whether a back-off or a lease has ended, so that a queue or a job must be updated.
pub fn has_due(r: &Reader<'_>, now: Timestamp) -> Result<bool> {
    r.one(HAS_DUE, &[(":now", &now)], |row| row.get(0))
}

const NEXT_DUE: &str = "
    select min(at)
    from (select min(since) as at from job_queues where state = 'later'
          union all
          select min(leased_until) from jobs where state = 'leased')";

/// Returns when the next back-off or lease ends.
pub fn next_due(r: &Reader<'_>) -> Result<Option<Timestamp>> {
    r.one(NEXT_DUE, &[], |row| row.get(0))
}

/// The next queue among those with the same set of ready processors.
#[derive(Debug)]
pub struct NextQueue {
    pub queue: Queue,
    pub turn: i64,
    pub since: Timestamp,
    pub is_member_active: bool,
    pub is_organization_active: bool,
}

const FIND_FRONT: &str = "
    select nullif(q.member_id, x''), nullif(q.organization_id, x''), q.ready, q.turn, q.since,
           coalesce(m.status, 'active') = 'active', coalesce(o.status, 'active') = 'active'
    from job_queues q
    left join members m on m.id = q.member_id
    left join organizations o on o.id = q.organization_id
    where q.state = 'open' and q.ready = :ready
    order by q.turn, q.since
    limit 1";

pub fn find_front(r: &Reader<'_>, ready: Ready) -> Result<Option<NextQueue>> {
    r.find(FIND_FRONT, &[(":ready", &ready)], |row| {
        Ok(NextQueue {
            queue: Queue { member: row.get(0)?, organization: row.get(1)?, ready: row.get(2)? },
            turn: row.get(3)?,
            since: row.get(4)?,
            is_member_active: row.get(5)?,
            is_organization_active: row.get(6)?,
        })
    })
}

const LIST_FIRST: &str = "
    select video_number, run_at
    from jobs
    where state = 'queued' and member_id is :member_id and organization_id is :organization_id and ready = :ready
    order by run_at, video_number
    limit 2";

/// Returns the first two jobs of a queue, as (video number, due time).
pub fn list_first(r: &Reader<'_>, queue: Queue) -> Result<Vec<(i64, Timestamp)>> {
    let Queue { member, organization, ready } = queue;
    r.all(LIST_FIRST, &[(":member_id", &member), (":organization_id", &organization), (":ready", &ready)], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

// ── writes ──

const LEASE: &str = "
    update jobs
    set state = 'leased', leased_by = :leased_by, lease_id = :lease_id, leased_at = :now, lease_s = :lease_s,
        leased_until = :leased_until, processors = :processors, updated_at = :now
    where video_number = :video and state = 'queued'
    returning id";

/// Leases a job to a worker.
pub fn lease(w: &Writer<'_>, video: i64, lease: LeaseId, request: &ClaimRequest) -> Result<JobId> {
    let lease_s = i64::try_from(request.lease_s).unwrap_or(i64::MAX);
    w.one(
        LEASE,
        &[
            (":leased_by", &request.worker),
            (":lease_id", &lease),
            (":now", &w.now()),
            (":lease_s", &lease_s),
            (":leased_until", &w.now().plus_ms(lease_s.saturating_mul(1_000))),
            (":processors", &request.processors.as_ref().map(sql::to_json_text).transpose()?),
            (":video", &video),
        ],
        |row| row.get(0),
    )
}

const DELETE_QUEUE: &str = "
    delete from job_queues
    where member_id = coalesce(:member_id, x'') and organization_id = coalesce(:organization_id, x'')
      and ready = :ready";
const SET_QUEUE: &str = "
    update job_queues
    set state = iif(:since > :now, 'later', 'open'), since = :since
    where member_id = coalesce(:member_id, x'') and organization_id = coalesce(:organization_id, x'')
      and ready = :ready";

/// Deletes a queue if `since` is `None`, otherwise sets when its next job is due.
pub fn set_next_due(w: &Writer<'_>, queue: Queue, since: Option<Timestamp>) -> Result<()> {
    let Queue { member, organization, ready } = queue;
    match since {
        None => {
            w.execute(DELETE_QUEUE, &[(":member_id", &member), (":organization_id", &organization), (":ready", &ready)])
        }
        Some(since) => w.execute(
            SET_QUEUE,
            &[
                (":since", &since),
                (":now", &w.now()),
                (":member_id", &member),
                (":organization_id", &organization),
                (":ready", &ready),
            ],
        ),
    }
    .map(drop)
}

const SET_TURN: &str = "
    update job_queues
    set turn = :turn
    where member_id = coalesce(:member_id, x'')";

/// Sets the turn of all queues of a member, after it got a job.
pub fn set_turn(w: &Writer<'_>, member: Option<MemberId>, turn: i64) -> Result<()> {
    w.execute(SET_TURN, &[(":turn", &turn), (":member_id", &member)]).map(drop)
}

const SHUT: &str = "
    update job_queues
    set state = :state
    where member_id = coalesce(:member_id, x'') and organization_id = coalesce(:organization_id, x'')
      and ready = :ready";

/// Marks a queue as `held` (member not active) or `closed` (organization not active).
pub fn set_state(w: &Writer<'_>, queue: Queue, state: &'static str) -> Result<()> {
    let Queue { member, organization, ready } = queue;
    w.execute(
        SHUT,
        &[(":state", &state), (":member_id", &member), (":organization_id", &organization), (":ready", &ready)],
    )
    .map(drop)
}

const OPEN_HELD: &str = "
    update job_queues
    set state = 'open'
    where member_id = :member_id and state = 'held'";

pub fn reopen_held(w: &Writer<'_>, member: MemberId) -> Result<()> {
    w.execute(OPEN_HELD, &[(":member_id", &member)]).map(drop)
}

const OPEN_CLOSED: &str = "
    update job_queues
    set state = 'open'
    where (member_id, organization_id, ready) in (
        select member_id, organization_id, ready
        from job_queues
        where state = 'closed' and organization_id = :organization_id
        limit :most)";

/// Reopens closed queues of an organization; returns how many.
pub fn reopen_closed(w: &Writer<'_>, organization: OrganizationId, most: u64) -> Result<usize> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    w.execute(OPEN_CLOSED, &[(":organization_id", &organization), (":most", &most)])
}

const LIST_WRONGLY_CLOSED: &str = "
    with recursive found (id) as (
        select min(organization_id) from job_queues where state = 'closed'
        union all
        select (select min(q.organization_id) from job_queues q where q.state = 'closed' and q.organization_id > found.id)
        from found
        where found.id is not null
    )
    select found.id
    from found
    where found.id is not null
      and exists (select 1 from organizations o where o.id = found.id and o.status = 'active')";

/// Lists active organizations that still have closed queues.
pub fn list_stale_closed(r: &Reader<'_>) -> Result<Vec<OrganizationId>> {
    r.all(LIST_WRONGLY_CLOSED, &[], |row| row.get(0))
}

const OPEN_DUE: &str = "
    update job_queues
    set state = 'open'
    where (member_id, organization_id, ready) in (
        select member_id, organization_id, ready
        from job_queues
        where state = 'later' and since <= :now
        order by since
        limit :most)";

/// Opens queues whose back-off has ended.
pub fn open_due(w: &Writer<'_>, most: u64) -> Result<()> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    w.execute(OPEN_DUE, &[(":now", &w.now()), (":most", &most)]).map(drop)
}
