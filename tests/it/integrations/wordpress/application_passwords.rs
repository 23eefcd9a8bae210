//! Sign-in with WordPress by application passwords, at a real site and at one that misbehaves.

use std::time::{Duration, Instant};

use base64::Engine;
use serde_json::{Value, json};

use super::{administer, issue, map, new_person, redeem, roles, sign_in, site_at, site_of};
use crate::harness::callers::Reply;
use crate::harness::counterparts::WordPress;
use crate::harness::site::Site;
use crate::harness::stub_server::{self, NOWHERE, StubServer};
use crate::harness::waiting::eventually;

#[tokio::test]
async fn a_member_created_with_a_wordpress_id_is_found_at_the_first_sign_in() {
    let site = site_of(NOWHERE, "").await;
    let body = json!({"wordpress_id": 17, "username": "kim", "email": "kim@example.org"});
    let made = site.admin().post("/admin/users", body).await.data();
    let arrived = redeem(&site, &issue(&json!({"id": 17, "login": "kim.l", "email": "other@example.org"}))).await;
    let me = site.bearer(&arrived.access_token()).get("/me").await.data();
    assert_eq!((&me["uid"], &me["email"]), (&made["id"], &json!("kim@example.org")));
}

// ── application passwords ──

#[tokio::test]
async fn an_application_password_creates_a_member_with_the_mapped_roles() {
    let wordpress = WordPress::start();
    let site = site_at(wordpress, "wordpress.organization = \"acme\"").await;
    let acme = site.organization("acme").await;
    map(&acme, "editor", "press").await;
    let editor = wordpress.person("editor");

    let token = sign_in(&site, "editor", &editor.application_password).await.access_token();

    let me = site.bearer(&token).get("/me").await.data();
    assert_eq!((&me["username"], &me["email"]), (&json!("editor"), &json!(editor.email)));
    assert_eq!(me["organizations"][0]["org_code"], json!("acme"));
    assert_eq!(roles(&acme, &token).await, ["press"]);
    let actions = site.admin().get("/admin/audit?action=member.arrive").await.data();
    let uid = me["uid"].as_str().expect("uid");
    let entries = actions["items"].as_array().expect("items");
    assert_eq!(entries.len(), 3, "created, linked, synced: {entries:?}");
    for entry in entries {
        assert_eq!((&entry["actor"], &entry["actor_kind"]), (&json!(uid), &json!("member")), "{entry}");
        assert!(!entry.to_string().contains(&editor.email), "{entry}");
    }
    // By e-mail it is the same member, and nothing changes.
    let again = sign_in(&site, &editor.email, &editor.application_password.replace(' ', "")).await;
    assert_eq!(
        site.bearer(again.data()["access_token"].as_str().expect("a token")).get("/me").await.data()["uid"],
        uid
    );
    assert_eq!(site.admin().get("/admin/audit?action=member.arrive").await.data()["total"], 3);
    let sessions = site.bearer(&token).get("/me/sessions").await.data();
    assert_eq!(sessions["items"][0]["method"], "wordpress");
}

