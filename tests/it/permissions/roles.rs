//! Roles and their permissions.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    BAD_INPUT, EXISTS, NOT_FOUND, P, SYSTEM, each, fields, holds, map, role_url, roles_url, ticks, ticks_url, videos,
};
use crate::harness::site::Site;

const IN_USE: u64 = 31_312_000;
const BAD_KEY: u64 = 31_101_000;

// ── roles ──

#[tokio::test]
async fn a_role_has_the_fields_of_the_definition() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let roles = format!("{P}/roles");

    let made = acme
        .owner()
        .post(&roles, json!({"key": "editor", "display_name": "Chief editor", "status": "close"}))
        .await
        .data();
    let id = made["id"].as_str().expect("id");

    let all =
        ["create_at", "creator_uid", "display_name", "id", "is_system", "key", "status", "tenant_id", "update_at"];
    assert_eq!(fields(&made), all);
    assert_eq!(made["tenant_id"], json!(acme.id));
    assert_eq!(
        (&made["key"], &made["display_name"], &made["status"]),
        (&json!("editor"), &json!("Chief editor"), &json!("close"))
    );
    assert_eq!(made["is_system"], json!(false));
    assert_eq!(made["create_at"], made["update_at"]);
    assert_eq!(acme.owner().get(&role_url(id)).await.data(), made);
    let list = acme.owner().get(&roles).await.data();
    assert_eq!(fields(&list), ["roles"]);
    assert_eq!(list["roles"].as_array().expect("roles").last(), Some(&made));
    assert!(list["roles"][0].get("creator_uid").is_none(), "a system role has no creator");
    let plain = acme.owner().post(&roles, json!({"key": "plain"})).await.data();
    assert_eq!((&plain["display_name"], &plain["status"]), (&json!("plain"), &json!("open")));
}

#[tokio::test]
async fn a_role_key_holds_at_its_limits_and_not_one_past_them() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let create = async |key: Value| acme.owner().post(&format!("{P}/roles"), json!({"key": key})).await;

    for key in ["ab", "a1", "a.b-c_d", &"a".repeat(64)] {
        create(json!(key)).await.done();
    }
    for key in ["system.x", "platform_x", "1a", "Ab", "a b", "é-role", "a/b", "_a"] {
        assert_eq!(create(json!(key)).await.is(BAD_KEY).word(), "role_key", "{key}");
    }
    for key in [json!("a"), json!("a".repeat(65)), json!(""), json!(7), json!(null)] {
        assert_eq!(create(key).await.is(BAD_INPUT).fields(), ["body.key"]);
    }
}

#[tokio::test]
async fn all_faults_of_a_new_role_are_reported_together() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let reply =
        acme.owner().post(&format!("{P}/roles"), json!({"display_name": 1, "status": "ajar", "colour": "red"})).await;
    assert_eq!(reply.is(BAD_INPUT).fields(), ["body.colour", "body.display_name", "body.key", "body.status"]);
}

#[tokio::test]
async fn a_role_key_is_unique_in_its_organization_only() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let body = json!({"key": "editor"});

    acme.owner().post(&format!("{P}/roles"), body.clone()).await.done();
    assert_eq!(acme.owner().post(&format!("{P}/roles"), body.clone()).await.is(EXISTS).word(), "role_exists");
    acme.owner().post(&format!("{P}/roles"), json!({"key": "viewer"})).await.is(EXISTS);
    bolt.owner().post(&format!("{P}/roles"), body).await.done();
}

#[tokio::test]
async fn a_role_can_be_renamed_and_closed_but_keeps_its_key() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let role = acme.role("editor", &[]).await;

    let renamed =
        acme.owner().patch(&role_url(&role), json!({"display_name": "Editors", "status": "close"})).await.data();

    assert_eq!((&renamed["display_name"], &renamed["status"]), (&json!("Editors"), &json!("close")));
    assert_eq!(renamed["key"], json!("editor"));
    assert!(renamed["update_at"].as_i64() >= renamed["create_at"].as_i64());
    let reply = acme.owner().patch(&role_url(&role), json!({"key": "other", "status": "shut"})).await;
    assert_eq!(reply.is(BAD_INPUT).fields(), ["body.key", "body.status"]);
    assert_eq!(acme.owner().get(&role_url(&role)).await.data(), renamed);
}

