//! The counterparts behave as the other tests assume, and our WordPress plugin does what its header comment says.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::harness::counterparts::{Browser, CLIENT_SECRET, Oidc, Smtp, WordPress, http, query};

const ROLES: &str = "urn:zitadel:iam:org:project:roles";

/// Decodes a part of a token without verifying it.
fn part(token: &str, nth: usize) -> Value {
    let part = token.split('.').nth(nth).expect("a part");
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
}

async fn get_json(url: &str, token: &str) -> (u16, Value) {
    let answer = http().get(url).bearer_auth(token).send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
}

#[tokio::test]
async fn the_provider_issues_the_current_claims_of_a_user() {
    let oidc = Oidc::start(json!({"users": {
        "alice": {
            "email": "alice@example.org", "email_verified": false, "name": "Alice 測試", "groups": ["staff"],
            ROLES: {"admin": {"1001": "acme.example.org"}}, "department": "film",
        },
        "noemail": {},
    }}));
    let sign_in = async |login| oidc.tokens("roster", login, "openid profile email").await;

    let tokens = sign_in("alice").await;
    let claims = part(tokens["id_token"].as_str().expect("an ID token"), 1);
    assert_eq!(
        (&claims["iss"], &claims["sub"], &claims["aud"]),
        (&json!(oidc.issuer), &json!("alice"), &json!("roster"))
    );
    assert_eq!((&claims["email_verified"], &claims["department"]), (&json!(false), &json!("film")));
    assert_eq!(claims[ROLES], json!({"admin": {"1001": "acme.example.org"}}));
    let userinfo = get_json(&format!("{}/me", oidc.issuer), tokens["access_token"].as_str().expect("a token")).await;
    assert_eq!((userinfo.0, &userinfo.1["groups"]), (200, &json!(["staff"])));
    assert_eq!(oidc.requests_to("/me").await, 1);

    oidc.set_user("alice", json!({"groups": ["editors"], "new": 1})).await;
    let claims = part(sign_in("alice").await["id_token"].as_str().expect("an ID token"), 1);
    assert_eq!((&claims["groups"], &claims["new"], &claims["email"]), (&json!(["editors"]), &json!(1), &Value::Null));
    assert!(part(sign_in("noemail").await["id_token"].as_str().expect("an ID token"), 1).get("email").is_none());
}

#[tokio::test]
async fn the_provider_changes_its_key_and_its_clients_while_it_runs() {
    for alg in ["RS256", "ES256", "EdDSA"] {
        let config = json!({"alg": alg, "audience": "https://roster.example.org", "users": {"bob": {}}});
        let oidc = Oidc::start(config);
        let redirect_uri = "http://127.0.0.1:9/auth/oidc/callback";
        oidc.set_client("roster", json!({"redirect_uris": [redirect_uri]})).await;
        let url = format!(
            "{}/auth?client_id=roster&response_type=code&scope=openid&state=s&redirect_uri={redirect_uri}",
            oidc.issuer
        );
        let callback = oidc.sign_in(&url, "bob", redirect_uri).await;
        assert_eq!(
            (query(&callback, "state").as_deref(), query(&callback, "iss")),
            (Some("s"), Some(oidc.issuer.clone()))
        );

        let token = oidc.tokens("roster", "bob", "openid").await["access_token"].as_str().expect("a token").to_owned();
        assert_eq!(part(&token, 1)["aud"], "https://roster.example.org");
        let key = async || get_json(&format!("{}/jwks", oidc.issuer), "").await.1["keys"].clone();
        let before = key().await;
        assert_eq!((&before[0]["kid"], &before[0]["alg"]), (&part(&token, 0)["kid"], &json!(alg)));
        oidc.rotate_keys().await;
        let after = key().await;
        assert!(after[0]["kid"] != before[0]["kid"] && after.as_array().expect("keys").len() == 1);
        let token = oidc.tokens("roster", "bob", "openid").await["access_token"].as_str().expect("a token").to_owned();
        assert_eq!(part(&token, 0)["kid"], after[0]["kid"]);
    }
}

#[tokio::test]
async fn a_mail_is_delivered_by_starttls_after_authentication() {
    let smtp = Smtp::start(json!({"auth": "roster:Mail-pass-7", "reject": ["gone@example.org"], "tempfail": 1}));
    let ca = std::fs::read(smtp.ca.as_ref().expect("an authority")).expect("a file");
    let trust = TlsParameters::builder("127.0.0.1".into())
        .add_root_certificate(Certificate::from_pem(&ca).expect("a certificate"))
        .build()
        .expect("TLS");
    let transport = |password: &str| {
        AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1")
            .port(smtp.port)
            .tls(Tls::Required(trust.clone()))
            .credentials(Credentials::new("roster".into(), password.into()))
            .build()
    };
    let mail = |to: &str| {
        Message::builder()
            .from("roster@example.org".parse().expect("an address"))
            .to(to.parse().expect("an address"))
            .subject("Reset your password 重設")
            .body("Grüße,\nhttps://roster.example.org/reset?code=1234\n".to_owned())
            .expect("a mail")
    };

    let code = |failed: lettre::transport::smtp::Error| failed.status().map(u16::from);
    let to = "alice@example.org";
    assert_eq!(code(transport("wrong").send(mail(to)).await.expect_err("refused")), Some(535));
    let roster = transport("Mail-pass-7");
    assert_eq!(code(roster.send(mail("gone@example.org")).await.expect_err("refused")), Some(550));
    assert_eq!(code(roster.send(mail(to)).await.expect_err("put off")), Some(451));
    roster.send(mail(to)).await.expect("taken");

    let mail = smtp.next_mail_to(to).await;
    assert_eq!((&*mail.from, &*mail.subject, mail.secure), ("roster@example.org", "Reset your password 重設", true));
    assert_eq!((mail.user.as_deref(), &*mail.headers["to"]), (Some("roster"), to));
    assert!(mail.text.contains("Grüße,\nhttps://roster.example.org/reset?code=1234"), "{mail:?}");
    assert!(mail.html.is_empty() && mail.raw.contains("Subject: ") && smtp.mails().len() == 1);
}

