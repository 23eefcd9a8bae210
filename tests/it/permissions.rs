//! Catalog, roles, assignments, mappings: the fifteen operations of the gateway definition, and ours.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::site::{As, Member, Organization, Reply, Site};

const P: &str = "/api/v1/permissions";

const NOT_FOUND: u64 = 31_301_000;
const EXISTS: u64 = 31_303_000;
const SYSTEM: u64 = 31_309_000;
const IN_USE: u64 = 31_312_000;
const FORBIDDEN: u64 = 31_505_000;
const BAD_INPUT: u64 = 10_101_000;
const BAD_KEY: u64 = 31_101_000;
const BAD_CATALOG: u64 = 31_101_000;
const NO_ORGANIZATION: u64 = 31_301_000;
const UNKNOWN_TENANT: u64 = 31_501_000;

// ── helpers ──

/// The names of an object's fields, sorted.
fn fields(object: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// One field of each item of a list.
fn each<'v>(list: &'v Value, field: &str) -> Vec<&'v str> {
    list.as_array().expect("a list").iter().map(|item| item[field].as_str().expect("text")).collect()
}

fn sorted<'v>(list: &'v Value, field: &str) -> BTreeSet<&'v str> {
    each(list, field).into_iter().collect()
}

fn role_url(id: &str) -> String {
    format!("{P}/roles/{id}")
}

fn ticks_url(role: &str) -> String {
    format!("{P}/roles/{role}/permissions")
}

fn roles_url(uid: &str) -> String {
    format!("{P}/users/{uid}/roles")
}

fn sync_url(uid: &str) -> String {
    format!("{P}/users/{uid}/roles/sync")
}

/// A small catalog: two categories with their permissions.
fn videos() -> Value {
    json!([
        {"name": "video"},
        {"name": "video.list", "parent": "video", "http_methods": "GET", "http_path": "/videos", "type": "frontend_user"},
        {"name": "video.item", "parent": "video", "http_methods": "GET", "http_path": "/videos/:id"},
        {"name": "video.item.delete", "parent": "video.item", "http_methods": "DELETE", "http_path": "/videos/:id"},
        {"name": "report"},
        {"name": "report.read", "parent": "report", "http_methods": "GET", "http_path": "/reports", "status": "close"},
    ])
}

async fn ticks(organization: &Organization<'_>, role: &str) -> BTreeSet<String> {
    let held = organization.admin().get(&ticks_url(role)).await.data();
    each(&held["permissions"], "id").into_iter().map(str::to_owned).collect()
}

async fn keys_of(organization: &Organization<'_>, uid: &str) -> BTreeSet<(String, String)> {
    let held = organization.admin().get(&roles_url(uid)).await.data();
    let text = |role: &Value, field: &str| role[field].as_str().expect("text").to_owned();
    held["user_roles"]
        .as_array()
        .expect("roles")
        .iter()
        .map(|role| (text(role, "role_key"), text(role, "source")))
        .collect()
}

async fn holds(organization: &Organization<'_>, uid: &str, permission: &str) -> bool {
    organization.check(json!({"uid": uid, "permission": permission})).await["allow"] == true
}

async fn map(organization: &Organization<'_>, source: &str, key: &str, role: &str) -> Reply {
    let body = json!({"external_source": source, "external_key": key, "internal_role_key": role});
    organization.admin().put(&format!("{P}/role-mappings"), body).await
}

/// A member of the organization `platform` who holds exactly these permissions.
pub async fn platform_member<'s>(site: &'s Site, permissions: &[&str]) -> Member<'s> {
    let admin = site.admin().with("x-tenant-id", "platform");
    let member = site.member().await;
    let platform = site.admin().get("/admin/organizations?keyword=platform").await.data()["items"][0]["id"].clone();
    admin
        .post(&format!("/admin/members/{}/organizations/{}", member.uid, platform.as_str().expect("id")), json!({}))
        .await
        .done();
    let key = format!("r{}", &uuid::Uuid::now_v7().simple().to_string()[20..]);
    let role = admin.post(&format!("{P}/roles"), json!({"key": key})).await.data();
    let role = role["id"].as_str().expect("id");
    admin.put(&ticks_url(role), json!({"permission_ids": permissions})).await.done();
    admin.post(&roles_url(&member.uid), json!({"role_id": role})).await.done();
    member
}

async fn import(caller: &As<'_>, query: &str, document: Value) -> Reply {
    caller.put(&format!("{P}/catalog{query}"), document).await
}

// ── catalog ──

