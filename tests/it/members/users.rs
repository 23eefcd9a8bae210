//! Users: members with their external names, quota and key, created and changed by one request.

use serde_json::{Value, json};

use crate::harness::callers::{As, Reply};
use crate::harness::site::Site;

const USERS: &str = "/api/v1/admin/users";
const DEFAULT_BYTES: i64 = 10_737_418_240;

fn kim() -> Value {
    json!({"wordpress_id": 17, "username": "kim", "email": "kim@example.org"})
}

async fn create(site: &Site, body: Value) -> Value {
    site.admin().post(USERS, body).await.data()
}

fn at(user: &Value) -> String {
    format!("{USERS}/{}", user["id"].as_str().expect("id"))
}

fn with_key<'s>(site: &'s Site, user: &Value) -> As<'s> {
    site.nobody().with("x-api-key", user["api_key"].as_str().expect("a key"))
}

/// Kinds of all events so far, with their data.
fn events(site: &Site) -> Vec<(String, Value)> {
    let rows = site.rows();
    let mut found = rows.prepare("select kind, data from events order by id").expect("events");
    let pairs = found.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?))).expect("rows");
    pairs
        .map(|pair| pair.map(|(kind, data)| (kind, serde_json::from_str(&data).expect("JSON"))).expect("row"))
        .collect()
}

/// Kinds of all events about a member so far.
fn kinds_about(site: &Site, uid: &str) -> Vec<String> {
    let member = uuid::Uuid::parse_str(uid).expect("uid").into_bytes();
    let rows = site.rows();
    let mut found = rows.prepare("select kind from events where member_id = ?1 order by id").expect("events");
    found.query_map([member], |row| row.get(0)).expect("rows").map(|kind| kind.expect("row")).collect()
}

#[tokio::test]
async fn one_request_creates_a_member_with_names_quota_membership_and_key() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let body = json!({
        "wordpress_id": 17, "username": "Kim.L", "email": "kim@example.org", "display_name": "Kim", "quota_size": 5,
        "sftpgo_username": "kim-videos", "org_code": "acme", "welcome": true,
    });

    let made = create(&site, body).await;

    let uid = made["id"].as_str().expect("id");
    assert!(made["api_key"].as_str().expect("key").starts_with("muser_"));
    let me = with_key(&site, &made).get("/me").await.data();
    assert_eq!((&me["uid"], &me["organizations"][0]["id"]), (&made["id"], &json!(acme.id)));
    let shown = site.admin().get(&at(&made)).await.data();
    for (name, value) in [
        ("wordpress_id", json!(17)),
        ("username", json!("Kim.L")),
        ("email", json!("kim@example.org")),
        ("display_name", json!("Kim")),
        ("quota_size", json!(5)),
        ("quota_used", json!(0)),
        ("sftpgo_username", json!("kim-videos")),
        ("organization_id", json!(acme.id)),
        ("status", json!("active")),
        ("status_reason", Value::Null),
    ] {
        assert_eq!(shown[name], value, "{name}");
    }
    assert!(shown.get("api_key").is_none());
    let listed = acme.owner().get(&format!("{USERS}?keyword=kim")).await.data();
    assert_eq!((&listed["total"], &listed["items"][0]), (&json!(1), &shown));
    let told = events(&site);
    assert_eq!(kinds_about(&site, uid), ["member.created", "member.welcomed", "quota.changed"]);
    assert!(told.iter().all(|(_, data)| !data.to_string().contains("kim")), "{told:?}");
    // Names are read when the log is read; its rows have none.
    let mut audited = site.last_audit_entry().await;
    let entry = audited.as_object_mut().expect("an entry");
    assert_eq!(entry.remove("target_name"), Some(json!("Kim")));
    entry.remove("actor_name");
    let audited = audited.to_string();
    assert!(!audited.contains("example.org") && !audited.contains("Kim"), "{audited}");
}

#[tokio::test]
async fn omitted_fields_take_their_defaults() {
    let site = Site::start().await;
    let made = create(&site, json!({"username": "kim", "email": "kim@example.org"})).await;
    for (name, value) in [
        ("sftpgo_username", json!("kim")),
        ("quota_size", json!(DEFAULT_BYTES)),
        ("quota_used", json!(0)),
        ("wordpress_id", Value::Null),
        ("organization_id", Value::Null),
    ] {
        assert_eq!(made[name], value, "{name}");
    }
    assert!(events(&site).iter().all(|(kind, _)| kind != "member.welcomed"));
    assert_eq!(site.number("select count(*) from quotas where size is null"), 1);
}

