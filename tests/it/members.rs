//! Members: who sees and changes them, what they may change of themselves, and what remains of an erased member.

use reqwest::Method;
use serde_json::{Value, json};

use crate::site::{As, Organization, PASSWORD, Reply, Site};

/// A valid id that no row has.
const NOBODYS_ID: &str = "019abcde-0000-7000-8000-00000000dead";

fn usernames(page: &Value) -> Vec<&str> {
    page["items"].as_array().expect("items").iter().filter_map(|item| item["username"].as_str()).collect()
}

/// The bad fields of a body; empty when it is accepted.
async fn faults(caller: &As<'_>, body: Value) -> Vec<String> {
    let reply = caller.post("/admin/members", body).await;
    if reply.status == 200 {
        return Vec::new();
    }
    reply.is(10_101_000).fields()
}

async fn audit_total(site: &Site, action: &str) -> Value {
    site.admin().get(&format!("/admin/audit?action={action}")).await.data()["total"].clone()
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

// ── input ──

#[tokio::test]
async fn all_bad_fields_of_a_new_member_are_reported_together() {
    let site = Site::start().await;
    let body = json!({"username": "-", "email": "x", "display_name": "", "authentik_sub": "", "authentik_user_id": "",
        "password": "", "is_active": "yes", "role": "tenant_owner"});

    let fields = faults(&site.admin(), body).await;

    let all =
        ["authentik_sub", "authentik_user_id", "display_name", "email", "is_active", "password", "role", "username"];
    let mut named = fields.clone();
    named.dedup();
    assert_eq!(named, all.map(|name| format!("body.{name}")));
}

#[tokio::test]
async fn a_weak_password_is_reported_together_with_the_other_bad_fields() {
    let site = Site::start().await;

    let mut fields = faults(&site.admin(), json!({"username": "-", "password": "short"})).await;

    fields.dedup();
    assert_eq!(fields, ["body.password", "body.username"]);
}

#[tokio::test]
async fn read_only_fields_cannot_be_set() {
    let site = Site::start().await;
    let member = site.member().await;
    let decided = ["generation", "id", "organizations", "password_hash", "roles", "status", "uid", "version"];
    let body: Value =
        decided.iter().map(|name| ((*name).to_owned(), json!("x"))).collect::<serde_json::Map<_, _>>().into();

    let created = site.admin().post("/admin/members", body.clone()).await;
    let edited = site.admin().patch(&format!("/admin/members/{}", member.uid), body.clone()).await;
    let by_itself = member.caller().patch("/me", body).await;

    for reply in [created, edited, by_itself] {
        assert_eq!(reply.is(10_101_000).fields(), decided.map(|name| format!("body.{name}")));
    }
}

#[tokio::test]
async fn a_member_needs_at_least_one_name() {
    let site = Site::start().await;
    let admin = site.admin();

    assert_eq!(faults(&admin, json!({})).await, ["body.username"]);
    assert_eq!(faults(&admin, json!({"display_name": "Kim"})).await, ["body.username"]);
    assert_eq!(faults(&admin, json!({"username": "kim", "authentik_user_id": "7"})).await, ["body.authentik_user_id"]);
    assert_eq!(faults(&admin, json!({"email": "kim@example.org"})).await, [""; 0]);
    assert_eq!(faults(&admin, json!({"authentik_sub": "sub-1"})).await, [""; 0]);
}

#[tokio::test]
async fn every_text_holds_at_its_limit_and_not_one_past_it() {
    let site = Site::start().await;
    let email = |length: usize| format!("{}@{}", "k".repeat(64), "e".repeat(length - 65));
    for (name, longest, too_long) in [
        ("username", "k".repeat(64), "k".repeat(65)),
        ("email", email(254), email(255)),
        ("email", format!("{}@example.org", "m".repeat(64)), format!("{}@example.org", "m".repeat(65))),
        ("display_name", "é".repeat(200), "é".repeat(201)),
        ("authentik_sub", "s".repeat(255), "s".repeat(256)),
    ] {
        let body = |text: &str| json!({"username": format!("u{}", uuid::Uuid::now_v7().simple()), name: text});
        assert_eq!(faults(&site.admin(), body(&longest)).await, [""; 0], "{name}");
        assert_eq!(faults(&site.admin(), body(&too_long)).await, [format!("body.{name}")], "{name}");
    }
}

#[tokio::test]
async fn a_password_holds_at_its_limits_and_not_one_past_them() {
    let site = Site::start().await;
    let body =
        |password: &str| json!({"username": format!("u{}", uuid::Uuid::now_v7().simple()), "password": password});
    let longest = format!("A1{}", "é".repeat(127));

    for password in ["Abcdefg1", "Abcdefg!", longest.as_str()] {
        assert_eq!(faults(&site.admin(), body(password)).await, [""; 0], "{password}");
    }
    for password in ["Abcdef1", "abcdefg1", "Abcdefgh", &format!("{longest}x"), &format!("A1{}", "x".repeat(1_022))] {
        assert_eq!(faults(&site.admin(), body(password)).await, ["body.password"], "{password}");
    }
}

#[tokio::test]
async fn a_taken_name_is_refused_in_any_case() {
    let site = Site::start().await;
    let admin = site.admin();
    let kim = json!({"username": "kim", "email": "kim@example.org", "authentik_sub": "sub-1"});
    admin.post("/admin/members", kim).await.done();

    for (body, word) in [
        (json!({"username": "KIM"}), "username_exists"),
        (json!({"email": "Kim@Example.ORG"}), "email_exists"),
        (json!({"authentik_sub": "sub-1"}), "member_exists"),
    ] {
        assert_eq!(admin.post("/admin/members", body).await.is(29_303_000).word(), word);
    }
    // A subject belongs to the provider: its case is significant.
    admin.post("/admin/members", json!({"authentik_sub": "SUB-1"})).await.done();
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

// ── updates ──

#[tokio::test]
async fn nobody_changes_the_credentials_of_a_member_with_more_rights() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (manager, owner) = (acme.member_with_role("member_manager").await, acme.member_with_role("tenant_owner").await);
    let at = format!("/admin/members/{}", owner.uid);

    for body in [
        json!({"password": "Another-horse-8"}),
        json!({"email": "mallory@example.org"}),
        json!({"username": "mallory"}),
        json!({"is_active": false}),
    ] {
        assert_eq!(manager.caller().patch(&at, body).await.is(29_505_000).word(), "not_held");
    }
    let suspended = manager.caller().post(&format!("{at}/deactivate"), json!({})).await;
    assert_eq!(suspended.is(29_505_000).word(), "not_held");
    owner.caller().get("/me").await.done();
}

#[tokio::test]
async fn a_member_of_two_organizations_can_be_suspended_by_neither() {
    let site = Site::start().await;
    let (acme, globex) = (site.organization("acme").await, site.organization("globex").await);
    let member = acme.member().await;
    globex.link(&member.uid).await;
    let at = format!("/admin/members/{}", member.uid);

    for body in [json!({"email": "k@example.org"}), json!({"password": "Another-horse-8"}), json!({"is_active": false})]
    {
        assert_eq!(acme.owner().patch(&at, body).await.is(29_505_000).word(), "forbidden");
    }
    assert_eq!(acme.owner().delete(&at).await.is(29_505_000).word(), "forbidden");
    assert_eq!(acme.owner().patch(&at, json!({"display_name": "Kim"})).await.is(29_505_000).word(), "forbidden");
    site.admin().patch(&at, json!({"email": "k@example.org", "display_name": "Kim"})).await.done();
}

#[tokio::test]
async fn the_right_to_update_a_member_does_not_include_suspension() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (editor, member) = (acme.member_with(&["roster.member.update"]).await, acme.member().await);
    let at = format!("/admin/members/{}", member.uid);

    let by_operation = editor.caller().post(&format!("{at}/deactivate"), json!({})).await;
    let by_edit = editor.caller().patch(&at, json!({"is_active": false})).await;

    assert_eq!(by_operation.is(29_505_000).word(), "forbidden");
    assert_eq!(by_edit.is(29_505_000).word(), "forbidden");
}

