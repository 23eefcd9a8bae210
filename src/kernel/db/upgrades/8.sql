-- Lists by name and by size, and devices that are remembered after a second factor.

-- For lists by name.
create index members_name on members (coalesce(username_folded, email_folded, ''), id);

-- The folded username or e-mail of the member, for lists by name. Maintained by triggers.
alter table memberships add column member_name text not null default '';
update memberships
set member_name = coalesce((select coalesce(username_folded, email_folded, '') from members where id = member_id), '');
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

-- For lists by size.
create index videos_size on videos (size);
create index videos_member_id_size on videos (member_id, size);
create index videos_organization_id_size on videos (organization_id, size);
