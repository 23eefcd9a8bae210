//! Bodies of requests: their limits, and which ones are malformed.

use std::io::Read;

use reqwest::Method;
use serde_json::{Value, json};

use super::{connect, exchange, head};
use crate::harness::site::Site;

/// The default limit of a request body.
const BODY_BYTES_MAX: usize = 1_048_576;
/// The part of a longer body that is drained for an authenticated caller.
const DRAIN_BYTES_MAX: usize = 8 * 1_024 * 1_024;

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

    let own = site.nobody().with("sec-fetch-site", "same-origin");
    let form = own.send_raw(Method::POST, "/setup", "application/x-www-form-urlencoded", body.clone()).await;
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
