//! Who sees which members, and lists of them.

use reqwest::Method;
use serde_json::{Value, json};

use super::NOBODYS_ID;
use crate::harness::site::{PASSWORD, Site};

fn usernames(page: &Value) -> Vec<&str> {
    page["items"].as_array().expect("items").iter().filter_map(|item| item["username"].as_str()).collect()
}

// ── access ──

#[tokio::test]
async fn an_unauthenticated_caller_must_sign_in() {
    let site = Site::start().await;

    let (office, me) = (site.nobody().get("/admin/members").await, site.nobody().get("/me").await);

    assert_eq!(office.is(29_501_000).word(), "unauthenticated");
    assert_eq!(office.header("www-authenticate"), Some("Bearer"));
    assert_eq!(me.is(28_501_000).word(), "missing_bearer_token");
}

#[tokio::test]
async fn a_member_of_no_organization_administers_nothing() {
    let site = Site::start().await;
    let stranger = site.member().await;

    let reply = stranger.caller().get("/admin/members").await;

    assert_eq!(reply.is(29_505_000).word(), "not_a_member");
}

#[tokio::test]
async fn a_member_without_the_right_neither_lists_nor_creates() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let plain = acme.member_with_role("member").await;

    let listed = plain.caller().get("/admin/members").await;
    let created = plain.caller().post("/admin/members", json!({"username": "kim"})).await;

    assert_eq!(listed.is(29_505_000).word(), "forbidden");
    assert_eq!(created.is(29_505_000).word(), "forbidden");
    assert_eq!(site.admin().get("/admin/members?keyword=kim").await.data()["total"], 0);
    assert_eq!(site.last_audit_entry().await["outcome"], "denied");
}

#[tokio::test]
async fn a_caller_with_read_permissions_cannot_write() {
    let site = Site::start().await;
    let (acme, reader) = (site.organization("acme").await, site.client(&["members:read"]).await);
    let viewer = acme.member_with_role("viewer").await;
    let at = format!("/admin/members/{}", viewer.uid);

    reader.get(&at).await.done();
    viewer.caller().get(&at).await.done();
    let by_client = reader.patch(&at, json!({"display_name": "Kim"})).await;
    let by_viewer = viewer.caller().patch(&at, json!({"display_name": "Kim"})).await;

    assert_eq!(by_client.is(32_505_000).word(), "scope_not_allowed");
    assert_eq!(by_viewer.is(29_505_000).word(), "forbidden");
}

#[tokio::test]
async fn a_member_that_an_owner_creates_belongs_to_its_organization() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;

    let kim = acme.owner().post("/admin/members", json!({"username": "kim"})).await.data();

    let at = format!("/admin/members/{}/organizations", kim["uid"].as_str().unwrap());
    let page = site.admin().get(&at).await.data();
    assert_eq!((&page["total"], &page["items"][0]["org_code"]), (&json!(1), &json!("acme")));
    assert_eq!(site.last_audit_entry().await["organization_id"], acme.id);
}

#[tokio::test]
async fn a_created_member_is_shown_without_its_password_and_can_sign_in() {
    let site = Site::start().await;
    let body = json!({"username": "kim", "email": "Kim@example.org", "display_name": "Kim", "authentik_sub": "sub-1",
        "authentik_user_id": "7", "password": PASSWORD});

    let reply = site.admin().post("/admin/members", body).await;

    let kim = reply.data();
    let keys: Vec<&str> = kim.as_object().unwrap().keys().map(String::as_str).collect();
    let shown =
        "authentik_sub authentik_user_id created_at display_name email id is_active status uid updated_at username";
    assert_eq!(keys.join(" "), shown);
    assert_eq!(
        (&kim["status"], &kim["is_active"], &kim["email"]),
        (&json!("active"), &json!(true), &json!("Kim@example.org"))
    );
    assert_eq!((&kim["id"], reply.header("etag")), (&kim["uid"], Some("\"1\"")));
    site.token("kim", PASSWORD).await;
    site.token("kim@EXAMPLE.org", PASSWORD).await;
}

// ── foreign members ──

#[tokio::test]
async fn a_foreign_member_is_answered_like_a_missing_one() {
    let site = Site::start().await;
    let (acme, globex) = (site.organization("acme").await, site.organization("globex").await);
    let theirs = globex.member().await;

    for uid in [theirs.uid.as_str(), NOBODYS_ID, "x"] {
        let at = format!("/admin/members/{uid}");
        for (method, path, body) in [
            (Method::GET, at.clone(), None),
            (Method::PATCH, at.clone(), Some(json!({"display_name": "Mallory", "password": PASSWORD}))),
            (Method::DELETE, at.clone(), None),
            (Method::POST, format!("{at}/activate"), None),
            (Method::POST, format!("{at}/deactivate"), None),
            (Method::GET, format!("{at}/organizations"), None),
            (Method::DELETE, format!("{at}/organizations/{}", acme.id), None),
        ] {
            let reply = acme.owner().send(method.clone(), &path, body).await;
            assert_eq!(reply.is(29_301_000).word(), "member_not_found", "{method} {path}");
        }
    }
    assert_eq!(site.admin().get(&format!("/admin/members/{}", theirs.uid)).await.header("etag"), Some("\"1\""));
}

