//! The audit log: changes and denials are recorded, without secrets and personal data, in a chain that reveals
//! tampering.

use std::io::{Read, Write};
use std::process::Command;

use serde_json::{Value, json};

use super::http::{connect, head};
use crate::harness::site::{INTERNAL_SECRET, PASSWORD, Site, binary};
use crate::permissions::deferred_grants::second_administrator;

async fn entries(site: &Site, query: &str) -> Vec<Value> {
    let page = site.admin().get(&format!("/admin/audit?{query}")).await.data();
    page["items"].as_array().expect("items").clone()
}

fn column<'e>(entries: &'e [Value], name: &str) -> Vec<&'e str> {
    entries.iter().map(|entry| entry[name].as_str().expect("text")).collect()
}

/// The output of `roster audit verify`, and its exit code.
fn verify_id_token(site: &Site) -> (Option<i32>, Value) {
    let output =
        Command::new(binary()).args(["audit", "verify", "--json", "--data"]).arg(site.path()).output().expect("roster");
    (output.status.code(), serde_json::from_slice(&output.stdout).expect("JSON"))
}

/// Changes the rows, as somebody with access to the file could.
fn tamper(site: &Site, sql: &str) {
    let rows = rusqlite::Connection::open(site.path().join("roster.db")).expect("the file");
    rows.busy_timeout(std::time::Duration::from_secs(5)).expect("time-out");
    rows.execute_batch(sql).expect("tampering");
}

// ── access ──

#[tokio::test]
async fn the_audit_log_requires_its_permission() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let viewer = acme.member_with_role("viewer").await;
    let (client, reader) = (site.client(&["members:read"]).await, site.client(&["audit:read"]).await);

    for path in ["/admin/audit", "/admin/audit/export", "/admin/audit/verify"] {
        assert_eq!(site.nobody().get(path).await.is(35_501_000).word(), "unauthenticated");
        assert_eq!(viewer.caller().get(path).await.is(35_505_000).word(), "forbidden");
        assert_eq!(client.get(path).await.is(32_505_000).word(), "scope_not_allowed");
        assert_eq!(reader.get(path).await.status, 200);
    }
    acme.owner().get("/admin/audit").await.done();
    assert_eq!(acme.owner().get("/admin/audit/verify").await.is(35_505_000).word(), "forbidden");
}

#[tokio::test]
async fn an_owner_reads_the_entries_of_its_organization_only() {
    let site = Site::start().await;
    let (acme, globex) = (site.organization("acme").await, site.organization("globex").await);

    let page = acme.owner().get("/admin/audit").await.data();
    let exported = acme.owner().get("/admin/audit/export").await;
    let foreign = acme.owner().get(&format!("/admin/audit?organization={}", globex.id)).await;

    let of_acme = |entry: &Value| entry["organization_id"] == acme.id;
    assert!(page["items"].as_array().unwrap().iter().all(of_acme));
    assert!(lines(&exported.body).iter().all(of_acme));
    assert_eq!(lines(&exported.body).len() as u64, page["total"].as_u64().unwrap());
    assert_eq!(foreign.is(29_301_000).word(), "organization_not_found");
    let by_target = acme.owner().get(&format!("/admin/audit?target={}", globex.id)).await.data();
    assert_eq!(by_target["total"], 0);
}

// ── what is recorded ──

#[tokio::test]
async fn an_entry_records_actor_action_target_and_address() {
    let site = Site::start().await;
    let admin = site.admin().get("/me").await.data()["uid"].clone();
    let caller = site.admin().with("x-request-id", "from-a-test-1");

    let acme = caller.post("/admin/organizations", json!({"org_code": "acme", "name": "Acme"})).await.data();

    let entry = site.last_audit_entry().await;
    assert_eq!(
        (&entry["actor_kind"], &entry["actor"], &entry["action"]),
        (&json!("member"), &admin, &json!("organization.create"))
    );
    assert_eq!(entry["target"], format!("organization {}", acme["id"].as_str().unwrap()));
    assert_eq!((&entry["organization_id"], &entry["outcome"]), (&acme["id"], &json!("done")));
    assert_eq!((&entry["request_id"], &entry["address"]), (&json!("from-a-test-1"), &json!("127.0.0.1")));
    assert_eq!((&entry["before"], &entry["after"]["org_code"]), (&Value::Null, &json!("acme")));
    assert_eq!(entry["hash"].as_str().map(str::len), Some(64));
}

