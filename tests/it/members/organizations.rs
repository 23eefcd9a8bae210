//! Organizations: each is a tenant. The platform creates them, and their owners name them.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::site::Site;

fn org_codes(page: &Value) -> Vec<&str> {
    page["items"].as_array().expect("items").iter().filter_map(|item| item["org_code"].as_str()).collect()
}

#[tokio::test]
async fn a_new_organization_has_the_system_roles() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;

    let roles = acme.owner().get("/api/v1/permissions/roles").await.data();

    let mut keys: Vec<&str> =
        roles["roles"].as_array().expect("roles").iter().filter_map(|role| role["key"].as_str()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["member", "member_manager", "tenant_admin", "tenant_owner", "viewer"]);
    assert_eq!(site.last_audit_entry().await["outcome"], json!("done"));
}

#[tokio::test]
async fn an_unauthenticated_caller_and_a_member_of_none_get_no_organizations() {
    let site = Site::start().await;
    let stranger = site.member().await;

    let guest = site.nobody().get("/admin/organizations").await;
    let without_seat = stranger.caller().get("/admin/organizations").await;

    assert_eq!(guest.is(29_501_000).word(), "unauthenticated");
    assert_eq!(without_seat.is(29_505_000).word(), "not_a_member");
}

#[tokio::test]
async fn no_tenant_creates_another_one() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let reader = site.client(&["organizations:read"]).await;
    let body = json!({"org_code": "globex", "name": "Globex"});

    let by_owner = acme.owner().post("/admin/organizations", body.clone()).await;
    let by_reader = reader.post("/admin/organizations", body).await;

    assert_eq!(by_owner.is(29_505_000).word(), "forbidden");
    assert_eq!(by_reader.is(32_505_000).word(), "scope_not_allowed");
    assert_eq!(org_codes(&site.admin().get("/admin/organizations?keyword=globex").await.data()), [""; 0]);
}

#[tokio::test]
async fn a_member_sees_its_own_organization_and_no_other() {
    let site = Site::start().await;
    let (acme, globex) = (site.organization("acme").await, site.organization("globex").await);
    let member = acme.member_with_role("member").await;

    let page = member.caller().get("/admin/organizations").await.data();

    assert_eq!((org_codes(&page), &page["total"]), (vec!["acme"], &json!(1)));
    assert_eq!(member.caller().get("/admin/organizations?keyword=globex").await.data()["total"], 0);
    member.caller().get(&format!("/admin/organizations/{}", acme.id)).await.done();
    let foreign = member.caller().get(&format!("/admin/organizations/{}", globex.id)).await;
    assert_eq!(foreign.is(29_301_000).word(), "organization_not_found");
}

#[tokio::test]
async fn a_foreign_organization_is_answered_like_a_missing_one() {
    let site = Site::start().await;
    let (acme, globex) = (site.organization("acme").await, site.organization("globex").await);

    for id in [globex.id.as_str(), "019abcde-0000-7000-8000-00000000dead", "globex", &acme.id.to_uppercase()] {
        let at = format!("/admin/organizations/{id}");
        let seen = acme.owner().get(&at).await;
        let edited = acme.owner().patch(&at, json!({"name": "Mallory"})).await;
        assert_eq!(seen.is(29_301_000).word(), "organization_not_found", "{id}");
        assert_eq!(edited.is(29_301_000).word(), "organization_not_found", "{id}");
    }
    assert_eq!(site.admin().get(&format!("/admin/organizations/{}", globex.id)).await.data()["name"], "globex");
}

#[tokio::test]
async fn the_platform_sees_all_organizations_and_its_own() {
    let site = Site::start().await;
    site.organization("acme").await;

    let page = site.admin().get("/admin/organizations").await.data();

    let mut codes = org_codes(&page);
    codes.sort_unstable();
    assert_eq!(codes, ["acme", "platform"]);
}

#[tokio::test]
async fn a_created_organization_has_the_values_of_the_request() {
    let site = Site::start().await;
    let body =
        json!({"org_code": "acme.studios-1_x", "name": "Acme Studios", "tax_id": "12345678", "status": "inactive"});

    let reply = site.admin().post("/admin/organizations", body).await;

    let acme = reply.data();
    assert_eq!((&acme["org_code"], &acme["name"]), (&json!("acme.studios-1_x"), &json!("Acme Studios")));
    assert_eq!((&acme["tax_id"], &acme["status"]), (&json!("12345678"), &json!("inactive")));
    assert_eq!((&acme["created_at"], reply.header("etag")), (&acme["updated_at"], Some("\"1\"")));
    let at = format!("/admin/organizations/{}", acme["id"].as_str().unwrap());
    assert_eq!(site.admin().get(&at).await.data(), acme);
}

