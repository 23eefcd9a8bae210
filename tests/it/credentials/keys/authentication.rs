//! Which API keys are accepted, as whom, and what only resembles one.

use reqwest::Method;
use roster::kernel::ids::Timestamp;
use roster::kernel::secret;
use serde_json::json;

use super::{hex, is_refused, key_of, me, own, plain, with};
use crate::harness::site::Site;

// ── authentication ──

#[tokio::test]
async fn a_key_authenticates_its_member_as_header_and_as_bearer() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member_with_role("viewer").await;
    let key = plain(&member).await;

    for path in ["/me", "/me/permissions/snapshot", "/api/v1/permissions/me"] {
        for caller in [with(&site, &key.text), site.bearer(&key.text)] {
            assert_eq!(caller.get(path).await.data()["uid"], json!(member.uid), "{path}");
        }
    }
    let seen = with(&site, &key.text).get("/api/v1/permissions/me").await.data();
    assert_eq!(seen, member.caller().get("/api/v1/permissions/me").await.data());
}

#[tokio::test]
async fn the_text_of_a_key_has_five_parts_and_is_stored_nowhere() {
    let site = Site::with("log.level = \"trace\"").await;
    let member = site.member().await;
    let made = member.caller().post("/me/api-keys", json!({"name": "laptop"})).await.data();
    let key = key_of(&made);
    me(&site, &key.text).await.done();

    let parts: Vec<&str> = key.text.split('_').collect();
    assert_eq!((parts.len(), parts[0], parts[1]), (5, "muser", key.id.replace('-', "").as_str()));
    let made_s: i64 = parts[2].parse().unwrap();
    assert!((Timestamp::now().0 / 1_000 - made_s).abs() < 60);
    assert!(parts[3].len() >= 43 && parts[3].bytes().all(|byte| byte.is_ascii_alphanumeric()), "{}", parts[3]);
    let (checked, checksum) = key.text.rsplit_once('_').unwrap();
    assert_eq!(checksum, &hex(&secret::hash(checked))[..8]);
    assert_eq!((&made["type"], &made["scopes"], &made["name"]), (&json!("muser"), &json!(["*"]), &json!("laptop")));
    for file in ["log", "roster.db", "roster.db-wal"] {
        let bytes = std::fs::read(site.path().join(file)).unwrap();
        assert!(!bytes.windows(parts[3].len()).any(|window| window == parts[3].as_bytes()), "{file}");
    }
}

#[tokio::test]
async fn the_client_key_header_makes_x_api_key_a_client_secret() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member_with_role("viewer").await;
    let key = plain(&member).await;
    let client = site.admin().post("/admin/api-clients", json!({"name": "office", "scopes": ["*"]})).await.data();
    let text = |name: &str| client[name].as_str().unwrap().to_owned();
    let (client_key, client_secret) = (text("client_key"), text("api_key"));
    let question = json!({"uid": member.uid, "permission": "roster.role.list"});
    let check = "/api/v1/permissions/check";

    // Together with a client key it is read as the client's secret and as nothing else.
    let both = with(&site, &key.text).with("x-client-key", &client_key);
    assert_eq!(both.post(check, question.clone()).await.word(), "invalid_api_key");
    assert_eq!(both.get("/me").await.is(28_501_000).word(), "missing_bearer_token");
    // Alone it is read as an API key, and a client's secret is not one.
    assert_eq!(with(&site, &key.text).post(check, question.clone()).await.data()["allow"], true);
    assert_eq!(with(&site, &client_secret).post(check, question.clone()).await.is(31_501_000).word(), "invalid_key");
    let right = with(&site, &client_secret).with("x-client-key", &client_key).with("x-tenant-id", "acme");
    assert_eq!(right.post(check, question).await.data()["allow"], true);
}

#[tokio::test]
async fn a_key_is_limited_to_its_scopes() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member_with_role("viewer").await;
    let reads = own(&member, json!({"name": "reads", "scopes": ["me:read"]})).await;
    let checks = own(&member, json!({"name": "checks", "scopes": ["permissions:check", "videos:write"]})).await;
    let question = json!({"uid": member.uid, "permission": "roster.role.list"});

    me(&site, &reads.text).await.done();
    with(&site, &checks.text).post("/api/v1/permissions/check", question.clone()).await.done();
    for path in ["/me", "/me/permissions/snapshot"] {
        assert_eq!(with(&site, &checks.text).get(path).await.is(32_505_000).word(), "scope_not_allowed", "{path}");
    }
    let own_rights = with(&site, &checks.text).get("/api/v1/permissions/me").await;
    assert_eq!(own_rights.is(31_505_000).word(), "scope_not_allowed");
    let asked = with(&site, &reads.text).post("/api/v1/permissions/check", question).await;
    assert_eq!(asked.is(31_505_000).word(), "scope_not_allowed");
}

