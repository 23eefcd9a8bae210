//! The envelope of responses, methods and paths.

use reqwest::Method;
use serde_json::json;

use super::{connect, exchange};
use crate::harness::site::{ADMIN, PASSWORD, Site};

#[tokio::test]
async fn a_request_has_one_host_header_at_most() {
    let site = Site::start().await;
    for (host, status) in [
        ("site.example.org", 200),
        ("my_site:8080", 200),
        ("192.0.2.1:65535", 200),
        ("[2001:db8::1]", 200),
        ("[2001:db8::1]:80", 200),
        ("", 400),
        (" ", 400),
        ("a/b c", 400),
        ("a, b", 400),
        ("a,b", 400),
        ("u:p@a", 400),
        ("u@a", 400),
        ("a:", 400),
        ("a:65536", 400),
        ("a:+1", 400),
        ("[::1", 400),
        ("[site]", 400),
        ("::1", 400),
        ("http://a", 400),
    ] {
        let request = format!("GET /api/v1/version HTTP/1.1\r\nhost: {host}\r\n\r\n");
        let answer = exchange(&mut connect(&site), request.as_bytes());
        assert_eq!(answer.status, status, "{host}: {}", answer.body);
    }
    for (request, status) in [
        ("GET /api/v1/version HTTP/1.1\r\nhost: site\r\n\r\n", 200),
        // For a proxy that forwards no host, cookies are checked against `public_url`.
        ("GET /api/v1/version HTTP/1.1\r\n\r\n", 200),
        ("GET /api/v1/version HTTP/1.1\r\nhost: site\r\nhost: site\r\n\r\n", 400),
        ("GET /api/v1/version HTTP/1.1\r\nhost: site\r\nHost: other\r\n\r\n", 400),
        ("GET /api/v1/version HTTP/1.0\r\n\r\n", 200),
        ("GET /api/v1/version HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n", 400),
    ] {
        let answer = exchange(&mut connect(&site), request.as_bytes());
        assert_eq!(answer.status, status, "{request}: {}", answer.body);
        if status == 400 {
            assert_eq!(answer.body["fields"][0]["location"], json!(["header", "host"]), "{}", answer.body);
        }
    }
}

// ── the envelope ──

#[tokio::test]
async fn every_failure_has_the_same_envelope() {
    let site = Site::start().await;

    let reply = site.admin().post("/admin/members", json!({"username": "-"})).await;

    assert_eq!(reply.status, 400);
    let expected = json!({
        "code": 10_101_000,
        "message": "the request is not valid: see `fields`",
        "error": {"biz_code": "10101000", "scope": 10, "category": 101, "detail": 0},
        "detail": "bad_input",
        "fields": [{"field": "username", "location": ["body", "username"], "message": "must begin with a letter or digit, and have only letters (a-z), digits and . _ - in it"}],
        "request_id": reply.header("x-request-id").unwrap(),
    });
    assert_eq!(reply.body, expected);
}

#[tokio::test]
async fn unknown_parameters_are_refused_with_a_suggestion() {
    let site = Site::start().await;
    let said = |reply: &crate::harness::callers::Reply| {
        reply.body["fields"][0]["message"].as_str().unwrap_or_default().to_owned()
    };
    let admin = site.admin();

    let parameter = admin.get("/admin/members?limt=1").await;
    let field = admin.post("/admin/members", json!({"username": "kim", "passwort": "x"})).await;
    let inner = json!({"questions": [{"uid": "x", "permision": "one"}]});
    let inner = admin.post("/api/v1/permissions/check", inner).await;
    let nothing = admin.post("/admin/members", json!({"username": "kim", "colour": "red"})).await;
    let kind = admin.send_raw(Method::POST, "/admin/members", "text/plain", b"{}".to_vec()).await;

    assert_eq!(said(&parameter), "is not a parameter of this operation (did you mean limit?)");
    assert_eq!(said(&field), "is not a field of this request (did you mean password?)");
    assert_eq!(said(&inner), "is not a field of this request (did you mean permission?)");
    assert_eq!(said(&nothing), "is not a field of this request");
    assert_eq!(kind.status, 415);
    assert!(kind.body["message"].as_str().is_some_and(|text| text.contains("application/json")), "{}", kind.body);
}

#[tokio::test]
async fn every_success_has_the_same_envelope_and_data_only_where_there_is_some() {
    let site = Site::start().await;
    let member = site.member().await;

    let version = site.nobody().get("/api/v1/version").await;
    let erased = site.admin().delete(&format!("/admin/members/{}", member.uid)).await;

    let data = json!({"name": "roster", "version": env!("CARGO_PKG_VERSION")});
    assert_eq!(version.body, json!({"code": 102_000, "message": "ok", "data": data}));
    assert_eq!(erased.body, json!({"code": 102_000, "message": "ok"}));
    assert_eq!(version.header("x-content-type-options"), Some("nosniff"));
}

#[tokio::test]
async fn an_unknown_path_is_route_not_found() {
    let site = Site::start().await;

    for path in ["/nowhere", "/api/v1/nowhere", "/api/v2/version", "/version", "/admin/nowhere", "/metrics/", "//me"] {
        let reply = site.nobody().get(path).await;
        assert_eq!(reply.is(10_301_000).word(), "route_not_found", "{path}");
    }
}

#[tokio::test]
async fn a_path_that_is_not_utf_8_is_not_found() {
    let site = Site::start().await;

    for path in ["/admin/members/%ff", "/admin/members/%00", "/admin/members/%F0%28%8C%28"] {
        let reply = site.admin().get(path).await;
        assert_eq!(reply.is(29_301_000).word(), "member_not_found", "{path}");
    }
}