#[tokio::test]
async fn each_kind_of_caller_is_recorded_with_its_kind() {
    let site = Site::start().await;
    let client = site.client(&["organizations:write"]).await;
    let client_key =
        site.last_audit_entry().await["target"].as_str().unwrap().strip_prefix("client ").unwrap().to_owned();

    client.post("/admin/organizations", json!({"org_code": "one", "name": "One"})).await.done();
    let by_client = site.last_audit_entry().await;
    site.internal().post("/internal/users/upsert-by-sub", json!({"sub": "sub-1"})).await.done();
    let by_service = site.last_audit_entry().await;
    site.command(&["org", "create", "two", "Two"]);
    let by_command = site.last_audit_entry().await;

    let actor =
        |entry: &Value| format!("{} {}", entry["actor_kind"].as_str().unwrap(), entry["actor"].as_str().unwrap());
    assert_eq!(actor(&by_client), format!("client {client_key}"));
    assert_eq!(actor(&by_service), "internal internal");
    assert_eq!((actor(&by_command), &by_command["address"]), ("cli cli".to_owned(), &json!("local")));
}

#[tokio::test]
async fn a_change_of_a_client_is_recorded_with_before_and_after() {
    let site = Site::start().await;
    let body = json!({"name": "portal", "scopes": ["members:read"]});
    let made = site.admin().post("/admin/api-clients", body).await.data();
    let at = format!("/admin/api-clients/{}", made["client_key"].as_str().unwrap());

    site.admin().patch(&at, json!({"scopes": ["*"]})).await.done();
    let edited = site.last_audit_entry().await;
    site.admin().delete(&at).await.done();
    let deleted = site.last_audit_entry().await;

    assert_eq!((&edited["before"]["scopes"], &edited["after"]["scopes"]), (&json!(["members:read"]), &json!(["*"])));
    assert_eq!(
        (&deleted["action"], &deleted["before"], &deleted["after"]),
        (&json!("client.delete"), &edited["after"], &Value::Null)
    );
}

#[tokio::test]
async fn repeated_denials_of_one_caller_and_operation_are_one_entry() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (plain, other) = (acme.member().await, acme.member().await);
    let body = json!({"org_code": "globex", "name": "Globex"});

    for path in ["/admin/organizations", "/admin/organizations", "/api/v1/admin/organizations"] {
        plain.caller().post(path, body.clone()).await.is(29_505_000);
    }
    other.caller().post("/admin/organizations", body).await.is(29_505_000);
    plain.caller().post("/admin/api-clients", json!({"name": "x", "scopes": ["*"]})).await.is(32_505_000);

    let denied = entries(&site, "outcome=denied").await;
    assert_eq!(column(&denied, "actor"), [&plain.uid, &other.uid, &plain.uid]);
    assert_eq!(column(&denied, "action"), ["create_api_client", "create_organization", "create_organization"]);
    assert_eq!(denied[2]["after"], json!({"detail": "forbidden", "repeats_before": 0}));
    assert_eq!((&denied[2]["target"], &denied[2]["before"]), (&json!("path /admin/organizations"), &Value::Null));
}

