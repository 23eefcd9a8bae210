//! SFTPGo: accounts that follow the members, reconciliation, and the hooks.

use serde_json::{Value, json};

use crate::harness::callers::{As, Reply};
use crate::harness::counterparts::{HOOK_KEY, Sftpgo};
use crate::harness::organizations::Member;
use crate::harness::site::{PASSWORD, Site};
use crate::harness::waiting::eventually;

const LIMITED: [&str; 4] = ["list", "download", "delete", "rename"];

/// Sets a member's name at SFTPGo in the rows, so that no event is sent.
fn name_silently(site: &mut Site, uid: &str, name: &str) {
    let id = uuid::Uuid::parse_str(uid).expect("an id");
    site.while_stopped(
        "insert into identities (provider, subject, member_id, created_at) values ('sftpgo', ?1, ?2, 0)",
        rusqlite::params![name, id.as_bytes()],
    );
}

/// A member `kim` with a name at SFTPGo and a quota. Returns its id.
pub async fn kim(site: &Site, size: i64) -> String {
    let body = json!({"username": "kim", "email": "kim@example.org", "password": PASSWORD});
    let uid = site.admin().post("/admin/members", body).await.data()["uid"].as_str().expect("uid").to_owned();
    let path = format!("/admin/users/{uid}");
    site.admin().patch(&path, json!({"sftpgo_username": "kim", "quota_size": size})).await.done();
    uid
}

pub async fn set_size(site: &Site, uid: &str, size: i64) {
    site.admin().patch(&format!("/admin/members/{uid}/quota"), json!({"size": size})).await.done();
}

pub fn hook(site: &Site) -> As<'_> {
    site.nobody().with("x-hook-key", HOOK_KEY)
}

pub async fn tell(site: &Site, event: Value) -> Reply {
    hook(site).post("/api/v1/hooks/sftpgo/events", event).await
}

/// A file event of kim's account.
pub fn event(action: &str, path: &str, at: i64, more: Value) -> Value {
    let mut event = json!({"action": action, "username": "kim", "path": format!("/srv/media/kim{path}"),
        "virtual_path": path, "status": 1, "protocol": "SFTP", "session_id": "SFTP_1", "timestamp": at});
    event.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    event
}

pub fn size(bytes: i64) -> Value {
    json!({"file_size": bytes})
}

pub fn to(path: &str) -> Value {
    json!({"virtual_target_path": path})
}

pub async fn used(site: &Site) -> i64 {
    let list = site.admin().get("/admin/quotas?keyword=kim").await.data();
    list["items"][0]["used"].as_i64().expect("a number")
}

pub async fn paths(site: &Site) -> Vec<String> {
    let list = site.admin().get("/api/v1/videos").await.data();
    let mut paths: Vec<String> =
        list["items"].as_array().expect("items").iter().map(|v| v["path"].as_str().expect("path").to_owned()).collect();
    paths.sort();
    paths
}