#[tokio::test]
async fn the_catalog_is_a_list_or_a_tree_and_can_be_filtered() {
    let site = Site::start().await;
    site.import(videos()).await;
    let anybody = site.member().await;
    let get = async |query: &str| anybody.caller().get(&format!("{P}/catalog?app=main&{query}")).await.data();

    let list = get("").await;
    assert_eq!(fields(&list), ["list"]);
    assert_eq!(
        each(&list["list"], "id"),
        ["video", "video.list", "video.item", "video.item.delete", "report", "report.read"]
    );
    assert_eq!(
        list["list"][1],
        json!({"id": "video.list", "parent": "video", "name": "video.list", "http_methods": "GET", "http_path": "/videos",
            "status": "open", "type": "frontend_user"})
    );
    assert_eq!(list["list"][0], json!({"id": "video", "name": "video", "status": "open", "type": "backend_user"}));
    assert_eq!(each(&get("status=close").await["list"], "id"), ["report.read"]);
    assert_eq!(each(&get("type=frontend_user&status=open").await["list"], "id"), ["video.list"]);

    let tree = get("tree=true").await;
    assert_eq!(fields(&tree), ["tree"]);
    assert_eq!(each(&tree["tree"], "id"), ["video", "report"]);
    assert_eq!(each(&tree["tree"][0]["children"], "id"), ["video.list", "video.item"]);
    assert_eq!(tree["tree"][0]["children"][1]["children"][0]["id"], "video.item.delete");
}

#[tokio::test]
async fn all_faults_of_a_catalog_filter_are_reported_together() {
    let site = Site::start().await;
    let reply = site.admin().get(&format!("{P}/catalog?status=ajar&type=robot&tree=perhaps")).await;
    assert_eq!(reply.is(BAD_INPUT).fields(), ["query.status", "query.tree", "query.type"]);
}

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

// ── assignments ──

#[tokio::test]
async fn an_assignment_has_the_fields_of_the_definition() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (role, member) = (acme.role("editor", &[]).await, acme.member().await);

    let made = acme.owner().post(&roles_url(&member.uid), json!({"role_id": role})).await.data();

    let all =
        ["create_at", "id", "role_display_name", "role_id", "role_key", "source", "tenant_id", "uid", "update_at"];
    assert_eq!(fields(&made), all);
    assert_eq!(
        (&made["uid"], &made["role_id"], &made["tenant_id"]),
        (&json!(member.uid), &json!(role), &json!(acme.id))
    );
    assert_eq!(
        (&made["role_key"], &made["role_display_name"], &made["source"]),
        (&json!("editor"), &json!("editor"), &json!("manual"))
    );
    assert_eq!(acme.owner().get(&roles_url(&member.uid)).await.data(), json!({"user_roles": [made]}));
    let again = acme.owner().post(&roles_url(&member.uid), json!({"role_id": role})).await;
    assert_eq!(again.is(EXISTS).word(), "role_already_assigned");
}

#[tokio::test]
async fn unknown_members_and_roles_cannot_be_assigned() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (role, member) = (acme.role("editor", &[]).await, acme.member().await);
    let unknown = uuid::Uuid::now_v7().to_string();
    let assign = async |uid: &str, body: Value| acme.owner().post(&roles_url(uid), body).await;

    assert_eq!(assign(&member.uid, json!({"role_id": ""})).await.is(BAD_INPUT).fields(), ["body.role_id"]);
    for id in [unknown.as_str(), "no-id"] {
        assert_eq!(assign(&member.uid, json!({"role_id": id})).await.is(NOT_FOUND).word(), "role_not_found");
    }
    for uid in [unknown.as_str(), "no-id", &site.member().await.uid] {
        assert_eq!(assign(uid, json!({"role_id": role})).await.is(NOT_FOUND).word(), "subject_not_found");
        assert_eq!(acme.owner().get(&roles_url(uid)).await.data(), json!({"user_roles": []}));
        acme.owner().delete(&format!("{}/{role}", roles_url(uid))).await.is(NOT_FOUND);
    }
    assert_eq!(assign(&member.uid, json!({})).await.is(BAD_INPUT).fields(), ["body.role_id"]);
    assert_eq!(
        assign(&member.uid, json!({"role_id": role, "source": "fax"})).await.is(BAD_INPUT).fields(),
        ["body.source"]
    );
}

#[tokio::test]
async fn a_role_is_revoked_from_all_its_sources() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (role, member) = (acme.role("editor", &[]).await, acme.member().await);
    for source in ["manual", "zitadel", "ldap", "scim"] {
        acme.owner().post(&roles_url(&member.uid), json!({"role_id": role, "source": source})).await.done();
    }
    assert_eq!(keys_of(&acme, &member.uid).await.len(), 4);

    let url = format!("{}/{role}", roles_url(&member.uid));
    acme.owner().delete(&url).await.done();

    assert_eq!(keys_of(&acme, &member.uid).await.len(), 0);
    assert_eq!(acme.owner().delete(&url).await.is(NOT_FOUND).word(), "assignment_not_found");
}

#[tokio::test]
async fn the_last_owner_cannot_be_removed() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let first = acme.owner().get("/me").await.data()["uid"].as_str().expect("uid").to_owned();
    let owner = acme.role_id("tenant_owner").await;
    let url = |uid: &str| format!("{}/{owner}", roles_url(uid));

    assert_eq!(acme.owner().delete(&url(&first)).await.is(SYSTEM).word(), "last_owner");
    let second = acme.member_with_role("tenant_owner").await;
    site.admin().post(&format!("/admin/members/{}/deactivate", second.uid), json!({})).await.done();
    acme.owner().delete(&url(&first)).await.is(SYSTEM);
    site.admin().post(&format!("/admin/members/{}/activate", second.uid), json!({})).await.done();
    acme.owner().delete(&url(&first)).await.done();
    assert_eq!(keys_of(&acme, &first).await.len(), 0);
    acme.admin().delete(&format!("/admin/members/{}/organizations/{}", second.uid, acme.id)).await.is(SYSTEM);
    site.admin().post(&format!("/admin/members/{}/deactivate", second.uid), json!({})).await.is(SYSTEM);
    site.admin().delete(&format!("/admin/members/{}", second.uid)).await.is(SYSTEM);
}

