//! Connections: how each external system is, its test, and what the outcome says about the cause. At real counterparts
//! where there are some.

use std::net::TcpListener;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::counterparts::{Oidc, Sftpgo, Smtp, WordPress};
use crate::harness::site::Site;
use crate::harness::stub_server::{self, NOWHERE, StubServer};
use crate::harness::tls;
use crate::harness::waiting::eventually;
use crate::integrations::sftpgo::accounts::kim;
use crate::sessions::oidc::{BINDING, REDIRECT, block};

async fn get(site: &Site, name: &str) -> Value {
    let found = site.admin().get("/admin/connections").await.data();
    let items = found["items"].as_array().expect("items").clone();
    items.into_iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("no {name}: {found}"))
}

async fn test(site: &Site, name: &str) -> Value {
    site.admin().post(&format!("/admin/connections/{name}/test"), json!({})).await.data()
}

/// Tests a connection that must fail, and returns its remedy.
async fn remedy(site: &Site, name: &str) -> String {
    let tested = test(site, name).await;
    let connection = &tested["connection"];
    assert_eq!((&tested["ok"], &connection["state"]), (&json!(false), &json!("failing")), "{tested}");
    assert!(connection["failing_since"].is_i64() && connection["last_error"].is_string(), "{tested}");
    connection["remedy"].as_str().expect("a remedy").to_owned()
}

async fn require_working(site: &Site, name: &str) {
    let tested = test(site, name).await;
    let connection = &tested["connection"];
    assert_eq!((&tested["ok"], &connection["state"]), (&json!(true), &json!("working")), "{tested}");
    assert_eq!((&connection["remedy"], &connection["failing_since"]), (&Value::Null, &Value::Null), "{tested}");
    assert!(connection["last_success_at"].is_i64(), "{tested}");
}

fn secret(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("written");
    format!("{:?}", path.display().to_string())
}

/// SFTPGo at another address than the stub.
fn sftpgo_at(folder: &Path, url: &str, more: &str) -> String {
    let file = secret(folder, "sftpgo", "a-password-for-tests");
    format!("sftpgo.url = \"{url}\"\nsftpgo.username = \"admin\"\nsftpgo.secret_file = {file}\n{more}")
}

#[tokio::test]
async fn a_new_site_has_a_row_for_each_system_and_none_is_set_up() {
    let site = Site::start().await;
    let found = site.admin().get("/admin/connections").await.data();
    let items = found["items"].as_array().expect("items");
    let names: Vec<&str> = items.iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["wordpress", "sftpgo", "oidc", "authentik", "mail", "webhooks"]);
    for one in items {
        let shown = (&one["state"], &one["remedy"], &one["is_testable"], &one["address"]);
        assert_eq!(shown, (&json!("not_configured"), &json!("not_configured"), &json!(false), &Value::Null), "{one}");
    }
    let post = async |name: &str| site.admin().post(&format!("/admin/connections/{name}/test"), json!({})).await;
    assert_eq!(post("sftpgo").await.word(), "not_configured");
    assert_eq!(post("nowhere").await.is(35_301_000).word(), "connection_not_found");
    assert_eq!(post("webhooks").await.fields(), ["path.name"]);
    assert_eq!(site.admin().get("/admin/audit?action=connection.test").await.data()["total"], 0);
}

#[tokio::test]
async fn sftpgo_works_and_a_wrong_password_is_named() {
    let sftpgo = Sftpgo::start(&[]);
    let folder = tempfile::tempdir().expect("a directory");
    let site = Site::with(&sftpgo.settings()).await;
    let before = get(&site, "sftpgo").await;
    assert_eq!((&before["state"], &before["last_success_at"]), (&json!("unknown"), &Value::Null));
    require_working(&site, "sftpgo").await;
    let by_key = Site::with(&sftpgo.settings_by_key()).await;
    require_working(&by_key, "sftpgo").await;

    let url = format!("{}/api/v2", sftpgo.url);
    let wrong = Site::with(&sftpgo_at(folder.path(), &url, "")).await;
    assert_eq!(remedy(&wrong, "sftpgo").await, "unauthorized");
    let shown = get(&wrong, "sftpgo").await;
    assert_eq!((&shown["http_status"], &shown["last_error"]), (&json!(401), &json!("401 Unauthorized: Unauthorized")));
    let is_set = |name: &str| {
        let all = shown["settings"].as_array().expect("settings");
        all.iter().find(|one| one["name"] == name).map(|one| one["is_set"] == true)
    };
    assert_eq!(["sftpgo.secret_file", "sftpgo.home"].map(is_set), [Some(true), Some(false)]);
    assert!(!shown.to_string().contains("a-password-for-tests"));
    let audited = wrong.admin().get("/admin/audit?action=connection.test").await.data();
    assert_eq!((&audited["total"], &audited["items"][0]["target"]), (&json!(1), &json!("connection sftpgo")));

    for (text, expected) in [("labkeyid.wrong", "unauthorized"), ("other.wrong", "unauthorized")] {
        let file = secret(folder.path(), text, text);
        let site = Site::with(&format!("sftpgo.url = \"{url}\"\nsftpgo.secret_file = {file}\n")).await;
        assert_eq!(remedy(&site, "sftpgo").await, expected, "{text}");
    }
}

