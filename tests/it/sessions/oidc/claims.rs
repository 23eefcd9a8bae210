//! Claims in the forms that real providers send: malformed optional fields, groups in a separate document, nested
//! claims, tokens of programs. Verification of tokens is tested in `misbehaviour.rs`.

use std::sync::{Arc, Mutex, OnceLock};

use roster::kernel::ids::Timestamp;
use serde_json::{Value, json};

use super::misbehaviour::{Behaviour, Rogue, exchanged};
use super::{AUDIENCE, authorize_url, block, me, people, returned, roles};
use crate::harness::callers::Reply;
use crate::harness::counterparts::{CLIENT_SECRET, query};
use crate::harness::site::Site;
use crate::harness::stub_server::{StubRequest, StubServer};
use crate::harness::waiting::eventually;

/// Merges `changes` into an object; null removes a field.
fn changed(mut object: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().expect("changes") {
        match value {
            Value::Null => drop(object.as_object_mut().expect("an object").remove(name)),
            value => object[name] = value.clone(),
        }
    }
    object
}

/// Signs in at a provider whose id token and token response differ from valid ones by these changes.
async fn sign_in(rogue: &Rogue, site: &Site, claims: &Value, answer: &Value) -> Reply {
    let url = authorize_url(&site.nobody(), "lab").await;
    let (nonce, state) = (query(&url, "nonce").expect("a nonce"), query(&url, "state").expect("a state"));
    let id_token = rogue.signed(&rogue.key, &changed(rogue.claims(&nonce), claims));
    let good = json!({"access_token": "opaque", "token_type": "Bearer", "expires_in": 60, "id_token": id_token});
    rogue.set("/token", Behaviour::Json(changed(good, answer)));
    site.nobody().post("/auth/oidc/exchange", returned("lab", "code", &state)).await
}

async fn uid(site: &Site, reply: &Reply) -> Value {
    me(site, &reply.access_token()).await["uid"].clone()
}

// ── one malformed optional field ──

#[tokio::test]
async fn one_malformed_optional_field_breaks_no_sign_in() {
    let rogue = Rogue::start().await;
    let site = rogue.site("", "").await;
    rogue.set("/me", Behaviour::Json(json!({"sub": "eve"})));
    let nothing = json!({});
    for claims in [
        json!({"address": "1 Harbour Street"}),
        json!({"auth_time": "2026-11-01T10:00:00Z"}),
        json!({"updated_at": "2026-11-01T10:00:00.000Z"}),
        json!({"updated_at": null, "iat": null}),
        json!({"iat": "yesterday", "amr": "pwd", "acr": 1}),
        json!({"email": 7, "email_verified": "perhaps", "name": {"formatted": "Eve"}, "preferred_username": []}),
        json!({"phone_number": 886212345678_u64, "phone_number_verified": "true", "gender": 1, "birthdate": 1984}),
        json!({"locale": ["en"], "zoneinfo": null, "picture": false, "profile": 0, "website": "no address"}),
        json!({"nbf": "1700000000", "at_hash": 7, "c_hash": null, "nickname": ""}),
        json!({"_claim_names": "groups", "hasgroups": 1}),
        json!({"aud": ["roster"]}),
    ] {
        assert_eq!(sign_in(&rogue, &site, &claims, &nothing).await.status, 200, "{claims}");
    }
    for answer in [
        json!({"expires_in": "3600"}),
        json!({"expires_in": null, "token_type": null}),
        json!({"expires_in": -1.5, "token_type": "bearer"}),
        json!({"token_type": 7, "scope": null}),
        json!({"scope": ["openid", "email"], "refresh_token": {}}),
        json!({"error": null, "session_state": 1, "not-before-policy": 0}),
    ] {
        assert_eq!(sign_in(&rogue, &site, &nothing, &answer).await.status, 200, "{answer}");
    }
    let reply = sign_in(&rogue, &site, &nothing, &json!({"scope": ["openid", "email"]})).await;
    assert_eq!(reply.data()["scope"], "openid email");
}

