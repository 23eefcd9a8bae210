//! HTTP behaviour around the operations: envelope, limits, origins, addresses, idempotency, versions.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::site::{ADMIN, INTERNAL_SECRET, PASSWORD, Site};

/// The default limit of a request body.
const BODY_BYTES_MAX: usize = 1_048_576;
/// The part of a longer body that is drained for an authenticated caller.
const DRAIN_BYTES_MAX: usize = 8 * 1_024 * 1_024;

/// A response read from a socket, without an HTTP client.
pub struct Plain {
    pub status: u16,
    head: String,
    pub body: Value,
}

impl Plain {
    pub fn header(&self, name: &str) -> Option<&str> {
        let line =
            self.head.lines().find_map(|line| line.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)));
        line.map(|(_, value)| value.trim())
    }
}

/// Sends these bytes and reads one response with a JSON body or without a body.
pub fn exchange(stream: &mut TcpStream, request: &[u8]) -> Plain {
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("time-out");
    stream.write_all(request).expect("a request");
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a head");
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).expect("a plain head");
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a status");
    let mut answer = Plain { status, head, body: Value::Null };
    let length = answer.header("content-length").map_or(0, |text| text.parse().expect("a length"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body");
    answer.body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    answer
}

pub fn connect(site: &Site) -> TcpStream {
    TcpStream::connect(site.url.strip_prefix("http://").expect("http")).expect("a connection")
}

pub fn head(request_line: &str, headers: &str) -> Vec<u8> {
    format!("{request_line} HTTP/1.1\r\nhost: site\r\n{headers}\r\n").into_bytes()
}

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
    let said = |reply: &crate::site::Reply| reply.body["fields"][0]["message"].as_str().unwrap_or_default().to_owned();
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

    for path in
        ["/", "/nowhere", "/api/v1/nowhere", "/api/v2/version", "/version", "/admin/nowhere", "/metrics/", "//me"]
    {
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
        ("/setup", "GET, POST"),
    ] {
        let reply = site.nobody().send(Method::DELETE, path, None).await;
        assert_eq!((reply.is(10_105_000).word(), reply.header("allow")), ("method_not_allowed", Some(allow)), "{path}");
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

// ── bodies ──

#[tokio::test]
async fn a_body_holds_at_its_limit_and_not_one_past_it() {
    let site = Site::start().await;
    let padded = |username: &str, length: usize| {
        let mut body = json!({"username": username}).to_string().into_bytes();
        body.resize(length, b' ');
        body
    };
    let post =
        async |body: Vec<u8>| site.admin().send_raw(Method::POST, "/admin/members", "application/json", body).await;

    post(padded("kim", BODY_BYTES_MAX)).await.done();
    for length in [BODY_BYTES_MAX + 1, 4 * BODY_BYTES_MAX, DRAIN_BYTES_MAX] {
        assert_eq!(post(padded("lee", length)).await.is(10_113_000).word(), "too_large", "{length}");
    }
    assert_eq!(site.admin().get("/admin/members?keyword=lee").await.data()["total"], 0);
}

#[tokio::test]
async fn the_limit_of_bodies_is_a_setting() {
    let site = Site::with("limits.body_bytes = 1024").await;
    let body = |length: usize| vec![b' '; length];
    let post =
        async |body: Vec<u8>| site.admin().send_raw(Method::POST, "/admin/members", "application/json", body).await;

    assert_eq!(post(body(1_024)).await.is(10_101_000).word(), "malformed_body");
    assert_eq!(post(body(1_025)).await.is(10_113_000).word(), "too_large");
}

#[tokio::test]
async fn a_large_body_is_drained_and_the_connection_stays_open() {
    let site = Site::start().await;
    let mut stream = connect(&site);
    let token = &site.admin_token;
    let mut request = head(
        "POST /admin/members",
        &format!(
            "authorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {DRAIN_BYTES_MAX}\r\n"
        ),
    );
    request.resize(request.len() + DRAIN_BYTES_MAX, b' ');

    let refused = exchange(&mut stream, &request);
    let next = exchange(&mut stream, &head("GET /api/v1/version", ""));

    assert_eq!(
        (refused.status, &refused.body["detail"], refused.header("connection")),
        (413, &json!("too_large"), None)
    );
    assert_eq!((next.status, &next.body["code"]), (200, &json!(102_000)));
}

#[tokio::test]
async fn a_body_without_end_is_answered_and_the_connection_closed() {
    let site = Site::start().await;
    let long = 64 * DRAIN_BYTES_MAX;
    for (coding, frame) in [
        (format!("content-length: {long}"), String::new()),
        ("transfer-encoding: chunked".to_owned(), format!("{long:x}\r\n")),
    ] {
        let mut stream = connect(&site);
        let known = format!("authorization: Bearer {}\r\n", site.admin_token);
        let mut request =
            head("POST /admin/members", &format!("{known}content-type: application/json\r\n{coding}\r\n"));
        request.extend(frame.bytes());
        request.resize(request.len() + DRAIN_BYTES_MAX + 1, b' ');

        let refused = exchange(&mut stream, &request);

        assert_eq!((refused.status, &refused.body["detail"]), (413, &json!("too_large")), "{coding}");
        assert_eq!(refused.header("connection"), Some("close"), "{coding}");
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "{coding}");
    }
}

#[tokio::test]
async fn every_path_that_reads_a_body_limits_it() {
    let site = Site::start().await;
    let body = vec![b'x'; BODY_BYTES_MAX + 1];

    let form = site.nobody().send_raw(Method::POST, "/setup", "application/x-www-form-urlencoded", body.clone()).await;
    let login = site.nobody().send_raw(Method::POST, "/auth/login", "application/json", body).await;

    assert_eq!(login.status, 413);
    assert_eq!(form.status, 413);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_not_waited_for() {
    let site = Site::with("limits.body_wait_ms = 50").await;
    let mut stream = connect(&site);

    let late =
        exchange(&mut stream, &head("POST /auth/login", "content-type: application/json\r\ncontent-length: 9\r\n"));

    assert_eq!(
        (late.status, &late.body["code"], &late.body["detail"]),
        (408, &json!(10_109_000), &json!("request_timeout"))
    );
}

#[tokio::test]
async fn a_body_that_is_not_one_json_value_is_malformed() {
    let site = Site::start().await;
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth)).into_bytes();
    for (body, why) in [
        (b"".to_vec(), "empty"),
        (b"{".to_vec(), "cut"),
        (b"{} {}".to_vec(), "two values"),
        (b"{\"username\": \"kim\",}".to_vec(), "a comma too many"),
        (b"{'username': 'kim'}".to_vec(), "other quotes"),
        (b"{\"username\": \"k\xff\"}".to_vec(), "bad UTF-8"),
        (b"\xef\xbb\xbf{}".to_vec(), "a byte order mark"),
        (b"{\"username\": \"\\ud800\"}".to_vec(), "half a surrogate pair"),
        (b"{\"username\": \"a\nb\"}".to_vec(), "a bare line end"),
        (b"{\"is_active\": NaN}".to_vec(), "not a number"),
        (b"{\"username\": 1e999}".to_vec(), "no number of this world"),
        (b"{\"username\": \"kim\", \"username\": \"lee\"}".to_vec(), "a key twice"),
        (b"{\"username\": \"kim\", \"user\\u006eame\": \"lee\"}".to_vec(), "a key twice, spelled apart"),
        (nested(128), "too deep"),
        (nested(100_000), "far too deep"),
    ] {
        let reply = site.admin().send_raw(Method::POST, "/admin/members", "application/json", body).await;
        assert_eq!(reply.is(10_101_000).word(), "malformed_body", "{why}");
    }
    let deep = site.admin().send_raw(Method::POST, "/admin/members", "application/json", nested(127)).await;
    assert_eq!((deep.is(10_101_000).word(), deep.fields()), ("bad_input", vec!["body".to_owned()]));
}

