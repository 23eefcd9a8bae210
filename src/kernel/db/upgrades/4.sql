-- Why a member is suspended, in the words of whoever did it; null when it is not, or nobody said.
alter table members add column status_reason text;

-- How many videos there are: counting them would read them all.
alter table site add column videos integer not null default 0 check (videos >= 0);

-- What a member may store, and what it does store. A member without a row has stored nothing yet.
create table quotas (
    member_id blob primary key references members (id),
    -- The organization under whose ceiling it counts; null for none.
    organization_id blob references organizations (id),
    -- Bytes; null takes the organization's default, or the site's.
    size integer check (size >= 0),
    -- The organization that said the size, which holds only under that one; null for the site.
    size_by blob,
    own_size integer generated always as (iif(size_by is null or size_by is organization_id, size, null)) virtual,
    -- Changed only together with a row of the ledger.
    used integer not null default 0 check (used >= 0),
    reserved integer not null default 0 check (reserved >= 0),
    -- The highest per cent that a warning went out for since usage was last below it.
    warned_percent integer not null default 0,
    version integer not null default 1,
    created_at integer not null,
    updated_at integer not null
) strict, without rowid;
create index quotas_organization_id on quotas (organization_id);
create index quotas_full on quotas (member_id) where warned_percent = 100;

create table organization_quotas (
    organization_id blob primary key references organizations (id),
    -- The ceiling above all its members in bytes; null for none.
    size integer check (size >= 0),
    -- What its members have unless they have a size of their own; null takes the site's.
    member_size integer check (member_size >= 0),
    used integer not null default 0 check (used >= 0),
    reserved integer not null default 0 check (reserved >= 0),
    version integer not null default 1,
    created_at integer not null,
    updated_at integer not null
) strict, without rowid;

create table videos (
    -- In the order in which they came. What points here points to this: ids lie anywhere, and each would cost a page.
    number integer primary key,
    -- The first 16 hex digits of SHA-256 of the path.
    id text not null check (length(id) = 16),
    -- `username/path`, relative to the media root.
    path text not null,
    -- Null for one without an owner.
    member_id blob references members (id),
    -- The organization under whose ceiling it counts.
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

-- Every change of a member's usage. Rows are only added: used is their sum.
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
    -- What it became.
    video_id text,
    expires_at integer not null,
    created_at integer not null,
    updated_at integer not null
) strict, without rowid;
create index quota_reservations_member_id on quota_reservations (member_id);
create index quota_reservations_organization_id on quota_reservations (organization_id);
create index quota_reservations_open on quota_reservations (expires_at) where state = 'open';
create index quota_reservations_over on quota_reservations (expires_at) where state <> 'open';

-- Work on a video. Whether it is held follows from its member's status.
create table jobs (
    id blob primary key check (length(id) = 16),
    video_number integer not null references videos (number),
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
) strict, without rowid;
create index jobs_video_number on jobs (video_number);
create index jobs_leased_at on jobs (member_id, leased_at) where leased_at is not null;
create index jobs_queued on jobs (member_id, run_at) where state = 'queued';
create index jobs_leased on jobs (leased_until) where state = 'leased';
create index jobs_done on jobs (updated_at) where state = 'done';

-- What happened, for others: committed with its cause, delivered later.
create table events (
    -- Never given twice: the newest event stays.
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

-- One event for one target. A target gets its events in their order.
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
    -- Null hears of the whole site.
    organization_id blob references organizations (id),
    name text not null,
    url text not null,
    -- JSON array of kinds of events; `*` for all.
    kinds text not null,
    status text not null check (status in ('active', 'inactive')),
    -- The secret is derived from the site's key, the id and this; it grows with each rotation.
    secret_generation integer not null default 1,
    -- Until when the secret before is signed with as well.
    previous_until integer,
    version integer not null default 1,
    created_at integer not null,
    updated_at integer not null
) strict, without rowid;
create index webhooks_organization_id on webhooks (organization_id);