#[tokio::test]
async fn an_unusual_discovery_document_breaks_no_sign_in() {
    let rogue = Rogue::start().await;
    let odd = json!({
        "claims_supported": "all", "scopes_supported": 7, "id_token_signing_alg_values_supported": null,
        "response_types_supported": {}, "subject_types_supported": null, "service_documentation": [],
        "op_policy_uri": "nowhere", "display_values_supported": [1], "request_parameter_supported": "yes",
        "token_endpoint_auth_methods_supported": "any", "ui_locales_supported": ["x_y_z"],
    });
    let body = format!("\u{feff}{}", changed(rogue.document(), &odd));
    rogue.set("/.well-known/openid-configuration", Behaviour::Raw(200, "text/plain", body.into_bytes()));
    let strange = json!([7, {}, {"kty": "XYZ", "kid": "a"}, {"kty": "RSA", "n": "", "e": ""}, rogue.jwk(&rogue.key)]);
    rogue.set("/jwks", Behaviour::Json(json!({"keys": strange})));
    let site = rogue.site("", "").await;
    let userinfo = format!("\u{feff}{}", json!({"sub": "eve", "name": "Eve", "updated_at": [], "address": 1}));
    rogue.set("/me", Behaviour::Raw(200, "application/json", userinfo.into_bytes()));

    let reply = sign_in(&rogue, &site, &json!({}), &json!({})).await;

    assert_eq!(me(&site, &reply.access_token()).await["display_name"], "Eve");
}

#[tokio::test]
async fn claims_of_another_json_type_are_converted() {
    let rogue = Rogue::start().await;
    let site = rogue.site("", "").await;
    rogue.set("/me", Behaviour::Json(json!({"sub": 17})));
    let odd = json!({"sub": 17, "email": "a@example.org", "email_verified": "true", "name": 1984});

    let member = me(&site, &sign_in(&rogue, &site, &odd, &json!({})).await.access_token()).await;

    assert_eq!((&member["email"], &member["display_name"]), (&json!("a@example.org"), &json!("1984")));
    let again = sign_in(&rogue, &site, &json!({"sub": "17"}), &json!({})).await;
    assert_eq!(uid(&site, &again).await, member["uid"]);
}

#[tokio::test]
async fn the_client_secret_is_sent_by_the_method_that_the_provider_supports() {
    for (methods, is_in_form) in [
        (json!(null), false),
        (json!(["client_secret_basic", "client_secret_post"]), false),
        (json!(["client_secret_post"]), true),
        (json!(["private_key_jwt"]), false),
    ] {
        let asked: Arc<Mutex<Option<StubRequest>>> = Arc::default();
        let url: Arc<OnceLock<String>> = Arc::default();
        let (kept, own) = (asked.clone(), url.clone());
        let provider = StubServer::start(move |request| {
            let at = |path: &str| format!("{}{path}", own.get().expect("started"));
            match request.path.as_str() {
                "/jwks" => crate::harness::stub_server::json(200, &json!({"keys": []})),
                "/token" => {
                    *kept.lock().expect("lock") = Some(request);
                    crate::harness::stub_server::json(400, &json!({"error": "invalid_grant"}))
                }
                _ => crate::harness::stub_server::json(
                    200,
                    &json!({"issuer": at(""), "authorization_endpoint": at("/auth"), "token_endpoint": at("/token"),
                        "jwks_uri": at("/jwks"), "token_endpoint_auth_methods_supported": methods}),
                ),
            }
        });
        url.set(provider.url.clone()).expect("once");
        let site = Site::with(&block("lab", &provider.url, "")).await;
        let state = query(&authorize_url(&site.nobody(), "lab").await, "state").expect("a state");

        let reply = site.nobody().post("/auth/oidc/exchange", returned("lab", "a code", &state)).await;

        assert_eq!(reply.is(28_501_000).word(), "oidc_refused");
        let asked = asked.lock().expect("lock").take().expect("a request");
        assert_eq!(asked.authorization.starts_with("Basic "), !is_in_form);
        assert_eq!(asked.body.contains(&format!("client_id=roster&client_secret={CLIENT_SECRET}")), is_in_form);
        for part in ["grant_type=authorization_code", "code=a+code", "code_verifier=", "redirect_uri=http%3A%2F%2F"] {
            assert!(asked.body.contains(part), "{}", asked.body);
        }
    }
}

// ── roles ──