#[tokio::test]
async fn an_update_changes_only_its_fields_and_null_clears_them() {
    let site = Site::start().await;
    let body = json!({"username": "kim", "email": "kim@example.org", "display_name": "Kim"});
    let uid = site.admin().post("/admin/members", body).await.data()["uid"].clone();
    let at = format!("/admin/members/{}", uid.as_str().unwrap());

    let edited = site.admin().patch(&at, json!({"display_name": "Kim L.", "email": null})).await;

    let kim = edited.data();
    assert_eq!(
        (&kim["username"], &kim["email"], &kim["display_name"]),
        (&json!("kim"), &Value::Null, &json!("Kim L."))
    );
    assert_eq!(edited.header("etag"), Some("\"2\""));
    assert_eq!(site.last_audit_entry().await["after"]["fields"], json!(["email", "display_name"]));
}

#[tokio::test]
async fn an_update_of_an_outdated_version_is_stale() {
    let site = Site::start().await;
    let member = site.member().await;
    let at = format!("/admin/members/{}", member.uid);
    site.admin().with("if-match", "\"1\"").patch(&at, json!({"display_name": "One"})).await.done();

    for stale in ["\"1\"", "\"x\"", "1", ""] {
        let reply = site.admin().with("if-match", stale).patch(&at, json!({"display_name": "Two"})).await;
        assert_eq!((reply.is(10_310_000).word(), reply.header("etag")), ("version_stale", Some("\"2\"")), "{stale}");
        site.admin().with("if-match", stale).delete(&at).await.is(10_310_000);
    }
    site.admin().with("if-match", "\"9\", \"2\"").patch(&at, json!({"display_name": "Two"})).await.done();
    site.admin().with("if-match", "*").patch(&at, json!({"display_name": "Three"})).await.done();
    assert_eq!(site.admin().get(&at).await.data()["display_name"], "Three");
}

