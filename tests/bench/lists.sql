-- The site that lists are measured on: 200,000 members in 10,000 organizations, of which the first has a quarter of all
-- members; 1,000,000 grants, videos and jobs; and all else that can be listed.
pragma foreign_keys = off;
pragma synchronous = off;
pragma cache_size = -400000;
begin;
create temp table n (n integer primary key);
insert into n with recursive i (i) as (values (0) union all select i + 1 from i where i < 999999) select i from i;

insert into organizations (id, org_code, name, tax_id, status, created_at, updated_at)
select unhex(printf('0000000000007000a000%012x', n)), printf('org-%05d', n), 'Organization ' || (n * 7919 % 10000), null,
       iif(n % 10 = 9, 'inactive', 'active'), 1700000000000 + n, 1700000000000
from n where n < 10000;

insert into members (id, username, username_folded, email, email_folded, display_name, status, created_at, updated_at)
select unhex(printf('0000000000007000b000%012x', n)), 'user' || n, 'user' || n,
       printf('m%x@example.org', n * 2654435761 % 4294967296), printf('m%x@example.org', n * 2654435761 % 4294967296),
       'Member ' || char(65 + n % 26, 97 + n * 7 % 26, 97 + n * 11 % 26) || ' ' || n,
       case n % 50 when 7 then 'suspended' when 8 then 'pending' when 9 then 'deleted' else 'active' end,
       1700000000000 + n, 1700000000000
from n where n < 200000;

insert into memberships (organization_id, member_id, created_at)
select unhex(printf('0000000000007000a000%012x', iif(n % 4 = 0, 0, 1 + n % 9999))),
       unhex(printf('0000000000007000b000%012x', n)), 1700000000000
from n where n < 200000 and n % 50 <> 9
order by 1, 2;
-- One of many organizations.
insert or ignore into memberships (organization_id, member_id, created_at)
select unhex(printf('0000000000007000a000%012x', n)), unhex(printf('0000000000007000b000%012x', 0)), 1700000000000
from n where n < 10000;

insert into identities (provider, subject, member_id, account_id, created_at)
select 'authentik', 'sub-' || n, unhex(printf('0000000000007000b000%012x', n)), n, 1700000000000
from n where n < 200000 and n % 2 = 0;

insert into roles (id, organization_id, key, display_name, status, is_system, created_at, updated_at)
select unhex(printf('0000000000007000d000%012x', n)), unhex(printf('0000000000007000a000%012x', n)), 'member', 'Member',
       'open', 1, 1, 1
from n where n < 10000;
insert into role_assignments (id, organization_id, member_id, role_id, source, created_at, updated_at)
select unhex('0000000000007000' || hex(substr(s.member_id, 9, 8))), s.organization_id, s.member_id,
       unhex('0000000000007000d000' || hex(substr(s.organization_id, 11))), 'manual', 1, 1
from memberships s;
insert into role_mappings (id, organization_id, source, external_key, role_id, created_at, updated_at)
select unhex(printf('00000000000070001000%012x', n)), unhex(printf('0000000000007000a000%012x', 0)),
       iif(n % 2, 'ldap', 'oidc'), 'group-' || n, unhex(printf('0000000000007000d000%012x', 0)), 1, 1
from n where n < 50000;
insert into grants (id, member_id, scope_type, scope_id, module, action, created_at)
select unhex(printf('0000000000007000e000%012x', n)), unhex(printf('0000000000007000b000%012x', n / 5)), 'project',
       'p' || (n % 5), 'files', 'read', 1
from n;

insert into invitations (id, hash, organization_id, email, expires_at, created_at)
select unhex(printf('0000000000007000f000%012x', n)), unhex(printf('%064x', n)),
       unhex(printf('0000000000007000a000%012x', iif(n % 2, 0, n % 10000))), 'i' || n || '@example.org', 1800000000000, 1
from n where n < 50000;
insert into api_clients (client_key, name, status, api_key_hash, scopes, allowed_origins, allowed_ips, allowed_paths,
                         created_at, updated_at)
select printf('client-%06d', n), 'Client ' || n, 'active', zeroblob(32), '[]', '[]', '[]', '[]', n, 1 from n where n < 1000;
insert into api_keys (id, type, name, member_id, service_name, hash, scopes, expires_at, created_at, updated_at)
select unhex(printf('00000000000070002000%012x', n)), iif(n < 1000, 'msvc', 'muser'), 'key ' || n,
       iif(n < 1000, null, unhex(printf('0000000000007000b000%012x', n))), iif(n < 1000, 'service ' || n, null),
       unhex(printf('%064x', n)), '[]', 1800000000000, n, 1