#[tokio::test]
async fn a_system_role_can_be_renamed_but_neither_closed_nor_deleted() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    for key in ["tenant_owner", "tenant_admin", "member_manager", "member", "viewer"] {
        let url = role_url(&acme.role_id(key).await);
        acme.owner().patch(&url, json!({"status": "close"})).await.is(SYSTEM);
        acme.owner().delete(&url).await.is(SYSTEM);
        let renamed = acme.owner().patch(&url, json!({"display_name": "Ours"})).await.data();
        assert_eq!((&renamed["display_name"], &renamed["status"]), (&json!("Ours"), &json!("open")), "{key}");
    }
    let owner = acme.role_id("tenant_owner").await;
    acme.owner().put(&ticks_url(&owner), json!({"permission_ids": []})).await.is(SYSTEM);
}

#[tokio::test]
async fn a_role_that_is_used_cannot_be_deleted() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (role, member) = (acme.role("editor", &[]).await, acme.member().await);

    acme.assign(&member.uid, &role).await;
    acme.owner().delete(&role_url(&role)).await.is(IN_USE);
    acme.owner().delete(&format!("{}/{role}", roles_url(&member.uid))).await.done();
    map(&acme, "ldap", "editors", "editor").await.done();
    acme.owner().delete(&role_url(&role)).await.is(IN_USE);
    acme.owner().delete(&format!("{P}/role-mappings?external_source=ldap&external_key=editors")).await.done();

    let gone = acme.owner().delete(&role_url(&role)).await;
    gone.done();
    assert!(gone.body.get("data").is_none(), "no payload");
    acme.owner().get(&role_url(&role)).await.is(NOT_FOUND);
    acme.owner().delete(&role_url(&role)).await.is(NOT_FOUND);
}

#[tokio::test]
async fn holders_of_a_role_are_listed_in_pages() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let role = acme.role("editor", &[]).await;
    let members = [acme.member().await.uid, acme.member().await.uid, acme.member().await.uid];
    for uid in &members {
        acme.assign(uid, &role).await;
    }
    let get = async |query: &str| acme.owner().get(&format!("{}/users?{query}", role_url(&role))).await;

    let page = get("limit=2&offset=1").await.data();
    assert_eq!(fields(&page), ["items", "limit", "offset", "total"]);
    assert_eq!(each(&page["items"], "uid"), [&*members[1], &*members[2]]);
    assert_eq!(fields(&page["items"][0]), ["create_at", "source", "uid"]);
    assert_eq!((&page["total"], &page["limit"], &page["offset"]), (&json!(3), &json!(2), &json!(1)));
    assert_eq!(get("limit=900").await.data()["limit"], json!(200));
    assert_eq!(get("limit=-1").await.is(BAD_INPUT).fields(), ["query.limit"]);
}

#[tokio::test]
async fn the_number_of_roles_of_an_organization_is_limited_by_a_setting() {
    let site = Site::with("[limits]\nroles = 6\nrole_mappings = 1\n").await;
    let acme = site.organization("acme").await;

    acme.role("sixth", &[]).await;
    let reply = acme.owner().post(&format!("{P}/roles"), json!({"key": "seventh"})).await;

    assert_eq!(reply.is(BAD_INPUT).fields(), ["body.key"]);
    map(&acme, "ldap", "a", "sixth").await.done();
    map(&acme, "ldap", "a", "viewer").await.done();
    assert_eq!(map(&acme, "ldap", "b", "sixth").await.is(BAD_INPUT).fields(), ["body.external_key"]);
}

// ── permissions of a role ──