#[tokio::test]
async fn a_body_that_is_not_an_object_is_refused() {
    let site = Site::start().await;

    for body in [json!(null), json!([]), json!("x"), json!(7), json!(true)] {
        let reply = site.admin().post("/admin/members", body.clone()).await;
        assert_eq!(reply.is(10_101_000).fields(), ["body"], "{body}");
    }
}

#[tokio::test]
async fn all_unknown_fields_are_reported_together() {
    let site = Site::start().await;
    let body = json!({"org_code": "acme", "a/b": 1, "c~d": 2, "": 3, "__proto__": {}, "é": 4});

    let reply = site.admin().post("/admin/organizations", body).await;

    assert_eq!(
        reply.is(10_101_000).fields(),
        ["body.", "body.__proto__", "body.a/b", "body.c~d", "body.name", "body.é"]
    );
}

#[tokio::test]
async fn the_number_of_listed_faults_is_limited() {
    let site = Site::start().await;
    let body: serde_json::Map<String, Value> = (0..10_000).map(|n| (format!("f{n}"), json!(n))).collect();

    let reply = site.admin().post("/admin/organizations", Value::Object(body)).await;

    assert_eq!(reply.is(10_101_000).fields().len(), 100);
}

#[tokio::test]
async fn only_json_media_types_are_accepted() {
    let site = Site::start().await;
    let post = async |content_type: &str| {
        let body = json!({"username": format!("u{}", uuid::Uuid::now_v7().simple())}).to_string().into_bytes();
        site.admin().send_raw(Method::POST, "/admin/members", content_type, body).await
    };

    for json in
        ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/merge-patch+json"]
    {
        post(json).await.done();
    }
    for other in [
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/jsonp",
        "json",
        "",
    ] {
        assert_eq!(post(other).await.is(10_115_000).word(), "media_type", "{other}");
    }
    let without =
        exchange(&mut connect(&site), &[head("POST /auth/login", "content-length: 2\r\n"), b"{}".to_vec()].concat());
    assert_eq!((without.status, &without.body["detail"]), (415, &json!("media_type")));
}

