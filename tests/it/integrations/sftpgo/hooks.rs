//! SFTPGo's hooks as SFTPGo calls them: logins and file events.

use std::time::Duration;

use serde_json::{Value, json};

use super::accounts::{event, hook, kim, paths, size, tell, to, until_settled, used};
use crate::harness::counterparts::Sftpgo;
use crate::harness::site::{PASSWORD, Site};
use crate::harness::waiting::eventually;

/// Waits until the events that SFTPGo sends asynchronously have set kim's usage to this.
async fn until_used(site: &Site, bytes: i64) {
    eventually(&format!("{bytes} are used"), async || used(site).await == bytes).await;
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
async fn uploads_and_deletions_at_sftpgo_change_the_usage() {
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
    // No bytes are free: the hook refuses an upload that SFTPGo alone would accept.
    let kim = site.bearer(&site.token("kim", PASSWORD).await);
    let reserved = kim.post("/api/v1/quota/reservations", json!({"size": 100})).await.data();
    assert_eq!(act("upload", json!({"path": "/a.mp4", "size": 1})).await, 403);
    let release = format!("/api/v1/quota/reservations/{}/release", reserved["id"].as_str().expect("id"));
    kim.post(&release, json!({})).await.done();
    assert_eq!(act("upload", json!({"path": "/a.mp4", "size": 100})).await, 200);
    until_used(&site, 100).await;
    assert_eq!(act("rename", json!({"path": "/a.mp4", "target": "/b.mp4"})).await, 200);
    eventually("the file is renamed", async || paths(&site).await == ["kim/b.mp4"]).await;
    assert_eq!(act("delete", json!({"path": "/b.mp4"})).await, 200);
    until_used(&site, 0).await;
}

#[tokio::test]
async fn an_event_repeated_after_a_busy_answer_is_applied_once() {
    let sftpgo = Sftpgo::start(&["--hook-wait", "0.2"]);
    let site = Site::with(&sftpgo.settings()).await;
    kim(&site, 1_000).await;
    sftpgo.eventually("kim", Value::is_object).await;
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
    eventually("the upload is told", async || !told().await.is_empty()).await;
    rows.execute_batch("rollback").expect("the end of the lock");

    until_used(&site, 100).await;
    assert_eq!(told().await, [503, 200]);
    assert_eq!(paths(&site).await, ["kim/a.mp4"]);
}

#[tokio::test]
async fn a_username_gives_no_sftpgo_login_until_an_administrator_sets_it_as_the_sftpgo_name() {
    let sftpgo = Sftpgo::start(&[]);
    let theirs = json!({"username": "lee", "home_dir": "/srv/shared", "permissions": {"/": ["list"]}, "status": 1});
    sftpgo.lab("put", theirs).await;
    let before = sftpgo.user("lee").await;
    let site = Site::with(&sftpgo.settings()).await;
    let body = json!({"username": "lee", "email": "lee@example.org", "password": PASSWORD});
    let uid = site.admin().post("/admin/members", body).await.data()["uid"].as_str().expect("uid").to_owned();
    sftpgo.call(&site).await;
    let come_in = async || sftpgo.lab("login", json!({"username": "lee", "password": PASSWORD})).await.0;
    let uploaded = |at: i64| event("upload", "/a.mp4", at, json!({"username": "lee", "file_size": 5}));
    let prepared = async |body: Value| hook(&site).post("/api/v1/hooks/sftpgo/pre-login", body).await.status;

    assert_eq!(come_in().await, 401);
    for id in [0, 1] {
        assert_eq!(prepared(json!({"id": id, "username": "lee"})).await, 204);
    }
    for told in [uploaded(1), event("pre-upload", "/a.mp4", 2, json!({"username": "lee"}))] {
        let heard = tell(&site, told).await.body;
        assert_eq!(heard, json!({"status": "ignored", "reason": "no member has this name"}));
    }
    // A service may still register videos for it, which does not make it a name at SFTPGo.
    let service = site.admin().post("/admin/api-keys", json!({"service_name": "up", "scopes": ["videos:write"]})).await;
    let key = service.data()["api_key"].as_str().expect("a key").to_owned();
    let service = site.nobody().with("x-api-key", &key).with("x-sftpgo-user", "lee");
    service.post("/api/v1/register", json!({"path": "lee/b.mp4", "size": 1})).await.done();
    until_settled(&site).await;
    site.command(&["sftpgo", "reconcile"]);
    assert_eq!(sftpgo_name(&site, &uid).await, Value::Null);
    assert_eq!(sftpgo.user("lee").await, before);
    assert_eq!(site.admin().get("/admin/sftpgo/drift").await.data()["foreign"], json!(["lee"]));

    site.admin().patch(&format!("/admin/users/{uid}"), json!({"sftpgo_username": "lee"})).await.done();

    sftpgo.eventually("lee", |user| user["additional_info"] == json!(uid)).await;
    assert_eq!(come_in().await, 200);
    assert_eq!(tell(&site, uploaded(3)).await.body, json!({"status": "ok"}));
    assert_eq!(paths(&site).await, ["lee/a.mp4", "lee/b.mp4"]);
    // A change of the username does not change the folder.
    site.admin().patch(&format!("/admin/members/{uid}"), json!({"username": "leonie"})).await.done();
    assert_eq!(come_in().await, 200);
}

#[tokio::test]
async fn an_erased_members_account_is_disabled_before_anybody_can_sign_in_with_it() {
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&sftpgo.settings()).await;
    let uid = kim(&site, 1_000).await;
    let account = |status: i64| json!({"id": 7, "username": "kim", "status": status, "email": "k@example.org", "additional_info": uid});
    let prepared = async |body: Value| hook(&site).post("/api/v1/hooks/sftpgo/pre-login", body).await;
    assert_eq!(prepared(account(1)).await.body["status"], 1);
    site.admin().delete(&format!("/admin/members/{uid}")).await.done();

    assert_eq!(prepared(account(1)).await.body, account(0));
    assert_eq!(prepared(account(0)).await.status, 204);
    let stranger =
        json!({"id": 7, "username": "kim", "status": 1, "additional_info": uuid::Uuid::now_v7().to_string()});
    assert_eq!(prepared(stranger).await.status, 204);
}