#[tokio::test]
async fn a_role_changed_at_wordpress_changes_at_the_next_sign_in() {
    let wordpress = WordPress::start();
    let site = site_at(wordpress, "wordpress.organization = \"acme\"").await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    map(&acme, "editor", "press").await;
    map(&acme, "author", "writers").await;
    map(&bolt, "author", "guests").await;
    let (login, person) = new_person(wordpress, "editor").await;
    let first = sign_in(&site, &login, &person.application_password).await.access_token();
    assert_eq!(roles(&acme, &first).await, ["press"]);
    // A manually assigned role is not changed by a sign-in.
    let uid = site.bearer(&first).get("/me").await.data()["uid"].as_str().expect("uid").to_owned();
    acme.assign(&uid, &acme.role_id("viewer").await).await;

    administer(wordpress, &format!("/{}", person.id), json!({"roles": ["author"]})).await;
    assert_eq!(roles(&acme, &first).await, ["press", "viewer"]);
    bolt.link(&uid).await;
    sign_in(&site, &login, &person.application_password).await.done();
    // The roles also apply to the earlier session, in both organizations.
    assert_eq!(roles(&acme, &first).await, ["viewer", "writers"]);
    assert_eq!(roles(&bolt, &first).await, ["guests"]);
    let seen = bolt.owner().get("/admin/audit?action=member.arrive").await.data();
    assert_eq!(seen["items"].as_array().expect("items").len(), 1, "each organization sees its own: {seen}");

    administer(wordpress, &format!("/{}", person.id), json!({"roles": ["subscriber"]})).await;
    sign_in(&site, &login, &person.application_password).await.done();
    assert_eq!(roles(&acme, &first).await, ["viewer"]);
    assert_eq!(roles(&bolt, &first).await, Vec::<String>::new());
}

#[tokio::test]
async fn wrong_credentials_are_refused_alike_and_throttled() {
    let wordpress = WordPress::start();
    let site = site_at(wordpress, "auth.slow_account_failures = 3").await;
    let right = &wordpress.person("subscriber").application_password;

    let unknown = sign_in(&site, "nobody-here", right).await;
    assert_eq!(unknown.is(28_501_000).word(), "invalid_login");
    for _ in 0..3 {
        assert_eq!(
            sign_in(&site, "subscriber", "abcd EFGH 1234 ijkl MNOP 5678").await.is(28_501_000).word(),
            "invalid_login"
        );
    }
    let slowed = sign_in(&site, "subscriber", right).await;
    assert_eq!(slowed.is(28_604_000).word(), "too_many_failures");
    assert!(slowed.header("retry-after").is_some());
    // The password of the login form is not an application password.
    let editor = wordpress.person("editor");
    sign_in(&site, "editor", &editor.password).await.is(28_501_000);
    sign_in(&site, "editor", &editor.application_password).await.done();
    assert_eq!(site.admin().get("/admin/members?keyword=subscriber").await.data()["total"], 0);
}

#[tokio::test]
async fn taken_or_invalid_names_are_omitted_and_never_link() {
    let wordpress = WordPress::start();
    let site = site_at(wordpress, "").await;
    let (login, person) = new_person(wordpress, "subscriber").await;
    let body = json!({"username": login.to_uppercase(), "email": person.email, "display_name": "Local"});
    let local = site.admin().post("/admin/members", body).await.data();

    let first = sign_in(&site, &login, &person.application_password).await.access_token();

    let me = site.bearer(&first).get("/me").await.data();
    assert_ne!(me["uid"], local["uid"]);
    assert_eq!(
        (&me["username"], &me["email"], &me["display_name"]),
        (&Value::Null, &Value::Null, &json!("New Person"))
    );
    // Once the names are free, empty fields are filled; names that the member chose stay.
    site.admin().delete(&format!("/admin/members/{}", local["uid"].as_str().expect("uid"))).await.done();
    site.bearer(&first).patch("/me", json!({"display_name": "Chosen"})).await.done();
    sign_in(&site, &login, &person.application_password).await.done();
    let me = site.bearer(&first).get("/me").await.data();
    assert_eq!((&me["username"], &me["email"]), (&json!(login), &json!(person.email)));
    assert_eq!(me["display_name"], "Chosen");

    for login in ["name with space", "dot.at@host"] {
        let token = sign_in(&site, login, &wordpress.person(login).application_password).await.access_token();
        let me = site.bearer(&token).get("/me").await.data();
        assert_eq!((&me["username"], &me["email"]), (&Value::Null, &json!(wordpress.person(login).email)), "{login}");
    }
}