#[tokio::test]
async fn every_visible_change_of_a_member_changes_its_version() {
    let site = Site::start().await;
    let body = json!({"authentik_sub": "sub-1", "authentik_user_id": "7"});
    let uid = site.admin().post("/admin/members", body).await.data()["uid"].clone();
    let at = format!("/admin/members/{}", uid.as_str().unwrap());

    for (body, version) in [
        (json!({"username": "kim"}), "\"2\""),
        (json!({"is_active": false}), "\"3\""),
        (json!({"authentik_user_id": "8"}), "\"4\""),
    ] {
        let reply = site.admin().patch(&at, body.clone()).await;
        assert_eq!(reply.header("etag"), Some(version), "{body}");
    }
}

#[tokio::test]
async fn an_update_without_a_change_is_not_recorded() {
    let site = Site::start().await;
    let member = site.member().await;
    let at = format!("/admin/members/{}", member.uid);

    let reply = site.admin().patch(&at, json!({"username": member.username, "is_active": true})).await;

    assert_eq!(reply.header("etag"), Some("\"1\""));
    assert_eq!(audit_total(&site, "member.update").await, 0);
}

#[tokio::test]
async fn an_account_id_requires_a_subject() {
    let site = Site::start().await;
    let member = site.member().await;

    let reply = site.admin().patch(&format!("/admin/members/{}", member.uid), json!({"authentik_user_id": "7"})).await;

    assert_eq!(reply.is(10_101_000).fields(), ["body.authentik_user_id"]);
}

#[tokio::test]
async fn a_repeated_suspension_changes_nothing() {
    let site = Site::start().await;
    let member = site.member().await;
    let at = format!("/admin/members/{}", member.uid);

    for (word, status) in
        [("deactivate", "suspended"), ("deactivate", "suspended"), ("activate", "active"), ("activate", "active")]
    {
        let reply = site.admin().post(&format!("{at}/{word}"), json!({})).await;
        assert_eq!(reply.data()["status"], status);
    }
    assert_eq!(audit_total(&site, "member.deactivate").await, 1);
    assert_eq!(audit_total(&site, "member.activate").await, 1);
}

#[tokio::test]
async fn the_last_owner_or_administrator_can_be_neither_suspended_nor_erased() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let admin = site.admin().get("/me").await.data()["uid"].clone();
    let owner = acme.owner().get("/me").await.data()["uid"].clone();

    for (uid, code, word) in [(&admin, 29_309_000, "last_administrator"), (&owner, 31_309_000, "last_owner")] {
        let at = format!("/admin/members/{}", uid.as_str().unwrap());
        assert_eq!(site.admin().post(&format!("{at}/deactivate"), json!({})).await.is(code).word(), word);
        assert_eq!(site.admin().patch(&at, json!({"is_active": false})).await.is(code).word(), word);
        assert_eq!(site.admin().delete(&at).await.is(code).word(), word);
        site.admin().get(&at).await.done();
    }
    acme.member_with_role("tenant_owner").await;
    site.admin().delete(&format!("/admin/members/{}", owner.as_str().unwrap())).await.done();
}

// ── erasing ──