#[tokio::test]
async fn an_account_follows_its_member() {
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&sftpgo.settings()).await;
    let uid = kim(&site, 1_000).await;

    let made = sftpgo.eventually("kim", Value::is_object).await;
    assert_eq!((&made["status"], &made["quota_size"]), (&json!(1), &json!(1_000)));
    assert_eq!((&made["permissions"], &made["home_dir"]), (&json!({"/": ["*"]}), &json!("/srv/media/kim")));
    assert_eq!(made["additional_info"], json!(uid));

    // Fields that Roster does not manage stay unchanged.
    let mut changed = made.clone();
    changed["email"] = json!("k@example.org");
    sftpgo.lab("put", changed).await;
    set_size(&site, &uid, 2_000).await;
    let user = sftpgo.eventually("kim", |user| user["quota_size"] == 2_000).await;
    assert_eq!(user["email"], "k@example.org");

    // A quota of zero is expressed by permissions, because at SFTPGo 0 means no limit.
    set_size(&site, &uid, 0).await;
    sftpgo.eventually("kim", |user| user["permissions"] == json!({"/": LIMITED})).await;
    set_size(&site, &uid, 100).await;
    sftpgo.eventually("kim", |user| user["permissions"] == json!({"/": ["*"]})).await;

    // The last byte of the quota removes the write permission until something is deleted.
    tell(&site, event("upload", "/a.mp4", 1, size(100))).await;
    sftpgo.eventually("kim", |user| user["permissions"] == json!({"/": LIMITED})).await;
    tell(&site, event("upload", "/b.mp4", 2, size(1))).await.is(33_506_000);
    sftpgo.eventually("kim", |user| user["permissions"] == json!({"/": LIMITED})).await;
    // Open sessions would keep the permissions that they started with.
    assert_eq!(last_change(&sftpgo).await["query"]["disconnect"], "1");
    tell(&site, event("delete", "/a.mp4", 3, json!({}))).await;
    sftpgo.eventually("kim", |user| user["permissions"] == json!({"/": ["*"]})).await;
    assert_eq!(last_change(&sftpgo).await["query"], json!({}));

    site.admin().post(&format!("/admin/members/{uid}/deactivate"), json!({})).await.done();
    sftpgo.eventually("kim", |user| user["status"] == 0).await;
    assert_eq!(last_change(&sftpgo).await["query"]["disconnect"], "1");
    site.admin().post(&format!("/admin/members/{uid}/activate"), json!({})).await.done();
    sftpgo.eventually("kim", |user| user["status"] == 1).await;
    site.admin().delete(&format!("/admin/members/{uid}")).await.done();
    sftpgo.eventually("kim", |user| user["status"] == 0).await;
}

async fn last_change(sftpgo: &Sftpgo) -> Value {
    let asked = sftpgo.lab("asked", json!({})).await.1;
    asked.as_array().expect("requests").iter().rfind(|asked| asked["method"] == "PUT").expect("one").clone()
}

#[tokio::test]
async fn a_refused_large_file_does_not_remove_the_write_permission() {
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&sftpgo.settings()).await;
    kim(&site, 100).await;
    tell(&site, event("upload", "/a.mp4", 1, size(101))).await.is(33_506_000);
    assert_eq!(tell(&site, event("pre-upload", "/b.mp4", 2, json!({}))).await.body, json!({"status": "ok"}));
    until_settled(&site).await;
    assert_eq!(sftpgo.user("kim").await["permissions"], json!({"/": ["*"]}));
    // The next refusal is an event although one was a moment ago: nothing is free now.
    assert_eq!(tell(&site, event("upload", "/b.mp4", 3, size(100))).await.body, json!({"status": "ok"}));
    tell(&site, event("upload", "/c.mp4", 4, size(1))).await.is(33_506_000);
    tell(&site, event("pre-upload", "/d.mp4", 5, json!({}))).await.is(33_506_000);
    sftpgo.eventually("kim", |user| user["permissions"] == json!({"/": LIMITED})).await;
}

#[tokio::test]
async fn an_erased_members_account_is_deleted_if_configured() {
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&format!("{}sftpgo.delete = true\n", sftpgo.settings_by_key())).await;
    let uid = kim(&site, 1_000).await;
    sftpgo.eventually("kim", Value::is_object).await;
    site.admin().delete(&format!("/admin/members/{uid}")).await.done();
    sftpgo.eventually("kim", Value::is_null).await;
}

#[tokio::test]
async fn an_account_of_another_program_is_not_changed_and_is_reported() {
    let sftpgo = Sftpgo::start(&[]);
    let theirs =
        json!({"username": "kim", "home_dir": "/x", "permissions": {"/": ["list"]}, "additional_info": "another"});
    sftpgo.lab("put", theirs.clone()).await;
    let site = Site::with(&sftpgo.settings()).await;
    kim(&site, 1_000).await;

    until_delivery(&site, "dead").await;

    assert_eq!(sftpgo.user("kim").await["permissions"], theirs["permissions"]);
    let drift = site.admin().get("/admin/sftpgo/drift").await.data();
    assert_eq!((&drift["conflicts"][0]["username"], &drift["differing"]), (&json!("kim"), &json!([])));
}

