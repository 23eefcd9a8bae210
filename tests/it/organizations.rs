//! Organizations.

use serde_json::json;

use crate::site::Site;

#[tokio::test]
async fn an_organization_comes_with_its_system_roles() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;

    let roles = acme.owner().get("/api/v1/permissions/roles").await.data();

    let mut keys: Vec<&str> = roles["roles"].as_array().expect("roles").iter().filter_map(|role| role["key"].as_str()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["member", "member_manager", "tenant_admin", "tenant_owner", "viewer"]);
    assert_eq!(site.last_audit_entry().await["outcome"], json!("done"));
}
