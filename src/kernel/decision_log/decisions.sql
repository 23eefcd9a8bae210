-- The decision log: a separate file, because it is not part of the data that must survive. Ids and times as in
-- schema.sql. A file with another version is moved aside, not upgraded, because its rows expire anyway.

create table decisions (
    -- Increases with time.
    id integer primary key,
    at integer not null,
    -- The epoch of the policy that decided.
    epoch integer not null,
    -- Null for a decision about the site.
    organization_id blob,
    member_id blob not null,
    kind text not null check (kind in ('route', 'permission', 'grant')),
    -- JSON of the access request as an authorizer gets it, without secrets.
    input text not null,
    -- JSON array with the names of the facts that were left out of `input`.
    left_out text not null,
    -- 1 if bound plugins are consulted for such a request.
    asks_plugins integer not null check (asks_plugins in (0, 1)),
    -- The reason of the policy without plugins.
    base text not null,
    allow integer not null check (allow in (0, 1)),
    reason text not null,
    -- JSON array of the plugins in the decision: name, version, sha256, mode, outcome, fuel, duration_us, differed.
    plugins text not null,
    -- 1 if a shadow plugin would have changed the decision.
    differed integer not null check (differed in (0, 1))
) strict;
create index decisions_organization_id on decisions (organization_id, id);
create index decisions_member_id on decisions (member_id);
create index decisions_at on decisions (at);
