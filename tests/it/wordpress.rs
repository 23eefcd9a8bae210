//! Sign-in with WordPress: application passwords at a real site, tickets of our plugin, and every way in which a site
//! can misbehave.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use roster::kernel::ids::Timestamp;
use roster::kernel::secret;
use serde_json::{Value, json};

use crate::counterparts::{Browser, Person, WordPress, query};
use crate::site::{Organization, Reply, Site};
use crate::stub_server::{self, StubServer};

/// Nothing listens at this address: tickets need no request to WordPress.
const NOWHERE: &str = "http://127.0.0.1:9";
const SECRET: &str = "a-ticket-secret-for-tests-without-a-site";

/// A site that is configured for a WordPress that does not exist or misbehaves.
async fn site_of(url: &str, more: &str) -> Site {
    site_with(url, SECRET, more).await
}

/// A site that is configured for the real WordPress.
async fn site_at(wordpress: &WordPress, more: &str) -> Site {
    site_with(&wordpress.url, &wordpress.ticket_secret, more).await
}

async fn site_with(url: &str, secret: &str, more: &str) -> Site {
    // Read at every start of a server, so it must exist until all tests are over.
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a directory"));
    let file = folder.path().join(hex::encode(&secret::hash(secret)[..8]));
    // Another server may read the file at the same time, so it is replaced atomically.
    let written = tempfile::NamedTempFile::new_in(folder.path()).expect("a file");
    std::fs::write(written.path(), secret).expect("the secret");
    written.persist(&file).expect("in its place");
    let file = file.display();
    Site::with(&format!("wordpress.url = \"{url}\"\nwordpress.ticket_secret_file = \"{file}\"\n{more}")).await
}

async fn sign_in(site: &Site, login: &str, password: &str) -> Reply {
    site.nobody().post("/auth/wordpress", json!({"username": login, "application_password": password})).await
}

async fn redeem(site: &Site, ticket: &str) -> Reply {
    site.nobody().post("/auth/wordpress/ticket", json!({"ticket": ticket})).await
}

fn token(reply: &Reply) -> String {
    reply.data()["access_token"].as_str().expect("a token").to_owned()
}

async fn map(organization: &Organization<'_>, external_key: &str, role: &str) {
    organization.role(role, &[]).await;
    let body = json!({"external_source": "wordpress", "external_key": external_key, "internal_role_key": role});
    organization.admin().put("/api/v1/permissions/role-mappings", body).await.done();
}

/// Keys of the roles that the member with this token holds in an organization.
async fn roles(organization: &Organization<'_>, token: &str) -> Vec<String> {
    let me = organization.site.bearer(token).get("/me").await.data();
    let uid = me["uid"].as_str().expect("uid").to_owned();
    let path = format!("/api/v1/permissions/users/{uid}/roles");
    let held = organization.admin().get(&path).await.data();
    let mut keys: Vec<String> = held["user_roles"]
        .as_array()
        .expect("roles")
        .iter()
        .map(|r| r["role_key"].as_str().expect("key").to_owned())
        .collect();
    keys.sort();
    keys
}

/// Creates an account at WordPress as its administrator.
pub async fn new_person(wordpress: &WordPress, role: &str) -> (String, Person) {
    let login = format!("p{}", uuid::Uuid::now_v7().simple());
    let email = format!("{login}@example.org");
    let password = "Pass-word-7";
    let body = json!({"username": login, "email": email, "password": password, "name": "New Person", "roles": [role]});
    let made = administer(wordpress, "", body).await;
    let id = made["id"].as_i64().expect("id");
    let made = administer(wordpress, &format!("/{id}/application-passwords"), json!({"name": "roster"})).await;
    let application_password = made["password"].as_str().expect("password").to_owned();
    (login, Person { id, email, password: password.into(), application_password })
}

pub async fn administer(wordpress: &WordPress, path: &str, body: Value) -> Value {
    let url = format!("{}/wp-json/wp/v2/users{path}", wordpress.url);
    let admin = &wordpress.person("admin").application_password;
    let request = crate::counterparts::http().post(url).basic_auth("admin", Some(admin)).json(&body);
    let answer = request.send().await.expect("an answer");
    assert!(answer.status().is_success(), "{}", answer.text().await.expect("text"));
    answer.json().await.expect("JSON")
}