/// Waits until no delivery is pending.
pub async fn until_settled(site: &Site) {
    while site.admin().get("/admin/deliveries?state=pending").await.data()["total"] != 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Waits until the newest delivery to SFTPGo is in this state.
async fn until_delivery(site: &Site, state: &str) {
    let newest = async || site.admin().get("/admin/deliveries?target=sftpgo").await.data()["items"][0]["state"].clone();
    eventually(state, async || newest().await == state).await;
}

#[tokio::test]
async fn after_any_failure_of_sftpgo_the_account_is_updated() {
    let sftpgo = Sftpgo::start(&["--token-ttl", "31"]);
    let site = Site::with(&sftpgo.settings()).await;
    let uid = kim(&site, 1).await;
    sftpgo.eventually("kim", Value::is_object).await;
    let troubles = [
        json!({"fail": 2, "status": 500}),
        json!({"fail": 2, "status": 429}),
        json!({"html": 2}),
        json!({"forget_tokens": true}),
        json!({"hang": 1}),
    ];
    for (n, trouble) in (2_i64..).zip(troubles) {
        sftpgo.lab("behave", trouble.clone()).await;
        set_size(&site, &uid, n).await;
        if trouble.get("hang").is_some() {
            assert_eq!(sftpgo.user("kim").await["quota_size"], n - 1);
            sftpgo.lab("behave", json!({"hang": 0})).await;
        }
        sftpgo.eventually("kim", |user| user["quota_size"] == n).await;
    }
}

#[tokio::test]
async fn drift_is_reported_and_repaired_without_changing_unrelated_accounts() {
    let sftpgo = Sftpgo::start(&[]);
    let mut site = Site::with(&sftpgo.settings()).await;
    let uid = kim(&site, 1_000).await;
    let mut user = sftpgo.eventually("kim", Value::is_object).await;
    let guest = json!({"username": "guest", "home_dir": "/g", "permissions": {"/": ["*"]}, "status": 1});
    sftpgo.lab("put", guest).await;
    let lee = site.admin().post("/admin/members", json!({"username": "lee"})).await.data();
    // No pending delivery creates or repairs it.
    until_settled(&site).await;
    name_silently(&mut site, lee["uid"].as_str().expect("uid"), "金 ?&%");
    user["status"] = json!(0);
    user["quota_size"] = json!(7);
    sftpgo.lab("put", user).await;

    let drift = site.admin().get("/admin/sftpgo/drift").await.data();
    assert_eq!((&drift["members"], &drift["users"], &drift["foreign"]), (&json!(2), &json!(2), &json!(["guest"])));
    assert_eq!(drift["missing"], json!([{"uid": lee["uid"], "username": "金 ?&%"}]));
    let one = |field: &str, ours: i64, theirs: i64| json!({"uid": uid, "username": "kim", "field": field, "ours": ours, "theirs": theirs});
    assert_eq!(drift["differing"], json!([one("status", 1, 0), one("quota_size", 1_000, 7)]));
    let dry = site.command(&["sftpgo", "reconcile", "--dry-run"]);
    assert_eq!((&dry["drift"], &dry["mended"]), (&drift, &json!([])));

    let done = site.command(&["sftpgo", "reconcile"]);
    assert_eq!((done["mended"].as_array().map(Vec::len), &done["failed"]), (Some(2), &json!([])));
    let after = site.command(&["sftpgo", "drift"]);
    assert_eq!(
        (&after["missing"], &after["differing"], &after["foreign"]),
        (&json!([]), &json!([]), &json!(["guest"]))
    );
    assert_eq!(sftpgo.user("guest").await["permissions"], json!({"/": ["*"]}));
    assert_eq!(site.last_audit_entry().await["action"], "sftpgo.reconcile");
}

#[tokio::test]
async fn the_enabled_account_of_an_erased_member_is_disabled() {
    for (settings, is_deleted) in [("", false), ("sftpgo.delete = true\n", true)] {
        let sftpgo = Sftpgo::start(&[]);
        let site = Site::with(&format!("{}{settings}", sftpgo.settings())).await;
        let uid = kim(&site, 1_000).await;
        let mut account = sftpgo.eventually("kim", Value::is_object).await;
        site.admin().delete(&format!("/admin/members/{uid}")).await.done();
        until_settled(&site).await;
        let mut open = |name: &str, whose: &str| {
            account["username"] = json!(name);
            account["additional_info"] = json!(whose);
            account.clone()
        };
        // An account created while the member was erased, one of another program, and one of a member of another site.
        let stranger = uuid::Uuid::now_v7().to_string();
        for account in [("kim", uid.as_str()), ("guest", "another"), ("far", &stranger)].map(|(n, w)| open(n, w)) {
            sftpgo.lab("put", account).await;
        }

        let drift = site.admin().get("/admin/sftpgo/drift").await.data();
        assert_eq!(drift["orphaned"], json!([{"uid": uid, "username": "kim"}]));
        assert_eq!(drift["foreign"], json!(["far", "guest"]));
        let done = site.command(&["sftpgo", "reconcile"]);
        assert_eq!((&done["mended"], &done["failed"]), (&drift["orphaned"], &json!([])));

        let kim = sftpgo.user("kim").await;
        assert_eq!((kim.is_null(), kim["status"] == 0), (is_deleted, !is_deleted), "{kim}");
        assert_eq!(sftpgo.user("guest").await["status"], 1);
        assert_eq!(sftpgo.user("far").await["status"], 1);
        assert_eq!(site.command(&["sftpgo", "drift"])["orphaned"], json!([]));
    }
}

#[tokio::test]
async fn failures_of_a_comparison_are_reported_and_change_nothing() {
    let site = Site::start().await;
    for (method, path) in [(reqwest::Method::GET, "drift"), (reqwest::Method::POST, "reconcile")] {
        let reply = site.admin().send(method.clone(), &format!("/admin/sftpgo/{path}"), None).await;
        assert_eq!((reply.status, reply.word()), (501, "sftpgo_not_configured"));
    }
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&sftpgo.settings()).await;
    // SFTPGo is called again: with the former token, with a new one, and for a smaller page.
    for trouble in [
        json!({"fail": 100, "status": 401}),
        json!({"fail": 100, "status": 403}),
        json!({"fail": 100, "status": 500}),
        json!({"fail": 0, "html": 100}),
    ] {
        sftpgo.lab("behave", trouble.clone()).await;
        for (method, path) in [(reqwest::Method::GET, "drift"), (reqwest::Method::POST, "reconcile")] {
            let reply = site.admin().send(method, &format!("/admin/sftpgo/{path}"), None).await;
            assert_eq!((reply.status, reply.word()), (502, "neighbour_failed"), "{trouble}");
        }
    }
    sftpgo.lab("behave", json!({"html": 0})).await;
    assert_eq!(site.admin().get("/admin/sftpgo/drift").await.data()["users"], 0);
}