#[tokio::test]
async fn a_secret_in_a_path_is_stored_nowhere() {
    const MARK: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ";
    let key = format!("muser_0123456789abcdef0123456789abcdef_1763740800_{MARK}_01234567");
    let jwt = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJraW0ifQ.abcdefghijkl";
    let site = Site::with("log.level = \"info,roster=debug\"").await;
    let acme = site.organization("acme").await;
    for (secret, mark) in [
        (key.clone(), MARK),
        (key.replace('_', "%5F"), MARK),
        (jwt.to_owned(), "abcdefghijkl"),
        (jwt.replace('.', "%2E"), "abcdefghijkl"),
    ] {
        for path in ["/admin/members/{}/activate", "/api/v1/plugins/{}/rollback"] {
            let plain = acme.member().await;
            let path = path.replace("{}", &secret);
            assert_eq!(plain.caller().post(&path, json!({})).await.status, 403, "{path}");
            site.nobody().post(&path, json!({})).await;
            let denied = entries(&site, "outcome=denied").await;
            let target = denied[0]["target"].as_str().expect("a target");
            assert!(target.contains("/***/") && !target.contains(mark), "{target}");
        }
        assert!(!site.log().contains(mark), "{secret}");
    }
}

#[tokio::test]
async fn an_owner_sees_denials_in_its_organization() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let plain = acme.member().await;

    plain.caller().post("/api/v1/permissions/roles", json!({"key": "editor"})).await.is(31_505_000);

    let seen = acme.owner().get("/admin/audit?outcome=denied").await.data();
    assert_eq!((&seen["total"], &seen["items"][0]["actor"]), (&json!(1), &json!(plain.uid)));
}

#[tokio::test]
async fn reads_are_not_recorded_whether_allowed_or_denied() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let plain = acme.member().await;
    let last = site.last_audit_entry().await;

    plain.caller().get("/admin/members").await.is(29_505_000);
    site.admin().get("/admin/members").await.done();
    site.nobody().post("/admin/members", json!({"username": "kim"})).await.is(29_501_000);
    site.admin().post("/admin/members", json!({"username": "-"})).await.is(10_101_000);

    assert_eq!(site.last_audit_entry().await, last);
}

#[tokio::test]
async fn a_failed_change_is_not_recorded_as_done() {
    let site = Site::start().await;
    site.organization("acme").await;
    let last = site.last_audit_entry().await;

    let reply = site.admin().post("/admin/organizations", json!({"org_code": "acme", "name": "Acme"})).await;

    assert_eq!(reply.is(29_303_000).word(), "organization_exists");
    assert_eq!(site.last_audit_entry().await, last);
}

#[tokio::test]
async fn neither_secrets_nor_persons_enter_the_audit() {
    let site = Site::start().await;
    let body = json!({"username": "kim-example", "email": "kim@example.org", "display_name": "Kim Example",
        "authentik_sub": "subject-1", "authentik_user_id": "account-1", "password": "Unheard-of-horse-9"});
    let uid = site.admin().post("/admin/members", body).await.data()["uid"].as_str().unwrap().to_owned();
    let at = format!("/admin/members/{uid}");
    let edit = json!({"email": "kim.l@example.org", "display_name": "Kim Lee Example", "password": PASSWORD});
    site.admin().patch(&at, edit).await.done();
    let right = json!({"authentik_sub": "subject-2", "email": "lee@example.org", "display_name": "Lee Example",
        "scope_type": "video", "scope_id": "v1", "module": "player", "action": "watch"});
    site.admin().post("/admin/permissions/grant", right).await.done();
    let upsert = json!({"sub": "subject-3", "email": "max@example.org", "display_name": "Max Example"});
    site.internal().post("/internal/users/upsert-by-sub", upsert).await.done();
    let client = site.admin().post("/admin/api-clients", json!({"name": "portal", "scopes": ["*"]})).await.data();
    site.admin().delete(&at).await.done();

    let all = site.admin().get("/admin/audit/export").await.body.to_string();

    let words =
        ["kim-example", "@example.org", "Example", "subject-", "account-1", "Unheard", PASSWORD, INTERNAL_SECRET];
    for word in words.into_iter().chain([client["api_key"].as_str().unwrap(), site.admin_token.as_str()]) {
        assert!(!all.contains(word), "{word}");
    }
}

// ── filters ──

