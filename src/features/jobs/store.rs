//! SQL of jobs.

use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};

use crate::features::jobs::queue::{Queue, Ready, ShutState};
use crate::features::jobs::{ClaimRequest, Filter, Job, JobState, Processor};
use crate::kernel::db::buckets::Buckets;
use crate::kernel::db::sql::{self, Parameters};
use crate::kernel::db::{List, ListPage, PageRequest, Reader, Writer};
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::ids::{JobId, LeaseId, MemberId, OrganizationId, Timestamp};

const INSERT_JOB: &str = "
    insert into jobs (id, video_number, member_id, organization_id, kind, state, run_at, steps, ready, created_at,
                      updated_at)
    values (:id, :video, :member_id, :organization_id, 'auto_ingestion', 'queued', :now, :steps, :ready, :now, :now)";

pub fn insert(w: &Writer<'_>, id: JobId, video: i64, queue: Queue, steps: &str) -> Result<()> {
    w.execute(
        INSERT_JOB,
        &[
            (":id", &id),
            (":video", &video),
            (":member_id", &queue.member),
            (":organization_id", &queue.organization),
            (":steps", &steps),
            (":ready", &queue.ready),
            (":now", &w.now()),
        ],
    )
    .map(drop)
}

const DELETE_OF_VIDEO: &str = "
    delete from jobs where video_number = (select number from videos where id = :video_id)";

pub fn delete_of_video(w: &Writer<'_>, video: &str) -> Result<()> {
    w.execute(DELETE_OF_VIDEO, &[(":video_id", &video)]).map(drop)
}

const SET_OWNER: &str = "
    update jobs
    set member_id = :member_id, organization_id = :organization_id
    where video_number = (select number from videos where id = :video_id)
    returning state = 'queued', ready, run_at";

/// Returns the ready processors and the due time of the job, if it is queued.
pub fn set_owner(
    w: &Writer<'_>,
    video: &str,
    member: Option<MemberId>,
    organization: Option<OrganizationId>,
) -> Result<Option<(Ready, Timestamp)>> {
    let moved = w.find(
        SET_OWNER,
        &[(":member_id", &member), (":organization_id", &organization), (":video_id", &video)],
        |row| Ok((row.get::<_, bool>(0)?, (row.get(1)?, row.get(2)?))),
    )?;
    Ok(moved.and_then(|(is_queued, job)| is_queued.then_some(job)))
}

const FIND_JOB: &str = "
    select j.id, v.id, v.path, j.member_id, j.organization_id, j.kind,
           case when j.state = 'queued'
                     and (coalesce(m.status, 'active') <> 'active' or coalesce(o.status, 'active') <> 'active')
                then 'held' else j.state end,
           j.attempts, j.run_at, j.leased_by, j.lease_id, coalesce(j.lease_s, 0), j.leased_until, j.processors,
           j.last_error, j.steps, j.created_at, j.updated_at
    from jobs j
    join videos v on v.number = j.video_number
    left join members m on m.id = j.member_id
    left join organizations o on o.id = j.organization_id
    where j.id = :id";

pub fn find(r: &Reader<'_>, id: JobId) -> Result<Option<Job>> {
    r.find(FIND_JOB, &[(":id", &id)], job_of)
}

pub fn get(r: &Reader<'_>, id: JobId) -> Result<Job> {
    find(r, id)?.ok_or_else(|| ErrorCode::JobNotFound.into())
}

/// A queued job is reported as held while its member or its organization is not active.
const LIST_JOBS: List = List {
    name: "jobs",
    columns: "j.id, v.id, v.path, j.member_id, j.organization_id, j.kind,
              case when j.state = 'queued'
                        and (coalesce(m.status, 'active') <> 'active' or coalesce(o.status, 'active') <> 'active')
                   then 'held' else j.state end,
              j.attempts, j.run_at, j.leased_by, j.lease_id, coalesce(j.lease_s, 0), j.leased_until, j.processors,
              j.last_error, j.steps, j.created_at, j.updated_at",
    from: "jobs j
           left join members m on m.id = j.member_id
           left join organizations o on o.id = j.organization_id",
    joins: "join videos v on v.number = j.video_number",
    conditions: &[
        "j.video_number = (select number from videos where id = :video_id)",
        "j.member_id = :member_id",
        "+j.member_id = :owner",
        "j.organization_id = :organization_id",
        "+j.organization_id = :within",
        "j.state = 'queued' and :is_queued",
        "j.state = 'leased' and :is_leased",
        "j.state = 'dead' and :is_dead",
        "+j.state = :its_state",
        "(coalesce(m.status, 'active') <> 'active' or coalesce(o.status, 'active') <> 'active') = :is_held",
        "exists (select 1 from json_each(j.steps) s
                 where s.value ->> 'processor' = :processor and s.value ->> 'state' not in ('completed', 'skipped'))",
    ],
    order: &["j.id desc"],
    costly: &[":owner", ":within", ":its_state", ":is_held", ":processor"],
    walked: &[":owner", ":within", ":is_held", ":processor"],
    kept: &[],
};

