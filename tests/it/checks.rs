//! Decisions over HTTP: `POST /check`.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use roster::kernel::authz::path::canonical;
use serde_json::{Value, json};

use crate::site::{Organization, PASSWORD, Site};

const CHECK: &str = "/api/v1/permissions/check";
const FORBIDDEN: u64 = 31_505_000;
const BAD_INPUT: u64 = 10_101_000;
const NO_ORGANIZATION: u64 = 31_301_000;

// ── helpers ──

/// A question about a route.
fn route(uid: &str, method: &str, path: &str) -> Value {
    json!({"uid": uid, "method": method, "path": path})
}

fn right(uid: &str, scope_type: &str, scope_id: &str) -> Value {
    json!({"uid": uid, "scope_type": scope_type, "scope_id": scope_id, "module": "cameras", "action": "view"})
}

async fn reason(organization: &Organization<'_>, question: Value) -> String {
    let decision = organization.check(question).await;
    let word = decision["reason"].as_str().expect("a reason").to_owned();
    assert_eq!(decision["allow"], json!(word.starts_with("ok_")), "{decision}");
    word
}

async fn reasons(organization: &Organization<'_>, uid: &str, questions: &[(&str, &str, &str)]) {
    let mut answers = Vec::new();
    for (method, path, _) in questions {
        answers.push((*method, *path, reason(organization, route(uid, method, path)).await));
    }
    let answers: Vec<(&str, &str, &str)> =
        answers.iter().map(|(method, path, reason)| (*method, *path, reason.as_str())).collect();
    assert_eq!(answers, questions);
}

async fn grant(site: &Site, body: Value) {
    site.admin().post("/admin/permissions/grant", body).await.done();
}

/// A catalog with a specific template under an umbrella.
fn files() -> Value {
    json!([
        {"name": "one", "http_methods": "GET", "http_path": "/files/:id"},
        {"name": "export", "http_methods": "POST", "http_path": "/files/export"},
        {"name": "all", "http_methods": "GET|POST|DELETE", "http_path": "/files/*rest"},
        {"name": "star", "http_methods": "*", "http_path": "/dav/{name}"},
        {"name": "probe", "http_methods": "HEAD", "http_path": "/probe"},
        {"name": "read", "http_methods": "GET", "http_path": "/probe"},
        {"name": "root", "http_methods": "GET", "http_path": "/"},
    ])
}

// ── routes ──

#[tokio::test]
async fn a_route_is_allowed_denied_unmapped_or_not_mapped_for_the_method() {
    let site = Site::start().await;
    site.import(files()).await;
    let acme = site.organization("acme").await;
    let (holder, other) = (acme.member_with(&["one", "root"]).await, acme.member().await);

    let decision = acme.check(route(&holder.uid, "GET", "/files/7")).await;
    assert_eq!(decision.as_object().expect("a decision").keys().collect::<Vec<_>>(), ["allow", "epoch", "reason"]);
    reasons(
        &acme,
        &holder.uid,
        &[
            ("GET", "/files/7", "ok_role"),
            ("GET", "/files/7/", "ok_role"),
            ("GET", "/files/7?x=/../y", "ok_role"),
            ("GET", "/files/caf%C3%A9", "ok_role"),
            ("GET", "/", "ok_role"),
            ("GET", "/nowhere", "unmapped_route"),
            ("GET", "/Files/7", "unmapped_route"),
            ("GET", "/files", "unmapped_route"),
            ("PATCH", "/files/7", "method_not_mapped"),
            ("get", "/files/7", "method_not_mapped"),
            ("GET|POST", "/files/7", "method_not_mapped"),
            ("", "/files/7", "method_not_mapped"),
            ("*", "/files/7", "method_not_mapped"),
            ("GET", "/files/7/pages", "no_permission"),
        ],
    )
    .await;
    assert_eq!(reason(&acme, route(&other.uid, "GET", "/files/7")).await, "no_permission");
    assert_eq!(reason(&acme, json!({"uid": holder.uid, "permission": "one"})).await, "ok_role");
    assert_eq!(reason(&acme, json!({"uid": holder.uid, "permission": "nowhere"})).await, "no_permission");
}