// ── browsers ──

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

    let output = std::process::Command::new(crate::site::binary())
        .args(["config", "check", "--data"])
        .arg(directory.path())
        .output()
        .unwrap();

    assert_eq!(output.status.code(), Some(1));
}

// ── addresses ──

/// The address that the audit log records for a change with this header.
async fn recorded(site: &Site, forwarded: &[&str]) -> Value {
    let mut caller = site.admin();
    for value in forwarded {
        caller = caller.with("x-forwarded-for", value);
    }
    let org_code = format!("o{}", uuid::Uuid::now_v7().simple());
    caller.post("/admin/organizations", json!({"org_code": org_code, "name": "O"})).await.done();
    site.last_audit_entry().await["address"].clone()
}

#[tokio::test]
async fn a_forwarded_address_is_ignored_unless_the_peer_is_trusted() {
    let site = Site::with("trusted_proxies = [\"10.0.0.0/8\"]").await;

    for forwarded in ["203.0.113.7", "10.1.2.3", "127.0.0.1, 203.0.113.7"] {
        assert_eq!(recorded(&site, &[forwarded]).await, "127.0.0.1", "{forwarded}");
    }
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_up_to_the_first_untrusted_address() {
    let site = Site::with("trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]").await;
    for (forwarded, address) in [
        (&["203.0.113.7"][..], "203.0.113.7"),
        (&["192.0.2.1, 203.0.113.7"], "203.0.113.7"),
        (&["192.0.2.1", "203.0.113.7"], "203.0.113.7"),
        (&["192.0.2.1, 203.0.113.7, 10.1.1.1"], "203.0.113.7"),
        (&["2001:db8::7"], "2001:db8::7"),
        (&["203.0.113.9:4711"], "203.0.113.9"),
        (&["[2001:db8::7]:4711, 10.1.1.1:80"], "2001:db8::7"),
        (&["[2001:db8::7]"], "2001:db8::7"),
        (&["10.1.1.1"], "127.0.0.1"),
        (&[], "127.0.0.1"),
    ] {
        assert_eq!(recorded(&site, forwarded).await, address, "{forwarded:?}");
    }
}

#[tokio::test]
async fn invalid_entries_on_the_left_do_not_hide_an_address_on_the_right() {
    let site = Site::with("trusted_proxies = [\"127.0.0.1\"]").await;

    for forwarded in [
        &["nonsense, 203.0.113.7"][..],
        &["nonsense", "203.0.113.7"],
        &[", 203.0.113.7"],
        &["192.0.2.1, x, 203.0.113.7"],
    ] {
        assert_eq!(recorded(&site, forwarded).await, "203.0.113.7", "{forwarded:?}");
    }
}

#[tokio::test]
async fn an_address_that_a_proxy_could_not_name_is_unknown() {
    let site = Site::with("trusted_proxies = [\"127.0.0.1\"]").await;

    for forwarded in ["unknown", "_hidden", "192.0.2.1, unknown", "203.0.113.9:x", "[203.0.113.9]:80x"] {
        assert_eq!(recorded(&site, &[forwarded]).await, "unknown", "{forwarded}");
    }
}

#[tokio::test]
async fn a_clients_address_is_the_one_that_the_proxy_saw() {
    let site = Site::with("trusted_proxies = [\"127.0.0.1\"]").await;
    let body = json!({"name": "portal", "scopes": ["members:read"], "allowed_ips": ["127.0.0.0/8", "203.0.113.0/24"]});
    let client = site.client_of(body).await;
    let asked = async |forwarded: &str| client.clone().with("x-forwarded-for", forwarded).get("/admin/members").await;

    asked("203.0.113.255").await.done();
    assert_eq!(asked("203.0.114.0").await.is(32_505_000).word(), "ip_not_allowed");
    assert_eq!(asked("203.0.113.7, 192.0.2.1").await.is(32_505_000).word(), "ip_not_allowed");
    // A client behind the proxy does not have the proxy's own address.
    assert_eq!(asked("nonsense, 192.0.2.1").await.is(32_505_000).word(), "ip_not_allowed");
}

#[tokio::test]
async fn the_host_header_of_a_request_appears_in_no_response() {
    let site = Site::start().await;
    let caller = site.nobody().with("host", "evil.example").with("x-forwarded-host", "evil.example");

    let pages = ["/api/v1/docs", "/manual", "/manual?q=quota", "/manual/security", "/setup"];
    for path in pages.into_iter().chain(["/api/v1/openapi.json", "/nowhere", "/admin/members", "/healthz"]) {
        let reply = caller.get(path).await;
        let said = format!("{:?}{}", reply.headers, reply.body);
        assert!(!said.contains("evil.example"), "{path}");
    }
}

#[tokio::test]
async fn no_page_can_be_framed() {
    let site = Site::start().await;

    let manual = ["/manual", "/manual?q=quota", "/manual/security"];
    let pages = ["/api/v1/docs", "/setup", "/setup?token=x", "/reset?token=x", "/invitation?token=x"];
    for path in pages.into_iter().chain(manual) {
        let reply = site.nobody().get(path).await;
        let policy = reply.header("content-security-policy").unwrap_or_default();
        assert!(policy.split("; ").any(|part| part == "frame-ancestors 'none'"), "{path}: {policy}");
        assert_eq!(reply.header("x-frame-options"), Some("DENY"), "{path}");
    }
}

#[tokio::test]
async fn responses_are_not_cached_unless_they_allow_it() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let login = json!({"login": ADMIN, "password": PASSWORD});

    for reply in [
        site.nobody().post("/auth/login", login).await,
        site.admin().get("/me").await,
        site.admin().get("/admin/members").await,
        site.admin().get("/admin/audit/export").await,
        site.admin().post("/admin/api-clients", json!({"name": "portal", "scopes": ["*"]})).await,
        acme.owner().get("/api/v1/permissions/me").await,
        site.internal().get("/internal/members").await,
        site.nobody().get("/me").await,
        site.nobody().get("/nowhere").await,
        site.nobody().get("/setup?token=x").await,
        site.nobody().get("/healthz").await,
    ] {
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{reply:?}");
    }
    let public = [("/.well-known/jwks.json", "public, max-age=300"), ("/api/v1/openapi.json", "no-cache")];
    let pages = [("/api/v1/docs", "no-cache"), ("/manual", "no-cache"), ("/manual?q=quota", "no-store")];
    for (path, kept) in public.into_iter().chain(pages) {
        assert_eq!(site.nobody().get(path).await.header("cache-control"), Some(kept), "{path}");
    }
}