#[tokio::test]
async fn a_suspended_member_is_refused_by_password_and_by_ticket() {
    let wordpress = WordPress::start();
    let site = site_at(wordpress, "").await;
    let (login, person) = new_person(wordpress, "subscriber").await;
    let first = sign_in(&site, &login, &person.application_password).await.access_token();
    let uid = site.bearer(&first).get("/me").await.data()["uid"].as_str().expect("uid").to_owned();
    site.admin().post(&format!("/admin/members/{uid}/deactivate"), json!({})).await.done();

    site.bearer(&first).get("/me").await.is(28_501_000);
    assert_eq!(sign_in(&site, &login, &person.application_password).await.is(28_501_000).word(), "invalid_login");
    let mut browser = wordpress.browser_sign_in(&login, &person.password).await;
    let ticket = wordpress.ticket(&mut browser).await;
    assert_eq!(redeem(&site, &ticket).await.is(28_501_000).word(), "invalid_login");
}

#[tokio::test]
async fn invalid_input_is_refused_before_wordpress_is_called() {
    let asked = StubServer::start(|_| stub_server::json(401, &json!({"code": "rest_not_logged_in"})));
    let site = site_of(&asked.url, "").await;

    for body in [
        json!({"username": "a:b", "application_password": "x"}),
        json!({"username": "", "application_password": "x"}),
        json!({"username": "a", "application_password": ""}),
        json!({"username": "a", "application_password": "x\ny"}),
        json!({"username": "a".repeat(255), "application_password": "x"}),
        json!({"username": "a", "application_password": "x".repeat(257)}),
        json!({"username": "a"}),
    ] {
        let reply = site.nobody().post("/auth/wordpress", body.clone()).await;
        assert_eq!(reply.status, 400, "{body}");
    }
    assert_eq!(asked.asked(), 0);
    sign_in(&site, &"a".repeat(254), &"x".repeat(256)).await.is(28_501_000);
    assert_eq!(asked.asked(), 1);
    let foreign = site.nobody().with("sec-fetch-site", "cross-site").with("origin", "https://evil.example.org");
    let body = json!({"username": "a", "application_password": "x", "cookies": true});
    assert_eq!(foreign.post("/auth/wordpress", body).await.is(28_505_000).word(), "cross_site");
    assert_eq!(asked.asked(), 1);
}

#[tokio::test]
async fn without_settings_both_sign_ins_name_the_missing_settings() {
    let site = Site::start().await;
    for reply in [sign_in(&site, "a", "b").await, redeem(&site, "a.b").await] {
        assert_eq!((reply.status, reply.is(28_605_000).word()), (501, "wordpress_not_configured"));
    }
    let site = Site::with("wordpress.url = \"http://127.0.0.1:9\"").await;
    assert_eq!(redeem(&site, "a.b").await.is(28_605_000).word(), "wordpress_not_configured");
}

// ── a site that misbehaves ──

