-- Who set a username was not written down before: none is the name of a folder until the site says it again. Members with
-- a name at SFTPGo have their folder by that one.
alter table members add column username_by_site integer not null default 0 check (username_by_site in (0, 1));
