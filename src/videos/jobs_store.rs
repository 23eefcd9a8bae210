//! SQL of jobs and their steps.

use rusqlite::Row;
use rusqlite::types::FromSqlError;

use super::jobs::{Filter, Job, NEEDS, Processor, Step, StepState, Wish};
use crate::db::{Reader, Window, Writer, sql};
use crate::error::{Cause, Result};
use crate::ids::{JobId, LeaseId, MemberId, OrganizationId, Timestamp};

const FIND_UNTOUCHED: &str = "
    select id
    from jobs
    where video_id = :video_id and state = 'queued' and attempts = 0
      and not exists (select 1 from job_steps where job_id = jobs.id and state in ('completed', 'skipped'))";

/// A job of this video that nobody has begun.
pub(super) fn find_untouched(r: &Reader<'_>, video: &str) -> Result<Option<JobId>> {
    r.find(FIND_UNTOUCHED, &[(":video_id", &video)], |row| row.get(0))
}

const INSERT_JOB: &str = "
    insert into jobs (id, video_id, member_id, organization_id, kind, state, run_at, created_at, updated_at)
    values (:id, :video_id, :member_id, :organization_id, 'auto_ingestion', 'queued', :now, :now, :now)";

pub(super) fn insert(
    w: &Writer<'_>,
    id: JobId,
    video: &str,
    member: Option<MemberId>,
    organization: Option<OrganizationId>,
) -> Result<()> {
    w.execute(
        INSERT_JOB,
        &[
            (":id", &id),
            (":video_id", &video),
            (":member_id", &member),
            (":organization_id", &organization),
            (":now", &w.now()),
        ],
    )
    .map(drop)
}

const INSERT_STEP: &str = "
    insert into job_steps (job_id, processor, state, updated_at)
    values (:job_id, :processor, :state, :now)";

pub(super) fn insert_step(w: &Writer<'_>, job: JobId, step: &Step) -> Result<()> {
    let (processor, state) = (step.processor.word(), step.state.word());
    w.execute(INSERT_STEP, &[(":job_id", &job), (":processor", &processor), (":state", &state), (":now", &w.now())])
        .map(drop)
}

const DELETE_STEPS_OF_VIDEO: &str = "
    delete from job_steps where job_id in (select id from jobs where video_id = :video_id)";
const DELETE_OF_VIDEO: &str = "delete from jobs where video_id = :video_id";

pub(super) fn delete_of_video(w: &Writer<'_>, video: &str) -> Result<()> {
    w.execute(DELETE_STEPS_OF_VIDEO, &[(":video_id", &video)])?;
    w.execute(DELETE_OF_VIDEO, &[(":video_id", &video)]).map(drop)
}

const SET_OWNER: &str = "
    update jobs
    set member_id = :member_id, organization_id = :organization_id
    where video_id = :video_id";

pub(super) fn set_owner(
    w: &Writer<'_>,
    video: &str,
    member: Option<MemberId>,
    organization: Option<OrganizationId>,
) -> Result<()> {
    w.execute(SET_OWNER, &[(":member_id", &member), (":organization_id", &organization), (":video_id", &video)])
        .map(drop)
}

const FIND_JOB: &str = "
    select j.id, j.video_id, v.path, j.member_id, j.organization_id, j.kind,
           case when j.state = 'queued'
                     and (coalesce(m.status, 'active') <> 'active' or coalesce(o.status, 'active') <> 'active')
                then 'held' else j.state end,
           j.attempts, j.run_at, j.leased_by, j.lease_id, coalesce(j.lease_s, 0), j.leased_until, j.processors,
           j.last_error, j.created_at, j.updated_at
    from jobs j
    join videos v on v.id = j.video_id
    left join members m on m.id = j.member_id
    left join organizations o on o.id = j.organization_id
    where j.id = :id";

pub(super) fn find(r: &Reader<'_>, id: JobId) -> Result<Option<Job>> {
    let Some(mut job) = r.find(FIND_JOB, &[(":id", &id)], job_of)? else { return Ok(None) };
    job.steps = steps(r, id)?;
    Ok(Some(job))
}