// ── unauthenticated callers in the logs ──

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

// ── the documentation ──

#[tokio::test]
async fn the_documentation_loads_nothing_from_elsewhere() {
    let site = Site::start().await;

    let reply = site.nobody().get("/api/v1/docs").await;

    let page = reply.body.as_str().unwrap();
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/html; charset=utf-8")));
    // The content of scripts is not markup, and the policy below forbids scripts to load anything.
    let markup = |part: &str| part.split_once('>').map(|(tag, _)| format!("<script{tag}>")).unwrap_or_default();
    let (first, scripts) = page.split_once("<script").unwrap();
    let (_, last) = page.rsplit_once("</script>").unwrap();
    let page = first.to_owned() + &scripts.split("<script").map(markup).collect::<String>() + last;
    for attribute in ["src=", "href=", "url(", "@import", "action=", "srcset="] {
        for (at, _) in page.match_indices(attribute) {
            let value = page[at + attribute.len()..].trim_start_matches(['"', '\'', ' ', '\\']);
            let is_foreign = ["http://", "https://", "//"].iter().any(|start| value.starts_with(start));
            assert!(!is_foreign, "{}", value.chars().take(80).collect::<String>());
        }
    }
    let policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'";
    assert_eq!(reply.header("content-security-policy"), Some(policy));
}