#[tokio::test]
async fn all_taken_names_are_reported_together_and_nothing_is_created() {
    let site = Site::start().await;
    create(&site, kim()).await;
    let members = site.number("select count(*) from members");
    let conflict = async |body: Value| -> Reply { site.admin().post(USERS, body).await };

    let all = conflict(kim()).await;
    assert_eq!((all.is(29_303_000).status, all.word()), (409, "username_exists"));
    assert_eq!(all.fields(), ["body.email", "body.sftpgo_username", "body.username", "body.wordpress_id"]);
    let fresh = json!({"username": "lee", "email": "lee@example.org"});
    for (name, value, word) in [
        ("email", json!("KIM@example.org"), "email_exists"),
        ("username", json!("KIM"), "username_exists"),
        ("wordpress_id", json!(17), "wordpress_id_exists"),
        ("sftpgo_username", json!("kim"), "sftpgo_username_exists"),
    ] {
        let mut body = fresh.clone();
        body[name] = value;
        body["sftpgo_username"] = body.get("sftpgo_username").cloned().unwrap_or(json!("lee"));
        let reply = conflict(body).await;
        assert_eq!((reply.is(29_303_000).word(), reply.fields()), (word, vec![format!("body.{name}")]));
    }
    // A member without another folder may own the folder of its username.
    site.admin().post("/admin/members", json!({"username": "max"})).await.done();
    let mut body = fresh.clone();
    body["sftpgo_username"] = json!("max");
    assert_eq!(conflict(body).await.word(), "sftpgo_username_exists");
    assert_eq!(site.number("select count(*) from members"), members + 1);
    create(&site, fresh).await;
}

#[tokio::test]
async fn a_name_that_becomes_a_folder_has_strict_rules() {
    let site = Site::start().await;
    let body = |username: &str| json!({"username": username, "email": format!("{username}@example.org")});
    for username in ["Kim", "ki", &"a".repeat(61)] {
        let reply = site.admin().post(USERS, body(username)).await;
        assert_eq!(reply.is(10_101_000).fields(), ["body.sftpgo_username"], "{username}");
    }
    for name in ["Kim", "ki", "../x", "a/b", ".a1", ""] {
        let mut body = body("lee");
        body["sftpgo_username"] = json!(name);
        let mut found = site.admin().post(USERS, body).await.is(10_101_000).fields();
        // Too short, and malformed.
        found.dedup();
        assert_eq!(found, ["body.sftpgo_username"], "{name}");
    }
    create(&site, body(&"a".repeat(60))).await;
    create(&site, body("abc")).await;
    let wrong = json!({"username": "", "email": "x", "wordpress_id": 0, "quota_size": -1, "role": "admin"});
    let fields = ["body.email", "body.quota_size", "body.role", "body.username", "body.wordpress_id"];
    let reply = site.admin().post(USERS, wrong).await;
    let mut found = reply.is(10_101_000).fields();
    found.dedup();
    assert_eq!(found, fields);
    let nowhere = json!({"username": "joe", "email": "joe@example.org", "org_code": "nowhere"});
    assert_eq!(site.admin().post(USERS, nowhere).await.is(29_301_000).word(), "organization_not_found");
}

#[tokio::test]
async fn a_repeated_request_creates_no_second_member_and_shows_no_key_again() {
    let site = Site::start().await;
    let once = site.admin().with("idempotency-key", "one");
    once.post(USERS, kim()).await.done();
    assert_eq!(once.post(USERS, kim()).await.is(32_309_000).word(), "secret_not_kept");
    assert_eq!(site.number("select count(*) from identities where provider = 'sftpgo'"), 1);
}

#[tokio::test]
async fn an_update_changes_only_its_fields() {
    let site = Site::start().await;
    let made = create(&site, kim()).await;
    let path = at(&made);
    let etag = site.admin().get(&path).await.header("etag").expect("a tag").to_owned();

    let changed = site.admin().patch(&path, json!({"quota_size": 7, "wordpress_id": 18})).await.data();
    assert_eq!((&changed["quota_size"], &changed["wordpress_id"]), (&json!(7), &json!(18)));
    assert_eq!((&changed["email"], &changed["sftpgo_username"]), (&json!("kim@example.org"), &json!("kim")));
    let stale = site.admin().with("if-match", &etag).patch(&path, json!({"quota_size": 8})).await;
    assert_eq!(stale.is(10_310_000).word(), "version_stale");
    let cleared = site.admin().patch(&path, json!({"quota_size": null, "wordpress_id": null})).await.data();
    assert_eq!((&cleared["quota_size"], &cleared["wordpress_id"]), (&json!(DEFAULT_BYTES), &Value::Null));
    let told: Vec<Value> = events(&site)
        .into_iter()
        .filter(|(kind, _)| kind == "quota.changed")
        .map(|(_, data)| data["size"].clone())
        .collect();
    assert_eq!(told, [json!(7), json!(DEFAULT_BYTES)]);
    let audit = site.last_audit_entry().await["id"].clone();
    site.admin().patch(&path, json!({"email": "kim@example.org"})).await.done();
    assert_eq!(site.last_audit_entry().await["id"], audit);
    create(&site, json!({"username": "lee", "email": "lee@example.org", "wordpress_id": 19})).await;
    let taken = site.admin().patch(&path, json!({"email": "lee@example.org", "wordpress_id": 19})).await;
    assert_eq!(taken.is(29_303_000).fields(), ["body.email", "body.wordpress_id"]);
}