#[tokio::test]
async fn an_owner_is_assigned_manually_and_not_removed_by_a_sync() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let first = acme.owner().get("/me").await.data()["uid"].as_str().expect("uid").to_owned();
    let owner = acme.role_id("tenant_owner").await;

    for source in ["zitadel", "ldap", "scim"] {
        acme.owner().post(&roles_url(&first), json!({"role_id": owner, "source": source})).await.is(SYSTEM);
        acme.owner().post(&sync_url(&first), json!({"source": source, "external_keys": []})).await.done();
    }

    assert_eq!(keys_of(&acme, &first).await, [("tenant_owner".into(), "manual".into())].into());
}

#[tokio::test]
async fn a_source_other_than_manual_needs_the_right_to_sync() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (role, member) = (acme.role("editor", &[]).await, acme.member().await);
    let plain = acme.member_with(&["roster.assignment.create"]).await;
    let syncing = acme.member_with(&["roster.assignment.create", "roster.assignment.sync"]).await;
    let body = json!({"role_id": role, "source": "ldap"});

    plain.caller().post(&roles_url(&member.uid), body.clone()).await.is(FORBIDDEN);
    plain.caller().post(&roles_url(&member.uid), json!({"role_id": role, "source": "manual"})).await.done();
    syncing.caller().post(&roles_url(&member.uid), body).await.done();
    let both = [("editor".into(), "ldap".into()), ("editor".into(), "manual".into())];
    assert_eq!(keys_of(&acme, &member.uid).await, both.into());
}

// ── mappings ──

#[tokio::test]
async fn a_mapping_has_the_fields_of_the_definition_and_is_replaced_not_duplicated() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (editor, author) = (acme.role("editor", &[]).await, acme.role("author", &[]).await);
    acme.owner().get(&role_url(&editor)).await.done();

    let first = map(&acme, "zitadel", "staff", "editor").await.data();
    let second = map(&acme, "zitadel", "staff", "author").await.data();

    let all = [
        "create_at",
        "external_key",
        "external_source",
        "id",
        "internal_role_id",
        "internal_role_key",
        "tenant_id",
        "update_at",
    ];
    assert_eq!(fields(&first), all);
    assert_eq!((&first["external_source"], &first["external_key"]), (&json!("zitadel"), &json!("staff")));
    assert_eq!((&first["internal_role_key"], &first["internal_role_id"]), (&json!("editor"), &json!(editor)));
    assert_eq!((&second["id"], &second["create_at"]), (&first["id"], &first["create_at"]));
    assert_eq!((&second["internal_role_key"], &second["internal_role_id"]), (&json!("author"), &json!(author)));
    let list = acme.owner().get(&format!("{P}/role-mappings")).await.data();
    assert_eq!(list, json!({"mappings": [second], "total": 1, "offset": 0, "limit": 50}));
}

#[tokio::test]
async fn mappings_are_listed_by_source_and_in_pages() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    acme.role("editor", &[]).await;
    for (source, key) in [("ldap", "a"), ("ldap", "b"), ("ldap", "c"), ("scim", "a"), ("zitadel", "a")] {
        map(&acme, source, key, "editor").await.done();
    }
    let get = async |query: &str| acme.owner().get(&format!("{P}/role-mappings?{query}")).await;

    let page = get("source=ldap&limit=2&offset=1").await.data();
    assert_eq!(each(&page["mappings"], "external_key"), ["b", "c"]);
    assert_eq!((&page["total"], &page["offset"], &page["limit"]), (&json!(3), &json!(1), &json!(2)));
    assert_eq!(get("").await.data()["total"], json!(5));
    assert_eq!(get("limit=1000").await.data()["limit"], json!(200));
    assert_eq!(get("source=fax&limit=x").await.is(BAD_INPUT).fields(), ["query.limit", "query.source"]);
}

#[tokio::test]
async fn a_mapping_is_deleted_by_body_or_by_query() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    acme.role("editor", &[]).await;
    map(&acme, "ldap", "a b&c", "editor").await.done();
    map(&acme, "ldap", "d", "editor").await.done();
    let (owner, url) = (acme.owner(), format!("{P}/role-mappings"));
    let body = json!({"external_source": "ldap", "external_key": "d"});

    owner.delete(&format!("{url}?external_source=ldap&external_key=a%20b%26c")).await.done();
    owner.send(Method::DELETE, &url, Some(body.clone())).await.done();
    let gone = owner.send(Method::DELETE, &url, Some(body)).await;
    assert_eq!(gone.is(NOT_FOUND).word(), "mapping_not_found");
    assert_eq!(owner.get(&url).await.data()["total"], json!(0));
    owner.delete(&url).await.is(BAD_INPUT);
    let faulty = owner.send(Method::DELETE, &url, Some(json!({"external_source": "fax", "x": 1}))).await;
    assert_eq!(faulty.is(BAD_INPUT).fields(), ["body.external_key", "body.external_source", "body.x"]);
}

