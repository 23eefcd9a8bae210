-- The newest schema. A new data directory is created from this file; older ones are brought here step by step
-- (src/kernel/db/schema.rs), and a test proves that both ways end the same.
--
-- Ids are 16-byte UUIDv7. Times are integer milliseconds since 1970. Text that must be unique without regard to
-- case has a folded twin column that the program fills, because SQLite folds ASCII only.

create table site (
    -- Exactly one row.
    only integer primary key check (only = 1),
    -- The version of the site's policy: grows with each change that touches a decision, never goes back.
    epoch integer not null check (epoch >= 1),
    created_at integer not null,
    -- Random; keys digests that must tell nothing of what was digested.
    server_key blob not null check (length(server_key) = 32),
    -- The pending one-time set-up link, as SHA-256; null when there is none.
    setup_hash blob,
    setup_expires_at integer
) strict;

create table signing_keys (
    -- `kid` of the tokens' header.
    id text primary key,
    -- PKCS #8 of the Ed25519 key. The database file is readable by its owner only.
    private_key blob not null,
    public_key blob not null,
    created_at integer not null
) strict;

create table organizations (
    id blob primary key check (length(id) = 16),
    org_code text not null,
    name text not null,
    tax_id text,
    status text not null check (status in ('active', 'inactive')),
    -- Grows with each edit: the ETag.
    version integer not null default 1,
    created_at integer not null,
    updated_at integer not null
) strict;
create unique index organizations_org_code on organizations (org_code);

create table members (
    id blob primary key check (length(id) = 16),
    username text,
    username_folded text,
    email text,
    email_folded text,
    display_name text,
    status text not null check (status in ('pending', 'active', 'suspended', 'deleted')),
    -- PHC string (argon2id), or null for a member who signs in elsewhere.
    password_hash text,
    -- Grows when everything that was issued to the member must end: a new password, a suspension, an erasure.
    generation integer not null default 1,
    version integer not null default 1,
    created_at integer not null,
    updated_at integer not null
) strict;
create unique index members_username_folded on members (username_folded) where username_folded is not null;
create unique index members_email_folded on members (email_folded) where email_folded is not null;

-- The external names of a member.
create table identities (
    provider text not null,
    subject text not null,
    member_id blob not null references members (id),
    -- The provider's own account id where it differs from the subject (authentik_user_id).
    account_id text,
    created_at integer not null,
    primary key (provider, subject)
) strict, without rowid;
create index identities_member_id on identities (member_id);

create table memberships (
    organization_id blob not null references organizations (id),
    member_id blob not null references members (id),
    created_at integer not null,
    primary key (organization_id, member_id)
) strict, without rowid;
create index memberships_member_id on memberships (member_id);

-- The catalog: one tree of permissions for the site, each belonging to one application.
create table permissions (
    -- The bit that stands for the permission in memory; never reused.
    slot integer primary key autoincrement,
    name text not null,
    app text not null,
    -- Null at the top of the tree.
    parent_slot integer references permissions (slot),
    -- Methods joined with `|`, or `*`; null for a category.
    http_methods text,
    http_path text,
    status text not null check (status in ('open', 'close')),
    type text not null check (type in ('backend_user', 'frontend_user')),
    -- 1 when the application's last import did not name it any more: kept for the roles that tick it, but it
    -- answers nothing until an import names it again.
    orphaned integer not null default 0 check (orphaned in (0, 1)),
    -- The order of the last import.
    position integer not null,
    created_at integer not null,
    updated_at integer not null,
    check ((http_methods is null) = (http_path is null))
) strict;
create unique index permissions_name on permissions (name);
create index permissions_app on permissions (app);
create index permissions_parent_slot on permissions (parent_slot);

