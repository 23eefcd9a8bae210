//! The schema and the SQL statements of the source.

use std::path::Path;

use roster::kernel::db::{Direction, List};
use rusqlite::Connection;

fn fresh() -> Connection {
    let connection = Connection::open_in_memory().expect("memory");
    connection.execute_batch(roster::kernel::db::schema::SCHEMA).expect("schema.sql");
    connection
}

/// An empty database with the schema for the statements of this file: the decision log has a schema of its own.
fn fresh_for(name: &str) -> Connection {
    if !name.contains("/decision_log/") {
        return fresh();
    }
    let connection = Connection::open_in_memory().expect("memory");
    connection.execute_batch(roster::kernel::decision_log::SCHEMA).expect("decisions.sql");
    connection
}

/// Every statement of the source: upper-case constants that contain SQL.
pub fn statements() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut waiting = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(folder).expect("folder") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            for piece in text.split("\nconst ").skip(1).filter(|piece| piece.contains(": &str =")) {
                let name = piece.split(':').next().unwrap_or_default().to_owned();
                let Some(body) = piece.split('"').nth(1) else { continue };
                let sql = body.replace("\\'", "'").replace("\\\\", "\\");
                let first = sql.split_whitespace().next().unwrap_or_default();
                if ["select", "insert", "update", "delete", "with"].contains(&first) {
                    found.push((format!("{}: {name}", path.display()), sql));
                }
            }
        }
    }
    found
}

#[test]
fn every_statement_can_be_prepared_with_the_schema() {
    let all = statements();
    assert!(all.len() > 60, "{}", all.len());
    assert!(all.iter().any(|(name, _)| name.contains("/decision_log/mod.rs")));
    for (name, sql) in all {
        let connection = fresh_for(&name);
        if let Err(e) = connection.prepare(&sql) {
            panic!("{name}: {e}: {sql}");
        }
    }
}

/// Loads at start, walks and exports of the audit log, lists that are counted, tables with one row or a handful, and
/// scans that start at the oldest row and stop at the first one that is young enough.
const READ_WHOLE: &[&str] = &[
    "LIST_OLD_EVENTS",
    "COUNT_SHARES",
    "LIST_SERVER_KEYS",
    "LIST_PRIVATE_KEYS",
    "LIST_FACTOR_SECRETS",
    "LIST_WEBHOOKS",
    "COUNT_JOBS",
    "LIST_ERASED_NAMES",
    "FIND_REMEMBERED",
    "LIST_ANSWERS_BEHIND",
    "FORGET_ANSWER",
    "LIST_MEMBER_STATES",
    "LIST_TENANTS",
    "LIST_ROLES",
    "LIST_MEMBERSHIPS",
    "LIST_GRANTS",
    "LIST_CLIENTS",
    "LIST_SESSIONS",
    "LIST_API_KEYS",
    "LIST_SIGNING_KEYS",
    "LIST_PERMISSIONS",
    "LIST_APP_ORGANIZATIONS",
    "WALK",
    "LIST_MEMBERS",
    "LIST_ORGANIZATIONS",
    "LIST_SYSTEM_ROLES",
    "EPOCH",
    "FIND_SETUP",
    "LAST_LINK",
    "HEAD",
    "SET_SETUP",
    "RAISE_EPOCH",
    "COUNT_IN",
    "COUNT_OUT",
    "COUNT_QUOTAS",
    "SITE_USAGE",
    "RECOUNT_TOTALS",
    "RECOUNT_MEMBERS",
    "RECOUNT_ORGANIZATIONS",
    "LIST_MISSING",
    "SET_MEMBERS",
    "SET_ORGANIZATIONS",
    "SET_SITE",
    "MAKE_QUOTAS",
    "MAKE_ORGANIZATION_QUOTAS",
];

#[test]
fn only_listed_statements_scan_a_whole_table() {
    for (name, sql) in statements() {
        let connection = fresh_for(&name);
        if READ_WHOLE.iter().any(|whole| name.ends_with(&format!(": {whole}"))) {
            continue;
        }
        let mut plan = connection.prepare(&format!("explain query plan {sql}")).expect("plan");
        let unbound = plan.parameter_count();
        for n in 1..=unbound {
            plan.raw_bind_parameter(n, "x").expect("bind");
        }
        let mut rows = plan.raw_query();
        while let Some(row) = rows.next().expect("row") {
            let step: String = row.get(3).expect("step");
            // A table that the statement creates itself, and the elements of a JSON list, are not tables of the schema.
            let scanned = step.split_whitespace().nth(1).unwrap_or_default();
            let is_its_own = sql.contains(&format!("recursive {scanned} ("));
            let is_harmless = is_its_own
                || ["CONSTANT ROW", "USING", "VIRTUAL TABLE", "(subquery"].iter().any(|word| step.contains(word));
            let is_scan = step.starts_with("SCAN") && !is_harmless;
            assert!(!is_scan, "{name}: {step}");
        }
    }
}

