//! Members join organizations and leave them.

use serde_json::json;

use super::{NOBODYS_ID, audit_total};
use crate::harness::site::Site;

#[tokio::test]
async fn linking_gives_no_role_and_a_repeated_link_changes_nothing() {
    let site = Site::start().await;
    let (acme, member) = (site.organization("acme").await, site.member().await);
    let at = format!("/admin/members/{}/organizations/{}", member.uid, acme.id);
    let links = audit_total(&site, "member.link").await.as_u64().unwrap();

    let (once, twice) =
        (site.admin().post(&at, json!({})).await.data(), site.admin().post(&at, json!({})).await.data());

    assert_eq!((&once, &once["organization_id"]), (&twice, &json!(acme.id)));
    assert_eq!(audit_total(&site, "member.link").await, links + 1);
    let roles = acme.admin().get(&format!("/api/v1/permissions/users/{}/roles", member.uid)).await.data();
    assert_eq!(roles["user_roles"], json!([]));
}

#[tokio::test]
async fn only_the_platform_and_its_clients_link_members() {
    let site = Site::start().await;
    let (acme, member) = (site.organization("acme").await, site.member().await);
    let at = format!("/admin/members/{}/organizations/{}", member.uid, acme.id);
    let client = site.client(&["members:write"]).await;

    let by_owner = acme.owner().post(&at, json!({})).await;
    let elsewhere = client.clone().with("x-tenant-id", "platform").post(&at, json!({})).await;
    let in_tenant = client.clone().with("x-tenant-id", "acme").post(&at, json!({})).await;

    for refused in [by_owner, elsewhere, in_tenant] {
        assert_eq!(refused.is(29_505_000).word(), "forbidden");
    }
    client.post(&at, json!({})).await.done();
}

#[tokio::test]
async fn missing_members_and_organizations_cannot_be_linked() {
    let site = Site::start().await;
    let (acme, member) = (site.organization("acme").await, site.member().await);

    let no_member =
        site.admin().post(&format!("/admin/members/{NOBODYS_ID}/organizations/{}", acme.id), json!({})).await;
    let no_tenant = site.admin().post(&format!("/admin/members/{}/organizations/x", member.uid), json!({})).await;

    assert_eq!(no_member.is(29_301_000).word(), "member_not_found");
    assert_eq!(no_tenant.is(29_301_000).word(), "organization_not_found");
}

#[tokio::test]
async fn unlinking_removes_the_roles() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let viewer = acme.member_with_role("viewer").await;
    let at = format!("/admin/members/{}/organizations/{}", viewer.uid, acme.id);
    viewer.caller().get("/admin/members").await.done();

    assert_eq!(acme.owner().delete(&at).await.data()["deleted"], 1);

    assert_eq!(site.admin().delete(&at).await.data()["deleted"], 0);
    assert_eq!(viewer.caller().get("/admin/members").await.is(29_505_000).word(), "not_a_member");
    acme.link(&viewer.uid).await;
    assert_eq!(viewer.caller().get("/admin/members").await.is(29_505_000).word(), "forbidden");
}

#[tokio::test]
async fn the_last_owner_cannot_be_unlinked() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let owner = acme.owner().get("/me").await.data()["uid"].as_str().unwrap().to_owned();

    let reply = site.admin().delete(&format!("/admin/members/{owner}/organizations/{}", acme.id)).await;

    assert_eq!(reply.is(31_309_000).word(), "last_owner");
    acme.owner().get("/admin/members").await.done();
}

#[tokio::test]
async fn a_manager_cannot_unlink_a_member_with_more_rights() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (manager, admin) = (acme.member_with_role("member_manager").await, acme.member_with_role("tenant_admin").await);

    let reply = manager.caller().delete(&format!("/admin/members/{}/organizations/{}", admin.uid, acme.id)).await;

    assert_eq!(reply.is(29_505_000).word(), "not_held");
}