#[tokio::test]
async fn roles_stay_when_the_provider_moves_the_groups_to_another_document() {
    let rogue = Rogue::start().await;
    let site = rogue.site("", "organization = \"acme\"\nrole_claims = [\"groups\"]").await;
    let acme = site.organization("acme").await;
    acme.role("editor", &[]).await;
    acme.map("oidc", "editors", "editor").await;
    rogue.set("/me", Behaviour::Json(json!({"sub": "eve"})));
    let first = sign_in(&rogue, &site, &json!({"groups": ["editors"]}), &json!({})).await;
    let uid = uid(&site, &first).await;
    assert_eq!(roles(&acme, &uid).await, ["oidc:editor"]);

    let sources = json!({"src1": {"endpoint": "https://graph.example.org/x"}});
    for claims in [
        json!({"_claim_names": {"groups": "src1"}, "_claim_sources": sources}),
        json!({"hasgroups": true}),
        json!({"hasgroups": "true"}),
        json!({"groups": {"editors": {}}}),
    ] {
        sign_in(&rogue, &site, &claims, &json!({})).await.done();
        assert_eq!(roles(&acme, &uid).await, ["oidc:editor"], "{claims}");
    }
    // Log lines are written asynchronously.
    let is_said =
        |log: &str| log.contains("the provider keeps it elsewhere") && log.contains("roles of the provider stay");
    eventually("both are in the log", async || is_said(&site.log())).await;
    // Without a reference to another document, an absent claim is an empty one.
    sign_in(&rogue, &site, &json!({"_claim_names": {"photos": "src1"}}), &json!({})).await.done();
    assert_eq!(roles(&acme, &uid).await, [""; 0]);
}

#[tokio::test]
async fn a_token_with_a_thousand_groups_signs_in() {
    let rogue = Rogue::start().await;
    let site = rogue.site("", "organization = \"acme\"\nrole_claims = [\"groups\"]").await;
    let acme = site.organization("acme").await;
    acme.role("editor", &[]).await;
    let groups: Vec<String> = (0..1_001).map(|n| format!("{n:08x}-5f0e-4c2b-9d55-3c1f1d0a77aa")).collect();
    acme.map("oidc", &groups[999], "editor").await;
    rogue.set("/me", Behaviour::Json(json!({"sub": "eve"})));

    let reply = sign_in(&rogue, &site, &json!({"groups": groups[..1_000]}), &json!({})).await;
    let uid = uid(&site, &reply).await;
    assert_eq!(roles(&acme, &uid).await, ["oidc:editor"]);

    // One group more than the limit: the groups are unknown.
    sign_in(&rogue, &site, &json!({"groups": groups}), &json!({})).await.done();
    assert_eq!(roles(&acme, &uid).await, ["oidc:editor"]);
}

#[tokio::test]
async fn role_claims_are_names_or_paths() {
    let url = "https://example.org/roles";
    let rogue = Rogue::start().await;
    let more = format!(
        "organization = \"acme\"\nrole_claims = [\"realm_access.roles\", \"resource_access.my.client.roles\", {url:?}, \"teams.*\", \"level\"]"
    );
    let site = rogue.site("", &more).await;
    let acme = site.organization("acme").await;
    for key in ["editor", "viewer_plus", "by_url", "by_name", "by_number", "wrong"] {
        acme.role(key, &[]).await;
    }
    for (key, role) in [
        ("editors", "editor"),
        ("viewers", "viewer_plus"),
        ("url", "by_url"),
        ("film", "by_name"),
        ("3", "by_number"),
        ("roles", "wrong"),
        ("my.client", "wrong"),
        ("x", "wrong"),
    ] {
        acme.map("oidc", key, role).await;
    }
    rogue.set("/me", Behaviour::Json(json!({"sub": "eve"})));
    let claims = json!({
        "realm_access": {"roles": ["editors"]}, "resource_access": {"my.client": {"roles": ["viewers"]}, "x": {"roles": ["x"]}},
        url: "url", "teams": {"film": {}}, "level": 3,
    });

    let reply = sign_in(&rogue, &site, &claims, &json!({})).await;

    let held = roles(&acme, &uid(&site, &reply).await).await;
    assert_eq!(held, ["oidc:by_name", "oidc:by_number", "oidc:by_url", "oidc:editor", "oidc:viewer_plus"]);
}

