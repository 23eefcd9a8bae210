//! Self-registration: proving an e-mail creates a member, and no response reveals who is one already.

use serde_json::{Value, json};

use super::passwords::{OTHER, mailing, meddle, plain_smtp};
use crate::harness::callers::Reply;
use crate::harness::counterparts::{Mail, Smtp};
use crate::harness::site::{ADMIN, PASSWORD, Site};
use crate::harness::waiting::eventually;

const KIM: &str = "kim@example.org";

async fn open_site(smtp: &Smtp, settings: &str) -> Site {
    Site::with(&format!("auth.registration = true\n{}{settings}", mailing(smtp))).await
}

async fn register(site: &Site, email: &str, password: &str) -> Reply {
    site.nobody().post("/auth/register", json!({"email": email, "password": password})).await
}

async fn verify(site: &Site, email: &str, code: &str) -> Reply {
    site.nobody().post("/auth/register/verify", json!({"email": email, "code": code})).await
}

async fn sign_in(site: &Site, password: &str) -> Reply {
    site.nobody().post("/auth/login", json!({"login": KIM, "password": password})).await
}

fn code_in(mail: &Mail) -> String {
    let code = mail.text.split("The code is ").nth(1).expect("a code");
    code.chars().take_while(char::is_ascii_digit).collect()
}

fn another(code: &str) -> String {
    format!("{:06}", (code.parse::<u32>().expect("digits") + 1) % 1_000_000)
}

async fn found(site: &Site, keyword: &str) -> Vec<Value> {
    let page = site.admin().get(&format!("/admin/members?keyword={keyword}")).await.data();
    page["items"].as_array().expect("items").clone()
}

#[tokio::test]
async fn registration_is_off_by_default() {
    let site = Site::start().await;

    let asked = register(&site, KIM, PASSWORD).await;
    let proved = verify(&site, KIM, "123456").await;

    for reply in [asked, proved] {
        assert_eq!(reply.is(28_605_000).word(), "registration_closed");
    }
}

#[tokio::test]
async fn proving_the_e_mail_creates_a_member_without_any_role() {
    let smtp = plain_smtp();
    let site = open_site(&smtp, "").await;
    let body = json!({"email": "Kim@example.org", "password": PASSWORD, "username": "kim", "display_name": "Kim"});

    let asked = site.nobody().post("/auth/register", body).await;

    assert_eq!(asked.data(), json!({"expires_in": 900}));
    let mail = smtp.next_mail_to("Kim@example.org").await;
    assert_eq!((mail.subject.as_str(), mail.from.as_str()), ("Your code to register", "roster@example.org"));
    let code = code_in(&mail);
    assert_eq!(code.len(), 6);
    assert_eq!(found(&site, "kim").await[0]["status"], "pending");
    assert_eq!(sign_in(&site, PASSWORD).await.is(28_501_000).word(), "invalid_login");

    assert_eq!(verify(&site, KIM, &code).await.data(), Value::Null);

    let member = &found(&site, "kim").await[0];
    assert_eq!(
        (&member["status"], &member["username"], &member["display_name"]),
        (&json!("active"), &json!("kim"), &json!("Kim"))
    );
    let token = sign_in(&site, PASSWORD).await.data()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(site.bearer(&token).get("/me").await.data()["organizations"], json!([]));
    site.bearer(&token).get("/admin/members").await.is(29_505_000);
    assert_eq!(verify(&site, KIM, &code).await.is(28_501_000).word(), "invalid_code");
    let audit = site.admin().get("/admin/audit?limit=200").await.body.to_string();
    assert!(audit.contains("member.register") && audit.contains("member.confirm"));
    assert!(!audit.contains(&code) && !audit.to_lowercase().contains(KIM) && !site.log().contains(&code));
}

#[tokio::test]
async fn a_known_e_mail_is_answered_alike_and_its_owner_gets_a_mail() {
    let smtp = plain_smtp();
    let site = open_site(&smtp, "").await;

    let unknown = register(&site, KIM, PASSWORD).await;
    let known = register(&site, ADMIN, OTHER).await;

    assert_eq!((known.status, known.lasting()), (unknown.status, unknown.lasting()));
    let mail = smtp.next_mail_to(ADMIN).await;
    assert_eq!(mail.subject, "You have an account already");
    assert!(!mail.text.contains("code"));
    site.token(ADMIN, PASSWORD).await;
    // At most once a minute.
    register(&site, ADMIN, OTHER).await.done();
    let code = code_in(&smtp.next_mail_to(KIM).await);
    verify(&site, KIM, &code).await.done();
    assert_eq!(smtp.mails().len(), 2);
}