pub(super) fn get(r: &Reader<'_>, id: JobId) -> Result<Job> {
    find(r, id)?.ok_or_else(|| Cause::JobNotFound.into())
}

const LIST_STEPS: &str = "
    select processor, state, progress_percent, error
    from job_steps
    where job_id = :job_id";

fn steps(r: &Reader<'_>, job: JobId) -> Result<Vec<Step>> {
    let mut steps = r.all(LIST_STEPS, &[(":job_id", &job)], |row| {
        Ok(Step {
            processor: Processor::of(row.get_ref(0)?.as_str()?).ok_or(FromSqlError::InvalidType)?,
            state: StepState::of(row.get_ref(1)?.as_str()?).ok_or(FromSqlError::InvalidType)?,
            progress_percent: row.get(2)?,
            error: row.get(3)?,
        })
    })?;
    // In the order in which they are worked on.
    steps.sort_by_key(|step| NEEDS.iter().position(|(processor, _)| *processor == step.processor));
    Ok(steps)
}

const LIST_JOBS: &str = "
    select id, video_id, path, member_id, organization_id, kind, state, attempts, run_at, leased_by, lease_id, lease_s,
           leased_until, processors, last_error, created_at, updated_at
    from (
        select j.id, j.video_id, v.path, j.member_id, j.organization_id, j.kind,
               case when j.state = 'queued'
                         and (coalesce(m.status, 'active') <> 'active' or coalesce(o.status, 'active') <> 'active')
                    then 'held' else j.state end as state,
               j.attempts, j.run_at, j.leased_by, j.lease_id, coalesce(j.lease_s, 0) as lease_s, j.leased_until,
               j.processors, j.last_error, j.created_at, j.updated_at
        from jobs j
        join videos v on v.id = j.video_id
        left join members m on m.id = j.member_id
        left join organizations o on o.id = j.organization_id
        where (:organization_id is null or j.organization_id = :organization_id)
          and (:member_id is null or j.member_id = :member_id)
          and (:video_id is null or j.video_id = :video_id)
          and (:processor is null
               or exists (select 1 from job_steps s
                          where s.job_id = j.id and s.processor = :processor
                            and s.state not in ('completed', 'skipped')))
    )
    where :state is null or state = :state
    order by id desc
    limit :limit offset :offset";
const COUNT_LISTED_JOBS: &str = "
    select count(*)
    from (
        select case when j.state = 'queued'
                         and (coalesce(m.status, 'active') <> 'active' or coalesce(o.status, 'active') <> 'active')
                    then 'held' else j.state end as state
        from jobs j
        left join members m on m.id = j.member_id
        left join organizations o on o.id = j.organization_id
        where (:organization_id is null or j.organization_id = :organization_id)
          and (:member_id is null or j.member_id = :member_id)
          and (:video_id is null or j.video_id = :video_id)
          and (:processor is null
               or exists (select 1 from job_steps s
                          where s.job_id = j.id and s.processor = :processor
                            and s.state not in ('completed', 'skipped')))
    )
    where :state is null or state = :state";

/// The newest first.
pub(super) fn list(r: &Reader<'_>, filter: &Filter, window: Window) -> Result<(Vec<Job>, u64)> {
    let Filter { organization, member, state, video, processor } = filter;
    let (limit, offset) = (window.limit as i64, window.offset as i64);
    let mut jobs = r.all(
        LIST_JOBS,
        &[
            (":organization_id", organization),
            (":member_id", member),
            (":video_id", video),
            (":processor", processor),
            (":state", state),
            (":limit", &limit),
            (":offset", &offset),
        ],
        job_of,
    )?;
    for job in &mut jobs {
        job.steps = steps(r, job.id)?;
    }
    let total = r.one(
        COUNT_LISTED_JOBS,
        &[
            (":organization_id", organization),
            (":member_id", member),
            (":video_id", video),
            (":processor", processor),
            (":state", state),
        ],
        |row| row.get::<_, i64>(0),
    )?;
    Ok((jobs, u64::try_from(total).unwrap_or_default()))
}