#[tokio::test]
async fn a_mapping_names_neither_the_owner_role_nor_an_unknown_role() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    map(&acme, "ldap", "boss", "tenant_owner").await.is(SYSTEM);
    assert_eq!(map(&acme, "ldap", "boss", "nowhere").await.is(NOT_FOUND).word(), "role_not_found");
    assert_eq!(map(&acme, "manual", "staff", "viewer").await.is(BAD_INPUT).fields(), ["body.external_source"]);
    assert_eq!(acme.owner().get(&format!("{P}/role-mappings")).await.data()["total"], json!(0));
}

// ── sync ──

#[tokio::test]
async fn a_sync_changes_only_assignments_of_its_own_source() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    for key in ["one", "two", "three"] {
        let role = acme.role(key, &[]).await;
        map(&acme, "ldap", key, key).await.done();
        for source in ["manual", "scim"] {
            acme.owner().post(&roles_url(&member.uid), json!({"role_id": role, "source": source})).await.done();
        }
    }
    let others = keys_of(&acme, &member.uid).await;
    let sync = async |keys: Value| {
        acme.owner().post(&sync_url(&member.uid), json!({"source": "ldap", "external_keys": keys})).await.data()
    };

    assert_eq!(
        sync(json!(["one", "two"])).await,
        json!({"added": ["one", "two"], "removed": [], "kept": [], "unknown": []})
    );
    assert_eq!(
        sync(json!(["two", "three"])).await,
        json!({"added": ["three"], "removed": ["one"], "kept": ["two"], "unknown": []})
    );
    assert_eq!(sync(json!([])).await, json!({"added": [], "removed": ["three", "two"], "kept": [], "unknown": []}));
    assert_eq!(keys_of(&acme, &member.uid).await, others);
}

#[tokio::test]
async fn a_dry_sync_reports_the_changes_and_makes_none() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (role, member) = (acme.role("one", &[]).await, acme.member().await);
    acme.role("two", &[]).await;
    map(&acme, "scim", "two", "two").await.done();
    acme.owner().post(&roles_url(&member.uid), json!({"role_id": role, "source": "scim"})).await.done();
    let before = site.last_audit_entry().await["id"].clone();

    let body = json!({"source": "scim", "external_keys": ["two"], "dry_run": true});
    let synced = acme.owner().post(&sync_url(&member.uid), body).await.data();

    assert_eq!(synced, json!({"added": ["two"], "removed": ["one"], "kept": [], "unknown": []}));
    assert_eq!(keys_of(&acme, &member.uid).await, [("one".into(), "scim".into())].into());
    assert_eq!(site.last_audit_entry().await["id"], before);
}

#[tokio::test]
async fn a_sync_skips_closed_roles() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (role, member) = (acme.role("one", &[]).await, acme.member().await);
    map(&acme, "oidc", "one", "one").await.done();
    acme.owner().patch(&role_url(&role), json!({"status": "close"})).await.done();

    let synced =
        acme.owner().post(&sync_url(&member.uid), json!({"source": "oidc", "external_keys": ["one"]})).await.data();

    assert_eq!(synced, json!({"added": [], "removed": [], "kept": [], "unknown": []}));
    assert_eq!(keys_of(&acme, &member.uid).await.len(), 0);
}

#[tokio::test]
async fn a_client_with_the_scope_syncs_in_the_tenant_it_names() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    acme.role("one", &["video.list"]).await;
    map(&acme, "ldap", "one", "one").await.done();
    let client = site.client(&["permissions:write"]).await;
    let body = json!({"source": "ldap", "external_keys": ["one"]});

    assert_eq!(
        client.clone().post(&sync_url(&member.uid), body.clone()).await.is(BAD_INPUT).fields(),
        ["header.X-Tenant-ID"]
    );
    client.clone().with("x-tenant-id", "nowhere").post(&sync_url(&member.uid), body.clone()).await.is(NO_ORGANIZATION);
    client.with("x-tenant-id", "acme").post(&sync_url(&member.uid), body).await.done();
    assert_eq!(keys_of(&acme, &member.uid).await, [("one".into(), "ldap".into())].into());
}

#[tokio::test]
async fn invalid_syncs_are_refused() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    let sync = async |uid: &str, body: Value| acme.owner().post(&sync_url(uid), body).await;

    assert_eq!(
        sync(&member.uid, json!({"source": "manual", "external_keys": []})).await.is(BAD_INPUT).fields(),
        ["body.source"]
    );
    assert_eq!(
        sync("no-id", json!({"source": "ldap", "external_keys": []})).await.is(NOT_FOUND).word(),
        "subject_not_found"
    );
    assert_eq!(sync(&member.uid, json!({"source": "ldap"})).await.is(BAD_INPUT).fields(), ["body.external_keys"]);
    let many: Vec<String> = (0..1_001).map(|n| format!("key{n}")).collect();
    sync(&member.uid, json!({"source": "ldap", "external_keys": many})).await.is(BAD_INPUT);
    assert_eq!(
        sync(&member.uid, json!({"source": "ldap", "external_keys": many[1..]})).await.data()["unknown"]
            .as_array()
            .map(Vec::len),
        Some(1_000)
    );
}

