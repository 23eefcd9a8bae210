//! Tenants: a member's own permissions in one, and that nothing of another is reached.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{
    BAD_INPUT, FORBIDDEN, NOT_FOUND, P, UNKNOWN_TENANT, fields, keys_of, map, role_url, roles_url, sync_url, ticks_url,
    videos,
};
use crate::harness::callers::Reply;
use crate::harness::site::Site;

// ── me ──

#[tokio::test]
async fn a_member_sees_only_permissions_that_are_in_force() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    let member = acme.member_with(&["video.item.delete", "report.read"]).await;
    acme.assign(&member.uid, &acme.role_id("viewer").await).await;
    let closed = acme.role("closed", &["video.list"]).await;
    acme.assign(&member.uid, &closed).await;
    acme.admin().patch(&role_url(&closed), json!({"status": "close"})).await.done();

    let me = member.caller().get(&format!("{P}/me")).await.data();
    let with_tree = member.caller().get(&format!("{P}/me?include_tree=true")).await.data();

    assert_eq!(fields(&me), ["permissions", "roles", "tenant_id", "uid"]);
    assert_eq!((&me["uid"], &me["tenant_id"]), (&json!(member.uid), &json!(acme.id)));
    assert_eq!(me["roles"].as_array().expect("roles").len(), 2);
    assert!(me["roles"].as_array().expect("roles").contains(&json!("viewer")));
    let videos: Map<String, Value> = me["permissions"]
        .as_object()
        .expect("a map")
        .clone()
        .into_iter()
        .filter(|(name, _)| !name.starts_with("roster."))
        .collect();
    assert_eq!(Value::Object(videos), json!({"video.item.delete": "open"}));
    assert_eq!(with_tree["permissions"], me["permissions"]);
    let video = with_tree["tree"].as_array().expect("a tree").iter().find(|node| node["id"] == "video").expect("video");
    assert_eq!(video["children"][0]["children"][0]["id"], "video.item.delete", "its parent is only implied");
}

#[tokio::test]
async fn me_needs_a_caller_and_a_tenant() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let lonely = site.member().await;
    let both = acme.member().await;
    bolt.link(&both.uid).await;
    let me = format!("{P}/me");

    site.nobody().get(&me).await.is(31_501_000);
    site.bearer("garbage").get(&me).await.is(31_501_000);
    assert_eq!(lonely.caller().get(&me).await.is(FORBIDDEN).word(), "not_a_member");
    assert_eq!(both.caller().get(&me).await.is(BAD_INPUT).fields(), ["header.X-Tenant-ID"]);
    for (name, id) in [("acme", &acme.id), (&bolt.id, &bolt.id)] {
        assert_eq!(both.caller().with("x-tenant-id", name).get(&me).await.data()["tenant_id"], json!(id));
    }
}

#[tokio::test]
async fn a_gateway_asserts_a_member_but_never_rights_over_the_platform() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member_with_role("tenant_admin").await;
    let admin_uid = site.admin().get("/me").await.data()["uid"].as_str().expect("uid").to_owned();
    let gateway = |uid: &str| site.internal().with("x-uid", uid).with("x-tenant-id", "acme");

    assert_eq!(gateway(&member.uid).get(&format!("{P}/me")).await.data()["uid"], json!(member.uid));
    gateway(&member.uid).post(&format!("{P}/roles"), json!({"key": "made"})).await.done();
    gateway(&admin_uid).get(&format!("{P}/me")).await.is(UNKNOWN_TENANT);
    site.nobody().with("x-uid", &member.uid).with("x-tenant-id", "acme").get(&format!("{P}/me")).await.is(31_501_000);
}

// ── tenants ──

#[tokio::test]
async fn objects_of_another_tenant_are_answered_like_missing_ones() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let (role, member) = (acme.role("editor", &[]).await, acme.member_with_role("viewer").await);
    map(&acme, "ldap", "staff", "editor").await.done();
    let own = bolt.role("own", &[]).await;
    let (owner, viewer) = (bolt.owner(), acme.role_id("viewer").await);
    let missing = uuid::Uuid::now_v7().to_string();
    let same = |foreign: &Reply, missing: &Reply| {
        assert_eq!(
            (foreign.status, &foreign.body["code"], foreign.word()),
            (missing.status, &missing.body["code"], missing.word())
        );
        assert_eq!(foreign.body["message"], missing.body["message"]);
    };

    for (method, path, body) in [
        (Method::GET, role_url("{}"), None),
        (Method::PATCH, role_url("{}"), Some(json!({"display_name": "x"}))),
        (Method::DELETE, role_url("{}"), None),
        (Method::GET, ticks_url("{}"), None),
        (Method::PUT, ticks_url("{}"), Some(json!({"permission_ids": []}))),
        (Method::GET, format!("{}/users", role_url("{}")), None),
    ] {
        let foreign = owner.send(method.clone(), &path.replace("{}", &role), body.clone()).await;
        same(foreign.is(NOT_FOUND), &owner.send(method, &path.replace("{}", &missing), body).await);
    }
    for (uid, role_id) in [(&member.uid, &own), (&member.uid, &role)] {
        let foreign = owner.post(&roles_url(uid), json!({"role_id": role_id})).await;
        let unknown = if role_id == &own { (&missing, &own) } else { (&missing, &missing) };
        same(foreign.is(NOT_FOUND), &owner.post(&roles_url(unknown.0), json!({"role_id": unknown.1})).await);
    }
    let revoked = owner.delete(&format!("{}/{viewer}", roles_url(&member.uid))).await;
    same(revoked.is(NOT_FOUND), &owner.delete(&format!("{}/{viewer}", roles_url(&missing))).await);
    let body = json!({"source": "ldap", "external_keys": []});
    same(
        owner.post(&sync_url(&member.uid), body.clone()).await.is(NOT_FOUND),
        &owner.post(&sync_url(&missing), body).await,
    );
    assert_eq!(owner.get(&roles_url(&member.uid)).await.data(), json!({"user_roles": []}));
    owner.delete(&format!("{P}/role-mappings?external_source=ldap&external_key=staff")).await.is(NOT_FOUND);
    assert_eq!(owner.get(&format!("{P}/role-mappings")).await.data()["total"], json!(0));
    let named = owner.clone().with("x-tenant-id", &acme.id).get(&format!("{P}/roles")).await;
    same(named.is(UNKNOWN_TENANT), &owner.clone().with("x-tenant-id", &missing).get(&format!("{P}/roles")).await);
    assert_eq!(keys_of(&acme, &member.uid).await, [("viewer".into(), "manual".into())].into());
}