from n where n < 100000;
insert into webhooks (id, organization_id, name, url, kinds, status, created_at, updated_at)
select unhex(printf('00000000000070003000%012x', n)), unhex(printf('0000000000007000a000%012x', n / 2)), 'w' || n,
       'https://example.org/' || n, '["*"]', 'active', n, 1
from n where n < 20000;
insert into plugins (id, organization_id, name, created_at, updated_at)
select unhex(printf('00000000000070004000%012x', n)), unhex(printf('0000000000007000a000%012x', 0)), 'plugin-' || n, 1, 1
from n where n < 100;

insert into videos (number, id, path, member_id, organization_id, size, created_at, updated_at)
select n + 1, printf('%016x', n * 2654435761), printf('user%d/%d/%04x-holiday.mp4', n % 200000, n % 12, n * 40503 % 65536),
       iif(n % 100 = 99, null, unhex(printf('0000000000007000b000%012x', n % 200000))),
       iif(n % 100 = 99, null, unhex(printf('0000000000007000a000%012x',
                                            iif(n % 200000 % 4 = 0, 0, 1 + n % 200000 % 9999)))),
       1000 + n * 40503 % 65536, 1700000000000 + n, 1700000000000
from n;
insert into jobs (video_number, id, member_id, organization_id, kind, state, run_at, steps, ready, created_at, updated_at)
select number, unhex(printf('0000000000007000c000%012x', number)), member_id, organization_id, 'auto_ingestion',
       case number % 20 when 0 then 'leased' when 1 then 'dead' when 2 then 'queued' when 3 then 'queued' else 'done' end,
       number,
       case number % 20 when 2 then '[{"processor":"asr","state":"ready"},{"processor":"cut","state":"waiting"}]'
                        else '[{"processor":"asr","state":"completed"},{"processor":"cut","state":"completed"}]' end,
       iif(number % 20 in (2, 3), 3, 0), 1, 1
from videos;
insert into job_queues (member_id, organization_id, ready, state, turn, since)
select coalesce(member_id, x''), coalesce(organization_id, x''), ready, 'open', 0, min(run_at)
from jobs where state = 'queued' group by 1, 2, 3;
insert into quotas (member_id, organization_id, used, created_at, updated_at)
select v.member_id, max(v.organization_id), sum(v.size), 1, 1
from videos v
where v.member_id is not null
group by v.member_id having substr(v.member_id, 16) <> x'05';
insert into organization_quotas (organization_id, used, created_at, updated_at)
select o.id, coalesce((select sum(q.used) from quotas q where q.organization_id = o.id), 0), 1, 1
from organizations o
where true
on conflict (organization_id) do update set used = excluded.used;
update site_usage set videos = 1000000;
insert into quota_ledger (at, member_id, organization_id, video_id, cause, delta, used_after, request_id)
select 1, unhex(printf('0000000000007000b000%012x', iif(n % 2, 0, n % 200000))),
       unhex(printf('0000000000007000a000%012x', 0)), printf('%016x', n), 'register', 1, 1, 'r' || n
from n where n < 400000;

insert into audit (at, actor_kind, actor, action, target, organization_id, outcome, request_id, address, hash)
select 1700000000000 + n, 'member', '00000000-0000-7000-b000-' || printf('%012x', n * 7919 % 200000),
       case n % 4 when 0 then 'member.create' when 1 then 'video.create' when 2 then 'video.delete' else 'role.grant' end,
       'member ' || printf('%012x', n % 200000),
       iif(n % 10 = 0, null, unhex(printf('0000000000007000a000%012x', iif(n % 2, 0, n % 10000)))),
       iif(n % 25 = 0, 'denied', 'done'), 'r' || n, '127.0.0.1', zeroblob(32)
from n;
insert or ignore into events (id, at, kind, organization_id, member_id, data, request_id)
select n + 1, 1700000000000 + n, iif(n % 3, 'member.created', 'video.registered'),
       unhex(printf('0000000000007000a000%012x', iif(n % 2, 0, n % 10000))),
       unhex(printf('0000000000007000b000%012x', n % 200000)), '{}', 'r' || n
from n where n < 400000;
insert or ignore into deliveries (target, event_id, state, attempts, next_at, updated_at)
select t.target, n.n + 1, iif(n.n % 1000 = 0, 'dead', iif(n.n > 399000, 'pending', 'delivered')), 1, 1, 1700000000000 + n.n
from (select 0 as t, 'mail 00000000-0000-7000-b000-000000000001' as target
      union all select 1, 'webhook ' || lower(hex(unhex(printf('00000000000070003000%012x', 1))))) t
join n on n.n < 400000
order by 1, 2;
commit;