#[tokio::test]
async fn a_path_that_is_not_canonical_is_denied_and_never_normalized() {
    let site = Site::start().await;
    site.import(json!([{"name": "all", "http_methods": "*", "http_path": "/*rest"}, {"name": "root", "http_methods": "*", "http_path": "/"}])).await;
    let acme = site.organization("acme").await;
    let member = acme.member_with(&["all", "root"]).await;
    let mut taken = Vec::new();

    for path in [
        "",
        "a",
        "*",
        "http://h/a",
        "//",
        "//a",
        "/a//b",
        "/a//",
        "/a/../b",
        "/a/..",
        "/a/.",
        "/./a",
        "/a/%2e",
        "/%2e%2e/a",
        "/%2E%2E",
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a\\b",
        "/a;v=1",
        "/a%3bv",
        "/a#b",
        "/a%23",
        "/a%00",
        "/a%0a",
        "/a%7f",
        "/a%252e",
        "/a%25",
        "/a%",
        "/a%2",
        "/a%zz",
        "/a%ff",
        "/a%c3",
        "/a%3f",
        "/a\u{7f}",
        "/a\tb",
        "/a b",
        "/é",
        "/a\u{0}",
    ] {
        if reason(&acme, route(&member.uid, "GET", path)).await != "path_not_canonical" {
            taken.push(path);
        }
    }
    assert_eq!(taken, [""; 0]);
    for path in ["/", "/?", "/a", "/a/", "/a%40b", "/a%20b", "/...", "/a/..b", "/a?b//c#d%zz", "/%41"] {
        assert_eq!(reason(&acme, route(&member.uid, "GET", path)).await, "ok_role", "{path:?}");
    }
}

#[tokio::test]
async fn head_is_covered_by_get_unless_it_is_listed() {
    let site = Site::start().await;
    site.import(files()).await;
    let acme = site.organization("acme").await;
    let (one, read, probe) =
        (acme.member_with(&["one"]).await, acme.member_with(&["read"]).await, acme.member_with(&["probe"]).await);

    reasons(&acme, &one.uid, &[("HEAD", "/files/7", "ok_role"), ("HEAD", "/files/export", "method_not_mapped")]).await;
    reasons(&acme, &read.uid, &[("GET", "/probe", "ok_role"), ("HEAD", "/probe", "no_permission")]).await;
    reasons(&acme, &probe.uid, &[("GET", "/probe", "no_permission"), ("HEAD", "/probe", "ok_role")]).await;
}

#[tokio::test]
async fn head_listed_by_an_umbrella_is_not_covered_by_its_get() {
    let site = Site::start().await;
    site.import(json!([
        {"name": "any", "http_methods": "*", "http_path": "/a/:id"},
        {"name": "umbrella.get", "http_methods": "GET", "http_path": "/a/*rest"},
        {"name": "umbrella.head", "http_methods": "HEAD", "http_path": "/a/*rest"},
    ]))
    .await;
    let acme = site.organization("acme").await;
    let getter = acme.member_with(&["umbrella.get"]).await;
    reasons(&acme, &getter.uid, &[("GET", "/a/1", "ok_role"), ("HEAD", "/a/1", "no_permission")]).await;
}

#[tokio::test]
async fn an_umbrella_adds_to_what_it_covers_and_decides_alone_elsewhere() {
    let site = Site::start().await;
    site.import(files()).await;
    let acme = site.organization("acme").await;
    let member = acme.member_with(&["all"]).await;
    reasons(
        &acme,
        &member.uid,
        &[
            ("GET", "/files/7", "ok_role"),
            ("HEAD", "/files/7", "ok_role"),
            ("POST", "/files/export", "ok_role"),
            ("GET", "/files/7/pages", "ok_role"),
            ("DELETE", "/files/7/pages/3", "ok_role"),
            ("GET", "/files", "unmapped_route"),
        ],
    )
    .await;
}

