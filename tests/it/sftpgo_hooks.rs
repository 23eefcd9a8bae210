//! SFTPGo's hooks as SFTPGo calls them: who comes in, what it tells of files, and whose folder is settled by that.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::counterparts::Sftpgo;
use crate::sftpgo::{event, hook, kim, paths, size, tell, until_settled, used};
use crate::site::{PASSWORD, Site};

/// Waits until SFTPGo's own calls, which nobody waits for, have brought kim's usage here.
async fn until_used(site: &Site, bytes: i64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while used(site).await != bytes {
        assert!(Instant::now() < deadline, "{} instead of {bytes}", used(site).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn login(site: &Site, body: Value) -> Value {
    let reply = hook(site).post("/api/v1/hooks/sftpgo/auth", body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.body["username"].clone()
}

async fn sftpgo_name(site: &Site, uid: &str) -> Value {
    site.admin().get(&format!("/admin/users/{uid}")).await.data()["sftpgo_username"].clone()
}

#[tokio::test]
async fn what_people_do_at_sftpgo_is_counted() {
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&sftpgo.settings()).await;
    kim(&site, 100).await;
    sftpgo.call(&site).await;
    let come_in = async |password: &str| sftpgo.lab("login", json!({"username": "kim", "password": password})).await.0;
    assert_eq!((come_in("Wrong-horse-7").await, come_in(PASSWORD).await), (401, 200));
    let act = async |what: &str, more: Value| {
        let mut body = json!({"username": "kim"});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        sftpgo.lab(what, body).await.0
    };
    // Nothing is free: what SFTPGo itself would let pass is refused before it begins.
    let kim = site.bearer(&site.token("kim", PASSWORD).await);
    let reserved = kim.post("/api/v1/quota/reservations", json!({"size": 100})).await.data();
    assert_eq!(act("upload", json!({"path": "/a.mp4", "size": 1})).await, 403);
    let release = format!("/api/v1/quota/reservations/{}/release", reserved["id"].as_str().expect("id"));
    kim.post(&release, json!({})).await.done();
    assert_eq!(act("upload", json!({"path": "/a.mp4", "size": 100})).await, 200);
    until_used(&site, 100).await;
    assert_eq!(act("rename", json!({"path": "/a.mp4", "target": "/b.mp4"})).await, 200);
    let deadline = Instant::now() + Duration::from_secs(20);
    while paths(&site).await != ["kim/b.mp4"] {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(act("delete", json!({"path": "/b.mp4"})).await, 200);
    until_used(&site, 0).await;
}

#[tokio::test]
async fn what_sftpgo_tells_while_we_are_busy_counts_once_when_it_tells_again() {
    let sftpgo = Sftpgo::start(&["--hook-wait", "0.2"]);
    let site = Site::with(&sftpgo.settings()).await;
    kim(&site, 1_000).await;
    sftpgo.until("kim", Value::is_object).await;
    sftpgo.call(&site).await;
    let rows = rusqlite::Connection::open(site.path().join("roster.db")).expect("the file");
    rows.busy_timeout(Duration::from_secs(10)).expect("patience");
    rows.execute_batch("begin immediate").expect("a lock");
    assert_eq!(sftpgo.lab("upload", json!({"username": "kim", "path": "/a.mp4", "size": 100})).await.0, 200);
    let told = async || {
        let log = sftpgo.lab("log", json!({})).await.1;
        let calls = log.as_array().expect("calls").iter().filter(|call| call["body"]["action"] == "upload");
        calls.map(|call| call["status"].as_u64().expect("a status")).collect::<Vec<_>>()
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while told().await.is_empty() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rows.execute_batch("rollback").expect("the end of the lock");

    until_used(&site, 100).await;
    assert_eq!(told().await, [503, 200]);
    assert_eq!(paths(&site).await, ["kim/a.mp4"]);
}

#[tokio::test]
async fn an_account_that_came_by_a_username_follows_its_member_from_then_on() {
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&sftpgo.settings()).await;
    let body = json!({"username": "lee", "email": "lee@example.org", "password": PASSWORD});
    let uid = site.admin().post("/admin/members", body).await.data()["uid"].as_str().expect("uid").to_owned();
    let member = format!("/admin/members/{uid}");
    sftpgo.call(&site).await;
    assert_eq!(sftpgo.lab("login", json!({"username": "lee", "password": "Wrong-horse-7"})).await.0, 401);
    assert_eq!(sftpgo_name(&site, &uid).await, Value::Null);

    assert_eq!(sftpgo.lab("login", json!({"username": "lee", "password": PASSWORD})).await.0, 200);

    assert_eq!(sftpgo_name(&site, &uid).await, "lee");
    site.admin().post(&format!("{member}/deactivate"), json!({})).await.done();
    sftpgo.until("lee", |user| user["status"] == 0).await;
    let drift = site.admin().get("/admin/sftpgo/drift").await.data();
    let empty = json!({"members": 1, "users": 1, "missing": [], "orphaned": [], "foreign": [], "conflicts": [], "differing": []});
    assert_eq!(drift, empty);
    // Another name here moves no folder there.
    site.admin().post(&format!("{member}/activate"), json!({})).await.done();
    sftpgo.until("lee", |user| user["status"] == 1).await;
    site.admin().patch(&member, json!({"username": "leonie"})).await.done();
    assert_eq!(sftpgo.lab("login", json!({"username": "lee", "password": PASSWORD})).await.0, 200);
    assert_eq!(sftpgo.lab("login", json!({"username": "leonie", "password": PASSWORD})).await.0, 401);
    site.admin().delete(&member).await.done();
    sftpgo.until("lee", |user| user["status"] == 0).await;
}

#[tokio::test]
async fn who_uses_a_folder_for_good_keeps_it() {
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&sftpgo.settings()).await;
    let service = site.admin().post("/admin/api-keys", json!({"service_name": "up", "scopes": ["videos:write"]})).await;
    let key = service.data()["api_key"].as_str().expect("a key").to_owned();
    for what in ["pre-login", "upload", "register", "nothing"] {
        let member = site.member().await;
        let name = member.username.clone();
        match what {
            "pre-login" => {
                let reply =
                    hook(&site).post("/api/v1/hooks/sftpgo/pre-login", json!({"id": 0, "username": name})).await;
                assert_eq!(reply.body["username"], json!(name));
            }
            "upload" => {
                let told = event("upload", "/a.mp4", 1, json!({"username": name, "file_size": 1}));
                assert_eq!(tell(&site, told).await.body, json!({"status": "ok"}));
            }
            "register" => {
                let service = site.nobody().with("x-api-key", &key).with("x-sftpgo-user", &name);
                service.post("/api/v1/register", json!({"path": format!("{name}/a.mp4"), "size": 1})).await.done();
            }
            _ => {}
        }
        let expected = if what == "nothing" { Value::Null } else { json!(name) };
        assert_eq!(sftpgo_name(&site, &member.uid).await, expected, "{what}");
    }
    until_settled(&site).await;
    assert_eq!(site.admin().get("/admin/sftpgo/drift").await.data()["missing"], json!([]));
}

#[tokio::test]
async fn who_may_not_come_in_does_not() {
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&sftpgo.settings()).await;
    let uid = kim(&site, 1_000).await;
    let lee = site.member().await;
    let made = lee.caller().post("/me/api-keys", json!({"name": "k", "scopes": ["videos:write"]})).await.data();
    let key = made["api_key"].as_str().expect("a key");
    let with = |password: &str| json!({"username": "kim", "ip": "192.0.2.7", "password": password});
    assert_eq!(login(&site, with(key)).await, "");
    // Some versions send the account as text.
    let mut known = json!({"username": "kim", "additional_info": "another"});
    let as_text = |account: &Value| json!({"username": "kim", "password": PASSWORD, "user": account.to_string()});
    assert_eq!(login(&site, as_text(&known)).await, "");
    known["additional_info"] = json!(uid);
    assert_eq!(login(&site, as_text(&known)).await, "kim");
    assert_eq!(login(&site, with(PASSWORD)).await, "kim");
    site.admin().post(&format!("/admin/members/{uid}/deactivate"), json!({})).await.done();
    assert_eq!(login(&site, with(PASSWORD)).await, "");
    for name in ["auth", "pre-login", "events"] {
        let path = format!("/api/v1/hooks/sftpgo/{name}");
        assert_eq!(hook(&site).post(&path, json!([])).await.status, 400, "{name}");
    }
    // Without a key of the hook nobody can show the right one; a service of this site can come otherwise, but not ask this.
    let site = Site::start().await;
    let auth = "/api/v1/hooks/sftpgo/auth";
    assert_eq!(site.nobody().with("x-hook-key", "").post(auth, with(PASSWORD)).await.status, 501);
    assert_eq!(site.internal().post(auth, with(PASSWORD)).await.status, 501);
    let events = "/api/v1/hooks/sftpgo/events";
    site.nobody().post(events, json!({})).await.is(33_501_000);
    let wrong = site.nobody().with("x-internal-secret", "wrong-internal-secret").post(events, json!({})).await;
    assert_eq!(wrong.word(), "invalid_internal_secret");
}

#[tokio::test]
async fn after_a_failed_upload_what_is_left_of_the_file_counts() {
    let media = tempfile::tempdir().expect("a directory");
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&format!("{}media_root = {:?}\n", sftpgo.settings(), media.path())).await;
    kim(&site, 1_000).await;
    let file = media.path().join("kim/a.mp4");
    std::fs::create_dir_all(media.path().join("kim/folder")).expect("folders");
    let lies = |bytes: usize| std::fs::write(&file, "x".repeat(bytes)).expect("written");
    let failed = async |path: &str, at: i64, status: i64| -> Value {
        tell(&site, event("upload", path, at, json!({"status": status, "file_size": 999}))).await.body
    };
    let ignored = |why: &str| json!({"status": "ignored", "reason": why});
    lies(40);
    tell(&site, event("upload", "/a.mp4", 10, size(40))).await;
    assert_eq!(used(&site).await, 40);

    lies(10);
    assert_eq!(failed("/a.mp4", 20, 2).await, json!({"status": "ok"}));
    assert_eq!(used(&site).await, 10);
    assert_eq!(failed("/a.mp4", 20, 2).await, ignored("it was told before"));
    // What happened since is known better, and what cannot be looked at tells nothing.
    lies(5);
    assert_eq!(failed("/a.mp4", 15, 2).await, ignored("something later is known already"));
    assert_eq!(failed("/folder", 30, 2).await, ignored("the file cannot be looked at"));
    std::fs::remove_file(&file).expect("removed");
    assert_eq!(failed("/new.mp4", 30, 2).await, ignored("there is no such video"));
    assert_eq!((used(&site).await, paths(&site).await), (10, vec!["kim/a.mp4".into()]));

    assert_eq!(failed("/a.mp4", 40, 3).await, json!({"status": "ok"}));
    assert_eq!((used(&site).await, paths(&site).await), (0, vec![]));
    let refused: i64 = site
        .rows()
        .query_row("select count(*) from events where kind = 'quota.exceeded'", [], |row| row.get(0))
        .expect("a count");
    assert_eq!(refused, 1);
    assert_eq!(site.command(&["quota", "recount"])["drift"], 0);
}