/// Lists jobs, newest first.
pub fn list(r: &Reader<'_>, filter: &Filter, window: &PageRequest) -> Result<ListPage<Job>> {
    let Filter { organization, member, state, video, processor } = filter;
    let stored = state.map(|state| if state == JobState::Held { JobState::Queued } else { state });
    let is_held = state.and_then(|state| (stored == Some(JobState::Queued)).then_some(state == JobState::Held));
    // The most selective filter uses the index: video, then member, then organization, then state.
    let (of_video, of_member) = (video.is_some(), member.is_some());
    let of_owner = of_video || of_member || organization.is_some();
    let is = |state: JobState| (!of_owner && stored == Some(state)).then_some(true);
    let is_common = stored == Some(JobState::Done);
    let parameters: Parameters<'_> = &[
        (":video_id", video),
        (":member_id", &member.filter(|_| !of_video)),
        (":owner", &member.filter(|_| of_video)),
        (":organization_id", &organization.filter(|_| !of_video && !of_member)),
        (":within", &organization.filter(|_| of_video || of_member)),
        (":is_queued", &is(JobState::Queued)),
        (":is_leased", &is(JobState::Leased)),
        (":is_dead", &is(JobState::Dead)),
        (":its_state", &stored.filter(|_| of_owner || is_common).map(JobState::as_str)),
        (":is_held", &is_held),
        (":processor", &processor.map(Processor::as_str)),
    ];
    r.page(&LIST_JOBS, parameters, window, job_of)
}

const COUNT_JOBS: &str = "
    select sum(iif(coalesce(o.status, 'active') = 'active', c.queued - c.held, 0)),
           sum(iif(coalesce(o.status, 'active') = 'active', c.held, c.queued)),
           sum(c.leased), sum(c.done), sum(c.dead)
    from job_counts c
    left join organizations o on o.id = c.organization_id";
const COUNT_JOBS_IN: &str = "
    select iif(coalesce(o.status, 'active') = 'active', c.queued - c.held, 0),
           iif(coalesce(o.status, 'active') = 'active', c.held, c.queued), c.leased, c.done, c.dead
    from job_counts c
    left join organizations o on o.id = c.organization_id
    where c.organization_id = :owner";
const COUNT_JOBS_OF: &str = "
    select sum(j.state = 'queued' and not j.is_held), sum(j.state = 'queued' and j.is_held), sum(j.state = 'leased'),
           sum(j.state = 'done'), sum(j.state = 'dead')
    from (select j.state,
                 coalesce(m.status, 'active') <> 'active' or coalesce(o.status, 'active') <> 'active' as is_held
          from jobs j
          left join members m on m.id = j.member_id
          left join organizations o on o.id = j.organization_id
          where j.member_id = :owner) j";

/// Counts the jobs of a member, an organization or the site, as [queued, held, leased, done, dead].
pub fn count(r: &Reader<'_>, filter: &Filter) -> Result<[u64; 5]> {
    let (statement, parameters): (&str, Parameters<'_>) = match (&filter.member, &filter.organization) {
        (Some(member), _) => (COUNT_JOBS_OF, &[(":owner", member)]),
        (None, Some(organization)) => (COUNT_JOBS_IN, &[(":owner", organization)]),
        (None, None) => (COUNT_JOBS, &[]),
    };
    let counts = r.find(statement, parameters, |row| {
        let number = |column| row.get::<_, Option<i64>>(column).map(|sum| sum.unwrap_or_default().unsigned_abs());
        Ok([number(0)?, number(1)?, number(2)?, number(3)?, number(4)?])
    })?;
    Ok(counts.unwrap_or_default())
}

// Ids are in order of time, and indexed. They are made a little before the time that the row gets.
const COUNT_CREATED: &str = "
    select (created_at - :from) / :step_ms, count(*)
    from jobs
    where id >= :first and id < :last and created_at >= :from and created_at < :to
    group by 1";
const COUNT_CREATED_IN: &str = "
    select (created_at - :from) / :step_ms, count(*)
    from jobs
    where organization_id = :organization_id and id >= :first and id < :last and created_at >= :from
      and created_at < :to
    group by 1";

