//! The served documentation, and endpoints for operators.

use std::io::Read;

use serde_json::json;

use crate::harness::site::{INTERNAL_SECRET, Site};

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