#[tokio::test]
async fn documents_and_pages_are_revalidated_by_their_etag() {
    let site = Site::start().await;

    for path in ["/api/v1/openapi.json", "/api/v1/docs", "/manual", "/manual/reference/settings"] {
        let etag = site.nobody().get(path).await.header("etag").unwrap().to_owned();
        for sent in [etag.clone(), format!("\"x\", {etag}"), format!("W/{etag}"), "*".to_owned()] {
            let again = site.nobody().with("if-none-match", &sent).get(path).await;
            assert_eq!((again.status, &again.body), (304, &json!("")), "{path} {sent}");
        }
        assert_eq!(site.nobody().with("if-none-match", "\"x\"").get(path).await.status, 200);
    }
}

#[tokio::test]
async fn the_documentation_is_compressed_for_clients_that_accept_it() {
    let site = Site::start().await;

    for path in ["/api/v1/openapi.json", "/api/v1/docs", "/manual/reference/settings"] {
        let get = async |encoding: &str, known: &str| {
            let request = site.http.get(format!("{}{path}", site.url)).header("accept-encoding", encoding);
            let response = request.header("if-none-match", known).send().await.expect("an answer");
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            (status, headers, response.bytes().await.expect("a body"))
        };
        let (_, plain_head, plain) = get("identity", "").await;
        let (_, gzip_head, gzip) = get("br, gzip;q=0.8", "").await;
        assert_eq!(
            (plain_head.get("content-encoding"), &gzip_head["content-encoding"]),
            (None, &"gzip".parse().unwrap())
        );
        assert!(gzip.len() * 3 < plain.len(), "{path}: {} of {}", gzip.len(), plain.len());
        let mut opened = Vec::new();
        flate2::read::GzDecoder::new(&*gzip).read_to_end(&mut opened).expect("gzip");
        assert_eq!(opened, plain, "{path}");
        assert_eq!(get("gzip", "").await.2, gzip, "{path}");
        assert_ne!(plain_head["etag"], gzip_head["etag"], "{path}");
        for (encoding, head, other) in [("identity", &plain_head, &gzip_head), ("gzip", &gzip_head, &plain_head)] {
            let vary: Vec<&str> = head.get_all("vary").iter().map(|value| value.to_str().expect("text")).collect();
            assert_eq!(vary, ["Accept-Encoding", "Origin"], "{path}");
            assert_eq!(head["content-type"], plain_head["content-type"], "{path}");
            let (status, again, body) = get(encoding, head["etag"].to_str().expect("text")).await;
            assert_eq!((status, &again["etag"], body.len()), (304, &head["etag"], 0), "{path} {encoding}");
            assert_eq!(get(encoding, other["etag"].to_str().expect("text")).await.0, 200, "{path} {encoding}");
        }
    }
}

// ── endpoints for operators ──

