//! API clients, the internal secret, and members asserted by a gateway.

use reqwest::Method;
use roster::kernel::ids::Timestamp;
use serde_json::{Value, json};

use crate::harness::callers::{As, Reply};
use crate::harness::site::{INTERNAL_SECRET, Site};

/// A client's key and secret.
async fn made(site: &Site, body: Value) -> (String, String) {
    let made = site.admin().post("/admin/api-clients", body).await.data();
    (made["client_key"].as_str().unwrap().to_owned(), made["api_key"].as_str().unwrap().to_owned())
}

fn with<'s>(site: &'s Site, client_key: &str, api_key: &str) -> As<'s> {
    site.nobody().with("x-client-key", client_key).with("x-api-key", api_key)
}

fn refused(reply: &Reply) -> (u16, &str) {
    (reply.status, reply.word())
}

// ── administration ──

#[tokio::test]
async fn only_the_platform_manages_clients() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let body = json!({"name": "portal", "scopes": ["members:read"]});

    let guest = site.nobody().post("/admin/api-clients", body.clone()).await;
    let stranger = site.member().await.caller().post("/admin/api-clients", body.clone()).await;
    let owner = acme.owner().post("/admin/api-clients", body).await;

    assert_eq!(guest.is(28_501_000).word(), "missing_bearer_token");
    assert_eq!(stranger.is(32_505_000).word(), "forbidden");
    assert_eq!(owner.is(32_505_000).word(), "forbidden");
    assert_eq!(acme.owner().get("/admin/api-clients").await.is(32_505_000).word(), "forbidden");
    assert_eq!(site.admin().get("/admin/api-clients").await.data()["total"], 0);
}

#[tokio::test]
async fn a_client_never_manages_clients() {
    let site = Site::start().await;
    let client = site.client(&["*"]).await;

    for (method, path) in [
        (Method::GET, "/admin/api-clients"),
        (Method::POST, "/admin/api-clients"),
        (Method::PATCH, "/admin/api-clients/x"),
        (Method::DELETE, "/admin/api-clients/x"),
        (Method::POST, "/admin/api-clients/x/rotate"),
    ] {
        let reply = client.send(method, path, Some(json!({}))).await;
        assert_eq!(reply.is(28_501_000).word(), "missing_bearer_token", "{path}");
    }
}

#[tokio::test]
async fn a_secret_is_shown_once_and_kept_as_a_hash_only() {
    let site = Site::with("log.level = \"trace\"").await;
    let (client_key, api_key) = made(&site, json!({"name": "portal", "scopes": ["members:read"]})).await;
    with(&site, &client_key, &api_key).get("/admin/members").await.done();

    let shown = site.admin().get(&format!("/admin/api-clients/{client_key}")).await.data();

    let mut keys: Vec<&str> = shown.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys.join(" "),
        "allowed_ips allowed_origins allowed_paths client_key created_at expires_at last_used_at name rate_limit_per_min \
         scopes status updated_at"
    );
    assert!(!site.log().contains(&api_key));
    for file in ["roster.db", "roster.db-wal"] {
        let bytes = std::fs::read(site.path().join(file)).unwrap();
        assert!(!bytes.windows(api_key.len()).any(|window| window == api_key.as_bytes()), "{file}");
    }
}

#[tokio::test]
async fn a_created_client_has_the_values_of_the_request() {
    let site = Site::start().await;
    let until = Timestamp::now().plus_ms(3_600_000).0;
    let body = json!({"name": "portal", "scopes": ["members:read", "permissions:check"], "allowed_ips": ["10.0.0.0/8", "::1"],
        "allowed_origins": ["https://office.example.org"], "allowed_paths": ["/admin/*"], "rate_limit_per_min": 600,
        "expires_at": until});

    let (client_key, _) = made(&site, body.clone()).await;

    let shown = site.admin().get(&format!("/admin/api-clients/{client_key}")).await;
    for (name, value) in body.as_object().unwrap() {
        assert_eq!(&shown.data()[name], value, "{name}");
    }
    assert_eq!((&shown.data()["status"], shown.header("etag")), (&json!("active"), Some("\"1\"")));
    let found = site.admin().get("/admin/api-clients?keyword=PORT").await.data();
    assert_eq!((&found["total"], &found["items"][0]), (&json!(1), &shown.data()));
}

// ── input ──