/// All string literals in a piece of source.
fn literals(source: &str) -> Vec<&'static str> {
    let (mut found, mut rest) = (Vec::new(), source);
    while let Some(begin) = rest.find('"') {
        let (mut text, mut end) = (String::new(), begin + 1);
        loop {
            let next = rest[end..].chars().next().expect("a closing quote");
            end += next.len_utf8();
            match next {
                '"' => break,
                '\\' => {
                    let escaped = rest[end..].chars().next().expect("what is escaped");
                    end += escaped.len_utf8();
                    text.push(escaped);
                }
                other => text.push(other),
            }
        }
        found.push(&*text.leak());
        rest = &rest[end..];
    }
    found
}

/// A list constant, with each name of a text that it shares with other lists of the file replaced by that text.
fn spelled_out(list: &str, file: &str) -> String {
    let mut list = list.to_owned();
    for piece in file.split("\nconst ").skip(1) {
        let Some((name, rest)) = piece.split_once(": &str = ").filter(|(name, _)| !name.contains(' ')) else {
            continue;
        };
        let text = rest.split(";\n").next().expect("an end");
        list = list.replace(&format!(" {name},"), &format!(" {text},"));
    }
    list
}

/// Every list of the source, with its file.
pub fn lists() -> Vec<(String, String, List)> {
    const FIELDS: [&str; 9] = ["name", "columns", "from", "joins", "conditions", "order", "costly", "walked", "kept"];
    let mut found = Vec::new();
    for (file, text) in crate::rules::tidy::files("src") {
        let pieces = text.split("\nconst ").skip(1).filter(|piece| piece.contains(": List = List {"));
        for piece in pieces.filter(|piece| piece.split(':').nth(1).is_some_and(|of| of.starts_with(" List ="))) {
            let body = &spelled_out(piece.split("\n};").next().expect("a body"), &text);
            let place =
                |field: &str| body.find(&format!("\n    {field}:")).unwrap_or_else(|| panic!("{file}: {field}"));
            let ends = FIELDS.iter().skip(1).map(|field| place(field)).chain([body.len()]);
            let fields: Vec<_> =
                FIELDS.iter().zip(ends).map(|(field, end)| literals(&body[place(field)..end])).collect();
            for kept in fields[8].iter().filter(|text| text.starts_with("select")) {
                fresh_for(&file).prepare(kept).unwrap_or_else(|e| panic!("{file}: {e}: {kept}"));
            }
            let one = |n: usize| fields[n][0];
            let many = |n: usize| -> &'static [&'static str] { fields[n].clone().leak() };
            let list = List {
                name: one(0),
                columns: one(1),
                from: one(2),
                joins: one(3),
                conditions: many(4),
                order: many(5),
                costly: many(6),
                walked: many(7),
                kept: &[],
            };
            found.push((piece.split(':').next().expect("a name").to_owned(), file.clone(), list));
        }
    }
    found
}

/// The conditions of which a list always has one, so that it never scans a whole table.
const OWNED: [(&str, &[&str]); 14] = [
    ("LIST_MEMBERS_IN", &[":organization_id"]),
    ("LIST_MEMBERS_IN_BY_NAME", &[":organization_id"]),
    ("LIST_ACTIVITY", &[":actor"]),
    ("LIST_MEMBERSHIPS", &[":member_id"]),
    ("LIST_MEMBERSHIPS_OF_MANY", &[":member_id"]),
    ("LIST_INVITATIONS", &[":organization_id"]),
    ("LIST_KEYS", &[":member_id", ":of_services"]),
    ("LIST_DELIVERIES_IN", &[":organization_id"]),
    ("LIST_MAPPINGS", &[":organization_id"]),
    ("LIST_GRANTS", &[":member_id"]),
    ("LIST_PLUGINS", &[":organization_id"]),
    ("LIST_IDLE_IN", &[":organization_id"]),
    ("LIST_LEDGER", &[":member_id"]),
    ("LIST_DECISIONS", &[":organization_id", ":member_id"]),
];

