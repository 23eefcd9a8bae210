//! Operations on members for the services of the site.

use serde_json::json;

use super::audit_total;
use crate::harness::site::{PASSWORD, Site};

#[tokio::test]
async fn a_subject_becomes_a_member_once() {
    let site = Site::start().await;
    let upsert = "/internal/users/upsert-by-sub";
    let body = json!({"sub": "sub-1", "username": "kim", "email": "kim@example.org", "display_name": "Kim"});

    let made = site.internal().post(upsert, body.clone()).await.data();
    let again = site.internal().post(upsert, body).await;
    let renamed = site.internal().post(upsert, json!({"sub": "sub-1", "display_name": "Kim L."})).await.data();

    assert_eq!((&again.data(), again.header("etag")), (&made, Some("\"1\"")));
    assert_eq!(
        (&renamed["uid"], &renamed["email"], &renamed["display_name"]),
        (&made["uid"], &made["email"], &json!("Kim L."))
    );
    assert_eq!(site.internal().get("/internal/members/by-sub/sub-1").await.data()["uid"], made["uid"]);
    assert_eq!(audit_total(&site, "member.upsert_by_sub").await, 2);
}

#[tokio::test]
async fn a_subject_is_never_linked_by_its_e_mail() {
    let site = Site::start().await;
    site.admin().post("/admin/members", json!({"email": "kim@example.org"})).await.done();

    let reply = site
        .internal()
        .post("/internal/users/upsert-by-sub", json!({"sub": "sub-1", "email": "KIM@example.org"}))
        .await;

    assert_eq!(reply.is(29_303_000).word(), "email_exists");
    assert_eq!(site.internal().get("/internal/members/by-sub/sub-1").await.is(29_301_000).word(), "member_not_found");
}

#[tokio::test]
async fn a_service_suspends_and_restores_by_subject() {
    let site = Site::start().await;
    let body = json!({"username": "kim", "authentik_sub": "sub-1", "password": PASSWORD});
    site.admin().post("/admin/members", body).await.done();
    let kim = site.bearer(&site.token("kim", PASSWORD).await);
    let upsert = |is_active: bool| json!({"sub": "sub-1", "is_active": is_active});

    let suspended = site.internal().post("/internal/users/upsert-by-sub", upsert(false)).await.data();

    assert_eq!((&suspended["status"], &suspended["username"]), (&json!("suspended"), &json!("kim")));
    assert_eq!(kim.get("/me").await.is(28_501_000).word(), "invalid_bearer_token");
    let restored = site.internal().post("/internal/users/upsert-by-sub", upsert(true)).await.data();
    assert_eq!(restored["is_active"], true);
}

#[tokio::test]
async fn a_client_in_a_tenant_cannot_change_a_foreign_member_by_its_subject() {
    let site = Site::start().await;
    let (_acme, globex) = (site.organization("acme").await, site.organization("globex").await);
    let made =
        site.admin().post("/admin/members", json!({"authentik_sub": "sub-1", "display_name": "Kim"})).await.data();
    globex.link(made["uid"].as_str().unwrap()).await;
    let client = site.client(&["members:write"]).await.with("x-tenant-id", "acme");

    let edited =
        client.patch(&format!("/admin/members/{}", made["uid"].as_str().unwrap()), json!({"is_active": false})).await;
    client.post("/internal/users/upsert-by-sub", json!({"sub": "sub-1", "is_active": false})).await;

    assert_eq!(edited.is(29_301_000).word(), "member_not_found");
    assert_eq!(site.internal().get("/internal/members/by-sub/sub-1").await.data()["is_active"], true);
}

#[tokio::test]
async fn all_bad_fields_of_a_subject_are_reported_together() {
    let site = Site::start().await;
    let body =
        json!({"sub": "", "username": "a b", "email": "x", "display_name": 1, "is_active": null, "status": "active"});

    let reply = site.internal().post("/internal/users/upsert-by-sub", body).await;

    let mut fields = reply.is(10_101_000).fields();
    fields.dedup();
    assert_eq!(
        fields,
        ["display_name", "email", "is_active", "status", "sub", "username"].map(|name| format!("body.{name}"))
    );
}

#[tokio::test]
async fn a_service_asks_about_members_and_their_organizations() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;

    let found = site.internal().get(&format!("/internal/members?keyword={}", member.username)).await.data();
    let linked = site.internal().get(&format!("/internal/members/{}/organizations", member.uid)).await.data();

    assert_eq!((&found["total"], &found["items"][0]["uid"]), (&json!(1), &json!(member.uid)));
    assert_eq!((&linked["total"], &linked["items"][0]["org_code"]), (&json!(1), &json!("acme")));
    for path in ["/internal/members/by-sub/nobody", "/internal/members/by-sub/%ff", "/internal/members/x/organizations"]
    {
        assert_eq!(site.internal().get(path).await.is(29_301_000).word(), "member_not_found", "{path}");
    }
}

#[tokio::test]
async fn members_cannot_call_internal_operations() {
    let site = Site::start().await;

    for path in ["/internal/members", "/internal/members/by-sub/x", "/internal/organizations"] {
        assert_eq!(site.admin().get(path).await.is(29_501_000).word(), "unauthenticated", "{path}");
        assert_eq!(site.nobody().get(path).await.is(29_501_000).word(), "unauthenticated", "{path}");
    }
}