#[tokio::test]
async fn a_request_id_of_plain_characters_is_kept() {
    let site = Site::start().await;
    let answered = async |id: &str| {
        let reply = site.nobody().with("x-request-id", id).get("/api/v1/version").await;
        reply.header("x-request-id").unwrap().to_owned()
    };

    for plain in ["a", "A.b_c-9", &"x".repeat(64)] {
        assert_eq!(answered(plain).await, plain);
    }
    for odd in ["", "a b", "a/b", "<b>", "a\"", &"x".repeat(65)] {
        assert_eq!(uuid::Uuid::parse_str(&answered(odd).await).map(|id| id.get_version_num()), Ok(7), "{odd}");
    }
}

// ── methods and paths ──

#[tokio::test]
async fn a_wrong_method_is_answered_with_the_allowed_ones() {
    let site = Site::start().await;
    for (method, path, allow) in [
        (Method::PUT, "/me", "GET, PATCH"),
        (Method::PUT, "/api/v1/me", "GET, PATCH"),
        (Method::DELETE, "/admin/members", "GET, POST"),
        (Method::PUT, "/admin/members/x", "GET, PATCH, DELETE"),
        (Method::GET, "/auth/login", "POST"),
        (Method::PATCH, "/api/v1/version", "GET"),
    ] {
        let reply = site.nobody().send(method.clone(), path, None).await;
        assert_eq!(
            (reply.is(10_105_000).word(), reply.header("allow")),
            ("method_not_allowed", Some(allow)),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn a_wrong_method_outside_the_api_is_answered_with_the_allowed_ones() {
    let site = Site::start().await;
    for (path, allow) in [
        ("/healthz", "GET"),
        ("/readyz", "GET"),
        ("/metrics", "GET"),
        ("/api/v1/docs", "GET"),
        ("/manual", "GET"),
        ("/manual/reference/settings", "GET"),
        ("/api/v1/openapi.json", "GET"),
    ] {
        let reply = site.nobody().send(Method::DELETE, path, None).await;
        assert_eq!((reply.is(10_105_000).word(), reply.header("allow")), ("method_not_allowed", Some(allow)), "{path}");
    }
    for (path, allow) in [("/setup", "GET, HEAD, POST"), ("/console/sign-in/oidc/lab", "GET, HEAD")] {
        let reply = site.nobody().send(Method::DELETE, path, None).await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some(allow)), "{path}");
    }
}

#[tokio::test]
async fn a_head_request_is_a_get_without_its_body() {
    let site = Site::start().await;
    let admin = format!("Bearer {}", site.admin_token);

    for (path, status) in [
        ("/me", 200),
        ("/healthz", 200),
        ("/api/v1/docs", 200),
        ("/manual", 200),
        ("/manual?q=quota", 200),
        ("/manual/sign-in", 200),
        ("/nowhere", 404),
        ("/manual/nowhere", 404),
        ("/admin/members/x", 404),
    ] {
        let request = site.http.head(format!("{}{path}", site.url)).header("authorization", &admin);
        let response = request.send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.headers().contains_key("x-request-id")),
            (status, true),
            "{path}"
        );
        assert_eq!(response.bytes().await.unwrap().len(), 0, "{path}");
    }
}

#[tokio::test]
async fn the_member_operations_answer_at_the_root_and_below_the_base_path() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;

    for path in ["/me", "/admin/members", "/admin/organizations", "/me/permissions/snapshot"] {
        let (at_root, below) = (acme.owner().get(path).await, acme.owner().get(&format!("/api/v1{path}")).await);
        assert_eq!(at_root.data(), below.data(), "{path}");
    }
    site.internal().get("/api/v1/internal/members").await.done();
    let below = site.nobody().post("/api/v1/auth/login", json!({"login": ADMIN, "password": PASSWORD})).await;
    assert_eq!(below.data()["token_type"], "Bearer");
    assert_eq!(site.admin().get("/permissions/roles").await.is(10_301_000).word(), "route_not_found");
}

#[tokio::test]
async fn the_base_path_is_a_setting() {
    let site = Site::with("base_path = \"/roster/api\"").await;
    let acme = site.admin().post("/admin/organizations", json!({"org_code": "acme", "name": "Acme"})).await.data();

    let here = site.admin().with("x-tenant-id", "acme");

    here.get("/roster/api/permissions/roles").await.done();
    assert_eq!(here.get("/api/v1/permissions/roles").await.is(10_301_000).word(), "route_not_found");
    assert_eq!(site.nobody().get("/roster/api/permissions/me").await.is(31_501_000).word(), "unauthenticated");
    let document = site.nobody().get("/roster/api/openapi.json").await.body;
    assert_eq!(document["servers"], json!([{"url": "/roster/api"}]));
    let at = format!("/roster/api/admin/organizations/{}", acme["id"].as_str().unwrap());
    assert_eq!(site.admin().get(&at).await.data(), acme);
}

// ── internal errors ──

#[tokio::test]
async fn the_cause_of_an_internal_error_appears_in_the_log_only() {
    let site = Site::start().await;

    let reply = site.bearer("x.y.z").get("/me").await;

    let keys: Vec<&str> = reply.body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["code", "detail", "error", "message", "request_id"]);
    assert_eq!(reply.body["message"], "the access token is no longer valid: sign in again");
}
