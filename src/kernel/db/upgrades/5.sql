-- A video has one job, so that its number is the job's too: a new one goes to the end of the table.
alter table jobs rename to former_jobs;
create table jobs (
    video_number integer primary key references videos (number),
    id blob not null check (length(id) = 16),
    -- Both as its video has them.
    member_id blob,
    organization_id blob,
    kind text not null check (kind in ('auto_ingestion')),
    state text not null check (state in ('queued', 'leased', 'done', 'dead')),
    -- Those that failed.
    attempts integer not null default 0,
    -- Not before this.
    run_at integer not null,
    -- Who has it, or had it last, and under which lease; null for nobody, or one whose lease ran out.
    leased_by text,
    lease_id blob check (length(lease_id) = 16),
    -- When it was last given to a worker.
    leased_at integer,
    -- How long without a word from the worker, in seconds, and so until when.
    lease_s integer,
    leased_until integer,
    -- JSON array of what the worker does of it; null for all.
    processors text,
    -- JSON array: of each processor its state, its progress and its error.
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
