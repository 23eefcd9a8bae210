//! Nobody grants more than they hold.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use super::{FORBIDDEN, P, keys_of, map, role_url, roles_url, sync_url, ticks, ticks_url, videos};
use crate::harness::callers::As;
use crate::harness::site::Site;

#[tokio::test]
async fn nobody_ticks_a_permission_they_do_not_hold() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    let role = acme.role("helper", &[]).await;
    let editor = acme.member_with(&["roster.role.grant", "video.list"]).await;
    let put = async |names: Value| editor.caller().put(&ticks_url(&role), json!({"permission_ids": names})).await;

    for names in [
        json!(["video.item.delete"]),
        json!(["video.list", "video.item"]),
        json!(["roster.role.create"]),
        json!(["report"]),
    ] {
        assert_eq!(put(names).await.is(FORBIDDEN).word(), "not_held");
        assert_eq!(ticks(&acme, &role).await, BTreeSet::new());
    }
    assert_eq!(site.last_audit_entry().await["outcome"], json!("denied"));
    put(json!(["video.list", "roster.role.grant"])).await.done();
    // A permission that somebody else ticked may stay.
    acme.admin().put(&ticks_url(&role), json!({"permission_ids": ["video.item.delete", "video.list"]})).await.done();
    put(json!(["video.item.delete"])).await.done();
    put(json!(["video.item.delete", "video.item"])).await.done();
    assert!(!ticks(&acme, &role).await.contains("video.list"));
}

#[tokio::test]
async fn an_owner_holds_all_of_the_tenant_and_nothing_of_the_site() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    let role = acme.role("helper", &[]).await;
    site.import(json!([{"name": "later", "http_methods": "GET", "http_path": "/later"}])).await;

    acme.owner().put(&ticks_url(&role), json!({"permission_ids": ["later", "roster.audit.list"]})).await.done();
    for name in
        ["roster.client.create", "roster.organization.create", "roster.policy.import_catalog", "roster.grant.create"]
    {
        acme.owner().put(&ticks_url(&role), json!({"permission_ids": [name]})).await.is(FORBIDDEN);
    }
    assert_eq!(
        ticks(&acme, &role).await,
        ["later", "roster", "roster.audit", "roster.audit.list"].map(String::from).into()
    );
}

#[tokio::test]
async fn nobody_assigns_a_role_that_holds_more_than_they_do() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    let (big, small) = (acme.role("big", &["video.item.delete"]).await, acme.role("small", &["video.list"]).await);
    for key in ["big", "small", "tenant_admin"] {
        map(&acme, "ldap", key, key).await.done();
    }
    let rights = [
        "roster.assignment.create",
        "roster.assignment.sync",
        "roster.mapping.replace",
        "roster.role.update",
        "video.list",
    ];
    let (manager, member) = (acme.member_with(&rights).await, acme.member().await);
    let url = roles_url(&member.uid);
    let sync = async |keys: Value| {
        manager.caller().post(&sync_url(&member.uid), json!({"source": "ldap", "external_keys": keys})).await
    };

    for role in [&big, &acme.role_id("tenant_admin").await, &acme.role_id("tenant_owner").await] {
        assert_eq!(manager.caller().post(&url, json!({"role_id": role})).await.is(FORBIDDEN).word(), "not_held");
    }
    assert_eq!(sync(json!(["small", "big"])).await.is(FORBIDDEN).word(), "not_held");
    assert_eq!(keys_of(&acme, &member.uid).await.len(), 0, "a sync is done as a whole or not at all");
    let mapping = json!({"external_source": "scim", "external_key": "x", "internal_role_key": "big"});
    assert_eq!(manager.caller().put(&format!("{P}/role-mappings"), mapping).await.is(FORBIDDEN).word(), "not_held");
    acme.admin().patch(&role_url(&big), json!({"status": "close"})).await.done();
    let opening = manager.caller().patch(&role_url(&big), json!({"status": "open"})).await;
    assert_eq!(opening.is(FORBIDDEN).word(), "not_held");
    manager.caller().post(&url, json!({"role_id": big})).await.is(FORBIDDEN);

    manager.caller().post(&url, json!({"role_id": small})).await.done();
    sync(json!(["small"])).await.done();
}