#[tokio::test]
async fn three_wrong_codes_void_the_right_one_and_unknown_emails_answer_alike() {
    let smtp = plain_smtp();
    let site = open_site(&smtp, "").await;
    register(&site, KIM, PASSWORD).await.done();
    let code = code_in(&smtp.next_mail_to(KIM).await);

    let mut answers = Vec::new();
    for email in [KIM, KIM, KIM, "nobody@example.org", ADMIN] {
        answers.push(verify(&site, email, &another(&code)).await.lasting());
    }

    assert!(answers.iter().all(|answer| *answer == answers[0] && answer["detail"] == "invalid_code"), "{answers:?}");
    assert_eq!(verify(&site, KIM, &code).await.is(28_501_000).word(), "invalid_code");
    assert_eq!(found(&site, "kim").await[0]["status"], "pending");
    // Another request at once does not give three more attempts.
    register(&site, KIM, PASSWORD).await.done();
    assert_eq!(verify(&site, KIM, &code).await.is(28_501_000).word(), "invalid_code");
    assert_eq!(smtp.mails().len(), 1);
}

#[tokio::test]
async fn two_wrong_codes_do_not_void_the_right_one() {
    let smtp = plain_smtp();
    let site = open_site(&smtp, "").await;
    register(&site, KIM, PASSWORD).await.done();
    let code = code_in(&smtp.next_mail_to(KIM).await);

    for _ in 0..2 {
        verify(&site, KIM, &another(&code)).await.is(28_501_000);
    }

    verify(&site, KIM, &code).await.done();
}

#[tokio::test]
async fn guessing_codes_is_throttled() {
    let smtp = plain_smtp();
    let site = open_site(&smtp, "").await;

    for _ in 0..10 {
        verify(&site, "nobody@example.org", "123456").await.is(28_501_000);
    }

    assert_eq!(verify(&site, "nobody@example.org", "123456").await.is(28_604_000).word(), "too_many_failures");
}

#[tokio::test]
async fn a_code_expires() {
    let smtp = plain_smtp();
    let site = open_site(&smtp, "auth.email_code_ttl_s = 1\n").await;
    register(&site, KIM, PASSWORD).await.done();
    let code = code_in(&smtp.next_mail_to(KIM).await);
    let ends_at: i64 = site
        .rows()
        .query_row("select expires_at from one_time_tokens where purpose = 'email_code'", [], |row| row.get(0))
        .expect("a code");
    eventually("the code expires", async || roster::kernel::ids::Timestamp::now().0 > ends_at).await;

    assert_eq!(verify(&site, KIM, &code).await.is(28_501_000).word(), "invalid_code");
}

#[tokio::test]
async fn the_newest_of_several_registrations_counts_but_none_replaces_a_fresh_one() {
    let smtp = plain_smtp();
    let site = open_site(&smtp, "").await;
    register(&site, KIM, "Pirates-parrot-1").await.done();
    let first = code_in(&smtp.next_mail_to(KIM).await);

    // While this code is fresh, another registration has no effect.
    register(&site, KIM, "Sneaky-parrot-2").await.done();
    register(&site, ADMIN, PASSWORD).await.done();
    smtp.next_mail_to(ADMIN).await;
    assert_eq!(smtp.mails().len(), 2);
    meddle(&site, "update one_time_tokens set created_at = created_at - 60000");
    let body = json!({"email": KIM, "password": PASSWORD, "username": "kim"});
    site.nobody().post("/auth/register", body).await.done();

    let second = code_in(&smtp.next_mail_to(KIM).await);
    if first != second {
        verify(&site, KIM, &first).await.is(28_501_000);
    }
    verify(&site, KIM, &second).await.done();
    // The code proves the mailbox, not who chose which password: the owner of the mailbox sets a new one.
    let link = smtp.next_mail_to(KIM).await.text;
    for password in ["Pirates-parrot-1", "Sneaky-parrot-2", PASSWORD] {
        sign_in(&site, password).await.is(28_501_000);
    }
    let token = link.split("/reset?token=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a link");
    let body = json!({"token": token, "new_password": "Owners-parrot-3"});
    site.nobody().post("/auth/password/reset", body).await.done();
    sign_in(&site, "Owners-parrot-3").await.done();
    assert_eq!(found(&site, "kim").await[0]["username"], "kim");
}

