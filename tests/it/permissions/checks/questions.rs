//! The shape of a question, and who asks.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{files, grant, right, route};
use crate::harness::site::Site;
use crate::permissions::{BAD_INPUT, CHECK, FORBIDDEN, NO_ORGANIZATION};

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