#[tokio::test]
async fn a_list_shows_and_counts_only_visible_members() {
    let site = Site::start().await;
    let (acme, globex) = (site.organization("acme").await, site.organization("globex").await);
    let (ours, theirs) = (acme.member().await, globex.member().await);

    let search = format!("/admin/members?keyword={}", theirs.username);
    let page = acme.owner().get("/admin/members").await.data();
    let foreign = acme.owner().get(&search).await.data();

    assert_eq!((&page["total"], usernames(&page).contains(&ours.username.as_str())), (&json!(2), true));
    assert_eq!((&foreign["total"], &foreign["items"]), (&json!(0), &json!([])));
    assert_eq!(site.admin().get(&search).await.data()["total"], 1);
}

#[tokio::test]
async fn only_a_member_of_a_tenant_can_name_it() {
    let site = Site::start().await;
    let (acme, globex) = (site.organization("acme").await, site.organization("globex").await);

    for named in [globex.id.as_str(), "globex", NOBODYS_ID, "nowhere", "platform", ""] {
        let reply = acme.owner().with("x-tenant-id", named).get("/admin/members").await;
        assert_eq!(reply.is(29_301_000).word(), "organization_not_found", "{named}");
    }
    acme.owner().with("x-tenant-id", "acme").get("/admin/members").await.done();
}

#[tokio::test]
async fn a_client_that_names_a_tenant_sees_that_tenant_only() {
    let site = Site::start().await;
    let (acme, globex) = (site.organization("acme").await, site.organization("globex").await);
    let theirs = globex.member().await;
    let client = site.client(&["members:read"]).await;

    let everywhere = client.get(&format!("/admin/members/{}", theirs.uid)).await;
    let in_acme = client.clone().with("x-tenant-id", &acme.id).get(&format!("/admin/members/{}", theirs.uid)).await;

    everywhere.done();
    assert_eq!(in_acme.is(29_301_000).word(), "member_not_found");
}

// ── lists ──

#[tokio::test]
async fn a_keyword_is_plain_text_not_a_pattern() {
    let site = Site::start().await;
    let admin = site.admin();
    for username in ["a_b", "axb"] {
        admin.post("/admin/members", json!({"username": username})).await.done();
    }

    assert_eq!(usernames(&admin.get("/admin/members?keyword=A_B").await.data()), ["a_b"]);
    assert_eq!(admin.get("/admin/members?keyword=%25").await.data()["total"], 0);
    assert_eq!(admin.get(&format!("/admin/members?keyword={}", "k".repeat(200))).await.data()["total"], 0);
    let too_long = admin.get(&format!("/admin/members?keyword={}", "k".repeat(201))).await;
    assert_eq!(too_long.is(10_101_000).fields(), ["query.keyword"]);
}

#[tokio::test]
async fn a_display_name_is_searched() {
    let site = Site::start().await;
    site.admin().post("/admin/members", json!({"username": "emile", "display_name": "Émile Östgård"})).await.done();

    for keyword in ["mile", "%C3%89mile", "%C3%96stg%C3%A5rd"] {
        let page = site.admin().get(&format!("/admin/members?keyword={keyword}")).await.data();
        assert_eq!(usernames(&page), ["emile"], "{keyword}");
    }
}

#[tokio::test]
async fn the_limit_of_a_page_has_a_minimum_and_a_maximum() {
    let site = Site::start().await;
    let (admin, internal) = (site.admin(), site.internal());
    for (caller, path, limit) in [
        (&admin, "/admin/members", 50),
        (&admin, "/admin/members?limit=200", 200),
        (&admin, "/admin/members?limit=201", 200),
        (&internal, "/internal/members", 500),
        (&internal, "/internal/members?limit=501", 500),
        (&admin, "/admin/members?limit=1&offset=18446744073709551615", 1),
    ] {
        assert_eq!(caller.get(path).await.data()["limit"], limit, "{path}");
    }
    assert_eq!(admin.get("/admin/members?limit=0").await.data()["limit"], 50);
    let bad = admin.get("/admin/members?limit=-1&offset=x&is_active=maybe").await;
    assert_eq!(bad.is(10_101_000).fields(), ["query.is_active", "query.limit", "query.offset"]);
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repeat() {
    let site = Site::start().await;
    for n in 0..5 {
        site.admin().post("/admin/members", json!({"username": format!("kim{n}")})).await.done();
    }

    let mut seen = Vec::new();
    for offset in [0, 2, 4, 6] {
        let page = site.admin().get(&format!("/admin/members?keyword=kim&limit=2&offset={offset}")).await.data();
        assert_eq!(page["total"], 5);
        seen.extend(usernames(&page).into_iter().map(str::to_owned));
    }
    assert_eq!(seen, ["kim0", "kim1", "kim2", "kim3", "kim4"]);
}

#[tokio::test]
async fn members_are_listed_by_whether_they_are_active() {
    let site = Site::start().await;
    let member = site.member().await;
    site.admin().post("/admin/members", json!({"username": "resting", "is_active": false})).await.done();

    let active = site.admin().get("/admin/members?is_active=true").await.data();
    let suspended = site.admin().get("/admin/members?is_active=false").await.data();

    assert!(usernames(&active).contains(&member.username.as_str()));
    assert_eq!((usernames(&suspended), &suspended["items"][0]["status"]), (vec!["resting"], &json!("suspended")));
}
