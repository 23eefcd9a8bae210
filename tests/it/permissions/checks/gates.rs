//! Gates, grants, and questions during changes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;

use super::{files, grant, reason, reasons, right, route};
use crate::harness::site::{PASSWORD, Site};
use crate::permissions::CHECK;

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
