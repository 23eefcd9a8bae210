//! Assignments of roles to members.

use serde_json::{Value, json};

use super::{BAD_INPUT, EXISTS, FORBIDDEN, NOT_FOUND, SYSTEM, fields, keys_of, roles_url, sync_url};
use crate::harness::site::Site;

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
