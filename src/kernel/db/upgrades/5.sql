-- A video has at most one job, so the job has the same id, and new jobs are appended at the end of the table.
alter table jobs rename to former_jobs;
create table jobs (
    video_number integer primary key references videos (number),
    id blob not null check (length(id) = 16),
    -- Both as in the row of the video.
    member_id blob,
    organization_id blob,
    kind text not null check (kind in ('auto_ingestion')),
    state text not null check (state in ('queued', 'leased', 'done', 'dead')),
    -- The number of failed attempts.
    attempts integer not null default 0,
    -- The job is not leased before this time.
    run_at integer not null,
    -- The worker of the current or last lease, and the id of that lease; null if there was none, or it expired.
    leased_by text,
    lease_id blob check (length(lease_id) = 16),
    -- When it was last leased.
    leased_at integer,
    -- The duration of the lease without a heartbeat, in seconds, and its end.
    lease_s integer,
    leased_until integer,
    -- JSON array of the processors of the worker; null for all.
    processors text,
    -- JSON array: state, progress and error of each processor.
    steps text not null,
    last_error text,
    created_at integer not null,
    updated_at integer not null
) strict;
insert into jobs (
    video_number, id, member_id, organization_id, kind, state, attempts, run_at, leased_by, lease_id, leased_at, lease_s,
    leased_until, processors, steps, last_error, created_at, updated_at)
select
    video_number, id, member_id, organization_id, kind, state, attempts, run_at, leased_by, lease_id, leased_at, lease_s,
    leased_until, processors, steps, last_error, created_at, updated_at
from former_jobs;
drop table former_jobs;
create unique index jobs_id on jobs (id);
create index jobs_leased_at on jobs (member_id, leased_at) where leased_at is not null;
create index jobs_queued on jobs (member_id, run_at) where state = 'queued';
create index jobs_leased on jobs (leased_until) where state = 'leased';
create index jobs_done on jobs (updated_at) where state = 'done';