/// A ticket like the plugin's, with changes.
fn issue(changes: &Value) -> String {
    let now = Timestamp::now().0 / 1_000;
    let mut claims = json!({"v": 1, "site": NOWHERE, "id": 4_000_000, "login": "forger", "email": "", "name": "",
        "roles": [], "iat": now, "exp": now + 60, "jti": uuid::Uuid::now_v7().simple().to_string()});
    for (name, value) in changes.as_object().expect("changes") {
        claims[name] = value.clone();
    }
    sealed(&claims, SECRET)
}

fn sealed(claims: &Value, key: &str) -> String {
    let body = URL_SAFE_NO_PAD.encode(claims.to_string());
    format!("{body}.{}", hex::encode(secret::signature(key, &body)))
}

#[tokio::test]
async fn a_member_created_with_a_wordpress_id_is_found_at_the_first_sign_in() {
    let site = site_of(NOWHERE, "").await;
    let body = json!({"wordpress_id": 17, "username": "kim", "email": "kim@example.org"});
    let made = site.admin().post("/admin/users", body).await.data();
    let arrived = redeem(&site, &issue(&json!({"id": 17, "login": "kim.l", "email": "other@example.org"}))).await;
    let me = site.bearer(&token(&arrived)).get("/me").await.data();
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

    let token = token(&sign_in(&site, "editor", &editor.application_password).await);

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
    let first = token(&sign_in(&site, &login, &person.application_password).await);
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

    let first = token(&sign_in(&site, &login, &person.application_password).await);

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
        let token = token(&sign_in(&site, login, &wordpress.person(login).application_password).await);
        let me = site.bearer(&token).get("/me").await.data();
        assert_eq!((&me["username"], &me["email"]), (&Value::Null, &json!(wordpress.person(login).email)), "{login}");
    }
}

