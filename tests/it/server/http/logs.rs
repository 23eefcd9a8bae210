//! What unauthenticated callers cause in the logs, and for which address cookies are accepted.

use reqwest::Method;
use serde_json::json;

use crate::harness::site::{ADMIN, PASSWORD, Site};

#[tokio::test]
async fn an_unknown_client_key_is_logged_nowhere() {
    let site = Site::with("log.level = \"trace\"").await;
    let acme = site.organization("acme").await;
    let secrets = ["rs_a-secret-in-the-wrong-header", "Correct-horse-9", "eyJhbGciOiJFZERTQSJ9.e30.c2ln"];

    for secret in secrets {
        let stranger = site.nobody().with("x-client-key", secret);
        for caller in [stranger.clone(), stranger.with("x-api-key", "x").with("x-tenant-id", &acme.id)] {
            for (method, path) in [
                (Method::GET, "/admin/members"),
                (Method::POST, "/admin/members"),
                (Method::DELETE, "/admin/members/x"),
                (Method::PUT, "/api/v1/permissions/catalog"),
                (Method::POST, "/api/v1/permissions/check"),
                (Method::GET, "/internal/members"),
                (Method::POST, "/auth/login"),
                (Method::GET, "/nowhere"),
            ] {
                let reply = caller.send(method, path, Some(json!({}))).await;
                assert!(reply.status >= 400 && !reply.body.to_string().contains(secret), "{path}");
            }
        }
    }

    let audit = site.admin().get("/admin/audit?limit=200").await.body.to_string();
    for (place, text) in [("log", site.log()), ("metrics", site.metrics()), ("audit", audit)] {
        assert!(!secrets.iter().any(|secret| text.contains(secret)), "{place}");
    }
}

#[tokio::test]
async fn a_refused_client_is_named_in_the_log() {
    let site = Site::start().await;
    let made = site.admin().post("/admin/api-clients", json!({"name": "portal", "scopes": ["*"]})).await.data();
    let key = made["client_key"].as_str().unwrap();

    let reply = site.nobody().with("x-client-key", key).with("x-api-key", "wrong").get("/admin/members").await;

    assert_eq!(reply.word(), "invalid_api_key");
    site.logged("invalid_api_key");
    assert!(site.log().lines().any(|line| line.contains("invalid_api_key") && line.contains(key)));
}

#[tokio::test]
async fn expected_failures_are_logged_once_and_not_as_errors() {
    let site = Site::start().await;
    let answers = async |path: &str, status: u16| {
        for _ in 0..20 {
            assert_eq!(site.nobody().post(path, json!({})).await.status, status, "{path}");
        }
    };

    answers("/api/v1/hooks/wordpress", 501).await;
    answers("/api/v1/hooks/sftpgo/auth", 501).await;
    answers("/admin/members", 401).await;

    let log = site.log();
    for word in ["wordpress_not_configured", "not_configured", "unauthenticated"] {
        let word = format!("word=\"{word}\"");
        let told: Vec<&str> = log.lines().filter(|line| line.contains(&word)).collect();
        assert!(told.len() == 1 && told[0].contains(" INFO "), "{word}: {told:?}");
    }
    assert!(!log.contains("ERROR"), "{log}");
}

#[tokio::test]
async fn logged_paths_are_cut_to_a_limit() {
    let site = Site::start().await;
    let long = "x".repeat(4_000);

    let lacking = site.member().await;
    lacking.caller().delete(&format!("/admin/members/{long}")).await;
    site.nobody().get(&format!("/admin/members/{long}")).await;

    let audit = site.admin().get("/admin/audit?limit=200").await.body.to_string();
    for text in [site.log(), audit] {
        assert!(text.contains(&"x".repeat(180)) && !text.contains(&"x".repeat(201)));
    }
}

#[tokio::test]
async fn cookies_are_accepted_for_the_public_address_only() {
    // Sends nothing: the socket only tells from which address this machine would connect to others.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").expect("a network beside loopback");
    let near = socket.local_addr().unwrap().ip();
    let settings = "public_url = \"http://id.example.org\"";
    let site = Site::at(&format!("{near}:0"), settings).await;
    let login = json!({"login": ADMIN, "password": PASSWORD, "cookies": true});
    let signed_in = site.nobody().with("host", "id.example.org").post("/auth/login", login).await;
    let cookies: Vec<&str> =
        signed_in.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect();
    let line = cookies.iter().map(|cookie| cookie.split(';').next().unwrap()).collect::<Vec<_>>().join("; ");
    let asked = async |host: &str, method: Method, path: &str| {
        site.nobody().with("cookie", &line).with("host", host).send(method, path, None).await
    };

    asked("id.example.org", Method::GET, "/me").await.done();
    asked("ID.example.org:80", Method::GET, "/me").await.done();
    for host in ["evil.example", "id.example.org:8080", "id.example.org.evil.example"] {
        for (method, path) in [(Method::GET, "/me"), (Method::POST, "/auth/logout"), (Method::POST, "/auth/refresh")] {
            let refused = asked(host, method, path).await;
            assert_eq!(refused.is(28_505_000).word(), "wrong_host", "{host} {path}");
        }
    }
    // No browser sends a bearer token by itself.
    site.admin().with("host", "evil.example").get("/me").await.done();
}
