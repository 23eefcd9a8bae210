//! What browsers rely on: origins and preflights.

use reqwest::Method;

use crate::harness::site::Site;

#[tokio::test]
async fn only_an_exactly_listed_origin_gets_cors_headers() {
    let site = Site::with("cors.origins = [\"https://portal.example.org\"]").await;
    let asked = async |origin: &str| site.nobody().with("origin", origin).get("/me").await;

    let listed = asked("https://portal.example.org").await;

    assert_eq!((listed.word(), listed.header("vary")), ("missing_bearer_token", Some("Origin")));
    assert_eq!(listed.header("access-control-allow-origin"), Some("https://portal.example.org"));
    assert_eq!(listed.header("access-control-allow-credentials"), Some("true"));
    for origin in [
        "https://portal.example.org.evil.example",
        "https://evil.example",
        "http://portal.example.org",
        "null",
        "*",
        "https://portal.example.org:444",
        "https://PORTAL.example.org",
        "https://portal.example.org/",
        "",
    ] {
        let reply = asked(origin).await;
        // The headers are withheld, and the request is not refused: the response is otherwise the same.
        assert_eq!((reply.word(), reply.header("vary")), ("missing_bearer_token", Some("Origin")), "{origin}");
        assert_eq!(reply.header("access-control-allow-origin"), None, "{origin}");
        assert_eq!(reply.header("access-control-allow-credentials"), None, "{origin}");
    }
}

#[tokio::test]
async fn without_a_list_no_origin_gets_cors_headers() {
    let site = Site::start().await;

    let reply = site.nobody().with("origin", &site.url).get("/api/v1/version").await;

    reply.done();
    assert_eq!(reply.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn a_preflight_is_answered_for_listed_origins() {
    let site = Site::with("cors.origins = [\"https://portal.example.org\"]").await;
    let asked = async |origin: &str| {
        let caller = site.nobody().with("origin", origin).with("access-control-request-method", "PATCH");
        caller.send(Method::OPTIONS, "/admin/members/x", None).await
    };

    let (listed, unlisted) = (asked("https://portal.example.org").await, asked("https://evil.example").await);

    assert_eq!(
        (listed.status, listed.header("access-control-allow-origin")),
        (204, Some("https://portal.example.org"))
    );
    let listing = |name: &str| listed.header(name).unwrap().split(", ").map(str::to_owned).collect::<Vec<_>>();
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        assert!(listing("access-control-allow-methods").contains(&method.to_owned()), "{method}");
    }
    for header in ["authorization", "content-type", "if-match", "idempotency-key", "x-tenant-id", "x-sftpgo-user"] {
        assert!(listing("access-control-allow-headers").contains(&header.to_owned()), "{header}");
    }
    assert_eq!((unlisted.status, unlisted.header("access-control-allow-origin")), (204, None));
    assert_eq!((unlisted.header("access-control-allow-methods"), unlisted.header("vary")), (None, Some("Origin")));
}

#[tokio::test]
async fn a_star_is_refused_as_a_configured_origin() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("roster.toml"), "cors.origins = [\"*\"]").unwrap();

    let output = std::process::Command::new(crate::harness::site::binary())
        .args(["config", "check", "--data"])
        .arg(directory.path())
        .output()
        .unwrap();

    assert_eq!(output.status.code(), Some(1));
}