#[tokio::test]
async fn all_bad_fields_of_a_new_organization_are_reported_together() {
    let site = Site::start().await;
    let body = json!({"org_code": "Acme", "tax_id": "\n", "status": "open", "id": "x", "owner": "x"});

    let reply = site.admin().post("/admin/organizations", body).await;

    let all = ["id", "name", "org_code", "owner", "status", "tax_id"].map(|name| format!("body.{name}"));
    assert_eq!(reply.is(10_101_000).fields(), all);
}

#[tokio::test]
async fn every_text_of_an_organization_holds_at_its_limit_and_not_one_past_it() {
    let site = Site::start().await;
    for (name, longest, too_long) in [
        ("org_code", "a".repeat(64), "a".repeat(65)),
        ("name", "é".repeat(200), "é".repeat(201)),
        ("tax_id", "1".repeat(64), "1".repeat(65)),
    ] {
        let body = |text: &str| {
            let mut body = json!({"org_code": format!("o{}", uuid::Uuid::now_v7().simple()), "name": "Acme"});
            body[name] = json!(text);
            body
        };
        site.admin().post("/admin/organizations", body(&longest)).await.done();
        let reply = site.admin().post("/admin/organizations", body(&too_long)).await;
        assert_eq!(reply.is(10_101_000).fields(), [format!("body.{name}")]);
    }
}

#[tokio::test]
async fn a_code_is_unique_and_never_changes() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;

    let second = site.admin().post("/admin/organizations", json!({"org_code": "acme", "name": "Other"})).await;
    let built_in = site.admin().post("/admin/organizations", json!({"org_code": "platform", "name": "Other"})).await;
    let renamed = site.admin().patch(&format!("/admin/organizations/{}", acme.id), json!({"org_code": "globex"})).await;

    assert_eq!(second.is(29_303_000).word(), "organization_exists");
    assert_eq!(built_in.is(29_303_000).word(), "organization_exists");
    assert_eq!(renamed.is(10_101_000).fields(), ["body.org_code"]);
}

#[tokio::test]
async fn an_id_names_its_organization_even_if_another_has_it_as_its_code() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    site.admin().post("/admin/organizations", json!({"org_code": acme.id, "name": "Impostor"})).await;

    let page = site.admin().with("x-tenant-id", &acme.id).get("/admin/organizations").await.data();
    let seen = acme.owner().with("x-tenant-id", &acme.id).get(&format!("/admin/organizations/{}", acme.id)).await;

    assert_eq!(org_codes(&page), ["acme"]);
    assert_eq!(seen.data()["org_code"], "acme");
}

#[tokio::test]
async fn an_owner_names_its_organization_but_cannot_deactivate_it() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let at = format!("/admin/organizations/{}", acme.id);
    let viewer = acme.member_with_role("viewer").await;

    let named = acme.owner().patch(&at, json!({"name": "Acme Pictures", "tax_id": "1"})).await;
    let cleared = acme.owner().patch(&at, json!({"tax_id": null})).await;

    assert_eq!((&named.data()["name"], named.header("etag")), (&json!("Acme Pictures"), Some("\"2\"")));
    assert_eq!(cleared.data()["tax_id"], Value::Null);
    assert_eq!(acme.owner().patch(&at, json!({"status": "inactive"})).await.is(29_505_000).word(), "forbidden");
    assert_eq!(acme.owner().post(&format!("{at}/deactivate"), json!({})).await.is(29_505_000).word(), "forbidden");
    assert_eq!(viewer.caller().patch(&at, json!({"name": "x"})).await.is(29_505_000).word(), "forbidden");
}

#[tokio::test]
async fn an_update_of_an_organization_honours_if_match() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let at = format!("/admin/organizations/{}", acme.id);
    site.admin().with("if-match", "\"1\"").patch(&at, json!({"name": "One"})).await.done();

    let stale = site.admin().with("if-match", "\"1\"").patch(&at, json!({"name": "Two"})).await;

    assert_eq!((stale.is(10_310_000).word(), stale.header("etag")), ("version_stale", Some("\"2\"")));
    assert_eq!(site.admin().get(&at).await.data()["name"], "One");
}

#[tokio::test]
async fn an_update_is_recorded_with_the_former_values() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;

    site.admin().patch(&format!("/admin/organizations/{}", acme.id), json!({"name": "Acme Pictures"})).await.done();

    let entry = site.last_audit_entry().await;
    assert_eq!((&entry["action"], &entry["organization_id"]), (&json!("organization.update"), &json!(acme.id)));
    let described = |name: &str| json!({"org_code": "acme", "name": name, "tax_id": null, "is_active": true, "second_factor_required": false});
    assert_eq!((&entry["before"], &entry["after"]), (&described("acme"), &described("Acme Pictures")));
}