#[tokio::test]
async fn an_erased_member_leaves_its_id_and_nothing_else() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let body =
        json!({"username": "kim", "email": "kim@example.org", "display_name": "Kim Example", "authentik_sub": "sub-1"});
    let kim = site.admin().post("/admin/members", body.clone()).await.data();
    let at = format!("/admin/members/{}", kim["uid"].as_str().unwrap());
    acme.link(kim["uid"].as_str().unwrap()).await;

    let erased = site.admin().delete(&at).await;

    assert_eq!(erased.body, json!({"code": 102_000, "message": "ok"}));
    let left = site.admin().get(&at).await.data();
    let names = ["username", "email", "display_name", "authentik_sub", "authentik_user_id"];
    assert_eq!(
        (names.map(|name| left[name].clone()), &left["status"]),
        ([const { Value::Null }; 5], &json!("deleted"))
    );
    assert_eq!(site.admin().get(&format!("{at}/organizations")).await.data()["total"], 0);
    assert_eq!(rows_that_name(&site, &["kim@example.org", "Kim Example", "sub-1"]), [""; 0]);
    site.admin().post("/admin/members", body).await.done();
}

#[tokio::test]
async fn an_erased_member_stays_erased() {
    let site = Site::start().await;
    let member = site.member().await;
    let at = format!("/admin/members/{}", member.uid);
    site.admin().delete(&at).await.done();

    for (method, path) in [
        (Method::PATCH, at.clone()),
        (Method::DELETE, at.clone()),
        (Method::POST, format!("{at}/activate")),
        (Method::POST, format!("{at}/organizations/{NOBODYS_ID}")),
    ] {
        let reply = site.admin().send(method, &path, Some(json!({}))).await;
        assert_eq!(reply.is(29_309_000).word(), "member_deleted", "{path}");
    }
    assert_eq!(member.caller().get("/me").await.is(28_501_000).word(), "invalid_bearer_token");
    assert_eq!(site.admin().get(&format!("/admin/members?keyword={}", member.username)).await.data()["total"], 0);
}

#[tokio::test]
async fn stored_responses_of_idempotency_keys_are_erased_with_the_member() {
    let site = Site::start().await;
    let body = json!({"username": "kim", "email": "kim@example.org", "display_name": "Kim Example"});
    let once = site.admin().with("idempotency-key", "k1");
    let kim = once.post("/admin/members", body).await.data();

    site.admin().delete(&format!("/admin/members/{}", kim["uid"].as_str().unwrap())).await.done();

    assert_eq!(rows_that_name(&site, &["kim@example.org", "Kim Example"]), [""; 0]);
}

#[tokio::test]
async fn stored_responses_that_name_an_erased_member_are_not_returned() {
    let site = Site::start().await;
    let body = json!({"username": "kim", "email": "kim@example.org", "display_name": "Kim Example"});
    let once = site.admin().with("idempotency-key", "k1");
    let kim = once.post("/admin/members", body.clone()).await.data();
    let uid = kim["uid"].as_str().unwrap();
    assert_eq!(once.post("/admin/members", body.clone()).await.data(), kim);
    // More responses than one batch reads; every third names the member.
    site.write_rows(|rows| {
        rows.execute_batch(&format!(
            "insert into idempotency_keys (caller, action, key, fingerprint, answer, created_at)
             with n (n) as (values (1) union all select n + 1 from n where n < 6000)
             select 'test', 'test', n, x'', iif(n % 3, '{{\"uid\":\"other\"}}', '{{\"uid\":\"{uid}\"}}'),
                    unixepoch() * 1000
             from n;
             insert into erased_names (name) values ('{uid}');"
        ))
    });
    // The state right after the erasure: the response is still stored, and nobody gets it.
    assert_eq!(once.post("/admin/members", body).await.word(), "email_exists");

    site.admin().delete(&format!("/admin/members/{uid}")).await.done();

    let left = |what: &str| -> i64 {
        site.rows().query_row(&format!("select count(*) from {what}"), [], |row| row.get(0)).unwrap()
    };
    assert_eq!(left(&format!("idempotency_keys where instr(answer, '{uid}') > 0")), 0);
    assert_eq!((left("idempotency_keys where caller = 'test'"), left("erased_names")), (4_000, 0));
}

/// Tables with a row that contains one of these texts.
fn rows_that_name(site: &Site, texts: &[&str]) -> Vec<String> {
    let rows = site.rows();
    let mut tables = rows.prepare("select name from sqlite_schema where type = 'table'").unwrap();
    let tables: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let names = |table: &String| {
        let mut all = rows.prepare(&format!("select * from {table}")).unwrap();
        let columns = all.column_count();
        let mut found = all.query([]).unwrap();
        while let Some(row) = found.next().unwrap() {
            for column in 0..columns {
                let value = row.get_ref(column).unwrap();
                if value.as_str().is_ok_and(|value| texts.iter().any(|text| value.contains(text))) {
                    return true;
                }
            }
        }
        false
    };
    tables.into_iter().filter(names).collect()
}

