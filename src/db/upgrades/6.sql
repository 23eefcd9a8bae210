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
