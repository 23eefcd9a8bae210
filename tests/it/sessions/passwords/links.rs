//! Links that set a new password: by mail, by an administrator, and their page.

use serde_json::{Value, json};

use super::{OTHER, link_for, login, mailing, meddle, plain_smtp, reset};
use crate::harness::callers::As;
use crate::harness::console::{Browser, Page};
use crate::harness::counterparts::Smtp;
use crate::harness::site::{ADMIN, PASSWORD, Site};
use crate::harness::waiting::eventually;
use crate::sessions::second_factor::enrolled;

/// A member with an e-mail who can sign in.
async fn member_with_email(site: &Site, email: &str) -> String {
    let body = json!({"email": email, "password": PASSWORD});
    site.admin().post("/admin/members", body).await.data()["uid"].as_str().expect("uid").to_owned()
}

fn token_in(text: &str) -> Value {
    let token = text.split("/reset?token=").nth(1).expect("a link");
    json!(token.split_whitespace().next().expect("a token"))
}

// ── links by mail ──

#[tokio::test]
async fn a_mailed_link_sets_a_new_password_once() {
    let smtp = plain_smtp();
    let site = Site::with(&format!("public_url = \"https://roster.example.org\"\n{}", mailing(&smtp))).await;
    let uid = member_with_email(&site, "kim@example.org").await;
    let session = site.token("kim@example.org", PASSWORD).await;

    let ask = site.nobody().with("x-forwarded-host", "evil.example").with("host", "evil.example");
    ask.post("/auth/password/forgot", json!({"login": "KIM@example.org"})).await.done();

    let mail = smtp.next_mail_to("kim@example.org").await;
    assert_eq!((mail.subject.as_str(), mail.from.as_str()), ("Your new password", "roster@example.org"));
    assert!(mail.text.contains("\nhttps://roster.example.org/reset?token=pr_"), "{}", mail.text);
    assert!(!mail.text.contains("evil"));
    let token = token_in(&mail.text);
    assert_eq!(reset(&site, &token, "weak").await.is(10_101_000).fields(), vec!["body.new_password"; 3]);

    let done = reset(&site, &token, OTHER).await;

    assert_eq!((done.data(), done.header("set-cookie")), (Value::Null, None));
    site.bearer(&session).get("/me").await.is(28_501_000);
    login(&site.nobody(), "kim@example.org", PASSWORD).await.is(28_501_000);
    site.token("kim@example.org", OTHER).await;
    assert_eq!(reset(&site, &token, "Third-horse-9").await.is(28_501_000).word(), "invalid_link");
    site.token("kim@example.org", OTHER).await;
    let told = [site.log(), site.admin().get("/admin/audit/export").await.body.to_string()].concat();
    assert!(!told.contains(token.as_str().unwrap()) && !told.contains("kim@example.org"));
    let sql = "select actor_kind, target from audit where action in ('password.forgot', 'password.reset')";
    let rows = site.rows();
    let mut statement = rows.prepare(sql).unwrap();
    let entries = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let entries: Vec<(String, String)> = entries.map(Result::unwrap).collect();
    assert_eq!(entries, vec![("visitor".to_owned(), format!("member {uid}")); 2]);
}

#[tokio::test]
async fn a_request_for_a_link_is_answered_alike_for_every_login() {
    let smtp = plain_smtp();
    let site = Site::with(&mailing(&smtp)).await;
    member_with_email(&site, "kim@example.org").await;
    let suspended = member_with_email(&site, "sus@example.org").await;
    site.admin().post(&format!("/admin/members/{suspended}/deactivate"), json!({})).await.done();
    let nameless = site.member().await;
    let ask = async |login: &str| {
        let reply = site.nobody().post("/auth/password/forgot", json!({"login": login})).await;
        (reply.status, reply.lasting())
    };

    let first = ask("nobody@example.org").await;

    assert_eq!(first, (200, json!({"code": 102_000, "message": "ok", "request_id": null})));
    for login in ["sus@example.org", &nameless.username, "kim@example.org", "kim@example.org", "%"] {
        assert_eq!(ask(login).await, first, "{login}");
    }
    // Kim requested two links within a minute.
    smtp.next_mail_to("kim@example.org").await;
    assert_eq!(ask(ADMIN).await, first);
    smtp.next_mail_to(ADMIN).await;
    assert_eq!(smtp.mails().len(), 2);
}

