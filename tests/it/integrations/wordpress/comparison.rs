//! The comparison of all users of WordPress with the members, at a stub.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::events::{KEY, find, notice_of, roles, send, signed, site_of, status, user_update};
use super::map;
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::site::Site;
use crate::harness::stub_server::{self, StubRequest, StubServer};

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

pub async fn compare(site: &Site, wish: Value) -> Value {
    site.admin().post("/admin/wordpress/sync", wish).await.data()
}

pub fn numbers(report: &Value, list: &str) -> Vec<u64> {
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
        (me(json!({"code": "rest_not_logged_in"}), 401), "rejects wordpress.username"),
        (me(json!({"id": 2, "username": "other", "roles": []}), 200), "gave an unexpected answer"),
        // The response for an anonymous visitor has no username.
        (me(json!({"id": 1, "name": "Admin"}), 200), "gave an unexpected answer"),
        (me(json!([]), 200), "gave an unexpected answer"),
    ] {
        let site = site_of(&stub_site.url, KEY, Some("x"), "").await;
        let reply = site.admin().post("/admin/wordpress/sync", json!({})).await;
        assert_eq!((reply.status, reply.word()), (502, "neighbour_failed"));
        assert!(reply.body["message"].as_str().expect("text").contains(message), "{reply:?}");
        assert_eq!(stub_site.asked(), 1, "no further request");
    }
}