// ── memberships ──

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

// ── a member's own data ──

#[tokio::test]
async fn a_member_sees_itself_with_its_organizations() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;

    let me = member.caller().get("/me").await.data();

    assert_eq!(
        (&me["sub"], &me["uid"], &me["username"]),
        (&json!(member.uid), &json!(member.uid), &json!(member.username))
    );
    assert_eq!((&me["email"], &me["display_name"]), (&Value::Null, &Value::Null));
    assert_eq!(me["organizations"].as_array().map(Vec::len), Some(1));
    assert_eq!(me["organizations"][0]["id"], acme.id);
    assert_eq!(member.caller().get("/api/v1/me").await.data(), me);
}

#[tokio::test]
async fn a_member_changes_its_display_name_and_nothing_else() {
    let site = Site::start().await;
    let member = site.member().await;

    let named = member.caller().patch("/me", json!({"display_name": "Kim"})).await;
    let refused =
        member.caller().patch("/me", json!({"email": "k@example.org", "is_active": true, "display_name": "\n"})).await;
    let stale = member.caller().with("if-match", "\"1\"").patch("/me", json!({"display_name": "Lee"})).await;
    let cleared = member.caller().patch("/me", json!({"display_name": null})).await;

    assert_eq!((&named.data()["display_name"], named.header("etag")), (&json!("Kim"), Some("\"2\"")));
    assert_eq!(refused.is(10_101_000).fields(), ["body.display_name", "body.email", "body.is_active"]);
    assert_eq!(stale.is(10_310_000).word(), "version_stale");
    assert_eq!(cleared.data()["display_name"], Value::Null);
}

#[tokio::test]
async fn an_api_client_has_no_profile() {
    let site = Site::start().await;
    let client = site.client(&["*"]).await;

    assert_eq!(client.get("/me").await.is(28_501_000).word(), "missing_bearer_token");
    assert_eq!(site.internal().get("/me").await.is(28_501_000).word(), "missing_bearer_token");
}

// ── operations for the services of the site ──

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

// ── limits on their number, and what a refusal reveals ──

#[tokio::test]
async fn the_limit_of_members_holds_for_every_way_to_create_one_and_not_one_past_it() {
    const WAYS: [&str; 7] = ["member", "user", "import", "grant", "subject", "invitation", "owner"];
    for way in WAYS {
        // The administrator, an owner, and one more member.
        let site = Site::with("limits.members = 3\n").await;
        let acme = site.organization("acme").await;
        let make = async |n: usize| {
            let (name, email) = (format!("kim{n}"), format!("kim{n}@example.org"));
            let (admin, right) =
                (site.admin(), json!({"scope_type": "system", "scope_id": "*", "module": "a", "action": "b"}));
            match way {
                "member" => admin.post("/admin/members", json!({"username": name})).await,
                "user" => admin.post("/admin/users", json!({"username": name, "email": email})).await,
                "import" => {
                    let users = json!({"users": [{"username": name, "email": email}]});
                    admin.post("/admin/users/import", users).await
                }
                "grant" => {
                    let mut body = right;
                    body["authentik_sub"] = json!(name);
                    admin.post("/admin/permissions/grant", body).await
                }
                "subject" => {
                    let body = json!({"sub": name, "username": name});
                    site.internal().post("/internal/users/upsert-by-sub", body).await
                }
                "invitation" => {
                    let made = acme.owner().post("/admin/invitations", json!({})).await.data();
                    let body = json!({"token": made["token"], "username": name, "password": PASSWORD});
                    site.nobody().post("/auth/invitations/accept", body).await
                }
                _ => {
                    let body = json!({"username": name, "password": PASSWORD});
                    acme.owner().post("/admin/members", body).await
                }
            }
        };

        make(1).await.done();
        let refused = make(2).await;

        if way == "import" {
            let failed = &refused.data()["failed"][0]["fields"][0]["message"];
            assert!(failed.as_str().expect("why").contains("limits.members"), "{failed}");
        } else {
            assert_eq!(refused.is(29_309_000).word(), "site_full", "{way}");
        }
        let count = site.rows().query_row("select count(*) from members", [], |row| row.get::<_, i64>(0));
        assert_eq!(count.expect("a number"), 3, "{way}");
    }
}

