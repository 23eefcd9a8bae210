-- The reason of a suspension, as entered; null if the member is not suspended or no reason was entered.
alter table members add column status_reason text;

-- The number of videos, because counting them reads all rows.
alter table site add column videos integer not null default 0 check (videos >= 0);

-- Quota and usage of members. A member without a row has stored nothing yet.
create table quotas (
    member_id blob primary key references members (id),
    -- The organization whose ceiling applies; null for none.
    organization_id blob references organizations (id),
    -- Quota in bytes; null for the default of the organization or the site.
    size integer check (size >= 0),
    -- The organization that set the size, which applies only while organization_id is the same; null for the site.
    size_by blob,
    own_size integer generated always as (iif(size_by is null or size_by is organization_id, size, null)) virtual,
    -- Changed only together with an inserted row of quota_ledger.
    used integer not null default 0 check (used >= 0),
    reserved integer not null default 0 check (reserved >= 0),
    -- The highest percentage for which a warning was sent since usage was last below it.
    warned_percent integer not null default 0,
    version integer not null default 1,
    created_at integer not null,
    updated_at integer not null
) strict, without rowid;
create index quotas_organization_id on quotas (organization_id);
create index quotas_full on quotas (member_id) where warned_percent = 100;

create table organization_quotas (
    organization_id blob primary key references organizations (id),
    -- The ceiling for all its members together, in bytes; null for none.
    size integer check (size >= 0),
    -- The quota of members without a size of their own; null for the site's default.
    member_size integer check (member_size >= 0),
    used integer not null default 0 check (used >= 0),
    reserved integer not null default 0 check (reserved >= 0),
    version integer not null default 1,
    created_at integer not null,
    updated_at integer not null
) strict, without rowid;

create table videos (
    -- In order of registration. References use this number: ids are random, so each access would read another page.
    number integer primary key,
    -- The first 16 hex digits of SHA-256 of the path.
    id text not null check (length(id) = 16),
    -- `username/path`, relative to the media root.
    path text not null,
    -- Null if it has no owner.
    member_id blob references members (id),
    -- The organization for whose ceiling it counts.
    organization_id blob references organizations (id),
    size integer not null check (size >= 0),
    version integer not null default 1,
    created_at integer not null,
    updated_at integer not null
) strict;
create unique index videos_id on videos (id);
create unique index videos_path on videos (path);
create index videos_member_id on videos (member_id);
create index videos_organization_id on videos (organization_id);

-- Every change of a member's usage. Rows are only inserted; quotas.used is their sum.
create table quota_ledger (
    id integer primary key,
    at integer not null,
    member_id blob not null references members (id),
    organization_id blob,
    video_id text,
    cause text not null check (cause in ('register', 'replace', 'delete', 'transfer', 'claim', 'repair')),
    delta integer not null,
    used_after integer not null,
    request_id text not null
) strict;
create index quota_ledger_member_id on quota_ledger (member_id, id);

create table quota_reservations (
    id blob primary key check (length(id) = 16),
    member_id blob not null references members (id),
    organization_id blob references organizations (id),
    size integer not null check (size > 0),
    state text not null check (state in ('open', 'committed', 'released', 'expired')),
    -- The video for which it was committed.
    video_id text,
    expires_at integer not null,
    created_at integer not null,
    updated_at integer not null
) strict, without rowid;
create index quota_reservations_member_id on quota_reservations (member_id);
create index quota_reservations_organization_id on quota_reservations (organization_id);
create index quota_reservations_open on quota_reservations (expires_at) where state = 'open';
create index quota_reservations_over on quota_reservations (expires_at) where state <> 'open';

-- Jobs on videos. Whether a job is held follows from the status of its member.
create table jobs (
    id blob primary key check (length(id) = 16),
    video_number integer not null references videos (number),
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
) strict, without rowid;
create index jobs_video_number on jobs (video_number);
create index jobs_leased_at on jobs (member_id, leased_at) where leased_at is not null;
create index jobs_queued on jobs (member_id, run_at) where state = 'queued';
create index jobs_leased on jobs (leased_until) where state = 'leased';
create index jobs_done on jobs (updated_at) where state = 'done';

-- The outbox: events, committed with the change that caused them and delivered later.
create table events (
    -- Not reused, because the newest event is never deleted.
    id integer primary key,
    at integer not null,
    kind text not null,
    organization_id blob,
    member_id blob,
    -- JSON without secrets.
    data text not null,
    request_id text not null
) strict;
create index events_refused on events (member_id, at) where kind = 'quota.exceeded';

-- The delivery of one event to one target. A target gets its events in order.
create table deliveries (
    -- `sftpgo <member>`, `mail <member>`, or `webhook <id>`.
    target text not null,
    event_id integer not null references events (id),
    state text not null check (state in ('pending', 'delivered', 'dead')),
    attempts integer not null default 0,
    next_at integer not null,
    last_error text,
    updated_at integer not null,
    primary key (target, event_id)
) strict, without rowid;
create index deliveries_event_id on deliveries (event_id);
create index deliveries_pending on deliveries (target, event_id) where state = 'pending';
create index deliveries_state on deliveries (state, updated_at);

create table webhooks (
    id blob primary key check (length(id) = 16),
    -- Null for a webhook of the whole site.
    organization_id blob references organizations (id),
    name text not null,
    url text not null,
    -- JSON array of event kinds; `*` for all.
    kinds text not null,
    status text not null check (status in ('active', 'inactive')),
    -- The secret is derived from the site's key, the id and this number, which increases with each rotation.
    secret_generation integer not null default 1,
    -- Until when requests are also signed with the previous secret.
    previous_until integer,
    version integer not null default 1,
    created_at integer not null,
    updated_at integer not null
) strict, without rowid;
create index webhooks_organization_id on webhooks (organization_id);
