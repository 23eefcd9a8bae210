-- The usage of the site gets a table of its own, because another module writes it.

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
insert into site_usage (only, videos, used, ownerless_videos, ownerless_bytes)
select 1, coalesce(max(videos), 0), coalesce(max(used), 0), coalesce(max(ownerless_videos), 0),
       coalesce(max(ownerless_bytes), 0)
from site;

drop trigger quotas_inserted;
drop trigger quotas_used_changed;
drop trigger quotas_deleted;
drop trigger videos_ownerless_inserted;
drop trigger videos_ownerless_deleted;
drop trigger videos_owner_changed;

-- The table is copied: SQLite cannot drop a last column that follows a comment with a comma, and sites created with
-- schema 6 have one.
alter table site rename to former_site;
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
insert into site (only, epoch, created_at, server_key, setup_hash, setup_expires_at, encryption_key_id)
select only, epoch, created_at, server_key, setup_hash, setup_expires_at, encryption_key_id
from former_site;
drop table former_site;

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