// ── nobody grants more than they hold ──

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
    let clerk = platform_member(&site, &["roster.grant.create", "roster.grant.delete"]).await;
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
    let granter = platform_member(&site, &["roster.grant.create"]).await;
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
    let keeper = platform_member(&site, &["roster.client.create", "roster.client.update", "roster.member.list"]).await;
    let body = |scope: &str| json!({"name": "robot", "scopes": [scope]});
    let made = site.admin().post("/admin/api-clients", body("audit:read")).await.data();
    let url = format!("/admin/api-clients/{}", made["client_key"].as_str().expect("key"));

    for scope in ["*", "members:write", "permissions:write", "audit:read"] {
        keeper.caller().post("/admin/api-clients", body(scope)).await.is(32_505_000);
        keeper.caller().patch(&url, json!({"scopes": [scope, "members:write"]})).await.is(32_505_000);
    }
}

// ── closing and opening ──

#[tokio::test]
async fn closed_permissions_have_no_effect_until_they_are_opened_again() {
    let site = Site::start().await;
    let all_open_but = |closed: &str| {
        let mut entries = videos();
        for entry in entries.as_array_mut().expect("a list") {
            entry["status"] = if entry["name"] == closed { json!("close") } else { json!("open") };
        }
        entries
    };
    site.import(all_open_but("")).await;
    let acme = site.organization("acme").await;
    let (role, member) = (acme.role("editor", &["video.item.delete", "video.list"]).await, acme.member().await);
    acme.assign(&member.uid, &role).await;
    let held =
        async || (holds(&acme, &member.uid, "video.item.delete").await, holds(&acme, &member.uid, "video.list").await);
    let listed = ticks(&acme, &role).await;

    assert_eq!(held().await, (true, true));
    acme.owner().patch(&role_url(&role), json!({"status": "close"})).await.done();
    assert_eq!(held().await, (false, false), "the role");
    acme.owner().patch(&role_url(&role), json!({"status": "open"})).await.done();
    for (name, expected) in [
        ("video.list", (true, false)),
        ("video.item", (false, true)),
        ("video", (false, false)),
        ("report", (true, true)),
    ] {
        site.import(all_open_but(name)).await;
        assert_eq!(held().await, expected, "{name}");
        assert_eq!(ticks(&acme, &role).await, listed, "ticks stay");
        site.import(all_open_but("")).await;
        assert_eq!(held().await, (true, true), "{name} open again");
    }
}

#[tokio::test]
async fn an_import_without_a_status_leaves_it_unchanged() {
    let site = Site::start().await;
    site.import(json!([{"name": "a", "status": "close"}, {"name": "b"}])).await;
    assert_eq!(
        site.import(json!([{"name": "a"}, {"name": "b"}])).await,
        json!({"added": [], "changed": [], "orphaned": []})
    );
    let closed = site.admin().get(&format!("{P}/catalog?app=main&status=close")).await.data();
    assert_eq!(each(&closed["list"], "id"), ["a"]);
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

// ── reload ──

#[tokio::test]
async fn a_reload_reports_what_it_rebuilt_and_changes_nothing() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let url = format!("{P}/policy/reload");

    let all = site.admin().post(&url, json!({})).await.data();
    let own = acme.owner().post(&url, json!({})).await.data();

    assert_eq!(fields(&all), ["changed", "new_epoch", "old_epoch", "tenant", "ts"]);
    assert_eq!((&all["tenant"], &all["changed"]), (&json!("*"), &json!(false)));
    assert_eq!(all["old_epoch"], all["new_epoch"]);
    assert_eq!(own["tenant"], json!(acme.id));
    assert_eq!(acme.owner().post(&url, json!({"tenant_id": "acme"})).await.data()["tenant"], json!(acme.id));
    assert_eq!(site.admin().post(&url, json!({"tenant_id": bolt.id})).await.data()["tenant"], json!(bolt.id));
    acme.owner().post(&url, json!({"tenant_id": bolt.id})).await.is(UNKNOWN_TENANT);
    acme.owner().post(&url, json!({"tenant_id": "nowhere"})).await.is(UNKNOWN_TENANT);
    acme.owner().post(&url, json!({"tenant_id": 7})).await.is(BAD_INPUT);
}