#[tokio::test]
async fn a_key_never_exceeds_the_rights_of_its_member() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (plain_member, viewer) = (acme.member().await, acme.member_with_role("viewer").await);
    let question = json!({"uid": viewer.uid, "permission": "roster.role.list"});
    let key = plain(&plain_member).await;

    let refused = with(&site, &key.text).post("/api/v1/permissions/check", question.clone()).await;
    assert_eq!(refused.is(31_505_000).word(), "forbidden");
    let foreign = with(&site, &plain(&viewer).await.text).with("x-tenant-id", "platform");
    assert_eq!(foreign.post("/api/v1/permissions/check", question).await.word(), "organization_not_found");
}

#[tokio::test]
async fn a_key_neither_creates_nor_lists_keys() {
    let site = Site::start().await;
    let member = site.member().await;
    let key = plain(&member).await;
    let at = format!("/me/api-keys/{}", key.id);
    let of_member = format!("/admin/members/{}/api-keys", member.uid);

    for (method, path) in [
        (Method::GET, "/me/api-keys"),
        (Method::POST, "/me/api-keys"),
        (Method::DELETE, &at),
        (Method::POST, &format!("{at}/rotate")),
        (Method::GET, &of_member),
        (Method::POST, &of_member),
        (Method::GET, "/admin/api-keys"),
        (Method::PATCH, "/me"),
        (Method::GET, "/me/sessions"),
    ] {
        let body = Some(json!({"name": "another"}));
        let bearer = site.bearer(&key.text).send(method.clone(), path, body.clone()).await;
        assert_eq!((bearer.status, bearer.word()), (403, "forbidden"), "{path}");
        let header = with(&site, &key.text).send(method, path, body).await;
        assert_eq!((header.status, header.word()), (401, "missing_bearer_token"), "{path}");
    }
    me(&site, &key.text).await.done();
}

// ── invalid keys ──

#[tokio::test]
async fn forged_and_malformed_keys_are_refused() {
    let site = Site::start().await;
    let member = site.member().await;
    let key = plain(&member).await;
    let other = plain(&member).await;
    let parts: Vec<&str> = key.text.split('_').collect();
    let others: Vec<&str> = other.text.split('_').collect();
    // Correct in every part except the secret, with a valid checksum.
    let forged = format!("muser_{}_{}_{}", parts[1], parts[2], "0".repeat(64));
    let forged = format!("{forged}_{}", &hex(&secret::hash(&forged))[..8]);

    for (text, why) in [
        ("x", "a letter"),
        ("muser_", "its prefix"),
        ("muser____", "only underscores"),
        (&key.text[..key.text.len() - 1], "cut"),
        (&key.text[..key.text.len() - 9], "without its checksum"),
        (&key.text[1..], "without its first letter"),
        (&format!("{}0", key.text), "a digit too many"),
        (&format!("{}_0", key.text), "a part too many"),
        (&key.text.to_uppercase(), "another case"),
        (&key.text.replacen("muser", "msys", 1), "another type"),
        (&key.text.replacen(parts[1], others[1], 1), "another key's id"),
        (&key.text.replacen(parts[3], others[3], 1), "another key's secret"),
        (&forged, "a guessed secret"),
        (&format!("muser_{}", "0".repeat(250)), "as long as is looked at"),
        (&format!("muser_{}", "0".repeat(251)), "longer than is looked at"),
    ] {
        is_refused(&site, text, why).await;
        if text.contains('_') && text.starts_with('m') {
            assert_eq!(site.bearer(text).get("/me").await.is(32_501_000).word(), "invalid_key", "{why}");
        }
    }
    let mistyped = me(&site, &key.text.replacen(parts[3], &parts[3].replace(&parts[3][..1], "x"), 1)).await;
    assert!(mistyped.body["message"].as_str().unwrap().contains("mistyped"), "{mistyped:?}");
    me(&site, &key.text).await.done();
}
