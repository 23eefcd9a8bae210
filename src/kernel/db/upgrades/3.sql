-- Uploaded components, each once, by what they are.
create table plugin_components (
    sha256 blob primary key check (length(sha256) = 32),
    component blob not null,
    created_at integer not null
) strict;

create table plugins (
    id blob primary key check (length(id) = 16),
    organization_id blob not null references organizations (id),
    name text not null,
    -- JSON of what decides, and of what is only watched: version, may_grant, filter, deadline_ms, since; null for none.
    enforced text,
    shadow text,
    -- JSON array of what was enforced before, the latest last.
    history text not null default '[]',
    -- The number of the latest version that there ever was: none is used twice, though versions can be deleted.
    versions_made integer not null default 0,
    -- Grows with each edit: the ETag.
    version integer not null default 1,
    created_at integer not null,
    updated_at integer not null
) strict;
create unique index plugins_organization_id_name on plugins (organization_id, name);

-- What was uploaded under a name; rows never change, but for the quarantine.
create table plugin_versions (
    plugin_id blob not null references plugins (id),
    version integer not null check (version >= 1),
    sha256 blob not null references plugin_components (sha256),
    -- JSON arrays of strings.
    exports text not null,
    imports text not null,
    -- 1 when it came in under the limits for big runtimes.
    is_large integer not null check (is_large in (0, 1)),
    -- 1 when the vectors it brought along passed, or it brought none.
    is_tested integer not null check (is_tested in (0, 1)),
    -- JSON of what the tests at its upload found.
    report text not null,
    -- Since when it is denied unasked, because it failed too often.
    quarantined_at integer,
    -- Kind and name of who uploaded it, as in the audit.
    uploaded_by text not null,
    created_at integer not null,
    primary key (plugin_id, version)
) strict, without rowid;
create index plugin_versions_sha256 on plugin_versions (sha256);
