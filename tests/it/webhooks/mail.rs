//! Mail notifications by the outbox, sent to a real SMTP server: retries, permanent failures, two languages.

use serde_json::{Value, json};

use crate::harness::counterparts::Smtp;
use crate::harness::site::{ADMIN, PASSWORD, Site};
use crate::harness::waiting::eventually;
use crate::sessions::passwords::{mailing, plain_smtp};
use crate::videos::registration::{Media, register};

const QUICK: &str = "outbox.backoff_s = 0\noutbox.attempts = 5\n";

/// The token of the link in a mail.
pub fn token_of(text: &str) -> String {
    let (_, rest) = text.split_once("token=").expect("a link");
    rest.chars().take_while(|c| !c.is_whitespace()).collect()
}

async fn forget(site: &Site, login: &str) {
    site.nobody().post("/auth/password/forgot", json!({"login": login})).await.done();
}

async fn states(site: &Site) -> Vec<(String, Value)> {
    let page = site.admin().get("/admin/deliveries?target=mail").await.data();
    let rows = page["items"].as_array().expect("items").iter();
    rows.map(|row| (row["state"].as_str().expect("state").to_owned(), row["last_error"].clone())).collect()
}

async fn until_state(site: &Site, expected: &str) -> Value {
    eventually(expected, async || states(site).await.first().is_some_and(|(state, _)| state == expected)).await;
    states(site).await[0].1.clone()
}

#[tokio::test]
async fn a_mail_that_the_server_defers_is_sent_later_with_a_working_link() {
    let smtp = Smtp::start(json!({"tls": "none", "tempfail": 2}));
    let site = Site::with(&format!("{QUICK}{}", mailing(&smtp))).await;

    forget(&site, ADMIN).await;

    let mail = smtp.next_mail_to(ADMIN).await;
    until_state(&site, "delivered").await;
    let row = site.admin().get("/admin/deliveries?target=mail").await.data()["items"][0].clone();
    assert_eq!((&row["attempts"], &row["kind"]), (&json!(3), &json!("member.password_forgotten")));
    assert_eq!(smtp.mails().len(), 1);
    let token = token_of(&mail.text);
    let body = json!({"token": token, "new_password": "Another-horse-8"});
    site.nobody().post("/auth/password/reset", body).await.done();
    // No event and no row contains the link's token.
    let kept: String = site
        .rows()
        .query_row("select group_concat(data) || group_concat(request_id) from events", [], |row| row.get(0))
        .expect("data");
    assert!(!kept.contains(&token));
}

#[tokio::test]
async fn a_mail_to_an_unknown_mailbox_is_given_up_at_once_and_delays_no_other() {
    let smtp = Smtp::start(json!({"tls": "none", "reject": ["lost@example.org"]}));
    let site = Site::with(&format!("{QUICK}{}", mailing(&smtp))).await;
    site.admin().post("/admin/members", json!({"email": "lost@example.org"})).await.done();

    forget(&site, "lost@example.org").await;

    assert_eq!(until_state(&site, "dead").await, "the server answered 550");
    forget(&site, ADMIN).await;
    smtp.next_mail_to(ADMIN).await;
    assert!(!site.log().contains("lost@example.org"));
    let row = site.admin().get("/admin/deliveries?state=dead").await.data()["items"][0].clone();
    assert_eq!(row["attempts"], 1);
}

#[tokio::test]
async fn a_mail_waits_while_the_server_is_down_and_a_new_request_does_not_wait_longer() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = format!(
        "outbox.backoff_s = 3600\nmail.host = \"127.0.0.1\"\nmail.port = {port}\nmail.security = \"none\"\nmail.from = \"roster@example.org\"\n"
    );
    let site = Site::with(&settings).await;
    forget(&site, ADMIN).await;
    eventually("a failure", async || !states(&site).await.first().is_none_or(|(_, error)| error.is_null())).await;
    let smtp = Smtp::start(json!({"tls": "none", "port": port}));

    forget(&site, ADMIN).await;

    smtp.next_mail_to(ADMIN).await;
    until_state(&site, "delivered").await;
    assert_eq!((smtp.mails().len(), states(&site).await.len()), (1, 1));
}

