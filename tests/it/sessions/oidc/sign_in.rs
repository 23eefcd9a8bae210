//! A complete sign-in with a certified provider: whom it identifies, and with which roles.

use serde_json::{Value, json};

use super::{
    BINDING, REDIRECT, audit_rows, authorize_url, block, come_back, lab, me, people, returned, roles, sign_in,
};
use crate::harness::counterparts::{Oidc, query};
use crate::harness::site::Site;

const ZITADEL: &str = "urn:zitadel:iam:org:project:roles";

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
        let member = me(&site, &reply.access_token()).await;
        assert_eq!(
            (&member["email"], &member["display_name"], &member["username"]),
            (&json!("alice@example.org"), &json!("Alice 測試"), &json!("alice"))
        );
        assert_eq!(member["organizations"], json!([]));
        assert_eq!(people(&site), (before.0 + 1, before.1 + 1));
        let sessions = site.bearer(&reply.access_token()).get("/me/sessions").await.data();
        assert_eq!(sessions["items"][0]["method"], "oidc lab");

        // The same state and code again, and then a new sign-in of the same person.
        let replayed = site.nobody().post("/auth/oidc/exchange", back).await;
        assert_eq!(replayed.is(28_501_000).word(), "invalid_state");
        let mut again = come_back(&oidc, &site, "alice").await;
        again["with_provider_token"] = json!(true);
        let again = site.nobody().post("/auth/oidc/exchange", again).await;
        assert!(again.data()["provider_access_token"].as_str().is_some_and(|token| token.len() > 20));
        assert_eq!(me(&site, &again.access_token()).await["uid"], member["uid"]);
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

    assert_eq!(me(&site, &reply.access_token()).await["uid"], made["uid"]);
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
        let member = me(&site, &sign_in(&oidc, &site, login).await.access_token()).await;
        assert_ne!(member["uid"], kim["uid"]);
        assert_eq!((&member["email"], &member["username"]), (&Value::Null, &Value::Null), "{login}");
    }
}

#[tokio::test]
async fn userinfo_fills_empty_fields_and_overwrites_nothing() {
    let alice = json!({"email": "alice@example.org", "email_verified": true, "name": "Alice"});
    let (oidc, site) = lab(json!({"users": {"alice": {}}, "claims_in_id_token": false}), "", "").await;
    let first = sign_in(&oidc, &site, "alice").await.access_token();
    assert_eq!(me(&site, &first).await["email"], Value::Null);
    site.bearer(&first).patch("/me", json!({"display_name": "Mine"})).await.done();

    oidc.set_user("alice", alice).await;
    let member = me(&site, &sign_in(&oidc, &site, "alice").await.access_token()).await;

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
    let first = sign_in(&oidc, &site, "alice").await.access_token();
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
    acme.map("oidc", "staff", "staffer").await;
    acme.map("oidc", "film", "filmer").await;
    acme.map("zitadel", "admin", "admin").await;
    acme.map("ldap", "staff", "manual").await;

    let first = sign_in(&oidc, &site, "alice").await.access_token();
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

    let member = me(&site, &sign_in(&oidc, &site, "alice").await.access_token()).await;
    assert_eq!(member["organizations"], json!([]));
    let acme = site.organization("acme").await;
    let owner = json!({"external_source": "oidc", "external_key": "staff", "internal_role_key": "tenant_owner"});
    assert_eq!(acme.admin().put("/api/v1/permissions/role-mappings", owner).await.status, 409);
    sign_in(&oidc, &site, "alice").await.done();

    assert_eq!(roles(&acme, &member["uid"]).await, [""; 0]);
}