#[tokio::test]
async fn a_reload_applies_rows_changed_beside_the_server_and_an_owner_s_reloads_are_throttled() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let url = format!("{P}/policy/reload");
    let leave = |organization: &str, uid: &str| {
        let place = (
            uuid::Uuid::parse_str(organization).expect("an id").into_bytes(),
            uuid::Uuid::parse_str(uid).expect("an id").into_bytes(),
        );
        site.write_rows(|rows| {
            rows.execute("delete from role_assignments where organization_id = ?1 and member_id = ?2", place)?;
            rows.execute("delete from memberships where organization_id = ?1 and member_id = ?2", place)
        })
    };
    let (kim, lee) = (acme.member_with_role("viewer").await, bolt.member_with_role("viewer").await);
    let sees = async |member: &Member<'_>| site.bearer(&member.token).get(&format!("{P}/me")).await.status == 200;
    leave(&acme.id, &kim.uid);
    leave(&bolt.id, &lee.uid);
    assert!(sees(&kim).await && sees(&lee).await);

    let own = acme.owner().post(&url, json!({})).await.data();

    assert_eq!((&own["tenant"], &own["changed"]), (&json!(acme.id), &json!(true)));
    assert!(!sees(&kim).await && sees(&lee).await, "only the organization's own policy is reloaded");
    // Within the minimum interval the owner gets the same response; the site's administrator reloads again.
    assert_eq!(acme.owner().post(&url, json!({"tenant_id": "acme"})).await.data(), own);
    let all = site.admin().post(&url, json!({})).await.data();
    assert_eq!((&all["tenant"], &all["changed"]), (&json!("*"), &json!(true)));
    assert!(!sees(&lee).await);
    assert_eq!(site.last_audit_entry().await["action"], json!("policy.replace"));
}

// ── import ──

/// An OpenAPI document with this many operations, in the form that services publish.
fn openapi(operations: usize) -> Value {
    let mut paths = Map::new();
    for n in 0..operations {
        let (tag, path) = (["Users", "Event Manager", "Shares"][n % 3], format!("/things{}/{{id}}", n / 2));
        let method = if n % 2 == 0 { "get" } else { "delete" };
        let operation =
            json!({"tags": [tag], "operationId": format!("op{n}-ById"), "responses": {"200": {"description": "ok"}}});
        paths.entry(path).or_insert_with(|| json!({"parameters": [{"name": "id", "in": "path"}]}))[method] = operation;
    }
    json!({"openapi": "3.0.3", "info": {"title": "Files", "version": "2"}, "servers": [{"url": "https://files.example.org/api/v2"}], "paths": paths})
}

/// A document as YAML. JSON is YAML too, but real documents use indented blocks.
fn yaml(value: &Value, indent: usize) -> String {
    let pad = "  ".repeat(indent);
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().map(|(key, value)| format!("\n{pad}{}:{}", json!(key), yaml(value, indent + 1))).collect()
        }
        Value::Array(list) if !list.is_empty() => list.iter().map(|value| format!("\n{pad}- {value}")).collect(),
        other => format!(" {other}"),
    }
}

#[tokio::test]
async fn an_import_is_idempotent_and_reports_its_changes() {
    let site = Site::start().await;
    let first = site.import(videos()).await;
    assert_eq!(
        first["added"],
        json!(["report", "report.read", "video", "video.item", "video.item.delete", "video.list"])
    );
    assert_eq!((&first["changed"], &first["orphaned"]), (&json!([]), &json!([])));
    let epoch = site.admin().get(&format!("{P}/catalog")).await;
    assert_eq!(epoch.status, 200);
    let entry = site.last_audit_entry().await;
    assert_eq!(site.import(videos()).await, json!({"added": [], "changed": [], "orphaned": []}));
    assert_eq!(site.last_audit_entry().await, entry, "nothing changed");

    let next = json!([
        {"name": "video"},
        {"name": "video.list", "parent": "video", "http_methods": "GET|POST", "http_path": "/videos"},
        {"name": "video.new", "parent": "video", "http_methods": "PUT", "http_path": "/videos"},
    ]);
    let orphaned = json!(["report", "report.read", "video.item", "video.item.delete"]);
    let mut done = site.import(next).await;
    let notes = done.as_object_mut().expect("an object").remove("notes");
    assert_eq!(done, json!({"added": ["video.new"], "changed": ["video.list"], "orphaned": orphaned}));
    assert!(notes.is_some_and(|notes| notes[0].as_str().is_some_and(|note| note.contains("roles keep them"))));
}

#[tokio::test]
async fn an_orphan_allows_nothing_until_an_import_contains_it_again() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    let member = acme.member_with(&["video.list"]).await;
    assert!(holds(&acme, &member.uid, "video.list").await);

    site.import(json!([{"name": "video"}])).await;
    assert!(!holds(&acme, &member.uid, "video.list").await);
    assert_eq!(
        acme.check(json!({"uid": member.uid, "method": "GET", "path": "/videos"})).await["reason"],
        json!("unmapped_route")
    );
    let list = site.admin().get(&format!("{P}/catalog?app=main")).await.data();
    assert_eq!(each(&list["list"], "id"), ["video"]);

    assert_eq!(site.import(videos()).await["added"], json!([]));
    assert!(holds(&acme, &member.uid, "video.list").await, "the permission is still ticked");
}

#[tokio::test]
async fn an_import_changes_only_its_own_application() {
    let site = Site::start().await;
    site.import(videos()).await;
    let admin = site.admin();
    let body = json!({"app": "files", "prefix": "f", "permissions": [{"name": "a"}, {"name": "b", "parent": "a"}]});

    assert_eq!(
        import(&admin, "", body.clone()).await.data(),
        json!({"added": ["f.a", "f.b"], "changed": [], "orphaned": []})
    );
    let moved = import(&admin, "?prefix=g", body).await.data();
    assert_eq!((&moved["added"], &moved["orphaned"]), (&json!(["g.a", "g.b"]), &json!(["f.a", "f.b"])));
    assert_eq!(site.import(videos()).await, json!({"added": [], "changed": [], "orphaned": []}));
    let reply = import(&admin, "?app=files", json!({"permissions": [{"name": "video"}]})).await;
    assert_eq!(reply.is(EXISTS).word(), "permission_exists");
}

