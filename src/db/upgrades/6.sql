-- ── claims of jobs ──

alter table jobs add column ready integer not null default 0;
update jobs
set ready = (select coalesce(sum(case s.value ->> 'processor'
                                 when 'asr' then 1 when 'cut' then 2 when 'yolo' then 4
                                 when 'ocr' then 8 when 'face' then 16 when 'pose' then 32 else 0 end), 0)
             from json_each(jobs.steps) s
             where s.value ->> 'state' = 'ready')
where state <> 'done';
drop index jobs_queued;
create index jobs_queued on jobs (member_id, organization_id, ready, run_at) where state = 'queued';

-- Which members have queued jobs, one row for each set of ready processors in each organization. A claim looks for its
-- job here: there are as many rows as members with work, not as many as jobs. A row may outlive its last job, until a
-- claim finds that; a queued job never lacks its row.
create table job_queues (
    -- Both as the jobs have them; empty for none.
    member_id blob not null,
    organization_id blob not null,
    ready integer not null,
    -- `later`: nothing is due before `since`. `held`: the member is not active. `closed`: the organization is not active.
    state text not null check (state in ('open', 'later', 'held', 'closed')),
    -- When the member last got a job: milliseconds × 1 000, plus its rank among those that were given at once.
    turn integer not null,
    -- No job of it is due before this.
    since integer not null,
    primary key (member_id, organization_id, ready)
) strict, without rowid;
create index job_queues_open on job_queues (ready, turn, since) where state = 'open';
create index job_queues_open_of_organization on job_queues (organization_id, ready, turn, since) where state = 'open';
create index job_queues_later on job_queues (since) where state = 'later';
create index job_queues_closed on job_queues (organization_id) where state = 'closed';
insert into job_queues (member_id, organization_id, ready, state, turn, since)
select coalesce(j.member_id, x''), coalesce(j.organization_id, x''), j.ready, 'open',
       coalesce((select max(l.leased_at) from jobs l where l.member_id is j.member_id and l.leased_at is not null), 0)
           * 1000,
       min(j.run_at)
from jobs j
where j.state = 'queued'
group by j.member_id, j.organization_id, j.ready;