/// Conditions that are checked on rows in the list's own order: most rows satisfy them, or another condition narrows
/// the list.
const ASKED_OF_ROWS: [&str; 25] = [
    ":is_active",
    ":keyword",
    ":folded",
    ":seen",
    ":doing",
    ":outcome",
    ":kind",
    ":its_state",
    ":is_held",
    ":processor",
    ":within",
    ":owner",
    ":by",
    ":target",
    ":target_kind",
    ":is_delivered",
    ":is_tried",
    ":since",
    ":until",
    ":from",
    ":to",
    ":allow",
    ":reason",
    ":differed",
    ":plugin",
];

#[test]
fn no_list_sorts_or_scans_a_whole_table_for_a_few_rows() {
    let all = lists();
    let written: usize =
        crate::rules::tidy::files("src").iter().map(|(_, text)| text.matches(": List = List {").count()).sum();
    assert_eq!(all.len(), written);
    assert!(all.len() > 20, "{}", all.len());
    let mut explained = 0;
    for (name, file, list) in all {
        let connection = fresh_for(&file);
        let parameters = list.parameters();
        let owned = OWNED.iter().find(|(owned, _)| *owned == name).map(|(_, by)| *by);
        for chosen in 0..1_u32 << parameters.len() {
            let given: Vec<&str> =
                parameters.iter().enumerate().filter(|(n, _)| (chosen >> n) & 1 == 1).map(|(_, name)| *name).collect();
            // The ids that match a keyword, and the entries about one object: few rows, sorted where necessary.
            let is_among = given.iter().any(|name| [":among", ":spaced", ":spaced_id"].contains(name));
            let is_owned = owned.is_none_or(|by| by.iter().any(|name| given.contains(name)));
            let is_of_role = name != "LIST_HOLDERS" || given.len() == 2;
            if !is_owned || !is_of_role || is_among {
                continue;
            }
            let is_whole = owned.is_none() && given.iter().all(|name| ASKED_OF_ROWS.contains(name));
            let mut shapes = Vec::new();
            for toward in [Direction::Forward, Direction::Backward] {
                shapes.extend([list.page(toward, &given, false, false), list.page(toward, &given, true, false)]);
                shapes.push(list.count(toward, &given, false));
                if list.walks(&given) {
                    shapes.extend([list.page(toward, &given, false, true), list.page(toward, &given, true, true)]);
                    shapes.extend([list.count(toward, &given, true), list.scan_end(toward, &given, false)]);
                    shapes.push(list.scan_end(toward, &given, true));
                }
            }
            for sql in shapes {
                explained += 1;
                let plan = plan(&connection, &sql);
                for step in &plan {
                    // The few organizations of one member, and the targets of one event.
                    let may_sort = name == "LIST_MEMBERSHIPS" || step.contains("FOR LAST TERM");
                    assert!(!step.contains("TEMP B-TREE") || may_sort, "{name} {given:?}: {plan:?}: {sql}");
                    let is_harmless =
                        ["CONSTANT ROW", "VIRTUAL TABLE", "(subquery"].iter().any(|word| step.contains(word));
                    // Used when the member belongs to most of the organizations.
                    let may_scan = is_whole || name == "LIST_MEMBERSHIPS_OF_MANY";
                    assert!(!step.starts_with("SCAN") || may_scan || is_harmless, "{name} {given:?}: {plan:?}: {sql}");
                }
            }
        }
    }
    assert!(explained > 1_000, "{explained}");
}

#[test]
fn only_list_statements_use_pages() {
    for (name, sql) in statements() {
        assert!(!sql.contains("offset :offset"), "{name} is not a list");
    }
    for (name, text) in crate::rules::tidy::files("src") {
        for (at, _) in text.match_indices(" is null or") {
            let word = text[..at].rsplit([' ', '(', '\n']).next().unwrap_or_default();
            let may_ask = MAY_ASK.contains(&name.as_str());
            assert!(!word.starts_with(':') || may_ask, "{name} asks whether {word} is given");
        }
    }
}

/// Files that may check a condition on a row that was already found.
const MAY_ASK: [&str; 2] = ["src/features/sessions/store.rs", "src/kernel/outbox/delivery_store.rs"];