#[tokio::test]
async fn a_healthy_site_answers_with_status_ok() {
    let site = Site::start().await;

    for path in ["/healthz", "/readyz"] {
        let reply = site.nobody().get(path).await;
        assert_eq!((reply.status, &reply.body), (200, &json!({"status": "ok"})), "{path}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
    }
}

#[tokio::test]
async fn without_a_token_metrics_are_served_on_the_local_socket_only() {
    let site = Site::start().await;

    assert!(site.metrics().contains("\nroster_panics_total 0\n"));
    for caller in [site.nobody(), site.admin(), site.internal(), site.nobody().with("x-forwarded-for", "127.0.0.1")] {
        let reply = caller.get("/metrics").await;
        assert_eq!((reply.is(35_605_000).word(), reply.status), ("not_configured", 501));
        assert!(reply.body["message"].as_str().unwrap().contains("metrics_token_file"));
    }
}

#[tokio::test]
async fn metrics_over_the_network_require_the_token_from_every_address() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "a-token-for-metrics\n").unwrap();
    for proxies in ["", "trusted_proxies = [\"127.0.0.1\"]"] {
        let site = Site::with(&format!("metrics_token_file = {:?}\n{proxies}", file.path())).await;

        let opened = site.bearer("a-token-for-metrics").get("/metrics").await;
        assert_eq!((opened.status, opened.header("content-type")), (200, Some("text/plain; version=0.0.4")));
        let far = site.bearer("a-token-for-metrics").with("x-forwarded-for", "192.0.2.1").get("/metrics").await;
        assert_eq!(far.status, 200);
        assert!(site.metrics().contains("\nroster_panics_total 0\n"));
        for wrong in ["a-token-for-metricss", "a-token-for-metric", "", INTERNAL_SECRET, &site.admin_token] {
            assert_eq!(site.bearer(wrong).get("/metrics").await.is(35_501_000).word(), "unauthenticated", "{wrong}");
        }
        for (header, value) in [("x-forwarded-for", "127.0.0.1"), ("forwarded", "for=127.0.0.1"), ("host", "127.0.0.1")]
        {
            let reply = site.nobody().with(header, value).get("/metrics").await;
            assert_eq!(reply.is(35_501_000).word(), "unauthenticated", "{header}");
        }
    }
}

#[tokio::test]
async fn requests_are_counted_by_operation_and_never_by_caller() {
    let site = Site::start().await;
    let member = site.member().await;
    site.admin().get(&format!("/admin/members/{}", member.uid)).await.done();
    site.admin().get(&format!("/admin/members?keyword={}", member.username)).await.done();

    let text = site.metrics();

    assert!(text.lines().any(|line| line.contains("operation=\"get_member\"") && line.ends_with(" 1")), "{text}");
    assert!(!text.contains(&member.uid) && !text.contains(&member.username));
}

#[tokio::test]
async fn set_up_by_the_command_line_is_not_reachable_over_the_network() {
    let site = Site::start().await;

    let reply = site.admin().post("/setup/link", json!({})).await;

    assert_eq!(reply.is(10_301_000).word(), "route_not_found");
}

// ── idempotency keys ──

#[tokio::test]
async fn a_repeat_gets_the_same_answer_and_changes_nothing() {
    let site = Site::start().await;
    let caller = site.admin().with("idempotency-key", "k1");
    let body = json!({"org_code": "acme", "name": "Acme"});

    let first = caller.post("/admin/organizations", body.clone()).await.data();
    let second = caller.post("/admin/organizations", body).await.data();

    assert_eq!(first, second);
    assert_eq!(site.admin().get("/admin/audit?action=organization.create").await.data()["total"], 1);
}

#[tokio::test]
async fn parallel_repeats_are_one_request() {
    let site = Site::start().await;
    let caller = site.admin().with("idempotency-key", "k1");
    let posts = (0..8).map(|_| caller.post("/admin/organizations", json!({"org_code": "acme", "name": "Acme"})));

    let replies = futures_util::future::join_all(posts).await;

    let first = replies[0].data();
    assert!(replies.iter().all(|reply| reply.data() == first));
    assert_eq!(site.admin().get("/admin/organizations?keyword=acme").await.data()["total"], 1);
}

#[tokio::test]
async fn an_idempotency_key_is_for_one_request() {
    let site = Site::start().await;
    let caller = site.admin().with("idempotency-key", "k1");
    caller.post("/admin/organizations", json!({"org_code": "acme", "name": "Acme"})).await.done();

    let reused = caller.post("/admin/organizations", json!({"org_code": "globex", "name": "Globex"})).await;

    assert_eq!(reused.is(10_309_000).word(), "idempotency_key_reused");
    // Another operation and another caller may use the same key.
    caller.post("/admin/members", json!({"username": "kim"})).await.done();
    let client = site.client(&["*"]).await.with("idempotency-key", "k1");
    client.post("/admin/organizations", json!({"org_code": "globex", "name": "Globex"})).await.done();
}