#[tokio::test]
async fn invalid_responses_sign_nobody_in() {
    let changed = |name: &str, value: Value| {
        let mut me =
            json!({"id": 7, "username": "kim", "email": "kim@example.org", "name": "Kim", "roles": ["editor"]});
        me[name] = value;
        stub_server::json(200, &me)
    };
    let html = || poem::Response::builder().content_type("text/html").body("<!doctype html><title>Welcome</title>");
    let redirect = || {
        let response = poem::Response::builder().status(poem::http::StatusCode::MOVED_PERMANENTLY);
        response.header("location", "https://www.example.org/").body("")
    };
    let stub = StubServer::start(move |asked| {
        let (login, _) = decoded(&asked.authorization);
        match login.as_str() {
            "kim" | "KIM@example.org" => changed("id", json!(7)),
            "marked" => {
                let me = json!({"id": 9, "username": "marked", "email": null, "name": false, "roles": {"2": "editor"}});
                poem::Response::builder().content_type("application/json").body(format!("\u{feff}{me}"))
            }
            "nobody" => changed("id", json!(0)),
            "text" => changed("id", json!("7")),
            "list" => stub_server::json(200, &json!([])),
            "thousand" | "more" => {
                let count = if login == "more" { 1_001 } else { 1_000 };
                let roles: Vec<String> = (0..count).map(|n| format!("role{n}")).collect();
                stub_server::json(200, &json!({"id": 8, "username": login, "roles": roles}))
            }
            "html" => html(),
            "long" => stub_server::json(200, &json!({"text": "x".repeat(2_000_000)})),
            "redirect" => redirect(),
            "missing" => stub_server::json(404, &json!({"code": "rest_no_route"})),
            "forbidden" => stub_server::json(403, &json!({"code": "rest_forbidden"})),
            // The response for another user, as a faulty cache returns it.
            _ => changed("name", json!("Kim")),
        }
    });
    let site = site_of(&stub.url, "neighbours.failures = 1000").await;

    let paths: Vec<Reply> = vec![sign_in(&site, "kim", "x").await, sign_in(&site, "KIM@example.org", "x").await];
    paths.iter().for_each(Reply::done);
    for login in ["nobody", "text", "list", "html", "more", "long", "redirect", "missing", "other"] {
        let reply = sign_in(&site, login, "x").await;
        assert_eq!((reply.status, reply.is(28_602_000).word()), (502, "neighbour_failed"), "{login}");
    }
    sign_in(&site, "forbidden", "x").await.is(28_501_000);
    sign_in(&site, "thousand", "x").await.done();
    // A byte order mark and malformed optional values are accepted.
    sign_in(&site, "marked", "x").await.done();
    // The administrator, Kim, a user with a thousand roles, and one with malformed roles.
    assert_eq!(site.admin().get("/admin/members").await.data()["total"], 4);
}

/// Login and password of HTTP Basic.
fn decoded(authorization: &str) -> (String, String) {
    let encoded = authorization.strip_prefix("Basic ").expect("Basic");
    let text = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(encoded).expect("base64"));
    let text = text.expect("UTF-8");
    let (login, password) = text.split_once(':').expect("a colon");
    (login.to_owned(), password.to_owned())
}

#[tokio::test]
async fn a_site_that_fails_repeatedly_is_not_called_until_later() {
    let is_well = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let wellness = is_well.clone();
    let stub = StubServer::start(move |_| {
        let me = json!({"id": 7, "username": "kim", "roles": []});
        let is_well = wellness.load(std::sync::atomic::Ordering::SeqCst);
        if is_well {
            stub_server::json(200, &me)
        } else {
            stub_server::json(500, &json!({"code": "internal_server_error"}))
        }
    });
    let site = site_of(&stub.url, "neighbours.failures = 3\nneighbours.pause_s = 1").await;

    for _ in 0..3 {
        sign_in(&site, "kim", "x").await.is(28_602_000);
    }
    let refused = sign_in(&site, "kim", "x").await;
    assert_eq!((refused.status, refused.is(28_602_000).header("retry-after")), (502, Some("1")));
    assert_eq!(stub.asked(), 3);

    is_well.store(true, std::sync::atomic::Ordering::SeqCst);
    eventually("it is called again", async || sign_in(&site, "kim", "x").await.status == 200).await;
    assert_eq!(stub.asked(), 4);
}

#[tokio::test]
async fn a_site_that_is_down_or_slow_fails_in_a_bounded_time() {
    // Accepts connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let urls = [silent.local_addr().expect("an address"), closed.local_addr().expect("an address")];
    drop(closed);
    for address in urls {
        let site = site_of(&format!("http://{address}"), "neighbours.timeout_ms = 300\nneighbours.failures = 2").await;
        for _ in 0..2 {
            let began = Instant::now();
            let reply = sign_in(&site, "kim", "x").await;
            assert_eq!((reply.status, reply.is(28_602_000).word()), (502, "neighbour_failed"));
            assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        }
        assert!(sign_in(&site, "kim", "x").await.is(28_602_000).header("retry-after").is_some());
    }
}