fn plan(connection: &Connection, sql: &str) -> Vec<String> {
    let mut plan = connection.prepare(&format!("explain query plan {sql}")).unwrap_or_else(|e| panic!("{e}: {sql}"));
    for n in 1..=plan.parameter_count() {
        plan.raw_bind_parameter(n, "x").expect("bind");
    }
    let mut rows = plan.raw_query();
    let mut steps = Vec::new();
    while let Some(row) = rows.next().expect("row") {
        steps.push(row.get(3).expect("step"));
    }
    steps
}

#[test]
fn tables_are_strict_and_foreign_keys_are_indexed() {
    assert_eq!(require_strict(&fresh_for("/decision_log/mod.rs")), 1);
    assert!(require_strict(&fresh()) >= 13);
}

/// Asserts that every table is strict and that foreign keys are indexed. Returns the number of tables.
fn require_strict(connection: &Connection) -> usize {
    let mut tables = connection
        .prepare("select name, strict from pragma_table_list where schema = 'main' and type = 'table'")
        .expect("list");
    let tables: Vec<(String, bool)> = tables
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("rows")
        .map(|row| row.expect("row"))
        .filter(|(name, _): &(String, bool)| !name.starts_with("sqlite_"))
        .collect();
    let count = tables.len();
    for (table, is_strict) in tables {
        assert!(is_strict, "{table} is not strict");
        let mut keys =
            connection.prepare("select \"from\" from pragma_foreign_key_list(?1) where seq = 0").expect("keys");
        let columns: Vec<String> =
            keys.query_map([&table], |row| row.get(0)).expect("rows").map(|row| row.expect("row")).collect();
        let number = "select name from pragma_table_info(?1) where pk = 1 and type = 'INTEGER'";
        let number: Option<String> = connection.query_row(number, [&table], |row| row.get(0)).ok();
        for column in columns.into_iter().filter(|column| Some(column) != number.as_ref()) {
            let sql = "select count(*) from pragma_index_list(?1) i join pragma_index_info(i.name) c where c.seqno = 0 and c.name = ?2";
            let indexed: i64 = connection.query_row(sql, [&table, &column], |row| row.get(0)).expect("count");
            assert!(indexed > 0, "{table}.{column} is a foreign key without an index");
        }
    }
    count
}

#[test]
fn a_newer_database_is_refused_and_not_changed() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("roster.db");
    drop(roster::kernel::db::schema::open_writer(&file).expect("created"));
    let newer = roster::kernel::db::schema::version() + 1;
    Connection::open(&file).expect("open").pragma_update(None, "user_version", newer).expect("raised");
    let refused = roster::kernel::db::schema::open_writer(&file).expect_err("refused");
    assert!(refused.message().contains("newer Roster"), "{}", refused.message());
    let kept: i64 = Connection::open(&file)
        .expect("open")
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .expect("version");
    assert_eq!(kept, newer);
}

#[test]
fn upgrades_from_the_oldest_schema_produce_the_newest() {
    let objects = |connection: &Connection| -> Vec<String> {
        let mut all =
            connection.prepare("select sql from sqlite_schema where sql is not null order by name").expect("list");
        all.query_map([], |row| row.get(0)).expect("rows").map(|row| plain(row.expect("row"))).collect()
    };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("roster.db");
    let oldest = Connection::open(&file).expect("open");
    oldest.execute_batch(include_str!("schema_1.sql")).expect("the oldest schema");
    oldest.pragma_update(None, "user_version", 1).expect("version 1");
    let rows = "insert into organizations (id, org_code, name, status, created_at, updated_at)
                values (zeroblob(16), 'acme', 'Acme', 'active', 1, 1);
                insert into members (id, username, status, generation, created_at, updated_at)
                values (zeroblob(16), 'kim', 'active', 7, 1, 1);
                insert into memberships (organization_id, member_id, created_at) values (zeroblob(16), zeroblob(16), 1);";
    oldest.execute_batch(rows).expect("rows of the oldest schema");
    drop(oldest);
    let upgraded = roster::kernel::db::schema::open_writer(&file).expect("upgraded");
    assert_eq!(objects(&upgraded), objects(&fresh()));
    let kept = "select m.username, o.org_code, o.second_factor_required
                from memberships s
                join members m on m.id = s.member_id
                join organizations o on o.id = s.organization_id";
    let kept: (String, String, bool) =
        upgraded.query_row(kept, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).expect("the rows are there");
    assert_eq!(kept, ("kim".into(), "acme".into(), false));
    assert_eq!(roster::kernel::db::schema::faults(&upgraded).expect("checked"), [""; 0]);
}