/// What a sync with the claims of a source changes.
async fn synced(site: &Site, settings_source: &str, body: Value) -> Reply {
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    acme.role("boss", &[]).await;
    acme.map(settings_source, "admin", "boss").await;
    acme.admin().post(&format!("/api/v1/permissions/users/{}/roles/sync", member.uid), body).await
}

#[tokio::test]
async fn claims_of_a_sync_give_external_keys_only_where_role_claims_names_them() {
    let rogue = Rogue::start().await;
    let zitadel = "urn:zitadel:iam:org:project:roles";
    let with = format!("role_claims = [\"groups\", {zitadel:?}]");
    for (role_claims, source, keys, claims, added) in [
        ("", "oidc", json!(["admin"]), json!({"middle_name": ""}), json!(["boss"])),
        ("", "oidc", json!([]), json!({"nickname": "admin", "groups": ["staff"]}), json!([])),
        ("", "oidc", json!([]), json!({"groups": ["admin"]}), json!([])),
        (with.as_str(), "oidc", json!([]), json!({"nickname": "admin", "groups": ["staff"]}), json!([])),
        (with.as_str(), "oidc", json!([]), json!({"groups": ["admin", 7, "", "x".repeat(300)]}), json!(["boss"])),
        (with.as_str(), "oidc", json!([]), json!({zitadel: {"admin": {"1": "acme.example.org"}}}), json!(["boss"])),
        (with.as_str(), "zitadel", json!([]), json!({zitadel: {"admin": {"1": "acme.example.org"}}}), json!(["boss"])),
        (with.as_str(), "zitadel", json!([]), json!({"groups": ["admin"]}), json!([])),
        (with.as_str(), "ldap", json!([]), json!({"groups": ["admin"], "note": "a\nb", "none": null}), json!([])),
    ] {
        let site = rogue.site("", role_claims).await;
        let body = json!({"source": source, "external_keys": keys, "claims": claims});
        assert_eq!(synced(&site, source, body).await.data()["added"], added, "{role_claims} {source} {claims}");
    }
    let site = rogue.site("", &with).await;
    let body = json!({"source": "oidc", "external_keys": [], "claims": {"_claim_names": {"groups": "src1"}}});
    assert_eq!(synced(&site, "oidc", body).await.is(10_101_000).fields(), ["body.claims"]);
}

#[tokio::test]
async fn every_spelling_of_an_external_key_is_the_same_key() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    for key in ["chef", "editor"] {
        acme.role(key, &[]).await;
    }
    acme.map("ldap", "cafe\u{301}", "chef").await;
    acme.map("ldap", "CN=Editors, OU=Groups,DC=example,DC=org", "chef").await;
    // The same key in another spelling updates the same mapping.
    acme.map("ldap", "cn=editors,ou=groups,dc=EXAMPLE,dc=org", "editor").await;
    let sync = async |key: &str| {
        let body = json!({"source": "ldap", "external_keys": [key], "dry_run": true});
        acme.admin().post(&format!("/api/v1/permissions/users/{}/roles/sync", member.uid), body).await.data()
    };

    assert_eq!(sync("caf\u{e9}").await["added"], json!(["chef"]));
    assert_eq!(sync("CAF\u{c9}").await["unknown"], json!(["CAF\u{c9}"]));
    assert_eq!(sync("cn=Editors,ou=Groups, dc=example,dc=org").await["added"], json!(["editor"]));
    let url = "/api/v1/permissions/role-mappings";
    let listed = acme.admin().get(url).await.data();
    let keys: Vec<&Value> =
        listed["mappings"].as_array().expect("a list").iter().map(|mapping| &mapping["external_key"]).collect();
    assert_eq!(keys, ["caf\u{e9}", "cn=editors,ou=groups,dc=example,dc=org"]);
    let query = "external_source=ldap&external_key=CN%3DEDITORS%2COU%3DGroups%2CDC%3Dexample%2CDC%3Dorg";
    acme.admin().delete(&format!("{url}?{query}")).await.done();
    assert_eq!(acme.admin().get(url).await.data()["total"], 1);
}