#[tokio::test]
async fn a_failing_account_delays_no_other() {
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&sftpgo.settings().replace("outbox.backoff_s = 0", "outbox.backoff_s = 3600")).await;
    sftpgo.lab("behave", json!({"fail": 1, "status": 500})).await;
    kim(&site, 1_000).await;
    let waits = async || {
        let list = site.command(&["outbox", "list", "--target", "sftpgo", "--state", "pending"]);
        list["items"].as_array().expect("items").iter().any(|row| row["last_error"].is_string())
    };
    eventually("a delivery waits", waits).await;

    let new = json!({"username": "lee", "email": "lee@example.org"});
    site.admin().post("/admin/users", new).await.done();

    sftpgo.eventually("lee", Value::is_object).await;
    assert!(sftpgo.user("kim").await.is_null() && waits().await);
    let metrics = site.metrics();
    let line = "roster_deliveries_total{outcome=\"failed\",target=\"sftpgo\"} 1";
    assert!(metrics.lines().any(|found| found == line), "{metrics}");
}

#[tokio::test]
async fn logins_that_the_hook_refuses_fail() {
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
    // Without a configured hook key every key is refused; a service's key does not give access to the hook.
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
async fn after_a_failed_upload_the_remaining_bytes_count() {
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
    assert_eq!(failed("/a.mp4", 20, 2).await, ignored("this event was handled before"));
    // Later events are more exact, and a file that cannot be measured changes nothing.
    lies(5);
    assert_eq!(failed("/a.mp4", 15, 2).await, ignored("a later event for this path was handled before"));
    assert_eq!(failed("/folder", 30, 2).await, ignored("the file cannot be measured"));
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

#[tokio::test]
async fn a_size_is_kept_when_the_rename_arrives_before_its_upload() {
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&sftpgo.settings()).await;
    kim(&site, 1_000).await;
    let late = json!({"status": "ignored", "reason": "a later event for this path was handled before"});
    let told = async |event: Value| tell(&site, event).await.body;
    let done = json!({"status": "ok"});
    assert_eq!(told(event("upload", "/a.mp4", 10, size(10))).await, done);

    assert_eq!(told(event("rename", "/a.mp4", 50, to("/b.mp4"))).await, done);
    assert_eq!(told(event("upload", "/a.mp4", 40, size(30))).await, done);
    assert_eq!((used(&site).await, paths(&site).await), (30, vec!["kim/b.mp4".into()]));
    // Events from before that upload, or from before the file came to this path, are outdated.
    assert_eq!(told(event("upload", "/a.mp4", 30, size(7))).await, late);
    assert_eq!(told(event("upload", "/b.mp4", 45, size(8))).await, late);
    assert_eq!(told(event("delete", "/b.mp4", 45, json!({}))).await, late);
    assert_eq!(used(&site).await, 30);

    // A rename with a size reflects every earlier upload.
    let renamed = json!({"virtual_target_path": "/x/c.mp4", "file_size": 40});
    assert_eq!(told(event("rename", "/b.mp4", 70, renamed)).await, done);
    assert_eq!(told(event("upload", "/b.mp4", 60, size(9))).await, late);
    assert_eq!((used(&site).await, paths(&site).await), (40, vec!["kim/x/c.mp4".into()]));

    // The same for a folder.
    assert_eq!(told(event("rename", "/x", 90, to("/y"))).await, done);
    assert_eq!(told(event("upload", "/x/c.mp4", 80, size(50))).await, done);
    assert_eq!((used(&site).await, paths(&site).await), (50, vec!["kim/y/c.mp4".into()]));
    assert_eq!(site.command(&["quota", "recount"])["drift"], 0);
}

#[tokio::test]
async fn a_folder_cannot_be_moved_into_itself_or_to_a_path_too_long_for_its_files() {
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&format!("{}limits.video_path_bytes = 64\n", sftpgo.settings())).await;
    kim(&site, 1_000).await;
    tell(&site, event("upload", "/x/a.mp4", 1, size(1))).await;
    for (at, target) in (2..).zip(["/x", "/x/", "/x/x", "/x/y/z"]) {
        let reply = tell(&site, event("rename", "/x", at, to(target))).await;
        if target != "/x/" {
            let reason = "the target is the source, or is in it";
            assert_eq!(reply.body, json!({"status": "ignored", "reason": reason}), "{target}");
        }
    }
    // The path of the folder itself would be short enough.
    tell(&site, event("rename", "/x", 10, to(&format!("/{}", "y".repeat(58))))).await.is(33_101_000);
    assert_eq!(paths(&site).await, ["kim/x/a.mp4"]);
    assert_eq!(tell(&site, event("rename", "/x", 11, to("/xx"))).await.body, json!({"status": "ok"}));
    assert_eq!(paths(&site).await, ["kim/xx/a.mp4"]);
}

