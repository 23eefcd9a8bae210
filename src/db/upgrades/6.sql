-- Promises: who made them. Of those from before the maker is not known, so that open links are withdrawn; keys of services
-- keep working until they are rotated.
alter table invitations add column maker text;
create index invitations_open on invitations (maker) where accepted_at is null;
delete from invitations where accepted_at is null;
alter table one_time_tokens add column maker text;
create index one_time_tokens_maker on one_time_tokens (maker) where maker is not null;
delete from one_time_tokens where purpose = 'password_reset';
alter table api_keys add column maker text;
update api_keys set maker = 'cli';
alter table events add column maker text;
-- Who set a username was not written down before: none is the name of a folder until the site says it again. Members with
-- a name at SFTPGo have their folder by that one.
alter table members add column username_by_site integer not null default 0 check (username_by_site in (0, 1));
-- Secrets that must be read back are encrypted: the server's key is longer than before, and the site says with which key.
-- The program encrypts what lies in clear right after this, since the key is not here.
alter table site rename to former_site;
create table site (
    -- Exactly one row.
    only integer primary key check (only = 1),
    -- The version of the site's policy: grows with each change that touches a decision, never goes back.
    epoch integer not null check (epoch >= 1),
    created_at integer not null,
    -- Random; keys digests that must tell nothing of what was digested. Encrypted.
    server_key blob not null,
    -- The pending one-time set-up link, as SHA-256; null when there is none.
    setup_hash blob,
    setup_expires_at integer,
    -- How many videos there are: counting them would read them all.
    videos integer not null default 0 check (videos >= 0),
    -- The key in the key file that all secrets here are encrypted with, by its id; null while they lie in clear.
    encryption_key_id text
) strict;
insert into site (only, epoch, created_at, server_key, setup_hash, setup_expires_at, videos)
select only, epoch, created_at, server_key, setup_hash, setup_expires_at, videos
from former_site;
drop table former_site;
