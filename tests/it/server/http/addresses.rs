//! Addresses behind proxies, and headers against framing and caching.

use serde_json::{Value, json};

use crate::harness::site::{ADMIN, PASSWORD, Site};

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