#[tokio::test]
async fn the_most_specific_template_decides_without_falling_through() {
    let site = Site::start().await;
    site.import(files()).await;
    let acme = site.organization("acme").await;
    let member = acme.member_with(&["one", "all", "export"]).await;
    reasons(
        &acme,
        &member.uid,
        &[
            ("DELETE", "/files/7", "method_not_mapped"),
            ("GET", "/files/export", "method_not_mapped"),
            ("DELETE", "/files/export", "method_not_mapped"),
            ("POST", "/files/export", "ok_role"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_star_matches_every_method_that_is_a_token() {
    let site = Site::start().await;
    site.import(files()).await;
    let acme = site.organization("acme").await;
    let member = acme.member_with(&["star"]).await;
    reasons(
        &acme,
        &member.uid,
        &[
            ("PROPFIND", "/dav/x", "ok_role"),
            ("HEAD", "/dav/x", "ok_role"),
            ("propfind", "/dav/x", "method_not_mapped"),
            ("*", "/dav/x", "method_not_mapped"),
            ("GET POST", "/dav/x", "method_not_mapped"),
        ],
    )
    .await;
}

#[tokio::test]
async fn paths_belong_to_an_application() {
    let site = Site::start().await;
    for app in ["main", "files"] {
        let entry = json!({"name": format!("{app}.read"), "http_methods": "GET", "http_path": "/api/things"});
        site.admin()
            .put(&format!("/api/v1/permissions/catalog?app={app}"), json!({"permissions": [entry]}))
            .await
            .done();
    }
    let acme = site.organization("acme").await;
    let member = acme.member_with(&["files.read"]).await;
    let ask = async |app: &str| {
        reason(&acme, json!({"uid": member.uid, "method": "GET", "path": "/api/things", "app": app})).await
    };

    assert_eq!(ask("files").await, "ok_role");
    assert_eq!(ask("main").await, "no_permission");
    assert_eq!(ask("nowhere").await, "unmapped_route");
    assert_eq!(reason(&acme, route(&member.uid, "GET", "/api/things")).await, "no_permission");
}

// ── the shape of a question ──

#[tokio::test]
async fn a_batch_is_answered_in_order_up_to_a_hundred() {
    let site = Site::start().await;
    site.import(files()).await;
    let acme = site.organization("acme").await;
    let member = acme.member_with(&["one"]).await;
    let questions: Vec<Value> =
        (0..101).map(|n| route(&member.uid, if n % 3 == 0 { "GET" } else { "PUT" }, "/files/7")).collect();
    let ask = async |questions: &[Value]| acme.admin().post(CHECK, json!({"questions": questions})).await;

    let decisions = ask(&questions[..100]).await.data()["decisions"].clone();

    let answers: Vec<bool> =
        decisions.as_array().expect("decisions").iter().map(|decision| decision["allow"] == true).collect();
    assert_eq!(answers, (0..100).map(|n| n % 3 == 0).collect::<Vec<_>>());
    let epochs: BTreeSet<u64> =
        decisions.as_array().expect("decisions").iter().filter_map(|decision| decision["epoch"].as_u64()).collect();
    assert_eq!(epochs.len(), 1, "one snapshot decides all questions");
    assert_eq!(ask(&questions).await.is(BAD_INPUT).fields(), ["body.questions"]);
    assert_eq!(ask(&[]).await.is(BAD_INPUT).fields(), ["body.questions"]);
}

#[tokio::test]
async fn a_question_is_either_a_route_a_permission_or_a_right() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let ask = async |body: Value| acme.owner().post(CHECK, body).await.is(BAD_INPUT).fields();

    for question in [
        json!({}),
        json!({"uid": "x"}),
        json!({"permission": "one"}),
        json!({"uid": "x", "method": "GET"}),
        json!({"uid": "x", "path": "/"}),
        json!({"uid": "x", "method": "GET", "path": "/", "permission": "one"}),
        json!({"uid": "x", "scope_type": "site", "scope_id": "a", "module": "m"}),
        json!({"uid": "x", "permission": "one", "action": "a"}),
        json!({"uid": "x", "permission": "one", "app": "main"}),
    ] {
        assert_eq!(ask(question.clone()).await, ["body"], "{question}");
        let batch = json!({"questions": [{"uid": "x", "permission": "one"}, question]});
        assert_eq!(ask(batch).await, ["body.questions.1"]);
    }
    assert_eq!(ask(json!({"uid": 7, "permission": "one", "colour": "red"})).await, ["body.colour", "body.uid"]);
    assert_eq!(ask(json!({"uid": "x", "questions": [{"uid": "x", "permission": "one"}]})).await, ["body.questions"]);
}

#[tokio::test]
async fn a_caller_can_require_a_minimum_epoch() {
    let site = Site::start().await;
    site.import(files()).await;
    let acme = site.organization("acme").await;
    let (member, role) = (acme.member().await, acme.role("reader", &["one"]).await);
    let made =
        acme.owner().post(&format!("/api/v1/permissions/users/{}/roles", member.uid), json!({"role_id": role})).await;
    let ask = async |epoch: u64| {
        acme.owner().post(CHECK, json!({"uid": member.uid, "permission": "one", "min_epoch": epoch})).await
    };

    let decision = ask(made.epoch()).await.data();
    assert_eq!((&decision["allow"], decision["epoch"].as_u64() >= Some(made.epoch())), (&json!(true), true));
    let early = ask(made.epoch() + 1_000).await;
    assert_eq!((early.is(31_606_000).word(), early.status), ("epoch_not_reached", 503));
    assert_eq!(early.header("retry-after"), Some("1"));
}

// ── gates ──

#[tokio::test]
async fn a_gate_that_fails_denies_with_its_own_reason() {
    let site = Site::start().await;
    site.import(files()).await;
    let acme = site.organization("acme").await;
    let (member, stranger) = (acme.member_with(&["one"]).await, site.member().await);
    let client = site.client(&["permissions:check"]).await.with("x-tenant-id", &acme.id);
    let ask = async |uid: &str| {
        client.post(CHECK, route(uid, "GET", "/files/7")).await.data()["reason"].as_str().expect("a reason").to_owned()
    };

    assert_eq!(ask(&member.uid).await, "ok_role");
    for uid in [stranger.uid.as_str(), "no-id", &uuid::Uuid::now_v7().to_string()] {
        assert_eq!(ask(uid).await, "not_a_member");
    }
    client.post(CHECK, route("", "GET", "/files/7")).await.is(10_101_000);
    site.admin().post(&format!("/admin/members/{}/deactivate", member.uid), json!({})).await.done();
    assert_eq!(ask(&member.uid).await, "member_inactive");
    site.admin().post(&format!("/admin/organizations/{}/deactivate", acme.id), json!({})).await.done();
    assert_eq!(ask(&member.uid).await, "tenant_inactive");
    let admin = site.admin().get("/me").await.data()["uid"].as_str().expect("uid").to_owned();
    assert_eq!(ask(&admin).await, "tenant_inactive", "not even the platform");
    site.admin().post(&format!("/admin/members/{}/activate", member.uid), json!({})).await.done();
    site.admin().post(&format!("/admin/organizations/{}/activate", acme.id), json!({})).await.done();
    assert_eq!(ask(&member.uid).await, "ok_role");
}

#[tokio::test]
async fn a_suspended_member_of_another_tenant_looks_like_an_unknown_one() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let foreign = bolt.member().await;
    site.admin().post(&format!("/admin/members/{}/deactivate", foreign.uid), json!({})).await.done();

    let decision = acme.owner().post(CHECK, json!({"uid": foreign.uid, "permission": "roster.role.list"})).await.data();

    assert_eq!(decision["reason"], json!("not_a_member"));
}

#[tokio::test]
async fn an_inactive_foreign_organization_looks_like_an_unknown_one() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let member = acme.member().await;
    site.admin().post(&format!("/admin/organizations/{}/deactivate", bolt.id), json!({})).await.done();

    let decision = acme.owner().post(CHECK, right(&member.uid, "organization", "bolt")).await.data();

    assert_eq!(decision["reason"], json!("no_permission"));
}

#[tokio::test]
async fn a_platform_administrator_may_act_in_every_active_tenant() {
    let site = Site::start().await;
    site.import(files()).await;
    let acme = site.organization("acme").await;
    let admin = site.admin().get("/me").await.data()["uid"].as_str().expect("uid").to_owned();

    reasons(
        &acme,
        &admin,
        &[("GET", "/files/7", "ok_role"), ("PUT", "/files/7", "method_not_mapped"), ("GET", "/x", "unmapped_route")],
    )
    .await;
    assert_eq!(reason(&acme, json!({"uid": admin, "permission": "roster.client.create"})).await, "ok_role");
    assert_eq!(reason(&acme, json!({"uid": admin, "permission": "nowhere"})).await, "no_permission");
    assert_eq!(reason(&acme, right(&admin, "site", "north")).await, "no_permission", "a direct right is a row");
}

#[tokio::test]
async fn a_change_takes_effect_in_the_next_request() {
    let site = Site::start().await;
    site.import(files()).await;
    let acme = site.organization("acme").await;
    let (role, member) = (acme.role("reader", &["one"]).await, acme.member().await);
    let client = site.client(&["permissions:check"]).await.with("x-tenant-id", &acme.id);
    let ask = async || {
        client.post(CHECK, route(&member.uid, "GET", "/files/7")).await.data()["reason"]
            .as_str()
            .expect("a reason")
            .to_owned()
    };
    let (admin, roles) = (acme.admin(), format!("/api/v1/permissions/users/{}/roles", member.uid));

    for _ in 0..5 {
        // A suspension ends earlier sessions.
        let me = site.bearer(&site.token(&member.username, PASSWORD).await);
        admin.post(&roles, json!({"role_id": role})).await.done();
        assert_eq!(ask().await, "ok_role");
        assert_eq!(me.get("/api/v1/permissions/me").await.data()["permissions"]["one"], json!("open"));
        site.admin().post(&format!("/admin/members/{}/deactivate", member.uid), json!({})).await.done();
        assert_eq!(ask().await, "member_inactive");
        me.get("/api/v1/permissions/me").await.is(31_501_000);
        site.admin().post(&format!("/admin/members/{}/activate", member.uid), json!({})).await.done();
        assert_eq!(ask().await, "ok_role");
        site.admin().post(&format!("/admin/organizations/{}/deactivate", acme.id), json!({})).await.done();
        assert_eq!(ask().await, "tenant_inactive");
        site.admin().post(&format!("/admin/organizations/{}/activate", acme.id), json!({})).await.done();
        admin.delete(&format!("{roles}/{role}")).await.done();
        assert_eq!(ask().await, "no_permission");
        admin.delete(&format!("/admin/members/{}/organizations/{}", member.uid, acme.id)).await.done();
        assert_eq!(ask().await, "not_a_member");
        acme.link(&member.uid).await;
    }
}

// ── grants ──

#[tokio::test]
async fn a_grant_covers_its_scope_and_a_star_covers_all() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (one, all) = (acme.member().await, acme.member().await);
    grant(&site, right(&one.uid, "site", "north")).await;
    grant(&site, right(&all.uid, "site", "*")).await;

    for (uid, scope_type, scope_id, expected) in [
        (&one.uid, "site", "north", "ok_grant"),
        (&one.uid, "site", "south", "no_permission"),
        (&one.uid, "site", "*", "no_permission"),
        (&one.uid, "area", "north", "no_permission"),
        (&all.uid, "site", "north", "ok_grant"),
        (&all.uid, "site", "*", "ok_grant"),
        (&all.uid, "area", "north", "no_permission"),
    ] {
        assert_eq!(reason(&acme, right(uid, scope_type, scope_id)).await, expected, "{scope_type} {scope_id}");
    }
    site.admin().post("/admin/permissions/revoke", right(&all.uid, "site", "*")).await.done();
    assert_eq!(reason(&acme, right(&all.uid, "site", "north")).await, "no_permission");
}