#[tokio::test]
async fn all_pages_of_users_are_compared() {
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&sftpgo.settings()).await;
    for n in 0..501 {
        let name = format!("u{n:03}");
        sftpgo.lab("put", json!({"username": name, "home_dir": "/x", "permissions": {"/": ["*"]}, "status": 1})).await;
    }
    let drift = site.admin().get("/admin/sftpgo/drift").await.data();
    assert_eq!((&drift["users"], drift["foreign"].as_array().map(Vec::len)), (&json!(501), Some(501)));
    assert_eq!(drift["foreign"][500], "u500");
}

/// The parts of SFTPGo's own document (OpenAPI, v2.7.0) that Roster uses: operations with their query parameters, the
/// fields of a user with their types, and the names of permissions.
const OPERATIONS: [(&str, &str, &[&str]); 7] = [
    ("GET", "/api/v2/token", &[]),
    ("GET", "/api/v2/users", &["offset", "limit", "order"]),
    ("POST", "/api/v2/users", &[]),
    ("GET", "/api/v2/users/kim", &[]),
    ("PUT", "/api/v2/users/kim", &["disconnect"]),
    ("DELETE", "/api/v2/users/kim", &[]),
    ("POST", "/api/v2/quotas/users/kim/scan", &[]),
];
type Fits = fn(&Value) -> bool;
const FIELDS: [(Fits, &str); 5] = [
    (
        Value::is_i64,
        "id status expiration_date uid gid max_sessions quota_size quota_files used_quota_size used_quota_files \
         last_quota_update upload_bandwidth download_bandwidth created_at updated_at last_login",
    ),
    (Value::is_string, "username email description password home_dir additional_info role"),
    (Value::is_boolean, "has_password"),
    (Value::is_array, "public_keys virtual_folders groups"),
    (Value::is_object, "permissions filters filesystem"),
];
const WORDS: &str = "* list download upload overwrite delete delete_files delete_dirs rename rename_files rename_dirs \
                     create_dirs create_symlinks chmod chown chtimes copy";