const COUNT_JOBS: &str = "
    select case when j.state = 'queued'
                     and (coalesce(m.status, 'active') <> 'active' or coalesce(o.status, 'active') <> 'active')
                then 'held' else j.state end as shown, count(*)
    from jobs j
    left join members m on m.id = j.member_id
    left join organizations o on o.id = j.organization_id
    where (:organization_id is null or j.organization_id = :organization_id)
      and (:member_id is null or j.member_id = :member_id)
    group by shown";

/// How many there are in each state.
pub(super) fn count(r: &Reader<'_>, filter: &Filter) -> Result<Vec<(String, u64)>> {
    r.all(COUNT_JOBS, &[(":organization_id", &filter.organization), (":member_id", &filter.member)], |row| {
        Ok((row.get(0)?, u64::try_from(row.get::<_, i64>(1)?).unwrap_or_default()))
    })
}

fn job_of(row: &Row<'_>) -> rusqlite::Result<Job> {
    let processors: Option<String> = row.get(13)?;
    let words: Option<Vec<String>> = processors.and_then(|text| serde_json::from_str(&text).ok());
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
        processors: words.map(|words| words.iter().filter_map(|word| Processor::of(word)).collect()),
        last_error: row.get(14)?,
        created_at: row.get(15)?,
        updated_at: row.get(16)?,
        steps: Vec::new(),
    })
}

// ── claims ──

/// Who has jobs that can be given out now, in the order of their turns. Steps from owner to owner in the index of what is
/// queued, so that it costs as much as there are owners, not jobs.
const LIST_OWNERS: &str = "
    with recursive queued (id) as (
        select min(member_id) from jobs where state = 'queued'
        union all
        select (select min(j.member_id) from jobs j where j.state = 'queued' and j.member_id > queued.id)
        from queued
        where queued.id is not null
    ), owners (id) as (
        select id from queued where id is not null
        union all
        select null
    )
    select w.id
    from owners w
    left join members m on m.id = w.id
    where coalesce(m.status, 'active') = 'active'
      and exists (
          select 1
          from jobs j
          left join organizations o on o.id = j.organization_id
          where j.state = 'queued' and j.member_id is w.id and j.run_at <= :now
            and coalesce(o.status, 'active') = 'active'
            and (:organization_id is null or j.organization_id = :organization_id)
            and (:processors is null
                 or exists (select 1 from job_steps s
                            where s.job_id = j.id and s.state = 'ready'
                              and s.processor in (select value from json_each(:processors)))))
    order by (select max(leased_at) from jobs where member_id is w.id),
             (select min(run_at) from jobs where state = 'queued' and member_id is w.id)
    limit :most";

pub(super) fn list_owners(w: &Writer<'_>, wish: &Wish) -> Result<Vec<Option<MemberId>>> {
    let most = i64::try_from(wish.count).unwrap_or(i64::MAX);
    w.all(
        LIST_OWNERS,
        &[
            (":now", &w.now()),
            (":organization_id", &wish.organization),
            (":processors", &words(&wish.processors)?),
            (":most", &most),
        ],
        |row| row.get(0),
    )
}

const CLAIM: &str = "
    update jobs
    set state = 'leased', leased_by = :leased_by, lease_id = :lease_id, leased_at = :now, lease_s = :lease_s,
        leased_until = :leased_until, processors = :processors, updated_at = :now
    where state = 'queued'
      and id = (
          select j.id
          from jobs j
          left join organizations o on o.id = j.organization_id
          where j.state = 'queued' and j.member_id is :member_id and j.run_at <= :now
            and coalesce(o.status, 'active') = 'active'
            and (:organization_id is null or j.organization_id = :organization_id)
            and (:processors is null
                 or exists (select 1 from job_steps s
                            where s.job_id = j.id and s.state = 'ready'
                              and s.processor in (select value from json_each(:processors))))
          order by j.run_at, j.id
          limit 1)
    returning id";

