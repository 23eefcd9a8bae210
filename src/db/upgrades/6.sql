-- Promises: who made them. Of those from before the maker is not known, so that open links are withdrawn; keys of services
-- keep working until they are rotated.
alter table invitations add column maker text;
create index invitations_open on invitations (maker) where accepted_at is null;
delete from invitations where accepted_at is null;
alter table one_time_tokens add column maker text;
create index one_time_tokens_maker on one_time_tokens (maker) where maker is not null;
delete from one_time_tokens where purpose = 'password_reset';
alter table api_keys add column maker text;
update api_keys set maker = 'cli';
alter table events add column maker text;
-- Who set a username was not written down before: none is the name of a folder until the site says that it is. Members with
-- a name at SFTPGo have their folder by that one.
alter table members add column username_by_site integer not null default 0 check (username_by_site in (0, 1));
-- Secrets that must be read back are encrypted: the server's key is longer than before, and the site says with which key.
-- The program encrypts what lies in clear right after this, since the key is not here.
alter table site rename to former_site;
create table site (
    -- Exactly one row.
    only integer primary key check (only = 1),
    -- The version of the site's policy: grows with each change that touches a decision, never goes back.
    epoch integer not null check (epoch >= 1),
    created_at integer not null,
    -- Random; keys digests that must tell nothing of what was digested. Encrypted.
    server_key blob not null,
    -- The pending one-time set-up link, as SHA-256; null when there is none.
    setup_hash blob,
    setup_expires_at integer,
    -- How many videos there are: counting them would read them all.
    videos integer not null default 0 check (videos >= 0),
    -- The key in the key file that all secrets here are encrypted with, by its id; null while they lie in clear.
    encryption_key_id text
) strict;
insert into site (only, epoch, created_at, server_key, setup_hash, setup_expires_at, videos)
select only, epoch, created_at, server_key, setup_hash, setup_expires_at, videos
from former_site;
drop table former_site;
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

-- ── who answers for clients, webhooks and keys of members ──

-- As for the keys of services above: what is there stays. A member's own keys have no maker; whose hand made those that are
-- there is not known, so that they count as the site's.
alter table api_clients add column maker text;
update api_clients set maker = 'cli';
create index api_clients_maker on api_clients (maker);
alter table webhooks add column maker text;
update webhooks set maker = 'cli';
create index webhooks_maker on webhooks (maker);
create index api_keys_maker on api_keys (maker) where maker is not null;