#[tokio::test]
async fn our_requests_match_sftpgos_document() {
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&format!("{}sftpgo.delete = true\n", sftpgo.settings())).await;
    let uid = kim(&site, 1_000).await;
    sftpgo.eventually("kim", Value::is_object).await;
    sftpgo.lab("upload", json!({"username": "kim", "path": "/a.mp4", "size": 7})).await;
    set_size(&site, &uid, 0).await;
    sftpgo.eventually("kim", |user| user["quota_size"] == 0).await;
    assert_eq!(site.command(&["sftpgo", "reconcile"])["scans"], 1);
    site.admin().delete(&format!("/admin/members/{uid}")).await.done();
    sftpgo.eventually("kim", Value::is_null).await;

    let asked = sftpgo.lab("asked", json!({})).await.1;
    let mut seen = std::collections::BTreeSet::new();
    for asked in asked.as_array().expect("requests") {
        let (method, path) = (asked["method"].as_str().expect("a method"), asked["path"].as_str().expect("a path"));
        let nth = OPERATIONS.iter().position(|(m, p, _)| (*m, *p) == (method, path));
        let nth = nth.unwrap_or_else(|| panic!("{asked}"));
        let query = asked["query"].as_object().expect("a query");
        assert!(query.keys().all(|name| OPERATIONS[nth].2.contains(&name.as_str())), "{asked}");
        for (name, value) in asked["body"].as_object().expect("a body") {
            let field = FIELDS.iter().find(|(_, names)| names.split(' ').any(|known| known == name));
            assert!(field.is_some_and(|(is_fit, _)| is_fit(value)), "{name}: {value}");
        }
        for words in asked["body"]["permissions"].as_object().into_iter().flat_map(|all| all.values()) {
            let mut words = words.as_array().expect("a list").iter().map(|word| word.as_str().expect("a word"));
            assert!(words.all(|word| WORDS.split(' ').any(|known| known == word)), "{asked}");
        }
        seen.insert(nth);
    }
    assert_eq!(seen.len(), OPERATIONS.len(), "{seen:?}");
}

#[tokio::test]
async fn a_hook_requires_its_key() {
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&sftpgo.settings()).await;
    let basic = |password: &str| {
        use base64::Engine;
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("any:{password}")))
    };
    for hook in ["auth", "pre-login", "events"] {
        let path = format!("/api/v1/hooks/sftpgo/{hook}");
        let body = json!({"username": "nobody", "action": "download"});
        for wrong in [
            site.nobody(),
            site.admin(),
            site.nobody().with("x-hook-key", ""),
            site.nobody().with("x-hook-key", "a-hook-key-for-test"),
            site.nobody().with("authorization", &basic("wrong")),
        ] {
            wrong.post(&path, body.clone()).await.is(33_501_000);
        }
        let by_password = site.nobody().with("authorization", &basic(HOOK_KEY)).post(&path, body.clone()).await;
        assert!(by_password.status < 300, "{by_password:?}");
        let internal = site.internal().post(&path, body).await;
        assert_eq!(internal.status < 300, hook != "auth", "{internal:?}");
    }
}

