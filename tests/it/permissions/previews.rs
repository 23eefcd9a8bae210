//! Dry runs of a new set of permissions of a role.

use serde_json::{Value, json};

use super::{NOT_HELD, P, each, ticks_url, videos};
use crate::harness::callers::{As, Reply};
use crate::harness::organizations::Organization;
use crate::harness::site::Site;

async fn dry(caller: &As<'_>, role: &str, permissions: &[&str]) -> Reply {
    caller.put(&ticks_url(role), json!({"permission_ids": permissions, "dry_run": true})).await
}

async fn preview(caller: &As<'_>, role: &str, permissions: &[&str]) -> Value {
    let answer = dry(caller, role, permissions).await.data();
    assert_eq!(super::fields(&answer), ["preview"]);
    answer["preview"].clone()
}

/// The epoch, the number of audit entries and the rows of the role's permissions.
fn state(site: &Site) -> [i64; 4] {
    [
        "select epoch from site",
        "select max(id) from audit",
        "select count(*) from role_permissions",
        "select sum(permissions_version) from roles",
    ]
    .map(|sql| site.number(sql))
}

fn uids(affected: &Value) -> Vec<&str> {
    each(&affected["members"], "uid")
}

async fn member_with_roles(acme: &Organization<'_>, roles: &[&String]) -> String {
    let member = acme.member().await;
    for role in roles {
        acme.assign(&member.uid, role).await;
    }
    member.uid
}

#[tokio::test]
async fn a_preview_names_changes_and_members_and_changes_nothing() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    let editor = acme.role("editor", &["video.list", "report.read"]).await;
    let reader = acme.role("reader", &["video.item.delete"]).await;
    let backup = acme.role("backup", &["video.list"]).await;
    let only_editor = member_with_roles(&acme, &[&editor]).await;
    let with_delete = member_with_roles(&acme, &[&editor, &reader]).await;
    let with_list = member_with_roles(&acme, &[&editor, &backup]).await;
    member_with_roles(&acme, &[&reader]).await;
    let before = state(&site);

    let found = preview(&acme.owner(), &editor, &["video.item.delete"]).await;

    assert_eq!(found["added"], json!(["video.item.delete"]));
    assert_eq!(found["implied"], json!(["video.item"]));
    let mut removed: Vec<&str> =
        found["removed"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    removed.sort_unstable();
    assert_eq!(removed, ["report.read", "video.list"]);
    let mut gain = vec![only_editor.as_str(), with_list.as_str()];
    gain.sort_unstable();
    assert_eq!(found["members_who_gain"]["count"], 2);
    assert_eq!(uids(&found["members_who_gain"]), gain);
    let mut lose = vec![only_editor.as_str(), with_delete.as_str()];
    lose.sort_unstable();
    assert_eq!(found["members_who_lose"]["count"], 2);
    assert_eq!(uids(&found["members_who_lose"]), lose);
    assert!(found["members_who_gain"]["members"][0]["name"].is_string());
    assert_eq!(state(&site), before);

    // What the preview said happens.
    let done = acme.owner().put(&ticks_url(&editor), json!({"permission_ids": ["video.item.delete"]})).await;
    assert_eq!(done.data(), json!({}));
    assert_ne!(state(&site), before);
}

#[tokio::test]
async fn what_is_not_in_effect_concerns_nobody() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    let editor = acme.role("editor", &["video.list"]).await;
    member_with_roles(&acme, &[&editor]).await;

    // A closed permission, and the same set again.
    let closed = preview(&acme.owner(), &editor, &["video.list", "report.read"]).await;
    assert_eq!((&closed["added"], &closed["implied"]), (&json!(["report.read"]), &json!(["report"])));
    let same = preview(&acme.owner(), &editor, &["video.list"]).await;
    assert_eq!((&same["added"], &same["implied"], &same["removed"]), (&json!([]), &json!([]), &json!([])));
    // A closed role.
    acme.owner().patch(&super::role_url(&editor), json!({"status": "close"})).await.done();
    let none = preview(&acme.owner(), &editor, &["video.item"]).await;
    for found in [closed, same, none] {
        for side in ["members_who_gain", "members_who_lose"] {
            assert_eq!(found[side], json!({"count": 0, "members": []}), "{found}");
        }
    }
}

#[tokio::test]
async fn a_preview_names_twenty_members_and_counts_all() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    let editor = acme.role("editor", &[]).await;
    for count in 1..=21 {
        member_with_roles(&acme, &[&editor]).await;
        if count >= 20 {
            let found = preview(&acme.owner(), &editor, &["video.list"]).await;
            assert_eq!(found["members_who_gain"]["count"], count);
            assert_eq!(uids(&found["members_who_gain"]).len(), 20);
        }
    }
}

#[tokio::test]
async fn a_preview_needs_what_the_change_needs() {
    let site = Site::start().await;
    site.import(videos()).await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let editor = acme.role("editor", &["video.list"]).await;
    member_with_roles(&acme, &[&editor]).await;
    let viewer = acme.member_with_role("viewer").await;

    dry(&viewer.caller(), &editor, &[]).await.is(NOT_HELD);
    assert_eq!(dry(&bolt.owner(), &editor, &[]).await.word(), "role_not_found");
    assert_eq!(dry(&acme.owner(), &editor, &["video.none"]).await.word(), "permission_not_found");
    let owners = acme.role_id("tenant_owner").await;
    assert_eq!(dry(&acme.owner(), &owners, &[]).await.word(), "system_role");
    let stale = acme.owner().with("if-match", "\"77\"");
    assert_eq!(dry(&stale, &editor, &[]).await.status, 412);
    let list = format!("{P}/roles/{editor}/permissions");
    let version = acme.owner().get(&list).await.header("etag").expect("a version").to_owned();
    let fresh = dry(&acme.owner().with("if-match", &version), &editor, &[]).await;
    assert_eq!(fresh.header("etag"), Some(&*version), "a dry run leaves the version");

    // Names are for those who may list members.
    let granter = acme.member_with(&["roster.role.grant", "video.list"]).await;
    let found = preview(&granter.caller(), &editor, &[]).await;
    assert_eq!(super::fields(&found["members_who_lose"]["members"][0]), ["uid"]);
    let denied = dry(&granter.caller(), &editor, &["video.item"]).await;
    assert_eq!(denied.is(NOT_HELD).word(), "not_held");
}