#[tokio::test]
async fn all_bad_fields_of_a_client_are_reported_together() {
    let site = Site::start().await;
    let body = json!({"name": "\n", "scopes": [], "allowed_ips": "10.0.0.0/8", "rate_limit_per_min": 0, "expires_at": "soon",
        "api_key": "rs_x"});

    let reply = site.admin().post("/admin/api-clients", body).await;

    let all = ["allowed_ips", "api_key", "expires_at", "name", "rate_limit_per_min", "scopes"];
    assert_eq!(reply.is(10_101_000).fields(), all.map(|name| format!("body.{name}")));
}

#[tokio::test]
async fn all_bad_entries_of_a_clients_lists_are_reported_together() {
    let site = Site::start().await;
    let body = json!({"name": "portal", "scopes": ["members:read", "clients:write", "members"], "allowed_ips": ["10.0.0.0/33"],
        "allowed_origins": ["*", "https://*.example.org", "https://a.example.org/"], "allowed_paths": ["admin", "/admin*"]});

    let reply = site.admin().post("/admin/api-clients", body).await;

    let all = [
        "allowed_ips.0",
        "allowed_origins.0",
        "allowed_origins.1",
        "allowed_origins.2",
        "allowed_paths.0",
        "allowed_paths.1",
        "scopes.1",
        "scopes.2",
    ];
    assert_eq!(reply.is(10_101_000).fields(), all.map(|name| format!("body.{name}")));
}

#[tokio::test]
async fn an_end_in_the_past_is_refused() {
    let site = Site::start().await;

    let reply =
        site.admin().post("/admin/api-clients", json!({"name": "portal", "scopes": ["*"], "expires_at": 1})).await;

    assert_eq!(reply.is(10_101_000).fields(), ["body.expires_at"]);
}

#[tokio::test]
async fn a_bad_name_and_a_bad_scope_are_reported_together() {
    let site = Site::start().await;

    let reply = site.admin().post("/admin/api-clients", json!({"name": "\n", "scopes": ["nope"]})).await;

    assert_eq!(reply.is(10_101_000).fields(), ["body.name", "body.scopes.0"]);
}

#[tokio::test]
async fn every_limit_of_a_client_holds_and_not_one_past_it() {
    let site = Site::start().await;
    let ips = |count: usize| json!((0..count).map(|n| format!("10.0.0.{n}")).collect::<Vec<_>>());
    for (name, most, too_many) in [
        ("name", json!("n".repeat(128)), json!("n".repeat(129))),
        ("rate_limit_per_min", json!(1_000_000), json!(1_000_001)),
        ("rate_limit_per_min", json!(1), json!(0)),
        ("rate_limit_per_min", json!(1), json!(-1)),
        ("rate_limit_per_min", json!(1), json!(1.5)),
        ("scopes", json!(vec!["*"; 16]), json!(vec!["*"; 17])),
        ("allowed_ips", ips(100), ips(101)),
    ] {
        let body = |value: &Value| {
            let mut body = json!({"name": "portal", "scopes": ["*"]});
            body[name] = value.clone();
            body
        };
        site.admin().post("/admin/api-clients", body(&most)).await.done();
        let reply = site.admin().post("/admin/api-clients", body(&too_many)).await;
        assert_eq!(reply.is(10_101_000).fields(), [format!("body.{name}")], "{too_many}");
    }
}

#[tokio::test]
async fn a_float_without_a_fraction_is_accepted_or_refused_by_its_field_name() {
    let site = Site::start().await;
    let text = br#"{"name": "portal", "scopes": ["*"], "rate_limit_per_min": 60.0}"#.to_vec();

    let reply = site.admin().send_raw(Method::POST, "/admin/api-clients", "application/json", text).await;

    // Accepted or refused; a refusal names this field.
    assert!(reply.status == 200 || reply.is(10_101_000).fields() == ["body.rate_limit_per_min"], "{reply:?}");
}

#[tokio::test]
async fn the_number_of_clients_is_limited() {
    let site = Site::with("limits.api_clients = 1").await;
    let body = json!({"name": "portal", "scopes": ["*"]});
    let (client_key, _) = made(&site, body.clone()).await;

    let one_more = site.admin().post("/admin/api-clients", body.clone()).await;

    assert_eq!(one_more.is(10_101_000).fields(), ["body.name"]);
    site.admin().delete(&format!("/admin/api-clients/{client_key}")).await.done();
    made(&site, body).await;
}

// ── authentication ──

