//! Sign-in with OpenID Connect providers: a certified one, and one that misbehaves in every way.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use roster::kernel::authn::token::{StoredKey, new_key};
use roster::kernel::ids::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::counterparts::{CLIENT_SECRET, Oidc, query};
use crate::mapping::enforce;
use crate::site::{As, Organization, Reply, Site};
use crate::wasm_fixtures;

pub const REDIRECT: &str = "http://127.0.0.1:9/callback";
/// The binding value of the sign-ins in these tests, which no browser makes.
pub const BINDING: &str = "a-value-that-the-program-of-a-portal-keeps";
pub const AUDIENCE: &str = "https://roster.example.org";
const ZITADEL: &str = "urn:zitadel:iam:org:project:roles";

/// A file with the client's secret, which every command on a site's directory reads.
fn secret_file() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("oidc-client.secret");
        std::fs::write(
            &path,
            format!(
                "{CLIENT_SECRET}
"
            ),
        )
        .expect("written");
        path
    })
}

/// A block of settings; `more` are further lines of it.
pub fn block(name: &str, issuer: &str, more: &str) -> String {
    format!(
        "[[oidc]]\nname = {name:?}\nissuer = {issuer:?}\nclient_id = \"roster\"\nclient_secret_file = {:?}\n\
         redirect_uris = [{REDIRECT:?}]\n{more}\n",
        secret_file()
    )
}

/// A certified provider, and a site that is configured for it as `lab`.
async fn lab(mut config: Value, settings: &str, more: &str) -> (Oidc, Site) {
    config["clients"] = json!([{"client_id": "roster", "redirect_uris": [REDIRECT]}]);
    let oidc = Oidc::start(config);
    let site = Site::with(&format!("{settings}\n{}", block("lab", &oidc.issuer, more))).await;
    (oidc, site)
}

pub async fn authorize_url(site: &As<'_>, provider: &str) -> String {
    let path = format!("/auth/oidc/url?provider={provider}&redirect_uri={REDIRECT}&binding={BINDING}");
    site.get(&path).await.data()["authorize_url"].as_str().expect("a URL").to_owned()
}

pub fn returned(provider: &str, code: &str, state: &str) -> Value {
    json!({"provider": provider, "code": code, "state": state, "redirect_uri": REDIRECT, "binding": BINDING})
}

/// The parameters of the callback after `login` signed in at the provider.
async fn come_back(oidc: &Oidc, site: &Site, login: &str) -> Value {
    let url = authorize_url(&site.nobody(), "lab").await;
    let callback = oidc.sign_in(&url, login, REDIRECT).await;
    returned("lab", &query(&callback, "code").expect("a code"), &query(&callback, "state").expect("a state"))
}

async fn sign_in(oidc: &Oidc, site: &Site, login: &str) -> Reply {
    site.nobody().post("/auth/oidc/exchange", come_back(oidc, site, login).await).await
}

pub fn token(reply: &Reply) -> String {
    reply.data()["access_token"].as_str().expect("a token").to_owned()
}

pub async fn me(site: &Site, token: &str) -> Value {
    site.bearer(token).get("/me").await.data()
}

/// The numbers of members and identities.
pub fn people(site: &Site) -> (i64, i64) {
    let count = |table: &str| {
        site.rows().query_row(&format!("select count(*) from {table}"), [], |row| row.get(0)).expect("a number")
    };
    (count("members"), count("identities"))
}

fn audit_rows(site: &Site) -> i64 {
    site.rows().query_row("select count(*) from audit", [], |row| row.get(0)).expect("a number")
}

pub async fn map(organization: &Organization<'_>, source: &str, external_key: &str, role_key: &str) {
    let body = json!({"external_source": source, "external_key": external_key, "internal_role_key": role_key});
    organization.admin().put("/api/v1/permissions/role-mappings", body).await.done();
}

/// The roles that a member holds in an organization, as `source:key`.
pub async fn roles(organization: &Organization<'_>, uid: &Value) -> Vec<String> {
    let path = format!("/api/v1/permissions/users/{}/roles", uid.as_str().expect("uid"));
    let held = organization.admin().get(&path).await.data()["user_roles"].as_array().expect("roles").clone();
    let text = |role: &Value, name: &str| role[name].as_str().expect("text").to_owned();
    let mut found: Vec<String> =
        held.iter().map(|role| format!("{}:{}", text(role, "source"), text(role, "role_key"))).collect();
    found.sort();
    found
}

// ── a complete sign-in ──