#[tokio::test]
async fn a_dry_import_changes_nothing() {
    let site = Site::start().await;
    let reply = import(&site.admin(), "?dry_run=true", json!({"permissions": [{"name": "a"}]})).await;
    assert_eq!(reply.data()["added"], json!(["a"]));
    assert_eq!(site.admin().get(&format!("{P}/catalog?app=main")).await.data()["list"], json!([]));
}

#[tokio::test]
async fn an_openapi_document_of_a_service_is_a_catalog() {
    let site = Site::start().await;
    let (admin, document) = (site.admin(), openapi(140));
    let url = format!("{P}/catalog?app=files&prefix=Files");

    let imported = admin.put(&url, document.clone()).await.data();
    let as_yaml = admin.send_raw(Method::PUT, &url, "application/yaml", yaml(&document, 0).into_bytes()).await.data();

    assert_eq!(imported["added"].as_array().map(Vec::len), Some(144), "operations, tags, and the top");
    assert_eq!(as_yaml, json!({"added": [], "changed": [], "orphaned": []}), "the same as YAML");
    let list = admin.get(&format!("{P}/catalog?app=files")).await.data();
    let names = sorted(&list["list"], "id");
    for name in [
        "files",
        "files.users",
        "files.event_manager",
        "files.shares",
        "files.users.op0_byid",
        "files.event_manager.op1_byid",
    ] {
        assert!(names.contains(name), "{name}");
    }
    let op = list["list"]
        .as_array()
        .expect("list")
        .iter()
        .find(|node| node["id"] == "files.event_manager.op1_byid")
        .expect("op");
    assert_eq!((&op["http_methods"], &op["http_path"]), (&json!("DELETE"), &json!("/api/v2/things0/{id}")));
    assert_eq!(op["parent"], json!("files.event_manager"));
    let acme = site.organization("acme").await;
    let member = acme.member_with(&["files.event_manager.op1_byid"]).await;
    let asked = json!({"uid": member.uid, "app": "files", "method": "DELETE", "path": "/api/v2/things0/9"});
    assert_eq!(acme.check(asked).await["allow"], json!(true));
}

#[tokio::test]
async fn our_own_catalog_form_is_accepted_as_yaml() {
    let site = Site::start().await;
    let text = "# ours\napp: files\npermissions:\n  - name: a\n  - name: a.read\n    parent: a\n    http_methods: GET|POST\n    http_path: /a/*rest\n";
    for kind in ["application/yaml", "application/x-yaml", "text/yaml; charset=utf-8"] {
        site.admin().send_raw(Method::PUT, &format!("{P}/catalog"), kind, text.into()).await.done();
    }
    let list = site.admin().get(&format!("{P}/catalog?app=files")).await.data();
    assert_eq!(each(&list["list"], "id"), ["a", "a.read"]);
}

#[tokio::test]
async fn an_ambiguous_import_is_refused_and_both_entries_are_named() {
    let site = Site::start().await;
    let entries = json!([
        {"name": "a.one", "http_methods": "GET|POST", "http_path": "/a/:id"},
        {"name": "a.two", "http_methods": "POST", "http_path": "/a/{key}"},
    ]);

    let reply = import(&site.admin(), "", json!({"permissions": entries})).await;

    assert_eq!(reply.is(BAD_CATALOG).word(), "ambiguous_catalog");
    assert_eq!(reply.fields(), ["body.permissions.1"]);
    let message = reply.body["fields"][0]["message"].as_str().expect("a message");
    assert!(message.contains("a.one") && message.contains("a.two"), "{message}");
    assert_eq!(site.admin().get(&format!("{P}/catalog?app=main")).await.data()["list"], json!([]));
    // In two applications the same route is two routes.
    import(&site.admin(), "?app=x", json!({"permissions": [entries[0]]})).await.done();
    import(&site.admin(), "?app=y", json!({"permissions": [entries[1]]})).await.done();
}

