//! Reloads of the policy.

use serde_json::json;

use super::{BAD_INPUT, P, UNKNOWN_TENANT, fields};
use crate::harness::organizations::Member;
use crate::harness::site::Site;

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