#[tokio::test]
async fn an_unknown_client_an_inactive_one_and_a_wrong_secret_are_refused() {
    let site = Site::start().await;
    let (client_key, api_key) = made(&site, json!({"name": "portal", "scopes": ["members:read"]})).await;
    let (inactive, its_key) = made(&site, json!({"name": "old", "scopes": ["members:read"]})).await;
    site.admin().patch(&format!("/admin/api-clients/{inactive}"), json!({"status": "inactive"})).await.done();

    for (caller, word) in [
        (with(&site, "rc_nobody", &api_key), "invalid_client"),
        (with(&site, &inactive, &its_key), "invalid_client"),
        (with(&site, &inactive, "wrong"), "invalid_client"),
        (with(&site, &client_key, "wrong"), "invalid_api_key"),
        (with(&site, &client_key, &its_key), "invalid_api_key"),
        (with(&site, &client_key, ""), "invalid_api_key"),
        (site.nobody().with("x-client-key", &client_key), "invalid_api_key"),
    ] {
        assert_eq!(caller.get("/admin/members").await.is(32_501_000).word(), word);
    }
    with(&site, &client_key, &api_key).get("/admin/members").await.done();
}

#[tokio::test]
async fn the_client_key_header_decides_the_meaning_of_the_api_key_header() {
    let site = Site::start().await;

    let beside_a_token = site.admin().with("x-client-key", "rc_nobody").get("/admin/members").await;
    let beside_the_secret = site.internal().with("x-client-key", "rc_nobody").get("/internal/members").await;

    assert_eq!(beside_a_token.is(32_501_000).word(), "invalid_client");
    assert_eq!(beside_the_secret.is(32_501_000).word(), "invalid_client");
}

#[tokio::test]
async fn an_expired_client_is_reported_even_with_a_wrong_secret() {
    let site = Site::start().await;
    let soon = Timestamp::now().plus_ms(600).0;
    let (client_key, api_key) =
        made(&site, json!({"name": "portal", "scopes": ["members:read"], "expires_at": soon})).await;

    while Timestamp::now().0 <= soon {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }

    for secret in [api_key.as_str(), "wrong"] {
        let reply = with(&site, &client_key, secret).get("/admin/members").await;
        assert_eq!(reply.is(32_501_000).word(), "client_expired");
    }
    site.admin().patch(&format!("/admin/api-clients/{client_key}"), json!({"name": "late"})).await.done();
    let backdated =
        site.admin().patch(&format!("/admin/api-clients/{client_key}"), json!({"expires_at": soon - 1})).await;
    assert_eq!(backdated.is(10_101_000).fields(), ["body.expires_at"]);
    site.admin().patch(&format!("/admin/api-clients/{client_key}"), json!({"expires_at": null})).await.done();
    with(&site, &client_key, &api_key).get("/admin/members").await.done();
}

#[tokio::test]
async fn the_checks_of_a_client_run_in_a_fixed_order() {
    let site = Site::start().await;
    let (client_key, api_key) = made(&site, json!({"name": "portal", "scopes": ["audit:read"]})).await;
    let at = format!("/admin/api-clients/{client_key}");
    let caller = with(&site, &client_key, &api_key);

    // Each step corrects what the previous step failed on.
    let wrong = json!({"allowed_origins": ["https://a.example.org"], "allowed_ips": ["192.0.2.1"], "allowed_paths": ["/jobs"],
        "rate_limit_per_min": 1});
    site.admin().patch(&at, wrong).await.done();
    assert_eq!(with(&site, &client_key, "wrong").get("/admin/members").await.word(), "invalid_api_key");
    for (word, code, mended) in [
        ("origin_not_allowed", 32_505_000, json!({"allowed_origins": []})),
        ("ip_not_allowed", 32_505_000, json!({"allowed_ips": ["127.0.0.0/8"]})),
        ("path_not_allowed", 32_505_000, json!({"allowed_paths": ["/admin/*"]})),
        ("scope_not_allowed", 32_505_000, json!({"scopes": ["members:read"]})),
    ] {
        assert_eq!(caller.get("/admin/members").await.is(code).word(), word);
        site.admin().patch(&at, mended).await.done();
    }
    caller.get("/admin/members").await.done();
    assert_eq!(caller.get("/admin/members").await.is(32_604_000).word(), "rate_limited");
}