#[tokio::test]
async fn entries_are_found_by_every_filter() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let admin = site.admin().get("/me").await.data()["uid"].as_str().unwrap().to_owned();
    let made = entries(&site, "action=organization.create").await;
    let (at, target) = (made[0]["at"].as_i64().unwrap(), format!("organization%20{}", acme.id));
    for (query, finds) in [
        (format!("target={target}"), 1),
        (format!("target={}", acme.id), 1),
        (format!("action=organization.create&actor={admin}"), 1),
        (format!("action=organization.create&organization={}", acme.id), 1),
        (format!("action=organization.create&since={at}"), 1),
        (format!("action=organization.create&since={}", at + 1), 0),
        (format!("action=organization.create&until={at}"), 0),
        (format!("action=organization.create&until={}", at + 1), 1),
        ("action=organization.create&outcome=denied".to_owned(), 0),
        ("action=no.such,organization.create".to_owned(), 1),
        (format!("action=organization.create,%20no.such&organization={}", acme.id), 1),
        ("action=,".to_owned(), 0),
        ("action=organization.%25".to_owned(), 0),
        ("actor=nobody-i-know".to_owned(), 0),
    ] {
        let page = site.admin().get(&format!("/admin/audit?{query}")).await.data();
        assert_eq!((&page["total"], page["items"].as_array().map(Vec::len)), (&json!(finds), Some(finds)), "{query}");
    }
}