#[tokio::test]
async fn an_idempotency_key_of_one_tenant_returns_nothing_in_another() {
    let site = Site::start().await;
    let (acme, globex) = (site.organization("acme").await, site.organization("globex").await);
    let body = json!({"key": "editor"});

    let first = acme.admin().with("idempotency-key", "k1").post("/api/v1/permissions/roles", body.clone()).await.data();
    let second = globex.admin().with("idempotency-key", "k1").post("/api/v1/permissions/roles", body).await;

    // Refused as another request, or created in the second tenant; never the response of the first tenant.
    assert_ne!(second.body["data"]["id"], first["id"]);
}

#[tokio::test]
async fn a_failure_is_not_stored_for_a_repeat() {
    let site = Site::start().await;
    let caller = site.admin().with("idempotency-key", "k1");
    site.admin().post("/admin/members", json!({"username": "kim"})).await.done();

    let taken = caller.post("/admin/members", json!({"username": "KIM"})).await;
    let bad = caller.post("/admin/members", json!({"username": "-"})).await;
    let free = caller.post("/admin/members", json!({"username": "lee"})).await;

    assert_eq!(taken.is(29_303_000).word(), "username_exists");
    assert_eq!(bad.is(10_101_000).fields(), ["body.username"]);
    free.done();
}

#[tokio::test]
async fn a_response_with_a_secret_is_not_repeated() {
    let site = Site::start().await;
    let caller = site.admin().with("idempotency-key", "k1");
    let body = json!({"name": "portal", "scopes": ["*"]});
    let made = caller.post("/admin/api-clients", body.clone()).await.data();
    let rotate = format!("/admin/api-clients/{}/rotate", made["client_key"].as_str().unwrap());
    caller.post(&rotate, json!({})).await.done();

    for (path, body) in [("/admin/api-clients", body), (rotate.as_str(), json!({}))] {
        assert_eq!(caller.post(path, body).await.is(32_309_000).word(), "secret_not_kept", "{path}");
    }
    let other = caller.post("/admin/api-clients", json!({"name": "other", "scopes": ["*"]})).await;
    assert_eq!(other.is(10_309_000).word(), "idempotency_key_reused");
    assert_eq!(site.admin().get("/admin/api-clients").await.data()["total"], 1);
}

#[tokio::test]
async fn a_repeat_requires_the_permission_again() {
    let site = Site::start().await;
    let client = site.client(&["organizations:write"]).await.with("idempotency-key", "k1");
    let made = site.last_audit_entry().await["target"].as_str().unwrap().replace("client ", "");
    let body = json!({"org_code": "acme", "name": "Acme"});
    client.post("/admin/organizations", body.clone()).await.done();

    site.admin().patch(&format!("/admin/api-clients/{made}"), json!({"scopes": ["audit:read"]})).await.done();

    assert_eq!(client.post("/admin/organizations", body).await.is(32_505_000).word(), "scope_not_allowed");
}

#[tokio::test]
async fn an_idempotency_key_holds_at_its_limit_and_not_one_past_it() {
    let site = Site::start().await;
    let post = async |key: &str| {
        let body = json!({"username": format!("u{}", uuid::Uuid::now_v7().simple())});
        site.admin().with("idempotency-key", key).post("/admin/members", body).await
    };

    post("k").await.done();
    post(&"k".repeat(128)).await.done();
    for bad in [String::new(), "k".repeat(129)] {
        assert_eq!(post(&bad).await.is(10_101_000).fields(), ["header.Idempotency-Key"], "{bad}");
    }
}

#[tokio::test]
async fn an_idempotency_key_survives_a_restart() {
    let mut site = Site::start().await;
    let body = json!({"org_code": "acme", "name": "Acme"});
    let first = site.admin().with("idempotency-key", "k1").post("/admin/organizations", body.clone()).await.data();

    site.restart().await;

    let again = site.admin().with("idempotency-key", "k1").post("/admin/organizations", body).await;
    assert_eq!(again.data(), first);
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