#[tokio::test]
async fn a_caller_in_one_organization_can_test_few_names_of_others() {
    let site = Site::with("auth.slow_account_failures = 3\n").await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    for n in 0..5 {
        let new = json!({"username": format!("theirs{n}"), "email": format!("theirs{n}@example.org")});
        bolt.owner().post("/admin/members", new.clone()).await.done();
        let new = json!({"username": format!("ours{n}"), "email": format!("ours{n}@example.org")});
        acme.owner().post("/admin/members", new).await.done();
    }
    let uid = acme.member().await.uid;
    let manager = acme.member_with_role("member_manager").await;
    let new = |n: usize| json!({"email": format!("theirs{n}@example.org")});
    let create = async |body: Value| manager.caller().post("/admin/members", body).await;

    // Names of its own members are not counted, because it sees them anyway.
    for n in 0..5 {
        assert_eq!(create(json!({"email": format!("ours{n}@example.org")})).await.word(), "email_exists");
    }
    assert_eq!(create(new(0)).await.word(), "email_exists");
    let patched = manager.caller().patch(&format!("/admin/members/{uid}"), new(1)).await;
    assert_eq!(patched.word(), "email_exists");
    let invited = async |n: usize| {
        let made = manager.caller().post("/admin/invitations", json!({})).await.data();
        let body = json!({"token": made["token"], "email": format!("theirs{n}@example.org"), "password": PASSWORD});
        site.nobody().post("/auth/invitations/accept", body).await
    };
    assert_eq!(invited(2).await.word(), "email_exists");
    for reply in
        [create(new(3)).await, invited(3).await, manager.caller().patch(&format!("/admin/members/{uid}"), new(3)).await]
    {
        assert_eq!((reply.status, reply.word()), (429, "too_many_failures"));
        assert!(reply.header("retry-after").is_some());
    }
    // Other callers of the same organization cannot test more names either.
    assert_eq!(acme.owner().post("/admin/members", new(3)).await.word(), "too_many_failures");
    // Callers in other organizations and of the site are not slowed down.
    bolt.owner().post("/admin/members", json!({"username": "free"})).await.done();
    for n in 0..5 {
        assert_eq!(site.admin().post("/admin/members", new(n)).await.word(), "email_exists");
    }
}

#[tokio::test]
async fn an_organization_creates_members_up_to_its_share_and_not_one_past_it() {
    // The administrator and two owners, whom the site created. One organization may use half of the remaining places.
    for (settings, part) in
        [("limits.members = 8\n", 4), ("limits.members = 8\nlimits.members_per_organization = 3\n", 3)]
    {
        let site = Site::with(settings).await;
        let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
        let make = async |organization: &Organization<'_>, name: String| {
            organization.owner().post("/admin/members", json!({"username": name})).await
        };
        let is_full = |reply: &Reply, why: &str| {
            assert_eq!(reply.is(29_309_000).word(), "site_full", "{reply:?}");
            assert!(reply.body["message"].as_str().expect("why").contains(why), "{reply:?}");
        };
        let invite = async |name: &str| {
            let made = acme.owner().post("/admin/invitations", json!({})).await.data();
            let body = json!({"token": made["token"], "username": name, "password": PASSWORD});
            site.nobody().post("/auth/invitations/accept", body).await
        };
        invite("guest").await.done();
        let mut uids = Vec::new();
        for n in 1..part {
            uids.push(make(&acme, format!("ours{n}")).await.data()["uid"].as_str().expect("uid").to_owned());
        }

        is_full(&make(&acme, "more".into()).await, "limits.members_per_organization");
        is_full(&invite("more").await, "limits.members_per_organization");
        // A member who leaves the organization still counts; an erased one does not.
        acme.owner().delete(&format!("/admin/members/{}/organizations/{}", uids[0], acme.id)).await.done();
        is_full(&make(&acme, "more".into()).await, "limits.members_per_organization");
        site.admin().delete(&format!("/admin/members/{}", uids[1])).await.done();
        make(&acme, "again".into()).await.done();
        // The other organization gets its share of the rest, and the site everything that is left.
        for n in 0..5 - part {
            make(&bolt, format!("theirs{n}")).await.done();
        }
        is_full(&make(&bolt, "more".into()).await, "the site has");
        site.admin().delete(&format!("/admin/members/{}", uids[0])).await.done();
        site.admin().post("/admin/members", json!({"username": "last"})).await.done();
        is_full(&site.admin().post("/admin/members", json!({"username": "one-more"})).await, "the site has");
    }
}
