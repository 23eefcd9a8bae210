//! Members follow their accounts at WordPress: events of the must-use plugin, and the comparison of all users.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use roster::kernel::ids::Timestamp;
use roster::kernel::secret;
use serde_json::{Value, json};

use crate::counterparts::WordPress;
use crate::receiver::{Answer, Receiver};
use crate::site::{INTERNAL_SECRET, Organization, Reply, Site};
use crate::stub_server::{self, StubRequest, StubServer};

/// Nothing listens at this address.
const NOWHERE: &str = "http://127.0.0.1:9";
const KEY: &str = "a-key-for-hints-of-tests-without-a-site";
const HOOK: &str = "/api/v1/hooks/wordpress";

/// A site with secrets in files that live as long as the site.
struct SiteWithSecrets {
    site: Site,
    _secrets: tempfile::TempDir,
}

impl std::ops::Deref for SiteWithSecrets {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

/// A site that accepts events signed with this key and, if there is a password, calls WordPress as `admin`.
async fn site_of(url: &str, key: &str, password: Option<&str>, more: &str) -> SiteWithSecrets {
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

async fn map(organization: &Organization<'_>, external_key: &str, role: &str) {
    organization.role(role, &[]).await;
    let body = json!({"external_source": "wordpress", "external_key": external_key, "internal_role_key": role});
    organization.admin().put("/api/v1/permissions/role-mappings", body).await.done();
}

async fn roles(organization: &Organization<'_>, uid: &str) -> Vec<String> {
    let held = organization.admin().get(&format!("/api/v1/permissions/users/{uid}/roles")).await.data();
    let roles = held["user_roles"].as_array().expect("roles").iter();
    let mut keys: Vec<String> = roles.map(|r| r["role_key"].as_str().expect("key").to_owned()).collect();
    keys.sort();
    keys
}

async fn status(site: &Site, uid: &str) -> String {
    site.admin().get(&format!("/admin/members/{uid}")).await.data()["status"].as_str().expect("status").to_owned()
}

/// The first member found by this keyword.
async fn find(site: &Site, keyword: &str) -> Option<Value> {
    let found = site.admin().get(&format!("/admin/members?keyword={keyword}")).await.data();
    found["items"].as_array().expect("items").first().cloned()
}

// ── events without a WordPress ──

fn user_update(id: u64, username: &str, roles: &[&str]) -> Value {
    json!({"id": id, "event": "update", "username": username, "email": format!("{username}@example.org"),
        "name": username, "roles": roles})
}

fn notice(users: &[Value]) -> String {
    notice_of(NOWHERE, users)
}

/// Each has an id of its own, because two notices within one second may have the same content.
fn notice_of(site: &str, users: &[Value]) -> String {
    json!({"site": site, "delivery": uuid::Uuid::now_v7().to_string(), "users": users}).to_string()
}

/// The headers of an event that was signed this many seconds ago.
fn signed(body: &str, key: &str, age_s: i64) -> [(&'static str, String); 2] {
    let seconds = Timestamp::now().0 / 1_000 - age_s;
    let signature = secret::signature(key, &format!("{seconds}.{body}"));
    [("x-roster-timestamp", seconds.to_string()), ("x-roster-signature", format!("v1={}", hex::encode(signature)))]
}

async fn send(site: &Site, headers: &[(&str, String)], body: &str) -> Reply {
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
        let mut command = std::process::Command::new(crate::site::binary());
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

// ── a stub of WordPress ──

/// Users by id, and the status that it answers with instead, if any.
#[derive(Clone, Default)]
struct Users(Arc<Mutex<Answering>>);

/// The users, and the status that replaces every response.
type Answering = (BTreeMap<u64, Value>, Option<u16>);

impl Users {
    fn put(&self, id: u64, username: &str, roles: &[&str]) {
        self.0.lock().expect("no panic").0.insert(id, user_update(id, username, roles));
    }

    fn remove(&self, id: u64) {
        self.0.lock().expect("no panic").0.remove(&id);
    }

    /// From now on it answers every request except `me` with this status; 0 ends this.
    fn fail(&self, status: u16) {
        self.0.lock().expect("no panic").1 = Some(status).filter(|status| *status > 0);
    }

    fn answer(&self, asked: &StubRequest) -> poem::Response {
        let query = |name: &str| asked.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let path = asked.path.strip_prefix("/wp-json/wp/v2/users").expect("the users");
        assert_eq!(query("context"), Some("edit"), "{asked:?}");
        let (users, failing) = self.0.lock().expect("no panic").clone();
        if path == "/me" {
            return stub_server::json(200, &json!({"id": 1, "username": "admin", "email": "", "roles": []}));
        }
        if let Some(status) = failing {
            let code = if status == 404 { "rest_no_route" } else { "rest_forbidden_context" };
            return stub_server::json(status, &json!({"code": code}));
        }
        if let Some(id) = path.strip_prefix('/') {
            let found = users.get(&id.parse().expect("a number"));
            return found.map_or_else(
                || stub_server::json(404, &json!({"code": "rest_user_invalid_id"})),
                |user| stub_server::json(200, user),
            );
        }
        assert_eq!(query("per_page"), Some("100"));
        let all: Vec<&Value> = match (query("include"), query("page")) {
            (Some(ids), _) => ids.split(',').filter_map(|id| users.get(&id.parse().expect("a number"))).collect(),
            (None, Some(page)) => {
                let page: usize = page.parse().expect("a page");
                users.values().skip((page - 1) * 100).take(100).collect()
            }
            (None, None) => panic!("{asked:?}"),
        };
        stub_server::json(200, &json!(all))
    }
}

/// A WordPress without users that accepts any password, with the settings for it and the folder of its password file.
pub fn empty_wordpress() -> (StubServer, tempfile::TempDir, String) {
    let (stub_site, secrets) = (start(&Users::default()), tempfile::tempdir().expect("a directory"));
    let file = secrets.path().join("password");
    std::fs::write(&file, "x").expect("a secret");
    let account = format!("wordpress.username = \"admin\"\nwordpress.password_file = \"{}\"\n", file.display());
    let settings = format!("wordpress.url = \"{}\"\n{account}", stub_site.url);
    (stub_site, secrets, settings)
}

fn start(users: &Users) -> StubServer {
    let users = users.clone();
    StubServer::start(move |asked| users.answer(&asked))
}

async fn compare(site: &Site, wish: Value) -> Value {
    site.admin().post("/admin/wordpress/sync", wish).await.data()
}

fn numbers(report: &Value, list: &str) -> Vec<u64> {
    report[list].as_array().expect("a list").iter().map(|row| row["wordpress_id"].as_u64().expect("id")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_comparison_reports_the_changes_and_the_next_makes_them() {
    let users = Users::default();
    let stub_site = start(&users);
    users.put(1, "root", &["administrator"]);
    users.put(2, "erika", &["editor"]);
    users.put(3, "kim", &["editor"]);
    let site = site_of(&stub_site.url, KEY, Some("x"), "wordpress.organization = \"acme\"").await;
    let acme = site.organization("acme").await;
    map(&acme, "editor", "press").await;
    site.admin().post("/admin/members", json!({"username": "kim"})).await.done();

    let members = site.admin().get("/admin/members").await.data()["total"].clone();
    for _ in 0..2 {
        let report = compare(&site, json!({"dry_run": true})).await;
        assert_eq!(
            (&report["dry_run"], &report["looked_at"], &report["next"]),
            (&json!(true), &json!(3), &Value::Null)
        );
        assert_eq!((numbers(&report, "new"), numbers(&report, "unlinked")), (vec![1, 2], vec![3]));
    }
    assert_eq!(site.admin().get("/admin/members").await.data()["total"], members);
    let report = compare(&site, json!({})).await;
    assert_eq!((numbers(&report, "new"), numbers(&report, "unlinked")), (vec![1, 2], vec![3]));
    let uid = report["new"][1]["uid"].as_str().expect("uid").to_owned();
    assert_eq!(roles(&acme, &uid).await, ["press"]);
    let report = compare(&site, json!({})).await;
    assert_eq!((numbers(&report, "new"), numbers(&report, "changed")), (vec![], vec![]), "nothing twice: {report}");

    // A role and an e-mail change, and a user is deleted.
    users.put(2, "erika", &[]);
    users.remove(1);
    users.put(4, "nora", &[]);
    let command = site.command(&["sync", "wordpress", "--dry-run"]);
    assert_eq!(command["changed"], json!([{"wordpress_id": 2, "uid": uid, "fields": ["roles"], "kept": []}]));
    assert_eq!((numbers(&command, "gone"), numbers(&command, "new")), (vec![1], vec![4]));
    assert_eq!(roles(&acme, &uid).await, ["press"]);
    let command = site.command(&["sync", "wordpress"]);
    assert_eq!((numbers(&command, "gone"), &command["gone"][0]["suspended"]), (vec![1], &json!(true)));
    assert_eq!(roles(&acme, &uid).await, Vec::<String>::new());
    let gone = command["gone"][0]["uid"].as_str().expect("uid");
    assert_eq!(status(&site, gone).await, "suspended");
    // A suspended member without an account is not reported again.
    assert_eq!(numbers(&compare(&site, json!({})).await, "gone"), [0; 0]);
    let entry = site.admin().get("/admin/audit?action=member.follow_wordpress").await.data()["items"][0].clone();
    assert!(!entry.to_string().contains("@example.org"), "{entry}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shifted_page_or_a_failing_wordpress_makes_no_user_count_as_deleted() {
    let users = Users::default();
    let stub_site = start(&users);
    (1..=250).for_each(|id| users.put(id, &format!("p{id}"), &[]));
    let site = site_of(&stub_site.url, KEY, Some("x"), "neighbours.failures = 1000").await;
    let report = compare(&site, json!({})).await;
    assert_eq!((report["looked_at"].as_u64(), numbers(&report, "new").len()), (Some(250), 250));

    // A user of the first page is deleted before the second page is read, so user 101 is on neither.
    let first = compare(&site, json!({"pages": 1})).await;
    assert_eq!((&first["looked_at"], &first["next"]), (&json!(100), &json!("page 2")));
    users.remove(50);
    let rest = compare(&site, json!({"from": "page 2"})).await;
    assert_eq!((&rest["looked_at"], &rest["next"], numbers(&rest, "gone")), (&json!(149), &Value::Null, vec![50]));

    let uid = |report: &Value, n: usize| report["new"][n]["uid"].as_str().expect("uid").to_owned();
    for failure in [401, 403, 404, 500, 503] {
        users.fail(failure);
        for from in ["page 1", "known 0"] {
            let reply = site.admin().post("/admin/wordpress/sync", json!({"from": from})).await;
            assert_eq!((reply.status, reply.word()), (502, "neighbour_failed"), "{failure} {from}");
        }
        let body = notice_of(&stub_site.url, &[json!({"id": 7, "event": "delete"})]);
        let reply = send(&site, &signed(&body, KEY, 0), &body).await;
        assert_eq!((reply.status, reply.word()), (502, "neighbour_failed"), "{failure}");
        assert_eq!(status(&site, &uid(&report, 6)).await, "active", "{failure}");
    }
    users.fail(0);
    // The event says deleted, but WordPress still has the user: WordPress is called, and the event is not trusted.
    let body = notice_of(&stub_site.url, &[json!({"id": 7, "event": "delete"})]);
    assert_eq!(send(&site, &signed(&body, KEY, 0), &body).await.body["users"][0]["result"], "same");

    // A newly installed WordPress has no users: an administrator must confirm.
    (51..=250).for_each(|id| users.remove(id));
    let report = compare(&site, json!({"gone_max": 3})).await;
    let suspended = report["gone"].as_array().expect("gone").iter().filter(|row| row["suspended"] == true).count();
    assert_eq!((numbers(&report, "gone").len(), suspended), (200, 3));
    let command = site.command(&["sync", "wordpress", "--gone-max", "2"]);
    let gone = command["gone"].as_array().expect("gone");
    assert_eq!((gone.len(), gone.iter().filter(|row| row["suspended"] == true).count()), (197, 2));
    for wish in [json!({"from": "page 0"}), json!({"from": "known -1"}), json!({"pages": 0}), json!({"pages": 1001})] {
        assert_eq!(site.admin().post("/admin/wordpress/sync", wish.clone()).await.status, 400, "{wish}");
    }
}

#[tokio::test]
async fn a_failed_event_is_applied_when_it_is_sent_again() {
    let users = Users::default();
    let stub_site = start(&users);
    users.put(7, "kim", &[]);
    let site = site_of(&stub_site.url, KEY, Some("x"), "neighbours.failures = 1000").await;
    let body = notice_of(&stub_site.url, &[json!({"id": 7, "event": "register"})]);
    let headers = signed(&body, KEY, 0);
    users.fail(503);
    for _ in 0..2 {
        let reply = send(&site, &headers, &body).await;
        assert_eq!((reply.status, reply.word()), (502, "neighbour_failed"));
    }
    users.fail(0);

    let (done, again) = (send(&site, &headers, &body).await, send(&site, &headers, &body).await);

    assert_eq!((&done.body["repeated"], &done.body["users"][0]["result"]), (&json!(false), &json!("new")));
    assert_eq!((again.status, &again.body), (200, &json!({"repeated": true, "users": []})));
    assert!(find(&site, "kim").await.is_some());
}

#[tokio::test]
async fn a_busy_faulty_or_silent_wordpress_changes_nothing_and_loses_no_event() {
    let odd: Arc<Mutex<Option<Answer>>> = Arc::default();
    let present = odd.clone();
    let with = |status: u16, kind: &str, body: String| Answer::With(status, vec![("content-type", kind.into())], body);
    let json = move |body: Value| with(200, "application/json", body.to_string());
    let stub_site = Receiver::start(move |asked, _| {
        let (path, _) = asked.path.split_once('?').expect("a query");
        match (path.strip_prefix("/wp-json/wp/v2/users"), present.lock().expect("no panic").clone()) {
            (Some("/me"), None) => json(json!({"id": 1, "username": "admin"})),
            (Some("/7"), None) => json(user_update(7, "kim", &[])),
            (Some(""), None) => json(json!([user_update(7, "kim", &[])])),
            (_, odd) => odd.expect("no further request"),
        }
    });
    let more = "neighbours.failures = 1000\nneighbours.timeout_ms = 400";
    let site = site_of(&stub_site.url, KEY, Some("x"), more).await;
    let uid = compare(&site, json!({})).await["new"][0]["uid"].as_str().expect("uid").to_owned();
    let page = || "<html><body>One moment, please</body></html>".to_owned();
    for (what, answer) in [
        ("busy", Answer::With(429, vec![("retry-after", "1".into())], String::new())),
        ("a page", with(200, "text/html", page())),
        ("a page in place of a user", with(404, "text/html", page())),
        ("cut off", with(200, "application/json", "[{\"id\": 7, \"user".into())),
        ("silent", Answer::Hang),
    ] {
        *odd.lock().expect("no panic") = Some(answer);
        for from in ["page 1", "known 0"] {
            let reply = site.admin().post("/admin/wordpress/sync", json!({"from": from})).await;
            assert_eq!((reply.status, reply.word()), (502, "neighbour_failed"), "{what}, from {from}");
        }
        let body = notice_of(&stub_site.url, &[json!({"id": 7, "event": "delete"})]);
        let headers = signed(&body, KEY, 0);
        let reply = send(&site, &headers, &body).await;
        assert_eq!((reply.status, reply.word()), (502, "neighbour_failed"), "{what}");
        assert!(!reply.body.to_string().contains("moment"), "{what}: {reply:?}");
        assert_eq!(status(&site, &uid).await, "active", "{what}");

        *odd.lock().expect("no panic") = None;
        let reply = send(&site, &headers, &body).await;
        assert_eq!(
            (&reply.body["repeated"], &reply.body["users"][0]["result"]),
            (&json!(false), &json!("same")),
            "{what}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_user_is_reported_and_skipped_and_the_others_are_updated() {
    let kim = user_update(5, "kim", &["editor"]);
    let odd = |changes: Value| {
        let mut user = user_update(6, "lee", &["editor"]);
        changes.as_object().expect("changes").iter().for_each(|(name, value)| user[name] = value.clone());
        user
    };
    let list: Arc<Mutex<Value>> = Arc::default();
    let present = list.clone();
    let stub_site = StubServer::start(move |asked| {
        let path = asked.path.strip_prefix("/wp-json/wp/v2/users").expect("of users").to_owned();
        let list = present.lock().expect("no panic").clone();
        let users = list.as_array().cloned().unwrap_or_default();
        let body = match path.strip_prefix('/') {
            None => list,
            Some("me") => json!({"id": 1, "username": "admin"}),
            Some(id) => match users.into_iter().find(|user| user["id"].as_u64() == id.parse().ok()) {
                Some(user) => user,
                None => return stub_server::json(404, &json!({"code": "rest_user_invalid_id"})),
            },
        };
        // Some plugins of WordPress cause such a response.
        poem::Response::builder().content_type("application/json").body(format!("\u{feff}{body}"))
    });
    let site = site_of(&stub_site.url, KEY, Some("x"), "wordpress.organization = \"acme\"").await;
    let acme = site.organization("acme").await;
    map(&acme, "editor", "press").await;
    let set = |users: Value| *list.lock().expect("no panic") = users;

    // Malformed optional fields are read as far as possible.
    set(json!([kim, odd(json!({"roles": {"1": "editor"}, "email": null, "name": 7}))]));
    let report = compare(&site, json!({})).await;
    assert_eq!((numbers(&report, "new"), &report["odd"]), (vec![5, 6], &json!([])));
    let lee = report["new"][1]["uid"].as_str().expect("uid").to_owned();
    assert_eq!(roles(&acme, &lee).await, ["press"]);
    // Roles that are missing or malformed are unknown, so the member's roles stay.
    for unknown in [json!(null), json!(7), json!({"1": {"editor": true}})] {
        set(json!([kim, odd(json!({"roles": unknown}))]));
        assert_eq!(compare(&site, json!({})).await["odd"], json!([]), "{unknown}");
        assert_eq!(roles(&acme, &lee).await, ["press"], "{unknown}");
    }
    // A user without a username is skipped; an event about it changes nothing either.
    set(json!([odd(json!({"username": null, "name": "Lee"})), user_update(7, "max", &[])]));
    let report = compare(&site, json!({})).await;
    assert_eq!((numbers(&report, "new"), numbers(&report, "gone")), (vec![7], vec![5]));
    let odd_ones = report["odd"].as_array().expect("a list");
    assert_eq!((odd_ones.len(), &odd_ones[0]["wordpress_id"], &odd_ones[0]["name"]), (1, &json!(6), &json!("Lee")));
    assert!(odd_ones[0]["why"].as_str().expect("text").contains("username"), "{report}");
    assert_eq!((status(&site, &lee).await.as_str(), roles(&acme, &lee).await), ("active", vec!["press".to_owned()]));
    let body = notice_of(&stub_site.url, &[json!({"id": 6, "event": "update"}), json!({"id": 7, "event": "update"})]);
    let told = send(&site, &signed(&body, KEY, 0), &body).await.body["users"].clone();
    assert_eq!((&told[0]["result"], &told[1]["result"]), (&json!("odd"), &json!("same")));
    // As the only user it is malformed too; a list in which no user has an id is invalid.
    set(json!([odd(json!({"username": null}))]));
    assert_eq!(compare(&site, json!({"gone_max": 0})).await["odd"][0]["wordpress_id"], 6);
    set(json!([{"title": "a post"}]));
    let reply = site.admin().post("/admin/wordpress/sync", json!({})).await;
    assert_eq!((reply.status, reply.word()), (502, "neighbour_failed"));
}

#[tokio::test]
async fn the_response_for_another_user_and_wrong_credentials_stop_a_comparison() {
    let me = |body: Value, status: u16| StubServer::start(move |_| stub_server::json(status, &body));
    for (stub_site, message) in [
        (me(json!({"code": "rest_not_logged_in"}), 401), "refuses wordpress.username"),
        (me(json!({"id": 2, "username": "other", "roles": []}), 200), "did not answer as it should"),
        // The response for an anonymous visitor has no username.
        (me(json!({"id": 1, "name": "Admin"}), 200), "did not answer as it should"),
        (me(json!([]), 200), "did not answer as it should"),
    ] {
        let site = site_of(&stub_site.url, KEY, Some("x"), "").await;
        let reply = site.admin().post("/admin/wordpress/sync", json!({})).await;
        assert_eq!((reply.status, reply.word()), (502, "neighbour_failed"));
        assert!(reply.body["message"].as_str().expect("text").contains(message), "{reply:?}");
        assert_eq!(stub_site.asked(), 1, "no further request");
    }
}

// ── the real WordPress ──

/// Serializes the tests that receive events of the WordPress that all tests share.
static EVENTS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn site_at(wordpress: &WordPress) -> SiteWithSecrets {
    let password = &wordpress.person("admin").application_password;
    site_of(&wordpress.url, &wordpress.events_key, Some(password), "wordpress.organization = \"acme\"").await
}

fn send_events_to(wordpress: &WordPress, url: &str) {
    std::fs::write(&wordpress.events_url, url).expect("the file");
}

async fn administer(wordpress: &WordPress, method: reqwest::Method, path: &str, body: Value, quiet: bool) -> Value {
    let url = format!("{}/wp-json/wp/v2/users{path}", wordpress.url);
    let admin = &wordpress.person("admin").application_password;
    let mut request = crate::counterparts::http().request(method, url).basic_auth("admin", Some(admin)).json(&body);
    if quiet {
        request = request.header("x-roster-quiet", "1");
    }
    let answer = request.send().await.expect("an answer");
    assert!(answer.status().is_success(), "{}", answer.text().await.expect("text"));
    answer.json().await.expect("JSON")
}

async fn new_person(wordpress: &WordPress, roles: &[&str], quiet: bool) -> (String, u64) {
    let login = format!("p{}", uuid::Uuid::now_v7().simple());
    let body = json!({"username": login, "email": format!("{login}@example.org"), "password": "Pass-word-7",
        "name": "New Person", "roles": roles});
    let made = administer(wordpress, reqwest::Method::POST, "", body, quiet).await;
    (login, made["id"].as_u64().expect("id"))
}

/// Repeats a request until it returns a result.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn members_follow_users_created_changed_and_deleted_at_wordpress() {
    let wordpress = WordPress::start();
    let _turn = EVENTS.lock().await;
    let site = site_at(wordpress).await;
    let acme = site.organization("acme").await;
    map(&acme, "editor", "press").await;
    map(&acme, "author", "writers").await;
    send_events_to(wordpress, &format!("{}{HOOK}", site.url));

    let (login, id) = new_person(wordpress, &["editor"], false).await;
    let member = until("a new user becomes a member", async || find(&site, &login).await).await;
    let uid = member["uid"].as_str().expect("uid").to_owned();
    assert_eq!(member["email"], format!("{login}@example.org"));
    until("its role follows", async || (roles(&acme, &uid).await == ["press"]).then_some(())).await;

    let body = json!({"roles": ["author"], "email": format!("new-{login}@example.org")});
    administer(wordpress, reqwest::Method::POST, &format!("/{id}"), body, false).await;
    until("another role follows", async || (roles(&acme, &uid).await == ["writers"]).then_some(())).await;
    assert_eq!(find(&site, &login).await.expect("the member")["email"], format!("{login}@example.org"));

    // A user that another program reports itself causes no event of its own; an event about another user is sent.
    let (quiet, _) = new_person(wordpress, &["editor"], true).await;
    let (loud, _) = new_person(wordpress, &["editor"], false).await;
    until("the event of the next user arrives", async || find(&site, &loud).await).await;
    assert_eq!(find(&site, &quiet).await, None);

    let path = format!("/{id}?force=true&reassign=false");
    administer(wordpress, reqwest::Method::DELETE, &path, json!({}), false).await;
    until("the deleted user is suspended", async || (status(&site, &uid).await == "suspended").then_some(())).await;
    assert_eq!(roles(&acme, &uid).await, Vec::<String>::new());
    send_events_to(wordpress, "");
}

#[tokio::test]
async fn events_that_roster_could_not_receive_are_sent_again() {
    let wordpress = WordPress::start();
    let _turn = EVENTS.lock().await;
    let site = site_at(wordpress).await;
    site.organization("acme").await;
    send_events_to(wordpress, &format!("{NOWHERE}{HOOK}"));
    let (login, _) = new_person(wordpress, &[], false).await;
    assert_eq!(find(&site, &login).await, None);

    send_events_to(wordpress, &format!("{}{HOOK}", site.url));
    let cron = format!("{}/wp-cron.php?doing_wp_cron", wordpress.url);
    until("the cron job sends the event", async || {
        crate::counterparts::http().get(&cron).send().await.expect("an answer");
        find(&site, &login).await
    })
    .await;
    send_events_to(wordpress, "");
}

#[tokio::test]
async fn all_users_of_a_real_wordpress_are_compared() {
    let wordpress = WordPress::start();
    let site = site_at(wordpress).await;
    let acme = site.organization("acme").await;
    map(&acme, "editor", "press").await;
    let (login, id) = new_person(wordpress, &["editor"], false).await;

    let dry = site.command(&["sync", "wordpress", "--dry-run"]);
    assert!(numbers(&dry, "new").contains(&id), "{dry}");
    assert_eq!(find(&site, &login).await, None);
    let report = site.command(&["sync", "wordpress"]);
    let row = report["new"].as_array().expect("new").iter().find(|row| row["wordpress_id"] == id).expect("a row");
    let uid = row["uid"].as_str().expect("uid");
    assert_eq!(roles(&acme, uid).await, ["press"]);

    let path = format!("/{id}?force=true&reassign=false");
    administer(wordpress, reqwest::Method::DELETE, &path, json!({}), false).await;
    assert!(numbers(&compare(&site, json!({})).await, "gone").contains(&id));
    assert_eq!(status(&site, uid).await, "suspended");
    // With a wrong password WordPress would answer as to an anonymous visitor.
    let wrong = site_of(&wordpress.url, KEY, Some("abcd EFGH 1234 ijkl MNOP 5678"), "").await;
    let reply = wrong.admin().post("/admin/wordpress/sync", json!({})).await;
    assert_eq!((reply.status, reply.word()), (502, "neighbour_failed"));
}
