-- The current schema. New databases are created from this file. Older ones are upgraded step by step
-- (src/kernel/db/schema.rs); a test proves that both have the same result.
--
-- Ids are 16-byte UUIDv7. Times are integer milliseconds since 1970. Text that is unique regardless of case has a
-- second column with the folded text, which the program fills because SQLite folds ASCII only.

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
    -- Id of the key in the key file that encrypts all secrets here; null while they are not encrypted.
    encryption_key_id text
) strict;

create table signing_keys (
    -- The `kid` in the header of tokens.
    id text primary key,
    -- The Ed25519 key as PKCS #8. Encrypted.
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
    -- Increases with each edit; the ETag.
    version integer not null default 1,
    created_at integer not null,
    updated_at integer not null,
    -- 1 if its members must use a second factor at every sign-in.
    second_factor_required integer not null default 0 check (second_factor_required in (0, 1))
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
    -- PHC string (argon2id) or an imported hash; null for a member without a password.
    password_hash text,
    version integer not null default 1,
    created_at integer not null,
    updated_at integer not null,
    -- The reason that was given for a suspension; null without a suspension or a reason.
    status_reason text,
    -- 1 if the site gave the username. Only then it is the name of the member's video folder.
    username_by_site integer not null default 0 check (username_by_site in (0, 1)),
    -- Kind and cost of the hash, without salt and digest; null without a password.
    hash_kind text generated always as (
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
        end) virtual,
    -- Who chose the password, if not the member (`member <id>`, `client <key>`). Null after the member changes it, or
    -- uses a link from its own mailbox.
    password_maker text
) strict;
create unique index members_username_folded on members (username_folded) where username_folded is not null;
create unique index members_email_folded on members (email_folded) where email_folded is not null;
create index members_pending on members (updated_at) where status = 'pending';
create index members_hash_kind on members (hash_kind) where hash_kind is not null;
create index members_password_maker on members (password_maker) where password_maker is not null;
create index members_is_active on members ((status = 'active'), id, status) where status <> 'deleted';
create index members_deleted on members (id) where status = 'deleted';
-- For lists by name.
create index members_name on members (coalesce(username_folded, email_folded, ''), id);

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
    -- The folded username or e-mail of the member, for lists by name. Maintained by triggers.
    member_name text not null default '',
    primary key (organization_id, member_id)
) strict, without rowid;
create index memberships_member_id on memberships (member_id);
create index memberships_member_name on memberships (organization_id, member_name, member_id);
create trigger memberships_inserted after insert on memberships begin
    update memberships
    set member_name = (select coalesce(username_folded, email_folded, '') from members where id = new.member_id)
    where organization_id = new.organization_id and member_id = new.member_id;
end;
create trigger members_name_changed after update of username_folded, email_folded on members
when coalesce(old.username_folded, old.email_folded, '') <> coalesce(new.username_folded, new.email_folded, '') begin
    update memberships set member_name = coalesce(new.username_folded, new.email_folded, '') where member_id = new.id;
end;

-- Members that an organization created, or that joined it with a new account. They count for its share of
-- limits.members, also after they have left it. Deleted when the member is erased.
create table made_members (
    organization_id blob not null references organizations (id),
    member_id blob not null references members (id),
    primary key (organization_id, member_id)
) strict, without rowid;
create unique index made_members_member_id on made_members (member_id);

-- The catalog: one tree of permissions for the site. Each permission belongs to one application.
create table permissions (
    -- The bit of the permission in permission sets in memory; never reused.
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
    -- 1 if the last import of the application did not contain it. Kept for the roles that have it, but permits nothing
    -- until an import contains it again.
    orphaned integer not null default 0 check (orphaned in (0, 1)),
    -- The position in the last import.
    position integer not null,
    created_at integer not null,
    updated_at integer not null,
    check ((http_methods is null) = (http_path is null))
) strict;
create unique index permissions_name on permissions (name);
create index permissions_app on permissions (app);
create index permissions_parent_slot on permissions (parent_slot);

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

create table roles (
    id blob primary key check (length(id) = 16),
    organization_id blob not null references organizations (id),
    key text not null,
    display_name text not null,
    -- Null for roles that the program creates.
    creator_id blob references members (id),
    status text not null check (status in ('open', 'close')),
    is_system integer not null check (is_system in (0, 1)),
    -- What a role holds besides role_permissions: nothing, every permission of a tenant, or every permission.
    holds text not null default 'ticked' check (holds in ('ticked', 'tenant', 'everything')),
    version integer not null default 1,
    -- Increases when the set of permissions is replaced; the ETag of the set.
    permissions_version integer not null default 1,
    created_at integer not null,
    updated_at integer not null
) strict;
create unique index roles_organization_id_key on roles (organization_id, key);
create index roles_creator_id on roles (creator_id);