/// A new database as a Roster with this former schema created it.
pub fn make_former(file: &Path, version: usize) -> Connection {
    const STEPS: [&str; 7] = [
        include_str!("schema_1.sql"),
        include_str!("../../../src/kernel/db/upgrades/2.sql"),
        include_str!("../../../src/kernel/db/upgrades/3.sql"),
        include_str!("../../../src/kernel/db/upgrades/4.sql"),
        include_str!("../../../src/kernel/db/upgrades/5.sql"),
        include_str!("../../../src/kernel/db/upgrades/6.sql"),
        include_str!("../../../src/kernel/db/upgrades/7.sql"),
    ];
    let former = Connection::open(file).expect("open");
    STEPS[..version].iter().for_each(|step| former.execute_batch(step).expect("a former schema"));
    former.pragma_update(None, "user_version", i64::try_from(version).expect("a version")).expect("its version");
    former
}

#[test]
fn jobs_of_schema_4_belong_to_their_videos_after_the_upgrade() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("roster.db");
    let former = make_former(&file, 4);
    let rows = "insert into videos (number, id, path, size, created_at, updated_at) values (7, '0123456789abcdef', 'kim/a', 1, 1, 1);
         insert into jobs (id, video_number, kind, state, attempts, run_at, steps, created_at, updated_at)
         values (zeroblob(16), 7, 'auto_ingestion', 'dead', 3, 5, '[]', 1, 2);
         insert into videos (number, id, path, size, created_at, updated_at) values (8, '1123456789abcdef', 'kim/b', 1, 1, 1);
         insert into jobs (id, video_number, member_id, kind, state, run_at, steps, leased_at, created_at, updated_at)
         values (x'11111111111111111111111111111111', 8, x'22', 'auto_ingestion', 'queued', 9,
                 '[{\"processor\":\"asr\",\"state\":\"ready\"},{\"processor\":\"cut\",\"state\":\"completed\"},{\"processor\":\"pose\",\"state\":\"ready\"}]', 4, 1, 2);";
    former.execute_batch(rows).expect("rows of the fourth schema");
    drop(former);
    let upgraded = roster::kernel::db::schema::open_writer(&file).expect("upgraded");
    let kept =
        "select video_number, hex(id), state, attempts, run_at, steps, updated_at from jobs where state = 'dead'";
    let queue = "select hex(member_id), hex(organization_id), ready, state, turn, since from job_queues";
    let queue: (String, String, i64, String, i64, i64) = upgraded
        .query_row(queue, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?)))
        .expect("the queue is there");
    assert_eq!(queue, ("22".into(), String::new(), 33, "open".into(), 4_000, 9));
    let kept: (i64, String, String, i64, i64, String, i64) = upgraded
        .query_row(kept, [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?))
        })
        .expect("the job is there");
    assert_eq!(kept, (7, "0".repeat(32), "dead".into(), 3, 5, "[]".into(), 2));
    assert_eq!(roster::kernel::db::schema::faults(&upgraded).expect("checked"), [""; 0]);
}

#[test]
fn sftpgo_events_of_schema_5_have_a_table_of_their_own_after_the_upgrade() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("roster.db");
    let former = make_former(&file, 5);
    let rows = "insert into members (id, username, status, created_at, updated_at) values (zeroblob(16), 'kim', 'active', 1, 1);
         insert into one_time_tokens (hash, purpose, member_id, data, expires_at, created_at) values
             (randomblob(32), 'used', zeroblob(16), '{}', 7, 1), (randomblob(32), 'used', zeroblob(16), null, 8, 1),
             (randomblob(32), 'used', null, null, 9, 1), (randomblob(32), 'email_code', zeroblob(16), 'x', 9, 1);";
    former.execute_batch(rows).expect("rows of the fifth schema");
    drop(former);
    let upgraded = roster::kernel::db::schema::open_writer(&file).expect("upgraded");
    let one = |sql: &str| -> String { upgraded.query_row(sql, [], |row| row.get(0)).expect("a row") };
    let moved = "select group_concat(expires_at || ' ' || coalesce(data, '-'), ', ') from (select * from sftpgo_history order by expires_at)";
    assert_eq!(one(moved), "7 {}, 8 -");
    let left = "select group_concat(purpose, ', ') from (select * from one_time_tokens order by purpose)";
    assert_eq!(one(left), "email_code, used");
}