#[tokio::test]
async fn a_grant_over_an_inactive_organization_has_no_effect() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let member = acme.member().await;
    for scope_type in ["organization", "tenant", "site"] {
        grant(&site, right(&member.uid, scope_type, "*")).await;
        grant(&site, right(&member.uid, scope_type, &bolt.id)).await;
    }
    let ask = async |scope_type: &str, scope_id: &str| {
        acme.check(right(&member.uid, scope_type, scope_id)).await["allow"] == true
    };

    assert!(ask("organization", &bolt.id).await && ask("tenant", "bolt").await);
    site.admin().post(&format!("/admin/organizations/{}/deactivate", bolt.id), json!({})).await.done();
    for scope_id in [bolt.id.as_str(), "bolt"] {
        assert!(!ask("organization", scope_id).await && !ask("tenant", scope_id).await && ask("site", scope_id).await);
    }
    assert!(ask("organization", &acme.id).await);
    let snapshot = member.caller().get("/me/permissions/snapshot?scope_type=tenant").await.data();
    assert_eq!(snapshot["permissions"].as_array().map(Vec::len), Some(1), "only the star");
}

// ── callers ──

#[tokio::test]
async fn a_client_asks_in_the_tenant_it_names_by_id_or_code() {
    let site = Site::start().await;
    site.import(files()).await;
    let acme = site.organization("acme").await;
    let member = acme.member_with(&["one"]).await;
    let client = site.client(&["permissions:check"]).await;
    let question = route(&member.uid, "GET", "/files/7");

    for name in [&acme.id, "acme"] {
        let decision = client.clone().with("x-tenant-id", name).post(CHECK, question.clone()).await.data();
        assert_eq!(decision["reason"], json!("ok_role"), "{name}");
    }
    assert_eq!(client.post(CHECK, question.clone()).await.is(BAD_INPUT).fields(), ["header.X-Tenant-ID"]);
    client.clone().with("x-tenant-id", "nowhere").post(CHECK, question.clone()).await.is(NO_ORGANIZATION);
    grant(&site, right(&member.uid, "site", "north")).await;
    assert_eq!(
        client.post(CHECK, right(&member.uid, "site", "north")).await.data()["reason"],
        json!("ok_grant"),
        "of the site"
    );
    let other = site.client(&["permissions:read", "permissions:write", "members:write"]).await;
    assert_eq!(other.with("x-tenant-id", "acme").post(CHECK, question).await.is(FORBIDDEN).word(), "scope_not_allowed");
}