-- Permissions that were assigned to a role. Implied ancestors are derived from the tree and not stored.
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

-- Direct grants: scoped rights of a member, for the whole site.
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
    -- SHA-256 of the secret. A fast hash suffices, because the secret is 32 random bytes.
    api_key_hash blob not null,
    -- The secret before the last rotation, accepted until previous_expires_at.
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
    updated_at integer not null,
    -- Who created or last changed it (`cli`, `member <id>`).
    maker text
) strict, without rowid;
create index api_clients_created_at on api_clients (created_at, client_key);
create index api_clients_maker on api_clients (maker);

-- The audit log. Rows are only inserted; the hash of each row covers the hash of the previous row.
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
create index audit_at on audit (at);
create index audit_organization_id on audit (organization_id, at);
create index audit_actor on audit (actor, at);
create index audit_action on audit (action, at);
-- By the id of the target, which follows its kind.
create index audit_target on audit (substr(target, instr(target, ' ') + 1), at);

-- Answers to creating requests with an Idempotency-Key.
create table idempotency_keys (
    caller text not null,
    action text not null,
    key text not null,
    fingerprint blob not null,
    -- Null if the answer contained a secret, which is not stored.
    answer text,
    created_at integer not null,
    primary key (caller, action, key)
) strict, without rowid;
create index idempotency_keys_created_at on idempotency_keys (created_at);
-- Ids of erased objects. Stored answers that contain one of them are not returned, and are deleted soon.
create table erased_names (
    name text primary key
) strict, without rowid;

-- Sessions: renewed by refresh tokens, and named in access tokens.
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

-- Devices that members asked to be remembered. At a sign-in they stand for the second factor, never for the password.
create table trusted_devices (
    id blob primary key check (length(id) = 16),
    member_id blob not null references members (id),
    -- SHA-256 of the secret in the cookie.
    hash blob not null check (length(hash) = 32),
    -- A short name from the `User-Agent` header.
    agent text not null,
    created_at integer not null,
    last_used_at integer not null,
    expires_at integer not null
) strict;
create index trusted_devices_member_id on trusted_devices (member_id);
create index trusted_devices_expires_at on trusted_devices (expires_at);

-- One-time secrets: links, pending sign-ins, codes, and digests of consumed ones.
create table one_time_tokens (
    hash blob primary key check (length(hash) = 32),
    purpose text not null check (purpose in ('password_reset', 'second_factor', 'email_code', 'used')),
    member_id blob references members (id),
    -- JSON that depends on the purpose.
    data text,
    tries integer not null default 0,
    expires_at integer not null,
    created_at integer not null,
    -- Who created it for the member (`cli`, `member <id>`, `client <key>`); null if the member requested it.
    maker text
) strict, without rowid;
create index one_time_tokens_member_id on one_time_tokens (member_id);
create index one_time_tokens_expires_at on one_time_tokens (expires_at);
create index one_time_tokens_maker on one_time_tokens (maker) where maker is not null;

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

create table second_factors (
    member_id blob primary key references members (id),
    -- Needed to compute codes, so it cannot be hashed. Encrypted.
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
    created_at integer not null,
    -- Who created it (`cli`, `member <id>`, `client <key>`).
    maker text
) strict;
create unique index invitations_hash on invitations (hash);
create index invitations_organization_id on invitations (organization_id, id);
create index invitations_role_id on invitations (role_id);
create index invitations_member_id on invitations (member_id);
create index invitations_expires_at on invitations (expires_at) where accepted_at is null;
create index invitations_open on invitations (maker) where accepted_at is null;

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
    -- Who created or last rotated it (`cli`, `member <id>`, `client <key>`). For a key that a member created itself:
    -- who chose the password of the member; null if the member did.
    maker text,
    check ((member_id is null) <> (service_name is null))
) strict;
create unique index api_keys_hash on api_keys (hash);
create index api_keys_member_id on api_keys (member_id, created_at, id);
create index api_keys_expires_at on api_keys (expires_at);
create index api_keys_maker on api_keys (maker) where maker is not null;

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
create index quotas_organization_id on quotas (organization_id, used desc, member_id);
create index quotas_used on quotas (used desc, member_id) where used > 0;
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
    updated_at integer not null,
    -- The number of videos that count for it; maintained by triggers.
    videos integer not null default 0 check (videos >= 0),
    -- The last warning about the ceiling: 0, 80 or 95.
    warned_percent integer not null default 0
) strict, without rowid;
create index organization_quotas_used on organization_quotas (used desc) where used > 0;