#[tokio::test]
async fn a_mapping_from_before_normalization_still_matches_as_written() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    for key in ["chef", "editor"] {
        acme.role(key, &[]).await;
    }
    acme.map("ldap", "old", "chef").await;
    let old = "CN=Editors,DC=example";
    site.write_rows(|rows| rows.execute("update role_mappings set external_key = ?1", [old]));
    let sync = async || {
        let body = json!({"source": "ldap", "external_keys": [old], "dry_run": true});
        acme.admin().post(&format!("/api/v1/permissions/users/{}/roles/sync", member.uid), body).await.data()
    };

    assert_eq!(sync().await["added"], json!(["chef"]));
    acme.map("ldap", old, "editor").await;
    assert_eq!(sync().await["added"], json!(["editor"]));
    let listed = acme.admin().get("/api/v1/permissions/role-mappings").await.data();
    assert_eq!(
        (&listed["total"], &listed["mappings"][0]["external_key"]),
        (&json!(1), &json!("cn=editors,dc=example"))
    );
}

// ── tokens of programs, and tokens of another kind ──

#[tokio::test]
async fn tokens_of_programs_never_become_members() {
    let rogue = Rogue::start().await;
    let site = rogue.site("", &format!("audience = {AUDIENCE:?}\norganization = \"acme\"")).await;
    site.organization("acme").await;
    rogue.set("/me", Behaviour::Json(json!({"sub": "u-1"})));
    let before = people(&site);
    let now_s = Timestamp::now().0 / 1_000;
    let good = json!({"iss": rogue.issuer, "aud": AUDIENCE, "sub": "u-1", "exp": now_s + 60, "scope": "openid"});
    let bearer = |changes: &Value| rogue.signed(&rogue.key, &changed(good.clone(), changes));
    for changes in [
        json!({"client_id": "backup", "azp": "backup", "preferred_username": "service-account-backup"}),
        json!({"sub": "abc@clients", "azp": "abc", "gty": "client-credentials"}),
        json!({"sub": "0oaAPP", "cid": "0oaAPP"}),
        json!({"sub": "x", "idtyp": "app"}),
        json!({"typ": "ID"}),
        json!({"typ": "Refresh"}),
        json!({"at_hash": "MTIzNDU2Nzg5MDEyMzQ1Ng"}),
        json!({"scope": null, "nonce": "n"}),
        json!({"token_use": "id"}),
    ] {
        let reply = site.bearer(&bearer(&changes)).get("/me").await;
        assert_eq!(reply.is(28_501_000).word(), "invalid_bearer_token", "{changes}");
    }
    // Nor do they by a sign-in.
    let reply = sign_in(&rogue, &site, &json!({"idtyp": "app"}), &json!({})).await;
    assert_eq!(reply.is(28_501_000).word(), "oidc_refused");
    assert_eq!(people(&site), before);

    for changes in [
        json!({"typ": "Bearer", "azp": "portal", "nonce": "n"}),
        json!({"idtyp": "user", "appid": "portal", "updated_at": "2026-11-01T10:00:00.000Z", "iat": "odd"}),
    ] {
        site.bearer(&bearer(&changes)).get("/me").await.done();
    }
    assert_eq!(people(&site), (before.0 + 1, before.1 + 1));
}

#[tokio::test]
async fn an_access_token_may_be_as_long_as_a_request_head() {
    let rogue = Rogue::start().await;
    let site = rogue.site("limits.head_bytes = 65536", &format!("audience = {AUDIENCE:?}")).await;
    rogue.set("/me", Behaviour::Json(json!({"sub": "eve"})));
    let now_s = Timestamp::now().0 / 1_000;
    let groups: Vec<String> = (0..1_000).map(|n| format!("{n:08x}-5f0e-4c2b-9d55-3c1f1d0a77aa")).collect();
    let claims = json!({"iss": rogue.issuer, "aud": AUDIENCE, "sub": "eve", "exp": now_s + 60, "groups": groups});

    site.bearer(&rogue.signed(&rogue.key, &claims)).get("/me").await.done();
    let reply = exchanged(&rogue, &site, |nonce| rogue.signed(&rogue.key, &rogue.claims(nonce))).await;
    assert_eq!(me(&site, &reply.access_token()).await["organizations"], json!([]));
}