#[tokio::test]
async fn an_address_where_nothing_or_something_else_answers_is_named() {
    let folder = tempfile::tempdir().expect("a directory");
    let page = StubServer::start(|_| poem::Response::builder().content_type("text/html").body("<h1>Welcome</h1>"));
    let elsewhere = StubServer::start(|_| {
        poem::Response::builder()
            .status(poem::http::StatusCode::FOUND)
            .header("location", "https://example.org/")
            .finish()
    });
    let missing = StubServer::start(|_| stub_server::json(404, &json!({"error": "Not Found"})));
    let denying = StubServer::start(|_| stub_server::json(403, &json!({"message": "no permission"})));
    for (url, expected) in [
        (NOWHERE, "refused"),
        (&*page.url, "unexpected_answer"),
        (&*elsewhere.url, "redirected"),
        (&*missing.url, "not_found"),
        (&*denying.url, "forbidden"),
        ("https://name.invalid", "name_not_resolved"),
    ] {
        let site = Site::with(&sftpgo_at(folder.path(), url, "")).await;
        assert_eq!(remedy(&site, "sftpgo").await, expected, "{url}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_named() {
    let folder = tempfile::tempdir().expect("a directory");
    tls::Pair::new().put(folder.path());
    let other = Site::with(&tls::settings(folder.path())).await;
    assert!(other.url.starts_with("https://"), "{}", other.url);
    let site = Site::with(&sftpgo_at(folder.path(), &other.url, "")).await;
    assert_eq!(remedy(&site, "sftpgo").await, "certificate");
}

#[tokio::test]
async fn a_test_ends_at_its_limit_and_not_one_past_it() {
    let folder = tempfile::tempdir().expect("a directory");
    // The system accepts the connection, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    // The limit of one request is not reached.
    let limits = "neighbours.test_ms = 300\nneighbours.timeout_ms = 60000\n";
    let site = Site::with(&sftpgo_at(folder.path(), &url, limits)).await;
    let tested = test(&site, "sftpgo").await;
    let duration_ms = tested["duration_ms"].as_u64().expect("a number");
    assert!((300..60_000).contains(&duration_ms), "{tested}");
    assert_eq!(
        (&tested["connection"]["remedy"], &tested["connection"]["last_error"]),
        (&json!("timeout"), &json!("it did not answer within 300 ms"))
    );
    // The limit holds for all requests of a test together: each of these takes less.
    let sftpgo = Sftpgo::start(&[]);
    sftpgo.lab("behave", json!({"hang": 0.25})).await;
    let settings = sftpgo.settings().replace("neighbours.timeout_ms = 500", "neighbours.timeout_ms = 60000");
    let slow = Site::with(&format!("{settings}neighbours.test_ms = 300\n")).await;
    assert_eq!(remedy(&slow, "sftpgo").await, "timeout");
    let patient = Site::with(&format!("{settings}neighbours.test_ms = 60000\n")).await;
    require_working(&patient, "sftpgo").await;
}

#[tokio::test]
async fn a_test_that_succeeds_ends_a_pause_and_one_that_fails_begins_none() {
    let sftpgo = Sftpgo::start(&[]);
    let settings = sftpgo.settings().replace("neighbours.failures = 1000", "neighbours.failures = 1");
    let site = Site::with(&format!("{settings}neighbours.pause_s = 3600\n")).await;
    let drift = async || site.admin().get("/admin/sftpgo/drift").await.status;

    sftpgo.lab("behave", json!({"fail": 1})).await;
    assert_eq!(remedy(&site, "sftpgo").await, "server_error");
    assert_eq!(drift().await, 200, "a failed test does not count for the pause");
    assert_eq!(get(&site, "sftpgo").await["state"], "working", "a request is known without a test");

    sftpgo.lab("behave", json!({"fail": 2})).await;
    assert_eq!(drift().await, 502);
    let paused = get(&site, "sftpgo").await;
    assert_eq!((&paused["state"], &paused["remedy"]), (&json!("paused"), &json!("server_error")), "{paused}");
    let moment = |name: &str| paused[name].as_i64().expect("a moment");
    assert!(moment("paused_until") > moment("failing_since"), "{paused}");
    sftpgo.lab("behave", json!({"fail": 0})).await;
    assert_eq!(drift().await, 502);
    require_working(&site, "sftpgo").await;
    assert_eq!(drift().await, 200);
}

#[tokio::test]
async fn what_waits_is_counted_and_known_after_a_restart() {
    let sftpgo = Sftpgo::start(&[]);
    let mut site = Site::with(&sftpgo.settings().replace("outbox.backoff_s = 0", "outbox.backoff_s = 3600")).await;
    sftpgo.lab("behave", json!({"fail": 1000})).await;
    kim(&site, 1_000).await;
    let failing = eventually("failing", async || {
        let one = get(&site, "sftpgo").await;
        (one["state"] == "failing").then_some(one)
    })
    .await;
    // The account and its quota: the second waits for the first.
    assert_eq!((&failing["waiting"], &failing["given_up"]), (&json!(2), &json!(0)), "{failing}");
    eventually("an attempt", async || {
        let tried = site.admin().get("/admin/deliveries?target=sftpgo&tried=true").await.data();
        tried["items"][0]["attempts"] == 1
    })
    .await;

    site.restart().await;
    let after = get(&site, "sftpgo").await;
    assert_eq!((&after["state"], &after["remedy"]), (&json!("failing"), &Value::Null), "{after}");
    assert!(after["last_error"].as_str().is_some_and(|text| text.starts_with("it answered 500")), "{after}");
    sftpgo.lab("behave", json!({"fail": 0})).await;
    require_working(&site, "sftpgo").await;
    assert_eq!(get(&site, "sftpgo").await["waiting"], 2);
}

#[tokio::test]
async fn webhooks_are_one_connection_that_fails_with_any_of_them() {
    let site = Site::with("webhooks.private_hosts = [\"127.0.0.1\"]\noutbox.backoff_s = 3600\n").await;
    let body = json!({"name": "n8n", "url": format!("{NOWHERE}/"), "kinds": ["member.created"]});
    site.admin().post("/admin/webhooks", body).await.done();
    assert_eq!(get(&site, "webhooks").await["state"], "unknown");
    site.admin().post("/admin/members", json!({"username": "lee"})).await.done();
    let failing = eventually("failing", async || {
        let one = get(&site, "webhooks").await;
        (one["state"] == "failing").then_some(one)
    })
    .await;
    assert_eq!(
        (&failing["waiting"], &failing["remedy"], &failing["is_testable"]),
        (&json!(1), &Value::Null, &json!(false))
    );
    assert!(failing["last_error"].is_string() && failing["failing_since"].is_i64(), "{failing}");
}

#[tokio::test]
async fn wordpress_works_and_a_wrong_application_password_is_named() {
    let wordpress = WordPress::start();
    let folder = tempfile::tempdir().expect("a directory");
    let settings = |name: &str, password: &str| {
        let file = secret(folder.path(), name, password);
        format!(
            "wordpress.url = \"{}\"\nwordpress.username = \"admin\"\nwordpress.password_file = {file}\n",
            wordpress.url
        )
    };
    let site = Site::with(&settings("right", &wordpress.person("admin").application_password)).await;
    require_working(&site, "wordpress").await;
    // A member's own wrong password is no failure of the connection.
    let body = json!({"username": "editor", "application_password": "wrong"});
    assert_eq!(site.nobody().post("/auth/wordpress", body).await.word(), "invalid_login");
    assert_eq!(get(&site, "wordpress").await["state"], "working");

    let wrong = Site::with(&settings("wrong", "abcd EFGH 1234 ijkl MNOP 5678")).await;
    assert_eq!(remedy(&wrong, "wordpress").await, "unauthorized");
    let said = get(&wrong, "wordpress").await["last_error"].as_str().expect("a text").to_owned();
    assert!(said.strip_prefix("401 Unauthorized: ").is_some_and(|text| !text.contains('<')), "{said}");
    // Without an account the public index is read.
    let plain = Site::with(&format!("wordpress.url = \"{}\"\n", wordpress.url)).await;
    require_working(&plain, "wordpress").await;
    let below = Site::with(&format!("wordpress.url = \"{}/nothing\"\n", wordpress.url)).await;
    let tested = test(&below, "wordpress").await;
    assert_eq!(tested["ok"], false, "{tested}");
}

#[tokio::test]
async fn a_clock_that_differs_is_named() {
    let late = StubServer::start(|_| {
        let index = json!({"name": "Site", "namespaces": ["wp/v2"]}).to_string();
        poem::Response::builder()
            .content_type("application/json")
            .header("date", "Sun, 06 Nov 1994 08:49:37 GMT")
            .body(index)
    });
    let site = Site::with(&format!("wordpress.url = \"{}\"\n", late.url)).await;
    assert_eq!(remedy(&site, "wordpress").await, "clock");
}

#[tokio::test]
async fn a_provider_is_tested_by_its_document_and_keys() {
    let oidc = Oidc::start(json!({"clients": [{"client_id": "roster", "redirect_uris": [REDIRECT]}]}));
    // One block differs in its issuer only, one leads nowhere.
    let other = StubServer::start(|_| stub_server::json(200, &json!({"issuer": "https://example.org"})));
    let blocks = [("lab", &oidc.issuer), ("other", &other.url), ("gone", &NOWHERE.to_owned())];
    let settings: String = blocks.iter().map(|(name, issuer)| block(name, issuer, "")).collect();
    let site = Site::with(&settings).await;
    require_working(&site, "oidc-lab").await;
    assert_eq!(remedy(&site, "oidc-other").await, "unexpected_answer");
    assert_eq!(remedy(&site, "oidc-gone").await, "refused");
    // A sign-in that cannot begin is known without a test.
    let again = Site::with(&block("other", &other.url, "")).await;
    let path = format!("/auth/oidc/url?redirect_uri={REDIRECT}&binding={BINDING}");
    assert_eq!(again.nobody().get(&path).await.word(), "neighbour_failed");
    let failing = get(&again, "oidc-other").await;
    assert_eq!((&failing["state"], &failing["remedy"]), (&json!("failing"), &json!("unexpected_answer")), "{failing}");
    assert!(get(&site, "oidc-lab").await["address"].as_str().is_some_and(|host| oidc.issuer.contains(host)));
}

#[tokio::test]
async fn authentik_names_the_owner_of_the_token() {
    let folder = tempfile::tempdir().expect("a directory");
    let stub = StubServer::start(|asked| match (asked.path.as_str(), asked.authorization.as_str()) {
        ("/api/v3/core/users/me/", "Bearer right") => {
            stub_server::json(200, &json!({"user": {"pk": 7, "username": "roster"}}))
        }
        ("/api/v3/core/users/me/", _) => stub_server::json(403, &json!({"detail": "Token invalid/expired"})),
        _ => stub_server::json(404, &json!({"detail": "Not found."})),
    });
    let settings = |token: &str| {
        let file = secret(folder.path(), token, token);
        format!("authentik.url = \"{}\"\nauthentik.token_file = {file}\n", stub.url)
    };
    let site = Site::with(&settings("right")).await;
    require_working(&site, "authentik").await;
    let wrong = Site::with(&settings("wrong")).await;
    assert_eq!(remedy(&wrong, "authentik").await, "unauthorized");
    assert_eq!(get(&wrong, "authentik").await["last_error"], "403 Forbidden: Token invalid/expired");
}

#[tokio::test]
async fn our_own_secrets_in_the_words_of_the_other_side_are_hidden() {
    let folder = tempfile::tempdir().expect("a directory");
    // Repeats the header of each request; gives a token to whom it likes.
    let echo = |is_liked: bool| {
        StubServer::start(move |asked| match asked.path.as_str() {
            "/token" if is_liked => stub_server::json(200, &json!({"access_token": "opaque-token-1"})),
            path if is_liked && path.ends_with("/kim") => {
                let text = format!("{}a-password-for-tests and {}", "x".repeat(185), asked.authorization);
                stub_server::json(400, &json!({"message": text}))
            }
            _ => {
                stub_server::json(403, &json!({"message": format!("no: {} a-password-for-tests", asked.authorization)}))
            }
        })
    };
    let (refusing, liking) = (echo(false), echo(true));
    let file = secret(folder.path(), "all", "a-password-for-tests");
    let site = Site::with(&format!(
        "{}wordpress.url = \"{url}\"\nwordpress.username = \"root\"\nwordpress.password_file = {file}\n\
         authentik.url = \"{url}\"\nauthentik.token_file = {file}\n",
        sftpgo_at(folder.path(), &refusing.url, ""),
        url = refusing.url
    ))
    .await;
    for (name, expected) in [
        ("sftpgo", "403 Forbidden: no: Basic … …"),
        ("wordpress", "403 Forbidden: no: Basic … …"),
        ("authentik", "403 Forbidden: no: Bearer … …"),
    ] {
        assert_eq!(test(&site, name).await["connection"]["last_error"], expected, "{name}");
        assert_eq!(get(&site, name).await["last_error"], expected, "{name}");
    }

    let more = "sftpgo.home = \"/srv/{username}\"\noutbox.backoff_s = 3600\n";
    let site = Site::with(&sftpgo_at(folder.path(), &liking.url, more)).await;
    kim(&site, 1_000).await;
    let text = eventually("a dead delivery", async || {
        let found = site.admin().get("/admin/deliveries?target=sftpgo&state=dead").await.data();
        found["items"][0]["last_error"].as_str().map(str::to_owned)
    })
    .await;
    // The text was cut off in the middle of the secret.
    assert_eq!(text, format!("it answered 400: {}…", "x".repeat(185)));
    let log = site.log();
    assert!(!log.contains("opaque-token-1") && !log.contains("a-password-for-"), "{log}");
}

#[tokio::test]
async fn mail_is_tested_without_a_mail() {
    let smtp = Smtp::start(json!({"tls": "none", "auth": "kim:right"}));
    let folder = tempfile::tempdir().expect("a directory");
    let settings = |port: u16, security: &str, password: &str| {
        let file = secret(folder.path(), password, password);
        format!(
            "mail.host = \"127.0.0.1\"\nmail.port = {port}\nmail.security = \"{security}\"\nmail.username = \"kim\"\n\
             mail.password_file = {file}\nmail.from = \"roster@example.org\"\n"
        )
    };
    let site = Site::with(&settings(smtp.port, "none", "right")).await;
    require_working(&site, "mail").await;
    assert_eq!(smtp.mails().len(), 0);
    let wrong = Site::with(&settings(smtp.port, "none", "wrong")).await;
    assert_eq!(remedy(&wrong, "mail").await, "unauthorized");
    assert_eq!(get(&wrong, "mail").await["last_error"], "535 5.7.8 no");
    let refused = Site::with(&settings(9, "none", "right")).await;
    assert_eq!(remedy(&refused, "mail").await, "refused");
    // The server has STARTTLS with an authority that nobody trusts.
    let tls = Smtp::start(json!({"auth": "kim:right"}));
    let untrusted = Site::with(&settings(tls.port, "starttls", "right")).await;
    assert_eq!(remedy(&untrusted, "mail").await, "certificate");
    // STARTTLS is not offered.
    let plain = Site::with(&settings(smtp.port, "starttls", "right")).await;
    assert_eq!(remedy(&plain, "mail").await, "unexpected_answer");
}

#[tokio::test]
async fn the_command_line_lists_and_tests() {
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&sftpgo.settings()).await;
    let listed = site.command(&["connection", "list"]);
    assert_eq!(listed["items"][1]["name"], "sftpgo");
    assert_eq!(site.command(&["connection", "test", "sftpgo"])["ok"], true);
    assert_eq!(get(&site, "sftpgo").await["state"], "working");
}

#[tokio::test]
async fn only_administrators_of_the_site_see_and_test_connections() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let administrator = acme.member_with_role("tenant_admin").await;
    for caller in [acme.owner(), administrator.caller()] {
        assert_eq!(caller.get("/admin/connections").await.word(), "forbidden");
        assert_eq!(caller.post("/admin/connections/sftpgo/test", json!({})).await.word(), "forbidden");
    }
}