#[tokio::test]
async fn wordpress_signs_a_ticket_for_a_signed_in_user() {
    let wordpress = WordPress::start();
    for (login, role) in
        [("admin", json!(["administrator"])), ("name with space", json!(["subscriber"])), ("dot.at@host", json!([]))]
    {
        let person = wordpress.person(login);
        let mut browser = wordpress.browser_sign_in(login, &person.password).await;

        let ticket = wordpress.ticket(&mut browser).await;

        let (body, signature) = ticket.split_once('.').expect("two parts");
        let mut mac = Hmac::<Sha256>::new_from_slice(wordpress.ticket_secret.as_bytes()).expect("a key");
        mac.update(body.as_bytes());
        mac.verify_slice(&hex::decode(signature).expect("hex")).expect("signed");
        let claims = part(&ticket, 0);
        assert_eq!((&claims["v"], &claims["site"]), (&json!(1), &json!(wordpress.url)));
        assert_eq!(
            (&claims["id"], &claims["login"], &claims["email"]),
            (&json!(person.id), &json!(login), &json!(person.email))
        );
        assert_eq!((&claims["roles"], claims["name"].is_string()), (&role, true));
        assert_eq!(claims["exp"].as_i64().expect("exp") - claims["iat"].as_i64().expect("iat"), 60);
        assert_eq!(claims["jti"].as_str().expect("jti").len(), 32);
        assert_ne!(wordpress.ticket(&mut browser).await, ticket);
    }
}

#[tokio::test]
async fn wordpress_signs_no_ticket_without_a_signed_in_user() {
    let wordpress = WordPress::start();
    let editor = wordpress.person("editor");
    let url = format!("{}/wp-json/roster/v1/ticket", wordpress.url);
    let http = http();
    let post = async |login: &str, password: &str| {
        let request = http.post(&url).basic_auth(login, Some(password));
        request.send().await.expect("an answer").status().as_u16()
    };

    assert_eq!(http.post(&url).send().await.expect("an answer").status(), 401);
    assert_eq!(post("editor", CLIENT_SECRET).await, 401);
    assert_eq!(post("editor", &editor.application_password).await, 200);
    // A cookie without a nonce: a page of another site could send this.
    let mut browser = wordpress.browser_sign_in("editor", &editor.password).await;
    assert_eq!(browser.send(Method::POST, &url, &[], &[]).await.status, 401);
}

#[tokio::test]
async fn wordpress_redirects_a_browser_to_its_sign_in_and_back_with_a_ticket() {
    let wordpress = WordPress::start();
    let (sign_in_url, back) =
        (format!("{}/wp-admin/admin-post.php?action=roster_sign_in", wordpress.url), &wordpress.return_url);
    let mut browser = Browser::new();

    let page = browser.get(&format!("{sign_in_url}&state=s-1&return_to={back}")).await;
    let login = page.location().expect("the form");
    let here = query(&login, "redirect_to").expect("a way back");
    browser.get(&login).await;
    let person = wordpress.person("subscriber");
    let form = [("log", "subscriber"), ("pwd", &*person.password), ("redirect_to", &*here)];
    let page = browser.submit(&login, &form).await;
    let page = browser.get(&page.location().expect("the way back")).await;

    assert_eq!(page.status, 303, "{page:?}");
    let location = page.location().expect("a location");
    let ticket = location.strip_prefix(&format!("{back}#ticket=")).expect("a ticket").strip_suffix("&state=s-1");
    assert_eq!(part(ticket.expect("the state"), 0)["login"], "subscriber");
    for bad in ["", &format!("{back}/"), &format!("{back}?next=1"), "https://example.org/", "javascript:alert(1)"] {
        for mut browser in [Browser::new(), wordpress.browser_sign_in("subscriber", &person.password).await] {
            let page = browser.get(&format!("{sign_in_url}&return_to={bad}")).await;
            assert_eq!((page.status, page.location()), (400, None), "{bad}");
        }
    }
    assert_eq!(browser.get(&format!("{sign_in_url}&state=%20&return_to={back}")).await.status, 400);
    assert_eq!(browser.get(&format!("{sign_in_url}&return_to%5B%5D={back}")).await.status, 400);
}