#[tokio::test]
async fn an_origin_is_compared_as_a_whole() {
    let site = Site::start().await;
    let body = json!({"name": "portal", "scopes": ["members:read"], "allowed_origins": ["https://office.example.org"]});
    let client = site.client_of(body).await;

    for origin in [
        "https://office.example.org.evil.example",
        "http://office.example.org",
        "https://example.org",
        "null",
        "https://office.example.org:8443",
        "HTTPS://OFFICE.EXAMPLE.ORG",
    ] {
        let reply = client.clone().with("origin", origin).get("/admin/members").await;
        assert_eq!(refused(&reply), (403, "origin_not_allowed"), "{origin}");
    }
    assert_eq!(refused(&client.get("/admin/members").await), (403, "origin_not_allowed"));
    client.with("origin", "https://office.example.org").get("/admin/members").await.done();
}

#[tokio::test]
async fn the_client_address_is_the_peer_s_whatever_the_request_says() {
    let site = Site::start().await;
    let body = json!({"name": "portal", "scopes": ["members:read"], "allowed_ips": ["192.0.2.7"]});
    let client = site.client_of(body).await;

    for header in ["x-forwarded-for", "x-real-ip", "forwarded", "x-client-ip", "true-client-ip"] {
        let reply = client.clone().with(header, "192.0.2.7").get("/admin/members").await;
        assert_eq!(refused(&reply), (403, "ip_not_allowed"), "{header}");
    }
}

#[tokio::test]
async fn an_allowed_path_covers_itself_under_both_base_paths_and_no_other_path() {
    let site = Site::start().await;
    let paths = json!(["/admin/organizations", "/admin/members/*"]);
    let client = site.client_of(json!({"name": "portal", "scopes": ["*"], "allowed_paths": paths})).await;

    for path in
        ["/admin/organizations", "/api/v1/admin/organizations", "/admin/members", "/admin/organizations?limit=1"]
    {
        client.get(path).await.done();
    }
    assert_eq!(client.get("/admin/members/x").await.word(), "member_not_found");
    for path in ["/admin/organizations/x", "/admin/audit", "/internal/members", "/internal/organizations"] {
        assert_eq!(refused(&client.get(path).await), (403, "path_not_allowed"), "{path}");
    }
}

#[tokio::test]
async fn writing_includes_reading_and_a_star_includes_all() {
    let site = Site::start().await;
    let writer = site.client(&["members:write"]).await;
    let all = site.client(&["*"]).await;

    writer.get("/admin/members").await.done();
    assert_eq!(writer.get("/admin/organizations").await.is(32_505_000).word(), "scope_not_allowed");
    assert_eq!(writer.get("/admin/audit").await.is(32_505_000).word(), "scope_not_allowed");
    for path in ["/admin/members", "/admin/organizations", "/admin/audit", "/admin/audit/verify", "/internal/members"] {
        all.get(path).await.done();
    }
}

#[tokio::test]
async fn a_client_names_the_tenant_of_its_request() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member_with_role("viewer").await;
    let client = site.client(&["permissions:check"]).await;
    let question = json!({"uid": member.uid, "permission": "roster.member.list"});

    let nowhere = client.post("/api/v1/permissions/check", question.clone()).await;
    let unknown = client.clone().with("x-tenant-id", "x").post("/api/v1/permissions/check", question.clone()).await;
    let here = client.clone().with("x-tenant-id", "acme").post("/api/v1/permissions/check", question).await;

    assert_eq!(nowhere.is(10_101_000).fields(), ["header.X-Tenant-ID"]);
    assert_eq!(unknown.word(), "organization_not_found");
    assert_eq!(here.data()["allow"], true);
}

#[tokio::test]
async fn a_rate_limit_holds_and_then_answers_with_retry_after() {
    let site = Site::start().await;
    let client = site.client_of(json!({"name": "portal", "scopes": ["members:read"], "rate_limit_per_min": 3})).await;

    for left in [2, 1, 0] {
        let reply = client.get("/admin/members").await;
        reply.done();
        assert_eq!(reply.header("ratelimit-policy"), Some("\"client\";q=3;w=60"));
        assert!(reply.header("ratelimit").unwrap().starts_with(&format!("\"client\";r={left};")), "{reply:?}");
    }
    let over = client.get("/admin/members").await;

    assert_eq!(over.is(32_604_000).word(), "rate_limited");
    let wait_s: u64 = over.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait_s), "{wait_s}");
    assert_eq!(over.header("ratelimit"), Some(format!("\"client\";r=0;t={wait_s}").as_str()));
}