#[tokio::test]
async fn everything_in_an_inactive_organization_is_denied_and_nothing_is_lost() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let at = format!("/admin/organizations/{}", acme.id);
    acme.owner().get("/admin/members").await.done();

    assert_eq!(site.admin().post(&format!("{at}/deactivate"), json!({})).await.data()["status"], "inactive");

    assert_eq!(acme.owner().get("/admin/members").await.is(29_505_000).word(), "forbidden");
    assert_eq!(acme.owner().get("/api/v1/permissions/roles").await.is(31_505_000).word(), "forbidden");
    assert_eq!(acme.owner().get("/me/permissions/snapshot").await.data()["roles"], json!([]));
    site.admin().post(&format!("{at}/activate"), json!({})).await.done();
    acme.owner().get("/admin/members").await.done();
    assert_eq!(acme.owner().get("/me/permissions/snapshot").await.data()["roles"][0]["role_key"], "tenant_owner");
}

#[tokio::test]
async fn the_built_in_organization_stays_active() {
    let site = Site::start().await;
    let page = site.admin().get("/admin/organizations?keyword=platform").await.data();
    let at = format!("/admin/organizations/{}", page["items"][0]["id"].as_str().unwrap());

    let switched = site.admin().post(&format!("{at}/deactivate"), json!({})).await;
    let edited = site.admin().patch(&at, json!({"status": "inactive"})).await;

    assert_eq!(switched.is(29_309_000).word(), "built_in_organization");
    assert_eq!(edited.is(29_309_000).word(), "built_in_organization");
    site.admin().get("/admin/organizations").await.done();
}

#[tokio::test]
async fn organizations_are_filtered_by_name_code_and_status() {
    let site = Site::start().await;
    for (org_code, name, status) in [("acme", "Östgård Film", "active"), ("globex", "Globex", "inactive")] {
        let body = json!({"org_code": org_code, "name": name, "status": status});
        site.admin().post("/admin/organizations", body).await.done();
    }
    for (query, codes) in [
        ("keyword=ACM", vec!["acme"]),
        ("keyword=film", vec!["acme"]),
        ("keyword=%C3%96stg%C3%A5rd", vec!["acme"]),
        ("status=inactive", vec!["globex"]),
        ("keyword=_", vec![]),
    ] {
        let page = site.admin().get(&format!("/admin/organizations?{query}")).await.data();
        assert_eq!(org_codes(&page), codes, "{query}");
    }
    let bad = site.admin().get("/admin/organizations?status=open&limit=-1").await;
    assert_eq!(bad.is(10_101_000).fields(), ["query.limit", "query.status"]);
}

#[tokio::test]
async fn a_service_finds_an_organization_by_its_code_only() {
    let site = Site::start().await;
    let (acme, globex) = (site.organization("acme").await, site.organization("globex").await);
    let by_code = |code: &str| format!("/internal/organizations/by-code/{code}");
    let in_acme = site.client(&["organizations:read"]).await.with("x-tenant-id", "acme");

    assert_eq!(site.internal().get(&by_code("acme")).await.data()["id"], acme.id);
    for code in ["ACME", acme.id.as_str(), "nowhere", "%ff"] {
        let reply = site.internal().get(&by_code(code)).await;
        assert_eq!(reply.is(29_301_000).word(), "organization_not_found", "{code}");
    }
    assert_eq!(in_acme.get(&by_code("globex")).await.is(29_301_000).word(), "organization_not_found");
    assert_eq!(org_codes(&in_acme.get("/internal/organizations").await.data()), ["acme"]);
    assert_eq!(site.internal().get(&by_code("globex")).await.data()["id"], globex.id);
}

#[tokio::test]
async fn a_member_of_several_organizations_must_name_one() {
    let site = Site::start().await;
    let (acme, globex) = (site.organization("acme").await, site.organization("globex").await);
    let member = acme.member_with_role("viewer").await;
    globex.link(&member.uid).await;

    let silent = member.caller().send(Method::GET, "/admin/organizations", None).await;
    let in_acme = member.caller().with("x-tenant-id", "acme").get("/admin/organizations").await;
    let in_globex = member.caller().with("x-tenant-id", &globex.id).get("/admin/organizations").await;

    assert_eq!(silent.is(10_101_000).fields(), ["header.X-Tenant-ID"]);
    assert_eq!(org_codes(&in_acme.data()), ["acme"]);
    assert_eq!(in_globex.is(29_505_000).word(), "forbidden");
}