#[tokio::test]
async fn a_code_equal_to_another_organization_s_id_does_not_shadow_the_id() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let asker = acme.member_with(&["roster.policy.check"]).await;

    // Whether the code is refused or accepted, the id still names the organization with this id.
    site.admin().post("/admin/organizations", json!({"org_code": acme.id, "name": "Impostor"})).await;

    let question = json!({"uid": asker.uid, "permission": "roster.policy.check"});
    let client = site.client(&["permissions:check"]).await;
    let decision = client.with("x-tenant-id", &acme.id).post(CHECK, question).await.data();
    assert_eq!(decision["reason"], json!("ok_role"));
}

#[tokio::test]
async fn a_member_asks_in_its_own_tenant_only() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let (asker, plain) = (acme.member_with(&["roster.policy.check"]).await, acme.member().await);
    let question = json!({"uid": asker.uid, "permission": "roster.policy.check"});

    assert_eq!(asker.caller().post(CHECK, question.clone()).await.data()["reason"], json!("ok_role"));
    asker.caller().with("x-tenant-id", "acme").post(CHECK, question.clone()).await.done();
    asker.caller().with("x-tenant-id", &bolt.id).post(CHECK, question.clone()).await.is(NO_ORGANIZATION);
    plain.caller().post(CHECK, question.clone()).await.is(FORBIDDEN);
    assert_eq!(bolt.owner().post(CHECK, question).await.data()["reason"], json!("not_a_member"));
}