#[tokio::test]
async fn a_rate_limit_is_neither_reset_by_an_edit_nor_used_by_refused_requests() {
    let site = Site::start().await;
    let (client_key, api_key) =
        made(&site, json!({"name": "portal", "scopes": ["members:read"], "rate_limit_per_min": 1})).await;
    let caller = with(&site, &client_key, &api_key);
    assert_eq!(caller.get("/admin/audit").await.word(), "scope_not_allowed");
    caller.get("/admin/members").await.done();

    site.admin().patch(&format!("/admin/api-clients/{client_key}"), json!({"name": "renamed"})).await.done();

    assert_eq!(caller.get("/admin/members").await.is(32_604_000).word(), "rate_limited");
    site.admin().patch(&format!("/admin/api-clients/{client_key}"), json!({"rate_limit_per_min": null})).await.done();
    assert_eq!(caller.get("/admin/members").await.header("ratelimit"), None);
}

// ── rotation, update, deletion ──

#[tokio::test]
async fn the_former_secret_is_valid_during_the_overlap_and_the_one_before_it_ends() {
    let site = Site::start().await;
    let (client_key, first) = made(&site, json!({"name": "portal", "scopes": ["members:read"]})).await;
    let rotate = async || {
        let reply = site.admin().post(&format!("/admin/api-clients/{client_key}/rotate"), json!({})).await.data();
        assert!(reply["former_valid_until"].as_i64().unwrap() > Timestamp::now().0);
        reply["api_key"].as_str().unwrap().to_owned()
    };

    let second = rotate().await;
    with(&site, &client_key, &first).get("/admin/members").await.done();
    with(&site, &client_key, &second).get("/admin/members").await.done();
    let third = rotate().await;

    assert_eq!(with(&site, &client_key, &first).get("/admin/members").await.is(32_501_000).word(), "invalid_api_key");
    with(&site, &client_key, &second).get("/admin/members").await.done();
    with(&site, &client_key, &third).get("/admin/members").await.done();
}

#[tokio::test]
async fn without_an_overlap_a_rotation_ends_the_former_secret_at_once() {
    let site = Site::with("auth.client_rotation_overlap_s = 0").await;
    let (client_key, first) = made(&site, json!({"name": "portal", "scopes": ["members:read"]})).await;

    site.admin().post(&format!("/admin/api-clients/{client_key}/rotate"), json!({})).await.done();

    assert_eq!(with(&site, &client_key, &first).get("/admin/members").await.is(32_501_000).word(), "invalid_api_key");
}

#[tokio::test]
async fn an_update_replaces_only_its_fields_and_a_stale_one_is_refused() {
    let site = Site::start().await;
    let (client_key, _) =
        made(&site, json!({"name": "portal", "scopes": ["members:read"], "rate_limit_per_min": 5})).await;
    let at = format!("/admin/api-clients/{client_key}");

    let edited = site.admin().patch(&at, json!({"scopes": ["audit:read"], "rate_limit_per_min": null})).await;
    let stale = site.admin().with("if-match", "\"1\"").patch(&at, json!({"scopes": ["*"]})).await;
    let bad = site.admin().patch(&at, json!({"scopes": ["nope"], "allowed_paths": ["x"]})).await;

    assert_eq!(
        (&edited.data()["scopes"], &edited.data()["rate_limit_per_min"]),
        (&json!(["audit:read"]), &Value::Null)
    );
    assert_eq!((stale.is(10_310_000).word(), stale.header("etag")), ("version_stale", Some("\"2\"")));
    assert_eq!(bad.is(10_101_000).fields(), ["body.allowed_paths.0", "body.scopes.0"]);
    assert_eq!(site.admin().get(&at).await.data()["scopes"], json!(["audit:read"]));
}

#[tokio::test]
async fn a_deleted_client_is_refused_at_once() {
    let site = Site::start().await;
    let (client_key, api_key) = made(&site, json!({"name": "portal", "scopes": ["members:read"]})).await;
    let at = format!("/admin/api-clients/{client_key}");

    site.admin().delete(&at).await.done();

    assert_eq!(with(&site, &client_key, &api_key).get("/admin/members").await.is(32_501_000).word(), "invalid_client");
    for (method, path) in [
        (Method::GET, at.clone()),
        (Method::PATCH, at.clone()),
        (Method::DELETE, at.clone()),
        (Method::POST, format!("{at}/rotate")),
    ] {
        let reply = site.admin().send(method, &path, Some(json!({}))).await;
        assert_eq!(reply.is(32_301_000).word(), "client_not_found", "{path}");
    }
}

