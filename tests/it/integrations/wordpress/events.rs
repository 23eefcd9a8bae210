//! Members follow their accounts at WordPress: events of the must-use plugin, without a WordPress.

use roster::kernel::ids::Timestamp;
use roster::kernel::secret;
use serde_json::{Value, json};

use super::map;
use crate::harness::callers::Reply;
use crate::harness::organizations::Organization;
use crate::harness::site::{INTERNAL_SECRET, Site};
use crate::harness::stub_server::NOWHERE;

pub const KEY: &str = "a-key-for-hints-of-tests-without-a-site";
pub const HOOK: &str = "/api/v1/hooks/wordpress";

/// A site with secrets in files that live as long as the site.
pub struct SiteWithSecrets {
    pub site: Site,
    pub _secrets: tempfile::TempDir,
}

impl std::ops::Deref for SiteWithSecrets {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

/// A site that accepts events signed with this key and, if there is a password, calls WordPress as `admin`.
pub async fn site_of(url: &str, key: &str, password: Option<&str>, more: &str) -> SiteWithSecrets {
    let secrets = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = secrets.path().join(name);
        std::fs::write(&path, text).expect("a secret");
        path.display().to_string()
    };
    let mut settings = format!("wordpress.url = \"{url}\"\nhooks.wordpress_key_file = \"{}\"\n", file("key", key));
    if let Some(password) = password {
        let file = file("password", password);
        settings.push_str(&format!("wordpress.username = \"admin\"\nwordpress.password_file = \"{file}\"\n"));
    }
    let site = Site::with(&format!("{settings}{more}")).await;
    SiteWithSecrets { site, _secrets: secrets }
}

pub async fn roles(organization: &Organization<'_>, uid: &str) -> Vec<String> {
    let held = organization.admin().get(&format!("/api/v1/permissions/users/{uid}/roles")).await.data();
    let roles = held["user_roles"].as_array().expect("roles").iter();
    let mut keys: Vec<String> = roles.map(|r| r["role_key"].as_str().expect("key").to_owned()).collect();
    keys.sort();
    keys
}

pub async fn status(site: &Site, uid: &str) -> String {
    site.admin().get(&format!("/admin/members/{uid}")).await.data()["status"].as_str().expect("status").to_owned()
}

/// The first member found by this keyword.
pub async fn find(site: &Site, keyword: &str) -> Option<Value> {
    let found = site.admin().get(&format!("/admin/members?keyword={keyword}")).await.data();
    found["items"].as_array().expect("items").first().cloned()
}

pub fn user_update(id: u64, username: &str, roles: &[&str]) -> Value {
    json!({"id": id, "event": "update", "username": username, "email": format!("{username}@example.org"),
        "name": username, "roles": roles})
}

fn notice(users: &[Value]) -> String {
    notice_of(NOWHERE, users)
}

/// Each has an id of its own, because two notices within one second may have the same content.
pub fn notice_of(site: &str, users: &[Value]) -> String {
    json!({"site": site, "delivery": uuid::Uuid::now_v7().to_string(), "users": users}).to_string()
}