create table roles (
    id blob primary key check (length(id) = 16),
    organization_id blob not null references organizations (id),
    key text not null,
    display_name text not null,
    -- Null when the program itself made it.
    creator_id blob references members (id),
    status text not null check (status in ('open', 'close')),
    is_system integer not null check (is_system in (0, 1)),
    -- What a role holds beside its ticks: nothing, every permission of a tenant, or everything there is.
    holds text not null default 'ticked' check (holds in ('ticked', 'tenant', 'everything')),
    version integer not null default 1,
    -- Grows when the set of permissions is replaced: the ETag of the set.
    permissions_version integer not null default 1,
    created_at integer not null,
    updated_at integer not null
) strict;
create unique index roles_organization_id_key on roles (organization_id, key);
create index roles_creator_id on roles (creator_id);

-- What was ticked. Ancestors that are only implied are derived from the tree, never stored.
create table role_permissions (
    role_id blob not null references roles (id),
    permission_slot integer not null references permissions (slot),
    primary key (role_id, permission_slot)
) strict, without rowid;
create index role_permissions_permission_slot on role_permissions (permission_slot);

create table role_assignments (
    id blob not null check (length(id) = 16),
    organization_id blob not null,
    member_id blob not null,
    role_id blob not null references roles (id),
    source text not null check (source in ('manual', 'zitadel', 'ldap', 'scim', 'oidc', 'wordpress')),
    created_at integer not null,
    updated_at integer not null,
    primary key (organization_id, member_id, role_id, source),
    foreign key (organization_id, member_id) references memberships (organization_id, member_id)
) strict, without rowid;
create index role_assignments_role_id on role_assignments (role_id);

create table role_mappings (
    id blob primary key check (length(id) = 16),
    organization_id blob not null references organizations (id),
    source text not null check (source in ('zitadel', 'ldap', 'scim', 'oidc', 'wordpress')),
    external_key text not null,
    role_id blob not null references roles (id),
    created_at integer not null,
    updated_at integer not null
) strict;
create unique index role_mappings_key on role_mappings (organization_id, source, external_key);
create index role_mappings_role_id on role_mappings (role_id);

-- Direct scoped rights of a member; they belong to the site.
create table grants (
    id blob primary key check (length(id) = 16),
    member_id blob not null references members (id),
    scope_type text not null,
    scope_id text not null,
    module text not null,
    action text not null,
    created_at integer not null
) strict;
create unique index grants_right on grants (member_id, scope_type, scope_id, module, action);

create table api_clients (
    client_key text primary key,
    name text not null,
    status text not null check (status in ('active', 'inactive')),
    -- SHA-256 of the secret, which is 32 random bytes: nothing to guess, so nothing to slow down.
    api_key_hash blob not null,
    -- The secret before the last rotation, accepted until its time is over.
    previous_hash blob,
    previous_expires_at integer,
    -- JSON arrays of strings; empty lists allow everything.
    scopes text not null,
    allowed_origins text not null,
    allowed_ips text not null,
    allowed_paths text not null,
    rate_limit_per_min integer check (rate_limit_per_min > 0),
    expires_at integer,
    last_used_at integer,
    version integer not null default 1,
    created_at integer not null,
    updated_at integer not null
) strict, without rowid;

-- What was done, by whom, to what. Rows are only added; each carries the hash of the one before.
create table audit (
    id integer primary key autoincrement,
    at integer not null,
    actor_kind text not null,
    actor text not null,
    action text not null,
    target text not null,
    organization_id blob,
    outcome text not null check (outcome in ('done', 'denied')),
    -- JSON without secrets.
    before text,
    after text,
    request_id text not null,
    address text not null,
    -- SHA-256 over the previous row's hash and this row.
    hash blob not null check (length(hash) = 32)
) strict;

-- Answers to creating requests that carried an Idempotency-Key.
create table idempotency_keys (
    caller text not null,
    action text not null,
    key text not null,
    fingerprint blob not null,
    -- Null when the answer showed a secret, which is never kept.
    answer text,
    created_at integer not null,
    primary key (caller, action, key)
) strict, without rowid;
create index idempotency_keys_created_at on idempotency_keys (created_at);