#[tokio::test]
async fn nobody_removes_rights_they_do_not_hold_by_changing_a_role_or_a_mapping() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    let (big, small) =
        (acme.role("big", &["video.item.delete", "video.list"]).await, acme.role("small", &["video.list"]).await);
    let empty = acme.role("empty", &[]).await;
    for key in ["big", "small", "tenant_admin"] {
        map(&acme, "ldap", key, key).await.done();
    }
    let rights = ["grant", "update", "delete"].map(|verb| format!("roster.role.{verb}"));
    let rights: Vec<&str> = rights.iter().map(String::as_str).collect();
    let rights = [&rights[..], &["roster.mapping.replace", "roster.mapping.delete", "video.list"]].concat();
    let clerk = acme.member_with(&rights).await;
    let unused = acme.role("unused", &["video.item.delete"]).await;
    let mapping =
        |key: &str, role: &str| json!({"external_source": "ldap", "external_key": key, "internal_role_key": role});
    let mappings = format!("{P}/role-mappings");
    let mut takings = vec![
        (Method::PATCH, role_url(&big), json!({"status": "close"})),
        (Method::PUT, ticks_url(&big), json!({"permission_ids": ["video.list"]})),
        (Method::DELETE, role_url(&unused), Value::Null),
    ];
    for key in ["tenant_admin", "member_manager"] {
        let url = ticks_url(&acme.role_id(key).await);
        takings.push((Method::PUT, url, json!({"permission_ids": []})));
    }
    for key in ["tenant_admin", "big"] {
        takings.push((Method::PUT, mappings.clone(), mapping(key, "empty")));
        takings.push((Method::DELETE, format!("{mappings}?external_source=ldap&external_key={key}"), Value::Null));
    }
    let go = async |caller: As<'_>, (method, path, body): &(Method, String, Value)| {
        caller.send(method.clone(), path, (!body.is_null()).then(|| body.clone())).await
    };

    for taking in &takings {
        let reply = go(clerk.caller(), taking).await;
        assert_eq!(reply.is(FORBIDDEN).word(), "not_held", "{taking:?}");
    }
    // It may remove permissions that it holds, and roles without permissions.
    clerk.caller().put(&ticks_url(&big), json!({"permission_ids": ["video.item.delete"]})).await.done();
    clerk.caller().put(&mappings, mapping("small", "empty")).await.done();
    clerk.caller().patch(&role_url(&small), json!({"status": "close"})).await.done();
    clerk.caller().patch(&role_url(&empty), json!({"status": "close"})).await.done();
    clerk.caller().delete(&role_url(&small)).await.done();
    for taking in takings.iter().filter(|(method, path, _)| *method != Method::PUT || !path.starts_with(&mappings)) {
        go(acme.owner(), taking).await.done();
    }
}

#[tokio::test]
async fn nobody_revokes_a_grant_of_a_right_they_do_not_hold() {
    let site = Site::start().await;
    let clerk = site.platform_member(&["roster.grant.create", "roster.grant.delete"]).await;
    let member = site.member().await;
    let right = |uid: &str| json!({"uid": uid, "scope_type": "system", "scope_id": "*", "module": "billing", "action": "admin"});
    site.admin().post("/admin/permissions/grant", right(&member.uid)).await.done();

    let refused = clerk.caller().post("/admin/permissions/revoke", right(&member.uid)).await;
    site.admin().post("/admin/permissions/grant", right(&clerk.uid)).await.done();
    let taken = clerk.caller().post("/admin/permissions/revoke", right(&member.uid)).await;

    assert_eq!(refused.word(), "not_held");
    assert_eq!(taken.data()["deleted"], 1);
}

#[tokio::test]
async fn nobody_creates_a_grant_of_a_right_they_do_not_hold() {
    let site = Site::start().await;
    let granter = site.platform_member(&["roster.grant.create"]).await;
    let member = site.member().await;
    let right = |uid: &str, scope: &str| json!({"uid": uid, "scope_type": "site", "scope_id": scope, "module": "cameras", "action": "view"});
    let grant = "/admin/permissions/grant";

    assert_eq!(granter.caller().post(grant, right(&member.uid, "north")).await.is(29_505_000).word(), "not_held");
    site.admin().post(grant, right(&granter.uid, "north")).await.done();
    granter.caller().post(grant, right(&member.uid, "north")).await.done();
    granter.caller().post(grant, right(&member.uid, "*")).await.is(29_505_000);
    site.admin().post(grant, right(&granter.uid, "*")).await.done();
    granter.caller().post(grant, right(&member.uid, "south")).await.done();
}

#[tokio::test]
async fn nobody_creates_a_client_with_scopes_they_do_not_hold() {
    let site = Site::start().await;
    let keeper = site.platform_member(&["roster.client.create", "roster.client.update", "roster.member.list"]).await;
    let body = |scope: &str| json!({"name": "robot", "scopes": [scope]});
    let made = site.admin().post("/admin/api-clients", body("audit:read")).await.data();
    let url = format!("/admin/api-clients/{}", made["client_key"].as_str().expect("key"));

    for scope in ["*", "members:write", "permissions:write", "audit:read"] {
        keeper.caller().post("/admin/api-clients", body(scope)).await.is(32_505_000);
        keeper.caller().patch(&url, json!({"scopes": [scope, "members:write"]})).await.is(32_505_000);
    }
}