#[tokio::test]
async fn a_member_gets_one_mail_per_minute_which_voids_the_former_link() {
    let smtp = plain_smtp();
    let site = Site::with(&mailing(&smtp)).await;
    member_with_email(&site, "kim@example.org").await;
    let ask = async || site.nobody().post("/auth/password/forgot", json!({"login": "kim@example.org"})).await.done();
    ask().await;
    let first = token_in(&smtp.next_mail_to("kim@example.org").await.text);

    eventually("the delivery is stored", async || {
        site.admin().get("/admin/deliveries?state=delivered").await.data()["total"] == 1
    })
    .await;
    meddle(&site, "update one_time_tokens set created_at = created_at - 60000");
    ask().await;

    let second = token_in(&smtp.next_mail_to("kim@example.org").await.text);
    assert_eq!(reset(&site, &first, OTHER).await.is(28_501_000).word(), "invalid_link");
    reset(&site, &second, OTHER).await.done();
}

#[tokio::test]
async fn repeated_requests_for_links_are_throttled() {
    let smtp = plain_smtp();
    let site = Site::with(&mailing(&smtp)).await;
    let ask = async |login: &str| site.nobody().post("/auth/password/forgot", json!({"login": login})).await;

    for _ in 0..10 {
        ask("nobody@example.org").await.done();
    }

    let refused = ask("nobody@example.org").await;
    assert_eq!(refused.is(28_604_000).word(), "too_many_failures");
    assert!(refused.header("retry-after").is_some());
    ask("somebody@example.org").await.done();
    // Sign-ins are not throttled by it.
    site.token(ADMIN, PASSWORD).await;
}

#[tokio::test]
async fn without_mail_every_request_is_answered_alike() {
    let site = Site::start().await;

    for login in [ADMIN, "nobody@example.org"] {
        let reply = site.nobody().post("/auth/password/forgot", json!({"login": login})).await;
        assert_eq!(reply.is(28_605_000).word(), "mail_not_configured");
    }
}

#[tokio::test]
async fn mail_uses_tls_with_the_configured_certificate_authority() {
    let smtp = Smtp::start(json!({"auth": "roster:Mail-pass-7"}));
    let folder = tempfile::tempdir().expect("a directory");
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, "Mail-pass-7\n").expect("a file");
    let settings = mailing(&smtp).replace("\"none\"", "\"starttls\"")
        + &format!("mail.username = \"roster\"\nmail.password_file = \"{}\"\n", password_file.display());
    let ca = format!("mail.ca_file = \"{}\"\n", smtp.ca.as_ref().expect("an authority").display());
    let ask = async |site: &Site| site.nobody().post("/auth/password/forgot", json!({"login": ADMIN})).await.done();

    let strict = Site::with(&settings).await;
    ask(&strict).await;
    eventually("a failure in the log", async || strict.log().contains("a mail was not delivered")).await;
    assert_eq!(smtp.mails().len(), 0);
    assert!(!strict.log().contains(ADMIN));
    let trusting = Site::with(&(settings + &ca)).await;
    ask(&trusting).await;

    let mail = smtp.next_mail_to(ADMIN).await;
    assert_eq!((mail.secure, mail.user.as_deref()), (true, Some("roster")));
}

#[tokio::test]
async fn mail_uses_implicit_tls_when_configured() {
    let smtp = Smtp::start(json!({"tls": "implicit"}));
    let ca = smtp.ca.as_ref().expect("an authority").display().to_string();
    let settings = mailing(&smtp).replace("\"none\"", "\"tls\"") + &format!("mail.ca_file = \"{ca}\"\n");
    let site = Site::with(&settings).await;

    site.nobody().post("/auth/password/forgot", json!({"login": ADMIN})).await.done();

    assert!(smtp.next_mail_to(ADMIN).await.secure);
}