#[tokio::test]
async fn a_taken_username_is_reported_at_once() {
    let smtp = plain_smtp();
    let site = open_site(&smtp, "").await;
    let taken = site.member().await.username.to_uppercase();

    let body = |username: &str| json!({"email": KIM, "password": PASSWORD, "username": username});
    let refused = site.nobody().post("/auth/register", body(&taken)).await;

    assert_eq!(refused.is(29_303_000).word(), "username_exists");
    assert_eq!(found(&site, "kim").await.len(), 0);
    site.nobody().post("/auth/register", body("kim")).await.done();
    smtp.next_mail_to(KIM).await;
    // The username of the same pending registration is not taken.
    site.nobody().post("/auth/register", body("kim")).await.done();
}

#[tokio::test]
async fn an_unverified_registration_blocks_no_other_member() {
    let smtp = plain_smtp();
    let site = open_site(&smtp, "").await;
    let body = json!({"email": KIM, "password": OTHER, "username": "kim"});
    site.nobody().post("/auth/register", body).await.done();
    let code = code_in(&smtp.next_mail_to(KIM).await);

    let body = json!({"email": "KIM@example.org", "username": "Kim", "password": PASSWORD});
    site.admin().post("/admin/members", body).await.done();

    assert_eq!(verify(&site, KIM, &code).await.is(28_501_000).word(), "invalid_code");
    sign_in(&site, OTHER).await.is(28_501_000);
    sign_in(&site, PASSWORD).await.done();
}

#[tokio::test]
async fn all_bad_fields_of_a_registration_are_reported_together() {
    let smtp = plain_smtp();
    let site = open_site(&smtp, "").await;

    let body = json!({"email": "kim\r\nBcc: x@example.org", "password": "password", "username": "-", "roles": ["x"]});
    let mut fields = site.nobody().post("/auth/register", body).await.is(10_101_000).fields();
    fields.dedup();
    let bad_code = verify(&site, "kim", "12345").await;

    assert_eq!(fields, ["body.email", "body.password", "body.roles", "body.username"]);
    let mut fields = bad_code.is(10_101_000).fields();
    fields.dedup();
    assert_eq!(fields, ["body.code", "body.email"]);
}

#[tokio::test]
async fn a_full_site_accepts_no_registration() {
    let smtp = plain_smtp();
    let site = open_site(&smtp, "limits.members = 2\n").await;
    register(&site, KIM, PASSWORD).await.done();
    smtp.next_mail_to(KIM).await;

    let unknown = register(&site, "lee@example.org", PASSWORD).await;
    let known = register(&site, ADMIN, PASSWORD).await;

    assert_eq!(unknown.is(29_309_000).word(), "site_full");
    assert_eq!(known.lasting(), unknown.lasting());
}

#[tokio::test]
async fn an_unverified_registration_is_deleted_after_a_day_unless_it_has_a_membership() {
    let smtp = plain_smtp();
    let mut site = open_site(&smtp, "").await;
    for email in [KIM, "lee@example.org", "ann@example.org"] {
        register(&site, email, PASSWORD).await.done();
        smtp.next_mail_to(email).await;
    }
    let lee = found(&site, "lee").await[0]["uid"].as_str().unwrap().to_owned();
    {
        // Somebody needs lee now, whether or not the e-mail is verified.
        let acme = site.organization("acme").await;
        acme.link(&lee).await;
    }
    site.kill();
    meddle(&site, "update members set updated_at = updated_at - 86400000 where email <> 'ann@example.org'");
    site.start_again();

    eventually("kim is deleted", async || found(&site, "kim").await.is_empty()).await;

    assert_eq!((found(&site, "lee").await.len(), found(&site, "ann").await.len()), (1, 1));
    register(&site, KIM, PASSWORD).await.done();
    let code = code_in(&smtp.next_mail_to(KIM).await);
    verify(&site, KIM, &code).await.done();
    sign_in(&site, PASSWORD).await.done();
}

#[tokio::test]
async fn registration_needs_mail() {
    let site = Site::start().await;
    std::fs::write(site.path().join("roster.toml"), "auth.registration = true\n").expect("settings");

    let output = std::process::Command::new(crate::harness::site::binary())
        .args(["config", "check", "--data"])
        .arg(site.path())
        .output()
        .expect("roster");

    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("auth.registration needs mail.host"));
    std::fs::write(site.path().join("roster.toml"), "").expect("settings");
}