create table videos (
    -- In order of registration. References use this number: ids are random, so each access would read another page.
    number integer primary key,
    -- The first 16 hex digits of SHA-256 of the path.
    id text not null check (length(id) = 16),
    -- `username/path`, relative to the media root.
    path text not null,
    -- Null for one without an owner.
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
-- For lists by size.
create index videos_size on videos (size);
create index videos_member_id_size on videos (member_id, size);
create index videos_organization_id_size on videos (organization_id, size);

-- What the whole site stores, because counting it reads all rows.
create table site_usage (
    -- Exactly one row, inserted with the table.
    only integer primary key check (only = 1),
    -- The number of videos.
    videos integer not null default 0 check (videos >= 0),
    -- Maintained by triggers: bytes that all members use, and number and bytes of videos without an owner.
    used integer not null default 0 check (used >= 0),
    ownerless_videos integer not null default 0 check (ownerless_videos >= 0),
    ownerless_bytes integer not null default 0 check (ownerless_bytes >= 0)
) strict;
insert into site_usage (only) values (1);

-- Maintained sums, which would otherwise have to be computed. A sum saturates at the largest integer.
create trigger quotas_inserted after insert on quotas when new.used > 0 begin
    update site_usage set used = min(used + new.used, 9223372036854775807);
end;
create trigger quotas_used_changed after update of used on quotas when new.used <> old.used begin
    update site_usage set used = max(min(used + (new.used - old.used), 9223372036854775807), 0);
end;
create trigger quotas_deleted after delete on quotas when old.used > 0 begin
    update site_usage set used = max(used - old.used, 0);
end;
create trigger videos_ownerless_inserted after insert on videos when new.member_id is null begin
    update site_usage
    set ownerless_videos = ownerless_videos + 1, ownerless_bytes = min(ownerless_bytes + new.size, 9223372036854775807);
end;
create trigger videos_ownerless_deleted after delete on videos when old.member_id is null begin
    update site_usage set ownerless_videos = ownerless_videos - 1, ownerless_bytes = max(ownerless_bytes - old.size, 0);
end;
create trigger videos_owner_changed after update of member_id, size on videos
when old.member_id is null or new.member_id is null begin
    update site_usage
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
-- For statistics.
create index quota_ledger_at on quota_ledger (at);
create index quota_ledger_organization_id on quota_ledger (organization_id, at);

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
create index quota_reservations_member_id on quota_reservations (member_id, state, expires_at, size);
create index quota_reservations_organization_id on quota_reservations (organization_id, state, expires_at, size);
create index quota_reservations_open on quota_reservations (expires_at) where state = 'open';
create index quota_reservations_over on quota_reservations (expires_at) where state <> 'open';

-- Jobs, one per video. A job is held while its member is not active; that is not stored here.
create table jobs (
    video_number integer primary key references videos (number),
    id blob not null check (length(id) = 16),
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
    updated_at integer not null,
    -- Bit set of the processors whose steps are ready: 1 asr, 2 cut, 4 yolo, 8 ocr, 16 face, 32 pose.
    ready integer not null default 0
) strict;
create unique index jobs_id on jobs (id);
create index jobs_leased_at on jobs (member_id, leased_at) where leased_at is not null;
create index jobs_queued on jobs (member_id, organization_id, ready, run_at) where state = 'queued';
create index jobs_leased on jobs (leased_until) where state = 'leased';
create index jobs_done on jobs (updated_at) where state = 'done';
create index jobs_member_id on jobs (member_id, id);
create index jobs_organization_id on jobs (organization_id, id, state);
create index jobs_state on jobs (state, id) where state = 'queued' or state = 'leased' or state = 'dead';

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
    request_id text not null,
    -- Who created what the event is about (`cli`, `member <id>`, `client <key>`), if its delivery depends on that
    -- caller's rights; otherwise null.
    maker text
) strict;
create index events_refused on events (member_id, at) where kind = 'quota.exceeded';
create index events_organization_id on events (organization_id);

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
create index deliveries_event_id on deliveries (event_id desc, target);
create index deliveries_open on deliveries (state, event_id desc, target) where state = 'pending' or state = 'dead';
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
    updated_at integer not null,
    -- Who created or last changed it (`cli`, `member <id>`).
    maker text
) strict, without rowid;
create index webhooks_organization_id on webhooks (organization_id, created_at, id);
create index webhooks_created_at on webhooks (created_at, id);
create index webhooks_maker on webhooks (maker);