#[tokio::test]
async fn a_new_member_gets_a_welcome_mail_and_mails_about_its_quota() {
    let (smtp, media) = (plain_smtp(), Media::new());
    let settings = format!("public_url = \"https://roster.example.org\"\n{QUICK}{}", mailing(&smtp));
    let site = Site::with(&format!("{}{settings}", media.settings())).await;

    let made = site
        .admin()
        .post(
            "/admin/users",
            json!({"username": "kim", "email": "kim@example.org", "quota_size": 10_000, "welcome": true,
                "display_name": "Evil: https://evil.example {url}"}),
        )
        .await
        .data();
    let mail = smtp.next_mail_to("kim@example.org").await;

    assert_eq!(mail.subject, "Welcome");
    assert!(mail.text.contains("within 7 days") && mail.text.contains("\nhttps://roster.example.org/reset?token=pr_"));
    // The link sets the first password.
    let body = json!({"token": token_of(&mail.text), "new_password": PASSWORD});
    site.nobody().post("/auth/password/reset", body).await.done();
    site.token("kim@example.org", PASSWORD).await;

    let kim = site.nobody().with("x-api-key", made["api_key"].as_str().expect("a key"));
    for (name, bytes, warning) in [("a.mp4", 7_900, None), ("b.mp4", 200, Some("80")), ("c.mp4", 1_500, Some("95"))] {
        let reply = register(&kim, &media.file(&format!("kim/{name}"), bytes)).await;
        assert_eq!(reply.header("x-quota-warning"), warning, "{name}");
    }
    for figures in
        ["81 % of your storage", "7.9 KiB of 9.7 KiB", "96 % of your storage", "9.3 KiB of 9.7 KiB"].chunks(2)
    {
        let warning = smtp.next_mail_to("kim@example.org").await;
        assert_eq!(warning.subject, "Your storage is nearly full");
        assert!(figures.iter().all(|figure| warning.text.contains(figure)), "{figures:?}: {}", warning.text);
        assert!(!warning.raw.contains("evil"));
    }
    assert!(!mail.raw.contains("evil") && !mail.raw.contains("muser_"));
    eventually("all are settled", async || states(&site).await.iter().all(|(state, _)| state == "delivered")).await;
    assert_eq!(smtp.mails().len(), 3);
}

#[tokio::test]
async fn suspended_members_and_members_without_an_e_mail_get_no_mail() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = format!(
        "outbox.backoff_s = 3600\nmail.host = \"127.0.0.1\"\nmail.port = {port}\nmail.security = \"none\"\nmail.from = \"roster@example.org\"\n"
    );
    let site = Site::with(&settings).await;
    let mut paths = Vec::new();
    for name in ["mute", "suspended"] {
        let body = json!({"username": name, "email": format!("{name}@example.org"), "welcome": true});
        let made = site.admin().post("/admin/users", body).await.data();
        paths.push(format!("/admin/members/{}", made["id"].as_str().expect("id")));
    }
    let failed = async || states(&site).await.iter().filter(|(_, error)| error.is_string()).count() == 2;
    eventually("both failed", failed).await;
    site.admin().patch(&paths[0], json!({"email": null})).await.done();
    site.admin().post(&format!("{}/deactivate", paths[1]), json!({})).await.done();
    let smtp = Smtp::start(json!({"tls": "none", "port": port}));

    let waiting = site.admin().get("/admin/deliveries?target=mail").await.data()["items"].clone();
    for row in waiting.as_array().expect("items") {
        site.admin().post(&format!("/admin/deliveries/{}/retry", row["id"].as_str().unwrap()), json!({})).await.done();
    }

    eventually("all are settled", async || states(&site).await.iter().all(|(state, _)| state == "delivered")).await;
    let errors: Vec<Value> = states(&site).await.into_iter().map(|(_, error)| error).collect();
    assert_eq!(errors, [json!("the member is not active"), json!("the member has no e-mail")]);
    assert_eq!(smtp.mails().len(), 0);
}

#[tokio::test]
async fn mails_are_written_in_the_language_of_the_settings() {
    let smtp = plain_smtp();
    let settings = format!("mail.language = \"zh-TW\"\nauth.registration = true\n{QUICK}{}", mailing(&smtp));
    let site = Site::with(&settings).await;

    forget(&site, ADMIN).await;
    let body = json!({"email": "lee@example.org", "password": PASSWORD});
    site.nobody().post("/auth/register", body).await.done();

    let mail = smtp.next_mail_to(ADMIN).await;
    assert_eq!(mail.subject, "設定您的新密碼");
    assert!(mail.text.contains("60 分鐘") && mail.text.contains("/reset?token=pr_"), "{}", mail.text);
    assert_eq!(smtp.next_mail_to("lee@example.org").await.subject, "您的註冊驗證碼");
}

#[tokio::test]
async fn queued_mails_are_given_up_with_a_reason_when_mail_is_switched_off() {
    let smtp = Smtp::start(json!({"tls": "none", "tempfail": 1_000}));
    let settings = format!("outbox.backoff_s = 3600\n{}", mailing(&smtp));
    let mut site = Site::with(&settings).await;
    forget(&site, ADMIN).await;
    eventually("a failure", async || !states(&site).await.first().is_none_or(|(_, error)| error.is_null())).await;

    let file = site.path().join("roster.toml");
    let text = std::fs::read_to_string(&file).unwrap().replace(&mailing(&smtp), "");
    std::fs::write(&file, text).unwrap();
    site.while_stopped("update deliveries set next_at = 0", []);

    assert_eq!(until_state(&site, "dead").await, "mail is switched off: set mail.host");
}