#[tokio::test]
async fn a_successful_login_gets_the_whole_account_and_any_other_nothing() {
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&sftpgo.settings()).await;
    let uid = kim(&site, 1_000).await;
    let url = site.url.clone();
    let login = async |more: Value| -> Value {
        let mut body = json!({"username": "kim", "ip": "192.0.2.7", "protocol": "SSH", "password": "", "public_key": "",
            "keyboard_interactive": "", "tls_cert": ""});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let reply = hook(&site).post("/api/v1/hooks/sftpgo/auth", body).await;
        assert_eq!(reply.status, 200, "{reply:?} {url}");
        reply.body
    };
    let denied = json!({"username": ""});

    let user = login(json!({"password": PASSWORD})).await;
    assert_eq!((&user["username"], &user["status"], &user["quota_size"]), (&json!("kim"), &json!(1), &json!(1_000)));
    assert_eq!((&user["home_dir"], &user["permissions"]), (&json!("/srv/media/kim"), &json!({"/": ["*"]})));
    for more in [
        json!({"password": "Wrong-horse-7"}),
        json!({}),
        json!({"keyboard_interactive": "1"}),
        json!({"tls_cert": "x"}),
        json!({"username": "nobody", "password": PASSWORD}),
        json!({"public_key": "ssh-ed25519 AAAA"}),
        json!({"public_key": "ssh-ed25519 AAAA", "user": {"username": "kim", "public_keys": ["ssh-ed25519 BBBB"]}}),
        json!({"password": PASSWORD, "user": {"username": "kim", "additional_info": "another"}}),
    ] {
        assert_eq!(login(more.clone()).await, denied, "{more}");
    }
    let known =
        json!({"username": "kim", "id": 1, "public_keys": ["ssh-ed25519 AAAA kim@home"], "email": "k@example.org"});
    let user = login(json!({"public_key": "ssh-ed25519 AAAA", "user": known})).await;
    assert_eq!((&user["email"], &user["additional_info"]), (&json!("k@example.org"), &json!(uid)));

    // An API key with write scopes is accepted as a password; for members with a second factor it is the only one.
    let token = site.token("kim", PASSWORD).await;
    let member = Member { site: &site, uid: uid.clone(), username: "kim".into(), token };
    let key = async |scope: &str| {
        let made = member.caller().post("/me/api-keys", json!({"name": "k", "scopes": [scope]})).await.data();
        made["api_key"].as_str().expect("a key").to_owned()
    };
    let (writing, reading) = (key("videos:write").await, key("videos:read").await);
    crate::sessions::second_factor::enrolled(&member).await;
    assert_eq!(login(json!({"password": PASSWORD})).await, denied);
    assert_eq!(login(json!({"password": reading})).await, denied);
    assert_eq!(login(json!({"password": writing})).await["username"], "kim");

    site.admin().post(&format!("/admin/members/{uid}/deactivate"), json!({})).await.done();
    let known = json!({"username": "kim", "id": 1, "status": 1, "public_keys": ["ssh-ed25519 AAAA"]});
    assert_eq!(login(json!({"public_key": "ssh-ed25519 AAAA", "user": known.clone()})).await, denied);
    let prepared = hook(&site).post("/api/v1/hooks/sftpgo/pre-login", known).await;
    assert_eq!((prepared.status, &prepared.body["status"]), (200, &json!(0)));
    let foreign = hook(&site).post("/api/v1/hooks/sftpgo/pre-login", json!({"username": "guest", "id": 2})).await;
    assert_eq!(foreign.status, 204);
}

#[tokio::test]
async fn guessing_passwords_at_sftpgo_is_throttled_like_a_sign_in() {
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&sftpgo.settings()).await;
    kim(&site, 1_000).await;
    let login = async |password: &str| {
        let body = json!({"username": "kim", "ip": "192.0.2.7", "password": password});
        hook(&site).post("/api/v1/hooks/sftpgo/auth", body).await.body["username"].clone()
    };
    assert_eq!(login(PASSWORD).await, "kim");
    for _ in 0..30 {
        assert_eq!(login("Wrong-horse-7").await, "");
    }
    assert_eq!(login(PASSWORD).await, "");
}