#[tokio::test]
async fn repeated_sign_ins_with_a_provider_lead_to_the_same_member() {
    for alg in ["RS256", "ES256", "EdDSA"] {
        let alice = json!({"email": "alice@example.org", "email_verified": true, "name": "Alice 測試", "preferred_username": "alice"});
        let (oidc, site) = lab(json!({"alg": alg, "users": {"alice": alice}}), "", "").await;
        let url = authorize_url(&site.nobody(), "lab").await;
        assert_eq!(query(&url, "code_challenge_method").as_deref(), Some("S256"));
        assert_eq!(query(&url, "scope").as_deref(), Some("openid profile email"));
        assert!(query(&url, "nonce").is_some_and(|nonce| nonce.len() == 43));
        let before = people(&site);

        let back = come_back(&oidc, &site, "alice").await;
        let reply = site.nobody().post("/auth/oidc/exchange", back.clone()).await;

        let tokens = reply.data();
        assert_eq!((&tokens["token_type"], &tokens["expires_in"]), (&json!("Bearer"), &json!(600)));
        assert_eq!(
            (&tokens["provider_access_token"], &tokens["scope"]),
            (&Value::Null, &json!("openid profile email"))
        );
        let member = me(&site, &token(&reply)).await;
        assert_eq!(
            (&member["email"], &member["display_name"], &member["username"]),
            (&json!("alice@example.org"), &json!("Alice 測試"), &json!("alice"))
        );
        assert_eq!(member["organizations"], json!([]));
        assert_eq!(people(&site), (before.0 + 1, before.1 + 1));
        let sessions = site.bearer(&token(&reply)).get("/me/sessions").await.data();
        assert_eq!(sessions["items"][0]["method"], "oidc lab");

        // The same state and code again, and then a new sign-in of the same person.
        let replayed = site.nobody().post("/auth/oidc/exchange", back).await;
        assert_eq!(replayed.is(28_501_000).word(), "invalid_state");
        let mut again = come_back(&oidc, &site, "alice").await;
        again["with_provider_token"] = json!(true);
        let again = site.nobody().post("/auth/oidc/exchange", again).await;
        assert!(again.data()["provider_access_token"].as_str().is_some_and(|token| token.len() > 20));
        assert_eq!(me(&site, &token(&again)).await["uid"], member["uid"]);
        assert_eq!(people(&site), (before.0 + 1, before.1 + 1));
        let refresh = json!({"refresh_token": tokens["refresh_token"], "session_id": tokens["session_id"]});
        site.nobody().post("/auth/refresh", refresh).await.done();
    }
}

#[tokio::test]
async fn the_only_provider_need_not_be_named_and_authentik_uses_the_existing_identities() {
    let oidc =
        Oidc::start(json!({"clients": [{"client_id": "roster", "redirect_uris": [REDIRECT]}], "users": {"alice": {}}}));
    let site = Site::with(&block("authentik", &oidc.issuer, "")).await;
    let made = site.admin().post("/admin/members", json!({"username": "al", "authentik_sub": "alice"})).await.data();

    let path = format!("/auth/oidc/url?redirect_uri={REDIRECT}&binding={BINDING}");
    let url = site.nobody().get(&path).await.data()["authorize_url"].as_str().expect("a URL").to_owned();
    let callback = oidc.sign_in(&url, "alice", REDIRECT).await;
    let mut body = returned("", &query(&callback, "code").expect("code"), &query(&callback, "state").expect("state"));
    body.as_object_mut().expect("a body").remove("provider");
    let reply = site.nobody().post("/auth/oidc/exchange", body).await;

    assert_eq!(me(&site, &token(&reply)).await["uid"], made["uid"]);
}

#[tokio::test]
async fn cookies_are_set_on_request() {
    let (oidc, site) = lab(json!({"users": {"alice": {}}}), "", "").await;
    let mut back = come_back(&oidc, &site, "alice").await;
    back["cookies"] = json!(true);

    let foreign = site.nobody().with("origin", "https://evil.example").with("sec-fetch-site", "cross-site");
    assert_eq!(foreign.post("/auth/oidc/exchange", back.clone()).await.is(28_505_000).word(), "cross_site");
    let reply = site.nobody().post("/auth/oidc/exchange", back).await;

    let cookies: Vec<&str> = reply.headers.get_all("set-cookie").iter().filter_map(|c| c.to_str().ok()).collect();
    assert!(reply.data()["session_id"].is_string());
    for name in ["access_token=", "refresh_token=", "session_id="] {
        assert!(cookies.iter().any(|cookie| cookie.starts_with(name) && cookie.contains("HttpOnly")), "{cookies:?}");
    }
}

// ── identification ──

#[tokio::test]
async fn an_e_mail_links_no_member_and_is_stored_only_when_it_is_verified() {
    let users = json!({
        "unproved": {"email": "a@example.org", "email_verified": false, "preferred_username": "not a username"},
        "taken": {"email": "Kim@example.org", "email_verified": true, "preferred_username": "KIM"},
    });
    let (oidc, site) = lab(json!({"users": users}), "", "").await;
    let kim = site.admin().post("/admin/members", json!({"username": "kim", "email": "kim@example.org"})).await.data();

    for login in ["unproved", "taken"] {
        let member = me(&site, &token(&sign_in(&oidc, &site, login).await)).await;
        assert_ne!(member["uid"], kim["uid"]);
        assert_eq!((&member["email"], &member["username"]), (&Value::Null, &Value::Null), "{login}");
    }
}

#[tokio::test]
async fn userinfo_fills_empty_fields_and_overwrites_nothing() {
    let alice = json!({"email": "alice@example.org", "email_verified": true, "name": "Alice"});
    let (oidc, site) = lab(json!({"users": {"alice": {}}, "claims_in_id_token": false}), "", "").await;
    let first = token(&sign_in(&oidc, &site, "alice").await);
    assert_eq!(me(&site, &first).await["email"], Value::Null);
    site.bearer(&first).patch("/me", json!({"display_name": "Mine"})).await.done();

    oidc.set_user("alice", alice).await;
    let member = me(&site, &token(&sign_in(&oidc, &site, "alice").await)).await;

    assert_eq!((&member["email"], &member["display_name"]), (&json!("alice@example.org"), &json!("Mine")));
    assert_eq!(site.last_audit_entry().await["action"], "session.create");
    let filled: String = site
        .rows()
        .query_row("select after from audit where action = 'member.arrive' order by id desc", [], |row| row.get(0))
        .expect("an entry");
    assert_eq!(serde_json::from_str::<Value>(&filled).expect("JSON"), json!({"provider": "lab", "filled": ["email"]}));
}

