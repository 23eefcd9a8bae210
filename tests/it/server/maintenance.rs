//! Housekeeping: expired rows are deleted in batches between which other changes run, and its checks of every member
//! use an index.

use std::collections::BTreeSet;

use rusqlite::Connection;

use crate::harness::site::Site;

/// Rows of each kind: many batches, and fewer than the events that one run deletes.
const ROWS: u32 = 9_000;

/// This many expired rows of every kind; the registrations include as many that wait for something else.
const OVER: &str = "
    pragma synchronous = off;
    begin;
    create temp table n as
        with n (n) as (values (1) union all select n + 1 from n where n < :rows) select n from n;
    create temp table one as
        select m.id as member, o.id as organization
        from members m, organizations o
        where m.status = 'active' and o.org_code = 'platform'
        limit 1;
    insert into members (id, status, created_at, updated_at)
    select unhex(printf('0000000000007000a000%012x', n)), 'pending', 1, 1 from n;
    insert into members (id, status, created_at, updated_at)
    select unhex(printf('0000000000007000b000%012x', n)), 'pending', 1, 1 from n;
    insert into identities (provider, subject, member_id, created_at)
    select 'wordpress', 'subject ' || n, unhex(printf('0000000000007000b000%012x', n)), 1 from n;
    insert into sessions (id, member_id, method, second_factor, refresh_hash, rotated_at, expires_at, ends_at, device,
                          address, created_at)
    select randomblob(16), member, 'password', 0, randomblob(32), 1, 1, 1, '', '', 1 from n, one;
    insert into one_time_tokens (hash, purpose, expires_at, created_at) select randomblob(32), 'used', 1, 1 from n;
    insert into invitations (id, hash, organization_id, expires_at, created_at)
    select randomblob(16), randomblob(32), organization, 1, 1 from n, one;
    insert into api_keys (id, type, name, member_id, hash, scopes, expires_at, created_at, updated_at)
    select randomblob(16), 'muser', 'old', member, randomblob(32), '[]', 1, 1, 1 from n, one;
    insert into idempotency_keys (caller, action, key, fingerprint, created_at)
    select 'member', 'test', n, randomblob(32), 1 from n;
    insert into quotas (member_id, organization_id, reserved, created_at, updated_at)
    select member, organization, 3 * :rows, 1, 1 from one;
    insert into organization_quotas (organization_id, reserved, created_at, updated_at)
    select organization, 3 * :rows, 1, 1 from one;
    insert into quota_reservations (id, member_id, organization_id, size, state, expires_at, created_at, updated_at)
    select randomblob(16), member, organization, 3, 'open', 1, 1, 1 from n, one;
    insert into quota_reservations (id, member_id, organization_id, size, state, expires_at, created_at, updated_at)
    select randomblob(16), member, organization, 3, 'released', 1, 1, 1 from n, one;
    insert into videos (number, id, path, size, created_at, updated_at)
    select n, printf('%016x', n), 'kim/' || n, 0, 1, 1 from n;
    insert into jobs (video_number, id, kind, state, run_at, steps, created_at, updated_at)
    select n, randomblob(16), 'auto_ingestion', 'done', 1, '[]', 1, 1 from n;
    update site_usage set videos = :rows;
    update events set at = 1;
    insert into events (at, kind, data, request_id) select 1, 'test', '{}', '' from n;
    insert into deliveries (target, event_id, state, next_at, updated_at)
    select 'mail old', id, iif(id % 2 = 0, 'delivered', 'dead'), 1, 1 from events where at = 1;
    commit;";

#[tokio::test]
async fn expired_rows_are_deleted_in_batches_between_which_other_changes_run() {
    let mut site = Site::start().await;
    site.between_runs(|path| {
        let rows = Connection::open(path.join("roster.db")).expect("the file");
        rows.execute_batch(&OVER.replace(":rows", &ROWS.to_string())).expect("rows");
    });
    // All of it ran before the first request.
    let rows = site.rows();
    let left = |what: &str| rows.query_row(&format!("select {what}"), [], |row| row.get::<_, i64>(0)).expect(what);
    for (what, expected) in [
        ("count(*) from members where status = 'pending' and hex(id) like '%7000A000%'", 0),
        ("count(*) from members where status = 'pending'", i64::from(ROWS)),
        ("count(*) from sessions where expires_at = 1", 0),
        ("count(*) from one_time_tokens where expires_at = 1", 0),
        ("count(*) from invitations", 0),
        ("count(*) from api_keys", 0),
        ("count(*) from idempotency_keys", 0),
        ("count(*) from quota_reservations", 0),
        ("sum(reserved) from quotas", 0),
        ("sum(reserved) from organization_quotas", 0),
        ("count(*) from jobs", 0),
        ("count(*) from deliveries where target = 'mail old'", 0),
    ] {
        assert_eq!(left(what), expected, "{what}");
    }
    // The newest event stays, so that its number is never used again.
    assert!(left("count(*) from events where at = 1") <= 1);
    site.require_small_changes();
}

#[test]
fn the_kinds_of_password_hashes_are_read_from_an_index() {
    let connection = Connection::open_in_memory().expect("memory");
    connection.execute_batch(roster::kernel::db::schema::SCHEMA).expect("schema.sql");
    const TAIL: &str = "c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG";
    let kinds = ["$2b$10$", "$2y$12$", "$argon2id$v=19$m=19456,t=2,p=1$", "$argon2i$m=64,t=10,p=16$"];
    let mut insert = connection
        .prepare("insert into members (id, status, password_hash, created_at, updated_at) values (randomblob(16), 'active', ?1, 1, 1)")
        .expect("a statement");
    for n in 0..40 {
        let hash = kinds.get(n % (kinds.len() + 1)).map(|kind| format!("{kind}{n}{TAIL}"));
        insert.execute([hash]).expect("a member");
    }
    let (_, sql) = crate::rules::schema::statements()
        .into_iter()
        .find(|(name, _)| name.ends_with(": LIST_HASH_KINDS"))
        .expect("the statement");
    let mut list = connection.prepare(&sql).expect("a statement");
    let found: Vec<String> =
        list.query_map([], |row| row.get(0)).expect("rows").map(|row| row.expect("a kind")).collect();
    assert_eq!(found.len(), kinds.len());
    assert_eq!(found.iter().map(String::as_str).collect::<BTreeSet<_>>(), kinds.into());
    let mut plan = connection.prepare(&format!("explain query plan {sql}")).expect("a plan");
    let plan: Vec<String> =
        plan.query_map([], |row| row.get(3)).expect("rows").map(|row| row.expect("a step")).collect();
    let looks: Vec<&String> = plan.iter().filter(|step| step.contains("members") || step.contains(" m ")).collect();
    assert!(looks.len() == 2 && looks.iter().all(|step| step.contains("members_hash_kind")), "{plan:?}");
}
