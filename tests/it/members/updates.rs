//! What a new member must and may contain, and who changes what of a member.

use serde_json::{Value, json};

use super::audit_total;
use crate::harness::callers::As;
use crate::harness::site::Site;

/// The bad fields of a body; empty when it is accepted.
async fn faults(caller: &As<'_>, body: Value) -> Vec<String> {
    let reply = caller.post("/admin/members", body).await;
    if reply.status == 200 {
        return Vec::new();
    }
    reply.is(10_101_000).fields()
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
