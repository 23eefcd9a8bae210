-- Deferred grants get a creator. The creators of existing ones are not known, so open links are withdrawn; keys of
-- services keep working until they are rotated.
alter table invitations add column maker text;
create index invitations_open on invitations (maker) where accepted_at is null;
delete from invitations where accepted_at is null;
alter table one_time_tokens add column maker text;
create index one_time_tokens_maker on one_time_tokens (maker) where maker is not null;
delete from one_time_tokens where purpose = 'password_reset';
alter table api_keys add column maker text;
update api_keys set maker = 'cli';
alter table events add column maker text;
-- Who set a username was not recorded before, so no existing username is used as the name of a folder until the site
-- confirms it. Members with an SFTPGo username have their folder by that name.
alter table members add column username_by_site integer not null default 0 check (username_by_site in (0, 1));
-- Secrets that must be read back are encrypted: the server's key is longer than before, and the site has the id of the
-- encryption key. The program encrypts the plaintext values right after this upgrade, because SQL has no access to the key.
alter table site rename to former_site;
create table site (
    -- Exactly one row.
    only integer primary key check (only = 1),
    -- The version of the policy. Increases with each change that affects decisions, never decreases.
    epoch integer not null check (epoch >= 1),
    created_at integer not null,
    -- Random key for digests that must not reveal their input. Encrypted.
    server_key blob not null,
    -- SHA-256 of the token of the pending set-up link; null if there is none.
    setup_hash blob,
    setup_expires_at integer,
    -- The number of videos, because counting them reads all rows.
    videos integer not null default 0 check (videos >= 0),
    -- Id of the key in the key file that encrypts all secrets here; null while they are not encrypted.
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

-- Members with queued jobs: one row for each member, organization and set of ready processors. A claim searches here,
-- because there are as many rows as members with work, not as jobs. A row can outlive its last job until a claim finds
-- that. Every queued job has its row.
create table job_queues (
    -- Both as in the jobs; empty for none.
    member_id blob not null,
    organization_id blob not null,
    ready integer not null,
    -- `later`: nothing is due before `since`. `held`: the member is not active. `closed`: the organization is not active.
    state text not null check (state in ('open', 'later', 'held', 'closed')),
    -- When a job of the member was last leased: milliseconds × 1,000, plus its rank among jobs leased at the same time.
    turn integer not null,
    -- No job of this row is due before this time.
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

-- ── kinds of password hashes ──

-- The kinds in use are queried at each start and periodically: with an index instead of a scan of all members.
alter table members add column hash_kind text generated always as (
        case
            when substr(password_hash, 1, 2) = '$2' then substr(password_hash, 1, 7)
            when substr(password_hash, 1, 5) = '$wp$2' then substr(password_hash, 1, 10)
            when substr(password_hash, 1, 16) = 'bcrypt_sha256$$2' then substr(password_hash, 1, 21)
            when substr(password_hash, 1, 3) in ('$P$', '$H$') then substr(password_hash, 1, 4)
            when substr(password_hash, 1, 14) = 'pbkdf2_sha256$'
            then substr(password_hash, 1, 14 + instr(substr(password_hash, 15), '$'))
            when substr(password_hash, 2, 9) in ('5$rounds=', '6$rounds=')
            then substr(password_hash, 1, 10 + instr(substr(password_hash, 11), '$'))
            when substr(password_hash, 1, 3) in ('$5$', '$6$') then substr(password_hash, 1, 3)
            else substr(password_hash, 1, instr(password_hash, ',p=')
                 + instr(substr(password_hash, instr(password_hash, ',p=')), '$') - 1)
        end) virtual;
create index members_hash_kind on members (hash_kind) where hash_kind is not null;

-- ── what the scheduler purges ──

-- Accepted invitations are kept, and excluded from the search for expired ones.
drop index invitations_expires_at;
create index invitations_expires_at on invitations (expires_at) where accepted_at is null;

-- ── lists ──

create index members_is_active on members ((status = 'active'), id, status) where status <> 'deleted';
create index members_deleted on members (id) where status = 'deleted';
create index audit_at on audit (at);
create index audit_organization_id on audit (organization_id, at);
create index audit_actor on audit (actor, at);
create index audit_target on audit (substr(target, instr(target, ' ') + 1), at);
create index api_clients_created_at on api_clients (created_at, client_key);
drop index invitations_organization_id;
create index invitations_organization_id on invitations (organization_id, id);
drop index api_keys_member_id;
create index api_keys_member_id on api_keys (member_id, created_at, id);
drop index quotas_organization_id;
create index quotas_organization_id on quotas (organization_id, used desc, member_id);
create index quotas_used on quotas (used desc, member_id) where used > 0;
create index organization_quotas_used on organization_quotas (used desc) where used > 0;
create index jobs_member_id on jobs (member_id, id);
create index jobs_organization_id on jobs (organization_id, id, state);
create index jobs_state on jobs (state, id) where state = 'queued' or state = 'leased' or state = 'dead';
create index events_organization_id on events (organization_id);
drop index deliveries_event_id;
create index deliveries_event_id on deliveries (event_id desc, target);
create index deliveries_open on deliveries (state, event_id desc, target) where state = 'pending' or state = 'dead';
drop index webhooks_organization_id;
create index webhooks_organization_id on webhooks (organization_id, created_at, id);
create index webhooks_created_at on webhooks (created_at, id);
alter table site add column used integer not null default 0 check (used >= 0);
alter table site add column ownerless_videos integer not null default 0 check (ownerless_videos >= 0);
alter table site add column ownerless_bytes integer not null default 0 check (ownerless_bytes >= 0);
alter table organization_quotas add column videos integer not null default 0 check (videos >= 0);
update site
set used = (select coalesce(sum(used), 0) from quotas),
    ownerless_videos = (select count(*) from videos where member_id is null),
    ownerless_bytes = (select coalesce(sum(size), 0) from videos where member_id is null);
insert into organization_quotas (organization_id, videos, created_at, updated_at)
select v.organization_id, count(*), min(v.created_at), min(v.created_at)
from videos v
where v.organization_id is not null
group by v.organization_id
on conflict (organization_id) do update set videos = excluded.videos;
-- Maintained sums, which would otherwise have to be computed. A sum saturates at the largest integer.
create trigger quotas_inserted after insert on quotas when new.used > 0 begin
    update site set used = min(used + new.used, 9223372036854775807);
end;
create trigger quotas_used_changed after update of used on quotas when new.used <> old.used begin
    update site set used = max(min(used + (new.used - old.used), 9223372036854775807), 0);
end;
create trigger quotas_deleted after delete on quotas when old.used > 0 begin
    update site set used = max(used - old.used, 0);
end;
create trigger videos_ownerless_inserted after insert on videos when new.member_id is null begin
    update site
    set ownerless_videos = ownerless_videos + 1, ownerless_bytes = min(ownerless_bytes + new.size, 9223372036854775807);
end;
create trigger videos_ownerless_deleted after delete on videos when old.member_id is null begin
    update site set ownerless_videos = ownerless_videos - 1, ownerless_bytes = max(ownerless_bytes - old.size, 0);
end;
create trigger videos_owner_changed after update of member_id, size on videos
when old.member_id is null or new.member_id is null begin
    update site
    set ownerless_videos = ownerless_videos + (new.member_id is null) - (old.member_id is null),
        ownerless_bytes = max(min(ownerless_bytes + (iif(new.member_id is null, new.size, 0)
                                                     - iif(old.member_id is null, old.size, 0)),
                                  9223372036854775807), 0);
end;
create trigger videos_organization_inserted after insert on videos when new.organization_id is not null begin
    insert into organization_quotas (organization_id, videos, created_at, updated_at)
    values (new.organization_id, 1, new.created_at, new.created_at)
    on conflict (organization_id) do update set videos = videos + 1;
end;
create trigger videos_organization_deleted after delete on videos when old.organization_id is not null begin
    update organization_quotas set videos = videos - 1 where organization_id = old.organization_id;
end;
create trigger videos_organization_changed after update of organization_id on videos
when old.organization_id is not new.organization_id begin
    update organization_quotas set videos = videos - 1 where organization_id = old.organization_id;
    insert into organization_quotas (organization_id, videos, created_at, updated_at)
    select new.organization_id, 1, new.created_at, new.created_at
    where new.organization_id is not null
    on conflict (organization_id) do update set videos = videos + 1;
end;
-- Keyword search: a number for each member, which is the row id of the trigrams of its names.
create table member_numbers (
    number integer primary key,
    member_id blob not null references members (id)
) strict;
create unique index member_numbers_member_id on member_numbers (member_id);
create virtual table member_words using fts5 (
    words, tokenize = 'trigram', content = '', contentless_delete = 1, detail = none
);
create trigger members_inserted after insert on members begin
    insert into member_numbers (member_id) values (new.id);
    insert into member_words (rowid, words)
    select number, concat_ws(char(10), new.username_folded, new.email_folded, new.display_name)
    from member_numbers
    where member_id = new.id;
end;
create trigger members_renamed after update of username_folded, email_folded, display_name on members
when old.username_folded is not new.username_folded or old.email_folded is not new.email_folded
     or old.display_name is not new.display_name begin
    delete from member_words where rowid = (select number from member_numbers where member_id = new.id);
    insert into member_words (rowid, words)
    select number, concat_ws(char(10), new.username_folded, new.email_folded, new.display_name)
    from member_numbers
    where member_id = new.id;
end;
create trigger members_deleted before delete on members begin
    delete from member_words where rowid = (select number from member_numbers where member_id = old.id);
    delete from member_numbers where member_id = old.id;
end;
insert into member_numbers (member_id) select id from members order by id;
insert into member_words (rowid, words)
select n.number, concat_ws(char(10), m.username_folded, m.email_folded, m.display_name)
from member_numbers n
join members m on m.id = n.member_id;

-- ── documents of the catalog ──

-- The document from which the entries of an application were imported.
create table catalog_documents (
    app text primary key,
    -- The title of an OpenAPI document; null for a catalog in Roster's own format.
    title text
) strict, without rowid;

-- Applications that are limited to these organizations. An application without a row is available to all.
create table catalog_organizations (
    app text not null,
    organization_id blob not null references organizations (id),
    primary key (app, organization_id)
) strict, without rowid;
create index catalog_organizations_organization_id on catalog_organizations (organization_id);

-- ── warnings about ceilings ──

alter table organization_quotas add column warned_percent integer not null default 0;

-- ── creators of API clients, webhooks and API keys of members ──

-- As for the keys of services above, existing rows are kept. The creators of existing ones are not known, so they count as
-- created by the site. Keys of members themselves have no creator.
alter table api_clients add column maker text;
update api_clients set maker = 'cli';
create index api_clients_maker on api_clients (maker);
alter table webhooks add column maker text;
update webhooks set maker = 'cli';
create index webhooks_maker on webhooks (maker);
create index api_keys_maker on api_keys (maker) where maker is not null;

-- ── a separate table for SFTPGo's events and paths ──

-- File events of SFTPGo: ids of handled events (without data), and the last event of each path.
create table sftpgo_history (
    hash blob primary key check (length(hash) = 32),
    member_id blob not null references members (id),
    -- The last event of a path, as JSON.
    data text,
    expires_at integer not null,
    created_at integer not null
) strict, without rowid;
create index sftpgo_history_member_id on sftpgo_history (member_id);
create index sftpgo_history_expires_at on sftpgo_history (expires_at);
insert into sftpgo_history (hash, member_id, data, expires_at, created_at)
select hash, member_id, data, expires_at, created_at
from one_time_tokens
where purpose = 'used' and member_id is not null;
delete from one_time_tokens where purpose = 'used' and member_id is not null;

-- ── lists with filters that match few of many rows ──

create index audit_action on audit (action, at);
drop index quota_reservations_member_id;
create index quota_reservations_member_id on quota_reservations (member_id, state, expires_at, size);
drop index quota_reservations_organization_id;
create index quota_reservations_organization_id on quota_reservations (organization_id, state, expires_at, size);
-- Ids of erased objects. Stored answers that contain one of them are not returned, and are deleted soon.
create table erased_names (
    name text primary key
) strict, without rowid;
-- The number of jobs of each organization by state; maintained by triggers.
create table job_counts (
    -- Empty for none.
    organization_id blob primary key,
    queued integer not null default 0 check (queued >= 0),
    -- The part of `queued` whose member is not active.
    held integer not null default 0 check (held >= 0),
    leased integer not null default 0 check (leased >= 0),
    done integer not null default 0 check (done >= 0),
    dead integer not null default 0 check (dead >= 0)
) strict, without rowid;
create trigger jobs_inserted after insert on jobs begin
    insert into job_counts (organization_id, queued, held, leased, done, dead)
    values (coalesce(new.organization_id, x''), new.state = 'queued',
            new.state = 'queued' and exists (select 1 from members where id = new.member_id and status <> 'active'),
            new.state = 'leased', new.state = 'done', new.state = 'dead')
    on conflict (organization_id) do update
    set queued = queued + excluded.queued, held = held + excluded.held, leased = leased + excluded.leased,
        done = done + excluded.done, dead = dead + excluded.dead;
end;
create trigger jobs_deleted after delete on jobs begin
    update job_counts
    set queued = queued - (old.state = 'queued'),
        held = held - (old.state = 'queued'
                       and exists (select 1 from members where id = old.member_id and status <> 'active')),
        leased = leased - (old.state = 'leased'), done = done - (old.state = 'done'), dead = dead - (old.state = 'dead')
    where organization_id = coalesce(old.organization_id, x'');
end;
create trigger jobs_changed after update of state, member_id, organization_id on jobs
when old.state <> new.state or old.member_id is not new.member_id or old.organization_id is not new.organization_id begin
    update job_counts
    set queued = queued - (old.state = 'queued'),
        held = held - (old.state = 'queued'
                       and exists (select 1 from members where id = old.member_id and status <> 'active')),
        leased = leased - (old.state = 'leased'), done = done - (old.state = 'done'), dead = dead - (old.state = 'dead')
    where organization_id = coalesce(old.organization_id, x'');
    insert into job_counts (organization_id, queued, held, leased, done, dead)
    values (coalesce(new.organization_id, x''), new.state = 'queued',
            new.state = 'queued' and exists (select 1 from members where id = new.member_id and status <> 'active'),
            new.state = 'leased', new.state = 'done', new.state = 'dead')
    on conflict (organization_id) do update
    set queued = queued + excluded.queued, held = held + excluded.held, leased = leased + excluded.leased,
        done = done + excluded.done, dead = dead + excluded.dead;
end;
create trigger members_jobs_held after update of status on members
when (old.status = 'active') <> (new.status = 'active') begin
    update job_counts
    set held = held + iif(new.status = 'active', -1, 1)
                      * (select count(*) from jobs j
                         where j.state = 'queued' and j.member_id = new.id
                           and j.organization_id is nullif(job_counts.organization_id, x''))
    where organization_id in (select coalesce(organization_id, x'') from jobs
                              where state = 'queued' and member_id = new.id);
end;
insert into job_counts (organization_id, queued, held, leased, done, dead)
select coalesce(j.organization_id, x''), sum(j.state = 'queued'),
       sum(j.state = 'queued' and coalesce(m.status, 'active') <> 'active'), sum(j.state = 'leased'),
       sum(j.state = 'done'), sum(j.state = 'dead')
from jobs j
left join members m on m.id = j.member_id
group by 1;

-- ── members that an organization created ──

-- Members that an organization created, or that joined it with a new account. They count for its share of
-- limits.members, also after they have left it. Deleted when the member is erased.
create table made_members (
    organization_id blob not null references organizations (id),
    member_id blob not null references members (id),
    primary key (organization_id, member_id)
) strict, without rowid;
create unique index made_members_member_id on made_members (member_id);

-- ── who set a password ──

-- Not known for existing passwords: they count as set by the member.
alter table members add column password_maker text;
create index members_password_maker on members (password_maker) where password_maker is not null;
