//! Explanations of a decision.

use std::collections::BTreeSet;

use serde_json::json;

use super::{files, grant, right, route};
use crate::harness::site::Site;

#[tokio::test]
async fn an_explanation_names_stages_permissions_and_roles_with_their_sources() {
    let site = Site::start().await;
    site.import(files()).await;
    let acme = site.organization("acme").await;
    let reader = acme.role("reader", &["one"]).await;
    let member = acme.member().await;
    for source in ["manual", "ldap"] {
        acme.admin()
            .post(
                &format!("/api/v1/permissions/users/{}/roles", member.uid),
                json!({"role_id": reader, "source": source}),
            )
            .await
            .done();
    }
    let mut question = route(&member.uid, "GET", "/files/7");
    question["explain"] = json!(true);

    let decision = acme.check(question).await;

    let because = &decision["because"];
    assert_eq!((&decision["allow"], &decision["reason"]), (&json!(true), &json!("ok_role")));
    assert_eq!(because["stages"][0], json!({"stage": "gate", "verdict": "pass"}));
    assert_eq!(because["stages"][1], json!({"stage": "base", "verdict": "ok_role"}));
    assert_eq!(because["template"], json!("/files/:id"));
    assert_eq!(because["permissions"], json!(["one", "all"]));
    assert_eq!(because["roles"][0]["role_key"], json!("reader"));
    let cited = json!({"organization_id": acme.id, "role_id": reader, "role_key": "reader", "permission": "one", "sources": ["ldap", "manual"]});
    assert_eq!(because["allowed_by"], json!([cited]));
}

#[tokio::test]
async fn a_denial_is_explained_with_the_roles_that_would_have_allowed_it() {
    let site = Site::start().await;
    site.import(files()).await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    for (key, permission) in [("reader", "one"), ("lord", "all"), ("idle", "root")] {
        acme.role(key, &[permission]).await;
    }
    let explain = async |method: &str, path: &str| {
        let mut question = route(&member.uid, method, path);
        question["explain"] = json!(true);
        acme.check(question).await["because"].clone()
    };

    let denied = explain("GET", "/files/7").await;
    assert_eq!((&denied["stages"][1]["verdict"], &denied["allowed_by"]), (&json!("no_permission"), &json!([])));
    let would: BTreeSet<&str> =
        denied["would_allow"].as_array().expect("roles").iter().filter_map(|role| role["role_key"].as_str()).collect();
    assert_eq!(would, ["lord", "reader", "tenant_owner"].into());
    assert_eq!(explain("PUT", "/files/7").await["template"], json!("/files/:id"));
    assert_eq!(
        explain("GET", "/files/../x").await["stages"][0],
        json!({"stage": "gate", "verdict": "path_not_canonical"})
    );
    assert_eq!(explain("GET", "/files/../x").await["stages"][1]["verdict"], json!("not_asked"));
    assert_eq!(explain("GET", "/x").await["stages"][1]["verdict"], json!("unmapped_route"));
}

#[tokio::test]
async fn removing_every_cited_row_reverses_the_decision() {
    let site = Site::start().await;
    site.import(files()).await;
    let acme = site.organization("acme").await;
    let (reader, lord) = (acme.role("reader", &["one"]).await, acme.role("lord", &["all"]).await);
    acme.role("idle", &["root"]).await;
    let member = acme.member().await;
    let roles = format!("/api/v1/permissions/users/{}/roles", member.uid);
    for (role, source) in [
        (&reader, "manual"),
        (&reader, "scim"),
        (&lord, "ldap"),
        (&acme.role_id("tenant_owner").await, "manual"),
        (&acme.role_id("idle").await, "manual"),
    ] {
        acme.admin().post(&roles, json!({"role_id": role, "source": source})).await.done();
    }
    for scope_id in ["*", "north", "south"] {
        grant(&site, right(&member.uid, "site", scope_id)).await;
    }
    let mut question = route(&member.uid, "HEAD", "/files/7");
    question["explain"] = json!(true);
    let mut about_right = right(&member.uid, "site", "north");
    about_right["explain"] = json!(true);

    let cited = acme.check(question.clone()).await["because"]["allowed_by"].clone();
    assert_eq!(cited.as_array().map(Vec::len), Some(3));
    for role in cited.as_array().expect("roles") {
        assert_eq!(acme.check(question.clone()).await["allow"], json!(true));
        acme.admin().delete(&format!("{roles}/{}", role["role_id"].as_str().expect("id"))).await.done();
    }
    assert_eq!(acme.check(question).await["reason"], json!("no_permission"));

    let granted = acme.check(about_right.clone()).await["because"]["grant_ids"].clone();
    assert_eq!(granted.as_array().map(Vec::len), Some(2), "the exact scope and the star");
    for scope_id in ["*", "north"] {
        assert_eq!(acme.check(about_right.clone()).await["reason"], json!("ok_grant"));
        site.admin().post("/admin/permissions/revoke", right(&member.uid, "site", scope_id)).await.done();
    }
    assert_eq!(acme.check(about_right).await["reason"], json!("no_permission"));
}

#[tokio::test]
async fn a_platform_administrator_is_explained_by_the_platform() {
    let site = Site::start().await;
    site.import(files()).await;
    let acme = site.organization("acme").await;
    let admin = site.admin().get("/me").await.data()["uid"].as_str().expect("uid").to_owned();
    let mut question = route(&admin, "GET", "/files/7");
    question["explain"] = json!(true);

    let because = acme.check(question).await["because"].clone();

    assert_eq!(because["roles"], json!([]));
    assert_eq!(because["allowed_by"][0]["role_key"], json!("platform_admin"));
    assert_eq!(because["allowed_by"][0]["sources"], json!(["manual"]));
}