#[tokio::test]
async fn a_suspended_member_is_refused_like_at_every_sign_in() {
    let (oidc, site) = lab(json!({"users": {"alice": {}}}), "", "").await;
    let first = token(&sign_in(&oidc, &site, "alice").await);
    let uid = me(&site, &first).await["uid"].as_str().expect("uid").to_owned();
    site.admin().post(&format!("/admin/members/{uid}/deactivate"), json!({})).await.done();
    oidc.set_user("alice", json!({"name": "Alice"})).await;

    let reply = sign_in(&oidc, &site, "alice").await;

    assert_eq!(reply.is(28_501_000).word(), "invalid_login");
    let name = site.admin().get(&format!("/admin/members/{uid}")).await.data()["display_name"].clone();
    assert_eq!(name, Value::Null);
}

#[tokio::test]
async fn the_limit_on_members_holds_for_sign_ins_at_it_and_one_past_it() {
    let users = json!({"alice": {}, "bob": {}});
    // The administrator is one of the two.
    let (oidc, site) = lab(json!({"users": users}), "limits.members = 2", "").await;

    sign_in(&oidc, &site, "alice").await.done();
    let before = people(&site);
    let reply = sign_in(&oidc, &site, "bob").await;

    assert_eq!(reply.is(29_309_000).word(), "site_full");
    assert_eq!(people(&site), before);
    sign_in(&oidc, &site, "alice").await.done();
}

// ── roles ──