#[tokio::test]
async fn the_last_use_of_a_client_outlives_a_restart() {
    let mut site = Site::start().await;
    let began = Timestamp::now().0;
    let (client_key, api_key) = made(&site, json!({"name": "portal", "scopes": ["members:read"]})).await;
    with(&site, &client_key, &api_key).get("/admin/members").await.done();

    site.restart().await;

    let shown = site.admin().get(&format!("/admin/api-clients/{client_key}")).await.data();
    let used = shown["last_used_at"].as_i64().unwrap();
    assert!((began..=Timestamp::now().0).contains(&used), "{shown}");
    with(&site, &client_key, &api_key).get("/admin/members").await.done();
}

// ── the internal secret ──

#[tokio::test]
async fn the_internal_secret_authenticates_internal_operations_only() {
    let site = Site::start().await;

    site.internal().get("/internal/members").await.done();

    for wrong in ["", "wrong", &INTERNAL_SECRET.to_uppercase(), &format!("{INTERNAL_SECRET}x"), &INTERNAL_SECRET[1..]] {
        let reply = site.nobody().with("x-internal-secret", wrong).get("/internal/members").await;
        assert_eq!(reply.is(29_501_000).word(), "invalid_internal_secret", "{wrong}");
    }
    assert_eq!(site.internal().get("/admin/members").await.is(29_501_000).word(), "unauthenticated");
    assert_eq!(site.internal().get("/api/v1/permissions/me").await.is(31_501_000).word(), "unauthenticated");
}

// ── members asserted by a gateway ──

#[tokio::test]
async fn a_gateway_asserts_a_member_of_the_tenant_it_names() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let viewer = acme.member_with_role("viewer").await;
    let asserted = |tenant: &str, uid: &str| site.internal().with("x-tenant-id", tenant).with("x-uid", uid);

    let roles = asserted(&acme.id, &viewer.uid).get("/api/v1/permissions/roles").await;
    let change = asserted("acme", &viewer.uid).post("/api/v1/permissions/roles", json!({"key": "editor"})).await;

    roles.done();
    assert_eq!(change.is(31_505_000).word(), "forbidden");
    assert_eq!(site.last_audit_entry().await["actor_kind"], "gateway");
    assert_eq!(asserted("acme", "x").get("/api/v1/permissions/roles").await.is(31_501_000).word(), "unauthenticated");
}

#[tokio::test]
async fn the_gateways_headers_are_ignored_without_the_internal_secret() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let viewer = acme.member_with_role("viewer").await;
    let owner = acme.owner().get("/me").await.data()["uid"].as_str().unwrap().to_owned();
    let asserted = site.nobody().with("x-uid", &owner).with("x-tenant-id", "acme");

    let alone = asserted.get("/api/v1/permissions/roles").await;
    let wrong = asserted.with("x-internal-secret", "wrong").get("/api/v1/permissions/roles").await;
    let beside_a_token =
        viewer.caller().with("x-uid", &owner).post("/api/v1/permissions/roles", json!({"key": "x1"})).await;

    assert_eq!(alone.is(31_501_000).word(), "unauthenticated");
    assert_eq!((wrong.is(31_501_000).word(), wrong.status), ("invalid_internal_secret", 401));
    assert_eq!(beside_a_token.is(31_505_000).word(), "forbidden");
}

#[tokio::test]
async fn an_asserted_member_has_no_rights_over_the_site() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let admin = site.admin().get("/me").await.data()["uid"].as_str().unwrap().to_owned();
    let asserted = |tenant: &str| site.internal().with("x-uid", &admin).with("x-tenant-id", tenant);

    for tenant in ["acme", "platform", "nowhere"] {
        let reply = asserted(tenant).get("/api/v1/permissions/roles").await;
        assert_eq!(reply.is(31_501_000).word(), "unknown_tenant", "{tenant}");
    }
    acme.link(&admin).await;
    assert_eq!(asserted("acme").get("/api/v1/permissions/roles").await.is(31_505_000).word(), "forbidden");
    assert_eq!(asserted("acme").get("/admin/members").await.is(29_501_000).word(), "unauthenticated");
}

#[tokio::test]
async fn a_suspended_member_cannot_be_asserted() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let viewer = acme.member_with_role("viewer").await;
    site.admin().post(&format!("/admin/members/{}/deactivate", viewer.uid), json!({})).await.done();

    let asserted = site.internal().with("x-tenant-id", "acme").with("x-uid", &viewer.uid);

    assert_eq!(asserted.get("/api/v1/permissions/roles").await.is(31_501_000).word(), "unauthenticated");
}