/// Gives the first job of an owner to a worker, if there is one.
pub(super) fn claim_one(w: &Writer<'_>, owner: Option<MemberId>, lease: LeaseId, wish: &Wish) -> Result<Option<JobId>> {
    let lease_s = i64::try_from(wish.lease_s).unwrap_or(i64::MAX);
    w.find(
        CLAIM,
        &[
            (":leased_by", &wish.worker),
            (":lease_id", &lease),
            (":now", &w.now()),
            (":lease_s", &lease_s),
            (":leased_until", &w.now().plus_ms(lease_s.saturating_mul(1_000))),
            (":processors", &words(&wish.processors)?),
            (":member_id", &owner),
            (":organization_id", &wish.organization),
        ],
        |row| row.get(0),
    )
}

fn words(processors: &Option<Vec<Processor>>) -> Result<Option<String>> {
    let words = |list: &Vec<Processor>| list.iter().map(|processor| processor.word()).collect::<Vec<_>>();
    processors.as_ref().map(|list| sql::text_of(&words(list))).transpose()
}

const UPDATE_JOB: &str = "
    update jobs
    set state = :state, attempts = :attempts, run_at = :run_at, leased_by = :leased_by, lease_id = :lease_id,
        leased_until = :leased_until, processors = :processors, last_error = :last_error, updated_at = :now
    where id = :id";

pub(super) fn update(w: &Writer<'_>, job: &Job) -> Result<()> {
    w.execute(
        UPDATE_JOB,
        &[
            (":state", &job.state),
            (":attempts", &job.attempts),
            (":run_at", &job.run_at),
            (":leased_by", &job.leased_by),
            (":lease_id", &job.lease),
            (":leased_until", &job.leased_until),
            (":processors", &words(&job.processors)?),
            (":last_error", &job.last_error),
            (":now", &w.now()),
            (":id", &job.id),
        ],
    )
    .map(drop)
}

const UPDATE_STEP: &str = "
    update job_steps
    set state = :state, progress_percent = :progress_percent, error = :error, updated_at = :now
    where job_id = :job_id and processor = :processor
      and (state <> :state or progress_percent <> :progress_percent or error is not :error)";

pub(super) fn update_step(w: &Writer<'_>, job: JobId, step: &Step) -> Result<()> {
    w.execute(
        UPDATE_STEP,
        &[
            (":state", &step.state.word()),
            (":progress_percent", &step.progress_percent),
            (":error", &step.error),
            (":now", &w.now()),
            (":job_id", &job),
            (":processor", &step.processor.word()),
        ],
    )
    .map(drop)
}

const HAS_EXPIRED: &str = "
    select exists (select 1 from jobs where state = 'leased' and leased_until <= :now)";

pub(super) fn has_expired(r: &Reader<'_>, now: Timestamp) -> Result<bool> {
    r.one(HAS_EXPIRED, &[(":now", &now)], |row| row.get(0))
}

const LIST_EXPIRED: &str = "
    select id
    from jobs
    where state = 'leased' and leased_until <= :now
    order by leased_until
    limit :most";

pub(super) fn list_expired(w: &Writer<'_>, most: u64) -> Result<Vec<JobId>> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    w.all(LIST_EXPIRED, &[(":now", &w.now()), (":most", &most)], |row| row.get(0))
}

const LIST_DONE: &str = "
    select id
    from jobs
    where state = 'done' and updated_at <= :before
    limit :most";
const DELETE_STEPS: &str = "delete from job_steps where job_id = :id";
const DELETE_JOB: &str = "delete from jobs where id = :id";

/// Forgets jobs that were done before.
pub(super) fn delete_done(w: &Writer<'_>, before: Timestamp, most: u64) -> Result<()> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let done: Vec<JobId> = w.all(LIST_DONE, &[(":before", &before), (":most", &most)], |row| row.get(0))?;
    done.iter().try_for_each(|id| {
        w.execute(DELETE_STEPS, &[(":id", id)])?;
        w.execute(DELETE_JOB, &[(":id", id)]).map(drop)
    })
}