#[tokio::test]
async fn an_upload_over_a_file_without_an_owner_gives_it_to_the_member() {
    let media = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(media.path().join("kim")).expect("a folder");
    std::fs::write(media.path().join("kim/a.mp4"), "seven b").expect("written");
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&format!("{}media_root = {:?}\n", sftpgo.settings(), media.path())).await;
    site.command(&["video", "import"]);
    let uid = kim(&site, 10).await;
    let ownerless = async || site.admin().get("/api/v1/videos?ownerless=true").await.data()["total"].clone();

    tell(&site, event("upload", "/a.mp4", 1, size(11))).await.is(33_506_000);
    assert_eq!((ownerless().await, used(&site).await), (json!(1), 0));
    assert_eq!(tell(&site, event("upload", "/a.mp4", 2, size(9))).await.body, json!({"status": "ok"}));

    assert_eq!((ownerless().await, used(&site).await), (json!(0), 9));
    let ledger = site.admin().get(&format!("/admin/quotas/{uid}/ledger")).await.data();
    assert_eq!((&ledger["items"][0]["cause"], &ledger["items"][0]["delta"]), (&json!("claim"), &json!(9)));
    assert_eq!(site.command(&["quota", "recount"])["drift"], 0);
}

#[tokio::test]
async fn a_file_deleted_after_a_refused_overwrite_no_longer_counts() {
    let media = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(media.path().join("kim")).expect("a folder");
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&format!("{}media_root = {:?}\n", sftpgo.settings(), media.path())).await;
    kim(&site, 10).await;
    for (name, at) in [("gone", 1), ("there", 2)] {
        std::fs::write(media.path().join(format!("kim/{name}.mp4")), "four").expect("written");
        tell(&site, event("upload", &format!("/{name}.mp4"), at, size(4))).await;
    }

    for (name, at) in [("gone", 11), ("there", 12)] {
        tell(&site, event("upload", &format!("/{name}.mp4"), at, size(11))).await.is(33_506_000);
    }
    assert_eq!(used(&site).await, 8);
    std::fs::remove_file(media.path().join("kim/gone.mp4")).expect("removed");

    until_used(&site, 4).await;
    assert_eq!(paths(&site).await, ["kim/there.mp4"]);
    assert_eq!(site.command(&["quota", "recount"])["drift"], 0);
}