#[test]
fn the_usage_of_schema_6_is_kept_and_maintained_after_the_upgrade() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("roster.db");
    let former = make_former(&file, 6);
    let rows = "insert into site (only, epoch, created_at, server_key, setup_expires_at, videos, encryption_key_id)
                values (1, 7, 8, x'01', 9, 2, 'k');
                insert into members (id, username, status, created_at, updated_at)
                values (zeroblob(16), 'kim', 'active', 1, 1);
                insert into videos (id, path, size, created_at, updated_at)
                values ('0123456789abcdef', 'nobody/a', 3, 1, 1), ('1123456789abcdef', 'nobody/b', 4, 1, 1);
                insert into quotas (member_id, used, created_at, updated_at) values (zeroblob(16), 5, 1, 1);";
    former.execute_batch(rows).expect("rows of the sixth schema");
    drop(former);
    let upgraded = roster::kernel::db::schema::open_writer(&file).expect("upgraded");
    let one = |sql: &str| -> String { upgraded.query_row(sql, [], |row| row.get(0)).expect("a row") };
    let site = "select format('%d %d %d %s %d %s', only, epoch, created_at, hex(server_key), setup_expires_at,
                              encryption_key_id) from site";
    assert_eq!(one(site), "1 7 8 01 9 k");
    let usage = "select format('%d %d %d %d', videos, used, ownerless_videos, ownerless_bytes) from site_usage";
    assert_eq!(one(usage), "2 5 2 7");
    let changes = "update quotas set used = 6; update videos set member_id = zeroblob(16) where size = 3;";
    upgraded.execute_batch(changes).expect("changes");
    assert_eq!(one(usage), "2 6 1 4");
}

#[test]
fn memberships_of_schema_7_have_the_names_of_their_members_after_the_upgrade() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("roster.db");
    let former = make_former(&file, 7);
    let rows = "insert into organizations (id, org_code, name, status, created_at, updated_at)
                values (zeroblob(16), 'acme', 'Acme', 'active', 1, 1);
                insert into members (id, username, username_folded, email, email_folded, status, created_at, updated_at)
                values (x'00000000000000000000000000000001', 'Kim', 'kim', 'K@example.org', 'k@example.org', 'active', 1, 1),
                       (x'00000000000000000000000000000002', null, null, 'Lee@example.org', 'lee@example.org', 'active', 1, 1),
                       (x'00000000000000000000000000000003', null, null, null, null, 'active', 1, 1);
                insert into memberships (organization_id, member_id, created_at) select zeroblob(16), id, 1 from members;";
    former.execute_batch(rows).expect("rows of the seventh schema");
    drop(former);
    let upgraded = roster::kernel::db::schema::open_writer(&file).expect("upgraded");
    let names = || -> String {
        let sql = "select group_concat(member_name, ', ') from (select * from memberships order by member_id)";
        upgraded.query_row(sql, [], |row| row.get(0)).expect("a row")
    };
    assert_eq!(names(), "kim, lee@example.org, ");
    let changes = "update members set username_folded = 'zoe' where username is null and email is not null;
                   update members set email_folded = 'm@example.org' where username_folded is null;
                   update members set email_folded = 'x@example.org' where username_folded = 'kim';";
    upgraded.execute_batch(changes).expect("changes");
    assert_eq!(names(), "kim, zoe, m@example.org");
}

#[test]
fn a_new_database_and_an_upgraded_one_without_a_site_have_one_row_of_usage() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("roster.db");
    drop(make_former(&file, 6));
    for database in [fresh(), roster::kernel::db::schema::open_writer(&file).expect("upgraded")] {
        let usage = "select group_concat(format('%d %d %d %d', videos, used, ownerless_videos, ownerless_bytes))
                     from site_usage";
        let usage: String = database.query_row(usage, [], |row| row.get(0)).expect("a row");
        assert_eq!(usage, "0 0 0 0");
    }
}

/// A definition without comments and spaces, because SQLite composes the text of an altered table.
fn plain(sql: String) -> String {
    let lines = sql.lines().map(|line| line.split("--").next().unwrap_or_default());
    lines.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect()
}