#[tokio::test]
async fn a_suspended_member_is_refused_by_password_and_by_ticket() {
    let wordpress = WordPress::start();
    let site = site_at(wordpress, "").await;
    let (login, person) = new_person(wordpress, "subscriber").await;
    let first = token(&sign_in(&site, &login, &person.application_password).await);
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
    let deadline = Instant::now() + Duration::from_secs(5);
    while sign_in(&site, "kim", "x").await.status != 200 {
        assert!(Instant::now() < deadline, "it is never called again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
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

// ── tickets ──

#[tokio::test]
async fn a_ticket_of_the_plugin_signs_in_once() {
    let wordpress = WordPress::start();
    let site = site_at(wordpress, "wordpress.organization = \"acme\"").await;
    let acme = site.organization("acme").await;
    map(&acme, "editor", "press").await;
    let editor = wordpress.person("editor");
    let mut browser = wordpress.browser_sign_in("editor", &editor.password).await;

    let ticket = wordpress.ticket(&mut browser).await;
    let reply = redeem(&site, &ticket).await;

    let token = token(&reply);
    let me = site.bearer(&token).get("/me").await.data();
    assert_eq!((&me["username"], &me["email"]), (&json!("editor"), &json!(editor.email)));
    assert_eq!(roles(&acme, &token).await, ["press"]);
    assert_eq!(redeem(&site, &ticket).await.is(28_501_000).word(), "invalid_ticket");
    // The same member by application password and by the next ticket.
    let by_password = sign_in(&site, "editor", &editor.application_password).await.data()["access_token"].clone();
    let by_ticket = redeem(&site, &wordpress.ticket(&mut browser).await).await.data()["access_token"].clone();
    for token in [by_password, by_ticket] {
        assert_eq!(site.bearer(token.as_str().expect("a token")).get("/me").await.data()["uid"], me["uid"]);
    }
}

#[tokio::test]
async fn a_browser_returns_from_wordpress_with_a_ticket_that_sets_cookies() {
    let wordpress = WordPress::start();
    let site = site_at(wordpress, "").await;
    let person = wordpress.person("name with space");
    let url = format!("{}/wp-admin/admin-post.php?action=roster_sign_in&state=s1", wordpress.url);
    let mut url = reqwest::Url::parse(&url).expect("URL");
    url.query_pairs_mut().append_pair("return_to", &wordpress.return_url);

    let mut browser = Browser::new();
    let page = browser.get(url.as_str()).await;
    let login_page = page.location().expect("the way to the form");
    let back = query(&login_page, "redirect_to").expect("the way back");
    browser.get(&login_page).await;
    let form = [("log", "name with space"), ("pwd", &*person.password), ("redirect_to", &*back)];
    let page = browser.submit(&format!("{}/wp-login.php", wordpress.url), &form).await;
    let page = browser.get(&page.location().expect("back to the plugin")).await;
    let returned = page.location().expect("the way to Roster");
    let fragment = returned.strip_prefix(&format!("{}#ticket=", wordpress.return_url)).expect("a ticket");
    let ticket = fragment.strip_suffix("&state=s1").expect("the state");

    let body = json!({"ticket": ticket, "cookies": true});
    let same_site = site.nobody().with("sec-fetch-site", "same-origin");
    let reply = same_site.send(Method::POST, "/auth/wordpress/ticket", Some(body)).await;

    assert_eq!(reply.headers.get_all("set-cookie").iter().count(), 3, "{reply:?}");
    let me = site.bearer(&token(&reply)).get("/me").await.data();
    assert_eq!(me["email"], person.email);
}

#[tokio::test]
async fn forged_foreign_and_old_tickets_create_no_member() {
    let site = site_of(NOWHERE, "").await;
    let now = Timestamp::now().0 / 1_000;
    let with = |changes: Value| issue(&changes);
    let good = with(json!({}));
    let (body, signature) = good.split_once('.').expect("a point");
    let mut flipped = body.to_owned().into_bytes();
    flipped[10] ^= 1;
    let flipped = String::from_utf8(flipped).expect("text");

    for (why, ticket) in [
        ("another key", sealed(&json!({"v": 1}), "another-secret-of-32-characters-or-more")),
        ("no signature", format!("{body}.")),
        ("half a signature", format!("{body}.{}", &signature[..32])),
        ("another body", format!("{flipped}.{signature}")),
        ("garbage", "garbage".into()),
        ("a point", ".".into()),
        ("signed garbage", sealed(&json!("x"), SECRET)),
        ("another version", with(json!({"v": 2}))),
        ("another site", with(json!({"site": "http://127.0.0.1:1"}))),
        ("over", with(json!({"iat": now - 61, "exp": now - 1}))),
        ("too long a life", with(json!({"exp": now + 61}))),
        ("from the future", with(json!({"iat": now + 30, "exp": now + 60}))),
        ("nobody", with(json!({"id": 0}))),
        ("without a name of its own", with(json!({"jti": ""}))),
    ] {
        let reply = redeem(&site, &ticket).await;
        assert_eq!((reply.status, reply.is(28_501_000).word()), (401, "invalid_ticket"), "{why}");
    }
    assert_eq!(site.admin().get("/admin/members").await.data()["total"], 1);
    let reply = site.nobody().post("/auth/wordpress/ticket", json!({"ticket": "x".repeat(8_193)})).await;
    assert_eq!(reply.fields(), ["body.ticket"]);
    redeem(&site, &good).await.done();
}

#[tokio::test]
async fn a_reused_wordpress_id_does_not_lead_to_the_former_member() {
    let site = site_of(NOWHERE, "").await;
    let ticket =
        |login: &str, email: &str| issue(&json!({"id": 7, "login": login, "email": email, "roles": ["editor"]}));
    let first = redeem(&site, &ticket("kim", "kim@example.org")).await;
    let uid = site.bearer(&token(&first)).get("/me").await.data()["uid"].clone();

    for (login, email) in [("lee", "lee@example.org"), ("lee", ""), ("KIM", "lee@example.org")] {
        let reply = redeem(&site, &ticket(login, email)).await;
        assert_eq!((reply.status, reply.is(28_505_000).word()), (403, "forbidden"), "{login} {email}");
    }
    // A user who changed only the login or only the e-mail is still the same person.
    for (login, email) in [("kim", "new@example.org"), ("renamed", "Kim@example.org"), ("kim", "")] {
        let reply = redeem(&site, &ticket(login, email)).await;
        assert_eq!(site.bearer(&token(&reply)).get("/me").await.data()["uid"], uid, "{login} {email}");
    }
}

#[tokio::test]
async fn a_full_site_creates_no_member_and_a_missing_organization_prevents_no_sign_in() {
    let site = site_of(NOWHERE, "limits.members = 2\nwordpress.organization = \"nowhere\"").await;
    let ticket = |id: u64| issue(&json!({"id": id, "login": format!("p{id}")}));

    redeem(&site, &ticket(1)).await.done();
    assert_eq!(redeem(&site, &ticket(2)).await.is(29_309_000).word(), "site_full");
    redeem(&site, &ticket(1)).await.done();
    assert_eq!(site.admin().get("/admin/members").await.data()["total"], 2);
    assert!(site.log().contains("name an organization that does not exist"), "{}", site.log());
}

#[test]
fn a_ticket_secret_that_could_be_guessed_is_refused_at_start() {
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("secret");
    let settings = format!("wordpress.url = \"{NOWHERE}\"\nwordpress.ticket_secret_file = \"{}\"\n", file.display());
    std::fs::write(folder.path().join("roster.toml"), settings).expect("settings");
    for (length, is_taken) in [(31, false), (32, true)] {
        std::fs::write(&file, "s".repeat(length)).expect("the secret");
        let output = std::process::Command::new(crate::site::binary())
            .args(["config", "check", "--data"])
            .arg(folder.path())
            .output()
            .expect("roster");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), is_taken, "{length}: {said}");
        assert_eq!(said.contains("wordpress.ticket_secret_file"), !is_taken, "{length}: {said}");
    }
}

#[tokio::test]
async fn many_requests_with_one_ticket_give_one_session() {
    let site = site_of(NOWHERE, "").await;
    let ticket = issue(&json!({"id": 4_000_001, "login": "racer"}));

    let (a, b, c, d) =
        tokio::join!(redeem(&site, &ticket), redeem(&site, &ticket), redeem(&site, &ticket), redeem(&site, &ticket));

    let mut statuses = [a.status, b.status, c.status, d.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401, 401, 401]);
    // Several tickets of one new user at once create one member.
    let tickets: Vec<String> = (0..4).map(|_| issue(&json!({"id": 4_000_002, "login": "twins"}))).collect();
    let replies = tokio::join!(
        redeem(&site, &tickets[0]),
        redeem(&site, &tickets[1]),
        redeem(&site, &tickets[2]),
        redeem(&site, &tickets[3])
    );
    [replies.0, replies.1, replies.2, replies.3].iter().for_each(Reply::done);
    assert_eq!(site.admin().get("/admin/members?keyword=twins").await.data()["total"], 1);
}

#[tokio::test]
async fn a_required_second_factor_applies_to_sign_ins_with_wordpress() {
    let mut site = site_of(NOWHERE, "").await;
    let ticket = |n: u64| issue(&json!({"id": 4_000_010 + n, "login": "strict"}));
    redeem(&site, &ticket(0)).await.done();
    let uid = {
        let acme = site.organization("strict").await;
        let found = site.admin().get("/admin/members?keyword=strict").await.data();
        let uid = found["items"][0]["uid"].as_str().expect("uid").to_owned();
        acme.link(&uid).await;
        uid
    };
    site.kill();
    let rows = rusqlite::Connection::open(site.path().join("roster.db")).expect("the file");
    rows.execute("update organizations set second_factor_required = 1 where org_code = 'strict'", []).expect("update");
    drop(rows);
    site.start_again();

    let reply = redeem(&site, &ticket(0)).await;
    assert_eq!(reply.is(28_501_000).word(), "second_factor_enrolment_required", "{uid}");
    assert!(reply.body["challenge"].is_string());
}