/// The headers of an event that was signed this many seconds ago.
pub fn signed(body: &str, key: &str, age_s: i64) -> [(&'static str, String); 2] {
    let seconds = Timestamp::now().0 / 1_000 - age_s;
    let signature = secret::signature(key, &format!("{seconds}.{body}"));
    [("x-roster-timestamp", seconds.to_string()), ("x-roster-signature", format!("v1={}", hex::encode(signature)))]
}

pub async fn send(site: &Site, headers: &[(&str, String)], body: &str) -> Reply {
    let caller = headers.iter().fold(site.nobody(), |caller, (name, value)| caller.with(name, value));
    caller.send_raw(reqwest::Method::POST, HOOK, "application/json", body.into()).await
}

/// Sends events like the plugin's and returns the result for the first account.
async fn send_events(site: &Site, users: &[Value]) -> Value {
    let body = notice(users);
    let reply = send(site, &signed(&body, KEY, 0), &body).await;
    assert_eq!((reply.status, &reply.body["repeated"]), (200, &json!(false)), "{reply:?}");
    reply.body["users"][0].clone()
}

#[tokio::test]
async fn without_credentials_for_wordpress_an_event_is_applied_as_it_is() {
    let site = site_of(NOWHERE, KEY, None, "wordpress.organization = \"acme\"").await;
    let acme = site.organization("acme").await;
    map(&acme, "editor", "press").await;
    map(&acme, "author", "writers").await;

    let made = send_events(&site, &[user_update(7, "kim", &["editor"])]).await;
    let uid = made["uid"].as_str().expect("uid").to_owned();
    assert_eq!((&made["id"], &made["result"]), (&json!(7), &json!("new")));
    assert_eq!(roles(&acme, &uid).await, ["press"]);
    // A repeat changes nothing, and a changed role is applied.
    assert_eq!(send_events(&site, &[user_update(7, "kim", &["editor"])]).await["result"], "same");
    assert_eq!(send_events(&site, &[user_update(7, "kim", &["author"])]).await["result"], "changed");
    assert_eq!(roles(&acme, &uid).await, ["writers"]);
    // Names that the member has are never overwritten.
    let renamed =
        json!({"id": 7, "event": "update", "username": "kim", "email": "new@example.org", "name": "", "roles": []});
    assert_eq!(send_events(&site, &[renamed]).await["result"], "changed");
    assert_eq!(find(&site, "kim").await.expect("the member")["email"], "kim@example.org");
    let entry =
        site.admin().get("/admin/audit?action=member.follow_wordpress&limit=1").await.data()["items"][0].clone();
    assert_eq!(entry["actor_kind"], "internal");

    send_events(&site, &[user_update(7, "kim", &["author"])]).await;
    assert_eq!(send_events(&site, &[json!({"id": 7, "event": "delete"})]).await["result"], "gone");
    assert_eq!((status(&site, &uid).await.as_str(), roles(&acme, &uid).await), ("suspended", Vec::new()));
    assert_eq!(find(&site, "kim").await.expect("still there")["email"], "kim@example.org");
    // A suspended member stays suspended, whatever later events say.
    assert_eq!(send_events(&site, &[json!({"id": 7, "event": "delete"})]).await["result"], "nobody");
    assert_eq!(send_events(&site, &[user_update(7, "kim", &["editor"])]).await["result"], "left");
    assert_eq!((status(&site, &uid).await.as_str(), roles(&acme, &uid).await), ("suspended", Vec::new()));
    assert_eq!(send_events(&site, &[json!({"id": 8, "event": "delete"})]).await["result"], "nobody");
}

#[tokio::test]
async fn a_repeated_event_is_applied_once() {
    let site = site_of(NOWHERE, KEY, None, "wordpress.organization = \"acme\"").await;
    let acme = site.organization("acme").await;
    map(&acme, "editor", "press").await;
    let body = notice(&[user_update(7, "kim", &["editor"])]);
    let headers = signed(&body, KEY, 0);
    let first = send(&site, &headers, &body).await;
    let uid = first.body["users"][0]["uid"].as_str().expect("uid").to_owned();
    send_events(&site, &[user_update(7, "kim", &[])]).await;

    let (a, b) = tokio::join!(send(&site, &headers, &body), send(&site, &headers, &body));

    for reply in [a, b] {
        assert_eq!((reply.status, &reply.body), (200, &json!({"repeated": true, "users": []})));
    }
    assert_eq!(roles(&acme, &uid).await, Vec::<String>::new(), "the former role did not come back");
}

#[tokio::test]
async fn forged_old_and_foreign_events_change_nothing() {
    let site = site_of(NOWHERE, KEY, None, "hooks.age_max_s = 60").await;
    let body = notice(&[user_update(7, "kim", &[])]);
    let [(_, timestamp), (_, signature)] = signed(&body, KEY, 0);
    let both = |timestamp: &str, signature: &str| {
        vec![("x-roster-timestamp", timestamp.to_owned()), ("x-roster-signature", signature.to_owned())]
    };
    for (why, headers) in [
        ("unsigned", vec![]),
        ("no signature", vec![("x-roster-timestamp", timestamp.clone())]),
        ("no time", vec![("x-roster-signature", signature.clone())]),
        ("another key", signed(&body, "another-key-of-32-characters-or-more", 0).to_vec()),
        ("another body", signed(&format!("{body} "), KEY, 0).to_vec()),
        ("another time", both(&(timestamp.parse::<i64>().expect("seconds") + 1).to_string(), &signature)),
        ("half", both(&timestamp, &signature[..40])),
        ("empty", both(&timestamp, "")),
        ("no version", both(&timestamp, signature.trim_start_matches("v1="))),
        ("too old", signed(&body, KEY, 62).to_vec()),
        ("from the future", signed(&body, KEY, -62).to_vec()),
        ("absurd", signed(&body, KEY, i64::MIN / 2_000).to_vec()),
    ] {
        let reply = send(&site, &headers, &body).await;
        assert_eq!((reply.status, reply.is(33_501_000).word()), (401, "hook_signature"), "{why}");
    }
    let wrong = send(&site, &[("x-internal-secret", "wrong-secret-of-somebody".into())], &body).await;
    assert_eq!(wrong.word(), "invalid_internal_secret");
    assert_eq!(site.admin().get("/admin/members").await.data()["total"], 1);

    // During a rotation there are two signatures, of which one matches.
    let two = both(&timestamp, &format!("v1={}, {signature}", "0".repeat(64)));
    assert_eq!(send(&site, &two, &body).await.status, 200);
    let young = notice(&[user_update(8, "lee", &[])]);
    assert_eq!(send(&site, &signed(&young, KEY, 58), &young).await.status, 200);
    let secret = [("x-internal-secret", INTERNAL_SECRET.to_owned())];
    assert_eq!(send(&site, &secret, &notice(&[user_update(9, "max", &[])])).await.body["users"][0]["result"], "new");
    assert_eq!(site.admin().get("/admin/members").await.data()["total"], 4);
}

#[tokio::test]
async fn an_invalid_event_is_refused_with_the_reason_and_a_new_field_is_ignored() {
    let site = site_of(NOWHERE, KEY, None, "").await;
    let send = async |body: String| send(&site, &signed(&body, KEY, 0), &body).await;

    for body in ["", "x", "[]", "{}", "{\"site\":1,\"users\":[]}"] {
        assert_eq!(send(body.into()).await.status, 400, "{body}");
    }
    let foreign = json!({"site": "http://127.0.0.1:1", "users": []}).to_string();
    assert_eq!(send(foreign).await.fields(), ["body.site"]);
    for user in [
        json!({"id": 0, "event": "delete"}),
        json!({"id": -1, "event": "delete"}),
        json!({"id": "7", "event": "delete"}),
        json!({"id": u64::MAX, "event": "delete"}),
        json!({"event": "delete"}),
        json!({"id": 7}),
        // Without credentials, WordPress cannot be called for the missing fields.
        json!({"id": 7, "event": "update"}),
    ] {
        assert_eq!(send(notice(std::slice::from_ref(&user))).await.fields(), ["body.users"], "{user}");
    }
    let many = |count: u64| notice(&(1..=count).map(|id| json!({"id": id, "event": "delete"})).collect::<Vec<_>>());
    assert_eq!(send(many(101)).await.fields(), ["body.users"]);
    assert_eq!(send(many(100)).await.body["users"].as_array().expect("users").len(), 100);
    let mut newer = user_update(7, "kim", &[]);
    newer["locale"] = json!("zh_TW");
    let body = json!({"site": NOWHERE, "users": [newer], "version": 2}).to_string();
    assert_eq!(send(body).await.body["users"][0]["result"], "new");
    assert_eq!(site.nobody().get(HOOK).await.status, 405);
}

#[tokio::test]
async fn without_settings_the_hook_and_the_comparison_name_the_missing_settings() {
    let bare = Site::start().await;
    let only_url = Site::with(&format!("wordpress.url = \"{NOWHERE}\"")).await;
    for site in [&bare, &only_url] {
        let body = notice(&[]);
        let reply = send(site, &signed(&body, KEY, 0), &body).await;
        assert_eq!((reply.status, reply.word()), (501, "wordpress_not_configured"));
        let reply = site.admin().post("/admin/wordpress/sync", json!({})).await;
        assert_eq!((reply.status, reply.word()), (501, "wordpress_not_configured"));
    }
}

#[test]
fn a_weak_key_and_incomplete_credentials_are_refused_at_start() {
    let folder = tempfile::tempdir().expect("a directory");
    let (file, settings) = (folder.path().join("secret"), folder.path().join("roster.toml"));
    let check = |text: &str| {
        std::fs::write(&settings, text).expect("settings");
        let mut command = std::process::Command::new(crate::harness::site::binary());
        let output = command.args(["config", "check", "--data"]).arg(folder.path()).output().expect("roster");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (length, is_taken) in [(31, false), (32, true)] {
        std::fs::write(&file, "s".repeat(length)).expect("the secret");
        let (ok, said) = check(&format!("hooks.wordpress_key_file = \"{}\"", file.display()));
        assert_eq!((ok, said.contains("hooks.wordpress_key_file")), (is_taken, !is_taken), "{length}: {said}");
    }
    // Otherwise the site would appear configured and refuse all events.
    std::fs::write(&file, "\n \n").expect("an empty file");
    let (ok, said) = check(&format!("hooks.wordpress_key_file = \"{}\"", file.display()));
    assert!(!ok && said.contains(&format!("{} is empty", file.display())), "{said}");
    std::fs::write(&file, "s".repeat(32)).expect("the secret");
    for half in ["wordpress.username = \"admin\"", &format!("wordpress.password_file = \"{}\"", file.display())] {
        let (ok, said) = check(half);
        assert!(!ok && said.contains("is missing: it goes together with wordpress."), "{half}: {said}");
    }
}

#[tokio::test]
async fn nobody_is_linked_by_a_name_and_the_last_owner_stays() {
    let site = site_of(NOWHERE, KEY, None, "").await;
    let body = json!({"username": "kim", "email": "k@example.org"});
    let local = site.admin().post("/admin/members", body).await.data();

    for account in [user_update(7, "KIM", &[]), user_update(7, "other", &[])] {
        let mut account = account;
        if account["username"] == "other" {
            account["email"] = json!("K@example.org");
        }
        let found = send_events(&site, &[account]).await;
        assert_eq!((&found["result"], &found["uid"]), (&json!("unlinked"), &Value::Null));
    }
    assert_eq!(site.admin().get("/admin/members").await.data()["total"], 2);
    // An administrator confirms that both are one person.
    let path = format!("/admin/users/{}", local["uid"].as_str().expect("uid"));
    site.admin().patch(&path, json!({"wordpress_id": 7})).await.done();
    assert_eq!(send_events(&site, &[user_update(7, "kim", &[])]).await["result"], "changed", "it had no display name");
    // A reused WordPress id leaves the member unchanged.
    let first = send_events(&site, &[user_update(8, "lee", &[])]).await;
    assert_eq!(send_events(&site, &[user_update(8, "max", &[])]).await["result"], "left");

    let acme = site.organization("acme").await;
    let uid = first["uid"].as_str().expect("uid");
    acme.link(uid).await;
    acme.assign(uid, &acme.role_id("tenant_owner").await).await;
    let other = acme.owner().get("/me").await.data()["uid"].as_str().expect("uid").to_owned();
    site.admin().post(&format!("/admin/members/{other}/deactivate"), json!({})).await.done();
    assert_eq!(send_events(&site, &[json!({"id": 8, "event": "delete"})]).await["result"], "left");
    assert_eq!(status(&site, uid).await, "active");
}
