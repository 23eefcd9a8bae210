//! SQL of jobs.

use rusqlite::Row;

use super::queue::{Queue, Ready};
use super::{Filter, Job};
use crate::kernel::db::sql::{self, Parameters};
use crate::kernel::db::{List, ListPage, PageRequest, Reader, Writer};
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::ids::{JobId, MemberId, OrganizationId, Timestamp};

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
    let stored = state.map(|state| if state == "held" { "queued" } else { state });
    let is_held = state.and_then(|state| (stored == Some("queued")).then_some(state == "held"));
    // The most selective filter uses the index: video, then member, then organization, then state.
    let (of_video, of_member) = (video.is_some(), member.is_some());
    let of_owner = of_video || of_member || organization.is_some();
    let is = |state: &str| (!of_owner && stored == Some(state)).then_some(true);
    let is_common = stored == Some("done");
    let parameters: Parameters<'_> = &[
        (":video_id", video),
        (":member_id", &member.filter(|_| !of_video)),
        (":owner", &member.filter(|_| of_video)),
        (":organization_id", &organization.filter(|_| !of_video && !of_member)),
        (":within", &organization.filter(|_| of_video || of_member)),
        (":is_queued", &is("queued")),
        (":is_leased", &is("leased")),
        (":is_dead", &is("dead")),
        (":its_state", &stored.filter(|_| of_owner || is_common)),
        (":is_held", &is_held),
        (":processor", processor),
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
            (":state", &job.state),
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