#[tokio::test]
async fn a_mail_that_is_refused_is_logged_without_its_address() {
    let smtp = Smtp::start(json!({"tls": "none", "reject": [ADMIN]}));
    let site = Site::with(&mailing(&smtp)).await;

    site.nobody().post("/auth/password/forgot", json!({"login": ADMIN})).await.done();

    eventually("a failure in the log", async || site.log().contains("a mail was not delivered")).await;
    let log = site.log();
    assert!(log.contains("the server answered 550") && !log.contains(ADMIN), "{log}");
}

// ── links by an administrator ──

#[tokio::test]
async fn an_administrators_link_works_once_and_only_the_newest_is_valid() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;

    let first = link_for(&acme.owner(), &member.uid).await;
    let second = link_for(&acme.owner(), &member.uid).await;

    let token = second["token"].as_str().expect("a token");
    assert_eq!(second["url"], format!("{}/reset?token={token}", site.url));
    assert!(second["expires_at"].as_i64().unwrap() > roster::kernel::ids::Timestamp::now().0 + 3_590_000);
    member.caller().get("/me").await.done();
    assert_eq!(reset(&site, &first["token"], OTHER).await.is(28_501_000).word(), "invalid_link");
    reset(&site, &second["token"], OTHER).await.done();
    member.caller().get("/me").await.is(28_501_000);
    site.token(&member.username, OTHER).await;
    let audit = site.admin().get("/admin/audit?limit=200").await.body.to_string();
    assert!(audit.contains("member.password_link") && !audit.contains(token));
}

#[tokio::test]
async fn a_link_is_created_for_active_members_that_the_caller_may_change() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let manager = acme.member_with_role("tenant_admin").await;
    let owner = acme.member_with_role("tenant_owner").await;
    let member = acme.member().await;
    let ask =
        async |caller: &As<'_>, uid: &str| caller.post(&format!("/admin/members/{uid}/password-link"), json!({})).await;

    assert_eq!(ask(&bolt.owner(), &member.uid).await.is(29_301_000).word(), "member_not_found");
    assert_eq!(ask(&manager.caller(), &owner.uid).await.is(29_505_000).word(), "not_held");
    ask(&manager.caller(), &member.uid).await.done();
    ask(&member.caller(), &member.uid).await.is(29_505_000);
    site.admin().post(&format!("/admin/members/{}/deactivate", member.uid), json!({})).await.done();
    assert_eq!(ask(&acme.owner(), &member.uid).await.is(29_309_000).word(), "member_not_active");
    site.admin().delete(&format!("/admin/members/{}", member.uid)).await.done();
    assert_eq!(ask(&site.admin(), &member.uid).await.is(29_309_000).word(), "member_deleted");
}

#[tokio::test]
async fn the_secret_of_a_link_is_shown_once() {
    let site = Site::start().await;
    let member = site.member().await;
    let caller = site.admin().with("idempotency-key", "once");
    let at = format!("/admin/members/{}/password-link", member.uid);

    let token = caller.post(&at, json!({})).await.data()["token"].clone();

    assert_eq!(caller.post(&at, json!({})).await.is(32_309_000).word(), "secret_not_kept");
    reset(&site, &token, OTHER).await.done();
}

#[tokio::test]
async fn a_link_ends_by_expiry_suspension_and_a_changed_e_mail() {
    let site = Site::with("auth.reset_link_ttl_s = 1").await;
    let member = site.member().await;
    let token = link_for(&site.admin(), &member.uid).await["token"].clone();
    let page = format!("/reset?token={}", token.as_str().unwrap());
    eventually("the link ends", async || site.nobody().get(&page).await.status == 401).await;
    assert_eq!(reset(&site, &token, OTHER).await.is(28_501_000).word(), "invalid_link");
    drop(site);

    let site = Site::start().await;
    for body in [json!({"is_active": false}), json!({"email": "new@example.org"}), json!({"password": OTHER})] {
        let member = site.member().await;
        let token = link_for(&site.admin(), &member.uid).await["token"].clone();
        site.admin().patch(&format!("/admin/members/{}", member.uid), body.clone()).await.done();
        assert_eq!(reset(&site, &token, "Third-horse-9").await.is(28_501_000).word(), "invalid_link", "{body}");
    }
    for token in [json!("pr_"), json!("%"), json!("x".repeat(128))] {
        assert_eq!(reset(&site, &token, OTHER).await.is(28_501_000).word(), "invalid_link");
    }
    assert_eq!(reset(&site, &json!("x".repeat(129)), OTHER).await.is(10_101_000).fields(), ["body.token"]);
}