#[tokio::test]
async fn every_event_is_applied_once() {
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&sftpgo.settings()).await;
    kim(&site, 1_000).await;
    let told = async |event: Value| {
        for (n, expected) in ["ok", "ignored"].into_iter().enumerate() {
            let reply = tell(&site, event.clone()).await;
            assert_eq!((reply.status, &reply.body["status"]), (200, &json!(expected)), "{n} {event}");
        }
    };
    told(event("upload", "/a.mp4", 1, size(100))).await;
    assert_eq!(used(&site).await, 100);
    told(event("upload", "/a.mp4", 2, size(40))).await;
    assert_eq!(used(&site).await, 40);
    told(event("rename", "/a.mp4", 3, to("/x/b.mp4"))).await;
    told(event("copy", "/x/b.mp4", 4, to("/x/c.mp4"))).await;
    assert_eq!((used(&site).await, paths(&site).await), (80, vec!["kim/x/b.mp4".into(), "kim/x/c.mp4".into()]));
    told(event("rename", "/x", 5, to("/y"))).await;
    assert_eq!(paths(&site).await, ["kim/y/b.mp4", "kim/y/c.mp4"]);
    told(event("delete", "/y/b.mp4", 6, json!({}))).await;
    assert_eq!(used(&site).await, 40);
    told(event("rmdir", "/y", 7, json!({}))).await;
    assert_eq!((used(&site).await, paths(&site).await), (0, vec![]));
    // An older event does not restore a deleted file.
    tell(&site, event("upload", "/y/c.mp4", 4, size(40))).await;
    tell(&site, event("upload", "/a.mp4", 1, size(100))).await;
    assert_eq!(used(&site).await, 0);
    // A partial file is not a video until it has its final name.
    tell(&site, event("upload", "/d.mp4.part", 8, size(30))).await;
    assert_eq!(paths(&site).await, [""; 0]);
    told(event("rename", "/d.mp4.part", 9, to("/d.mp4"))).await;
    assert_eq!((used(&site).await, paths(&site).await), (30, vec!["kim/d.mp4".into()]));
    tell(&site, event("pre-upload", "/e.mp4", 10, json!({}))).await;
    assert_eq!(site.command(&["quota", "recount"])["drift"], 0);
}

#[tokio::test]
async fn events_may_come_in_any_order() {
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&sftpgo.settings()).await;
    kim(&site, 1_000).await;
    tell(&site, event("rename", "/a.part", 2, to("/a.mp4"))).await;
    tell(&site, event("rename", "/d", 4, to("/e"))).await;
    tell(&site, event("delete", "/gone.mp4", 6, json!({}))).await;
    tell(&site, event("upload", "/b.mp4", 8, size(20))).await;
    assert_eq!(paths(&site).await, ["kim/b.mp4"]);

    tell(&site, event("upload", "/a.part", 1, size(10))).await;
    tell(&site, event("upload", "/d/c.mp4", 3, size(5))).await;
    tell(&site, event("upload", "/gone.mp4", 5, size(500))).await;
    tell(&site, event("upload", "/b.mp4", 7, size(400))).await;

    assert_eq!(paths(&site).await, ["kim/a.mp4", "kim/b.mp4", "kim/e/c.mp4"]);
    assert_eq!(used(&site).await, 35);
    assert_eq!(site.command(&["quota", "recount"])["drift"], 0);
}

#[tokio::test]
async fn an_invalid_event_is_refused_with_its_faults_and_changes_nothing() {
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&sftpgo.settings()).await;
    kim(&site, 1_000).await;
    for bytes in [json!(-1), json!(9_000_000_000_000_001_i64), json!(1e30), json!(1.5), json!("7"), json!(u64::MAX)] {
        let reply = tell(&site, event("upload", "/a.mp4", 1, json!({"file_size": bytes}))).await;
        assert_eq!(reply.is(10_101_000).fields(), ["body.file_size"]);
    }
    assert_eq!(tell(&site, json!({})).await.is(10_101_000).fields(), ["body.action", "body.username"]);
    for path in ["/../lee/a.mp4", "/a/../../lee/b", "/", "/a//b", "/a\u{0}b", "/a\\b", "/."] {
        tell(&site, event("upload", path, 1, size(1))).await.is(33_101_000);
    }
    tell(&site, event("rename", "/a", 1, to("/../lee/a"))).await.is(33_101_000);
    for (more, reason) in [
        (json!({"username": "nobody"}), "no member has this name"),
        (json!({"username": "lee/../kim"}), "no member has this name"),
        (json!({"status": 2}), "it did not succeed"),
        (json!({"status": 3}), "it did not succeed"),
        (json!({"action": "download"}), "this action changes no file"),
    ] {
        let reply = tell(&site, event("upload", "/a.mp4", 1, more)).await;
        assert_eq!((reply.status, &reply.body), (200, &json!({"status": "ignored", "reason": reason})));
    }
    tell(&site, event("upload", "/a.mp4", 2, size(1_001))).await.is(33_506_000);
    assert_eq!(paths(&site).await, [""; 0]);
}
