//! Letters by the outbox, to a real SMTP server: tried again, given up, in two languages.

use serde_json::{Value, json};

use crate::counterparts::Smtp;
use crate::passwords::{mailing, plain_smtp, until};
use crate::site::{ADMIN, PASSWORD, Site};

const QUICK: &str = "outbox.backoff_s = 0\noutbox.attempts = 5\n";

async fn member(site: &Site, email: Option<&str>) -> String {
    let body = json!({"username": format!("u{}", uuid::Uuid::now_v7().simple()), "email": email});
    let body: Value = body
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect::<serde_json::Map<_, _>>()
        .into();
    site.admin().post("/admin/members", body).await.data()["uid"].as_str().expect("uid").to_owned()
}

/// Commits events as the operations that cause them do, while no server runs.
fn tell(site: &mut Site, events: &[(&str, &str, Value)]) {
    for (kind, uid, data) in events {
        let id = uuid::Uuid::parse_str(uid).expect("uid");
        site.while_stopped(
            "insert into events (at, kind, member_id, data, request_id) values (unixepoch() * 1000, ?, ?, ?, '')",
            (kind, id.as_bytes().to_vec(), data.to_string()),
        );
        site.while_stopped(
            "insert into deliveries (target, event_id, state, next_at, updated_at)
             select ?, max(id), 'pending', at, at from events",
            [format!("mail {}", id.simple())],
        );
    }
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
    until(expected, async || states(site).await.first().is_some_and(|(state, _)| state == expected)).await;
    states(site).await[0].1.clone()
}

#[tokio::test]
async fn a_letter_that_the_server_puts_off_comes_later_with_a_link_that_works() {
    let smtp = Smtp::start(json!({"tls": "none", "tempfail": 2}));
    let site = Site::with(&format!("{QUICK}{}", mailing(&smtp))).await;

    forget(&site, ADMIN).await;

    let mail = smtp.next_mail_to(ADMIN).await;
    until_state(&site, "delivered").await;
    let row = site.admin().get("/admin/deliveries?target=mail").await.data()["items"][0].clone();
    assert_eq!((&row["attempts"], &row["kind"]), (&json!(3), &json!("member.password_forgotten")));
    assert_eq!(smtp.mails().len(), 1);
    let (_, rest) = mail.text.split_once("token=").expect("a link");
    let token: String = rest.chars().take_while(|c| !c.is_whitespace()).collect();
    let body = json!({"token": token, "new_password": "Another-horse-8"});
    site.nobody().post("/auth/password/reset", body).await.done();
    // No event and no row holds it.
    let kept: String = site
        .rows()
        .query_row("select group_concat(data) || group_concat(request_id) from events", [], |row| row.get(0))
        .expect("data");
    assert!(!kept.contains(&token));
}

#[tokio::test]
async fn a_mailbox_that_does_not_exist_is_given_up_at_once_and_holds_up_nobody() {
    let smtp = Smtp::start(json!({"tls": "none", "reject": ["lost@example.org"]}));
    let site = Site::with(&format!("{QUICK}{}", mailing(&smtp))).await;
    member(&site, Some("lost@example.org")).await;

    forget(&site, "lost@example.org").await;

    assert_eq!(until_state(&site, "dead").await, "the server answered 550");
    forget(&site, ADMIN).await;
    smtp.next_mail_to(ADMIN).await;
    assert!(!site.log().contains("lost@example.org"));
    let row = site.admin().get("/admin/deliveries?state=dead").await.data()["items"][0].clone();
    assert_eq!(row["attempts"], 1);
}

