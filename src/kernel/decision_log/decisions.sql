-- The decision log: a file of its own beside the site's, because it is no part of what must survive. Ids and times as in
-- schema.sql. A file of another version is moved aside, not upgraded: what it knows grows old by itself.

create table decisions (
    -- Grows: what is newer has the larger one.
    id integer primary key,
    at integer not null,
    -- Of the policy that decided.
    epoch integer not null,
    -- Null for a question about the site.
    organization_id blob,
    member_id blob not null,
    kind text not null check (kind in ('route', 'permission', 'grant')),
    -- JSON of the question as an authorizer gets it, without secrets.
    input text not null,
    -- JSON array of the names of facts that are not in `input`.
    left_out text not null,
    -- 1 when plugins are asked about such a question, where some are bound.
    asks_plugins integer not null check (asks_plugins in (0, 1)),
    -- What the policy said without plugins.
    base text not null,
    allow integer not null check (allow in (0, 1)),
    reason text not null,
    -- JSON array of the plugins that were asked: name, version, sha256, mode, outcome, fuel, duration_us, differed.
    plugins text not null,
    -- 1 when a watched plugin would have changed the answer.
    differed integer not null check (differed in (0, 1))
) strict;
create index decisions_organization_id on decisions (organization_id, id);
create index decisions_member_id on decisions (member_id);
create index decisions_at on decisions (at);