#[tokio::test]
async fn roles_follow_the_claims_of_every_form_at_every_sign_in() {
    let more = format!("organization = \"acme\"\nrole_claims = [\"groups\", {ZITADEL:?}, \"team\"]");
    let alice =
        json!({"groups": ["staff", "unknown"], ZITADEL: {"admin": {"1001": "acme.example.org"}}, "team": "film"});
    let (oidc, site) = lab(json!({"users": {"alice": alice}}), "", &more).await;
    let acme = site.organization("acme").await;
    for (key, permissions) in [("staffer", &["roster.role.list"][..]), ("admin", &[]), ("filmer", &[]), ("manual", &[])]
    {
        acme.role(key, permissions).await;
    }
    map(&acme, "oidc", "staff", "staffer").await;
    map(&acme, "oidc", "film", "filmer").await;
    map(&acme, "zitadel", "admin", "admin").await;
    map(&acme, "ldap", "staff", "manual").await;

    let first = token(&sign_in(&oidc, &site, "alice").await);
    let uid = me(&site, &first).await["uid"].clone();
    acme.assign(uid.as_str().expect("uid"), &acme.role_id("manual").await).await;

    let all = ["manual:manual", "oidc:filmer", "oidc:staffer", "zitadel:admin"];
    assert_eq!(roles(&acme, &uid).await, all);
    site.bearer(&first).get("/api/v1/permissions/roles").await.done();
    let entry: (String, String) = site
        .rows()
        .query_row(
            "select actor, after from audit where action = 'member.arrive' and after like '%zitadel%'",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .expect("an entry");
    assert_eq!(
        entry,
        (uid.as_str().expect("uid").to_owned(), r#"{"added":["admin"],"removed":[],"source":"zitadel"}"#.to_owned())
    );

    // Nothing changed, so only the session is recorded.
    let before = audit_rows(&site);
    sign_in(&oidc, &site, "alice").await.done();
    assert_eq!(audit_rows(&site), before + 1);

    // A role that the provider removes is gone in the next request of an existing session.
    oidc.set_user("alice", json!({"groups": [], "team": "film"})).await;
    sign_in(&oidc, &site, "alice").await.done();
    assert_eq!(roles(&acme, &uid).await, ["manual:manual", "oidc:filmer"]);
    assert_eq!(site.bearer(&first).get("/api/v1/permissions/roles").await.status, 403);
}

#[tokio::test]
async fn a_mapping_never_makes_an_owner_and_a_missing_organization_prevents_no_sign_in() {
    let more = "organization = \"acme\"\nrole_claims = [\"groups\"]";
    let (oidc, site) = lab(json!({"users": {"alice": {"groups": ["tenant_owner", "staff"]}}}), "", more).await;

    let member = me(&site, &token(&sign_in(&oidc, &site, "alice").await)).await;
    assert_eq!(member["organizations"], json!([]));
    let acme = site.organization("acme").await;
    let owner = json!({"external_source": "oidc", "external_key": "staff", "internal_role_key": "tenant_owner"});
    assert_eq!(acme.admin().put("/api/v1/permissions/role-mappings", owner).await.status, 409);
    sign_in(&oidc, &site, "alice").await.done();

    assert_eq!(roles(&acme, &member["uid"]).await, [""; 0]);
}

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
    let by_session = me(&site, &token(&sign_in(&oidc, &site, "alice").await)).await;
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

// ── invalid requests ──

#[tokio::test]
async fn a_redirect_uri_is_compared_exactly() {
    let (oidc, site) = lab(json!({"users": {"alice": {}}}), "", "").await;
    let good = come_back(&oidc, &site, "alice").await;

    for wrong in [
        "http://127.0.0.1:9/callback/",
        "http://127.0.0.1:9/Callback",
        "HTTP://127.0.0.1:9/callback",
        "http://127.0.0.1:9/callback?x=1",
        "http://127.0.0.1:9/callback%23",
        "http://127.0.0.1:9/callback.evil.example",
        "http://127.0.0.1:9@evil.example/callback",
        "http://evil.example@127.0.0.1:9/callback",
        "http://127.0.0.1:90/callback",
        "http://127.0.0.1:9/x/../callback",
        "http://localhost:9/callback",
        "//127.0.0.1:9/callback",
        "http://127.0.0.1:9/callbac",
        "",
    ] {
        let asked = site.nobody().get(&format!("/auth/oidc/url?provider=lab&redirect_uri={wrong}")).await;
        assert_eq!(asked.is(10_101_000).fields(), ["query.redirect_uri"], "{wrong}");
        let mut body = good.clone();
        body["redirect_uri"] = json!(wrong);
        let reply = site.nobody().post("/auth/oidc/exchange", body).await;
        assert_eq!(reply.is(10_101_000).fields(), ["body.redirect_uri"], "{wrong}");
    }
    site.nobody().post("/auth/oidc/exchange", good).await.done();
}

#[tokio::test]
async fn an_unknown_provider_is_refused() {
    let site = Site::start().await;
    let none = site.nobody().get(&format!("/auth/oidc/url?redirect_uri={REDIRECT}")).await;
    assert_eq!(none.is(28_605_000).word(), "not_configured");
    let exchanged = site.nobody().post("/auth/oidc/exchange", returned("lab", "c", "s")).await;
    assert_eq!(exchanged.is(28_605_000).word(), "not_configured");

    let blocks = ["lab", "other"].map(|name| block(name, &format!("http://127.0.0.1:9/{name}"), ""));
    let site = Site::with(&blocks.concat()).await;
    let unknown = site.nobody().get(&format!("/auth/oidc/url?provider=x&redirect_uri={REDIRECT}")).await;
    assert_eq!(unknown.is(28_301_000).word(), "unknown_provider");
    let which = site.nobody().get(&format!("/auth/oidc/url?redirect_uri={REDIRECT}")).await;
    assert_eq!(which.is(10_101_000).fields(), ["query.provider"]);
    let which =
        site.nobody().post("/auth/oidc/exchange", json!({"code": "c", "state": "s", "redirect_uri": REDIRECT})).await;
    assert_eq!(which.is(10_101_000).fields(), ["body.provider"]);
}

#[tokio::test]
async fn a_state_is_valid_once_and_for_its_provider() {
    let oidc =
        Oidc::start(json!({"clients": [{"client_id": "roster", "redirect_uris": [REDIRECT]}], "users": {"alice": {}}}));
    let other = format!("http://localhost:{}", oidc.issuer.rsplit(':').next().expect("a port"));
    let settings = format!("{}{}", block("lab", &oidc.issuer, ""), block("other", &other, ""));
    let site = Site::with(&settings).await;
    let exchange = async |body: Value| site.nobody().post("/auth/oidc/exchange", body).await;
    let before = people(&site);
    let state = query(&authorize_url(&site.nobody(), "lab").await, "state").expect("a state");

    let mut changed = state.clone().into_bytes();
    changed[0] = if changed[0] == b'A' { b'B' } else { b'A' };
    for wrong in
        ["x", "", &state[1..], &format!("{state}A"), std::str::from_utf8(&changed).expect("text"), &"A".repeat(512)]
    {
        let reply = exchange(returned("lab", "code", wrong)).await;
        assert_eq!(reply.status, if wrong.is_empty() { 400 } else { 401 }, "{wrong}");
        assert_eq!(reply.word(), if wrong.is_empty() { "bad_input" } else { "invalid_state" });
    }
    assert_eq!(exchange(returned("lab", "code", &"A".repeat(513))).await.is(10_101_000).fields(), ["body.state"]);
    assert_eq!(exchange(returned("other", "code", &state)).await.is(28_501_000).word(), "invalid_state");

    // A code that the provider refuses consumes the state.
    let state = query(&authorize_url(&site.nobody(), "lab").await, "state").expect("a state");
    assert_eq!(exchange(returned("lab", "no-code", &state)).await.is(28_501_000).word(), "oidc_refused");
    assert_eq!(exchange(returned("lab", "no-code", &state)).await.is(28_501_000).word(), "invalid_state");

    assert_eq!(people(&site), before);
}

#[tokio::test]
async fn at_most_one_of_many_exchanges_of_one_state_succeeds() {
    let (oidc, site) = lab(json!({"users": {"alice": {}}}), "", "").await;
    let back = come_back(&oidc, &site, "alice").await;

    let nobody = site.nobody();
    let replies =
        futures_util::future::join_all((0..6).map(|_| nobody.post("/auth/oidc/exchange", back.clone()))).await;

    let (well, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 200);
    assert_eq!((well.len(), refused.len()), (1, 5));
    assert!(refused.iter().all(|reply| reply.word() == "invalid_state"));
}

/// Begins a sign-in. Returns the cookie that was set, and the parameters of the provider's callback, without a binding.
async fn begin(oidc: &Oidc, caller: As<'_>, binding: Option<&str>) -> (Option<String>, Value) {
    let binding = binding.map_or_else(String::new, |value| format!("&binding={value}"));
    let reply = caller.get(&format!("/auth/oidc/url?provider=lab&redirect_uri={REDIRECT}{binding}")).await;
    let cookie = reply.header("set-cookie").map(|line| line.split(';').next().expect("a pair").to_owned());
    let url = reply.data()["authorize_url"].as_str().expect("a URL").to_owned();
    let callback = oidc.sign_in(&url, "alice", REDIRECT).await;
    let mut back =
        returned("lab", &query(&callback, "code").expect("code"), &query(&callback, "state").expect("state"));
    back.as_object_mut().expect("a body").remove("binding");
    (cookie, back)
}

async fn is_refused(caller: As<'_>, back: &Value, binding: Option<&str>) {
    let mut back = back.clone();
    if let Some(value) = binding {
        back["binding"] = json!(value);
    }
    let reply = caller.post("/auth/oidc/exchange", back).await;
    assert_eq!(reply.is(28_501_000).word(), "invalid_state");
}

#[tokio::test]
async fn a_sign_in_is_bound_to_the_browser_that_began_it() {
    let (oidc, site) = lab(json!({"users": {"alice": {}}}), "", "").await;
    let browser = || site.nobody().with("sec-fetch-site", "same-origin");

    let (cookie, back) = begin(&oidc, browser(), None).await;
    let cookie = cookie.expect("a cookie");
    assert!(cookie.starts_with("oidc_state="), "{cookie}");
    let value = cookie.strip_prefix("oidc_state=").expect("a value");
    let (others, _) = begin(&oidc, browser(), None).await;
    let others = others.expect("a cookie");
    for binding in [None, Some(value), Some(BINDING)] {
        is_refused(browser(), &back, binding).await;
        is_refused(site.nobody(), &back, binding).await;
        is_refused(browser().with("cookie", &others), &back, binding).await;
        is_refused(browser().with("cookie", "oidc_state=x"), &back, binding).await;
    }
    // A second tab does not invalidate the sign-in of the first.
    let (again, second) = begin(&oidc, browser().with("cookie", &cookie), None).await;
    assert_eq!(again.as_ref(), Some(&cookie));
    browser().with("cookie", &cookie).post("/auth/oidc/exchange", back).await.done();
    browser().with("cookie", &cookie).post("/auth/oidc/exchange", second).await.done();
}

#[tokio::test]
async fn without_a_cookie_a_sign_in_is_bound_by_a_value_of_its_caller() {
    let settings = "cors.origins = [\"https://portal.example.net\"]";
    let (oidc, site) = lab(json!({"users": {"alice": {}}}), settings, "").await;
    let page = |fetch_site: &str, origin: &str| site.nobody().with("sec-fetch-site", fetch_site).with("origin", origin);
    let (portal, other) = ("https://portal.example.net", "https://evil.example");
    let unbound = format!("/auth/oidc/url?provider=lab&redirect_uri={REDIRECT}");

    // A page of another site, listed or not, and a client that is not a browser or an old one.
    for caller in [page("cross-site", portal), page("cross-site", other), page("", other), site.nobody()] {
        let refused = caller.get(&unbound).await;
        assert_eq!(refused.is(10_101_000).fields(), ["query.binding"]);
        assert_eq!(refused.header("set-cookie"), None);

        let (none, back) = begin(&oidc, caller.clone(), Some(BINDING)).await;
        assert_eq!(none, None);
        // In another browser or program the callback is of no use.
        let another = format!("{BINDING}-of-somebody-else");
        for binding in [None, Some(another.as_str()), Some(&BINDING[1..])] {
            is_refused(caller.clone(), &back, binding).await;
            is_refused(site.nobody(), &back, binding).await;
            let victim = || site.nobody().with("sec-fetch-site", "same-origin");
            is_refused(victim(), &back, binding).await;
            is_refused(victim().with("cookie", &format!("oidc_state={BINDING}")), &back, binding).await;
        }
        let mut bound = back;
        bound["binding"] = json!(BINDING);
        caller.post("/auth/oidc/exchange", bound).await.done();
    }

    // A caller that keeps cookies may still bind by a value, and then gets no cookie.
    let own = site.nobody().with("sec-fetch-site", "same-origin");
    let (none, mut back) = begin(&oidc, own.clone(), Some(BINDING)).await;
    assert_eq!(none, None);
    is_refused(own.clone(), &back, None).await;
    back["binding"] = json!(BINDING);
    own.post("/auth/oidc/exchange", back).await.done();
}

#[tokio::test]
async fn a_binding_holds_at_its_limits_and_not_one_past_them() {
    let (_oidc, site) = lab(json!({"users": {"alice": {}}}), "", "").await;
    let begun = async |length: usize| {
        let value = "x".repeat(length);
        site.nobody().get(&format!("/auth/oidc/url?redirect_uri={REDIRECT}&binding={value}")).await
    };
    let ended = async |length: usize| {
        let mut back = returned("lab", "code", "state");
        back["binding"] = json!("x".repeat(length));
        site.nobody().post("/auth/oidc/exchange", back).await
    };
    for length in [32, 128] {
        begun(length).await.done();
        assert_eq!(ended(length).await.word(), "invalid_state");
    }
    for length in [0, 31, 129] {
        assert_eq!(begun(length).await.is(10_101_000).fields(), ["query.binding"], "{length}");
        assert_eq!(ended(length).await.is(10_101_000).fields(), ["body.binding"], "{length}");
    }
}

// ── a provider that misbehaves in every way ──

#[derive(Clone)]
pub enum Behaviour {
    Json(Value),
    Raw(u16, &'static str, Vec<u8>),
    /// Accepts the request and never answers.
    Silence,
}

/// A provider that answers as configured, path by path.
pub struct Rogue {
    pub issuer: String,
    pub key: StoredKey,
    answers: Arc<Mutex<HashMap<String, Behaviour>>>,
}

impl Rogue {
    /// Starts as a correct provider with an EdDSA key.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let issuer = format!("http://{}", listener.local_addr().expect("an address"));
        let answers: Arc<Mutex<HashMap<String, Behaviour>>> = Arc::default();
        let shared = answers.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        let rogue = Self { issuer, key: new_key().expect("a key"), answers };
        rogue.set("/.well-known/openid-configuration", Behaviour::Json(rogue.document()));
        rogue.set("/jwks", Behaviour::Json(json!({"keys": [rogue.jwk(&rogue.key)]})));
        rogue
    }

    pub fn set(&self, path: &str, behaviour: Behaviour) {
        self.answers.lock().expect("lock").insert(path.to_owned(), behaviour);
    }

    pub fn document(&self) -> Value {
        let at = |path: &str| format!("{}/{path}", self.issuer);
        json!({
            "issuer": self.issuer, "authorization_endpoint": at("auth"), "token_endpoint": at("token"),
            "jwks_uri": at("jwks"), "userinfo_endpoint": at("me"), "response_types_supported": ["code"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["EdDSA", "HS256", "none"],
        })
    }

    pub fn jwk(&self, key: &StoredKey) -> Value {
        let x = URL_SAFE_NO_PAD.encode(&key.public_key);
        json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key.id, "x": x})
    }

    pub fn claims(&self, nonce: &str) -> Value {
        let now_s = Timestamp::now().0 / 1_000;
        json!({"iss": self.issuer, "aud": "roster", "sub": "eve", "iat": now_s, "exp": now_s + 60, "nonce": nonce})
    }

    pub fn signed(&self, key: &StoredKey, claims: &Value) -> String {
        let header = Header { kid: Some(self.key.id.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_ed_der(&key.private_key)).expect("a token")
    }

    /// Sets the next response of the token endpoint.
    pub fn give(&self, id_token: &str) {
        let answer = json!({"access_token": "opaque", "token_type": "Bearer", "expires_in": 60, "id_token": id_token});
        self.set("/token", Behaviour::Json(answer));
    }

    pub async fn site(&self, settings: &str, more: &str) -> Site {
        let relaxed = "neighbours.timeout_ms = 1000\nneighbours.failures = 1000\nneighbours.answer_bytes = 65536";
        Site::with(&format!("{relaxed}\n{settings}\n{}", block("lab", &self.issuer, more))).await
    }
}

async fn serve(mut stream: tokio::net::TcpStream, answers: Arc<Mutex<HashMap<String, Behaviour>>>) {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    let path = loop {
        let Ok(read @ 1..) = stream.read(&mut piece).await else { return };
        request.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            break head.split(' ').nth(1).expect("a path").to_owned();
        }
    };
    let behaviour = answers.lock().expect("lock").get(&path).cloned();
    let (status, kind, body) = match behaviour {
        Some(Behaviour::Json(value)) => (200, "application/json", value.to_string().into_bytes()),
        Some(Behaviour::Raw(status, kind, body)) => (status, kind, body),
        Some(Behaviour::Silence) => {
            tokio::time::sleep(Duration::from_secs(30)).await;
            return;
        }
        None => (404, "text/plain", b"not found".to_vec()),
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nlocation: /elsewhere\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(&[head.into_bytes(), body].concat()).await;
    let _ = stream.shutdown().await;
}

/// Far shorter than the provider's silence and than several consecutive timeouts.
const WAIT_MAX: Duration = Duration::from_secs(10);

fn html() -> Behaviour {
    Behaviour::Raw(200, "text/html", b"<html>Maintenance</html>".to_vec())
}

/// Begins a sign-in, makes `id_token` for its nonce, and completes it.
pub async fn exchanged(rogue: &Rogue, site: &Site, id_token: impl FnOnce(&str) -> String) -> Reply {
    let url = authorize_url(&site.nobody(), "lab").await;
    let (nonce, state) = (query(&url, "nonce").expect("a nonce"), query(&url, "state").expect("a state"));
    rogue.give(&id_token(&nonce));
    site.nobody().post("/auth/oidc/exchange", returned("lab", "code", &state)).await
}

#[tokio::test]
async fn an_id_token_is_accepted_only_when_every_part_is_valid() {
    let rogue = Rogue::start().await;
    let site = rogue.site("", "").await;
    let before = people(&site);
    let other = new_key().expect("a key");
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let by_secret = |secret: &[u8], claims: &Value| {
        let header = Header { kid: Some(rogue.key.id.clone()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret)).expect("a token")
    };
    let now_s = Timestamp::now().0 / 1_000;

    let changes: [(&str, Value); 13] = [
        ("iss", json!(format!("{}/", rogue.issuer))),
        ("iss", json!("https://id.example.org")),
        ("aud", json!("another")),
        ("aud", json!(["another"])),
        ("aud", json!(["roster", "another"])),
        ("azp", json!("another")),
        ("nonce", json!("another")),
        ("nonce", Value::Null),
        ("exp", json!(now_s - 1)),
        ("nbf", json!(now_s + 40)),
        ("sub", json!("")),
        ("sub", json!("x".repeat(256))),
        ("sub", json!("a\nb")),
    ];
    for (name, value) in changes {
        let reply = exchanged(&rogue, &site, |nonce| {
            let mut claims = rogue.claims(nonce);
            claims[name] = value.clone();
            rogue.signed(&rogue.key, &claims)
        })
        .await;
        assert_eq!(reply.is(28_501_000).word(), "oidc_refused", "{name} {value}");
    }
    type Forger<'f> = Box<dyn Fn(&str) -> String + 'f>;
    let forged: [(&str, Forger<'_>); 4] = [
        ("another key", Box::new(|nonce| rogue.signed(&other, &rogue.claims(nonce)))),
        ("alg none", Box::new(|nonce| format!("{}.{}.", part(&json!({"alg": "none"})), part(&rogue.claims(nonce))))),
        ("HS256 by the public key", Box::new(|nonce| by_secret(&rogue.key.public_key, &rogue.claims(nonce)))),
        ("HS256 by the client's secret", Box::new(|nonce| by_secret(CLIENT_SECRET.as_bytes(), &rogue.claims(nonce)))),
    ];
    for (what, token) in forged {
        let reply = exchanged(&rogue, &site, token).await;
        assert_eq!(reply.is(28_501_000).word(), "oidc_refused", "{what}");
    }
    assert_eq!(people(&site), before);

    for (name, value) in [("azp", json!("roster")), ("nbf", json!(now_s - 5)), ("sub", json!("x".repeat(255)))] {
        let reply = exchanged(&rogue, &site, |nonce| {
            let mut claims = rogue.claims(nonce);
            claims["aud"] = if name == "azp" { json!(["roster", "another"]) } else { json!("roster") };
            claims[name] = value;
            rogue.signed(&rogue.key, &claims)
        })
        .await;
        reply.done();
    }
}

#[tokio::test]
async fn a_provider_that_misbehaves_before_a_sign_in_causes_a_clear_error_within_the_timeout() {
    let rogue = Rogue::start().await;
    let site = rogue.site("", "").await;
    let before = people(&site);
    let path = "/.well-known/openid-configuration";
    let changed = |name: &str, value: Value| {
        let mut document = rogue.document();
        document[name] = value;
        Behaviour::Json(document)
    };
    let huge = Behaviour::Raw(200, "application/json", vec![b' '; 65_537]);
    let wrong = [
        (path, Behaviour::Silence),
        (path, html()),
        (path, huge.clone()),
        (path, Behaviour::Raw(500, "application/json", b"{}".to_vec())),
        (path, Behaviour::Raw(302, "text/plain", Vec::new())),
        (path, Behaviour::Raw(200, "application/json", b"{".to_vec())),
        (path, changed("issuer", json!("https://id.example.org"))),
        (path, changed("issuer", json!(format!("{}/", rogue.issuer)))),
        (path, changed("token_endpoint", Value::Null)),
        (path, changed("token_endpoint", json!("http://evil.example/token"))),
        (path, changed("jwks_uri", json!("http://evil.example/jwks"))),
        (path, changed("userinfo_endpoint", json!("ftp://127.0.0.1/me"))),
        (path, changed("authorization_endpoint", json!("javascript:alert(1)"))),
        ("/jwks", Behaviour::Silence),
        ("/jwks", html()),
        ("/jwks", huge),
    ];
    for (n, (path, behaviour)) in wrong.into_iter().enumerate() {
        let good = rogue.answers.lock().expect("lock").get(path).cloned().expect("an answer");
        rogue.set(path, behaviour);
        let began = Instant::now();
        let reply = site.nobody().get(&format!("/auth/oidc/url?redirect_uri={REDIRECT}&binding={BINDING}")).await;
        assert_eq!(reply.is(28_602_000).word(), "neighbour_failed", "{n}");
        assert!(began.elapsed() < WAIT_MAX, "{n}");
        rogue.set(path, good);
    }
    assert_eq!(people(&site), before);
    authorize_url(&site.nobody(), "lab").await;
}

#[tokio::test]
async fn a_provider_that_misbehaves_during_a_sign_in_causes_a_clear_error_and_creates_no_member() {
    let rogue = Rogue::start().await;
    let site = rogue.site("", "").await;
    let before = people(&site);
    let refusal = |word: &str| Behaviour::Raw(400, "application/json", json!({"error": word}).to_string().into_bytes());
    for (behaviour, code, word) in [
        (Behaviour::Silence, 28_602_000, "neighbour_failed"),
        (html(), 28_602_000, "neighbour_failed"),
        (Behaviour::Raw(200, "application/json", vec![b' '; 65_537]), 28_602_000, "neighbour_failed"),
        (
            Behaviour::Raw(503, "application/json", b"{\"error\":\"invalid_grant\"}".to_vec()),
            28_602_000,
            "neighbour_failed",
        ),
        (Behaviour::Raw(400, "text/html", b"<html>".to_vec()), 28_602_000, "neighbour_failed"),
        (Behaviour::Json(json!({"access_token": "x", "token_type": "Bearer"})), 28_602_000, "neighbour_failed"),
        (
            Behaviour::Json(json!({"access_token": "x", "token_type": "Bearer", "id_token": "x.y.z"})),
            28_602_000,
            "neighbour_failed",
        ),
        (refusal("invalid_client"), 28_602_000, "neighbour_failed"),
        (refusal("invalid_grant"), 28_501_000, "oidc_refused"),
    ] {
        let state = query(&authorize_url(&site.nobody(), "lab").await, "state").expect("a state");
        rogue.set("/token", behaviour);
        let began = Instant::now();
        let reply = site.nobody().post("/auth/oidc/exchange", returned("lab", "code", &state)).await;
        assert_eq!(reply.is(code).word(), word);
        assert!(began.elapsed() < WAIT_MAX);
        assert!(!site.log().contains(CLIENT_SECRET));
    }
    assert_eq!(people(&site), before);
}

#[tokio::test]
async fn roles_stay_when_userinfo_cannot_be_read_and_userinfo_of_another_subject_is_ignored() {
    let rogue = Rogue::start().await;
    let site = rogue.site("", "organization = \"acme\"\nrole_claims = [\"groups\"]").await;
    let acme = site.organization("acme").await;
    acme.role("staffer", &[]).await;
    map(&acme, "oidc", "staff", "staffer").await;
    let sign_in = async || exchanged(&rogue, &site, |nonce| rogue.signed(&rogue.key, &rogue.claims(nonce))).await;

    rogue.set("/me", Behaviour::Json(json!({"sub": "eve", "groups": ["staff"], "name": "Eve"})));
    let member = me(&site, &token(&sign_in().await)).await;
    assert_eq!(
        (&member["display_name"], roles(&acme, &member["uid"]).await),
        (&json!("Eve"), vec!["oidc:staffer".into()])
    );
    for unreadable in [
        Behaviour::Silence,
        html(),
        Behaviour::Raw(500, "application/json", b"{}".to_vec()),
        Behaviour::Raw(401, "application/json", b"{}".to_vec()),
        Behaviour::Json(json!({"sub": "adam", "groups": [], "preferred_username": "adam"})),
        Behaviour::Json(json!({"groups": []})),
    ] {
        rogue.set("/me", unreadable);
        sign_in().await.done();
        assert_eq!(roles(&acme, &member["uid"]).await, ["oidc:staffer"]);
    }
    rogue.set("/me", Behaviour::Json(json!({"sub": "eve"})));
    let last = me(&site, &token(&sign_in().await)).await;
    assert_eq!((&last["username"], roles(&acme, &member["uid"]).await), (&Value::Null, Vec::new()));
}

#[tokio::test]
async fn a_role_mapper_is_called_only_when_all_claims_could_be_read() {
    let rogue = Rogue::start().await;
    let site = rogue.site("", "organization = \"acme\"\nrole_claims = [\"groups\"]").await;
    let acme = site.organization("acme").await;
    acme.role("staffer", &[]).await;
    enforce(&acme, "mapper", &wasm_fixtures::naming_claim("department", 9, 0)).await;
    let claims = |nonce: &str| {
        let mut claims = rogue.claims(nonce);
        claims["groups"] = json!([]);
        rogue.signed(&rogue.key, &claims)
    };
    let sign_in = async || exchanged(&rogue, &site, claims).await;

    rogue.set("/me", Behaviour::Json(json!({"sub": "eve", "department": "staffer"})));
    let member = me(&site, &token(&sign_in().await)).await;
    assert_eq!(roles(&acme, &member["uid"]).await, ["oidc:staffer"]);
    rogue.set("/me", html());
    sign_in().await.done();
    assert_eq!(roles(&acme, &member["uid"]).await, ["oidc:staffer"]);
    rogue.set("/me", Behaviour::Json(json!({"sub": "eve"})));
    sign_in().await.done();
    assert_eq!(roles(&acme, &member["uid"]).await, [""; 0]);
}

#[tokio::test]
async fn an_expired_state_is_refused() {
    let rogue = Rogue::start().await;
    let site = rogue.site("auth.oidc_state_ttl_s = 1", "").await;
    let state = query(&authorize_url(&site.nobody(), "lab").await, "state").expect("a state");

    tokio::time::sleep(Duration::from_millis(1_001)).await;

    let reply = site.nobody().post("/auth/oidc/exchange", returned("lab", "code", &state)).await;
    assert_eq!(reply.is(28_501_000).word(), "invalid_state");
}

#[tokio::test]
async fn a_provider_s_access_token_is_accepted_only_when_every_part_is_valid() {
    let rogue = Rogue::start().await;
    let site = rogue.site("", &format!("audience = {AUDIENCE:?}")).await;
    let before = people(&site);
    let other = new_key().expect("a key");
    let now_s = Timestamp::now().0 / 1_000;
    let good = json!({"iss": rogue.issuer, "aud": AUDIENCE, "sub": "eve", "exp": now_s + 60, "scope": "openid"});
    let changed = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        rogue.signed(&rogue.key, &claims)
    };
    let by_secret = |header: Header| {
        let header = Header { kid: Some(rogue.key.id.clone()), ..header };
        jsonwebtoken::encode(&header, &good, &EncodingKey::from_secret(&rogue.key.public_key)).expect("a token")
    };
    let none = json!({"alg": "none", "kid": rogue.key.id});
    let unsigned =
        format!("{}.{}.", URL_SAFE_NO_PAD.encode(none.to_string()), URL_SAFE_NO_PAD.encode(good.to_string()));
    let right = rogue.signed(&rogue.key, &good);

    let mut id_token = good.clone();
    id_token.as_object_mut().expect("claims").remove("scope");
    id_token["nonce"] = json!("n");
    for (what, token) in [
        ("cut", right[..right.len() - 4].to_owned()),
        ("garbage", "x.y.z".to_owned()),
        ("expired", changed("exp", json!(now_s - 31))),
        ("without an end", changed("exp", Value::Null)),
        ("not yet valid", changed("nbf", json!(now_s + 40))),
        ("another issuer", changed("iss", json!("https://id.example.org"))),
        ("another audience", changed("aud", json!("roster"))),
        ("no audience", changed("aud", Value::Null)),
        ("no subject", changed("sub", Value::Null)),
        ("an endless subject", changed("sub", json!("x".repeat(256)))),
        ("a program", changed("client_id", json!("eve"))),
        ("an id token", rogue.signed(&rogue.key, &id_token)),
        ("another key", rogue.signed(&other, &good)),
        ("alg none", unsigned),
        ("HS256 by the public key", by_secret(Header::new(Algorithm::HS256))),
    ] {
        assert_eq!(site.bearer(&token).get("/me").await.is(28_501_000).word(), "invalid_bearer_token", "{what}");
    }
    assert_eq!(people(&site), before);
    site.bearer(&right).get("/me").await.done();
    // Other operations accept it as its member, who has no rights there.
    assert_eq!(site.bearer(&right).get("/admin/members").await.status, 403);
}

#[tokio::test]
async fn requests_with_tokens_of_a_silent_provider_fail_within_the_timeout() {
    let rogue = Rogue::start().await;
    let site = rogue.site("", &format!("audience = {AUDIENCE:?}")).await;
    rogue.set("/.well-known/openid-configuration", Behaviour::Silence);
    let now_s = Timestamp::now().0 / 1_000;
    let claims = json!({"iss": rogue.issuer, "aud": AUDIENCE, "sub": "eve", "exp": now_s + 60});
    let bearer = site.bearer(&rogue.signed(&rogue.key, &claims));

    let began = Instant::now();
    let replies = futures_util::future::join_all((0..20).map(|_| bearer.get("/me"))).await;

    assert!(replies.iter().all(|reply| reply.word() == "neighbour_failed"));
    assert!(began.elapsed() < WAIT_MAX, "{:?}", began.elapsed());
}