#[tokio::test]
async fn a_server_that_is_down_gets_the_letter_when_it_is_back() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = format!(
        "outbox.backoff_s = 1\noutbox.backoff_max_s = 1\noutbox.attempts = 100\nmail.host = \"127.0.0.1\"\nmail.port = {port}\nmail.security = \"none\"\nmail.from = \"roster@example.org\"\n"
    );
    let site = Site::with(&settings).await;
    forget(&site, ADMIN).await;
    until("a failure", async || !states(&site).await.first().is_none_or(|(_, error)| error.is_null())).await;
    // Asked for again while it waits, it is still one letter.
    forget(&site, ADMIN).await;

    let smtp = Smtp::start(json!({"tls": "none", "port": port}));

    smtp.next_mail_to(ADMIN).await;
    until_state(&site, "delivered").await;
    assert_eq!((smtp.mails().len(), states(&site).await.len()), (1, 1));
}

#[tokio::test]
async fn a_welcome_and_a_warning_are_written_and_who_cannot_be_written_to_is_left_alone() {
    let smtp = plain_smtp();
    let mut site = Site::with(&format!("public_url = \"https://roster.example.org\"\n{QUICK}{}", mailing(&smtp))).await;
    let kim = member(&site, Some("kim@example.org")).await;
    let mute = member(&site, None).await;
    let suspended = member(&site, Some("sus@example.org")).await;
    site.admin().post(&format!("/admin/members/{suspended}/deactivate"), json!({})).await.done();
    let evil = json!({"display_name": "Evil: https://evil.example {url}"});
    site.admin().patch(&format!("/admin/members/{kim}"), evil).await.done();
    let figures = json!({"percent": 80, "used": 8_589_934_592_u64, "size": 10_737_418_240_u64});

    let welcome = "member.welcomed";
    tell(
        &mut site,
        &[
            (welcome, &kim, json!({})),
            ("quota.warning", &kim, figures),
            (welcome, &mute, json!({})),
            (welcome, &suspended, json!({})),
        ],
    );

    let mail = smtp.next_mail_to("kim@example.org").await;
    assert_eq!(mail.subject, "Welcome");
    assert!(mail.text.contains("within 7 days") && mail.text.contains("\nhttps://roster.example.org/reset?token=pr_"));
    let warning = smtp.next_mail_to("kim@example.org").await;
    assert_eq!(warning.subject, "Your storage is nearly full");
    assert!(warning.text.contains("80 %") && warning.text.contains("8.0 GiB of 10.0 GiB"), "{}", warning.text);
    assert!(!mail.raw.contains("evil") && !warning.raw.contains("evil"));
    // The link of the welcome sets the first password.
    let (_, rest) = mail.text.split_once("token=").expect("a link");
    let token: String = rest.chars().take_while(|c| !c.is_whitespace()).collect();
    site.nobody().post("/auth/password/reset", json!({"token": token, "new_password": PASSWORD})).await.done();
    site.token("kim@example.org", PASSWORD).await;
    until("all are settled", async || states(&site).await.iter().all(|(state, _)| state == "delivered")).await;
    let errors: Vec<Value> = states(&site).await.into_iter().map(|(_, error)| error).collect();
    let expected = [json!("the member is not active"), json!("the member has no e-mail"), Value::Null, Value::Null];
    assert_eq!(errors, expected);
    assert_eq!(smtp.mails().len(), 2);
}

#[tokio::test]
async fn letters_are_written_in_the_language_of_the_settings() {
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
async fn letters_that_wait_when_mail_is_switched_off_are_given_up_with_the_reason() {
    let smtp = Smtp::start(json!({"tls": "none", "tempfail": 1_000}));
    let settings = format!("outbox.backoff_s = 3600\n{}", mailing(&smtp));
    let mut site = Site::with(&settings).await;
    forget(&site, ADMIN).await;
    until("a failure", async || !states(&site).await.first().is_none_or(|(_, error)| error.is_null())).await;

    let file = site.path().join("roster.toml");
    let text = std::fs::read_to_string(&file).unwrap().replace(&mailing(&smtp), "");
    std::fs::write(&file, text).unwrap();
    site.while_stopped("update deliveries set next_at = 0", []);

    assert_eq!(until_state(&site, "dead").await, "mail is switched off: set mail.host");
}