#[tokio::test]
async fn a_member_without_a_folder_gets_one_that_stays() {
    let site = Site::start().await;
    create(&site, kim()).await;
    let lee = site.admin().post("/admin/members", json!({"username": "lee"})).await.data()["uid"].clone();
    let path = format!("{USERS}/{}", lee.as_str().expect("uid"));
    let name = |name: &str| json!({"sftpgo_username": name});
    for (name, error) in [(name("kim"), 29_303_000), (name("Lee"), 10_101_000), (name("lee b"), 10_101_000)] {
        assert_eq!(site.admin().patch(&path, name).await.is(error).fields(), ["body.sftpgo_username"]);
    }
    assert_eq!(site.admin().patch(&path, name("lee-b")).await.data()["sftpgo_username"], "lee-b");
    site.admin().patch(&path, name("lee-b")).await.done();
    let renamed = site.admin().patch(&path, name("lee-c")).await;
    assert_eq!(renamed.is(29_303_000).fields(), ["body.sftpgo_username"]);
    assert_eq!(kinds_about(&site, lee.as_str().expect("uid")), ["member.created", "member.updated"]);
}

#[tokio::test]
async fn a_suspended_user_has_no_access_until_it_is_activated() {
    let site = Site::start().await;
    let made = create(&site, kim()).await;
    let path = at(&made);
    let suspended = json!({"status": "suspended", "reason": "left"});

    let reason_alone = site.admin().patch(&path, json!({"reason": "left"})).await;
    assert_eq!(reason_alone.is(10_101_000).fields(), ["body.reason"]);
    let shown = site.admin().patch(&path, suspended.clone()).await.data();
    assert_eq!((&shown["status"], &shown["status_reason"]), (&json!("suspended"), &json!("left")));
    with_key(&site, &made).get("/me").await.is(33_505_000);
    site.admin().patch(&path, suspended).await.done();
    let shown = site.admin().patch(&path, json!({"status": "active"})).await.data();
    assert_eq!((&shown["status"], &shown["status_reason"]), (&json!("active"), &Value::Null));
    with_key(&site, &made).get("/me").await.done();
    let kinds = kinds_about(&site, made["id"].as_str().expect("id"));
    assert_eq!(kinds, ["member.created", "member.suspended", "member.activated"]);
}

#[tokio::test]
async fn an_erased_user_s_event_names_its_account_and_its_folder_is_free() {
    let site = Site::start().await;
    let made = create(&site, kim()).await;
    site.admin().delete(&at(&made)).await.done();
    let gone = site.admin().get(&at(&made)).await.data();
    for name in ["username", "email", "wordpress_id", "sftpgo_username"] {
        assert_eq!(gone[name], Value::Null, "{name}");
    }
    assert_eq!(gone["status"], "deleted");
    with_key(&site, &made).get("/me").await.is(32_501_000);
    assert_eq!(site.admin().patch(&at(&made), json!({"quota_size": 1})).await.is(29_309_000).word(), "member_deleted");
    let told = events(&site).pop().expect("an event");
    assert_eq!(told, ("member.deleted".into(), json!({"sftpgo_username": "kim"})));
    create(&site, kim()).await;
}

#[tokio::test]
async fn members_created_and_changed_by_other_operations_are_events_too() {
    let site = Site::start().await;
    let uid = site.admin().post("/admin/members", json!({"username": "kim"})).await.data()["uid"].clone();
    let path = format!("/admin/members/{}", uid.as_str().expect("uid"));
    site.admin().patch(&path, json!({"display_name": "Kim"})).await.done();
    site.admin().post(&format!("{path}/deactivate"), json!({})).await.done();
    site.admin().post(&format!("{path}/activate"), json!({})).await.done();
    site.admin().delete(&path).await.done();
    let kinds = kinds_about(&site, uid.as_str().expect("uid"));
    let expected = ["member.created", "member.updated", "member.suspended", "member.activated", "member.deleted"];
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn users_are_created_by_the_site_and_quotas_require_their_permission() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    acme.owner().post(USERS, kim()).await.is(29_505_000);
    let members = site.client(&["members:write"]).await;
    let with_quota = |name: &str| json!({"username": name, "email": format!("{name}@example.org"), "quota_size": 1});
    assert_eq!(members.post(USERS, with_quota("lee")).await.word(), "scope_not_allowed");
    members.post(USERS, kim()).await.done();
    site.client(&["members:write", "quotas:write"]).await.post(USERS, with_quota("lee")).await.done();
    let named = members.clone().with("x-tenant-id", "acme");
    named.post(USERS, json!({"username": "max", "email": "m@x.org"})).await.is(29_505_000);
    let platform = json!({"username": "max", "email": "m@x.org", "org_code": "platform"});
    members.post(USERS, platform).await.is(29_505_000);
}