#[tokio::test]
async fn ancestors_are_implied_shown_in_menus_and_never_authorize_their_own_path() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    let member = acme.member_with(&["video.item.delete"]).await;
    let role = acme.admin().get(&roles_url(&member.uid)).await.data()["user_roles"][0]["role_id"]
        .as_str()
        .expect("id")
        .to_owned();
    let allowed = async |method: &str| {
        acme.check(json!({"uid": member.uid, "method": method, "path": "/videos/7"})).await["allow"] == true
    };

    let implied: BTreeSet<String> = ["video", "video.item", "video.item.delete"].map(String::from).into();
    assert_eq!(ticks(&acme, &role).await, implied);
    assert!(allowed("DELETE").await && !allowed("GET").await);
    assert!(!holds(&acme, &member.uid, "video.item").await);

    let shown = acme.owner().get(&ticks_url(&role)).await.data();
    let marked = shown["permissions"].as_array().expect("permissions").iter().filter(|node| node["implied"] == true);
    assert_eq!(marked.map(|node| &node["id"]).collect::<Vec<_>>(), ["video", "video.item"]);

    // A list that was read can be sent back: implied permissions stay implied.
    let read: Vec<String> = ticks(&acme, &role).await.into_iter().collect();
    acme.owner().put(&ticks_url(&role), json!({"permission_ids": read})).await.done();
    assert_eq!(ticks(&acme, &role).await, implied);
    assert!(allowed("DELETE").await && !allowed("GET").await);

    // Sent alone, the permission is ticked.
    acme.owner().put(&ticks_url(&role), json!({"permission_ids": ["video.item"]})).await.done();
    assert!(!allowed("DELETE").await && allowed("GET").await);
    acme.owner().put(&ticks_url(&role), json!({"permission_ids": []})).await.done();
    assert_eq!(ticks(&acme, &role).await, BTreeSet::new());
}

#[tokio::test]
async fn one_unknown_permission_is_not_found_and_nothing_changes() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    let role = acme.role("editor", &["video.list"]).await;
    let before = site.last_audit_entry().await["id"].clone();

    let reply = acme.owner().put(&ticks_url(&role), json!({"permission_ids": ["video.item", "video.nowhere"]})).await;

    assert_eq!(reply.is(NOT_FOUND).word(), "permission_not_found");
    assert_eq!(ticks(&acme, &role).await, ["video", "video.list"].map(String::from).into());
    assert_eq!(site.last_audit_entry().await["id"], before);
    acme.owner().put(&ticks_url("nobody"), json!({"permission_ids": []})).await.is(NOT_FOUND);
    let reply = acme.owner().put(&ticks_url(&role), json!({"permission_ids": "video"})).await;
    assert_eq!(reply.is(BAD_INPUT).fields(), ["body.permission_ids"]);
    acme.owner().put(&ticks_url(&role), json!({})).await.is(BAD_INPUT);
}

#[tokio::test]
async fn a_set_of_permissions_with_an_outdated_version_is_not_overwritten() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    let role = acme.role("editor", &["video.list"]).await;
    let read = acme.owner().get(&ticks_url(&role)).await;
    let tag = read.header("etag").expect("a tag").to_owned();
    let put = async |tag: &str, name: &str| {
        acme.owner().with("if-match", tag).put(&ticks_url(&role), json!({"permission_ids": [name]})).await
    };

    let first = put(&tag, "video.item").await;
    first.done();
    assert_eq!(put(&tag, "report").await.is(10_310_000).word(), "version_stale");
    assert_eq!(ticks(&acme, &role).await, ["video", "video.item"].map(String::from).into());
    put(first.header("etag").expect("a tag"), "report").await.done();
    put("*", "video").await.done();
    acme.owner().with("if-match", "\"99\"").patch(&role_url(&role), json!({"display_name": "x"})).await.is(10_310_000);
}

#[tokio::test]
async fn a_role_takes_ten_thousand_permissions_and_not_one_more() {
    let site = Site::start().await;
    let names: Vec<String> = (0..10_001).map(|n| format!("many.p{n}")).collect();
    site.import(
        names
            .iter()
            .map(|name| json!({"name": name, "http_methods": "GET", "http_path": format!("/{name}")}))
            .collect(),
    )
    .await;
    let acme = site.organization("acme").await;
    let role = acme.role("all", &[]).await;

    let reply = acme.owner().put(&ticks_url(&role), json!({"permission_ids": names})).await;
    assert_eq!(reply.is(BAD_INPUT).fields(), ["body.permission_ids"]);
    acme.owner().put(&ticks_url(&role), json!({"permission_ids": names[..10_000]})).await.done();
    assert_eq!(ticks(&acme, &role).await.len(), 10_000);
}