#[tokio::test]
async fn entries_come_newest_first_in_pages() {
    let site = Site::start().await;
    site.organization("acme").await;

    let all = entries(&site, "limit=200").await;
    let second = entries(&site, "limit=2&offset=2").await;

    let ids: Vec<i64> = all.iter().map(|entry| entry["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, (1..=ids.len() as i64).rev().collect::<Vec<_>>());
    assert_eq!(second, all[2..4]);
}

#[tokio::test]
async fn all_bad_filters_are_reported_together() {
    let site = Site::start().await;
    let long = "a".repeat(201);

    let query = format!(
        "since=x&until=1.5&actor={long}&action={}&target={long}&outcome=maybe&limit=-1&offset=-1&after={}",
        "a".repeat(8001),
        "a".repeat(2001)
    );
    let reply = site.admin().get(&format!("/admin/audit?{query}")).await;

    let all = ["action", "actor", "after", "limit", "offset", "outcome", "since", "target", "until"];
    assert_eq!(reply.is(10_101_000).fields(), all.map(|name| format!("query.{name}")));
    assert_eq!(entries(&site, &format!("actor={}", &long[1..])).await, Vec::<serde_json::Value>::new());
    let nowhere = site.admin().get("/admin/audit?organization=x").await;
    assert!(nowhere.status == 200 && nowhere.data()["total"] == 0 || nowhere.word() == "organization_not_found");
}

// ── export ──

#[tokio::test]
async fn an_export_accepts_the_filters_of_the_list() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member_with_role("viewer").await;
    acme.owner().post("/admin/invitations", json!({})).await.done();
    member.caller().with("x-tenant-id", "acme").post("/admin/invitations", json!({})).await;
    let id = acme.id.clone();
    for filter in [
        "action=invitation.create".to_owned(),
        "outcome=denied".to_owned(),
        format!("actor={}", member.uid),
        format!("target=organization%20{id}"),
        format!("target={id}"),
        format!("organization={id}&outcome=done"),
        "action=nothing.of.the.kind".to_owned(),
        "action=invitation.create,create_invitation,organization.create".to_owned(),
    ] {
        let listed = site.admin().get(&format!("/admin/audit?limit=200&{filter}")).await.data();
        let exported = lines(&site.admin().get(&format!("/admin/audit/export?{filter}")).await.body);
        let mut items = listed["items"].as_array().expect("items").clone();
        items.reverse();
        // Names are read with a list; the log itself has none.
        for name in ["actor_name", "target_name"] {
            items.iter_mut().filter_map(Value::as_object_mut).for_each(|item| drop(item.remove(name)));
        }
        assert_eq!(exported, items, "{filter}");
    }
}

fn lines(body: &Value) -> Vec<Value> {
    match body {
        Value::String(text) => text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(),
        Value::Null => Vec::new(),
        // A single line is JSON by itself.
        one => vec![one.clone()],
    }
}

#[tokio::test]
async fn an_export_has_every_entry_oldest_first() {
    let site = Site::start().await;
    let client = site.client(&["permissions:write"]).await;
    // More entries than the export reads at a time.
    let grants = (0..510).map(|n| {
        let client = client.clone();
        let body = json!({"authentik_sub": "sub-1", "scope_type": "video", "scope_id": format!("{n}"), "module": "m", "action": "a"});
        async move { client.post("/admin/permissions/grant", body).await.done() }
    });
    futures_util::future::join_all(grants).await;

    let reply = site.admin().get("/admin/audit/export").await;

    let exported = lines(&reply.body);
    let ids: Vec<i64> = exported.iter().map(|entry| entry["id"].as_i64().unwrap()).collect();
    assert!(ids.len() > 510);
    assert_eq!(ids, (1..=ids.len() as i64).collect::<Vec<_>>());
    assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(exported.last(), Some(&site.last_audit_entry().await));
}

#[tokio::test]
async fn an_export_is_narrowed_by_time_and_organization() {
    let site = Site::start().await;
    let (acme, _globex) = (site.organization("acme").await, site.organization("globex").await);
    let at = site.last_audit_entry().await["at"].as_i64().unwrap();
    let count = async |query: &str| lines(&site.admin().get(&format!("/admin/audit/export?{query}")).await.body).len();

    let of_acme = count(&format!("organization={}", acme.id)).await;

    assert_eq!(of_acme, entries(&site, &format!("organization={}", acme.id)).await.len());
    assert_eq!(count(&format!("since={}", at + 1)).await, 0);
    assert_eq!(count(&format!("until={}", at + 1)).await, entries(&site, "limit=200").await.len());
}

/// Starts an export over a socket, reads only its beginning, runs the closure, and reads the rest. Returns the rest and
/// whether the export was complete.
async fn export_around(site: &Site, token: &str, happens: impl Future<Output = ()>) -> (String, bool) {
    let mut stream = connect(site);
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("time-out");
    let headers = format!("authorization: Bearer {token}\r\nconnection: close\r\n");
    stream.write_all(&head("GET /admin/audit/export", &headers)).expect("a request");
    let mut begin = [0; 1_024];
    stream.read_exact(&mut begin).expect("a beginning");
    assert!(begin.starts_with(b"HTTP/1.1 200"));
    happens.await;
    let mut rest = Vec::new();
    // A connection that is cut off may end with an error.
    let _ = stream.read_to_end(&mut rest);
    (String::from_utf8_lossy(&rest).into_owned(), rest.ends_with(b"0\r\n\r\n"))
}

#[tokio::test]
async fn an_export_stops_with_its_reader_s_right_and_omits_later_entries() {
    let site = Site::start().await;
    // More than the export reads at a time, and more than the socket buffers hold.
    let client = site.admin().post("/admin/api-clients", json!({"name": "x", "scopes": ["members:read"]})).await.data();
    let path = format!("/admin/api-clients/{}", client["client_key"].as_str().expect("a key"));
    let changes = (0..510).map(|n| {
        let admin = site.admin();
        let long: Vec<String> = (0..100).map(|i| format!("/{n}/{i}/{}", "x".repeat(180))).collect();
        let path = path.clone();
        async move { admin.patch(&path, json!({"allowed_paths": long})).await.done() }
    });
    futures_util::future::join_all(changes).await;

    for (what, goes_on) in [("nothing", true), ("demoted", false), ("suspended", false), ("signed out", false)] {
        let (reader, assignment_path) = second_administrator(&site).await;
        let uid = reader.get("/me").await.data()["uid"].as_str().expect("a uid").to_owned();
        let token = reader.headers()[0].1.strip_prefix("Bearer ").expect("a token").to_owned();
        let last = site.last_audit_entry().await["id"].clone();
        let happens = async {
            let admin = site.admin();
            match what {
                "demoted" => admin.clone().with("x-tenant-id", "platform").delete(&assignment_path).await.done(),
                "suspended" => admin.post(&format!("/admin/members/{uid}/deactivate"), json!({})).await.done(),
                "signed out" => reader.post("/auth/logout", json!({})).await.done(),
                _ => {}
            }
            admin
                .post(
                    "/admin/organizations",
                    json!({"org_code": format!("later-{}", what.replace(' ', "-")), "name": "O"}),
                )
                .await
                .done();
        };

        let (rest, is_whole) = export_around(&site, &token, happens).await;

        assert_eq!(is_whole, goes_on, "{what}");
        assert_eq!(rest.contains(&format!("\"id\":{last},")), goes_on, "{what}");
        assert!(!rest.contains(&format!("\"id\":{},", last.as_i64().expect("a number") + 1)), "{what}");
    }
}

// ── the chain ──

#[tokio::test]
async fn a_sound_chain_is_verified_and_its_head_can_be_noted() {
    let site = Site::start().await;
    site.organization("acme").await;

    let (code, found) = verify_id_token(&site);

    let last = site.last_audit_entry().await;
    assert_eq!((code, &found["ok"]), (Some(0), &json!(true)));
    assert_eq!((&found["entries"], &found["last_hash"]), (&last["id"], &last["hash"]));
    assert_eq!(site.admin().get("/admin/audit/verify").await.data(), found);
}

#[tokio::test]
async fn a_change_of_any_column_of_an_entry_is_detected() {
    let site = Site::start().await;
    site.organization("acme").await;
    let id = site.rows().query_row(
        "select min(id) from audit where organization_id is not null and after is not null",
        [],
        |row| row.get::<_, i64>(0),
    );
    let id = id.unwrap();
    tamper(&site, "create table kept as select * from audit");

    for change in [
        "at = at + 1",
        "actor_kind = 'gateway'",
        "actor = 'mallory'",
        "action = 'x'",
        "target = 'x'",
        "organization_id = null",
        "outcome = 'denied'",
        "before = '{}'",
        "after = null",
        "request_id = 'x'",
        "address = '192.0.2.1'",
        "hash = zeroblob(32)",
    ] {
        tamper(&site, &format!("update audit set {change} where id = {id}"));
        let (code, found) = verify_id_token(&site);
        assert_eq!((code, &found["ok"], &found["broken_at"]), (Some(1), &json!(false), &json!(id)), "{change}");
        tamper(
            &site,
            &format!("delete from audit where id = {id}; insert into audit select * from kept where id = {id}"),
        );
    }
    tamper(&site, "drop table kept");
    assert_eq!(verify_id_token(&site).0, Some(0));
}

#[tokio::test]
async fn a_removed_entry_is_detected() {
    let site = Site::start().await;
    site.organization("acme").await;
    let (_, whole) = verify_id_token(&site);
    let last = whole["entries"].as_i64().unwrap();
    tamper(&site, "create table kept as select * from audit");

    for (removed, broken_at) in [("id = 1", json!(2)), ("id = 3", json!(4)), ("id between 2 and 3", json!(4))] {
        tamper(&site, &format!("delete from audit where {removed}"));
        let (code, found) = verify_id_token(&site);
        assert_eq!((code, &found["broken_at"]), (Some(1), &broken_at), "{removed}");
        tamper(&site, &format!("insert into audit select * from kept where {removed}"));
    }
    // A chain whose last entries were removed is consistent in itself. Only the noted head reveals it.
    tamper(&site, &format!("delete from audit where id = {last}"));
    let (code, cut) = verify_id_token(&site);
    assert_eq!((code, &cut["entries"]), (Some(0), &json!(last - 1)));
    assert_ne!(cut["last_hash"], whole["last_hash"]);
    tamper(&site, &format!("insert into audit select * from kept where id = {last}; drop table kept"));
}

#[tokio::test]
async fn parallel_changes_make_one_chain() {
    let site = Site::start().await;
    let changes = (0..30).map(|n| {
        let admin = site.admin();
        async move { admin.post("/admin/organizations", json!({"org_code": format!("o{n}"), "name": "O"})).await.done() }
    });

    futures_util::future::join_all(changes).await;

    assert_eq!(site.admin().get("/admin/audit?action=organization.create").await.data()["total"], 30);
    assert_eq!(verify_id_token(&site).0, Some(0));
}