// ── explain ──

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

// ── during changes ──

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_answer_is_older_than_the_last_acknowledged_change() {
    const TOGGLES: u64 = 60;
    let site = Site::start().await;
    site.import(files()).await;
    let acme = site.organization("acme").await;
    let (role, member) = (acme.role("reader", &["one"]).await, acme.member().await);
    let roles = format!("/api/v1/permissions/users/{}/roles", member.uid);
    let (acknowledged, done) = (AtomicU64::new(0), AtomicBool::new(false));
    // The epoch of each change with its result, in the writer's order.
    let history = std::sync::Mutex::new(Vec::<(u64, bool)>::new());
    let read = async || {
        let (mut seen, mut asked) = (0, Vec::new());
        while !done.load(Ordering::SeqCst) {
            let known = acknowledged.load(Ordering::SeqCst);
            let decision = acme.check(route(&member.uid, "GET", "/files/7")).await;
            let epoch = decision["epoch"].as_u64().expect("an epoch");
            assert!(epoch >= known, "answered at {epoch}, after {known} was acknowledged");
            assert!(epoch >= seen, "the epoch went back from {seen} to {epoch}");
            seen = epoch;
            asked.push((epoch, decision["allow"] == true));
        }
        asked
    };
    let write = async {
        for n in 0..TOGGLES {
            let gives = n % 2 == 0;
            let reply = match gives {
                true => acme.admin().post(&roles, json!({"role_id": role})).await,
                false => acme.admin().delete(&format!("{roles}/{role}")).await,
            };
            history.lock().expect("history").push((reply.epoch(), gives));
            acknowledged.store(reply.epoch(), Ordering::SeqCst);
        }
        done.store(true, Ordering::SeqCst);
    };

    let ((), a, b, c) = tokio::join!(write, read(), read(), read());

    let history = history.into_inner().expect("history");
    for (epoch, allowed) in [a, b, c].concat() {
        let expected = history.iter().rev().find(|(changed, _)| *changed <= epoch).is_some_and(|(_, gives)| *gives);
        assert_eq!(allowed, expected, "at epoch {epoch}");
    }
}