#[tokio::test]
async fn the_command_line_creates_a_link_with_the_server_running_or_stopped() {
    let mut site = Site::start().await;
    let (uid, username) = {
        let member = site.member().await;
        (member.uid, member.username)
    };

    let stopped = site.command_while_stopped(&["member", "password-link", &uid]);
    let running = site.command(&["member", "password-link", &uid]);

    reset(&site, &stopped["token"], OTHER).await.is(28_501_000);
    assert!(running["url"].as_str().unwrap().starts_with(&format!("{}/reset?token=", site.url)));
    reset(&site, &running["token"], OTHER).await.done();
    site.token(&username, OTHER).await;
}

// ── the page ──

async fn submit(browser: &Browser, token: &str, password: &str, again: &str) -> Page {
    browser.post("/reset", &[("token", token), ("password", password), ("again", again)]).await
}

#[tokio::test]
async fn the_page_of_a_link_sets_the_password_and_signs_in() {
    let site = Site::start().await;
    let member = site.member().await;
    let link = link_for(&site.admin(), &member.uid).await;
    let token = link["token"].as_str().unwrap();
    let browser = site.visitor();

    let shown = browser.get(&format!("/reset?token={token}")).await;

    assert_eq!((shown.status, shown.form("/reset").is_some()), (200, true));
    assert!(!shown.text.contains(&member.username));
    assert_eq!(
        (shown.header("referrer-policy"), shown.header("cache-control")),
        (Some("no-referrer"), Some("no-store"))
    );
    assert!(shown.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    for (password, again, faults) in [("weak", "weak", 3), ("Password1", "Password1", 1), (OTHER, "Another-horse-9", 1)]
    {
        let page = submit(&browser, token, password, again).await;
        assert_eq!((page.status, page.faults().len()), (400, faults), "{password}");
    }
    let elsewhere = site.visitor().with("sec-fetch-site", "cross-site");
    assert_eq!(submit(&elsewhere, token, OTHER, OTHER).await.status, 403);

    let done = submit(&browser, token, OTHER, OTHER).await;

    assert_eq!((done.status, done.location()), (303, Some("/console/me")));
    let own = browser.cookie("access_token").expect("a session");
    assert_eq!(site.bearer(&own).get("/me").await.data()["uid"], json!(member.uid));
    site.token(&member.username, OTHER).await;
    let stranger = site.visitor();
    assert_eq!(submit(&stranger, token, OTHER, OTHER).await.status, 401);
    for path in ["/reset", "/reset?token=", "/reset?token=%22%3E%3Cscript%3E", &format!("/reset?token={token}")] {
        let refused = stranger.get(path).await;
        assert_eq!((refused.status, refused.form("/reset").is_none()), (401, true), "{path}");
    }
    assert!(!site.log().contains(token));
}

#[tokio::test]
async fn the_page_of_a_link_asks_for_the_second_factor() {
    let site = Site::start().await;
    let member = site.member().await;
    let mut app = enrolled(&member).await;
    let link = link_for(&site.admin(), &member.uid).await;
    let browser = site.visitor();

    let asked = submit(&browser, link["token"].as_str().unwrap(), OTHER, OTHER).await;
    let factor = "/console/sign-in/second-factor";
    let (hidden, code) = (asked.hidden(factor), app.code());
    let mut fields: Vec<(&str, &str)> = hidden.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    fields.push(("code", &code));
    let before = browser.cookie("access_token");
    let done = browser.post(factor, &fields).await;

    assert_eq!((asked.status, asked.h1().as_str(), before), (200, "Second step", None));
    assert_eq!((done.status, done.location()), (303, Some("/console/me")));
}