/// Counts the present jobs by the bucket in which they were created, as (bucket, number).
pub fn count_created(
    r: &Reader<'_>,
    organization: Option<OrganizationId>,
    buckets: &Buckets,
) -> Result<Vec<(i64, u64)>> {
    const MARGIN_MS: i64 = 3_600_000;
    let to = buckets.to();
    let (first, last) = (JobId::first_of(buckets.from.plus_ms(-MARGIN_MS)), JobId::first_of(to.plus_ms(MARGIN_MS)));
    let mut parameters: Vec<(&str, &dyn rusqlite::ToSql)> = vec![
        (":from", &buckets.from),
        (":to", &to),
        (":step_ms", &buckets.step_ms),
        (":first", &first),
        (":last", &last),
    ];
    if let Some(organization) = &organization {
        parameters.push((":organization_id", organization));
    }
    let statement = if organization.is_some() { COUNT_CREATED_IN } else { COUNT_CREATED };
    r.all(statement, &parameters, |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))
}

impl FromSql for JobState {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

fn job_of(row: &Row<'_>) -> rusqlite::Result<Job> {
    Ok(Job {
        id: row.get(0)?,
        video: row.get(1)?,
        path: row.get(2)?,
        member: row.get(3)?,
        organization: row.get(4)?,
        kind: row.get(5)?,
        state: row.get(6)?,
        attempts: row.get(7)?,
        run_at: row.get(8)?,
        leased_by: row.get(9)?,
        lease: row.get(10)?,
        lease_s: row.get(11)?,
        leased_until: row.get(12)?,
        processors: sql::optional_json(row, 13)?,
        last_error: row.get(14)?,
        steps: sql::json(row, 15)?,
        created_at: row.get(16)?,
        updated_at: row.get(17)?,
    })
}

const UPDATE_JOB: &str = "
    update jobs
    set state = :state, attempts = :attempts, run_at = :run_at, leased_by = :leased_by, lease_id = :lease_id,
        leased_until = :leased_until, processors = :processors, last_error = :last_error, steps = :steps,
        ready = :ready, updated_at = :now
    where id = :id";

pub fn update(w: &Writer<'_>, job: &Job, ready: Ready) -> Result<()> {
    w.execute(
        UPDATE_JOB,
        &[
            (":state", &job.state.as_str()),
            (":attempts", &job.attempts),
            (":run_at", &job.run_at),
            (":leased_by", &job.leased_by),
            (":lease_id", &job.lease),
            (":leased_until", &job.leased_until),
            (":processors", &job.processors.as_ref().map(sql::to_json_text).transpose()?),
            (":last_error", &job.last_error),
            (":steps", &sql::to_json_text(&job.steps)?),
            (":ready", &ready),
            (":now", &w.now()),
            (":id", &job.id),
        ],
    )
    .map(drop)
}

const HAS_EXPIRED: &str = "
    select exists (select 1 from jobs where state = 'leased' and leased_until <= :now)";

pub fn has_expired(r: &Reader<'_>, now: Timestamp) -> Result<bool> {
    r.one(HAS_EXPIRED, &[(":now", &now)], |row| row.get(0))
}

const LIST_EXPIRED: &str = "
    select id
    from jobs indexed by jobs_leased
    where state = 'leased' and leased_until <= :now
    order by leased_until
    limit :most";

pub fn list_expired(w: &Writer<'_>, most: u64) -> Result<Vec<JobId>> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    w.all(LIST_EXPIRED, &[(":now", &w.now()), (":most", &most)], |row| row.get(0))
}

const LIST_DONE: &str = "
    select id
    from jobs
    where state = 'done' and updated_at <= :before
    limit :most";
const DELETE_JOB: &str = "delete from jobs where id = :id";

/// Deletes jobs that were done before this time; returns how many.
pub fn delete_done(w: &Writer<'_>, before: Timestamp, most: usize) -> Result<usize> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let done: Vec<JobId> = w.all(LIST_DONE, &[(":before", &before), (":most", &most)], |row| row.get(0))?;
    done.iter().try_for_each(|id| w.execute(DELETE_JOB, &[(":id", id)]).map(drop))?;
    Ok(done.len())
}

// ── queues ──

// SQL of job queues, which claims select from.
//
// Every statement here finds its rows through an index, regardless of the number of jobs.

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

/// Shuts a queue until its member or its organization is active again.
pub fn shut(w: &Writer<'_>, queue: Queue, state: ShutState) -> Result<()> {
    let Queue { member, organization, ready } = queue;
    w.execute(
        SHUT,
        &[
            (":state", &state.as_str()),
            (":member_id", &member),
            (":organization_id", &organization),
            (":ready", &ready),
        ],
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