// ── paths ──

/// A path segment: plain, encoded, irregular or hostile.
fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[a-c]{1,2}",
        2 => "[a-zA-Z0-9._~@:$&+,=!-]{1,6}",
        1 => prop::sample::select(vec!["%41", "%2e", "%2f", "%252e", ".", "..", "...", "", ";x", "a;b", "%", "%zz", "\\", "é", "%C3%A9", "{a}", ":a", "*", "%20", "a%00"])
            .prop_map(str::to_owned),
    ]
}

fn raw_path() -> impl Strategy<Value = String> {
    (prop::collection::vec(segment(), 0..5), prop::sample::select(vec!["", "/", "?q=1", "/?a/../b", "#x"]))
        .prop_map(|(segments, end)| format!("/{}{end}", segments.join("/")))
}

#[test]
fn a_canonical_path_is_idempotent_and_never_odd() {
    let mut runner = TestRunner::new(Config {
        cases: crate::site::rounds(20_000, 1_000_000),
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(&prop_oneof![raw_path(), "\\PC{0,12}", "/[ -~]{0,10}"], |raw| {
            let Some(once) = canonical(&raw) else { return Ok(()) };
            prop_assert!(once.starts_with('/'));
            prop_assert!(&*once == "/" || !once[1..].split('/').any(|segment| matches!(segment, "" | "." | "..")));
            prop_assert!(!once.contains(['%', '?', '#', ';', '\\']) && !once.chars().any(|c| c.is_ascii_control()));
            // Encoded for a request, the path is its own canonical form.
            let mut written = String::new();
            for byte in once.bytes() {
                match byte {
                    b'!'..=b'~' => written.push(char::from(byte)),
                    _ => written.push_str(&format!("%{byte:02X}")),
                }
            }
            let twice = canonical(&written);
            prop_assert_eq!(twice.as_deref(), Some(&*once));
            Ok(())
        })
        .expect("every path");
}

/// Templates of one tree, most specific first where they overlap.
const TEMPLATES: [&str; 10] =
    ["/", "/a", "/a/b", "/a/:x", "/a/:x/c", "/a/b/c", "/b/:x/:y", "/c/*rest", "/c/a", "/c/:x/b"];

#[tokio::test]
async fn poem_s_own_router_agrees_on_which_template_matches() {
    use poem::endpoint::make_sync;
    use poem::{Endpoint, EndpointExt, Route};
    let named = |template: &'static str| make_sync(move |_| template.to_owned()).boxed();
    let theirs = TEMPLATES.iter().fold(Route::new(), |route, template| route.at(*template, named(template)));
    let site = Site::start().await;
    let names: Vec<Value> = TEMPLATES
        .iter()
        .enumerate()
        .map(|(n, path)| json!({"name": format!("t{n}"), "http_methods": "GET", "http_path": path}))
        .collect();
    site.import(json!(names)).await;
    let acme = site.organization("acme").await;
    let owner = acme.owner().get("/me").await.data()["uid"].as_str().expect("uid").to_owned();
    let mut runner = TestRunner::new_with_rng(
        Config { failure_persistence: None, ..Config::default() },
        prop::test_runner::TestRng::deterministic_rng(prop::test_runner::RngAlgorithm::ChaCha),
    );
    let sample = |runner: &mut TestRunner| raw_path().new_tree(runner).expect("a path").current();

    for _ in 0..20 {
        let raws: Vec<String> = (0..100).map(|_| sample(&mut runner)).collect();
        let questions: Vec<Value> =
            raws.iter().map(|raw| json!({"uid": owner, "method": "GET", "path": raw, "explain": true})).collect();
        let ours = acme.check(json!({"questions": questions})).await;
        for (raw, decision) in raws.iter().zip(ours["decisions"].as_array().expect("decisions")) {
            let Some(path) = canonical(raw) else {
                assert_eq!(decision["reason"], json!("path_not_canonical"), "{raw}");
                continue;
            };
            let Ok(uri) = raw.parse::<poem::http::Uri>() else { continue };
            // poem's router gets the canonical path, encoded for the wire again.
            let wire = path
                .bytes()
                .map(|b| if b.is_ascii_graphic() { char::from(b).to_string() } else { format!("%{b:02X}") })
                .collect::<String>();
            let request = poem::Request::builder().uri(wire.parse().unwrap_or(uri)).finish();
            let matched = theirs.call(request).await.ok().map(|response| response.into_body());
            let matched = match matched {
                Some(body) => Some(body.into_string().await.expect("text")),
                None => None,
            };
            assert_eq!(decision["because"]["template"].as_str(), matched.as_deref(), "{raw} as {path}");
        }
    }
}
