-- Uploaded components, each stored once, by digest.
create table plugin_components (
    sha256 blob primary key check (length(sha256) = 32),
    component blob not null,
    created_at integer not null
) strict;

create table plugins (
    id blob primary key check (length(id) = 16),
    organization_id blob not null references organizations (id),
    name text not null,
    -- The activations in mode enforce and shadow, as JSON: version, may_grant, filter, deadline_ms, since; null for
    -- none.
    enforced text,
    shadow text,
    -- JSON array of previously enforced activations, the latest last.
    history text not null default '[]',
    -- The highest version number so far, so that numbers of deleted versions are not used again.
    versions_made integer not null default 0,
    -- Increases with each edit; the ETag.
    version integer not null default 1,
    created_at integer not null,
    updated_at integer not null
) strict;
create unique index plugins_organization_id_name on plugins (organization_id, name);

-- The uploaded versions of plugins. Rows do not change, except for quarantined_at.
create table plugin_versions (
    plugin_id blob not null references plugins (id),
    version integer not null check (version >= 1),
    sha256 blob not null references plugin_components (sha256),
    -- JSON arrays of strings.
    exports text not null,
    imports text not null,
    -- 1 if it was uploaded under the limits for big runtimes.
    is_large integer not null check (is_large in (0, 1)),
    -- 1 if the test vectors in the component passed, or it has none.
    is_tested integer not null check (is_tested in (0, 1)),
    -- Results of the tests at its upload, as JSON.
    report text not null,
    -- Since when it is quarantined: what it covers is denied without a call, because it failed too often.
    quarantined_at integer,
    -- Kind and name of the uploader, as in the audit log.
    uploaded_by text not null,
    created_at integer not null,
    primary key (plugin_id, version)
) strict, without rowid;
create index plugin_versions_sha256 on plugin_versions (sha256);
