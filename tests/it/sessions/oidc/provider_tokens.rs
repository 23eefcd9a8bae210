//! Keys and access tokens of a provider.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{AUDIENCE, BINDING, REDIRECT, audit_rows, lab, me, people, sign_in};
use crate::harness::callers::As;
use crate::harness::counterparts::Oidc;

// ── keys ──

#[tokio::test]
async fn a_new_key_of_the_provider_is_fetched_at_once_and_an_unknown_one_not_repeatedly() {
    let config = json!({"users": {"alice": {}}, "audience": AUDIENCE});
    let more = format!("audience = {AUDIENCE:?}");
    let (oidc, site) = lab(config, "auth.oidc_keys_retry_s = 3600", &more).await;
    sign_in(&oidc, &site, "alice").await.done();
    let asked = oidc.requests_to("/jwks").await;
    assert_eq!((asked, oidc.requests_to("/.well-known/openid-configuration").await), (1, 1));
    let old = oidc.tokens("roster", "alice", "openid").await["access_token"].as_str().expect("a token").to_owned();
    site.bearer(&old).get("/me").await.done();

    oidc.rotate_keys().await;
    sign_in(&oidc, &site, "alice").await.done();
    let new = oidc.tokens("roster", "alice", "openid").await["access_token"].as_str().expect("a token").to_owned();
    site.bearer(&new).get("/me").await.done();

    assert_eq!(oidc.requests_to("/jwks").await, asked + 1);
    // The keys were fetched a moment ago: a signature of the old key is refused without another request.
    for _ in 0..3 {
        assert_eq!(site.bearer(&old).get("/me").await.is(28_501_000).word(), "invalid_bearer_token");
    }
    assert_eq!(oidc.requests_to("/jwks").await, asked + 1);
    assert_eq!(oidc.requests_to("/.well-known/openid-configuration").await, 1);
}

#[tokio::test]
async fn the_provider_s_document_and_keys_are_fetched_again_after_their_cache_time() {
    let config = json!({"users": {"alice": {}}, "audience": AUDIENCE});
    let document = "/.well-known/openid-configuration";
    let until = async |oidc: &Oidc, path: &str, times: u64, caller: As<'_>, request: &str| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while oidc.requests_to(path).await < times {
            assert!(Instant::now() < deadline, "{path} was not requested again");
            caller.get(request).await;
        }
    };

    let (oidc, site) = lab(config.clone(), "auth.oidc_keys_ttl_s = 1", "").await;
    let request = format!("/auth/oidc/url?redirect_uri={REDIRECT}&binding={BINDING}");
    until(&oidc, document, 3, site.nobody(), &request).await;

    let (oidc, site) = lab(config, "auth.oidc_keys_retry_s = 1", &format!("audience = {AUDIENCE:?}")).await;
    let old = oidc.tokens("roster", "alice", "openid").await["access_token"].as_str().expect("a token").to_owned();
    oidc.rotate_keys().await;
    until(&oidc, "/jwks", 3, site.bearer(&old), "/me").await;
    assert_eq!(oidc.requests_to(document).await, 1);
}

// ── access tokens of the provider ──

#[tokio::test]
async fn an_access_token_of_the_provider_authenticates_and_creates_the_member_once() {
    let alice = json!({"email": "alice@example.org", "email_verified": true});
    let config = json!({"users": {"alice": alice}, "audience": AUDIENCE});
    let (oidc, site) = lab(config, "", &format!("audience = {AUDIENCE:?}")).await;
    let foreign = oidc.tokens("roster", "alice", "openid email").await["access_token"].as_str().expect("t").to_owned();
    let before = people(&site);

    let first = me(&site, &foreign).await;

    assert_eq!(people(&site), (before.0 + 1, before.1 + 1));
    let rows = audit_rows(&site);
    assert_eq!((&me(&site, &foreign).await["uid"], &first["sub"]), (&first["uid"], &json!("alice")));
    assert_eq!(audit_rows(&site), rows);
    // It authenticates until it expires; it cannot create anything that lives longer.
    let key = site.bearer(&foreign).post("/me/api-keys", json!({"name": "lasting"})).await;
    assert_eq!(key.is(32_505_000).word(), "forbidden");
    // The same person by a sign-in.
    let by_session = me(&site, &sign_in(&oidc, &site, "alice").await.access_token()).await;
    assert_eq!((&by_session["uid"], &by_session["email"]), (&first["uid"], &json!("alice@example.org")));

    let uid = first["uid"].as_str().expect("uid");
    site.admin().post(&format!("/admin/members/{uid}/deactivate"), json!({})).await.done();
    assert_eq!(site.bearer(&foreign).get("/me").await.is(28_501_000).word(), "invalid_bearer_token");
}

#[tokio::test]
async fn without_an_audience_no_access_token_of_a_provider_is_accepted() {
    let (oidc, site) = lab(json!({"users": {"alice": {}}, "audience": AUDIENCE}), "", "").await;
    let foreign = oidc.tokens("roster", "alice", "openid").await["access_token"].as_str().expect("t").to_owned();
    let before = people(&site);

    assert_eq!(site.bearer(&foreign).get("/me").await.is(28_501_000).word(), "invalid_bearer_token");

    assert_eq!(people(&site), before);
}

#[tokio::test]
async fn an_access_token_of_the_provider_does_not_bypass_the_second_factor() {
    let config = json!({"users": {"alice": {}, "bob": {}}, "audience": AUDIENCE});
    let more = format!("audience = {AUDIENCE:?}\norganization = \"acme\"");
    let (oidc, site) = lab(config, "", &more).await;
    let acme = site.organization("acme").await;
    let foreign = oidc.tokens("roster", "alice", "openid").await["access_token"].as_str().expect("t").to_owned();
    let uid = me(&site, &foreign).await["uid"].as_str().expect("uid").to_owned();

    // A second factor of the member's own.
    let rows = rusqlite::Connection::open(site.path().join("roster.db")).expect("the file");
    let sql = "insert into second_factors (member_id, secret, confirmed_at, created_at) values (?1, x'00', 1, 1)";
    rows.execute(sql, [uuid::Uuid::parse_str(&uid).expect("id").into_bytes().to_vec()]).expect("written");
    drop(rows);
    assert_eq!(site.bearer(&foreign).get("/me").await.is(28_501_000).word(), "second_factor_required");
    let reply = sign_in(&oidc, &site, "alice").await;
    assert_eq!(reply.is(28_501_000).word(), "second_factor_required");
    assert!(reply.body["challenge"].is_string());

    // A second factor that the organization requires, also for a new member.
    let asked = json!({"second_factor_required": true});
    site.admin().patch(&format!("/admin/organizations/{}", acme.id), asked).await.done();
    let foreign = oidc.tokens("roster", "bob", "openid").await["access_token"].as_str().expect("t").to_owned();
    assert_eq!(site.bearer(&foreign).get("/me").await.is(28_501_000).word(), "second_factor_required");
    let reply = sign_in(&oidc, &site, "bob").await;
    assert_eq!(reply.is(28_501_000).word(), "second_factor_enrolment_required");
}