#[tokio::test]
async fn a_catalog_that_cannot_be_read_is_refused_with_the_reason() {
    let site = Site::start().await;
    let admin = site.admin();
    let url = format!("{P}/catalog");
    let raw = async |kind: &str, body: &str| admin.send_raw(Method::PUT, &url, kind, body.into()).await;

    for (document, faults) in [
        (json!({"app": "roster", "permissions": []}), vec!["body.app"]),
        (json!({"app": "a b", "permissions": []}), vec!["body.app"]),
        (
            json!({"permissions": [{"name": "roster.role.list"}, {"name": "roster.new"}]}),
            vec!["body.permissions.0", "body.permissions.1"],
        ),
        (json!({"permissions": [{"name": "a", "parent": "nowhere"}]}), vec!["body.permissions.0"]),
        (
            json!({"permissions": [{"name": "a", "parent": "b"}, {"name": "b", "parent": "a"}]}),
            vec!["body.permissions.0", "body.permissions.1"],
        ),
        (json!({"permissions": [{"name": "a"}, {"name": "a"}]}), vec!["body.permissions.1"]),
        (json!({"permissions": [{"name": "a", "http_path": "/a"}]}), vec!["body.permissions.0"]),
        (
            json!({"permissions": [{"name": "a", "http_methods": "get", "http_path": "/a//b"}]}),
            vec!["body.permissions.0", "body.permissions.0"],
        ),
        (
            json!({"permissions": [{"name": "a", "status": "ajar", "type": "robot", "x": 1}]}),
            vec!["body.permissions.0.status", "body.permissions.0.type", "body.permissions.0.x"],
        ),
        (json!({"colour": "red"}), vec!["body.colour", "body.permissions"]),
        (json!({"openapi": "2.9", "paths": {}}), vec!["body.openapi"]),
        (json!({"swagger": "2.0", "paths": {}}), vec!["body.swagger"]),
    ] {
        assert_eq!(import(&admin, "", document.clone()).await.is(BAD_CATALOG).fields(), faults, "{document}");
    }
    for kind in ["text/plain", "application/xml", "application/octet-stream", ""] {
        raw(kind, "{\"permissions\":[]}").await.is(10_115_000);
    }
    for body in ["", "{", "- a\n- b\n", "a: [", "{\"app\":\"x\",\"app\":\"y\",\"permissions\":[]}"] {
        assert_eq!(raw("application/yaml", body).await.is(BAD_INPUT).word(), "malformed_body", "{body}");
    }
}

#[tokio::test]
async fn a_catalog_over_its_limits_is_refused_as_a_whole() {
    let site = Site::with("[limits]\ncatalog_entries = 200\ncatalog_bytes = 4096\n").await;
    let own = site.admin().get(&format!("{P}/catalog")).await.data()["list"].as_array().map(Vec::len).expect("entries");
    let entries = |count: usize| -> Value { (0..count).map(|n| json!({"name": format!("p{n}")})).collect() };

    let reply = import(&site.admin(), "", json!({"permissions": entries(201 - own)})).await;
    assert_eq!(reply.is(BAD_INPUT).fields(), ["body"]);
    assert_eq!(site.import(entries(200 - own)).await["added"].as_array().map(Vec::len), Some(200 - own));
    let large = json!({"permissions": [{"name": "x".repeat(4096)}]});
    import(&site.admin(), "", large).await.is(10_113_000);
}

#[tokio::test]
async fn only_the_platform_imports_catalogs() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let body = json!({"permissions": []});
    import(&acme.owner(), "", body.clone()).await.is(FORBIDDEN);
    import(&site.client(&["*"]).await, "", body.clone()).await.is(31_501_000);
    import(&platform_member(&site, &["roster.policy.import_catalog"]).await.caller(), "", body).await.done();
}

#[tokio::test]
async fn the_limits_of_a_document_hold_for_json_and_yaml() {
    let site = Site::with("limits.document_depth = 4\nlimits.document_nodes = 12\n").await;
    let put = async |kind: &str, body: String| {
        let url = format!("{P}/catalog?dry_run=true");
        site.admin().send_raw(Method::PUT, &url, kind, body.into_bytes()).await
    };
    // The object, its list, and a permission with its name: four values and a depth of three.
    let names = |count: usize| (0..count).map(|n| json!({"name": format!("n{n}")})).collect::<Vec<_>>();
    let deep = |levels: usize| format!("{}\"x\"{}", "[".repeat(levels), "]".repeat(levels));
    for (fits, body, word) in [
        (true, json!({"permissions": names(5)}).to_string(), ""),
        (false, json!({"permissions": names(6)}).to_string(), "limits.document_nodes"),
        (false, format!("{{\"permissions\": {}}}", deep(4)), "limits.document_depth"),
    ] {
        for (kind, body) in [("application/json", body.clone()), ("application/yaml", format!("# YAML\n{body}"))] {
            let reply = put(kind, body.clone()).await;
            if fits {
                reply.done();
                continue;
            }
            assert_eq!(reply.is(BAD_INPUT).word(), "malformed_body");
            assert!(reply.body["message"].as_str().expect("a message").contains(word), "{kind}: {body}: {reply:?}");
        }
    }
    // A document of the maximum depth fails by its form, not by its depth.
    for kind in ["application/json", "application/yaml"] {
        let reply = put(kind, format!("{{\"permissions\": {}}}", deep(3))).await;
        assert_ne!(reply.word(), "malformed_body", "{kind}: {reply:?}");
    }
    // Documents that a parser would take very long to read or expand.
    let bomb = (1..30).fold("a0: &a0 [x]\n".to_owned(), |all, n| all + &format!("a{n}: &a{n} [*a{0}, *a{0}]\n", n - 1));
    for body in
        ["[".repeat(200_000), format!("a: {}", "[".repeat(200_000)), "- ".repeat(100_000), "{a: ".repeat(50_000), bomb]
    {
        assert_eq!(put("application/yaml", body).await.is(BAD_INPUT).word(), "malformed_body");
    }
}
