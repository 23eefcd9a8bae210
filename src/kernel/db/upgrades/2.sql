-- From version 1 to 2: sessions, second factors, invitations, API keys. Removes the generation of a member: a token is
-- valid as long as its session, which is checked in every request.

alter table organizations
    add column second_factor_required integer not null default 0 check (second_factor_required in (0, 1));
alter table members drop column generation;

-- Sessions: renewed by refresh tokens, and named in access tokens.
create index members_pending on members (updated_at) where status = 'pending';

create table sessions (
    id blob primary key check (length(id) = 16),
    member_id blob not null references members (id),
    -- The sign-in method: `password`, `oidc …`, `wordpress`, `invitation`.
    method text not null,
    -- 1 if a second factor was verified.
    second_factor integer not null check (second_factor in (0, 1)),
    -- SHA-256 of the current refresh token. The next token is derived from it, so that no token is stored.
    refresh_hash blob not null check (length(refresh_hash) = 32),
    refresh_generation integer not null default 0,
    rotated_at integer not null,
    -- Extended by each refresh, up to `ends_at`.
    expires_at integer not null,
    ends_at integer not null,
    device text not null,
    address text not null,
    created_at integer not null
) strict;
create index sessions_member_id on sessions (member_id);
create index sessions_expires_at on sessions (expires_at);

-- One-time secrets: links, pending sign-ins, codes, and digests of consumed ones.
create table one_time_tokens (
    hash blob primary key check (length(hash) = 32),
    purpose text not null check (purpose in ('password_reset', 'second_factor', 'email_code', 'used')),
    member_id blob references members (id),
    -- JSON that depends on the purpose.
    data text,
    tries integer not null default 0,
    expires_at integer not null,
    created_at integer not null
) strict, without rowid;
create index one_time_tokens_member_id on one_time_tokens (member_id);
create index one_time_tokens_expires_at on one_time_tokens (expires_at);

create table second_factors (
    member_id blob primary key references members (id),
    -- Needed to compute codes, so it cannot be a hash. The database file is readable by its owner only.
    secret blob not null,
    -- Null until the first code is verified.
    confirmed_at integer,
    -- The time step of the last accepted code, so that no code is accepted twice.
    last_step integer not null default 0,
    created_at integer not null
) strict, without rowid;

-- One-time codes for members who lost their authenticator, as SHA-256.
create table recovery_codes (
    member_id blob not null references members (id),
    hash blob not null check (length(hash) = 32),
    primary key (member_id, hash)
) strict, without rowid;

create table invitations (
    id blob primary key check (length(id) = 16),
    hash blob not null check (length(hash) = 32),
    organization_id blob not null references organizations (id),
    -- Null for no role.
    role_id blob references roles (id),
    email text,
    expires_at integer not null,
    accepted_at integer,
    -- The member who accepted it.
    member_id blob references members (id),
    created_at integer not null
) strict;
create unique index invitations_hash on invitations (hash);
create index invitations_organization_id on invitations (organization_id);
create index invitations_role_id on invitations (role_id);
create index invitations_member_id on invitations (member_id);
create index invitations_expires_at on invitations (expires_at);

-- API keys of members and services.
create table api_keys (
    id blob primary key check (length(id) = 16),
    type text not null check (type in ('msys', 'muser', 'msvc', 'mint', 'memg')),
    name text not null,
    -- The owner: exactly one of the two.
    member_id blob references members (id),
    service_name text,
    -- SHA-256 of the whole key.
    hash blob not null check (length(hash) = 32),
    -- 1 if it was imported from another system, so that it is found by its hash and not by its id.
    is_imported integer not null default 0 check (is_imported in (0, 1)),
    -- The key before the last rotation, accepted until previous_expires_at.
    previous_hash blob,
    previous_expires_at integer,
    -- JSON array of strings.
    scopes text not null,
    expires_at integer not null,
    -- When the notice of its expiry was sent.
    notified_at integer,
    -- When an emergency key was used. It works only once.
    spent_at integer,
    last_used_at integer,
    last_used_address text,
    version integer not null default 1,
    created_at integer not null,
    updated_at integer not null,
    check ((member_id is null) <> (service_name is null))
) strict;
create unique index api_keys_hash on api_keys (hash);
create index api_keys_member_id on api_keys (member_id);
create index api_keys_expires_at on api_keys (expires_at);
